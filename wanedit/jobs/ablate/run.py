"""An experiment from its grid to its tables and figures; what is complete is not made again."""

import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wanedit.errors import InputError, ResourceError
from wanedit.files import read_json, system_errors
from wanedit.interrupts import held_back, interruptible
from wanedit.jobs.ablate.config import AblationConfig, check_ablation, check_results
from wanedit.jobs.ablate.grid import Grid, column_names, label_text, load_grid
from wanedit.jobs.ablate.results import Results, collect, draw_figures, write_results
from wanedit.jobs.ablate.runs import FAILURE, RESULT, Run, expand, make, unfinished
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import counting_together, progress_bars, wide_console
from wanedit.runtime.settings import TrackingSettings
from wanedit.tracking import open_tracker

Say = Callable[[str], None]
# A worker whose parent was killed ends after so long without work.
IDLE_SECONDS = 60


@system_errors()
def ablate(config: AblationConfig, verbose: bool = True, say: Say = print) -> Results:
    """Make every run of a grid that is not complete, then its results; under torchrun each rank a share.

    Args:
        verbose: a progress bar, and each failure as it happens.

    Raises:
        InputError: the grid is wrong, more than one process is asked for under torchrun, or results cannot be written
            or would replace somebody's files.
        ResourceError: another process works on these runs.
        Interrupted: SIGINT or SIGTERM; finished runs stay.
    """
    world = launch.current_world()
    check_ablation(config, world)
    grid = _open_grid(config)
    launch.join(world)
    try:
        # One invocation at a time owns the runs, so that none is made twice.
        root = config.runs_folder
        owned = RunDirectory(root, root / "-").lock() if world.rank == 0 else nullcontext()
        with interruptible(), owned:
            return _ablate(config, grid, world, say if verbose and world.rank == 0 else None)
    finally:
        launch.leave(world)


def _open_grid(config: AblationConfig) -> Grid:
    """The grid, where its figures may be written too. Raises InputError."""
    grid = load_grid(config.folder)
    check_results(config.results_folder, [f"{figure.name}.png" for figure in grid.figures])
    return grid


def _ablate(config: AblationConfig, grid: Grid, world: launch.World, say: Say | None) -> Results:
    start, root = time.monotonic(), config.runs_folder
    runs = expand(grid, config.folder, config.items)
    todo = launch.on_rank_zero(world, lambda: _to_make(runs, root, config.force))
    if say is not None:
        say(f"{grid.title}: {len(runs)} runs, {len(todo)} to make, in {root}")
    others = [run for k, run in enumerate(todo) if k % world.size != world.rank]

    def stamps() -> list[list[int]]:
        """Of what the other ranks' runs came to, which is written anew as each ends."""
        written = ([run.folder(root) / name for name in (RESULT, FAILURE)] for run in others)
        return [[path.stat().st_mtime_ns for path in paths if path.exists()] for paths in written]

    before = stamps()

    def of_others() -> int:
        return sum(now not in (was, []) for was, now in zip(before, stamps(), strict=True))

    label = f"ablating on {world.size} ranks" if world.size > 1 else "ablating"
    with (
        progress_bars(say is not None),
        counting_together(
            label, "runs", len(todo), of_others if others and not world.rank else None
        ) as advance,
    ):

        def done(run: Run) -> None:
            advance()
            if say is not None and (why := run.failure(root)):
                labels = ", ".join(f"{name} {value}" for name, value in run.labels.items())
                say(f"failed: {labels}; clip {run.item.name}, seed {run.seed} ({run.name}): {why}")

        if world.under_torchrun:
            # Each rank makes whole runs: to the commands it is a process of its own.
            with launch.alone():
                for run in todo[world.rank :: world.size]:
                    make(run, root, world.rank % world.local_size, config.logged)
                    done(run)
        else:
            run_all(todo, root, config.jobs, done, config.logged)
        launch.barrier(world)
    results = collect(grid, runs, root)
    if world.rank == 0:
        if not results.rows:
            first = next(iter(results.missing.values()), "none")
            raise ResourceError(f"no run of {config.folder} has a result; the first: {first}")
        _conclude(config, grid, results, runs, len(todo), time.monotonic() - start)
    return results


def _to_make(runs: Sequence[Run], root: Path, force: bool) -> list[Run]:
    todo = unfinished(runs, root, force)
    for run in todo:
        run.check(root)
    return todo


def run_all(
    runs: Sequence[Run],
    root: Path,
    jobs: int,
    done: Callable[[Run], None],
    logged: TrackingSettings | None = None,
) -> None:
    """Make all runs, `jobs` at a time, each in a process that goes on to the next one.

    Args:
        root: of all runs.
        done: told of every run that ended, well or not.
        logged: see `make`.
    """
    from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    def opened() -> ProcessPoolExecutor:
        # One process each: when one dies, it is known which run it was at, and the others go on.
        return ProcessPoolExecutor(1, timeout=IDLE_SECONDS)

    waiting = list(reversed(runs))
    pools = [opened() for _ in range(min(jobs, len(runs)))]
    idle = list(reversed(range(len(pools))))
    busy: dict[Future[None], tuple[int, Run]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                worker, run = idle.pop(), waiting.pop()
                # Ctrl-C and a closed terminal reach the whole group, and this process ends the others.
                with held_back():
                    busy[pools[worker].submit(make, run, root, worker, logged)] = worker, run
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                worker, run = busy.pop(future)
                error = future.exception()
                if isinstance(error, TerminatedWorkerError):
                    # loky's words end with "{EXIT(9)}" or "{SIGKILL(-9)}".
                    exits = re.findall(r"(\w+)\((-?\d+)\)", str(error)) or [("?", "?")]
                    name, code = exits[-1]
                    how = f"signal {name}" if code.startswith("-") else f"exit code {code}"
                    run.fail(root, f"its process ended with {how}")
                    pools[worker].shutdown(kill_workers=True)
                    pools[worker] = opened()
                elif error is not None:
                    raise error
                idle.append(worker)
                done(run)
    finally:
        for pool in pools:
            pool.shutdown(kill_workers=True)


def _conclude(
    config: AblationConfig, grid: Grid, results: Results, runs: list[Run], made: int, seconds: float
) -> None:
    """Write tables, figures and record, and log the means of every point as one run of the experiment's group."""
    import torch

    from wanedit import __version__

    # What earlier commands made; drawing again makes nothing.
    try:
        earlier = read_json(config.results_folder / "record.json", "the record of an experiment").get("made")
    except InputError:
        earlier = None
    made_now = [{"runs": made, "jobs": config.jobs, "seconds": round(seconds, 1)}] if made else []
    record = {
        "wanedit": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(),
        "items": config.items,
        "runs": len(runs),
        "models": sorted({run.model for run in runs}),
        "made": (earlier if isinstance(earlier, list) else []) + made_now,
        "missing": results.missing,
        "settings": asdict(grid),
    }
    write_results(grid, results, config.results_folder, record)
    draw_figures(grid, results, config.results_folder)
    points = [
        results.labels(point)
        | {"measure": measure, "mean": mean.mean, "low": mean.low, "high": mean.high, "n": mean.count}
        for point in results.points()
        for measure in results.measures()
        if (mean := results.mean(point, measure)) is not None
    ]
    name = config.folder.resolve().name
    with open_tracker(config.logged, config.runs_folder, "ablate", asdict(grid), key=name) as tracking:
        tracking.table("results", points)
        tracking.summary({"runs": len(runs), "missing": len(results.missing)})


def print_ablation_plan(config: AblationConfig, console: Console | None = None) -> None:
    """Every point of the grid with its runs, and how many of them are complete."""
    console = console or wide_console()
    grid = _open_grid(config)
    runs, columns = expand(grid, config.folder, config.items), column_names(grid)
    counts: dict[tuple[str, ...], list[int]] = {}
    for run in runs:
        made = counts.setdefault(tuple(label_text(run.labels.get(c)) for c in columns), [0, 0])
        made[0] += 1
        made[1] += run.result(config.runs_folder) is not None
    table = Table(title=grid.title, title_justify="left", caption=grid.shows.strip(), caption_justify="left")
    for name in (*columns, "runs", "complete"):
        table.add_column(name, justify="right" if name in ("runs", "complete") else "left")
    for point, (total, complete) in counts.items():
        table.add_row(*point, str(total), str(complete))
    console.print(table)
    left = len(runs) - sum(complete for _, complete in counts.values())
    hint = f"; the whole takes about {grid.minutes:g} minutes on two cores" if grid.minutes else ""
    console.print(f"{len(runs)} runs of `wanedit {grid.command}`, {left} to make{hint}", highlight=False)
    console.print(f"runs in {config.runs_folder}, results in {config.results_folder}", highlight=False)
