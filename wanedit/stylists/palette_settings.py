"""What the palette stylist can be told; imports nothing heavy, for the command line reads it."""

import math
from dataclasses import dataclass

from wanedit.errors import InputError

MAX_LEVELS = 32


@dataclass(frozen=True)
class PaletteSettings:
    """How the palette stylist works. Null is decided by the words of the description, else by a mild default.

    Attributes:
        strength: how far colours go to the reference's, above 0 to 1.
        paint: size of the brush, 0 (none) to 1.
        outline: how dark the ink lines are, 0 (none) to 1.
        posterise: levels of lightness, 2 to 32; 0 for none.
        paper: how much of the paper shows, 0 (none) to 1; it stays in its place while the picture moves.
        seed: of the paper, and of the directions along which colours are transported.
    """

    strength: float = 1.0
    paint: float | None = None
    outline: float | None = None
    posterise: int | None = None
    paper: float | None = None
    seed: int = 0


def check_palette(settings: PaletteSettings) -> None:
    """Refuse values out of range.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    if not (0 < settings.strength <= 1):
        raise InputError(f"palette.strength is {settings.strength}; expected above 0, up to 1")
    for name in ("paint", "outline", "paper"):
        value = getattr(settings, name)
        if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
            raise InputError(f"palette.{name} is {value}; expected 0 to 1, or null")
    levels = settings.posterise
    if levels is not None and levels != 0 and not 2 <= levels <= MAX_LEVELS:
        raise InputError(
            f"palette.posterise is {levels}; expected 2 to {MAX_LEVELS} levels, 0 for none, or null"
        )
    if settings.seed < 0:
        raise InputError(f"palette.seed is {settings.seed}; expected a number >= 0")
