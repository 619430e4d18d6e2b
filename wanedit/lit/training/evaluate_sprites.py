"""What became of the sprites of a clip, by the instrument of `wanedit.sprites.recognise`."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.lit.training.common import psnr
from wanedit.lit.training.evaluate_sets import Clip
from wanedit.sprites.recognise import (
    centre,
    contrast,
    foreground,
    match_shape,
    mean_colour,
    recognise,
    sprite_mask,
)

# Error in px of 64 of a sprite that is not found: half the frame.
NOT_FOUND = 32.0


def centre_errors(clip: Clip, ours: Float[Tensor, "3 T H W"], truth: Float[Tensor, "3 T H W"]) -> list[float]:
    """Distance in px of 64 between a sprite's centre in the sample and in the truth, in the middle frame.

    Both centres come from the same instrument. Left out are sprites that the instrument cannot follow in the truth:
    those that share their colour with another, and those found over 2 px from what is seen of them.
    """
    size, middle = ours.shape[-1], ours.shape[1] // 2
    behind = clip.background(size)[:, middle]
    masks = clip.masks(size)[:, middle]
    colours = [sprite.colour for sprite in clip.scene.sprites]
    errors = []
    for colour, mask in zip(colours, masks, strict=True):
        seen, real = centre(mask), centre(sprite_mask(truth[:, middle], behind, colour))
        if colours.count(colour) > 1 or seen is None or real is None or math.dist(seen, real) > 2 * size / 64:
            continue
        found = centre(sprite_mask(ours[:, middle], behind, colour))
        errors.append(NOT_FOUND if found is None else math.dist(found, real) * 64 / size)
    return errors


@dataclass(frozen=True)
class Drift:
    """How the only sprite has changed from the first frame, which was given, to the last one of the sample.

    Attributes:
        colour: mean absolute difference over the channels of the mean colours inside it, RGB in [0, 1]. A sprite
            that is gone has the colour of what is in its place: the background.
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
    behind = clip.background(ours.shape[-1])
    first, last = truth[:, 0], ours[:, -1]
    began = foreground(first, behind[:, 0])
    ended = foreground(last, behind[:, -1], least=0.5 * contrast(first, behind[:, 0]))
    lost = bool(ended.sum() < 0.25 * began.sum())
    before = mean_colour(first, began)
    after = mean_colour(behind[:, -1], torch.ones_like(ended)) if lost else mean_colour(last, ended)
    beside = ended < 0.1
    return Drift(
        colour=float((after - before).abs().mean()),
        shape=not lost and match_shape(ended)[0] == clip.scene.sprites[0].shape,
        lost=lost,
        background=psnr(last[:, beside], behind[:, -1].expand_as(last)[:, beside]),
    )


def looked_at(video: Float[Tensor, "3 T H W"]) -> list[Tensor]:
    """Three frames of a clip of 9 or more: 4, 6 and 8, the last of them the middle of 17."""
    return [video[:, i] for i in (4, 6, 8)]


def is_named(clip: Clip, frames: Sequence[Float[Tensor, "3 H W"]]) -> tuple[bool, bool]:
    """Whether most frames show the colour, and most the shape, of the clip's only sprite."""
    sprite = clip.scene.sprites[0]
    seen = [recognise(frame) for frame in frames]
    colour = Counter(one.colour for one in seen).most_common(1)[0][0]
    shape = Counter(one.shape for one in seen).most_common(1)[0][0]
    return colour == sprite.colour, shape == sprite.shape
