"""A small real run, made once: four keyframes, three segments, wan-tiny at 32*32."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wanedit import GenerationConfig, GenerationResult, generate

TIMES = (0.0, 0.25, 0.5, 0.8)
FAST = {"size": "32*32", "sample_steps": 2, "base_seed": 7, "cpu_threads": 1, "sample_guide_scale": 2.0}
Run = Callable[..., GenerationResult]


def draw_keyframe(path: Path, shade: int) -> Path:
    """A square on a gradient; `shade` moves and colours it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[..., 0] = np.linspace(30, 200, 32)[None]
    pixels[8:20, 2 + shade : 14 + shade] = (250 - 20 * shade, 60, 20 * shade)
    Image.fromarray(pixels).save(path)
    return path


def keyframes_in(folder: Path) -> list[list[Any]]:
    return [[str(draw_keyframe(folder / f"k{i}.png", 4 * i)), t] for i, t in enumerate(TIMES)]


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


def start_process(arguments: list[str], **options: Any) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | options.pop("env", {})
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
