"""What wan-tiny is trained on: drawn clips, real footage when a path is given, and leaf images in place of photos."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import IterableDataset

from wanedit.errors import InputError
from wanedit.sprites.render import frame_times, render
from wanedit.sprites.scene import COLOURS, sample_scene
from wanedit.sprites.sets import clip_duration, to_bytes, to_float


def sprite_clips(
    seeds: Sequence[int], num_frames: int, size: int, split: str = "train"
) -> UInt8[Tensor, "N 3 T H W"]:
    """One clip per seed at 16 fps."""
    clips = []
    for seed in seeds:
        scene = sample_scene(seed, split, clip_duration(num_frames, seed))
        clips.append(to_bytes(render(scene, frame_times(num_frames), (size, size)).video))
    return torch.stack(clips)


def leaf_images(count: int, size: int, seed: int) -> UInt8[Tensor, "N 3 1 H W"]:
    """Overlapping discs with power-law radii, shaded and grained: edges and textures as photos have them.

    The dead leaves model (Lee, Mumford, Huang 2001): occlusion alone gives natural image statistics.
    """
    rng = np.random.default_rng([11, seed])
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    palette = np.array(list(COLOURS.values()), dtype=np.float32)
    images = np.empty((count, 3, 1, size, size), dtype=np.uint8)
    for image in images:
        tint = palette[rng.integers(len(palette), size=3)] * 0.5 + rng.uniform(0, 0.5, 3).astype(np.float32)
        picture = np.full((3, size, size), 0.5, dtype=np.float32)
        for _ in range(60):
            radius = 3.0 / rng.uniform(0.06, 1.0)
            cx, cy = rng.uniform(-5, size + 5, size=2)
            alpha = np.clip(radius - np.hypot((x - cx) * rng.uniform(0.6, 1.6), y - cy) + 0.5, 0, 1)
            slope, grain = rng.normal(0, 0.012, size=2), abs(rng.normal(0, 0.05))
            shade = slope[0] * (x - cx) + slope[1] * (y - cy) + grain * rng.normal(size=(size, size))
            colour = tint[rng.integers(3)] * rng.uniform(0.25, 1.4) + rng.normal(0, 0.06, 3)
            picture += alpha * (np.clip(colour[:, None, None] + shade, 0, 1) - picture)
        image[:, 0] = np.clip(picture * 255, 0, 255)
    return torch.from_numpy(images)


def require_footage(paths: Sequence[Path]) -> None:
    """See that every file is there and has a first frame.

    Raises:
        InputError: one is missing, or neither a clip nor a picture.
    """
    import av
    import av.error

    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"footage: got {', '.join(missing)}; expected existing files")
    for path in paths:
        try:
            with av.open(str(path)) as container:
                next(container.decode(video=0))
        except (av.error.FFmpegError, StopIteration, IndexError):
            raise InputError(
                f"footage: {path} has no frame that can be read; expected a clip or picture"
            ) from None


def footage(
    paths: Sequence[str | Path], short_sides: Sequence[int] = (96, 144, 216), most: int = 160
) -> list[Tensor]:
    """Clips (3, T, H, W) of 0..255 from video and image files, each at several sizes; at most `most` frames each."""
    import av

    clips = []
    for path in paths:
        with av.open(str(path)) as container:
            frames = [
                frame.to_ndarray(format="rgb24")
                for _, frame in zip(range(most), container.decode(video=0), strict=False)
            ]
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
        for side in short_sides:
            scale = side / min(pixels.shape[-2:])
            shape = [round(n * scale) for n in pixels.shape[-2:]]
            parts = [
                F.interpolate(part.float(), shape, mode="bicubic", antialias=True)
                for part in pixels.split(16)
            ]
            clips.append(torch.cat(parts).clamp(0, 255).round().to(torch.uint8).transpose(0, 1).contiguous())
    return clips


class SeededStream(IterableDataset):
    """An endless stream that follows (seed, first step), so that a resumed training sees new batches."""

    def __init__(self, seed: int) -> None:
        self.seed, self.first_step = seed, 0

    def starting(self, step: int) -> "SeededStream":
        """The same stream for a training that goes on at `step`."""
        other = copy.copy(self)
        other.first_step = step
        return other

    def generator(self) -> np.random.Generator:
        """Source of all that the stream draws."""
        return np.random.default_rng([self.seed, self.first_step])

    @abstractmethod
    def __iter__(self) -> Iterator:
        """Draw for ever."""


class CropStream(SeededStream):
    """Endless random crops (3, T, crop, crop) in [-1, 1] from pools of clips, one weight per pool.

    A pool is a list (or stacked tensor) of uint8 clips (3, T, H, W). Crops are mirrored; those of pools named in
    `recoloured` also have their colour channels permuted.
    """

    def __init__(
        self,
        pools: Sequence,
        weights: Sequence[float],
        num_frames: int,
        crop: int,
        seed: int,
        recoloured: Sequence[int] = (),
    ) -> None:
        self.pools, self.weights = pools, np.array(weights) / sum(weights)
        super().__init__(seed)
        self.num_frames, self.crop, self.recoloured = num_frames, crop, recoloured

    def __iter__(self) -> Iterator[Tensor]:
        rng = self.generator()
        while True:
            which = rng.choice(len(self.pools), p=self.weights)
            clip = self.pools[which][rng.integers(len(self.pools[which]))]
            if clip.shape[1] < self.num_frames:
                clip = clip[:, :1].expand(-1, self.num_frames, -1, -1)
            first, top, left = (
                int(rng.integers(n - m + 1))
                for n, m in zip(clip.shape[1:], (self.num_frames, self.crop, self.crop), strict=True)
            )
            part = clip[:, first : first + self.num_frames, top : top + self.crop, left : left + self.crop]
            if rng.random() < 0.5:
                part = part.flip(-1)
            if rng.random() < 0.5:
                part = part.flip(-2)
            if which in self.recoloured:
                part = part[torch.from_numpy(rng.permutation(3))]
            yield to_float(part)
