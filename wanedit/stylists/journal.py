"""The journal of a styling run: one line of JSON for each transition, on disk before the next one starts."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wanedit.errors import ResourceError
from wanedit.stylists.states import STATE


class Journal:
    """Appends states to a file; a line that a killed run left half-written is closed, never continued.

    Args:
        path: the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._torn = path.is_file() and not _ends_a_line(path)

    def append(self, state: Any, **note: Any) -> None:
        """Write one state with the time, and further JSON values beside it; returns once it is on disk.

        Raises:
            ResourceError: the disk is full or refuses.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, **state.model_dump(mode="json"), **note}, ensure_ascii=False)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._torn + line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(f"{self.path}: not written, {os.strerror(error.errno or 0)}") from None
        self._torn = False


def read_journal(path: Path) -> list[Any]:
    """The states of a journal in their order; lines that are torn or of another version are left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            entry.pop("time")
            found.append(STATE.validate_python(entry))
        except (ValueError, AttributeError, KeyError, TypeError, ValidationError):
            continue
    return found


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
