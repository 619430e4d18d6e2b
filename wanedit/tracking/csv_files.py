"""Tracking in plain files: `tracking/` in the run's folder, a CSV file per series and table, JSON for the rest."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wanedit.runtime.directory import write_text
from wanedit.tracking.tracker import Cell, RunInfo, Scalar, index_name

FOLDER = "tracking"


class CsvTracker:
    """Files under `tracking/ID/`: run.json, summary.json, artifacts.json, SERIES.csv and TABLE.csv."""

    def __init__(self) -> None:
        self.folder, self.run_folder = Path(), Path()
        self._columns: dict[str, list[str]] = {}

    def start(self, run: RunInfo) -> str:
        self.run_folder = run.folder
        self.folder = run.folder / FOLDER / run.run_id
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"id": run.run_id, "group": run.group, "job_type": run.job_type, "project": run.project}
        self._write("run.json", about | {"config": dict(run.config)})
        return ""

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        row = {index_name(series): index, **values}
        path = self.folder / f"{series}.csv"
        columns = self._columns.get(series) or _header(path)
        if set(row) - set(columns):
            # A value that earlier rows lack: a new column, and so the file anew.
            columns = [*columns, *(name for name in row if name not in columns)]
            _rewrite(path, columns)
        self._columns[series] = columns
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, columns, lineterminator="\n").writerow(row)

    def summary(self, values: Mapping[str, Scalar]) -> None:
        self._add("summary.json", values)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with (self.folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns, lineterminator="\n")
            table.writeheader()
            table.writerows({key: self._shown(cell) for key, cell in row.items()} for row in rows)

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        self._add("artifacts.json", {digest: {"name": name, "files": list(files)}})

    def finish(self, exit_code: int) -> str:
        self._add("summary.json", {"exit_code": exit_code})
        return ""

    def _shown(self, cell: Cell) -> Scalar:
        """An image by its path in the run's folder."""
        return str(cell.relative_to(self.run_folder)) if isinstance(cell, Path) else cell

    def _add(self, name: str, values: Mapping[str, Any]) -> None:
        path = self.folder / name
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._write(name, before | dict(values))

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        write_text(self.folder / name, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _header(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def _rewrite(path: Path, columns: list[str]) -> None:
    rows: list[dict[str, str]] = []
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
