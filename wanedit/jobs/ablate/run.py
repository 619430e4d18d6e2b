"""An experiment from its grid to its tables and figures; what is complete is not made again."""

import json
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, ResourceError
from wanedit.jobs.ablate.config import AblationConfig
from wanedit.jobs.ablate.figures import draw_figures
from wanedit.jobs.ablate.grid import Grid, load_grid
from wanedit.jobs.ablate.pool import device_of, make, run_all
from wanedit.jobs.ablate.results import Results, collect, write_results
from wanedit.jobs.ablate.runs import Run, expand, unfinished
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.progress import progress_bar
from wanedit.tracking import TrackingSettings, check_tracking, open_tracker

Say = Callable[[str], None]


def ablate(config: AblationConfig, verbose: bool = True, say: Say = print) -> Results:
    """Make every run of a grid that is not complete, then its results; under torchrun each rank a share.

    Args:
        verbose: a progress bar, and each failure as it happens.

    Raises:
        InputError: the grid is wrong, or more than one process is asked for under torchrun.
        ResourceError: another process works on these runs.
        launch.Interrupted: SIGINT or SIGTERM; finished runs stay.
    """
    world = launch.current_world()
    check_ablation(config, world)
    launch.join(world)
    try:
        with launch.interruptible(), _owned(config, world):
            return _ablate(config, world, say if verbose and world.rank == 0 else None)
    finally:
        launch.leave(world)


def check_ablation(config: AblationConfig, world: launch.World) -> None:
    """Refuse what makes no sense on any grid.

    Raises:
        InputError: naming the setting.
    """
    if not config.experiment:
        raise InputError(
            "experiment is empty; expected a folder with a grid.yaml, such as experiments/08_steps"
        )
    for name, value in (("jobs", config.jobs), ("items", config.items)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; expected at least 1")
    check_tracking(TrackingSettings(config.tracking, "", config.tracking_project))
    if world.under_torchrun and config.jobs > 1:
        raise InputError(f"jobs is {config.jobs} under torchrun, whose processes share the runs; expected 1")


def _owned(config: AblationConfig, world: launch.World) -> Any:
    root = config.runs_folder
    return RunDirectory(root, root / "-").lock() if world.rank == 0 else nullcontext()


def _ablate(config: AblationConfig, world: launch.World, say: Say | None) -> Results:
    start, root = time.monotonic(), config.runs_folder
    grid = load_grid(config.folder)
    runs = expand(grid, config.folder, config.items)
    todo = launch.on_rank_zero(world, lambda: unfinished(runs, root, config.force))
    if say is not None:
        say(f"{grid.title}: {len(runs)} runs, {len(todo)} to make, in {root}")
    with progress_bar(len(todo), "ablating", "runs", say is not None) as advance:

        def done(run: Run) -> None:
            advance()
            if say is not None and (why := run.failure(root)):
                say(f"failed: {_title(run)}: {why}")

        _make(todo, root, config.jobs, world, done)
    launch.barrier(world)
    results = collect(grid, runs, root)
    if world.rank == 0:
        _write(config, grid, results, runs, len(todo), time.monotonic() - start)
    return results


def _make(todo: list[Run], root: Path, jobs: int, world: launch.World, done: Callable[[Run], None]) -> None:
    if not world.under_torchrun:
        run_all(todo, root, jobs, done)
        return
    # Each rank makes whole runs: to the commands it is a process of its own.
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("TORCHELASTIC")}
    try:
        for run in todo[world.rank :: world.size]:
            make(run, root, device_of(world.rank % world.local_size))
            done(run)
    finally:
        os.environ.update(hidden)


def _title(run: Run) -> str:
    labels = ", ".join(f"{name} {value}" for name, value in run.labels.items())
    return f"{labels}; clip {run.item.name}, seed {run.seed} ({run.name})"


def _write(
    config: AblationConfig, grid: Grid, results: Results, runs: list[Run], made: int, seconds: float
) -> None:
    if not results.rows:
        raise ResourceError(
            f"no run of {config.folder} has a result; the first: {next(iter(results.missing.values()), 'none')}"
        )
    folder = config.results_folder
    record = _record(config, results, runs, made, seconds)
    write_results(grid, results, folder, record)
    draw_figures(grid, results, folder)
    _track(config, results, record)


def _track(config: AblationConfig, results: Results, record: dict[str, Any]) -> None:
    """Log the means of every point, as one run of the experiment's group."""
    name = config.folder.resolve().name
    settings = TrackingSettings(config.tracking, name, config.tracking_project)
    points = [
        dict(zip(results.columns, point, strict=True))
        | {"measure": measure, "mean": mean.mean, "low": mean.low, "high": mean.high, "n": mean.count}
        for point in results.points()
        for measure in results.measures()
        if (mean := results.mean(point, measure)) is not None
    ]
    with open_tracker(settings, config.runs_folder, "ablate", record["settings"], key=name) as tracking:
        tracking.table("results", points)
        tracking.summary({"runs": record["runs"], "missing": len(results.missing)})


def _history(config: AblationConfig) -> list[dict[str, Any]]:
    """What earlier commands made; drawing again makes nothing."""
    try:
        return json.loads((config.results_folder / "record.json").read_text(encoding="utf-8"))["made"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _record(
    config: AblationConfig, results: Results, runs: list[Run], made: int, seconds: float
) -> dict[str, Any]:
    import torch

    from wanedit import __version__

    return {
        "wanedit": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(),
        "items": config.items,
        "runs": len(runs),
        "made": _history(config)
        + ([{"runs": made, "jobs": config.jobs, "seconds": round(seconds, 1)}] if made else []),
        "missing": results.missing,
        "settings": asdict(load_grid(config.folder)),
    }
