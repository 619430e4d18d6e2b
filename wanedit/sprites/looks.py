"""How sprites look: their outlines as signed distances, and the styles that a scene can be drawn in.

A signed distance takes x, y in units of the sprite's size, y downwards, and gives a value of that shape: negative
inside, zero on the outline, close to a distance near it. Styles change colours only: masks, centres and flow stay.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.sprites.scene import COLOURS


def _polygon(sides: int, turn: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """Distance to a regular polygon of circumradius 1: fold the plane into one sector, then one half-plane."""
    step = 2 * math.pi / sides

    def distance(x: Tensor, y: Tensor) -> Tensor:
        sector = torch.remainder(torch.atan2(y, x) - turn, step) - step / 2
        return torch.hypot(x, y) * torch.cos(sector) - math.cos(step / 2)

    return distance


def _star(x: Tensor, y: Tensor) -> Tensor:
    step = 2 * math.pi / 5
    sector = (torch.remainder(torch.atan2(y, x) + math.pi / 2 + step / 2, step) - step / 2).abs()
    radius = torch.hypot(x, y)
    tip, notch = (1.0, 0.0), (0.45 * math.cos(step / 2), 0.45 * math.sin(step / 2))
    normal = np.array([notch[1] - tip[1], tip[0] - notch[0]])
    normal = normal / np.linalg.norm(normal)
    return (radius * torch.cos(sector) - tip[0]) * float(normal[0]) + radius * torch.sin(sector) * float(
        normal[1]
    )


def _box(x: Tensor, y: Tensor, half_x: float, half_y: float) -> Tensor:
    return torch.maximum(x.abs() - half_x, y.abs() - half_y)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """Two discs on a square that stands on its corner."""
    square = _box((x + y) * math.sqrt(0.5), (y - x) * math.sqrt(0.5), 0.56, 0.56)
    disc = torch.hypot(x.abs() - 0.396, y + 0.396) - 0.56
    return torch.minimum(square, disc)


SDF: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: torch.hypot(x, y) - 0.9,
    "square": lambda x, y: _box(x, y, 0.8, 0.8),
    "triangle": _polygon(3, -math.pi / 2),
    "star": _star,
    "heart": _heart,
    "ring": lambda x, y: (torch.hypot(x, y) - 0.7).abs() - 0.25,
    "cross": lambda x, y: torch.minimum(_box(x, y, 0.95, 0.33), _box(x, y, 0.33, 0.95)),
    "diamond": lambda x, y: (x.abs() / 0.7 + y.abs() - 1) * 0.573,
    "hexagon": _polygon(6),
    "crescent": lambda x, y: torch.maximum(torch.hypot(x, y) - 1, 0.8 - torch.hypot(x - 0.5, y)),
    "pill": lambda x, y: torch.hypot((x.abs() - 0.55).clamp(min=0), y) - 0.42,
}


STYLES = ("plain", "outline", "night", "pastel", "neon", "sepia")
# A neon tube glows up to this distance from its outline, in units of the sprite's size.
_GLOW = 0.45
_INK, _PAPER = (0.15, 0.08, 0.03), (1.0, 0.95, 0.83)


def rgb(name: str, style: str) -> Float[Tensor, "3 1 1 1"]:
    """A named colour as its style shows it, in [0, 1]."""
    colour = torch.tensor(COLOURS[name])
    if style == "night":
        colour = colour * torch.tensor([0.30, 0.34, 0.55])
    elif style == "pastel":
        colour = 0.45 * colour + 0.55
    return colour[:, None, None, None]


def toned(name: str, style: str) -> Float[Tensor, "3 1 1 1"]:
    """A background's colour: halfway to grey, so that sprites stand out from it; nearly black behind neon."""
    if style == "neon":
        return 0.16 * rgb(name, style) + torch.tensor([0.01, 0.01, 0.04])[:, None, None, None]
    grey = 0.24 if style == "night" else 0.72
    return 0.5 * rgb(name, style) + 0.5 * grey


def neon(name: str, distance: Float[Tensor, "T H W"]) -> Float[Tensor, "3 T H W"]:
    """Light of a neon tube bent along a sprite's outline: a whitish core in a glow of the sprite's colour."""
    away = distance.abs()
    core = (1 - away / 0.09).clamp(min=0)
    glow = (1 - away / _GLOW).clamp(min=0).square()
    return rgb(name, "neon") * (0.7 * glow + 0.6 * core) + 0.35 * core.square()


def graded(picture: Float[Tensor, "3 T H W"], style: str) -> Float[Tensor, "3 T H W"]:
    """The finished picture in [0, 1] as its style develops it: sepia keeps only the brightness."""
    if style == "neon":
        return picture.clamp(max=1)
    if style != "sepia":
        return picture
    # Luma weights of ITU-R BT.601.
    luma = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None, None]).sum(0, keepdim=True)
    # A print has more contrast than its subject; the weights squeeze saturated colours towards mid grey.
    luma = ((luma - 0.5) * 1.4 + 0.5).clamp(0, 1)
    ink, paper = (torch.tensor(tone)[:, None, None, None] for tone in (_INK, _PAPER))
    return torch.lerp(ink, paper, luma)
