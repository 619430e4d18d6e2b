"""Draws a scene, and says where each point that it shows goes: video, masks, centres and exact optical flow.

Drawing is a pure function of (scene, frame times, size, style), anti-aliased, vectorised over all frames. For the flow,
paint sticks to its sprite and the background to the world, so that every pixel's motion has a closed form:
screen at a -> world at a -> (for a sprite) its own coordinates -> world at b -> screen at b. All in float64.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wanedit.errors import InputError
from wanedit.sprites.looks import SDF, STYLES, graded, neon, rgb, toned
from wanedit.sprites.scene import Background, Camera, Scene, Sprite


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
    y, x = (torch.arange(length, dtype=torch.float64) + 0.5 for length in size)
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"))[:, None]
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


@dataclass(frozen=True)
class Rendered:
    """A drawn clip and its ground truth.

    video is in [-1, 1]; masks hold the visible alpha of each sprite; centres are x, y in pixels; scene and
    seconds (T,) are what was drawn.
    """

    video: Float[Tensor, "3 T H W"]
    masks: Float[Tensor, "N T H W"]
    centres: Float[Tensor, "N T 2"]
    scene: Scene
    seconds: np.ndarray

    def flow(self, backward: bool = False) -> Flow:
        """Optical flow from each frame to the next, T - 1 fields; `backward`: from the next to each frame.

        Computed when asked for, so that clips which need no flow do not pay for it.
        """
        start, end = self.seconds[:-1], self.seconds[1:]
        if backward:
            start, end = end, start
        height, width = self.video.shape[-2:]
        return optical_flow(self.scene, start, end, (height, width))


def frame_times(num_frames: int, fps: float = 16.0, start: float = 0.0) -> np.ndarray:
    """Seconds of each frame: (T,)."""
    return start + np.arange(num_frames) / fps


def render(
    scene: Scene, seconds: Sequence[float] | np.ndarray, size: tuple[int, int], style: str = "plain"
) -> Rendered:
    """Draw `scene` at the given times at size (height, width) pixels.

    Raises InputError for an unknown style or an empty size. Occluded parts of a sprite are not in its mask.
    """
    if style not in STYLES:
        raise InputError(f"style: got {style!r}, expected one of {', '.join(STYLES)}")
    if min(size) < 1:
        raise InputError(f"size: got {size}, expected (height, width) of at least 1 pixel")
    times = np.asarray(seconds, dtype=np.float64)
    points, scale = _camera_rays(scene, times, size)
    pixel = 2 / size[0] * scale
    picture = _background(scene.background, points, pixel, style)
    masks = []
    for sprite in scene.sprites:
        alpha, colour, halo = _sprite(sprite, points, pixel, times, style)
        picture = torch.lerp(picture, colour, alpha)
        if halo is not None:
            picture = picture + halo * (1 - alpha)
        masks = [mask * (1 - alpha[0]) for mask in masks] + [alpha[0]]
    video = graded(picture, style).expand(3, len(times), *size) * 2 - 1
    stacked = (
        torch.stack([mask.expand(len(times), *size) for mask in masks])
        if masks
        else torch.zeros(0, len(times), *size)
    )
    return Rendered(video.contiguous(), stacked, centres(scene, times, size), scene, times)


def centres(
    scene: Scene, seconds: Sequence[float] | np.ndarray, size: tuple[int, int]
) -> Float[Tensor, "N T 2"]:
    """Centre of every sprite in pixels (x, y); pixel i covers [i, i + 1), so the frame's centre is size / 2."""
    times = np.asarray(seconds, dtype=np.float64)
    since = times - scene.camera.origin
    out = []
    for sprite in scene.sprites:
        seen = (sprite.motion.position(times) - since[:, None] * scene.camera.pan) * np.exp(
            scene.camera.zoom * since
        )[:, None]
        out.append(seen * size[0] / 2 + np.array([size[1], size[0]]) / 2)
    return torch.as_tensor(np.stack(out) if out else np.zeros((0, len(times), 2)), dtype=torch.float32)


def _camera_rays(scene: Scene, times: np.ndarray, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """World coordinates of every pixel centre (2, T or 1, H, W), and world units per screen unit (T or 1, 1, 1)."""
    height, width = size
    camera = scene.camera
    y = (torch.arange(height, dtype=torch.float32) + 0.5) * 2 / height - 1
    x = ((torch.arange(width, dtype=torch.float32) + 0.5) * 2 - width) / height
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"))[:, None]
    if camera.pan == (0.0, 0.0) and camera.zoom == 0.0:
        return grid, torch.ones(1, 1, 1)
    since = torch.as_tensor(times - camera.origin, dtype=torch.float32)[:, None, None]
    scale = torch.exp(-camera.zoom * since)
    return grid * scale + since * torch.tensor(camera.pan)[:, None, None, None], scale


def _square_wave(phase: Tensor, sharpness: Tensor) -> Tensor:
    """A square wave of period 1 in `phase`, in [0, 1], whose edges are one pixel wide."""
    return (torch.sin(2 * math.pi * phase) * sharpness).clamp(-1, 1) * 0.5 + 0.5


def _background(background: Background, points: Tensor, pixel: Tensor, style: str) -> Tensor:
    if style == "outline":
        return torch.full((3, 1, 1, 1), 0.96)
    x, y = points
    first, second = (toned(name, style) for name in background.colours)
    cos, sin = math.cos(background.angle), math.sin(background.angle)
    along, across = x * cos + y * sin, -x * sin + y * cos
    sharp = background.period / (math.pi * pixel)
    if background.kind == "gradient":
        mix = (along * 0.4 + 0.5).clamp(0, 1)
    elif background.kind == "stripes":
        mix = _square_wave(along / background.period, sharp)
    elif background.kind == "checker":
        a, b = _square_wave(along / background.period, sharp), _square_wave(across / background.period, sharp)
        mix = a + b - 2 * a * b
    elif background.kind == "noise":
        rng = np.random.default_rng(background.seed)
        waves = rng.normal(0, 2.2 / background.period, size=(6, 2))
        phases = rng.uniform(0, 2 * math.pi, size=6)
        pairs = zip(waves, phases, strict=True)
        total = sum(torch.sin(float(a) * x + float(b) * y + float(p)) for (a, b), p in pairs)
        mix = torch.sigmoid(1.1 * total)  # type: ignore[arg-type]
    else:
        edge = 0.35 * (background.angle / math.pi - 0.3)
        ground = ((y - edge) / pixel + 0.5).clamp(0, 1)
        sky = torch.lerp(first, torch.ones(3, 1, 1, 1) * first.max(), ((y + 1.2) * 0.25).clamp(0, 0.6))
        return torch.lerp(sky, second * (1 - 0.25 * (y - edge).clamp(0, 1.5)), ground)
    return torch.lerp(first, second, mix)


def _sprite(
    sprite: Sprite, points: Tensor, pixel: Tensor, times: np.ndarray, style: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Alpha (1, T, H, W), colour (3, T, H, W) and light cast around it (3, T, H, W) of one sprite.

    Each may broadcast over T; only neon casts light.
    """
    place = torch.as_tensor(sprite.motion.position(times), dtype=torch.float32)[:, :, None, None]
    middle = sprite.motion.duration / 2
    clock = torch.as_tensor(times, dtype=torch.float32)[:, None, None]
    size = sprite.size * torch.exp(sprite.zoom * (clock - middle))
    angle = sprite.angle + sprite.spin * (clock - middle)
    dx, dy = points[0] - place[:, 0], points[1] - place[:, 1]
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    x, y = dx * cos + dy * sin, -dx * sin + dy * cos
    unit = pixel / size
    distance = SDF[sprite.shape](x, y)
    alpha = (0.5 - distance / unit).clamp(0, 1)
    colour = _paint(sprite, x, y, unit, style)
    if style == "neon":
        halo = neon(sprite.colour, distance)
        return alpha[None], colour * 0.3 + halo, halo
    if sprite.outline or style == "outline":
        rim = 0.10 if sprite.outline else 0.14
        inside = (0.5 - (distance + torch.maximum(torch.full_like(unit, rim), 1.5 * unit)) / unit).clamp(0, 1)
        colour = colour * (0.15 + 0.85 * inside)
    return alpha[None], colour, None


def _paint(sprite: Sprite, x: Tensor, y: Tensor, unit: Tensor, style: str) -> Tensor:
    base = torch.full((3, 1, 1, 1), 0.96) if style == "outline" else rgb(sprite.colour, style)
    if sprite.texture == "plain" or style == "outline":
        return base
    if sprite.texture == "shaded":
        return (base * (0.95 - 0.35 * (0.6 * x + 0.8 * y).clamp(-1, 1))).clamp(max=1)
    sharp = 0.7 / (math.pi * unit)
    if sprite.texture == "striped":
        mark = _square_wave((x + y) / 0.9, sharp)
    else:
        mark = ((torch.sin(7 * x) * torch.sin(7 * y) - 0.35) * 0.2 / unit).clamp(-0.5, 0.5) + 0.5
    return torch.lerp(base, 0.45 * base + 0.55 * (base.mean() < 0.5), mark)
