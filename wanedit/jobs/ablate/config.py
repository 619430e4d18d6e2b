"""What `wanedit ablate` can be told; imports nothing heavy, for the command line reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wanedit.runtime.settings import PlainValues


@dataclass(frozen=True)
class AblationConfig(PlainValues):
    """One experiment.

    Attributes:
        experiment: a folder with a grid.yaml.
        jobs: processes that share the runs on this machine; each has an equal share of the cores.
        output: where the runs are kept; null for outputs/ablate and the folder's name. Their results are written into
            the experiment's own folder.
        results: where results are written; null for `results` in the experiment's folder.
        items: only the first so many clips; null for all. Results of a part are never mixed with those of the whole.
        force: make all runs anew.
        tracking: where the experiment's results are also logged: none, csv, tensorboard or wandb. Its runs are logged
            by themselves if the grid's `base` says so.
        tracking_project: the project in Weights & Biases.
    """

    experiment: str = ""
    jobs: int = 1
    output: str | None = None
    results: str | None = None
    items: int | None = None
    force: bool = False
    tracking: Literal["none", "csv", "tensorboard", "wandb"] = "none"
    tracking_project: str = "wanedit"

    @property
    def folder(self) -> Path:
        """The experiment's."""
        return Path(self.experiment).expanduser()

    @property
    def runs_folder(self) -> Path:
        """The parent of all runs and of the clips that they work on."""
        if self.output is not None:
            return Path(self.output).expanduser()
        return Path("outputs", "ablate", self.folder.resolve().name)

    @property
    def results_folder(self) -> Path:
        """Where tables and figures go; of a part of the clips, not among those of the whole."""
        if self.results is not None:
            return Path(self.results).expanduser()
        return self.folder / "results" if self.items is None else self.runs_folder / "part"
