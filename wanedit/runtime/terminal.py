"""Pictures in a terminal that can show them: kitty's protocol, iTerm2's, or sixel, by what the terminal says it is.

Nothing is asked of the terminal itself, whose answer would be read as typed; one that is not known shows none. In tmux
and screen, which would print the codes, there is none either.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from rich.console import Console, ConsoleOptions
from rich.segment import ControlType, Segment

# Lines of text that a picture is high.
ROWS = 6
# Of a kitty command: bytes of base64 at once.
CHUNK = 4096
# Levels of each colour in sixel's palette.
LEVELS = 6


def protocol(environ: Mapping[str, str]) -> str:
    """ "kitty", "iterm2" or "sixel", by the variables that terminals set; "" for one that is not known to show any."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if "TMUX" in environ or term.startswith(("screen", "tmux", "dumb")):
        return ""
    if "KITTY_WINDOW_ID" in environ or term in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or environ.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    return "sixel" if term.startswith(("foot", "mlterm", "yaft", "contour")) else ""


def codes(kind: str, png: bytes, pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """What a terminal of this protocol shows a picture by, `ROWS` lines high; sixel as high as its pixels."""
    if kind == "sixel":
        return _sixel(pixels)
    data = base64.b64encode(png).decode()
    if kind == "iterm2":
        return f"\033]1337;File=inline=1;size={len(png)};height={ROWS};preserveAspectRatio=1:{data}\a"
    pieces = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    more = [int(k < len(pieces) - 1) for k in range(len(pieces))]
    # q=2: it answers nothing, which would be read as typed.
    heads = [f"a=T,f=100,q=2,r={ROWS},", *[""] * (len(pieces) - 1)]
    return "".join(f"\033_G{h}m={m};{p}\033\\" for h, m, p in zip(heads, more, pieces, strict=True))


def _sixel(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    """Six rows at a time, for each colour that they have a line of columns, a bit a row (DEC STD 070)."""
    levels = np.rint(pixels / 255 * (LEVELS - 1)).astype(int)
    colours = levels @ np.array([LEVELS * LEVELS, LEVELS, 1])
    out = [f'\033Pq"1;1;{pixels.shape[1]};{pixels.shape[0]}']
    for colour in np.unique(colours):
        red, green, blue = (
            round(100 * (colour // n % LEVELS) / (LEVELS - 1)) for n in (LEVELS * LEVELS, LEVELS, 1)
        )
        out.append(f"#{colour};2;{red};{green};{blue}")
    for top in range(0, len(colours), 6):
        band = colours[top : top + 6]
        bits = 1 << np.arange(len(band))[:, None]
        lines = [
            f"#{colour}" + "".join(chr(63 + int(b)) for b in ((band == colour) * bits).sum(0))
            for colour in np.unique(band)
        ]
        out.append("$".join(lines) + "-")
    return "".join(out) + "\033\\"


@dataclass(frozen=True)
class Picture:
    """For a rich console, which prints it above the bars that it draws, and leaves it out of a pipe."""

    codes: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        # A segment of control has no width, and is neither wrapped nor cut.
        yield Segment(self.codes, None, [(ControlType.BELL,)])
