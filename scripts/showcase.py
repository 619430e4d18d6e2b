"""The moving pictures of the README: runs two examples and writes docs/edit.webp and docs/demo.webp.

python scripts/showcase.py        # two minutes on two CPU cores; finished runs in outputs/ are used again
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from wanedit.cli import main
from wanedit.runtime.record import FinishedRun, read_run
from wanedit.video.arrays import Frame

ROOT = Path(__file__).parent.parent
ORANGE, PAPER, GAP = (226, 85, 39), 255, 8


def made(job: str, example: str, name: str) -> FinishedRun:
    """The finished run of an example's config.yaml."""
    config, output = ROOT / "examples" / example / "config.yaml", ROOT / "outputs" / name
    code = main([job, "--config", str(config), "--output", str(output), "--quiet"])
    if code:
        sys.exit(code)
    return read_run(output, [ROOT])


def resized(picture: Frame, width: int, height: int) -> Frame:
    """A picture in another size."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def play(name: str, frames: Iterable[Frame], fps: float) -> None:
    """Write an endless animation, its last frame held for a second."""
    pictures = [Image.fromarray(frame) for frame in frames]
    durations = [round(1000 / fps)] * (len(pictures) - 1) + [1000]
    path, (first, *rest) = ROOT / "docs" / name, pictures
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, quality=82, method=6)
    print(f"docs/{name}: {len(pictures)} frames, {path.stat().st_size / 1e3:.0f} kB")


def edit(run: FinishedRun, width: int = 400) -> Iterable[Frame]:
    """Source and edited video, side by side."""
    assert run.reference is not None
    height = round(width * run.video.shape[1] / run.video.shape[2])
    gap = np.full((height, GAP, 3), PAPER, np.uint8)
    for before, after in zip(run.reference, run.video, strict=True):
        yield np.concatenate([resized(before, width, height), gap, resized(after, width, height)], axis=1)


def demo(run: FinishedRun, side: int = 288, thumb: int = 66) -> Iterable[Frame]:
    """The generated video, and under it its keyframes: those that time has passed are framed."""
    step = (side - thumb) // (len(run.keyframes) - 1)
    for t, frame in enumerate(run.video):
        page = np.full((side + GAP + thumb, side, 3), PAPER, np.uint8)
        page[:side] = resized(frame, side, side)
        for k, (at, picture) in enumerate(sorted(run.keyframes.items())):
            spot = page[side + GAP :, k * step : k * step + thumb]
            spot[:] = ORANGE if t >= at else PAPER
            spot[3:-3, 3:-3] = resized(picture, thumb - 6, thumb - 6)
        yield page


if __name__ == "__main__":
    board, star = (
        made("edit", "edit_a_video", "edit_a_video"),
        made("generate", "multi_keyframe_demo", "demo"),
    )
    play("edit.webp", edit(board), float(board.fps))
    play("demo.webp", demo(star), float(star.fps))
