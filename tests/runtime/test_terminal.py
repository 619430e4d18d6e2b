"""Pictures in a terminal: who is known to show them, what is sent, and that a pipe gets nothing."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.runs import command, run_cli
from wanedit.flow.path import schedule
from wanedit.lit.model import open_model
from wanedit.progress import listening
from wanedit.runtime import preview
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.preview import Previews
from wanedit.runtime.terminal import CHUNK, Picture, codes, protocol

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-256color"}, ""),
        ({"TERM": "tmux-256color", "TERM_PROGRAM": "iTerm.app"}, ""),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, ""),
        ({}, ""),
    ],
)
def test_a_terminal_is_known_by_what_it_says_it_is(environ: dict[str, str], expected: str) -> None:
    assert protocol(environ) == expected


def test_kitty_and_iterm2_are_sent_the_file_whole() -> None:
    png = bytes(range(256)) * 40
    sent = codes("kitty", png, PIXELS)
    parts = re.findall(r"\033_G([^;]*);([^\033]*)\033\\", sent)
    assert "".join(f"\033_G{head};{data}\033\\" for head, data in parts) == sent
    assert parts[0][0] == "a=T,f=100,q=2,r=6,m=1"
    assert [head for head, _ in parts[1:]] == ["m=1"] * (len(parts) - 2) + ["m=0"]
    assert all(len(data) <= CHUNK for _, data in parts)
    assert base64.b64decode("".join(data for _, data in parts)) == png
    head, data = codes("iterm2", png, PIXELS).removeprefix("\033]1337;File=").removesuffix("\a").split(":")
    assert head.split(";")[:2] == ["inline=1", f"size={len(png)}"]
    assert base64.b64decode(data) == png


def test_sixels_are_the_pixels_in_six_levels_of_each_colour() -> None:
    sent = codes("sixel", b"", PIXELS)
    body = sent.removeprefix('\033Pq"1;1;9;13').removesuffix("\033\\")
    defined = {int(c): [int(v) for v in rgb.split(";")] for c, rgb in re.findall(r"#(\d+);2;([\d;]+)", body)}
    drawn = np.full((18, 9, 3), -1)
    for top, band in enumerate(re.sub(r"#\d+;2;\d+;\d+;\d+", "", body).split("-")[:-1]):
        for line in band.split("$"):
            colour, bits = re.fullmatch(r"#(\d+)([?-~]+)", line).groups()  # pyright: ignore[reportOptionalMemberAccess]
            for x, one in enumerate(bits):
                for y in range(6):
                    if (ord(one) - 63) >> y & 1:
                        assert (drawn[6 * top + y, x] == -1).all()
                        drawn[6 * top + y, x] = defined[int(colour)]
    assert (drawn[13:] == -1).all()
    assert np.array_equal(drawn[:13], np.rint(PIXELS / 255 * 5) * 20)


def test_a_picture_stands_above_and_is_left_out_of_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = codes("kitty", b"some bytes", PIXELS)
    screen, pipe = io.StringIO(), io.StringIO()
    Console(file=screen, force_terminal=True, width=20).print(Picture(sent))
    Console(file=pipe).print(Picture(sent))
    assert sent in screen.getvalue()
    assert "\033" not in pipe.getvalue()
    # Of a run: shown while somebody listens, in such a terminal, not more often than every ten seconds.
    monkeypatch.setenv("TERM", "xterm-kitty")
    monkeypatch.delenv("TMUX", raising=False)
    shown = io.StringIO()
    monkeypatch.setattr(preview, "get_console", lambda: Console(file=shown, force_terminal=True))
    import torch

    step, clean = next(iter(schedule(4, 3.0))), torch.zeros(1, 16, 3, 8, 8)
    directory = RunDirectory(tmp_path, tmp_path / "film.mp4")

    def pictures(terminal: bool, heard: bool) -> int:
        shown.truncate(0)
        previews = Previews(directory, open_model("tiny"), every=1, terminal=terminal)
        for _ in range(2):
            if heard:
                with listening(lambda *_: None):  # pyright: ignore[reportArgumentType]
                    previews.show("segment_000_0123456789ab.safetensors", step, clean)
            else:
                previews.show("segment_000_0123456789ab.safetensors", step, clean)
        return shown.getvalue().count("a=T,f=100")

    assert [pictures(True, True), pictures(False, True), pictures(True, False)] == [1, 0, 0]


def test_a_run_into_a_pipe_prints_no_codes(
    keyframes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-kitty")
    said = run_cli(*command(keyframes, tmp_path / "out", "--preview=1"))
    assert "\033_G" not in said.out + said.err
