"""The command line in a process of its own, whose progress bars are a file.

    python -m wanedit.board.worker FILE generate …

Nothing else is different, so that what the board starts is resumed, killed and recorded as every run is. The file also
keeps how long each stage took, by which the next run's end is foretold.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wanedit import interrupts
from wanedit.progress import Advance, listening
from wanedit.runtime.events import events_of, read_events

# Seconds between two writes: a page looks once a second.
OFTEN = 0.25
STARTING = "starting"  # until something is counted


@dataclass(frozen=True)
class Took:
    """A stage that is over.

    Attributes:
        unit, done: what of, and how many.
        first: seconds until the first of them, in which a model is loaded.
        seconds: of the others.
    """

    unit: str
    done: int
    first: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a run is at, as its file says.

    Attributes:
        label, unit, done, total: of the stage, the outermost piece of work; `total` is None where nobody knows it.
        began: when the stage did, in seconds since 1970.
        first: when what comes before the first unit was over; None before that.
        expected: of each stage of the run, by its label, how many seconds it may take.
        begun: labels of the stages that have begun.
        took: of each stage that has ended, in this run or an earlier one.
    """

    label: str = STARTING
    unit: str = ""
    done: int = 0
    total: int | None = None
    began: float = 0.0
    first: float | None = None
    expected: dict[str, float] = field(default_factory=dict)
    begun: tuple[str, ...] = ()
    took: dict[str, Took] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Progress":
        """What a file says; of one that is not there, or damaged, nothing but that the run starts."""
        return next(events_of(read_events(path), cls), cls())

    @property
    def left(self) -> float | None:
        """Seconds: of the run, where it was foretold, else of the stage; None where nobody knows."""
        now, foretold = time.time(), self.expected.get(self.label)
        if self.done > 1 and self.total and self.first is not None:
            own = (now - self.first) / (self.done - 1) * (self.total - self.done)
        elif foretold is not None:
            own = max(0.0, foretold - (now - self.began))
        elif self.done and self.total:
            own = (now - self.began) / self.done * (self.total - self.done)
        elif not self.expected:
            return None
        else:
            own = 0.0
        later = {*self.expected} - {*self.begun, self.label}
        return own + sum(self.expected[label] for label in later)

    def foretell(self, sampling: dict[str, float], units: dict[str, int]) -> dict[str, float]:
        """Seconds of each stage of another run of its kind; empty where none has ended yet by which they are told.

        Args:
            sampling: of the stage that the plan tells, by its label, once the model is loaded.
            units: how many the other run has, where that is known.
        """
        if not self.took.keys() - {STARTING, *sampling}:
            return {}
        found = dict(sampling)
        for label, one in self.took.items():
            count = units.get(one.unit, one.done)
            others = one.seconds * max(0, count - 1) / max(1, one.done - 1)
            # What has nothing to do loads nothing either.
            found[label] = one.first + sampling.get(label, others) if sampling.get(label, count) else 0.0
        return found


class Told:
    """Writes what is counted into a file: the outermost piece of work, which the page shows as one bar.

    Args:
        path: the file, with what was foretold.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.depth, self.written = path, 0, 0.0
        self.progress = Progress.read(path)

    @contextmanager
    def counting(self, label: str, unit: str, total: int | None) -> Iterator[Advance]:
        """A listener, see `wanedit.progress`."""
        self.depth += 1
        outermost, began, done, first = self.depth == 1, time.time(), 0, None
        label = label.partition(" on ")[0]  # however many ranks
        if outermost and not self.progress.begun:
            self._over(STARTING, Took("", 1, began - self.progress.began, 0.0))

        def advance(units: int = 1, /) -> None:
            nonlocal done, first
            done += units
            first = time.time() if done and first is None else first
            if outermost and (time.monotonic() - self.written >= OFTEN or done == total):
                begun = tuple(dict.fromkeys((*self.progress.begun, label)))
                self._write(
                    label=label, unit=unit, total=total, done=done, began=began, first=first, begun=begun
                )

        try:
            advance(0)
            yield advance
        finally:
            self.depth -= 1
            # Of one that was stopped, or that had nothing to do, nothing is learnt.
            if outermost and first is not None and done == total:
                self._over(label, Took(unit, done, first - began, time.time() - first))

    def _over(self, label: str, took: Took) -> None:
        self._write(took=self.progress.took | {label: took}, begun=(*self.progress.begun, label))

    def over(self) -> None:
        """Keep what the next run's end is foretold by, and no stage, at which another command in the folder is not."""
        self.progress = Progress(took=self.progress.took)
        self._write()

    def _write(self, **changes: Any) -> None:
        """In one piece; a full disk is told by what must be written."""
        self.written = time.monotonic()
        self.progress = replace(self.progress, **changes)
        partial = self.path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(asdict(self.progress)))
            os.replace(partial, self.path)
        except OSError:
            pass


def main() -> int:
    """Run the command line behind the name of the file; returns its exit code."""
    from wanedit.cli import main as command

    path, words = Path(sys.argv[1]), sys.argv[2:]
    sys.argv = ["wanedit", *words]  # as `command_again` prints it
    told = Told(path)
    try:
        with listening(told.counting):
            return command(words)
    finally:
        told.over()


if __name__ == "__main__":
    interrupts.run(main)
