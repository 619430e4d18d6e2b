"""The exact truth of a video that should show a sprite scene, drawn from a small JSON file.

    {"seed": 3, "split": "test", "edit": "recolour"}

| field | |
|---|---|
| `seed`, `split`, `sprites` | the scene of `sample_scene`; `sprites` how many, null for as many as the seed has |
| `duration` | seconds over which it moves; null for the video's length |
| `demo` | true: the scene of `examples/multi_keyframe_demo` instead of a sampled one |
| `fps`, `start` | when the frames are: 16 a second, from second 0 |
| `edit` | null; a kind, of which the seed draws one; or `{"kind": …, "sprite": …, "value": …}` |
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from wanedit.errors import InputError
from wanedit.runtime.settings import check_values
from wanedit.sprites import (
    Background,
    Edit,
    Scene,
    apply_edit,
    edit_mask,
    frame_times,
    render,
    sample_edit,
    sample_scene,
)
from wanedit.sprites.demo import demo_scene
from wanedit.sprites.sets import Clip
from wanedit.sprites.truth import traces
from wanedit.video import from_uint8, to_uint8

Frames = UInt8[np.ndarray, "t height width 3"]


@dataclass(frozen=True)
class SceneFile:
    """What the JSON file says."""

    seed: int | None = None
    split: str = "test"
    sprites: int | None = None
    duration: float | None = None
    demo: bool = False
    fps: float = 16.0
    start: float = 0.0
    edit: str | dict[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """What the video should show.

    Attributes:
        frames: drawn at the video's own size.
        changed: (T, H, W), the pixels that the edit may change; None without an edit.
        clip: the scene, where its sprites can be followed: in style plain.
    """

    frames: Frames
    changed: Bool[np.ndarray, "t h w"] | None
    clip: Clip | None

    def centre_errors(self, video: Frames) -> dict[str, Any]:
        """Mean distance of the sprites' centres from their true ones in pixels of the video, and the share not found.

        Over the sprites that the instrument can follow in the truth, and the frames between the first and the last; a
        sprite that is not found counts with half of the frame's width.
        """
        if self.clip is None or len(video) < 3:
            return {}
        found = traces(self.clip, from_uint8(video), from_uint8(self.frames))
        if not found:
            return {}
        width = video.shape[2]
        return {
            "centre_error": float(np.mean([trace.error for trace in found])) * width / 64,
            "centre_missing": float(np.mean([trace.missing for trace in found])),
            "sprites_followed": len(found),
        }


def read_scene(path: Path, video: Frames) -> SceneTruth:
    """The truth of a video whose scene the file names.

    Raises:
        InputError: a file that holds no scene, an unknown field or value, an edit that the scene does not allow.
    """
    said = _read(path)
    try:
        return _draw(said, len(video), (video.shape[1], video.shape[2]))
    except InputError as error:
        raise InputError(f"scene {path}: {error}") from None


def _read(path: Path) -> SceneFile:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"scene {path} cannot be read as JSON: {error}") from None
    known = [field.name for field in fields(SceneFile)]
    unknown = sorted(set(values) - set(known)) if isinstance(values, dict) else [type(values).__name__]
    if unknown:
        raise InputError(
            f"scene {path} has {unknown[0]!r}; expected an object with some of {', '.join(known)}"
        )
    check_values(SceneFile, values, f"scene {path}: ")
    said = SceneFile(**values)
    if (said.seed is None) != said.demo or not said.fps > 0:
        raise InputError(f"scene {path}: expected a seed, or demo alone, and fps > 0")
    return said


def _draw(said: SceneFile, frames: int, size: tuple[int, int]) -> SceneTruth:
    scene, times = _scene(said, frames), frame_times(frames, said.fps, said.start)
    edit = _edit(said, scene)
    if edit is None:
        shown, style, changed = scene, "plain", None
    else:
        edited = apply_edit(scene, edit)
        shown, style, changed = edited.scene, edited.style, edit_mask(scene, edit, times, size).numpy()
    clip = Clip(said.seed or 0, shown, frames, tuple(times.tolist())) if style == "plain" else None
    return SceneTruth(to_uint8(render(shown, times, size, style).video), changed, clip)


def _scene(said: SceneFile, frames: int) -> Scene:
    if said.demo:
        return demo_scene()
    assert said.seed is not None, "_read sees to it"
    return sample_scene(said.seed, said.split, said.duration or frames / said.fps, said.sprites)


def _edit(said: SceneFile, scene: Scene) -> Edit | None:
    if isinstance(said.edit, str):
        return sample_edit(scene, said.seed or 0, (said.edit,))
    if said.edit is None:
        return None
    values = dict(said.edit)
    try:
        if isinstance(values.get("value"), dict):
            values["value"] = _background(values["value"])
        return Edit(**values)
    except TypeError as error:
        raise InputError(f"edit: {error}; expected kind, sprite and value") from None


def _background(values: dict[str, Any]) -> Background:
    colours = values.get("colours", [])
    if not isinstance(colours, list) or len(colours) != 2 or not all(isinstance(c, str) for c in colours):
        raise InputError(f"colours is {colours!r}; expected two names")
    others: dict[str, Any] = {name: value for name, value in values.items() if name != "colours"}
    return Background(colours=(colours[0], colours[1]), **others)
