"""From an EditConfig to a task and a method: every decision made, every input read, no weight loaded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.flow.keyframes import CONTROLLERS, Controller, Residual, largest_stable_alpha, steps_for
from wanedit.flow.methods import METHODS, get_method
from wanedit.flow.path import schedule
from wanedit.lit.editing.editor import EditSettings
from wanedit.lit.editing.model import showable
from wanedit.lit.editing.pixels import pixel_defaults
from wanedit.lit.editing.task import EditTask, check_keyframes
from wanedit.run.config import SIZE_MULTIPLE, parse_size
from wanedit.run.edit_config import EditConfig, EditedFrame, check_edit, parse_edited
from wanedit.run.manifest import digest
from wanedit.run.plan import compute_kind, hash_files, pixels_sha256, prompt_doubts
from wanedit.video import FitRecord, fit, load_image
from wanedit.video.source import SourceClip, read_source
from wanedit.wan import load
from wanedit.wan.load import WanFolder, open_wan

# Raised when a change to the code changes the pixels of an edit for the same inputs.
ALGORITHM = 1
Say = Callable[[str], None]


@dataclass(frozen=True)
class EditPlan:
    """A run, decided. `config` holds no null that a model's default could fill."""

    config: EditConfig
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
    keyframes = parse_edited(config.keyframes, folders)
    folder = open_wan(config.source)
    load.require_parts(folder)
    config = _with_defaults(config, folder)
    path = _find_source(config.video, folders)
    size = parse_size(config.size) if config.size else own_size(path, config, folder)
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
    check_keyframes(len(keyframes), indices, len(source.frames))
    _check_length(len(source.frames), config, folder)
    pixels, fits, notes = _fitted(keyframes, size, config.resize_policy)
    settings = _settings(config, getattr(method, "solver", "euler"))
    notes = [*source.notes, *notes, *_doubts(config, folder, indices, len(source.frames), method)]
    files = hash_files(folder, say)
    config = replace(
        config,
        video=str(path.absolute()),
        size=f"{size[1]}*{size[0]}",
        keyframes=[[str(k.path.absolute()), k.index] for k in keyframes],
    )
    task = _task(config, source, pixels, tuple(indices), method, settings, digest(files))
    return EditPlan(
        config, folder, source, tuple(keyframes), tuple(fits), method, settings, task, tuple(notes), files
    )


def build_method(config: EditConfig) -> Method:
    """The method with its options; for residual_corrected with its controller.

    Raises:
        InputError: no such method or controller, or an option that it does not have.
    """
    kind: Any = get_method(config.method)
    names = {f.name for f in fields(kind)}
    options = pixel_defaults(kind) | config.method_options
    if "controller" in names:
        options.setdefault("controller", build_controller(config))
    elif config.controller_options:
        raise InputError(f"controller_options are given, but the method {config.method} has no controller")
    if "seed" in names:
        options.setdefault("seed", config.base_seed or 0)
    return _construct(kind, options, f"method {config.method}")


def build_controller(config: EditConfig) -> Controller:
    """The controller that `config` names."""
    kind = CONTROLLERS[config.controller]
    names = {f.name for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    given = {name: getattr(config, name) for name in ("alpha", "beta") if name in names}
    return _construct(kind, given | config.controller_options, f"controller {config.controller}")


def _construct(kind: Any, options: dict[str, Any], what: str) -> Any:
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(
            f"{what} has no option {unknown[0]!r}; expected some of {', '.join(known) or 'none'}"
        )
    lacking = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in lacking if name not in options]
    if missing:
        raise InputError(f"{what} lacks the option {missing[0]!r}")
    try:
        return kind(**options)
    except TypeError as error:
        raise InputError(f"{what}: {error}") from None


def _with_defaults(config: EditConfig, folder: WanFolder) -> EditConfig:
    own = folder.sampling
    defaults = {
        "negative_prompt": own.negative_prompt,
        "shift": own.shift,
        "source_prompt": config.prompt,
        "source_cfg_scale": config.cfg_scale,
    }
    return replace(
        config, **{name: value for name, value in defaults.items() if getattr(config, name) is None}
    )


def _find_source(video: str, folders: Sequence[Path]) -> Path:
    candidate = Path(video).expanduser()
    places = [candidate, *(() if candidate.is_absolute() else (folder / candidate for folder in folders))]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise InputError(f"video: no file or folder {candidate.absolute()}")
    return found


def own_size(path: Path, config: EditConfig, folder: WanFolder) -> tuple[int, int]:
    """(height, width): the source's shape, at most as many pixels as the model's own size, multiples of 16."""
    height, width = source_sides(path, config)
    limit = math.prod(parse_size(folder.sampling.size))
    scale = min(1.0, math.sqrt(limit / (height * width)))
    sides = [int(side * scale / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE for side in (height, width)]
    while math.prod(sides) > limit:
        # Rounding went beyond the limit: the longer side gives way, by which the shape changes least.
        sides[sides.index(max(sides))] -= SIZE_MULTIPLE
    if min(sides) < 2 * SIZE_MULTIPLE:
        raise InputError(
            f"{path} is {width}*{height}, too long and narrow for {folder.name}; expected a size to be given"
        )
    return sides[0], sides[1]


def source_sides(path: Path, config: EditConfig) -> tuple[int, int]:
    """(height, width) of a source as it is stored."""
    from wanedit.video.decode import describe, scanned
    from wanedit.video.folder import list_images

    if path.is_dir():
        return load_image(list_images(path)[0]).pixels.shape[:2]
    info = describe(path, scanned(path, config.salvage))
    return info.height, info.width


def _check_length(frames: int, config: EditConfig, folder: WanFolder) -> None:
    limit = folder.sampling.max_frames
    if timeline.round_up(frames) > limit and config.long_source == "error":
        raise InputError(
            f"the source has {frames} frames; {folder.name} is good for {limit}. Give num_frames (and start), or "
            "long_source: whole to edit it in one piece all the same"
        )


def _fitted(
    keyframes: list[EditedFrame], size: tuple[int, int], policy: str
) -> tuple[np.ndarray, list[FitRecord], list[str]]:
    pixels, fits, notes = [], [], []
    for keyframe in keyframes:
        loaded = load_image(keyframe.path)
        frame, record = fit(loaded.pixels, size, policy)
        notes += [f"{keyframe.path.name}: {note}" for note in loaded.notes]
        if record.warning:
            notes.append(f"{keyframe.path.name}: {record.warning}")
        pixels.append(frame)
        fits.append(record)
    return np.stack(pixels), fits, notes


def _settings(config: EditConfig, solver: str) -> EditSettings:
    return EditSettings(
        config.num_inference_steps,
        config.shift or 0,
        config.cfg_scale,
        config.cfg_scale if config.source_cfg_scale is None else config.source_cfg_scale,
        solver,
        config.keyframe_encoding,
        config.condition_keyframes,
        config.offload_model,
        config.t5_cpu,
        config.tile,
    )


def _doubts(
    config: EditConfig, folder: WanFolder, indices: list[int], frames: int, method: Method
) -> list[str]:
    """What will run, but perhaps not as meant."""
    notes = prompt_doubts(folder, [config.prompt, config.source_prompt or ""])
    total = timeline.round_up(frames)
    if total != frames:
        notes.append(
            f"{frames} frames are no 4n+1: the model works on {total}, the last frame held, and {frames} come out"
        )
    shown = showable(folder, indices, total)
    if config.condition_keyframes and len(shown) < len(indices):
        hidden = [index for index in indices if index not in shown]
        notes.append(f"{folder.name} cannot be shown the keyframes at {hidden}; they act by the method alone")
    controller = getattr(method, "controller", None)
    if isinstance(controller, Residual):
        notes += stability_warning(controller, config.num_inference_steps, config.shift or 1.0)
    return notes


def stability_warning(controller: Residual, steps: int, shift: float) -> list[str]:
    """A warning when the residual controller diverges on this schedule; empty when it does not."""
    levels, alpha = schedule(steps, shift), controller.alpha + controller.beta
    worst = max(levels, key=lambda step: step.h)
    if alpha * worst.h < 2:
        return []
    enough = steps_for(alpha, shift)
    advice = f"{enough} steps would do" if enough else "no number of steps up to 2000 would do"
    return [
        f"alpha {alpha:g} diverges: alpha h is {alpha * worst.h:.2f} at step {worst.index} and must stay below 2. "
        f"The largest stable alpha for {steps} steps at shift {shift:g} is {largest_stable_alpha(levels):.3g}; "
        f"{advice}; the controller exponential is stable always"
    ]


def _task(
    config: EditConfig,
    source: SourceClip,
    keyframes: np.ndarray,
    indices: tuple[int, ...],
    method: Method,
    settings: EditSettings,
    model: str,
) -> EditTask:
    decides = {
        "algorithm": ALGORITHM,
        "compute": compute_kind(),
        "model": model,
        "source": pixels_sha256(source.frames),
        "keyframes": [pixels_sha256(frame) for frame in keyframes],
        "indices": list(indices),
        "prompts": [config.prompt, config.source_prompt, config.negative_prompt],
        "seed": config.base_seed,
        "method": [config.method, describe_method(method)],
        "sampler": {k: v for k, v in asdict(settings).items() if k not in ("offload_model", "t5_cpu")},
    }
    return EditTask(
        0,
        source.frames,
        keyframes,
        indices,
        config.prompt,
        config.source_prompt or "",
        config.negative_prompt or "",
        config.base_seed or 0,
        digest(decides),
    )


def describe_method(method: Any) -> dict[str, Any]:
    """The settings of a method as plain values; callables by their name."""
    values = {}
    for f in fields(method):
        value = getattr(method, f.name)
        if hasattr(value, "__dataclass_fields__"):
            value = {"kind": type(value).__name__, **describe_method(value)}
        elif callable(value):
            value = getattr(value, "__name__", type(value).__name__)
        values[f.name] = value
    return values


def method_names() -> list[str]:
    """For `--help`."""
    return list(METHODS)
