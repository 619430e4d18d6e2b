"""What became of the sprites of a clip against their exact truth, by the instrument of `recognise`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wanedit.sprites.recognise import (
    centre,
    contrast,
    extent,
    foreground,
    match_shape,
    mean_colour,
    recognise,
    sprite_mask,
)
from wanedit.sprites.render import frame_times
from wanedit.sprites.sets import Clip

# Error in px of 64 of a sprite that is not found: half the frame.
NOT_FOUND = 32.0
# Second differences in px of 64: what the instrument makes of even motion, and an error of its reading from which on it
# is not believed. Of 457 of drawn scenes it misreads 23 %: textures, and colours close to the background's.
LEAST_BEND, MISREAD = 0.1, 0.2
# A sprite of which less than this share of its true area is there is not found.
_LEAST = 0.25


def psnr(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean().clamp(min=1e-12)))


Place = tuple[float, float]


class Sighting(NamedTuple):
    """One sprite in one frame, centres (x, y) in px of 64.

    Attributes:
        seen: of what is seen of it in the scene.
        real: as the instrument reads the truth.
        found: as it reads a sample; None where the sprite is not found.
    """

    seen: Place
    real: Place
    found: Place | None

    @property
    def error(self) -> float:
        """Distance of the two readings; NOT_FOUND without the second."""
        return NOT_FOUND if self.found is None else math.dist(self.real, self.found)


# Of every sprite of a frame; None for one that the instrument cannot follow there.
Sightings = Sequence[Sighting | None]


@dataclass(frozen=True)
class Trace:
    """One sprite followed through the inner frames of a clip.

    Attributes:
        error: mean distance from its true centre in px of 64; NOT_FOUND for a frame in which it is not found.
        missing: share of the frames in which it is not found.
    """

    error: float
    missing: float


def traces(clip: Clip, ours: Float[Tensor, "3 T H W"], truth: Float[Tensor, "3 T H W"]) -> list[Trace]:
    """The sprites of a clip that the instrument can follow, in the sample `ours`; see `sightings`."""
    size = (ours.shape[-2], ours.shape[-1])
    behind, masks = clip.background(size), clip.masks(size)
    frames = range(1, ours.shape[1] - 1)
    return trace([_sightings(clip, ours[:, i], truth[:, i], behind[:, i], masks[:, i]) for i in frames])


def trace(frames: Iterable[Sightings]) -> list[Trace]:
    """The sprites that could be followed in any of the frames."""
    found = []
    for column in zip(*frames, strict=True):
        errors = [one.error for one in column if one is not None]
        if errors:
            found.append(Trace(float(np.mean(errors)), errors.count(NOT_FOUND) / len(errors)))
    return found


@dataclass(frozen=True)
class Acceleration:
    """How the centres of sprites turn and change speed about joins, by second differences of frames, in px of 64.

    Attributes:
        error: mean |a - a_true|, both as the instrument reads them.
        ratio: root mean square of |a| to that of |a_true|; 1 is right. A true one below `LEAST_BEND` counts as that
            much.
    """

    error: float
    ratio: float


def acceleration(frames: Mapping[int, Sightings], joins: Iterable[int]) -> Acceleration | None:
    """At each join and the frame on either side of it, but not where the instrument misreads the truth's own.

    Args:
        frames: what is seen, by frame.

    Returns:
        None where no sprite is found in three frames on end.
    """
    bends = []
    for t in sorted({join + aside for join in joins for aside in (-1, 0, 1)}):
        if not {t - 1, t, t + 1} <= frames.keys():
            continue
        for three in zip(*(frames[t + aside] for aside in (-1, 0, 1)), strict=True):
            paths = [one for one in three if one is not None and one.found is not None]
            if len(paths) == 3:
                before, now, after = np.array(paths)
                seen, real, ours = before - 2 * now + after
                if math.dist(seen, real) < MISREAD:
                    bends.append((real, ours))
    if not bends:
        return None
    real, ours = np.array(bends).swapaxes(0, 1)
    sizes = [float(np.sqrt(np.square(one).sum(axis=-1).mean())) for one in (ours, real)]
    error = float(np.linalg.norm(ours - real, axis=-1).mean())
    return Acceleration(error, sizes[0] / max(sizes[1], LEAST_BEND))


def sightings(
    clip: Clip, index: int, ours: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]
) -> Sightings:
    """Each sprite in one frame of a sample.

    Both centres come from the same instrument. It cannot follow sprites that share their colour with another, and
    frames in whose truth it finds them over 2 px from what is seen of them.
    """
    seconds = frame_times(clip.num_frames) if clip.seconds is None else clip.seconds
    alone = replace(clip, num_frames=1, seconds=(float(seconds[index]),))
    sample, real = (
        torch.from_numpy(np.ascontiguousarray(v)).movedim(-1, 0).float() / 127.5 - 1 for v in (ours, truth)
    )
    size = (ours.shape[0], ours.shape[1])
    return _sightings(clip, sample, real, alone.background(size)[:, 0], alone.masks(size)[:, 0])


def _sightings(
    clip: Clip,
    ours: Float[Tensor, "3 H W"],
    truth: Float[Tensor, "3 H W"],
    behind: Float[Tensor, "3 H W"],
    masks: Float[Tensor, "n H W"],
) -> Sightings:
    colours, scale = [sprite.colour for sprite in clip.scene.sprites], 64 / ours.shape[-1]
    found = list[Sighting | None]()
    for colour, mask in zip(colours, masks, strict=True):
        there, here = (sprite_mask(frame, behind, colour) for frame in (truth, ours))
        seen, real, got = (
            place and (place[0] * scale, place[1] * scale) for place in map(centre, (mask, there, here))
        )
        if colours.count(colour) > 1 or seen is None or real is None or math.dist(seen, real) > 2:
            found.append(None)
        else:
            gone = here.sum() < _LEAST * there.sum()
            found.append(Sighting(seen, real, None if gone else got))
    return found


@dataclass(frozen=True)
class Drift:
    """How the only sprite has changed from the first frame, which was given, to the last one of the sample.

    Attributes:
        colour: mean absolute difference over the channels of the mean colours inside it, faded parts included, RGB
            in [0, 1]. A sprite that is gone has the colour of what is in its place: the background.
        shape: the last frame shows the scene's shape.
        lost: less than a quarter of the sprite's area stands out at least a quarter as much as before.
        background: PSNR in dB of the last frame against the true background, off the sprite.
    """

    colour: float
    shape: bool
    lost: bool
    background: float


def drift(clip: Clip, ours: Float[Tensor, "3 T H W"], truth: Float[Tensor, "3 T H W"]) -> Drift:
    """Compare the sprite in the given frame and in the last one of a sample; `clip` has one sprite."""
    size = (ours.shape[-2], ours.shape[-1])
    behind = clip.background(size)
    first, last, empty = truth[:, 0], ours[:, -1], behind[:, -1]
    least = 0.5 * contrast(first, behind[:, 0])
    began, ended = foreground(first, behind[:, 0]), foreground(last, empty, least)
    lost = bool(ended.sum() < _LEAST * began.sum())
    nowhere = torch.zeros_like(ended, dtype=torch.bool)
    before = mean_colour(first, extent(first, behind[:, 0]))
    after = mean_colour(empty, nowhere) if lost else mean_colour(last, extent(last, empty, least))
    # A sprite that comes in over the border grows: the larger of its two true areas is allowed for.
    area = max(float(began.sum()), float(clip.masks(size)[0, -1].sum()))
    coloured = sprite_mask(last, empty, clip.scene.sprites[0].colour)
    # Whatever differs from the background is the sprite only while it is of a sprite's size: a repainted background
    # differs too, and must not be left out of its own error.
    off = [mask < 0.1 for mask in (ended, coloured) if mask.sum() <= 2 * area]
    beside = next((pixels for pixels in off if pixels.any()), torch.ones_like(ended, dtype=torch.bool))
    return Drift(
        colour=float((after - before).abs().mean()),
        shape=not lost and match_shape(ended)[0] == clip.scene.sprites[0].shape,
        lost=lost,
        background=psnr(last[:, beside], empty[:, beside]),
    )


def looked_at(video: Float[Tensor, "3 T H W"]) -> list[Tensor]:
    """Three frames of a clip of 9 or more: 4, 6 and 8, the last of them the middle of 17."""
    return [video[:, i] for i in (4, 6, 8)]


def is_named(clip: Clip, frames: Sequence[Float[Tensor, "3 H W"]]) -> tuple[bool, bool, bool]:
    """Whether at least two of three frames show the clip's only sprite: its colour with its shape, colour, shape."""
    sprite = clip.scene.sprites[0]
    seen = [_looks(frame) for frame in frames[:2]]
    # Two frames that agree outvote the third.
    if seen[0] != seen[1]:
        seen.append(_looks(frames[2]))
    both = sum(one == (sprite.colour, sprite.shape) for one in seen)
    colour = sum(one[0] == sprite.colour for one in seen)
    shape = sum(one[1] == sprite.shape for one in seen)
    return both >= 2, colour >= 2, shape >= 2


def _looks(frame: Float[Tensor, "3 H W"]) -> tuple[str | None, str | None]:
    seen = recognise(frame)
    return seen.colour, seen.shape
