"""Evaluation of a finished video: what can be measured with what is given, and why the rest was not."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, MissingWeightsError
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.groups import GROUPS, NotGivenError, Values
from wanedit.jobs.evaluate.inputs import Inputs, inputs_of_run, read_inputs, read_mask
from wanedit.jobs.evaluate.truth import read_scene
from wanedit.jobs.evaluate.vbench import export
from wanedit.runtime.directory import write_text
from wanedit.runtime.inputs import find_path
from wanedit.runtime.settings import check_settings


@dataclass(frozen=True)
class Evaluation:
    """Results of one video: `metrics[group]` by name, `skipped[group]` with the reason, and what else is to be said."""

    video: str
    frames: int
    size: tuple[int, int]
    metrics: dict[str, Values]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


def evaluate(config: EvaluationConfig, folders: Sequence[Path] = ()) -> Evaluation:
    """Measure a video, and export it where that is asked for.

    Raises:
        InputError: a file that is not there or does not fit; a named metric that cannot be measured.
        MissingWeightsError: a named metric needs weights that are not on this machine.
    """
    check_evaluation(config)
    inputs, title = _read(config, folders)
    metrics, skipped = _measured(inputs, config.metrics)
    notes = _exported(inputs, config) if config.vbench is not None else ()
    height, width = inputs.video.shape[1:3]
    return Evaluation(title, len(inputs.video), (width, height), metrics, skipped, notes)


def _measured(inputs: Inputs, asked: str) -> tuple[dict[str, Values], dict[str, str]]:
    """Results, and reasons for those that are lacking: only what is named must be possible."""
    metrics, skipped = {}, {}
    for name in GROUPS if asked == "auto" else _names(asked):
        try:
            metrics[name] = GROUPS[name](inputs)
        except (NotGivenError, InputError, MissingWeightsError) as error:
            if asked == "auto":
                skipped[name] = str(error)
            elif isinstance(error, NotGivenError):
                raise InputError(f"{name}: {error}") from None
            else:
                raise
    return metrics, skipped


def check_evaluation(config: EvaluationConfig) -> None:
    """Refuse what no video makes sense of.

    Raises:
        InputError: a value of another type, no video, an unknown metric or none at all, an output that is not .json.
    """
    check_settings(config)
    if bool(config.video) == bool(config.run):
        raise InputError("expected a video file, a folder of images, or the folder of a run, and one of them")
    if config.run and (config.junctions or config.reference or config.keyframes):
        raise InputError("a run has junctions, reference and keyframes of its own; expected none to be given")
    if config.vbench is not None and not (config.run or (config.prompt or "").strip()):
        raise InputError("vbench names videos by their prompt; expected one")
    # A table is written beside it, and what bears another name may be the user's own video.
    if config.output is not None and Path(config.output).suffix.lower() != ".json":
        raise InputError(f"output is {config.output!r}; expected the name of a .json file")
    names = _names(config.metrics)
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise InputError(f"metrics names {unknown[0]!r}; expected auto, none, or some of {', '.join(GROUPS)}")
    if not names and config.metrics not in ("auto", "none"):
        raise InputError(
            f"metrics is {config.metrics!r}; expected auto, none, or some of {', '.join(GROUPS)}"
        )


def _read(config: EvaluationConfig, folders: Sequence[Path]) -> tuple[Inputs, str]:
    if config.run is None:
        inputs, clip = read_inputs(config, folders)
        title = clip.path.name
    else:
        root = find_path(config.run, folders, what="run", folder=True)
        inputs, title = inputs_of_run(root, folders), root.resolve().name
        if config.mask is not None:
            inputs = replace(inputs, mask=read_mask(config.mask, inputs.video, folders))
    if config.scene is not None:
        scene = read_scene(find_path(config.scene, folders, what="scene", folder=True), inputs.video)
        inputs = replace(inputs, scene=scene, mask=scene.changed if inputs.mask is None else inputs.mask)
    return inputs, title


def _exported(inputs: Inputs, config: EvaluationConfig) -> tuple[str, ...]:
    keyframes = inputs.keyframes or {}
    picture = keyframes[min(keyframes)] if keyframes else None
    folder = Path(config.vbench or "").expanduser()
    return export(folder, inputs.video, inputs.fps, config.prompt or inputs.prompt, picture)


def _names(text: str) -> list[str]:
    return [] if text in ("auto", "none") else [name.strip() for name in text.split(",") if name.strip()]


def rows(result: Evaluation) -> list[tuple[str, str, str, float]]:
    """(group, place, name, value) of every number: one line each of the CSV."""
    found = []
    for group, values in result.metrics.items():
        for place, name, value in _flat(values):
            found.append((group, place, name, int(value) if isinstance(value, int) else float(value)))
    return found


def _flat(values: Values, place: str = "") -> list[tuple[str, str, float]]:
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{place}/{name}".strip("/"))
        else:
            found.append((place, name, value))
    return found


def write(result: Evaluation, path: Path) -> None:
    """The results as JSON, and beside it as CSV with the same digits; what is not a number is null, or empty."""
    values = _plain(asdict(result))
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    lines = [
        f"{group},{place},{name},{repr(value) if math.isfinite(value) else ''}"
        for group, place, name, value in rows(result)
    ]
    write_text(path.with_suffix(".csv"), "\n".join(["group,place,name,value", *lines]) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
