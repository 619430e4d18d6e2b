"""A scene as data and in words: what is drawn, where it is at every second, how scenes are sampled from a seed.

World units: the frame's half height is 1, the centre is (0, 0), x grows to the right and y grows downwards. Time
is in seconds. Nothing here knows a pixel.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from wanedit.errors import InputError

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.13, 0.15),
    "green": (0.16, 0.63, 0.25),
    "blue": (0.13, 0.33, 0.87),
    "yellow": (0.97, 0.84, 0.15),
    "orange": (0.96, 0.52, 0.10),
    "purple": (0.52, 0.20, 0.70),
    "cyan": (0.20, 0.78, 0.85),
    "pink": (0.97, 0.55, 0.72),
    "white": (0.96, 0.96, 0.95),
    "brown": (0.47, 0.29, 0.16),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "ring",
    "cross",
    "diamond",
    "hexagon",
    "crescent",
    "pill",
)
TEXTURES = ("plain", "striped", "dotted", "shaded")
BACKGROUNDS = ("gradient", "checker", "stripes", "noise", "horizon")
MOTIONS = ("still", "linear", "accelerated", "circular", "bounce")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Motion:
    """Where a sprite's centre is. `start` and `end` are its places at 0 s and at `duration` seconds.

    accelerated adds `bulge * u (1 - u)` to the straight line (u = t / duration); circular turns about `start` by
    `rate` radians per second at `radius`; bounce runs from start to end and hops `radius` high, `rate` times a second.
    """

    kind: str = "still"
    start: tuple[float, float] = (0.0, 0.0)
    end: tuple[float, float] = (0.0, 0.0)
    duration: float = 1.0
    bulge: tuple[float, float] = (0.0, 0.0)
    radius: float = 0.0
    rate: float = 0.0
    phase: float = 0.0

    def __post_init__(self) -> None:
        if not self.duration > 0:
            raise InputError(f"motion duration: got {self.duration}, expected seconds > 0")

    def position(self, seconds: np.ndarray) -> np.ndarray:
        """Centre in world units at each time: (T,) seconds -> (T, 2)."""
        u = (np.asarray(seconds, dtype=np.float64) / self.duration)[:, None]
        start, end = np.array(self.start), np.array(self.end)
        if self.kind == "still":
            return np.broadcast_to(start, (len(u), 2)).copy()
        if self.kind == "circular":
            angle = self.phase + self.rate * u * self.duration
            return start + self.radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        path = start + (end - start) * u
        if self.kind == "accelerated":
            path = path + np.array(self.bulge) * u * (1 - u)
        elif self.kind == "bounce":
            hop = np.mod(self.phase + self.rate * u * self.duration, 1.0)
            path = path - np.concatenate([np.zeros_like(hop), 4 * self.radius * hop * (1 - hop)], axis=1)
        return path


@dataclass(frozen=True)
class Sprite:
    """One drawn thing. `size` is its radius in world units; `spin` radians and `zoom` nats of size per second."""

    shape: str
    colour: str
    size: float
    texture: str = "plain"
    outline: bool = False
    motion: Motion = Motion()
    angle: float = 0.0
    spin: float = 0.0
    zoom: float = 0.0

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.shape, SHAPES, "shape"),
            (self.colour, COLOURS, "colour"),
            (self.texture, TEXTURES, "texture"),
            (self.motion.kind, MOTIONS, "motion"),
        ):
            if value not in known:
                raise InputError(f"sprite {what}: got {value!r}, expected one of {', '.join(known)}")
        if not self.size > 0:
            raise InputError(f"sprite size: got {self.size}, expected world units > 0")


@dataclass(frozen=True)
class Background:
    """What stands behind. `period` is the size of one repeat in world units, `seed` draws the smooth noise."""

    kind: str
    colours: tuple[str, str]
    period: float = 0.5
    angle: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in BACKGROUNDS:
            raise InputError(f"background: got {self.kind!r}, expected one of {', '.join(BACKGROUNDS)}")
        for colour in self.colours:
            if colour not in COLOURS:
                raise InputError(f"background colour: got {colour!r}, expected one of {', '.join(COLOURS)}")
        if not self.period > 0:
            raise InputError(f"background period: got {self.period}, expected world units > 0")


@dataclass(frozen=True)
class Camera:
    """The view: `pan` in world units per second, `zoom` in nats per second, both zero at time `origin`."""

    pan: tuple[float, float] = (0.0, 0.0)
    zoom: float = 0.0
    origin: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A background, one to three sprites (the later one is in front) and a camera, over `duration` seconds."""

    background: Background
    sprites: tuple[Sprite, ...]
    camera: Camera = Camera()
    duration: float = 1.0

    def with_sprite(self, index: int, **changes) -> "Scene":
        """The same scene with one sprite changed, for the exact ground truth of an edit."""
        sprites = list(self.sprites)
        sprites[index] = replace(sprites[index], **changes)
        return replace(self, sprites=tuple(sprites))


def held_out(shape: str, colour: str) -> bool:
    """True for the shape-colour pairs that training never shows (one in eleven): they appear only in test."""
    return (3 * SHAPES.index(shape) + 5 * list(COLOURS).index(colour)) % 11 == 0


def sample_scene(
    seed: int, split: str = "train", duration: float = 1.0, num_sprites: int | None = None
) -> Scene:
    """The scene of one seed of one split. Same arguments, same scene, on every machine.

    Each split has its own stream of seeds. Raises InputError for an unknown split or a duration that is not positive.
    """
    if split not in SPLITS:
        raise InputError(f"split: got {split!r}, expected one of {', '.join(SPLITS)}")
    if not duration > 0:
        raise InputError(f"duration: got {duration}, expected seconds > 0")
    if num_sprites is not None and num_sprites < 0:
        raise InputError(f"num_sprites: got {num_sprites}, expected 0 or more")
    rng = np.random.default_rng([SPLITS.index(split), seed])
    if num_sprites is None:
        num_sprites = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    background = sample_background(rng)
    sprites = tuple(_sample_sprite(rng, split, duration, background) for _ in range(num_sprites))
    moves, zooms = rng.random(2) < (0.25, 0.12)
    pan = rng.uniform(-0.4, 0.4, size=2) / duration if moves else np.zeros(2)
    zoom = float(rng.uniform(-0.3, 0.3) / duration) if zooms else 0.0
    camera = Camera((float(pan[0]), float(pan[1])), zoom, duration / 2)
    return Scene(background, sprites, camera, duration)


def sample_background(rng: np.random.Generator) -> Background:
    """Draw a background as training scenes have it; advances `rng`."""
    names = list(COLOURS)
    first, second = (names[i] for i in rng.choice(len(names), size=2, replace=False))
    return Background(
        kind=BACKGROUNDS[rng.choice(len(BACKGROUNDS), p=[0.3, 0.15, 0.15, 0.2, 0.2])],
        colours=(first, second),
        period=float(rng.uniform(0.5, 1.1)),
        angle=float(rng.uniform(0, np.pi)),
        seed=int(rng.integers(2**31)),
    )


def _sample_sprite(rng: np.random.Generator, split: str, duration: float, background: Background) -> Sprite:
    while True:
        shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
        if colour not in background.colours and (split == "test" or not held_out(shape, colour)):
            break
    # Each value is drawn in this order, used or not: another order would give every seed another scene.
    size = float(np.exp(rng.uniform(np.log(0.2), np.log(0.5))))
    texture = TEXTURES[rng.choice(len(TEXTURES), p=[0.55, 0.15, 0.1, 0.2])]
    outline = bool(rng.random() < 0.4)
    kind = MOTIONS[rng.choice(len(MOTIONS), p=[0.08, 0.52, 0.18, 0.1, 0.12])]
    start, end, bulge = ((float(x), float(y)) for x, y in rng.uniform(-0.7, 0.7, size=(3, 2)))
    radius = float(rng.uniform(0.2, 0.45))
    if kind == "circular":
        rate, phase = (
            float(rng.choice([-1, 1]) * rng.uniform(1.5, 4) / duration),
            float(rng.uniform(0, 2 * np.pi)),
        )
    else:
        rate, phase = float(rng.uniform(0.8, 1.6) / duration), float(rng.uniform(0, 1))
    return Sprite(
        shape=shape,
        colour=colour,
        size=size,
        texture=texture,
        outline=outline,
        motion=Motion(kind, start, end, duration, bulge, radius, rate, phase),
        angle=float(rng.normal(0, 0.25)),
        spin=float(rng.uniform(-1.5, 1.5) / duration) if rng.random() < 0.25 else 0.0,
        zoom=float(rng.uniform(-0.5, 0.5) / duration) if rng.random() < 0.2 else 0.0,
    )


_DIRECTIONS = (
    "right",
    "down and right",
    "down",
    "down and left",
    "left",
    "up and left",
    "up",
    "up and right",
)
_BACKGROUNDS = {
    "gradient": "a background that fades from {0} to {1}",
    "checker": "a checkered {0} and {1} background",
    "stripes": "a striped {0} and {1} background",
    "noise": "a cloudy {0} and {1} background",
    "horizon": "a {0} sky over {1} ground",
}
# The look stands first: a text encoder cuts long captions at their end.
_STYLES = {
    "plain": "",
    "outline": "as a line drawing, ",
    "night": "at night, ",
    "pastel": "in pastel colours, ",
    "neon": "in neon light, ",
    "sepia": "in sepia, ",
}


def caption(scene: Scene, style: str = "plain") -> str:
    """The caption of a scene, front sprite last, in at most 64 words.

    A style other than plain adds up to four. Raises InputError for an unknown style.
    """
    if style not in _STYLES:
        raise InputError(f"style: got {style!r}, expected one of {', '.join(_STYLES)}")
    subjects = []
    for sprite in scene.sprites:
        described, motion = describe(sprite), sprite.motion
        extra = ["spinning"] * (sprite.spin != 0)
        if motion.kind == "still":
            # Nothing else moves it, so the spin is its motion and not what happens meanwhile.
            doing, extra = "spins in place" if extra else "stands still", []
        elif motion.kind == "circular":
            doing = "circles clockwise" if motion.rate > 0 else "circles counterclockwise"
        else:
            verb = {"linear": "moves", "accelerated": "curves", "bounce": "bounces"}[motion.kind]
            doing = f"{verb} {direction(motion)}"
        extra += ["growing" if sprite.zoom > 0 else "shrinking"] * (sprite.zoom != 0)
        meanwhile = f" while {' and '.join(extra)}" if extra else ""
        subjects.append(f"{'an' if described[0] in 'aeiou' else 'a'} {described} {doing}{meanwhile}")
    behind, pan, zoom = describe_background(scene.background), scene.camera.pan, scene.camera.zoom
    moves = [f"pans {_towards(pan[0], pan[1])}"] * (pan != (0.0, 0.0))
    moves += ["zooms in" if zoom > 0 else "zooms out"] * bool(zoom)
    camera = f", the camera {' and '.join(moves)}" if moves else ""
    words = f"{' and '.join(subjects)}, in front of {behind}{camera}." if subjects else f"{behind}."
    return _STYLES[style] + words


def describe(sprite: Sprite) -> str:
    """A sprite's looks without an article: "small striped red star"."""
    size = "small " if sprite.size < 0.27 else "large " if sprite.size > 0.4 else ""
    texture = "" if sprite.texture == "plain" else f"{sprite.texture} "
    return f"{size}{texture}{'outlined ' if sprite.outline else ''}{sprite.colour} {sprite.shape}"


def direction(motion: Motion) -> str:
    """The nearest of eight directions from a motion's start to its end."""
    return _towards(motion.end[0] - motion.start[0], motion.end[1] - motion.start[1])


def _towards(x: float, y: float) -> str:
    return _DIRECTIONS[round(math.atan2(y, x) / (math.pi / 4)) % 8]


def describe_background(background: Background) -> str:
    """A background's looks with its article: "a blue sky over green ground"."""
    return _BACKGROUNDS[background.kind].format(*background.colours)
