"""From a grid to runs, each named by the hash of all that decides its result; how one is made, measured and kept."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from wanedit.errors import InputError
from wanedit.files import digest
from wanedit.jobs.ablate.clips import BESIDE, Item, fingerprint, make_items, prepare
from wanedit.jobs.ablate.footage import Masks, read_masks
from wanedit.jobs.ablate.grid import COLUMNS, JOIN_COLUMNS, Grid, Settings, label_text, merge, points
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.method import build_method, from_outside
from wanedit.jobs.edit.pictures import decide_output
from wanedit.jobs.edit.plan import ALGORITHM
from wanedit.jobs.evaluate.metric import METRICS, Inputs, SceneTruth, measure
from wanedit.jobs.evaluate.run import flat
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.joins import BRIDGING, CO_DENOISING, DECODING
from wanedit.jobs.generate.plan import ALGORITHM as SAMPLING
from wanedit.lit.model import OutsideModel, hash_code, open_model, require_wan
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.events import number
from wanedit.runtime.options import describe
from wanedit.runtime.pool import Member
from wanedit.runtime.record import FinishedRun, read_run
from wanedit.runtime.settings import FINAL_NAME, TrackingSettings, check_values, registered_at
from wanedit.tracking.guard import METRICS_CSV, NAME_LIMIT
from wanedit.tracking.record import write_metrics_csv
from wanedit.tracking.runs import track_measures
from wanedit.video.restoring import CARRIED
from wanedit.wan.load import hash_files

# Raised when a change to what is measured makes earlier results another thing.
MEASURED = 3
# Of what makes a command's pixels.
VERSIONS = {"edit": (ALGORITHM,), "generate": (SAMPLING, BRIDGING, CO_DENOISING, DECODING)}
# What decides nothing.
LOGGED = (*TrackingSettings.__dataclass_fields__, "module_folders")
# The run's own, which no grid may set.
OWN = ("output", "base_seed", "force_regenerate", "num_gpus", "gpu_ids", "gpu_id", "resume_from")


@dataclass(frozen=True)
class Run(Member):
    """One run of a grid.

    Attributes:
        labels: of its point, by column.
        settings: of the command, without inputs and output.
        model: hash of the files that decide what its model computes, or of another model's code.
        metrics: groups of `wanedit evaluate` that are measured besides the usual ones.
    """

    labels: Settings
    item: Item
    seed: int
    command: str
    settings: Settings
    model: str
    metrics: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What people call it: its point of the grid, its clip and its seed."""
        point = [f"{name} {label_text(value)}" for name, value in self.labels.items()]
        return ", ".join([*point, f"clip {self.item.name}", f"seed {self.seed}"])

    def about(self) -> Settings:
        """What its outcome says of it."""
        return {
            "labels": self.labels,
            "seed": self.seed,
            "item": asdict(self.item),
            "settings": self.settings,
        }


def expand(grid: Grid, folder: Path, items: int | None = None) -> list[Run]:
    """Every run of a grid, each once, checked as far as no clip and no weight is needed.

    Args:
        folder: the experiment's, from which the paths of its clips count.
        items: take only the first so many clips.

    Raises:
        InputError: a setting that the command does not have or cannot take; naming the point of the grid.
        MissingWeightsError: the model is not there.
    """
    found: dict[str, Run] = {}
    models: dict[tuple[object, ...], str] = {}
    # Clips may be large, and every point of the grid has the same.
    contents: dict[str, dict[str, object]] = {}
    measuring = {name: code for name in grid.metrics if (code := METRICS.code(name))}
    for point in points(grid):
        settings = merge({"cpu_threads": 1} | grid.base, point.settings)
        config = _checked(grid.command, settings, point.labels)
        if (source := (config.source, config.distilled, *config.parts.items(), *config.loras)) not in models:
            chosen = (config.parts, config.loras, config.lora_partial)
            model = open_model(config.source, *chosen, distilled=config.distilled)
            if grid.command == "generate":
                require_wan(model)
            if isinstance(model, OutsideModel):
                models[source] = digest(hash_code(model))
            else:
                # The name of a folder may say that it is distilled, which its files do not.
                said = {} if model.distilled is None else {"distilled": model.distilled.name}
                models[source] = digest(hash_files(model, lambda text: None) | said)
        clips = make_items(merge(grid.data, point.data), folder)
        codes = dict.fromkeys((item.name for item in clips), _code(config))
        for item in clips:
            if item.spec["kind"] == "clips":
                own = {n: value for n, value in item.spec["settings"].items() if n not in BESIDE[1:]}
                whole = _checked(grid.command, merge(own, settings), point.labels | {"clip": item.name})
                codes[item.name] = _code(whole)
        for item in clips[:items]:
            if (spec := json.dumps(item.spec, sort_keys=True)) not in contents:
                contents[spec] = fingerprint(item)
            for seed in grid.seeds:
                decides = {
                    "algorithm": [*VERSIONS[grid.command], MEASURED],
                    "command": grid.command,
                    "settings": {name: value for name, value in settings.items() if name not in LOGGED},
                    "item": contents[spec],
                    "seed": seed,
                    "model": models[source],
                    # Left out where there are none, so that earlier results keep their names.
                    **({"metrics": grid.metrics} if grid.metrics else {}),
                    **({"code": code} if (code := codes[item.name] | measuring) else {}),
                }
                name, made_by = digest(decides)[:16], models[source]
                run = Run(
                    name, point.labels, item, seed, grid.command, settings, made_by, tuple(grid.metrics)
                )
                found.setdefault(json.dumps([name, point.labels]), run)
    return list(found.values())


def _code(config: EditConfig | GenerationConfig) -> Settings:
    """What decides a run's result and is in no setting: what is not the package's own, and by what an edit's keyframes
    are carried; empty for nothing."""
    found: Settings = {}
    for name in (f.name for f in fields(config)):
        registry, value = registered_at(type(config), name), getattr(config, name)
        # A method and its controller have files of their options, too.
        if registry is None or name in (*LOGGED, "method", "controller") or value in (None, "auto"):
            continue
        if code := registry.code(value):
            found[name] = code
    if isinstance(config, EditConfig):
        method = build_method(config)
        described = describe(method)
        found |= {"method": described} if from_outside(described) else {}
        # What auto is, and what is made of a kind, was another in earlier versions.
        if (restored := decide_output(config, method).restore) in CARRIED:
            found["restore"] = [restored, CARRIED[restored]]
    return found


def _checked(command: str, settings: Settings, labels: Settings) -> EditConfig | GenerationConfig:
    """The configuration that the settings make, without its inputs."""
    if own := [name for name in OWN if name in settings]:
        raise InputError(f"{own[0]} is set by the grid; expected it to be left to the runs")
    try:
        config = _config(command, settings)
        if isinstance(config, EditConfig):
            decide_output(config, build_method(config))
    except InputError as error:
        place = ", ".join(f"{name} {value}" for name, value in labels.items())
        raise InputError(f"grid at {place}: {error}") from None
    return config


def _config(command: str, settings: Settings) -> EditConfig | GenerationConfig:
    made = EditConfig if command == "edit" else GenerationConfig
    if unknown := [name for name in settings if name not in made.__dataclass_fields__]:
        raise InputError(f"unknown setting {unknown[0]!r} of {command}")
    check_values(made, settings)
    return made(**settings)


def rows(runs: Sequence[Run], root: Path) -> Iterator[tuple[Run, str, float]]:
    """(run, measure, value) of every complete run."""
    for run in runs:
        for name, value in (run.result(root) or {}).items():
            yield run, name, value


def make(
    run: Run, root: Path, gpu: int | None = None, anew: bool = False, logged: TrackingSettings | None = None
) -> dict[str, float]:
    """Make one run in its folder as the command would, and measure it.

    Args:
        root: of all runs and drawn clips.
        gpu: which device; None for the first one.
        anew: whatever its folder holds.
        logged: where the run and its measures are logged; None for where its own settings say.
    """
    import cv2

    cv2.setNumThreads(int(run.settings.get("cpu_threads") or os.cpu_count() or 1))
    folder, material = run.folder(root), prepare(run.item, root / "clips")
    given = merge(material.settings, run.settings)
    config = replace(
        _config(run.command, given),
        base_seed=run.seed,
        output=str(folder),
        # One that failed goes on with what it finished.
        force_regenerate=anew,
    )
    if logged is not None and logged.tracking != "none":
        config = replace(config, **{**asdict(logged), "run_name": run.title[:NAME_LIMIT]})
    if isinstance(config, EditConfig):
        from wanedit.jobs.edit.run import edit

        edit(replace(config, gpu_id=gpu), verbose=False)
    else:
        _generate(config if gpu is None else replace(config, gpu_ids=[gpu]), root)
    # Nobody hears what a run of a grid says: what it may have failed to write of itself fails it here.
    write_metrics_csv(RunDirectory(folder, config.final_path).metrics, folder / METRICS_CSV)
    finished, mask = read_run(folder), None
    if material.mask is not None:
        frames, height, width, _ = finished.video.shape
        mask = read_masks(material.mask, frames, (height, width), getattr(config, "start", 0))
    scene = None if material.truth is None else SceneTruth(material.truth, clip=material.scene)
    found = measure_run(finished, scene, run.metrics, mask)
    if config.tracking != "none":
        track_measures(config, finished, folder, found, lambda line: None)
    # JSON has no word for numbers that are not finite; a table that lacks them has fewer clips in `n`.
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _generate(config: GenerationConfig, root: Path) -> None:
    """What runs of a grid have in common, such as segments under several kinds of joins, is made by the first alone."""
    from wanedit.jobs.generate.plan import plan_in
    from wanedit.jobs.generate.run import generate

    directory, common = RunDirectory(config.folder, config.final_path), Manifest(shared_folder(root))
    names = plan_in(directory, config).digests
    if not config.force_regenerate:
        Manifest(directory).take(common, names)
    generate(config, verbose=False)
    common.take(Manifest(directory), names)


def shared_folder(root: Path) -> RunDirectory:
    """Where all runs have the segments that others may use too; `seconds` are those of whoever made them."""
    return RunDirectory(root / "shared", root / "shared" / FINAL_NAME)


def measure_run(
    made: FinishedRun, scene: SceneTruth | None, more: Sequence[str] = (), mask: Masks | None = None
) -> dict[str, float]:
    """The columns of an ablation's tables: groups of `wanedit evaluate` and what the run says of itself.

    Args:
        scene: the truth, where it is known.
        more: further groups, whose columns are "group/row/…".
        mask: what an edit may change; None for what the run says of itself.

    Raises:
        InputError, MissingWeightsError: see `measure`.
    """
    inputs = Inputs.of(made, scene)
    if mask is not None:
        inputs = replace(inputs, mask=mask)
    given = {"truth": scene is not None, "temporal": len(made.video) >= 3, "junctions": bool(made.junctions)}
    taken, _ = measure(inputs, [*(name for name, there in given.items() if there), *more])
    numbers = {(group, *places): float(n) for group, values in taken.items() for places, n in flat(values)}
    found = {name: numbers[place] for name, place in (COLUMNS | JOIN_COLUMNS).items() if place in numbers}
    if joins := taken.get("junctions"):
        for name in next(iter(joins.values())):
            found[f"junction_{name}"] = float(np.mean([scores[name]["ratio"] for scores in joins.values()]))
        found["joins_shown"] = sum(
            any(score["shows"] for score in scores.values()) for scores in joins.values()
        )
    found |= {"/".join(place): value for place, value in numbers.items() if place[0] in more}
    errors = [number(step["keyframe_error"]) for step in made.steps if "keyframe_error" in step]
    own = {
        "evaluations": made.evaluations,
        "seconds": made.seconds,
        "keyframe_error": errors[-1] if errors else None,
    }
    return found | {name: value for name, value in own.items() if value is not None}
