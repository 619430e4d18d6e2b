"""The project's own clips, with exact ground truth: scenes as data, renderer, flow, edits, captions."""

from wanedit.sprites.edits import EDITS, Edit, Edited, apply_edit, edit_mask, edit_prompt, sample_edit
from wanedit.sprites.render import STYLES, Flow, Rendered, centres, frame_times, optical_flow, render
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
    caption,
    held_out,
    sample_scene,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "EDITS",
    "MOTIONS",
    "SHAPES",
    "STYLES",
    "TEXTURES",
    "Background",
    "Camera",
    "Edit",
    "Edited",
    "Flow",
    "Motion",
    "Rendered",
    "Scene",
    "Sprite",
    "apply_edit",
    "caption",
    "centres",
    "edit_mask",
    "edit_prompt",
    "frame_times",
    "held_out",
    "optical_flow",
    "render",
    "sample_edit",
    "sample_scene",
]
