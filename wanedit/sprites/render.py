"""Draws a scene, and says where each point that it shows goes: video, masks, centres and exact optical flow.

A sprite's outline is a signed distance of x, y in units of its size, y downwards: negative inside, zero on the outline,
close to a distance near it. Styles change colours only: masks, centres and flow stay.

Drawing is a pure function of (scene, frame times, size, style), anti-aliased, vectorised over all frames. For the flow,
paint sticks to its sprite and the background to the world, so that every pixel's motion has a closed form:
screen at a -> world at a -> (for a sprite) its own coordinates -> world at b -> screen at b. All in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wanedit.errors import InputError
from wanedit.sprites.scene import COLOURS, Background, Camera, Scene, Sprite


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


SDF: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: torch.hypot(x, y) - 0.9,
    "square": lambda x, y: _box(x, y, 0.8, 0.8),
    "triangle": _polygon(3, -math.pi / 2),
    "star": _star,
    # Two discs on a square that stands on its corner.
    "heart": lambda x, y: torch.minimum(
        _box((x + y) * math.sqrt(0.5), (y - x) * math.sqrt(0.5), 0.56, 0.56),
        torch.hypot(x.abs() - 0.396, y + 0.396) - 0.56,
    ),
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
    pan, zoom, middle = _view(scene.camera, start, size)
    seen = (pixels - middle) * (2 / size[0]) / zoom + pan
    layer = _front(scene.sprites, start, seen)
    moved = seen
    for index, sprite in enumerate(scene.sprites):
        # Paint sticks to its sprite: a point keeps its place in the sprite's own coordinates.
        x, y = _into_sprite(sprite, start, seen)
        place, cos, sin = _pose(sprite, end)
        carried = torch.stack([x * cos - y * sin, x * sin + y * cos]) + place
        moved = torch.where(layer == index, carried, moved)
    pan, zoom, middle = _view(scene.camera, end, size)
    there = (moved - pan) * zoom * (size[0] / 2) + middle
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
    height, width = size
    y = (torch.arange(height, dtype=torch.float32) + 0.5) * 2 / height - 1
    x = ((torch.arange(width, dtype=torch.float32) + 0.5) * 2 - width) / height
    points, scale = torch.stack(torch.meshgrid(x, y, indexing="xy"))[:, None], torch.ones(1, 1, 1)
    camera = scene.camera
    if (
        camera.pan != (0.0, 0.0) or camera.zoom != 0.0
    ):  # a still camera's background is drawn once for all frames
        since = torch.as_tensor(times - camera.origin, dtype=torch.float32)[:, None, None]
        scale = torch.exp(-camera.zoom * since)
        points = points * scale + since * torch.tensor(camera.pan)[:, None, None, None]
    pixel = 2 / height * scale
    picture = _background(scene.background, points, pixel, style)
    masks = []
    for sprite in scene.sprites:
        alpha, colour, halo = _sprite(sprite, points, pixel, times, style)
        picture = torch.lerp(picture, colour, alpha)
        if halo is not None:
            picture = picture + halo * (1 - alpha)
        masks = [mask * (1 - alpha[0]) for mask in masks] + [alpha[0]]
    video = graded(picture, style).expand(3, len(times), *size) * 2 - 1
    stacked = torch.zeros(len(masks), len(times), *size)
    for index, mask in enumerate(masks):
        stacked[index] = mask
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
    colour = torch.full((3, 1, 1, 1), 0.96) if style == "outline" else rgb(sprite.colour, style)
    if style == "outline" or sprite.texture == "plain":
        pass
    elif sprite.texture == "shaded":
        colour = (colour * (0.95 - 0.35 * (0.6 * x + 0.8 * y).clamp(-1, 1))).clamp(max=1)
    else:
        if sprite.texture == "striped":
            mark = _square_wave((x + y) / 0.9, 0.7 / (math.pi * unit))
        else:
            mark = ((torch.sin(7 * x) * torch.sin(7 * y) - 0.35) * 0.2 / unit).clamp(-0.5, 0.5) + 0.5
        # Marks are darker than a light sprite and lighter than a dark one, so that they show on both.
        colour = torch.lerp(colour, 0.45 * colour + 0.55 * (colour.mean() < 0.5), mark)
    if style == "neon":
        halo = neon(sprite.colour, distance)
        return alpha[None], colour * 0.3 + halo, halo
    if sprite.outline or style == "outline":
        rim = 0.10 if sprite.outline else 0.14
        inside = (0.5 - (distance + torch.maximum(torch.full_like(unit, rim), 1.5 * unit)) / unit).clamp(0, 1)
        colour = colour * (0.15 + 0.85 * inside)
    return alpha[None], colour, None
