"""One sentence that names what a scene shows: size, colour, texture, shape, motion, background, camera."""

import math

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


def caption(scene: Scene) -> str:
    """The caption of a scene, front sprite last, in at most 63 words."""
    subjects = " and ".join(_sprite(sprite) for sprite in scene.sprites)
    behind = _background(scene.background)
    return f"{subjects}, in front of {behind}{_camera(scene.camera)}." if subjects else f"{behind}."


def _sprite(sprite: Sprite) -> str:
    size = "small " if sprite.size < 0.27 else "large " if sprite.size > 0.4 else ""
    texture = "" if sprite.texture == "plain" else f"{sprite.texture} "
    described = f"{size}{texture}{'outlined ' if sprite.outline else ''}{sprite.colour} {sprite.shape}"
    article = "an" if described[0] in "aeiou" else "a"
    words = f"{article} {described}"
    return f"{words} {_motion(sprite)}"


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


def _background(background: Background) -> str:
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
