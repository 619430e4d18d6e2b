"""An experiment from its grid to its tables and figures; what is complete is not made again."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wanedit.errors import InputError, ResourceError
from wanedit.files import read_json
from wanedit.jobs.ablate.config import RECORD, TABLE, AblationConfig, check_ablation, check_results
from wanedit.jobs.ablate.grid import Grid, Settings, column_names, label_text, load_grid
from wanedit.jobs.ablate.results import Results, collect, draw_figures, write_results
from wanedit.jobs.ablate.runs import Run, expand, make
from wanedit.runtime import launch, pool
from wanedit.runtime.events import wide_console
from wanedit.runtime.pool import Pool
from wanedit.runtime.record import recorded_config
from wanedit.tracking import open_tracker

Say = Callable[[str], None]


class Ablation(Pool[Run]):
    """The runs of a grid, which end in its tables and figures."""

    def __init__(self, config: AblationConfig) -> None:
        self.grid = _open_grid(config)
        self.points = expand(self.grid, config.folder, config.items)
        # As a process elsewhere, and a later one, can go on with it.
        own = replace(
            config,
            experiment=str(config.folder.absolute()),
            output=str(config.runs_folder.absolute()),
            results=str(config.results_folder.absolute()),
            force=False,
        )
        self.settings = own
        super().__init__(config.runs_folder, own.results_folder / TABLE, own, self.points, config.force)

    def make(self, run: Run, gpu: int | None, anew: bool) -> Settings:
        """Make and measure one."""
        return make(run, self.root, gpu, anew, self.settings.logged)

    def conclude(self, made: int, seconds: float) -> None:
        """Write tables, figures and record, and log the means of every point as one run of the experiment's group."""
        results = collect(self.grid, self.points, self.root)
        if not results.rows:
            first = next(iter(results.missing.values()), "none")
            raise ResourceError(f"no run of {self.settings.folder} has a result; the first: {first}")
        _conclude(self, results, made, seconds)


def ablate(config: AblationConfig, verbose: bool = True, say: Say = print) -> Results:
    """Make every run of a grid that is not complete, beside all other processes that do, then its results.

    Args:
        verbose: a progress bar, and each failure as it happens.

    Raises:
        InputError: the grid is wrong, more than one process is asked for under torchrun, or results cannot be written
            or would replace somebody's files.
        ResourceError: others work on another grid there; or no run has a result.
        Interrupted: SIGINT or SIGTERM; finished runs stay.
    """
    world = launch.current_world()
    check_ablation(config, world)
    return _ablate(config, verbose, say, 0 if world.under_torchrun else config.jobs)


def begin(config: AblationConfig) -> None:
    """Put an experiment on record for processes that something else starts. Raises as `ablate`."""
    check_ablation(config, launch.World())
    pool.begin(Ablation(config))


def work(root: Path, record: Settings, gpu: int | None = None, verbose: bool = True) -> Results:
    """Help with, or go on with, the experiment that a folder has on record, as `runtime.launchers.work` does.

    Args:
        root: the folder of its runs. record: what its config.yaml holds.
        gpu: which device; None for the first one.
        verbose: as of `ablate`.

    Raises:
        InputError: as `ablate`, and a record that is none.
    """
    config = replace(recorded_config(AblationConfig, record, root), jobs=1)
    check_ablation(config, launch.current_world())
    return _ablate(config, verbose, print, 0, gpu)


def _ablate(
    config: AblationConfig, verbose: bool, say: Say, children: int, gpu: int | None = None
) -> Results:
    made, world = Ablation(config), launch.current_world()
    pool.pull(made, world, say if verbose and world.rank == 0 else None, children, gpu)
    return collect(made.grid, made.points, made.root, config.results_folder)


def _open_grid(config: AblationConfig) -> Grid:
    """The grid, where its figures may be written too. Raises InputError."""
    grid = load_grid(config.folder)
    check_results(config.results_folder, [f"{figure.name}.png" for figure in grid.figures])
    return grid


def _conclude(ablation: Ablation, results: Results, made: int, seconds: float) -> None:
    import torch

    from wanedit import __version__

    config, grid, folder = ablation.settings, ablation.grid, ablation.settings.results_folder
    # What earlier commands made; drawing again makes nothing.
    try:
        earlier = read_json(folder / RECORD, "the record of an experiment").get("made")
    except InputError:
        earlier = None
    made_now = [{"runs": made, "jobs": config.jobs, "seconds": round(seconds, 1)}] if made else []
    record = {
        "wanedit": __version__,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(),
        "items": config.items,
        "runs": len(ablation.points),
        "models": sorted({run.model for run in ablation.points}),
        "made": (earlier if isinstance(earlier, list) else []) + made_now,
        "missing": results.missing,
        "settings": asdict(grid),
    }
    write_results(grid, results, folder, record)
    draw_figures(grid, results, folder)
    points = [
        results.labels(point)
        | {"measure": measure, "mean": mean.mean, "low": mean.low, "high": mean.high, "n": mean.count}
        for point in results.points()
        for measure in results.measures()
        if (mean := results.mean(point, measure)) is not None
    ]
    name = config.folder.resolve().name
    with open_tracker(config.logged, ablation.root, "ablate", asdict(grid), key=name) as tracking:
        tracking.table("results", points)
        tracking.summary({"runs": len(ablation.points), "missing": len(results.missing)})


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
