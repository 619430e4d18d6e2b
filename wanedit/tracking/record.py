"""How far a run has been logged, tracking.json, and what is logged of it: the rows of its metrics.jsonl."""

import csv
import io
import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from wanedit.errors import InputError
from wanedit.files import read_json, write_text
from wanedit.runtime.events import NOT_FINITE, parse_events, read_events
from wanedit.tracking.backends import Scalar

VERSION = 1
FILE_NAME = "tracking.json"
METRICS = "metrics.jsonl"
ID_LENGTH = 8
# Kind of event -> its series, and which of its values is the index.
SERIES = {"step": ("edit", "step"), "segment": ("segment", "segment")}


@dataclass
class Record:
    """One run of one backend. It changes while the run is logged.

    Attributes:
        run_id: drawn once.
        offset: bytes of metrics.jsonl that have been logged.
        rows: rows that have been logged.
        artifacts: content hashes that have been logged.
    """

    run_id: str
    offset: int = 0
    rows: int = 0
    artifacts: list[str] = field(default_factory=list)


def find_record(folder: Path, name: str, fresh: bool = False) -> Record:
    """The record of `name`, that of an earlier attempt if there was one and `fresh` is not asked for.

    A new record begins at the end of metrics.jsonl: what other runs left in it is not this one's.

    Raises:
        ResourceError, InputError: tracking.json cannot be written.
    """
    known = None if fresh else _read(folder).get(name)
    if known is None:
        letters, metrics = string.ascii_lowercase + string.digits, folder / METRICS
        drawn = "".join(secrets.choice(letters) for _ in range(ID_LENGTH))
        known = Record(drawn, offset=metrics.stat().st_size if metrics.is_file() else 0)
        save_record(folder, name, known)
    return known


def save_record(folder: Path, name: str, record: Record) -> None:
    """Put a record in its place.

    Raises:
        ResourceError, InputError: tracking.json cannot be written.
    """
    runs = _read(folder) | {name: record}
    values = {"version": VERSION, "runs": {key: asdict(run) for key, run in runs.items()}}
    write_text(folder / FILE_NAME, json.dumps(values, indent=1) + "\n")


def _read(folder: Path) -> dict[str, Record]:
    """All records; a file that is none is as good as absent, for nothing but ids would be lost."""
    known, found = {f.name for f in fields(Record)}, {}
    try:
        values = read_json(folder / FILE_NAME, "the runs of trackers")
        if values["version"] != VERSION:
            return {}
        for name, run in values["runs"].items():
            # Earlier versions also counted attempts.
            record = Record(**{key: value for key, value in run.items() if key in known})
            counts = (record.offset, record.rows)
            # The id becomes a part of file names.
            if not (record.run_id.isalnum() and isinstance(record.artifacts, list)):
                return {}
            if not all(isinstance(count, int) and count >= 0 for count in counts):
                return {}
            found[name] = record
    except (InputError, KeyError, TypeError, AttributeError, ValueError):
        return {}
    return found


class Row(NamedTuple):
    """One row of a series, at its own index."""

    series: str
    at: int
    values: dict[str, Scalar]


def new_rows(path: Path, offset: int) -> tuple[list[tuple[Row, int]], int]:
    """Rows of the whole lines behind `offset` bytes, each with the offset behind it, and the offset behind all. A file
    that shrank is read anew."""
    try:
        size = path.stat().st_size
        if size == offset:
            return [], offset
        offset = offset if size > offset else 0
        with path.open("rb") as file:
            file.seek(offset)
            # Another rank's line may be half-written: it is left for the next time.
            *lines, _ = file.read().split(b"\n")
    except FileNotFoundError:
        return [], 0
    rows = []
    for line in lines:
        offset += len(line) + 1
        rows += [(row, offset) for event in parse_events(line) if event and (row := as_row(event))]
    return rows, offset


def as_row(event: Mapping[str, object]) -> Row | None:
    """An event as a row of its series; None for what belongs to no series."""
    series, key = SERIES.get(str(event.get("event")), ("", ""))
    index = event.get(key)
    if not isinstance(index, int):
        return None
    values: dict[str, Scalar] = {}
    for name, value in event.items():
        if name not in ("event", key) and isinstance(value, int | float | str):
            values[name] = float(value) if value in NOT_FINITE else value
    return Row(series, index, values)


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
    run, rows = 0, []
    for event in read_events(source):
        run += event.get("event") == "start"
        if row := as_row(event):
            rows.append({"run": run, "series": row.series, "index": row.at, **row.values})
    text = io.StringIO()
    columns = dict.fromkeys(["run", "series", "index", *(name for row in rows for name in row)])
    table = csv.DictWriter(text, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_text(target, text.getvalue())
