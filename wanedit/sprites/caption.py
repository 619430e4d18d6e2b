"""One sentence that names what a scene shows: size, colour, texture, shape, motion, background, camera."""

import math

from wanedit.errors import InputError
from wanedit.sprites.scene import Background, Camera, Motion, Scene, Sprite

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
    subjects = " and ".join(_sprite(sprite) for sprite in scene.sprites)
    behind = describe_background(scene.background)
    words = f"{subjects}, in front of {behind}{_camera(scene.camera)}." if subjects else f"{behind}."
    return _STYLES[style] + words


def describe(sprite: Sprite) -> str:
    """A sprite's looks without an article: "small striped red star"."""
    size = "small " if sprite.size < 0.27 else "large " if sprite.size > 0.4 else ""
    texture = "" if sprite.texture == "plain" else f"{sprite.texture} "
    return f"{size}{texture}{'outlined ' if sprite.outline else ''}{sprite.colour} {sprite.shape}"


def _sprite(sprite: Sprite) -> str:
    described = describe(sprite)
    article = "an" if described[0] in "aeiou" else "a"
    return f"{article} {described} {_motion(sprite)}"


def _motion(sprite: Sprite) -> str:
    motion = sprite.motion
    spins, zooms = sprite.spin != 0, "growing" if sprite.zoom > 0 else "shrinking" if sprite.zoom < 0 else ""
    if motion.kind == "still":
        words = "spins in place" if spins else "stands still"
        spins = False
    elif motion.kind == "circular":
        words = "circles clockwise" if motion.rate > 0 else "circles counterclockwise"
    else:
        verb = {"linear": "moves", "accelerated": "curves", "bounce": "bounces"}[motion.kind]
        words = f"{verb} {direction(motion)}"
    extra = ["spinning"] * spins + [zooms] * bool(zooms)
    return f"{words} while {' and '.join(extra)}" if extra else words


def direction(motion: Motion) -> str:
    """The nearest of eight directions from a motion's start to its end."""
    angle = math.atan2(motion.end[1] - motion.start[1], motion.end[0] - motion.start[0])
    return _DIRECTIONS[round(angle / (math.pi / 4)) % 8]


def describe_background(background: Background) -> str:
    """A background's looks with its article: "a blue sky over green ground"."""
    return _BACKGROUNDS[background.kind].format(*background.colours)


def _camera(camera: Camera) -> str:
    parts = []
    if camera.pan != (0.0, 0.0):
        parts.append(
            f"pans {_DIRECTIONS[round(math.atan2(camera.pan[1], camera.pan[0]) / (math.pi / 4)) % 8]}"
        )
    if camera.zoom:
        parts.append("zooms in" if camera.zoom > 0 else "zooms out")
    return f", the camera {' and '.join(parts)}" if parts else ""
