"""What became of the sprites of a clip against their exact truth, by the instrument of `recognise`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
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
    """The sprites of a clip that the instrument can follow, in the sample `ours`.

    Both centres come from the same instrument. Left out are sprites that it cannot follow in the truth: those that
    share their colour with another, and frames in which it finds them over 2 px from what is seen of them.
    """
    size = (ours.shape[-2], ours.shape[-1])
    behind, masks = clip.background(size), clip.masks(size)
    colours = [sprite.colour for sprite in clip.scene.sprites]
    found = []
    for colour, mask in zip(colours, masks, strict=True):
        if colours.count(colour) > 1:
            continue
        inner = range(1, ours.shape[1] - 1)
        errors = [_error(ours[:, i], truth[:, i], behind[:, i], mask[i], colour) for i in inner]
        known = [error for error in errors if error is not None]
        if known:
            missing = sum(error == NOT_FOUND for error in known) / len(known)
            found.append(Trace(float(np.mean(known)), missing))
    return found


def _error(ours: Tensor, truth: Tensor, behind: Tensor, mask: Tensor, colour: str) -> float | None:
    """Distance of the centres in one frame, in px of 64; None where the truth's cannot be measured."""
    scale = 64 / ours.shape[-1]
    there, found = sprite_mask(truth, behind, colour), sprite_mask(ours, behind, colour)
    seen, real, got = centre(mask), centre(there), centre(found)
    if seen is None or real is None or math.dist(seen, real) * scale > 2:
        return None
    if got is None or found.sum() < _LEAST * there.sum():
        return NOT_FOUND
    return math.dist(got, real) * scale


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
    beside = _beside((ended, coloured), area)
    return Drift(
        colour=float((after - before).abs().mean()),
        shape=not lost and match_shape(ended)[0] == clip.scene.sprites[0].shape,
        lost=lost,
        background=psnr(last[:, beside], empty[:, beside]),
    )


def _beside(masks: Sequence[Float[Tensor, "H W"]], area: float) -> Bool[Tensor, "H W"]:
    """The pixels off the first mask that is at most twice as large as the sprite; all of them if none is.

    Whatever differs from the background is the sprite only while it is of a sprite's size: a repainted background
    differs too, and must not be left out of its own error.
    """
    for mask in masks:
        off = mask < 0.1
        if mask.sum() <= 2 * area and off.any():
            return off
    return torch.ones_like(masks[0], dtype=torch.bool)


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
