"""Evaluation of a finished video: what can be measured with what is given, and why the rest was not."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wanedit.errors import InputError, MissingWeightsError
from wanedit.metrics.functional import frame_psnr, frame_ssim
from wanedit.metrics.functional.junctions import junction_scores, score
from wanedit.metrics.functional.temporal import temporal_scores
from wanedit.run.config import check_fields
from wanedit.run.directory import write_text
from wanedit.run.evaluate_config import EvaluationConfig
from wanedit.run.evaluate_inputs import Inputs, find_input, read_inputs, read_mask
from wanedit.run.evaluate_run import inputs_of_run
from wanedit.video.arrays import Frames

Values = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Results of one video: `metrics[group]` by name, and `skipped[group]` with the reason."""

    video: str
    frames: int
    size: tuple[int, int]
    metrics: dict[str, Values]
    skipped: dict[str, str]


class _NotGivenError(Exception):
    """A group lacks an input, which the message names."""


def evaluate(config: EvaluationConfig, folders: Sequence[Path] = ()) -> Evaluation:
    """Measure a video.

    Raises:
        InputError: a file that is not there or does not fit; a named metric that cannot be measured.
        MissingWeightsError: a named metric needs weights that are not on this machine.
    """
    check_evaluation(config)
    names = _names(config.metrics)
    inputs, title = _read(config, folders)
    metrics, skipped = {}, {}
    for name in names or GROUPS:
        try:
            metrics[name] = GROUPS[name](inputs)
        except (_NotGivenError, MissingWeightsError) as error:
            if names:
                raise (
                    InputError(f"{name}: {error}") if isinstance(error, _NotGivenError) else error
                ) from None
            skipped[name] = str(error)
    height, width = inputs.video.shape[1:3]
    return Evaluation(title, len(inputs.video), (width, height), metrics, skipped)


def check_evaluation(config: EvaluationConfig) -> None:
    """Refuse what no video makes sense of.

    Raises:
        InputError: a value of another type, no video, or an unknown metric.
    """
    check_fields(config)
    if bool(config.video) == bool(config.run):
        raise InputError("expected a video file, a folder of images, or the folder of a run, and one of them")
    if config.run and (config.junctions or config.reference or config.keyframes):
        raise InputError("a run has junctions, reference and keyframes of its own; expected none to be given")
    unknown = [name for name in _names(config.metrics) if name not in GROUPS]
    if unknown:
        raise InputError(f"metrics names {unknown[0]!r}; expected auto, or some of {', '.join(GROUPS)}")


def _read(config: EvaluationConfig, folders: Sequence[Path]) -> tuple[Inputs, str]:
    if config.run is None:
        inputs, clip = read_inputs(config, folders)
        return inputs, clip.path.name
    root = find_input(config.run, "run", folders)
    inputs = inputs_of_run(root, folders)
    return replace(inputs, mask=read_mask(config.mask, inputs.video, folders)), root.resolve().name


def _names(text: str) -> list[str]:
    return [] if text == "auto" else [name.strip() for name in text.split(",") if name.strip()]


def _of_junctions(inputs: Inputs) -> Values:
    if not inputs.junctions:
        raise _NotGivenError("no junctions are given")
    found = junction_scores(inputs.video, inputs.junctions, inputs.motion)
    return {str(j): {name: asdict(value) for name, value in scores.items()} for j, scores in found.items()}


def _of_time(inputs: Inputs) -> Values:
    if len(inputs.video) < 3:
        raise _NotGivenError(f"the video has {len(inputs.video)} frames; 3 are needed")
    return asdict(temporal_scores(inputs.video, inputs.motion))


def _of_reference(inputs: Inputs) -> Values:
    if inputs.reference is None:
        raise _NotGivenError("no reference is given")
    psnr = frame_psnr(inputs.video, inputs.reference)
    values = {"psnr": float(psnr.mean()), "psnr_worst": float(psnr.min()), "worst_frame": int(psnr.argmin())}
    return values | {"ssim": float(frame_ssim(inputs.video, inputs.reference).mean())}


def _of_mask(inputs: Inputs) -> Values:
    if inputs.reference is None or inputs.mask is None:
        raise _NotGivenError("no reference and mask are given")
    places = {"inside": inputs.mask, "outside": ~inputs.mask}
    return {
        f"psnr_{name}": _mean(frame_psnr(inputs.video, inputs.reference, at)) for name, at in places.items()
    }


def _of_keyframes(inputs: Inputs) -> Values:
    shown, pictures = _at_keyframes(inputs)
    psnr, ssim = frame_psnr(shown, pictures), frame_ssim(shown, pictures)
    per_frame = dict(zip(map(str, inputs.keyframes or {}), map(float, psnr), strict=True))
    return {"psnr": float(psnr.mean()), "ssim": float(ssim.mean()), "psnr_by_frame": per_frame}


def _at_keyframes(inputs: Inputs) -> tuple[Frames, Frames]:
    if not inputs.keyframes:
        raise _NotGivenError("no keyframes are given")
    return inputs.video[list(inputs.keyframes)], np.stack(list(inputs.keyframes.values()))


def _of_lpips(inputs: Inputs) -> Values:
    from wanedit.metrics.perceptual import Lpips

    lpips = Lpips.load()
    values: Values = {}
    if inputs.reference is not None:
        values["reference"] = float(lpips.distances(inputs.video, inputs.reference).mean())
    if inputs.keyframes:
        values["keyframes"] = float(lpips.distances(*_at_keyframes(inputs)).mean())
    if inputs.junctions:
        steps = np.concatenate([[np.nan], lpips.steps(inputs.video)])
        joins = inputs.junctions
        values["junctions"] = {str(j): asdict(score("lpips", steps, j, joins)) for j in joins}
    if not values:
        raise _NotGivenError("neither a reference, nor keyframes, nor junctions are given")
    return values


def _mean(values: np.ndarray) -> float:
    """Of the frames that have a value; NaN where none has."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


GROUPS: dict[str, Callable[[Inputs], Values]] = {
    "junctions": _of_junctions,
    "temporal": _of_time,
    "fidelity": _of_reference,
    "mask": _of_mask,
    "keyframes": _of_keyframes,
    "lpips": _of_lpips,
}


def rows(result: Evaluation) -> list[tuple[str, str, str, float]]:
    """(group, place, name, value) of every number: one line each of the CSV."""
    found = []
    for group, values in result.metrics.items():
        for place, name, value in _flat(values):
            found.append((group, place, name, float(value)))
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
    """The results as JSON, and beside it as CSV; what is not a number is null."""
    values = _plain(asdict(result))
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    lines = [
        f"{group},{place},{name},{'' if math.isnan(value) else f'{value:.6g}'}"
        for group, place, name, value in rows(result)
    ]
    write_text(path.with_suffix(".csv"), "\n".join(["group,place,name,value", *lines]) + "\n")


def _text(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
