"""Two small real runs, each made once on wan-tiny at 32*32: three generated segments, and an edit of nine frames."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from wanedit import EditConfig, EditResult, GenerationConfig, GenerationResult, edit, generate
from wanedit.progress import Advance, listening
from wanedit.video import write_lossless

TIMES = (0.0, 0.25, 0.5, 0.8)
FAST = {"size": "32*32", "num_inference_steps": 2, "base_seed": 7, "cpu_threads": 1, "guidance_scale": 2.0}
Run = Callable[..., GenerationResult]
Heard = list[list[Any]]


def draw_keyframe(path: Path, shade: int) -> Path:
    """A square on a gradient; `shade` moves and colours it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 0] = np.linspace(30, 200, 32)[None]
    pixels[8:20, 2 + shade : 14 + shade] = (250 - 20 * shade, 60, 20 * shade)
    Image.fromarray(pixels).save(path)
    return path


def keyframes_in(folder: Path) -> list[list[Any]]:
    return [[str(draw_keyframe(folder / f"k{i}.png", 4 * i)), t] for i, t in enumerate(TIMES)]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Of all that is counted during the test: label, unit, total, and how many were counted so far."""
    rows: Heard = []

    @contextlib.contextmanager
    def listener(label: str, unit: str, total: int | None) -> Iterator[Advance]:
        row: list[Any] = [label, unit, total, 0]
        rows.append(row)

        def advance(units: int = 1, /) -> None:
            row[3] += units

        yield advance

    with listening(listener):
        yield rows


@pytest.fixture(scope="session")
def keyframes(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    return keyframes_in(tmp_path_factory.mktemp("keyframes"))


@pytest.fixture
def run(keyframes: list[list[Any]], tmp_path: Path) -> Run:
    """Generate with the fast settings, overridden by keyword."""

    def start(**changes: Any) -> GenerationResult:
        settings = {"keyframes": keyframes, "output": str(tmp_path / "out")} | FAST | changes
        return generate(GenerationConfig(**settings), verbose=False)

    return start


@pytest.fixture(scope="session")
def finished(keyframes: list[list[Any]], tmp_path_factory: pytest.TempPathFactory) -> GenerationResult:
    """The reference run: one process, uninterrupted. Read only."""
    out = tmp_path_factory.mktemp("finished")
    return generate(
        GenerationConfig(keyframes=keyframes, output=str(out), save_latents=True, **FAST), verbose=False
    )


def command(keyframes: list[list[Any]], out: Path, *extra: str) -> list[str]:
    """The command line of the same run."""
    pairs = ",".join(f"{path}:{seconds}" for path, seconds in keyframes)
    settings = [f"--{name}={value}" for name, value in FAST.items()]
    return ["generate", "--keyframes", pairs, *settings, "--output", str(out), *extra]


class Done(NamedTuple):
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


def run_cli(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """`wanedit ARGUMENTS` in this process, where everything is imported already; with `env` over the environment.

    A process of its own costs five to nine seconds of imports: only where signals, ranks or exit codes are the subject.
    """
    from wanedit.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, env or {}),
        mock.patch.object(sys, "argv", ["wanedit", *arguments]),  # `command_again` prints them
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main()
        except SystemExit as stop:  # --help and --version
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def _heed_signals() -> None:
    """A run of the tests that was started in the background ignores some, and its children would."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start_process(arguments: list[str], **options: Any) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=_heed_signals,
        **options,
    )


EDIT = {
    "size": "32*32", "num_inference_steps": 2, "base_seed": 7, "cpu_threads": 1, "guidance_scale": 1.0,
    "controller": "exponential",
}  # fmt: skip
EditRun = Callable[..., EditResult]


@dataclass(frozen=True)
class Inputs:
    """A source of nine frames and the edited frames 0, 4 and 8 of it."""

    video: Path
    images: dict[int, Path]

    def keyframes(self, *indices: int) -> list[list[Any]]:
        return [[str(self.images[i]), i] for i in indices]


def moving_square(frames: int, colour: tuple[int, int, int] = (250, 60, 20)) -> np.ndarray:
    """uint8 (T, 32, 32, 3)."""
    video = np.zeros((frames, 32, 32, 3), np.uint8)
    video[..., 0] = np.linspace(30, 200, 32)
    for t in range(frames):
        video[t, 8:20, 2 + t : 14 + t] = colour
    return video


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    write_lossless(folder / "source.mkv", moving_square(9), 16)
    blue = moving_square(9, (20, 60, 250))
    images = {i: folder / f"{i:04d}.png" for i in (0, 4, 8)}
    for index, path in images.items():
        Image.fromarray(blue[index]).save(path)
    return Inputs(folder / "source.mkv", images)


@pytest.fixture
def edit_config(inputs: Inputs, tmp_path: Path) -> Callable[..., EditConfig]:
    """A fast edit of the inputs, overridden by keyword."""

    def make(**changes: Any) -> EditConfig:
        settings = {
            "video": str(inputs.video),
            "keyframes": inputs.keyframes(0, 8),
            "prompt": "a blue square",
            "output": str(tmp_path / "out"),
        }
        return EditConfig(**settings | EDIT | changes)

    return make


@pytest.fixture
def run_edit(edit_config: Callable[..., EditConfig]) -> EditRun:
    return lambda **changes: edit(edit_config(**changes), verbose=False)


@pytest.fixture(scope="session")
def edited(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> EditResult:
    """The reference edit: uninterrupted, with its latents. Read only."""
    settings = {"video": str(inputs.video), "keyframes": inputs.keyframes(0, 8), "prompt": "a blue square"}
    out = str(tmp_path_factory.mktemp("edited") / "out")
    return edit(EditConfig(**settings, **EDIT, output=out, save_latents=True), verbose=False)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that loads a weight."""
    monkeypatch.setattr("wanedit.wan.checkpoint.fill", lambda *a, **k: pytest.fail("a weight was loaded"))


def edit_command(inputs: Inputs, out: Path, *extra: str) -> list[str]:
    """The command line of the same edit."""
    pairs = ",".join(f"{path}:{index}" for path, index in inputs.keyframes(0, 8))
    settings = [f"--{name}={value}" for name, value in EDIT.items()]
    fixed = ["--keyframes", pairs, "--prompt", "a blue square", *settings, "--output", str(out)]
    return ["edit", str(inputs.video), *fixed, *extra]
