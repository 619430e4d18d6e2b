"""What an evaluation is given, read and checked: files, a mask, and the scene that the video should show.

A scene is a small JSON file, from which its exact truth is drawn:

    {"seed": 3, "split": "test", "edit": "recolour"}

| field | |
|---|---|
| `seed`, `split`, `sprites` | the scene of `sample_scene`; `sprites` how many, null for as many as the seed has |
| `duration` | seconds over which it moves; null for the video's length |
| `demo` | true: the scene of `examples/multi_keyframe_demo` instead of a sampled one |
| `fps`, `start` | when the frames are: 16 a second, from second 0 |
| `edit` | null; a kind, of which the seed draws one; or `{"kind": …, "sprite": …, "value": …}` |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from wanedit.errors import InputError
from wanedit.files import Json, read_json, reading
from wanedit.jobs.evaluate.config import (
    EvaluationConfig,
    find_keyframes,
    junctions_of,
    load_keyframe,
    open_like,
    open_mask,
)
from wanedit.jobs.evaluate.metric import Inputs, SceneTruth
from wanedit.metrics.functional.fidelity import Mask
from wanedit.metrics.functional.junctions import check_junctions
from wanedit.runtime.inputs import find_path
from wanedit.runtime.settings import FileName, Index, check_values
from wanedit.sprites import (
    Background,
    Edit,
    apply_edit,
    edit_mask,
    frame_times,
    render,
    sample_edit,
    sample_scene,
)
from wanedit.sprites.sets import Clip as SceneClip
from wanedit.sprites.sets import demo_scene
from wanedit.timeline import MAX_FPS
from wanedit.video import to_uint8
from wanedit.video.arrays import Clip, FrameSequence
from wanedit.video.images import (
    OVER_WHITE,
    LoadedImage,
    count_pictures,
    list_images,
    load_animation,
    load_images,
    under,
)
from wanedit.video.source import open_source

NOT_MEASURED = "where it is transparent, nothing is measured"
UNCHANGED = "where it is transparent, nothing may change"

# Files in the order in which they were opened, each with its notes, which grow while it is read.
Noted = list[tuple[Path, list[str]]]


def read_inputs(config: EvaluationConfig, folders: Sequence[Path] = ()) -> tuple[Inputs, Noted]:
    """Open everything that the configuration names; clips are read while they are measured.

    Returns:
        The inputs, and the files of video, reference and mask with what is to be said of them.

    Raises:
        InputError: see `evaluate`.
    """
    clip = open_source(find_path(config.video, folders, what="video", folder=True))
    frames = clip.frames
    noted: Noted = [(clip.path, clip.notes)]
    if junctions := junctions_of(config):
        check_junctions(len(frames), junctions)
    reference = None
    if config.reference is not None:
        other = open_like(config.reference, "reference", frames.shape, folders)
        noted.append((other.path, other.notes))
        reference = other.frames
    mask = None if config.mask is None else read_mask(config.mask, frames, folders, noted)
    keyframes = None
    if config.keyframes:
        keyframes = {}
        for entry in find_keyframes(config, folders):
            image, index = load_keyframe(entry, frames.shape), entry.index
            keyframes[index] = image.pixels
            if image.alpha is not None:
                # The video's own pixels, which differ from themselves by nothing.
                share = image.alpha[..., None].astype(np.float32) / 255
                keyframes[index] = under(image.pixels, share, frames[index])
            said = [NOT_MEASURED if note == OVER_WHITE else note for note in image.notes]
            clip.notes.extend(f"{entry.path.name}: {note}" for note in (*said, entry.note) if note)
    return Inputs(frames, junctions, reference, mask, keyframes, fps=clip.fps), noted


def read_mask(name: FileName, video: Clip, folders: Sequence[Path], noted: Noted) -> Mask:
    """White places of a picture, or of a video, animation or folder as long as the video; it is added to those noted.

    What is transparent is not white, whatever colour lies under it.

    Raises:
        InputError: none that fits; a video, other than an animated picture, that is transparent, where it is read.
    """
    path, notes = find_path(name, folders, what="mask", folder=True), []
    clip = open_mask(name, video.shape, folders)
    if isinstance(clip, LoadedImage):
        noted.append((path, notes))
        return np.broadcast_to(_white(clip, notes), video.shape[:3])
    animated = not path.is_dir() and count_pictures(path) > 0
    if not path.is_dir() and not animated:
        notes = clip.notes
    noted.append((path, notes))

    def white(start: int, stop: int) -> Iterator[np.ndarray]:
        # Of a folder and of an animation, opacity is known; of a video, no more than that there is any.
        if path.is_dir():
            yield from (_white(image, notes) for image in load_images(list_images(path)[start:stop]))
        elif animated:
            yield from (_white(image, notes) for image, _ in islice(load_animation(path), start, stop))
        else:
            yield from (frame.mean(axis=-1) > 127 for frame in clip.frames.read(start, stop))
            if OVER_WHITE in notes:
                raise InputError(
                    f"mask {path} is transparent in places, which say nothing of white or black; expected an opaque "
                    "video, or a folder of pictures, where transparent means that nothing may change"
                )

    return FrameSequence(video.shape[:3], white, np.bool_)


def _white(picture: LoadedImage, notes: list[str]) -> np.ndarray:
    """Where a picture of a mask is white and opaque; notes get what is to be said of it, once."""
    said = [UNCHANGED if note == OVER_WHITE else note for note in picture.notes]
    notes.extend(note for note in said if note not in notes and not note.startswith("first of"))
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = under(pixels, picture.alpha[..., None].astype(np.float32) / 255, np.zeros_like(pixels))
    return pixels.mean(axis=-1) > 127


@dataclass(frozen=True)
class SceneFile:
    """What the JSON file says."""

    seed: Index | None = None
    split: str = "test"
    sprites: Annotated[int, Ge(0), Le(100)] | None = None
    duration: Annotated[float, Ge(1e-3), Le(1e6)] | None = None
    demo: bool = False
    fps: Annotated[float, Ge(1e-3), Le(MAX_FPS)] = 16.0
    start: Annotated[float, Ge(0), Le(1e6)] = 0.0
    edit: str | dict[str, object] | None = None


def read_scene(path: Path, video: Clip) -> SceneTruth:
    """The truth of a video whose scene the file names.

    Raises:
        InputError: a file that holds no scene, an unknown field or value, an edit that the scene does not allow.
    """
    known = [field.name for field in fields(SceneFile)]
    values = read_json(path, f"a scene: an object with some of {', '.join(known)}")
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InputError(
            f"scene {path} has {unknown[0]!r}; expected an object with some of {', '.join(known)}"
        )
    check_values(SceneFile, values, f"scene {path}: ")
    said = SceneFile(**values)
    if (said.seed is None) != said.demo:
        raise InputError(f"scene {path}: expected a seed, or demo alone")
    try:
        return _drawn(said, len(video), (video.shape[1], video.shape[2]))
    except InputError as error:
        raise InputError(f"scene {path}: {error}") from None


def _drawn(said: SceneFile, frames: int, size: tuple[int, int]) -> SceneTruth:
    times, seed = frame_times(frames, said.fps, said.start), said.seed or 0
    duration = said.duration or frames / said.fps
    scene = demo_scene() if said.demo else sample_scene(seed, said.split, duration, said.sprites)
    shown, style, edit = scene, "plain", None
    if isinstance(said.edit, str):
        edit = sample_edit(scene, seed, (said.edit,))
    elif said.edit is not None:
        edit = _edit(said.edit)
    if edit is not None:
        edited = apply_edit(scene, edit)
        shown, style = edited.scene, edited.style

    # Drawn one by one each time they are looked at.
    def drawn(start: int, stop: int) -> Iterator[np.ndarray]:
        return (to_uint8(render(shown, times[[t]], size, style).video)[0] for t in range(start, stop))

    def touched(start: int, stop: int) -> Iterator[np.ndarray]:
        assert edit is not None
        return (edit_mask(scene, edit, times[[t]], size).numpy()[0] for t in range(start, stop))

    changed = None if edit is None else FrameSequence((frames, *size), touched, np.bool_)
    clip = SceneClip(seed, shown, frames, tuple(times.tolist())) if style == "plain" else None
    return SceneTruth(FrameSequence((frames, *size, 3), drawn), changed, clip)


def _edit(values: Json) -> Edit:
    """An edit that the file spells out; a background's colours are two names."""
    with reading("edit", "kind, sprite and value"):
        if isinstance(given := values.get("value"), dict):
            ground: Json = check_values(Background, {"colours": []} | given, "value.", convert=True)
            values = values | {"value": Background(**ground)}
        checked: Json = check_values(Edit, values, "edit.")
        return Edit(**checked)
