"""What became of the sprites of a clip against their exact truth, by the instrument of `recognise`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
# A sprite of which less than this share of its true area is there is not found.
_LEAST = 0.25


def psnr(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / (a.float() - b.float()).square().mean().clamp(min=1e-12)))


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
    """The sprites of a clip that the instrument can follow, in the sample `ours`; see `frame_errors`."""
    size = (ours.shape[-2], ours.shape[-1])
    behind, masks = clip.background(size), clip.masks(size)
    frames = range(1, ours.shape[1] - 1)
    return trace([_errors(clip, ours[:, i], truth[:, i], behind[:, i], masks[:, i]) for i in frames])


def trace(errors: Sequence[Sequence[float]]) -> list[Trace]:
    """The sprites that could be followed, of `frame_errors` of the frames between the first and the last."""
    found = []
    for column in zip(*errors, strict=True):
        known = [error for error in column if not math.isnan(error)]
        if known:
            found.append(Trace(float(np.mean(known)), known.count(NOT_FOUND) / len(known)))
    return found


def frame_errors(
    clip: Clip, index: int, ours: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]
) -> list[float]:
    """Of each sprite in one frame of a sample: distance from its true centre in px of 64, or NOT_FOUND.

    Both centres come from the same instrument. NaN for sprites that it cannot follow in the truth: those that share
    their colour with another, and frames in which it finds them over 2 px from what is seen of them.
    """
    seconds = frame_times(clip.num_frames) if clip.seconds is None else clip.seconds
    alone = replace(clip, num_frames=1, seconds=(float(seconds[index]),))
    sample, real = (
        torch.from_numpy(np.ascontiguousarray(v)).movedim(-1, 0).float() / 127.5 - 1 for v in (ours, truth)
    )
    size = (ours.shape[0], ours.shape[1])
    return _errors(clip, sample, real, alone.background(size)[:, 0], alone.masks(size)[:, 0])


def _errors(
    clip: Clip,
    ours: Float[Tensor, "3 H W"],
    truth: Float[Tensor, "3 H W"],
    behind: Float[Tensor, "3 H W"],
    masks: Float[Tensor, "n H W"],
) -> list[float]:
    colours, scale = [sprite.colour for sprite in clip.scene.sprites], 64 / ours.shape[-1]
    found = []
    for colour, mask in zip(colours, masks, strict=True):
        if colours.count(colour) > 1:
            found.append(math.nan)
            continue
        there, here = (sprite_mask(frame, behind, colour) for frame in (truth, ours))
        seen, real, got = centre(mask), centre(there), centre(here)
        if seen is None or real is None or math.dist(seen, real) * scale > 2:
            found.append(math.nan)
        elif got is None or here.sum() < _LEAST * there.sum():
            found.append(NOT_FOUND)
        else:
            found.append(math.dist(got, real) * scale)
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
