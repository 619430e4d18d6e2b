"""What a backend of tracking is, and those that need no server: plain files and TensorBoard's event files."""

import csv
import io
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from wanedit.files import is_there, read_json, read_text, reading, system_errors, write_text
from wanedit.registry import Registry

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

Scalar = float | int | str | bool | None
Cell = Scalar | Path
IMAGES = (".png", ".jpg")

# What the index of a series is called: "edit/step" stands below every "edit/..." curve.
INDEX_NAMES = {"edit": "step", "segment": "index"}


def index_name(series: str) -> str:
    """The name of a series' own index; "index" for one that others add."""
    return INDEX_NAMES.get(series, "index")


@dataclass(frozen=True)
class RunInfo:
    """What a backend is told at the start.

    Attributes:
        run_id: the same for every attempt at the same run.
        folder: the run's folder; a backend writes nothing outside.
        name: what people call the run.
        group: the experiment; "" for none.
        tags: words to find it by.
        config: what may leave this machine: of paths the last names only.
        first_row: rows that earlier attempts logged under this id.
    """

    run_id: str
    folder: Path
    job_type: str
    project: str
    group: str
    config: Mapping[str, object]
    first_row: int = 0
    name: str = ""
    tags: tuple[str, ...] = ()

    @property
    def about(self) -> dict[str, object]:
        """Of the run itself, for a backend that has no fields for it."""
        return {
            "id": self.run_id,
            "name": self.name,
            "group": self.group,
            "job_type": self.job_type,
            "project": self.project,
            "tags": list(self.tags),
        }


class Tracker:
    """A backend; this one logs nowhere. Methods may raise anything: `Tracking` stands between them and the run.

    Attributes:
        package: what must be installed to use it; "" for nothing.
        install: how to install that.
    """

    package: ClassVar[str] = ""
    install: ClassVar[str] = ""

    def start(self, run: RunInfo) -> str:
        """Begin or go on with a run; returns a line for the user, "" for none."""
        return ""

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        """One row of a series, at its own index: a step of an edit, a segment of a chain."""

    def summary(self, values: Mapping[str, Scalar]) -> None:
        """What the run came to; a later call adds to it."""

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """A table. A cell that is a Path is shown: it is an image, or the run's video."""

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        """Files by name, each a path or its text; `digest` is the SHA-256 of their content."""

    def finish(self, exit_code: int) -> str:
        """End; returns a line for the user, "" for none."""
        return ""


TRACKERS: Registry[type[Tracker]] = Registry(
    "tracker",
    "wanedit.tracking.backends",
    "wanedit.tracking.weights_and_biases",
    base="wanedit.tracking.backends:Tracker",
)
TRACKERS.register("none")(Tracker)


@TRACKERS.register("csv")
class CsvTracker(Tracker):
    """Files under `tracking/ID/`: run.json, summary.json, artifacts.json, SERIES.csv and TABLE.csv."""

    # Not Lightning's CSVLogger: it deletes the rows of an earlier attempt, keeps its own in memory until the end, where
    # a kill loses them, and has one index for all series.
    def __init__(self) -> None:
        self.folder, self.run_folder = Path(), Path()
        self._columns: dict[str, list[str]] = {}
        self._earlier: dict[str, set[frozenset[tuple[str, str]]]] = {}

    def start(self, run: RunInfo) -> str:
        self.run_folder = run.folder
        self.folder = run.folder / "tracking" / run.run_id
        self.folder.mkdir(parents=True, exist_ok=True)
        self._add("run.json", {**run.about, "config": dict(run.config)})
        return ""

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        row, path = {index_name(series): index, **values}, self.folder / f"{series}.csv"
        # Unknown again until the row is written: after a kill or a full disk the file is looked at.
        columns = self._columns.pop(series, [])
        earlier = [] if set(row) <= set(columns) else _whole_rows(path)
        if not columns:
            self._earlier[series] = {_cells(one) for one in earlier}
        # One that was written, but not counted.
        new = [] if _cells(row) in self._earlier[series] else [row]
        if not set(row) <= set(columns):
            # The first row of this attempt, or a value that earlier rows lack: a new column, and so the file anew.
            columns = self._write_rows(path, [*earlier, *new])
        else:
            with system_errors(path), path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerows(new)
        self._columns[series] = columns

    def summary(self, values: Mapping[str, Scalar]) -> None:
        self._add("summary.json", values)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        self._write_rows(self.folder / f"{name}.csv", rows)

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        self._add("artifacts.json", {digest: {"name": name, "files": list(files)}})

    def finish(self, exit_code: int) -> str:
        self._add("summary.json", {"exit_code": exit_code})
        return ""

    def _write_rows(self, path: Path, rows: Sequence[Mapping[str, Cell]]) -> list[str]:
        """All rows anew, an image by its path from the run's folder; returns the columns."""
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        table.writeheader()
        for row in rows:
            shown = {
                k: os.path.relpath(v, self.run_folder) if isinstance(v, Path) else v for k, v in row.items()
            }
            table.writerow(shown)
        write_text(path, text.getvalue())
        return columns

    def _add(self, name: str, values: Mapping[str, object]) -> None:
        path = self.folder / name
        before = read_json(path, "values of an earlier attempt") if path.is_file() else {}
        write_text(path, json.dumps(before | dict(values), indent=1, ensure_ascii=False) + "\n")


def _whole_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, but for one without its end; none of a file that is not there."""
    if not is_there(path):
        return []
    text = read_text(path, expected := "rows of an earlier attempt")
    with reading(path, expected):
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))


def _cells(row: Mapping[str, object]) -> frozenset[tuple[str, str]]:
    """What a row holds, whatever the columns of its table."""
    return frozenset((name, str(value)) for name, value in row.items() if value not in ("", None))


@contextmanager
def as_rank_zero() -> Iterator[None]:
    """Let Lightning's loggers write: only the rank that logs opens a backend.

    They ask RANK, SLURM_PROCID and the like whether they may, and elsewhere drop everything in silence: also in runs of
    their own side by side under srun, each of which is its own rank 0.
    """
    from lightning.pytorch.utilities import rank_zero_only

    # Lightning keeps the rank in an attribute of this function.
    state = vars(rank_zero_only)
    before, state["rank"] = state["rank"], 0
    try:
        yield
    finally:
        state["rank"] = before


@TRACKERS.register("tensorboard")
class TensorBoardTracker(Tracker):
    """Lightning's TensorBoardLogger in `tensorboard/ID/`: curves by their own index, the configuration as
    hyperparameters and as text, tables and results as text, images as images.
    """

    package = "tensorboard"
    install = "pip install 'wanedit[tensorboard]'"

    def __init__(self) -> None:
        self._writer: SummaryWriter | None = None
        self._folder, self._row = Path(), 0

    @property
    def writer(self) -> "SummaryWriter":
        """Once started."""
        assert self._writer is not None
        return self._writer

    def start(self, run: RunInfo) -> str:
        from lightning.pytorch.loggers import TensorBoardLogger

        self._folder, self._row = run.folder / "tensorboard", run.first_row
        with as_rank_zero():
            logger = TensorBoardLogger(
                run.folder, "tensorboard", run.run_id, default_hp_metric=False, flush_secs=10
            )
            logger.log_hyperparams(dict(run.config))
            self._writer = logger.experiment
        self._text("config", {**run.about, **run.config})
        return ""

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        self._row += 1
        self._numbers(series, values, index)

    def summary(self, values: Mapping[str, Scalar]) -> None:
        self._numbers("summary", values, self._row)
        self._text("summary", values)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        self._row += 1
        for key, cell in ((key, cell) for row in rows for key, cell in row.items()):
            # Its videos are tensors, which it makes into GIFs with a package of its own.
            if isinstance(cell, Path) and cell.suffix in IMAGES:
                with Image.open(cell) as image:
                    pixels = np.asarray(image.convert("RGB"))
                self.writer.add_image(f"{name}/{key}", pixels, self._row, dataformats="HWC")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        lines = [columns, ["---"] * len(columns)]
        for row in rows:
            shown = (
                "" if (v := row.get(c)) is None else v.name if isinstance(v, Path) else str(v)
                for c in columns
            )
            lines.append([text.replace("|", "\\|").replace("\n", " ") for text in shown])
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        self.writer.add_text(name, text, self._row)

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        # Event files hold no files; which ones there were is still worth knowing.
        self._text(f"artifact/{name}", {"sha256": digest, "files": list(files)})

    def finish(self, exit_code: int) -> str:
        if self._writer is None:
            return ""
        self._numbers("summary", {"exit_code": exit_code}, self._row)
        self._writer.close()
        return f"tracking: look at it with: tensorboard --logdir {shlex.quote(str(self._folder.absolute()))}"

    def _numbers(self, series: str, values: Mapping[str, Scalar], at: int) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"{series}/{name}", float(value), at)

    def _text(self, name: str, values: Mapping[str, object]) -> None:
        """JSON as Markdown shows it: four spaces make code."""
        lines = json.dumps(dict(values), indent=1, ensure_ascii=False, default=str).splitlines()
        self.writer.add_text(name, "\n".join(f"    {line}" for line in lines), self._row)
