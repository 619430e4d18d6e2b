"""From an EditConfig to a task and a method: every decision made, every input read, no weight loaded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.flow.keyframes import Residual
from wanedit.flow.methods import FLF2V
from wanedit.flow.path import schedule
from wanedit.jobs.edit.config import EditConfig, check_edit
from wanedit.jobs.edit.method import build_method, describe_method, stability_warning
from wanedit.jobs.edit.originals import (
    decide_output,
    place_keyframes,
    read_originals,
    restore_kind,
    shape_notes,
    shown_in,
)
from wanedit.jobs.edit.reads import DECIDING, unread, unused
from wanedit.lit.edit_task import EditTask, Pictures, check_keyframes
from wanedit.lit.editor import EditSettings, shown_frames
from wanedit.lit.model import showable
from wanedit.lit.rehearsal import WITHOUT_MODEL, rehearse
from wanedit.runtime.hashing import compute_kind, digest, hash_files, pixels_sha256
from wanedit.runtime.inputs import EditedFrame, find_path, parse_edited
from wanedit.runtime.settings import SIZE_MULTIPLE, parse_size
from wanedit.video import FitRecord, load_image
from wanedit.video.source import SourceClip, read_source
from wanedit.wan import load
from wanedit.wan.condition import prompt_doubts
from wanedit.wan.load import WanFolder, open_wan

# Raised when a change to the code changes the pixels of an edit for the same inputs.
ALGORITHM = 2
# Decided anew by a run that takes up a record of this one and changes something.
ASKED_AGAIN = ("size", "resize_policy", "restore", "output_size")
Say = Callable[[str], None]


@dataclass(frozen=True)
class EditPlan:
    """A run, decided.

    `config` holds no null or auto that is decided; `asked` those of size and restoring, which a changed run decides
    anew.
    """

    config: EditConfig
    asked: EditConfig
    folder: WanFolder
    source: SourceClip
    keyframes: tuple[EditedFrame, ...]
    fits: tuple[FitRecord, ...]
    method: Method
    settings: EditSettings
    task: EditTask
    warnings: tuple[str, ...]
    model_files: dict[str, str]

    @property
    def fps(self) -> Fraction:
        """Frames a second of source and output."""
        return self.source.fps


def make_edit_plan(
    config: EditConfig, folders: Sequence[Path] = (), say: Say = lambda text: None
) -> EditPlan:
    """Check everything and decide everything.

    Args:
        config: `base_seed` must be set and not negative.
        folders: where relative paths are looked up after the current folder.
        say: told before something that takes long.

    Raises:
        InputError: a value, the source or a keyframe cannot be used.
        MissingWeightsError: the model is not there.
    """
    check_edit(config)
    method = build_method(config)
    keyframes = parse_edited(config.keyframes, folders, config.start)
    folder = open_wan(config.source)
    load.require_parts(folder)
    given, ignored = config, unused(config, method)
    config = decide_output(_with_defaults(config, folder), method)
    path = find_path(config.video, folders, what="video", folder=True)
    total, sides = look(path, config)
    size = parse_size(config.size) if config.size else own_size(path, sides, folder)
    # A long source is refused by its length before its frames are decoded; one of no frames by `read_source`.
    length = total - config.start if config.num_frames is None else config.num_frames
    if 0 < length <= total - config.start:
        _check_frames(length, keyframes, config, folder)
    source = read_source(
        path,
        decoder=config.decoder,
        fps=config.fps,
        start=config.start,
        num_frames=config.num_frames,
        size=size,
        policy=config.resize_policy,
        salvage=config.salvage,
    )
    indices = [keyframe.index for keyframe in keyframes]
    _check_frames(len(source.frames), keyframes, config, folder)
    placed, notes = place_keyframes(config, keyframes, source, sides)
    pixels = shown_in(source.frames, placed, config.resize_policy)
    originals = read_originals(config, source, placed, sides)
    notes += shape_notes(config, source, sides)
    settings = edit_settings(config, folder, getattr(method, "solver", "euler"))
    if (
        settings.window is not None
        and timeline.slots(timeline.round_up(len(source.frames))) <= settings.window
    ):
        settings = replace(settings, window=None)
    # What becomes of the shape is told by `shape_notes`, which knows the result.
    told = [note for note in source.notes if source.fit is None or note != source.fit.warning]
    notes = [*ignored, *told, *notes, *_doubts(config, folder, indices, len(source.frames), method)]
    files = hash_files(folder, say)
    config = replace(
        config,
        video=str(path.absolute()),
        size=f"{size[1]}*{size[0]}",
        keyframes=[[str(k.path.absolute()), k.index] for k in keyframes],
    )
    pictures = Pictures(source.frames, pixels)
    task = _task(config, pictures, originals, tuple(indices), method, settings, digest(files))
    levels = schedule(settings.num_inference_steps, settings.shift, settings.solver)
    rehearse(method, folder, task, shown_frames(folder, settings, task), levels)
    asked = replace(config, **{name: getattr(given, name) for name in ASKED_AGAIN})
    return EditPlan(
        config,
        asked,
        folder,
        source,
        tuple(keyframes),
        tuple(keyframe.placement.record for keyframe in placed),
        method,
        settings,
        task,
        tuple(notes),
        files,
    )


def _with_defaults(config: EditConfig, folder: WanFolder) -> EditConfig:
    own = folder.sampling
    defaults = {
        "negative_prompt": own.negative_prompt,
        "shift": own.shift,
        "source_prompt": config.prompt,
        "source_guidance_scale": config.guidance_scale,
    }
    return replace(
        config, **{name: value for name, value in defaults.items() if getattr(config, name) is None}
    )


def own_size(path: Path, sides: tuple[int, int], folder: WanFolder) -> tuple[int, int]:
    """(height, width): the source's shape, at most as many pixels as the model's own size, multiples of 16."""
    height, width = sides
    limit = math.prod(parse_size(folder.sampling.size))
    scale = min(1.0, math.sqrt(limit / (height * width)))
    fitted = [int(side * scale / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE for side in sides]
    while math.prod(fitted) > limit:
        # Rounding went beyond the limit: the longer side gives way, by which the shape changes least.
        fitted[fitted.index(max(fitted))] -= SIZE_MULTIPLE
    if min(fitted) < 2 * SIZE_MULTIPLE:
        raise InputError(
            f"{path} is {width}*{height}, too small or too narrow for {folder.name} at its own shape; expected a size "
            "to be given"
        )
    return fitted[0], fitted[1]


def look(path: Path, config: EditConfig) -> tuple[int, tuple[int, int]]:
    """How many frames a source has, and (height, width) of them as they are stored."""
    from wanedit.video.decode import describe, scanned
    from wanedit.video.images import list_images

    if path.is_dir():
        images = list_images(path)
        height, width, _ = load_image(images[0]).pixels.shape
        return len(images), (height, width)
    info = describe(path, scanned(path, config.salvage))
    return info.frames, (info.height, info.width)


def _check_frames(
    frames: int, keyframes: Sequence[EditedFrame], config: EditConfig, folder: WanFolder
) -> None:
    check_keyframes(len(keyframes), [keyframe.index for keyframe in keyframes], frames)
    limit = folder.sampling.max_frames
    if timeline.round_up(frames) > limit and config.long_source == "error":
        raise InputError(
            f"the source has {frames} frames; {folder.name} is good for {limit}. Give num_frames (and start), or "
            "long_source: windows to average overlapping windows of that length, or whole to edit it in one piece"
        )


def edit_settings(config: EditConfig, folder: WanFolder, solver: str) -> EditSettings:
    """What the editor is told of a config without open defaults; `solver` is the method's."""
    windows = config.long_source == "windows"
    return EditSettings(
        config.num_inference_steps,
        config.shift or 0,
        config.guidance_scale,
        config.guidance_scale if config.source_guidance_scale is None else config.source_guidance_scale,
        solver,
        config.keyframe_encoding,
        restore_kind(config),
        config.condition_keyframes,
        timeline.slots(folder.sampling.max_frames) if windows else None,
        config.offload_model is not False,
        config.t5_cpu,
        config.tile,
    )


def _doubts(
    config: EditConfig, folder: WanFolder, indices: list[int], frames: int, method: Method
) -> list[str]:
    """What will run, but perhaps not as meant."""
    notes = prompt_doubts(folder.path, folder.config.text_len, [config.prompt, config.source_prompt or ""])
    total = timeline.round_up(frames)
    if total != frames:
        notes.append(
            f"{frames} frames are no 4n+1: the model works on {total}, the last frame held, and {frames} come out"
        )
    if config.guidance_scale > 1 and folder.sampling.guidance_scale == 1:
        notes.append(
            f"{folder.name} is made for guidance 1; guidance_scale "
            f"{config.guidance_scale:g} costs it quality, and twice the time"
        )
    shown = showable(folder, indices, total)
    if config.condition_keyframes and len(shown) < len(indices):
        hidden = [index for index in indices if index not in shown]
        notes.append(f"{folder.name} cannot be shown the keyframes at {hidden}; they act by the method alone")
    if isinstance(method, FLF2V) and len(showable(folder, (0, total - 1), total)) < 2:
        notes.append(
            f"{folder.name} was trained on a first frame alone; it may miss the keyframes that end a clip"
        )
    controller = getattr(method, "controller", None)
    if isinstance(controller, Residual):
        notes += stability_warning(controller, config.num_inference_steps, config.shift or 1.0)
    return notes


def _task(
    config: EditConfig,
    pictures: Pictures,
    originals: Pictures | None,
    indices: tuple[int, ...],
    method: Method,
    settings: EditSettings,
    model: str,
) -> EditTask:
    # What decides nothing is left out, so that changing it edits nothing anew.
    skipped = unread(config, method)
    decides = {
        "algorithm": ALGORITHM,
        "compute": compute_kind(),
        "model": None if isinstance(method, WITHOUT_MODEL) else model,
        "pictures": _hashes(pictures),
        "originals": originals and _hashes(originals),
        "indices": list(indices),
        "method": [config.method, describe_method(method)],
        "settings": {name: getattr(config, name) for name in DECIDING if name not in skipped},
        "sampler": [settings.solver, settings.window],
    }
    return EditTask(
        0,
        pictures.frames,
        pictures.keyframes,
        indices,
        config.prompt,
        config.source_prompt or "",
        config.negative_prompt or "",
        config.base_seed or 0,
        digest(decides),
        originals,
    )


def _hashes(pictures: Pictures) -> list[str]:
    return [pixels_sha256(pictures.frames), *map(pixels_sha256, pictures.keyframes)]
