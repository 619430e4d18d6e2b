"""What `wanedit ablate` can be told; imports nothing heavy, for the command line reads it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from wanedit.errors import InputError
from wanedit.files import at_home
from wanedit.runtime import launch
from wanedit.runtime.outputs import check_outputs, is_own, require_writable
from wanedit.runtime.settings import (
    Everyday,
    FileName,
    PlainValues,
    Registered,
    TrackingSettings,
    require_folder,
)

GRID_FILE = "grid.yaml"
# What is written of every grid, beside its figures.
TABLE, RECORD = "table.md", "record.json"
TABLES = ("results.csv", "summary.csv", TABLE)


@dataclass(frozen=True)
class AblationConfig(PlainValues):
    """One experiment.

    Attributes:
        job: whose settings these are; a record says it, and no other job takes it.
        experiment: a folder with a grid.yaml.
        jobs: processes that share the runs on this machine; a run has one thread unless its grid has cpu_threads.
        output: where the runs are kept; null for outputs/ablate and the folder's name. Their results are written into
            the experiment's own folder.
        results: where results are written; null for `results` in the experiment's folder.
        items: only the first so many clips; null for all. Results of a part are never mixed with those of the whole.
        force: make all runs anew.
        tracking: where the experiment is also logged: each run that is made, by the name of its point and with its
            measures, and the means of all; one group of the experiment's name. none, csv, tensorboard or wandb.
        tracking_project: the project in Weights & Biases.
        tags: words to find the runs by there, "a,b".
    """

    experiment: str | os.PathLike[str] = ""
    jobs: Annotated[int, Everyday("how")] = 1
    output: Annotated[FileName | None, Everyday("what comes out")] = None
    results: Annotated[FileName | None, Everyday("what comes out")] = None
    items: Annotated[int | None, Everyday("how")] = None
    force: bool = False
    tracking: Annotated[str, Registered("wanedit.tracking.backends:TRACKERS")] = "none"
    tracking_project: str = "wanedit"
    tags: str = ""
    job: Literal["ablate"] = "ablate"

    @property
    def folder(self) -> Path:
        """The experiment's."""
        return at_home(self.experiment)

    @property
    def logged(self) -> TrackingSettings:
        """Where the experiment is logged: its runs are a group of its name."""
        name = self.folder.resolve().name
        return TrackingSettings(
            tracking=self.tracking, experiment=name, tracking_project=self.tracking_project, tags=self.tags
        )

    @property
    def runs_folder(self) -> Path:
        """The parent of all runs and of the clips that they work on."""
        if self.output is not None:
            return at_home(self.output)
        return Path("outputs", "ablate", self.folder.resolve().name)

    @property
    def results_folder(self) -> Path:
        """Where tables and figures go; of a part of the clips, not among those of the whole."""
        if self.results is not None:
            return at_home(self.results)
        return self.folder / "results" if self.items is None else self.runs_folder / "part"


def check_ablation(config: AblationConfig, world: launch.World) -> None:
    """Refuse what makes no sense on any grid.

    Raises:
        InputError: naming the setting, no grid there, or an output that cannot be written or is somebody's.
    """
    from wanedit.tracking import check_tracking

    if not config.experiment:
        raise InputError(
            "experiment is empty; expected a folder with a grid.yaml, such as experiments/08_steps"
        )
    for name, value in (("jobs", config.jobs), ("items", config.items)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; expected at least 1")
    for folder in (config.output, config.results):
        if folder is not None:
            require_folder(folder)
    check_tracking(config.logged)
    if world.under_torchrun and config.jobs > 1:
        raise InputError(f"jobs is {config.jobs} under torchrun, whose processes share the runs; expected 1")
    if not (config.folder / GRID_FILE).exists():
        raise InputError(f"{config.folder} has no {GRID_FILE}; expected the folder of an experiment")
    for name in (".queue", "config.yaml", "metrics.jsonl"):
        require_writable(config.runs_folder / name)
    check_results(config.results_folder)


def check_results(folder: Path, figures: Sequence[str] = ()) -> None:
    """See that tables and figures replace only those of an experiment. Raises InputError, naming the file."""
    record = folder / RECORD
    require_writable(record)
    written = [folder / name for name in (*TABLES, *figures)]
    check_outputs([*written, record], recorded=record.is_file() and is_own(record))
