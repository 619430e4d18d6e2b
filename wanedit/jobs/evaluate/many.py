"""Measures of many videos, or of many runs."""

import math
from collections.abc import Sequence
from pathlib import Path

from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.jobs.evaluate import METRICS
from wanedit.jobs.evaluate.config import EvaluationConfig, find_files, find_keyframes
from wanedit.runtime.inputs import RECORDS, find_path, run_folder
from wanedit.runtime.many import Found

ENDING, EACH, RUNS = ".json", ("reference", "mask", "keyframes", "scene"), True


def find(values: Json, folders: Sequence[Path]) -> Found:
    """As `wanedit evaluate` does before it measures."""
    config = EvaluationConfig(**values)
    if config.vbench is not None:
        raise InputError(
            "vbench is one list of all videos, to which one process adds; evaluate them one by one"
        )
    groups = find_files(config, folders)
    names = ("video", "reference", "mask", "scene")
    inputs = [
        find_path(given, folders, what=name, folder=True)
        for name in names
        if (given := getattr(config, name))
    ]
    if config.run:
        run = run_folder(find_path(config.run, folders, what="run", folder=True))
        inputs += [path for name in RECORDS if (path := run / name).is_file()]
    elif config.keyframes:
        inputs += [keyframe.path for keyframe in find_keyframes(config, folders)]
    # Imported here, too, so that one that cannot be is told before any is measured.
    code = {name: own for name in (METRICS if groups is None else groups) if (own := METRICS.code(name))}
    return Found(inputs, {"code": code} if code else {}, float(inputs[0].stat().st_size))


def make(values: Json, folders: Sequence[Path], gpu: int | None) -> dict[str, float]:
    """Measure one, and write what came out."""
    from wanedit.jobs.evaluate.run import evaluate, rows, write

    config = EvaluationConfig(**values)
    result = evaluate(config, folders, lambda line: None)
    write(result, Path(str(config.output)))
    found = {"/".join(filter(None, place)): value for *place, value in rows(result)}
    return {"frames": result.frames} | {name: value for name, value in found.items() if math.isfinite(value)}
