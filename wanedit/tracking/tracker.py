"""What a backend of tracking is: one class in one file, with the methods of `Tracker`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

Backend = Literal["none", "csv", "tensorboard", "wandb"]
Scalar = float | int | str | bool | None
Cell = Scalar | Path

# What the index of a series is called: "edit/step" stands below every "edit/..." curve.
INDEX_NAMES = {"edit": "step", "segment": "index"}


def index_name(series: str) -> str:
    """The name of a series' own index; "index" for one that others add."""
    return INDEX_NAMES.get(series, "index")


@runtime_checkable
class HasTracking(Protocol):
    """A configuration that says where to log; GenerationConfig and EditConfig are such."""

    @property
    def tracking(self) -> str: ...
    @property
    def tracking_project(self) -> str: ...
    @property
    def experiment(self) -> str: ...


@dataclass(frozen=True)
class TrackingSettings:
    """The least that `open_tracker` needs to know, for a caller without a run's configuration.

    Attributes:
        tracking: the backend.
        experiment: the group of runs that this one belongs to; "" for none.
        tracking_project: of Weights & Biases.
    """

    tracking: Backend = "none"
    experiment: str = ""
    tracking_project: str = "wanedit"


@dataclass(frozen=True)
class RunInfo:
    """What a backend is told at the start.

    Attributes:
        run_id: the same for every attempt at the same run.
        folder: the run's folder; a backend writes nothing outside.
        group: the experiment; "" for none.
        config: what may leave this machine: of paths the last names only.
        first_row: rows that earlier attempts logged under this id.
        resumed: whether there was an earlier attempt.
    """

    run_id: str
    folder: Path
    job_type: str
    project: str
    group: str
    config: Mapping[str, Any]
    first_row: int = 0
    resumed: bool = False


@runtime_checkable
class Tracker(Protocol):
    """A backend. Its methods may raise anything: `Tracking` stands between them and the run."""

    def start(self, run: RunInfo) -> str:
        """Begin or go on with a run; returns a line for the user, "" for none."""
        ...

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        """One row of a series, at its own index: a step of an edit, a segment of a chain."""
        ...

    def summary(self, values: Mapping[str, Scalar]) -> None:
        """What the run came to; a later call adds to it."""
        ...

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """A table. A cell that is a Path is shown: it is an image inside the run's folder."""
        ...

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        """Files by name, each a path or its text; `digest` is the SHA-256 of their content."""
        ...

    def finish(self, exit_code: int) -> str:
        """End; returns a line for the user, "" for none."""
        ...


class NullTracker:
    """Tracking nowhere."""

    def start(self, run: RunInfo) -> str:
        return ""

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        pass

    def summary(self, values: Mapping[str, Scalar]) -> None:
        pass

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        pass

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        pass

    def finish(self, exit_code: int) -> str:
        return ""
