"""One run of a grid: make it as the command would, and measure it against the truth where that is known."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wanedit.jobs.ablate.grid import DISTANCES, merge
from wanedit.jobs.ablate.material import Material, prepare
from wanedit.jobs.ablate.runs import Run
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.metrics.functional import frame_psnr, frame_ssim
from wanedit.metrics.functional.junctions import junction_scores
from wanedit.metrics.functional.temporal import temporal_scores
from wanedit.runtime.directory import RunDirectory
from wanedit.video.arrays import Frames

Measures = dict[str, float]


def perform(run: Run, root: Path, gpu: int | None = None) -> Measures:
    """Make a run in its folder and record what is measured.

    Args:
        root: of all runs and drawn clips.
        gpu: the device to use; None for the first, or the CPU.

    Raises:
        WaneditError: whatever the command raises.
    """
    folder = run.folder(root)
    shutil.rmtree(folder, ignore_errors=True)
    material = prepare(run.item, root / "clips")
    values = merge(material.settings, run.settings) | {"base_seed": run.seed, "output": str(folder)}
    measures = MAKERS[run.command](values, material, gpu)
    found = {name: value for name, value in measures.items() if np.isfinite(value)}
    # JSON has no word for them; a table that lacks them has fewer clips in `n`.
    run.succeed(root, found)
    return found


def _edit(values: dict[str, Any], material: Material, gpu: int | None) -> Measures:
    from wanedit.jobs.edit.run import edit

    config = EditConfig(**values)
    result = edit(config if gpu is None else replace(config, gpu_id=gpu), verbose=False)
    event = _event(RunDirectory(config.folder, config.final_path).metrics, "edited")
    measures = _of_clip(result.frames, material.truth, result.keyframe_indices)
    measures |= {"evaluations": event["evaluations"], "seconds": event["seconds"]}
    if result.keyframe_error is not None:
        measures["keyframe_error"] = result.keyframe_error
    return measures


def _generate(values: dict[str, Any], material: Material, gpu: int | None) -> Measures:
    from wanedit.jobs.evaluate.metric import Inputs
    from wanedit.jobs.generate.run import generate
    from wanedit.runtime.record import read_run

    config = GenerationConfig(**values)
    result = generate(config if gpu is None else replace(config, gpu_ids=[gpu]), verbose=False)
    made = Inputs.of(read_run(config.folder))
    measures = _of_clip(made.video, material.truth, result.keyframe_frames)
    measures["seconds"] = sum(_seconds(RunDirectory(config.folder, config.final_path).metrics))
    if not made.junctions:
        return measures
    joins = junction_scores(made.video, made.junctions, made.motion).values()
    for name in next(iter(joins)):
        measures[f"junction_{name}"] = float(np.mean([scores[name].ratio for scores in joins]))
    measures["joins_shown"] = sum(any(score.shows for score in scores.values()) for scores in joins)
    return measures


MAKERS: dict[str, Callable[[dict[str, Any], Material, int | None], Measures]] = {
    "edit": _edit,
    "generate": _generate,
}


def _of_clip(video: Frames, truth: Frames | None, keyframes: tuple[int, ...]) -> Measures:
    """PSNR and SSIM off and at the keyframes and by distance to the nearest; and how still the clip is in time."""
    scores = temporal_scores(video) if len(video) >= 3 else None
    names = ("dynamic_degree", "warp_error", "consistency", "flicker")
    measures = {} if scores is None else {name: getattr(scores, name) for name in names}
    if truth is None:
        return measures
    psnr, ssim = frame_psnr(video, truth), frame_ssim(video, truth)
    distance = np.abs(np.arange(len(video))[:, None] - np.array(keyframes)).min(axis=1)
    off = distance > 0
    measures |= {"psnr_off": psnr[off].mean(), "ssim_off": ssim[off].mean(), "psnr_key": psnr[~off].mean()}
    for d in DISTANCES:
        if (distance == d).any():
            measures[f"psnr_at_{d}"] = psnr[distance == d].mean()
    return {name: float(value) for name, value in measures.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _event(path: Path, kind: str) -> dict[str, Any]:
    """The last of its kind."""
    return [line for line in _lines(path) if line["event"] == kind][-1]


def _seconds(path: Path) -> list[float]:
    return [line["seconds"] for line in _lines(path) if line["event"] == "segment"]
