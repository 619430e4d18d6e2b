"""The command line in a process of its own, whose progress bars are a file.

    python -m wanedit.board.worker FILE generate …

Nothing else is different, so that what the board starts is resumed, killed and recorded as every run is.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wanedit import interrupts
from wanedit.progress import Advance, listening

# Seconds between two writes: a page looks once a second.
OFTEN = 0.25


class Told:
    """Writes what is counted into a file: the outermost piece of work, which the page shows as one bar."""

    def __init__(self, path: Path) -> None:
        self.path, self.depth, self.written = path, 0, 0.0

    @contextmanager
    def counting(self, label: str, unit: str, total: int | None) -> Iterator[Advance]:
        """A listener, see `wanedit.progress`."""
        self.depth += 1
        outermost, began, done = self.depth == 1, time.time(), 0

        def advance(units: int = 1, /) -> None:
            nonlocal done
            done += units
            if outermost and (time.monotonic() - self.written >= OFTEN or done == total):
                self._write({"label": label, "unit": unit, "total": total, "done": done, "began": began})

        try:
            advance(0)
            yield advance
        finally:
            self.depth -= 1

    def _write(self, values: dict[str, object]) -> None:
        """In one piece; a full disk is told by what must be written."""
        self.written = time.monotonic()
        partial = self.path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(values | {"pid": os.getpid(), "now": time.time()}))
            os.replace(partial, self.path)
        except OSError:
            pass


def main() -> int:
    """Run the command line behind the name of the file; returns its exit code."""
    from wanedit.cli import main as command

    path, words = Path(sys.argv[1]), sys.argv[2:]
    sys.argv = ["wanedit", *words]  # as `command_again` prints it
    with listening(Told(path).counting):
        return command(words)


if __name__ == "__main__":
    interrupts.run(main)
