"""A run's folder as what an evaluation is given: its frames before lossy encoding, its joins, keyframes and source."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wanedit.errors import InputError
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.edit.run import is_complete
from wanedit.jobs.evaluate.inputs import Inputs
from wanedit.jobs.generate.assemble import final_frames
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.plan import make_plan
from wanedit.jobs.generate.run import remaining
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.journal import Manifest
from wanedit.video import read_frames


def inputs_of_run(root: Path, folders: Sequence[Path] = ()) -> Inputs:
    """All that a complete run has on record; its inputs must be where they were.

    Args:
        root: the run's folder, with its config.yaml.

    Raises:
        InputError: no run, one that is not complete, or one whose inputs have gone or changed.
        MissingWeightsError: its model is not on this machine: the hash of the run holds the model's.
    """
    values = _record(root)
    if "video" in values:
        return _edit(_config(EditConfig, values, root), root, folders)
    return _generation(_config(GenerationConfig, values, root), root, folders)


def _record(root: Path) -> dict[str, Any]:
    path = root / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"run: {root} has no config.yaml that can be read ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"run: {path} holds no settings; expected a record of wanedit")
    return values


def _config(kind: Any, values: dict[str, Any], root: Path) -> Any:
    unknown = sorted(set(values) - set(kind.__dataclass_fields__))
    if unknown:
        raise InputError(f"run: {root / 'config.yaml'} has {unknown[0]!r}, which this version does not know")
    return kind(**values)


def _edit(config: EditConfig, root: Path, folders: Sequence[Path]) -> Inputs:
    plan, directory = make_edit_plan(config, folders), RunDirectory(root, config.final_path)
    if not is_complete(plan, directory):
        raise InputError(f"run: the edit of {root} is not complete for its inputs as they are; run it again")
    pictures = plan.task.pictures
    frames = read_frames(Manifest(directory).path(plan.task.digest))
    keyframes = dict(zip(plan.task.keyframe_indices, pictures.keyframes, strict=True))
    method, steps = recorded_steps(directory.metrics, plan.task.digest)
    return Inputs(
        frames,
        reference=pictures.frames,
        keyframes=keyframes,
        of_run=True,
        steps=steps,
        method=method,
        fps=plan.fps,
        prompt=config.prompt,
    )


def recorded_steps(metrics: Path, digest: str) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The method's settings and the steps of the last run that finished the edit `digest`; empty where none did.

    A run that was cut short, or that found the edit complete, leaves lines of its own, which do not count.
    """
    method, steps = {}, []
    found: tuple[dict[str, Any], tuple[dict[str, Any], ...]] = ({}, ())
    for line in _events(metrics):
        match line.get("event"):
            case "start":
                method, steps = line.get("method"), []
                method = method if isinstance(method, dict) else {}
            case "step":
                steps.append(line)
            case "edited" if line.get("digest") == digest:
                found = method, tuple(steps)
    return found


def _events(metrics: Path) -> list[dict[str, Any]]:
    """The lines that can be read: a killed run may leave half of one."""
    found = []
    try:
        lines = metrics.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _generation(config: GenerationConfig, root: Path, folders: Sequence[Path]) -> Inputs:
    plan, directory = make_plan(config, folders), RunDirectory(root, config.final_path)
    if missing := remaining(plan, directory):
        raise InputError(
            f"run: {len(missing)} of {len(plan.tasks)} segments of {root} are not complete for their inputs as they "
            "are; run it again"
        )
    frames = np.stack(list(final_frames(plan, directory)))
    places = plan.timeline.keyframe_frames
    keyframes = dict(zip(places, (image.pixels for image in plan.keyframes), strict=True))
    return Inputs(
        frames,
        tuple(places[1:-1]),
        keyframes=keyframes,
        of_run=True,
        fps=Fraction(plan.timeline.fps),
        prompt=config.prompt,
    )
