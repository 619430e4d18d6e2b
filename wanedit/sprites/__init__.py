"""The project's own clips, with exact ground truth: scenes as data, a renderer, captions."""

from wanedit.sprites.caption import caption
from wanedit.sprites.render import STYLES, Rendered, centres, frame_times, render
from wanedit.sprites.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    TEXTURES,
    Background,
    Camera,
    Motion,
    Scene,
    Sprite,
    held_out,
    sample_scene,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "STYLES",
    "TEXTURES",
    "Background",
    "Camera",
    "Motion",
    "Rendered",
    "Scene",
    "Sprite",
    "caption",
    "centres",
    "frame_times",
    "held_out",
    "render",
    "sample_scene",
]
