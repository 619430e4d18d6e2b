"""Exact optical flow of a scene: where each seen surface point goes, and whether it is still seen there.

Paint sticks to its sprite and the background to the world, so that every pixel's motion has a closed form:
screen at a -> world at a -> (for a sprite) its own coordinates -> world at b -> screen at b. All in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wanedit.errors import InputError
from wanedit.sprites.scene import Camera, Scene, Sprite
from wanedit.sprites.shapes import SDF


@dataclass(frozen=True)
class Flow:
    """Motion of what each pixel centre shows, from one time to another.

    displacement: x, y in pixels, right and down; right also where visible is False. visible: at the other time
    the point is inside the frame and not behind a nearer sprite.
    """

    displacement: Float[Tensor, "T 2 H W"]
    visible: Bool[Tensor, "T H W"]


def optical_flow(
    scene: Scene,
    seconds_from: Sequence[float] | np.ndarray | float,
    seconds_to: Sequence[float] | np.ndarray | float,
    size: tuple[int, int],
) -> Flow:
    """Flow from each of `seconds_from` to its partner in `seconds_to`, forwards or backwards.

    `size` is (height, width) in pixels. A pixel shows the front-most sprite whose alpha is at least one half,
    else the background. Raises InputError for lists of unequal length or an empty size.
    """
    start, end = (np.atleast_1d(np.asarray(s, dtype=np.float64)) for s in (seconds_from, seconds_to))
    if start.ndim != 1 or start.shape != end.shape:
        raise InputError(f"flow times: got shapes {start.shape} and {end.shape}, expected two equal lengths")
    if min(size) < 1:
        raise InputError(f"size: got {size}, expected (height, width) of at least 1 pixel")
    pixels = _pixel_centres(size)
    seen = _to_world(scene.camera, start, pixels, size)
    layer = _front(scene.sprites, start, seen)
    moved = seen
    for index, sprite in enumerate(scene.sprites):
        moved = torch.where(layer == index, _carried(sprite, start, end, seen), moved)
    there = _to_screen(scene.camera, end, moved, size)
    inside = (there[0] >= 0) & (there[0] < size[1]) & (there[1] >= 0) & (there[1] < size[0])
    visible = inside & (_front(scene.sprites, end, moved, above=layer) == layer)
    return Flow((there - pixels).float().transpose(0, 1), visible)


def _front(
    sprites: tuple[Sprite, ...],
    times: np.ndarray,
    world: Float[Tensor, "2 T H W"],
    above: Int[Tensor, "T H W"] | None = None,
) -> Int[Tensor, "T H W"]:
    """Index of the front-most sprite over each world point that is nearer than `above`; else `above`, else -1."""
    layer = torch.full(world.shape[1:], -1) if above is None else above
    front = layer
    for index, sprite in enumerate(sprites):
        x, y = _into_sprite(sprite, times, world)
        # The renderer's alpha is 1/2 - distance / pixel: at least one half means distance <= 0.
        front = torch.where((SDF[sprite.shape](x, y) <= 0) & (layer < index), index, front)
    return front


def _pixel_centres(size: tuple[int, int]) -> Float[Tensor, "2 1 H W"]:
    y, x = (torch.arange(length, dtype=torch.float64) + 0.5 for length in size)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))[:, None]


def _to_world(
    camera: Camera, times: np.ndarray, pixels: Float[Tensor, "2 1 H W"], size: tuple[int, int]
) -> Float[Tensor, "2 T H W"]:
    """World points seen at pixel positions, at each time."""
    pan, zoom, middle = _view(camera, times, size)
    return (pixels - middle) * (2 / size[0]) / zoom + pan


def _to_screen(
    camera: Camera, times: np.ndarray, world: Float[Tensor, "2 T H W"], size: tuple[int, int]
) -> Float[Tensor, "2 T H W"]:
    """Pixel positions of world points, at each time; the inverse of `_to_world`."""
    pan, zoom, middle = _view(camera, times, size)
    return (world - pan) * zoom * (size[0] / 2) + middle


def _view(camera: Camera, times: np.ndarray, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Pan (2, T, 1, 1) in world units, zoom factor (T, 1, 1), and the frame's middle (2, 1, 1, 1) in pixels."""
    since = torch.as_tensor(times - camera.origin)[:, None, None]
    pan = torch.tensor(camera.pan, dtype=torch.float64)[:, None, None, None] * since
    middle = torch.tensor([size[1], size[0]], dtype=torch.float64)[:, None, None, None] / 2
    return pan, torch.exp(camera.zoom * since), middle


def _pose(sprite: Sprite, times: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Centre (2, T, 1, 1), and cosine and sine (T, 1, 1) of the sprite's angle, both times its size."""
    place = torch.as_tensor(sprite.motion.position(times)).T[:, :, None, None]
    since = torch.as_tensor(times - sprite.motion.duration / 2)[:, None, None]
    size = sprite.size * torch.exp(sprite.zoom * since)
    angle = sprite.angle + sprite.spin * since
    return place, torch.cos(angle) * size, torch.sin(angle) * size


def _into_sprite(
    sprite: Sprite, times: np.ndarray, world: Float[Tensor, "2 T H W"]
) -> Float[Tensor, "2 T H W"]:
    """World points in the sprite's own coordinates: moved back, turned back, in units of its size."""
    place, cos, sin = _pose(sprite, times)
    dx, dy = world - place
    square = cos**2 + sin**2
    return torch.stack([(dx * cos + dy * sin) / square, (-dx * sin + dy * cos) / square])


def _carried(
    sprite: Sprite, start: np.ndarray, end: np.ndarray, world: Float[Tensor, "2 T H W"]
) -> Float[Tensor, "2 T H W"]:
    """Where the sprite takes the points of it that are at `world` at `start`: world points at `end`."""
    x, y = _into_sprite(sprite, start, world)
    place, cos, sin = _pose(sprite, end)
    return torch.stack([x * cos - y * sin, x * sin + y * cos]) + place
