"""The outlines of the sprites as signed distance functions of their own coordinates.

Every function takes x, y of one shape, in units of the sprite's size, y downwards, and gives a value of that
shape: negative inside, zero on the outline, close to a distance near it.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


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


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(x, y) - 1, 0.8 - torch.hypot(x - 0.5, y))


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
    "crescent": _crescent,
    "pill": lambda x, y: torch.hypot((x.abs() - 0.55).clamp(min=0), y) - 0.42,
}
