"""tracking.json: under which id a run is tracked, and how much of it has been logged."""

import json
import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wanedit.runtime.directory import write_text

VERSION = 1
FILE_NAME = "tracking.json"
ID_LENGTH = 8
_LETTERS = string.ascii_lowercase + string.digits


@dataclass
class Record:
    """One run of one backend. It changes while the run is logged.

    Attributes:
        run_id: drawn once.
        offset: bytes of metrics.jsonl that have been logged.
        rows: rows that have been logged.
        artifacts: content hashes that have been logged.
        attempts: how often the run was opened.
    """

    run_id: str
    offset: int = 0
    rows: int = 0
    artifacts: list[str] = field(default_factory=list)
    attempts: int = 0


def find_record(folder: Path, name: str, fresh: bool = False) -> Record:
    """The record of `name`, that of an earlier attempt if there was one and `fresh` is not asked for.

    A new record begins at the end of metrics.jsonl: what other runs left in it is not this one's.

    Raises:
        ResourceError, InputError: tracking.json cannot be written.
    """
    known = None if fresh else _read(folder).get(name)
    if known is None:
        metrics = folder / "metrics.jsonl"
        known = Record(_draw(), offset=metrics.stat().st_size if metrics.is_file() else 0)
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


def _draw() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(ID_LENGTH))


def _read(folder: Path) -> dict[str, Record]:
    """All records; a file that is none is as good as absent, for nothing but ids would be lost."""
    try:
        values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            return {}
        return {name: _record(run) for name, run in values["runs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _record(values: Mapping[str, Any]) -> Record:
    record = Record(**values)
    # The id becomes a part of file names.
    if not (record.run_id.isalnum() and isinstance(record.artifacts, list)):
        raise ValueError(f"run_id is {record.run_id!r}; expected letters and digits")
    for count in (record.offset, record.rows, record.attempts):
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"a count is {count!r}; expected an integer >= 0")
    return record
