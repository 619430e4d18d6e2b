"""Which sprite a picture shows, and where: colour distances and shape templates, nothing learned.

It measures generated clips, so it must be trusted first: `tests/sprites/test_recognise.py` and the rows "instrument" of
`python -m tiny.scorecard` say how often it is right on true pictures.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wanedit.sprites.render import SDF, toned
from wanedit.sprites.scene import COLOURS, SHAPES

# Side of the square on which masks meet templates, and the root of a template's area in its pixels.
_SIDE, _ROOT = 40, 18.0
_ANGLES = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
# Blur of a template's outline, in roots of its area: small sprites come out of a VAE with round corners.
_ROUND = (0.0, 0.1, 0.2)
_SMALLEST = 0.004
# How much nearer than a sprite's colour a background's must be; the lower one finds pale, blurred sprites.
_FAVOURS = (0.8, 0.5)
# The score at which the second search is left out.
_SURE = 0.6


@dataclass(frozen=True)
class Recognition:
    """What stands out in a picture. `score` in [0, 1] is the shape's overlap; colour and shape are None for nothing."""

    colour: str | None
    shape: str | None
    score: float


def sprite_mask(
    frame: Float[Tensor, "3 H W"], background: Float[Tensor, "3 H W"], colour: str
) -> Float[Tensor, "H W"]:
    """How far each pixel has gone from the known background to `colour`, 0 … 1, in the biggest connected part.

    Half-covered and blurred pixels count in part, so the centroid is finer than a pixel. All zero: no such sprite.

    Args:
        frame, background: pixels in [-1, 1].
        colour: a name of COLOURS.
    """
    pixels, behind = (frame + 1) / 2, (background + 1) / 2
    towards = torch.tensor(COLOURS[colour]).view(3, 1, 1) - behind
    length = towards.square().sum(0).clamp(min=1e-4)
    amount = ((pixels - behind) * towards).sum(0) / length
    aside = (pixels - behind - amount * towards).square().sum(0).sqrt() / length.sqrt()
    # A pixel of another sprite may lie half way to this colour, but well off the line.
    amount = amount.clamp(0, 1) * (aside < 0.6)
    return amount * _dilated(_biggest(amount > 0.4), 1)


def foreground(
    frame: Float[Tensor, "3 H W"], background: Float[Tensor, "3 H W"], least: float = 0.15
) -> Float[Tensor, "H W"]:
    """As `sprite_mask` for a sprite of any colour: whatever differs from the known background.

    Args:
        frame, background: pixels in [-1, 1].
        least: a part less than half as different as this (Euclidean, RGB in [0, 1]) is not a sprite.
    """
    amount = _standing_out(frame, background, least)
    return amount * _dilated(_biggest(amount > 0.5), 1)


def extent(
    frame: Float[Tensor, "3 H W"], background: Float[Tensor, "3 H W"], least: float = 0.15
) -> Bool[Tensor, "H W"]:
    """Where a sprite of any colour is, its faded parts too, without the mixed pixels of its rim.

    The biggest part of what differs a quarter as much as the most different pixels do, less one pixel all round;
    where nothing is left, what differs most. All False: no sprite. Arguments as of `foreground`.
    """
    amount = _standing_out(frame, background, least)
    inner = ~_dilated(~_biggest(amount > 0.25), 1)  # the frame's border is no edge
    return inner if inner.any() else _biggest(amount > 0.8)


def contrast(frame: Float[Tensor, "3 H W"], background: Float[Tensor, "3 H W"]) -> float:
    """The difference that one pixel in a hundred exceeds: Euclidean, RGB in [0, 1]."""
    return float(_difference(frame, background).flatten().quantile(0.99))


def _difference(frame: Tensor, background: Tensor) -> Float[Tensor, "H W"]:
    return (frame - background).square().sum(0).sqrt() / 2


def _standing_out(frame: Tensor, background: Tensor, least: float) -> Float[Tensor, "H W"]:
    """Difference from the background, 0 … 1: 1 at three quarters of the frame's contrast, at least at `least`."""
    top = max(0.75 * contrast(frame, background), least)
    return (_difference(frame, background) / top).clamp(0, 1)


def centre(mask: Float[Tensor, "H W"]) -> tuple[float, float] | None:
    """Centroid (x, y) in pixels, pixel i covering [i, i + 1); None for an empty mask."""
    total = float(mask.sum())
    if total <= 0:
        return None
    height, width = mask.shape
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    return float((mask.sum(0) * x).sum()) / total, float((mask.sum(1) * y).sum()) / total


def mean_colour(frame: Float[Tensor, "3 H W"], region: Bool[Tensor, "H W"]) -> Float[Tensor, "3"]:
    """Mean RGB in [0, 1] of a region's pixels, each counted alike however faded; of all pixels for no region."""
    return (frame[:, region] if region.any() else frame.flatten(1)).mean(1) / 2 + 0.5


def recognise(frame: Float[Tensor, "3 H W"]) -> Recognition:
    """The sprite of a picture about which nothing is known.

    Sprites have palette colours, backgrounds are toned half to grey (`render.toned`), outlines are nearly black. So
    every pixel goes to the nearest of those; the connected part of a palette colour that fits a shape best wins.

    Args:
        frame: pixels in [-1, 1], plain style.
    """
    best = Recognition(None, None, 0.0)
    fine = torch.nn.functional.interpolate(frame[None], scale_factor=2, mode="bicubic")[0]
    for favour in _FAVOURS:
        for colour, mask, purity in _candidates(fine, favour):
            shape, overlap = match_shape(mask)
            if purity * overlap > best.score:
                best = Recognition(colour, shape, purity * overlap)
        if best.score > _SURE:
            break
    return best


def match_shape(mask: Float[Tensor, "H W"]) -> tuple[str, float]:
    """The shape whose template overlaps a mask best, and the overlap (intersection over union).

    Every template is tried at seven angles, three roundnesses, five sizes or more and 25 shifts about the mask's own
    area and centroid. Pixels outside the frame count for nothing, so a sprite cut by the border is compared by what
    is seen of it.
    """
    place = centre(mask)
    if place is None:
        return SHAPES[0], 0.0
    height, width = mask.shape
    root = math.sqrt(float(mask.sum()))
    # A mask that the border cuts shows less than its shape's area, and its centroid lies inwards: it is sought larger
    # and farther off.
    cut = bool(torch.cat([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).max() > 0.5)
    scales = torch.tensor([0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.7] if cut else [0.88, 0.94, 1.0, 1.06, 1.12])
    reach = 0.4 if cut else 0.1
    steps = torch.linspace(-reach, reach, 5)
    axis = (torch.arange(_SIDE) + 0.5 - _SIDE / 2) / _ROOT * root
    # (scales, shifts in y, shifts in x, rows, columns) of pixel coordinates.
    column = place[0] + scales.view(-1, 1, 1) * axis + steps.view(1, -1, 1) * root
    row = place[1] + scales.view(-1, 1, 1) * axis + steps.view(1, -1, 1) * root
    x = column[:, None, :, None, :].expand(-1, 5, -1, _SIDE, -1)
    y = row[:, :, None, :, None].expand(-1, -1, 5, -1, _SIDE)
    grid = torch.stack([2 * x / width - 1, 2 * y / height - 1], dim=-1).reshape(1, -1, _SIDE, 2)
    patches = torch.nn.functional.grid_sample(mask[None, None], grid, align_corners=False).view(-1, _SIDE**2)
    seen = (grid.abs() <= 1).all(-1).float().view(-1, _SIDE**2)
    templates = _templates()
    common = patches @ templates.T
    union = patches.sum(1, keepdim=True) + seen @ templates.T - common
    overlap = (common / union.clamp(min=1e-6)).amax(0).view(len(SHAPES), -1).amax(1)
    index = int(overlap.argmax())
    return SHAPES[index], float(overlap[index])


@functools.cache
def _prototypes() -> Tensor:
    """RGB of the palette, of the palette half way to its outline, of outlines, then of all that backgrounds show."""
    palette = torch.tensor(list(COLOURS.values()))
    behind = torch.stack([toned(name, "plain").flatten() for name in COLOURS])
    mixed = torch.stack([(a + b) / 2 for a, b in itertools.combinations(behind, 2)])
    # A horizon's sky pales upwards and its ground darkens downwards: one shade and two.
    sky = torch.lerp(behind, behind.amax(1, keepdim=True).expand(-1, 3), 0.5)
    return torch.cat(
        [palette, 0.57 * palette, 0.15 * palette, behind, mixed, sky, 0.85 * behind, 0.7 * behind]
    )


def _candidates(frame: Tensor, favour: float) -> Iterator[tuple[str, Tensor, float]]:
    """Colour, mask and purity (0 … 1) of the largest connected part of every palette colour, outline included."""
    prototypes, count = _prototypes(), len(COLOURS)
    distance = torch.cdist((frame / 2 + 0.5).flatten(1).T, prototypes).T.unflatten(1, frame.shape[1:])
    behind = 3 * count
    to_sprite, nearest = distance[:behind].min(0)
    label = nearest.where(favour * to_sprite < distance[behind:].min(0).values, torch.tensor(behind))
    rim = (label >= 2 * count) & (label < behind)
    for index, colour in enumerate(COLOURS):
        # Grey is everywhere at the edges between others; it is no sign of white.
        bright, shaded = label == index, (label == count + index) & (colour != "white")
        if (bright | shaded).sum() < 3:
            continue
        whole = _biggest(bright | shaded | rim)
        own, any_colour = ((part & whole).sum() for part in (bright | shaded, label < 2 * count))
        if own < 3 or whole.sum() < _SMALLEST * whole.numel():
            continue
        nearby = distance[[index, count + index]].min(0).values[(bright | shaded) & whole]
        # Thin tips that blur has made pale are below the threshold of a part but still differ from what is around it:
        # half of the mask is how far each pixel in and near the part lies from its surroundings' colours.
        region, outside = _dilated(whole, 6), (~_dilated(whole, 4)).float()
        around = torch.stack([_blurred(channel * outside) for channel in frame]) / (_blurred(outside) + 1e-4)
        difference, ring = _difference(frame, around), region & (outside > 0)
        floor = difference[ring].mean() if ring.any() else difference.new_zeros(())
        top = 0.75 * difference[whole].quantile(0.8)
        soft = ((difference - floor) / (top - floor).clamp(min=0.02)).clamp(0, 1) * region
        yield (
            colour,
            (whole.float() + soft) / 2,
            float(own / any_colour) * math.exp(-2 * float(nearby.mean())),
        )


def _blurred(picture: Tensor) -> Tensor:
    return torch.from_numpy(cv2.GaussianBlur(picture.numpy(), (0, 0), 5))


def _biggest(mask: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """The largest 8-connected part."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.numpy().astype(np.uint8))
    if count < 2:
        return torch.zeros_like(mask)
    return torch.from_numpy(labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax()))


def _dilated(mask: Bool[Tensor, "H W"], pixels: int) -> Bool[Tensor, "H W"]:
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return torch.from_numpy(cv2.dilate(mask.numpy().astype(np.uint8), kernel) > 0)


@functools.cache
def _templates() -> Float[Tensor, "N P"]:
    """Every shape at every angle and roundness, centroid in the middle: one flattened picture each, shapes first."""
    fine, axis = (torch.arange(300) + 0.5) / 100 - 1.5, (torch.arange(_SIDE) + 0.5 - _SIDE / 2) / _ROOT
    fine_x, fine_y = torch.meshgrid(fine, fine, indexing="xy")
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    templates = []
    for shape in SHAPES:
        # Shapes of one radius differ in area and lean to a side: root of the area and centroid make them alike.
        inside = (SDF[shape](fine_x, fine_y) < 0).float()
        total = inside.sum()
        root = math.sqrt(float(total)) / 100
        middle_x, middle_y = (float((inside * along).sum() / total) for along in (fine_x, fine_y))
        for angle, blur in itertools.product(_ANGLES, _ROUND):
            cos, sin = math.cos(angle), math.sin(angle)
            u, v = (x * cos + y * sin) * root + middle_x, (-x * sin + y * cos) * root + middle_y
            picture = (0.5 - SDF[shape](u, v) / root * _ROOT / 2).clamp(0, 1)
            if blur:
                blurred = torch.from_numpy(cv2.GaussianBlur(picture.numpy(), (0, 0), blur * _ROOT))
                # The level at which the rounded shape keeps its area.
                level = blurred.flatten().quantile(1 - float(picture.mean()))
                picture = ((blurred - level) * 6 + 0.5).clamp(0, 1)
            templates.append(picture.flatten())
    return torch.stack(templates)
