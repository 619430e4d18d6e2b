"""The series of a run, out of its metrics.jsonl: as they grow, and as one metrics.csv at the end."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wanedit.runtime.directory import write_text
from wanedit.tracking.tracker import Scalar

# Kind of event -> its series, and which of its values is the index.
SERIES = {"step": ("edit", "step"), "segment": ("segment", "segment")}
NOT_FINITE = {"inf", "-inf", "nan"}


class Row(NamedTuple):
    """One row of a series, at its own index."""

    series: str
    at: int
    values: dict[str, Scalar]


def new_rows(path: Path, offset: int) -> tuple[list[Row], int]:
    """Rows of the whole lines behind `offset` bytes, and the offset behind them. A file that shrank is read anew."""
    try:
        size = path.stat().st_size
        if size == offset:
            return [], offset
        offset = offset if size > offset else 0
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.read()
    except FileNotFoundError:
        return [], 0
    # Another rank's line may be half-written: it is left for the next time.
    whole = lines[: lines.rfind(b"\n") + 1]
    return [row for event in _events(whole) if (row := as_row(event))], offset + len(whole)


def as_row(event: dict[str, Any]) -> Row | None:
    """An event as a row of its series; None for what belongs to no series."""
    series, key = SERIES.get(str(event.get("event")), ("", ""))
    index = event.get(key)
    if not isinstance(index, int):
        return None
    values = {name: _scalar(value) for name, value in event.items() if name not in ("event", key)}
    return Row(series, index, {name: value for name, value in values.items() if value is not None})


def _scalar(value: Any) -> Scalar:
    """A number, one that metrics.jsonl had to spell, or text; None for anything else."""
    if isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    return value if isinstance(value, int | float | str) else None


def _events(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.decode("utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by a kill: the events around it stand
        if isinstance(event, dict):
            yield event


def write_metrics_csv(source: Path, target: Path) -> None:
    """Write every step and every segment of a metrics.jsonl as a row of a CSV file.

    Columns: run (starts of this folder, from 1), series, index, and each value that any row has. Nothing is left
    out: what one start logged is told from another's by `run`.

    Args:
        source: metrics.jsonl; without it nothing is written.
        target: the CSV file, replaced as a whole.

    Raises:
        ResourceError, InputError: the file cannot be written.
    """
    if not source.is_file():
        return
    rows = list(_numbered(source))
    names = dict.fromkeys(name for _, row in rows for name in row.values)
    text = io.StringIO()
    table = csv.DictWriter(text, ["run", "series", "index", *names], lineterminator="\n")
    table.writeheader()
    for run, row in rows:
        table.writerow({"run": run, "series": row.series, "index": row.at, **row.values})
    write_text(target, text.getvalue())


def _numbered(path: Path) -> Iterator[tuple[int, Row]]:
    run = 0
    for event in _events(path.read_bytes()):
        run += event.get("event") == "start"
        row = as_row(event)
        if row is not None:
            yield run, row
