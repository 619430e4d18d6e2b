"""The scene of the demo and its keyframes: four uneven times, a path that bends between them."""

from pathlib import Path

import numpy as np
from PIL import Image

from wanedit.sprites.render import render
from wanedit.sprites.scene import Background, Camera, Motion, Scene, Sprite

DEMO_SECONDS = {"start": 0.0, "rise": 0.5, "turn": 1.25, "end": 2.0}


def demo_scene() -> Scene:
    """A star leaps over a ball that rolls the other way.

    No training seed gives this scene: the red circle is a held-out pair.
    """
    star = Motion("accelerated", start=(-0.62, 0.30), end=(0.58, -0.05), duration=2.0, bulge=(0.0, -1.9))
    ball = Motion("linear", start=(0.62, 0.58), end=(-0.55, 0.58), duration=2.0)
    return Scene(
        Background("horizon", ("blue", "green"), angle=2.4),
        (
            Sprite("star", "yellow", 0.42, outline=True, motion=star, spin=0.7),
            Sprite("circle", "red", 0.3, outline=True, motion=ball),
        ),
        Camera(),
        duration=2.0,
    )


def write_keyframes(folder: Path, size: int = 128) -> list[Path]:
    """Draw the demo's keyframes as PNG files of size x size pixels; returns their paths in time order."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = render(demo_scene(), list(DEMO_SECONDS.values()), (size, size)).video
    paths = [folder / f"{name}.png" for name in DEMO_SECONDS]
    for path, frame in zip(paths, frames.unbind(1), strict=True):
        pixels = ((frame + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return paths
