"""Named sets of clips: scenes of one split in the order of their seeds, and only a stated rule leaves one out.

And one scene that no seed gives: that of the demo.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from wanedit.sprites.render import Rendered, centres, frame_times, render
from wanedit.sprites.scene import Background, Camera, Motion, Scene, Sprite, caption, held_out, sample_scene

Rule = Callable[[Scene], bool]
# Height and width, or the side of a square.
Size = int | tuple[int, int]


def to_bytes(video: Float[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """[-1, 1] float to 0..255."""
    return ((video + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(video: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """0..255 to [-1, 1] float."""
    return video.float() / 127.5 - 1


def clip_duration(num_frames: int, seed: int) -> float:
    """Seconds over which a scene's motion runs: one to two and a half times the clip, by seed."""
    return num_frames / 16 * float(np.random.default_rng([7, seed]).uniform(1.0, 2.5))


@dataclass(frozen=True)
class Clip:
    """One scene and how many frames of it are looked at.

    Attributes:
        seed: its split's own.
        seconds: when the frames are; None for 16 a second, as in training.
    """

    seed: int
    scene: Scene
    num_frames: int
    seconds: tuple[float, ...] | None = None

    @property
    def prompt(self) -> str:
        return caption(self.scene)

    def video(self, size: Size) -> Float[Tensor, "3 T H W"]:
        """Pixels in [-1, 1], rounded to bytes as in training."""
        return to_float(to_bytes(self._drawn(self.scene, size).video))

    def background(self, size: Size) -> Float[Tensor, "3 T H W"]:
        """The same clip without its sprites."""
        return self._drawn(replace(self.scene, sprites=()), size).video

    def masks(self, size: Size) -> Float[Tensor, "N T H W"]:
        """What is seen of every sprite."""
        return self._drawn(self.scene, size).masks

    def _drawn(self, scene: Scene, size: Size) -> Rendered:
        times = frame_times(self.num_frames) if self.seconds is None else self.seconds
        return render(scene, times, (size, size) if isinstance(size, int) else size)


def any_scene(scene: Scene) -> bool:
    """The whole distribution of the split."""
    return True


def single(scene: Scene) -> bool:
    """One sprite of any texture, with any motion and camera."""
    return len(scene.sprites) == 1


def unseen_pair(scene: Scene) -> bool:
    """A sprite has a shape and a colour that training never shows together; only the test split has such."""
    return any(held_out(sprite.shape, sprite.colour) for sprite in scene.sprites)


def steady(scene: Scene) -> bool:
    """No sprite spins or grows, and the camera stands."""
    camera = scene.camera
    return (
        all(sprite.spin == 0 and sprite.zoom == 0 for sprite in scene.sprites)
        and camera.pan == (0.0, 0.0)
        and camera.zoom == 0
    )


def linear(scene: Scene) -> bool:
    """Every sprite moves on a straight line, steadily, before a still camera."""
    return steady(scene) and all(sprite.motion.kind == "linear" for sprite in scene.sprites)


def single_linear(scene: Scene) -> bool:
    """One sprite on a straight line."""
    return len(scene.sprites) == 1 and linear(scene)


def single_plain(scene: Scene) -> bool:
    """One plain sprite that moves on a straight line or stands: what a text-only prompt describes."""
    return (
        len(scene.sprites) == 1
        and steady(scene)
        and scene.sprites[0].texture == "plain"
        and scene.sprites[0].motion.kind in ("linear", "still")
    )


def moves_through(scene: Scene, seconds: float, about: float, speed: float) -> bool:
    """Whether a time lies amid motion: from `about` seconds before it until as long after it every sprite moves, in the
    picture and at least `speed`, none bounces, and nothing hides more than half of any.

    Args:
        speed: in px a second of a frame of 64*64.
    """
    times, side = seconds + about * np.linspace(-1, 1, 9), 64
    paths = centres(scene, times, (side, side)).numpy()
    speeds = np.linalg.norm(np.diff(paths, axis=1), axis=-1) / (about / 4)
    hops = [
        np.floor(one.motion.phase + one.motion.rate * times)
        for one in scene.sprites
        if one.motion.kind == "bounce"
    ]
    if not scene.sprites or (speeds < speed).any() or not ((paths > 0) & (paths < side)).all():
        return False
    if any(np.ptp(hop) for hop in hops):
        return False
    seen = render(scene, times[[0, 4, 8]], (side, side)).masks.sum((-2, -1))
    alone = [
        render(replace(scene, sprites=(one,)), times[[0, 4, 8]], (side, side)).masks[0]
        for one in scene.sprites
    ]
    return bool((seen >= torch.stack(alone).sum((-2, -1)) / 2).all())


def first_clips(count: int, num_frames: int, rule: Rule = any_scene, split: str = "test") -> list[Clip]:
    """The first `count` clips of a split that a rule lets through, in the order of their seeds."""
    drawn = (
        Clip(seed, sample_scene(seed, split, clip_duration(num_frames, seed)), num_frames)
        for seed in itertools.count()
    )
    return list(itertools.islice((clip for clip in drawn if rule(clip.scene)), count))


def batches(clips: Sequence[Clip], pixels: int) -> Iterator[Sequence[Clip]]:
    """Groups of at most 16 clips, fewer where one clip has more than 64x64x17 pixels: a group fits 1 GB."""
    size = max(1, min(16, 16 * 64 * 64 * 17 // pixels))
    for start in range(0, len(clips), size):
        yield clips[start : start + size]


def videos(clips: Sequence[Clip], size: int) -> Float[Tensor, "B 3 T H W"]:
    """The clips of a group, stacked."""
    return torch.stack([clip.video(size) for clip in clips])


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
