"""Tracking: what a run holds while it is tracked. Whatever a backend does, the run goes on."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from wanedit.tracking.record import Record, save_record
from wanedit.tracking.series import new_rows, write_metrics_csv
from wanedit.tracking.tracker import Cell, NullTracker, RunInfo, Scalar, Tracker

METRICS, METRICS_CSV = "metrics.jsonl", "metrics.csv"


class Tracking:
    """A tracked run, as a context manager; every failure of its backend is caught and said once.

    Use it on one rank, and end it there: `follow` reads what all ranks leave in metrics.jsonl.

    Args:
        tracker: the backend, not started.
        run: what it is told.
        record: how much was logged before; it changes and is saved as more is.
        name: of the record in tracking.json.
        say: where lines for the user go.
    """

    def __init__(
        self, tracker: Tracker, run: RunInfo, record: Record, name: str, say: Callable[[str], None]
    ) -> None:
        self.run = run
        self._tracker, self._record, self._name, self._say = tracker, record, name, say
        self._failed = self._finished = False

    @classmethod
    def idle(cls, run: RunInfo) -> "Tracking":
        """One that logs and writes nothing, for ranks other than 0."""
        tracking = cls(NullTracker(), run, Record(run.run_id), "", lambda line: None)
        tracking._finished = True
        return tracking

    @property
    def active(self) -> bool:
        """Whether there is a backend to log to."""
        return bool(self._name) and not self._finished

    def attempt(self, action: Callable[[], Any]) -> None:
        """Do what tracking alone needs; a failure is caught, and said if it is the first."""
        self._guarded(action)

    def __enter__(self) -> "Tracking":
        if self.active:
            try:
                self._start()
            except Exception as error:
                # Nothing is counted as logged: a later attempt logs it.
                self._name = ""
                self.complain(error)
            except BaseException:
                self.finish(1)  # `with` calls no __exit__ for a block that it did not enter
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(0 if error is None else getattr(error, "exit_code", 1))

    def follow(self) -> None:
        """Log what metrics.jsonl got since the last call, by whichever rank."""
        # Rank 0 alone logs, and reads the others' rows here: two writers of one W&B run would overwrite each other's
        # rows, and a backend that hangs or dies on another rank could hold up sampling. The file is complete for
        # whoever joins last, is kept if tracking fails, and a resumed run goes on from the byte it stopped at.
        if self.active:
            self._guarded(self._follow)

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        """One row of a series at its own index."""
        if self.active:
            self._guarded(self._row, series, index, values)

    def summary(self, values: Mapping[str, Scalar]) -> None:
        """What the run came to; a later call adds to it."""
        if self.active:
            self._guarded(self._tracker.summary, values)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """A table; a cell that is a Path is an image inside the run's folder, and left out if it is not there."""
        if not self.active:
            return
        kept = [{key: None if _absent(cell) else cell for key, cell in row.items()} for row in rows]
        self._guarded(self._table, name, kept)

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        """Files by name, each a path or its text; nothing happens for a content hash that was logged before."""
        if self.active and digest not in self._record.artifacts:
            self._guarded(self._artifact, name, files, digest)

    def finish(self, exit_code: int = 0) -> None:
        """Log what is left, end the backend and write metrics.csv; again: nothing. `__exit__` calls it."""
        if self._finished:
            return
        self.follow()
        if self.active:
            self._guarded(self._end, exit_code)
        self._finished = True
        folder = self.run.folder
        self._guarded(write_metrics_csv, folder / METRICS, folder / METRICS_CSV)

    def _start(self) -> None:
        self._record.attempts += 1
        self._tell(self._tracker.start(self.run))
        self._save()

    def _follow(self) -> None:
        rows, offset = new_rows(self.run.folder / METRICS, self._record.offset)
        if offset == self._record.offset:
            return
        # Counted first: a row that a backend refuses would be refused each time.
        self._record.offset = offset
        for row in rows:
            self._row(*row)
        self._save()

    def _row(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        self._record.rows += 1
        self._tracker.log(series, index, values)

    def _table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        self._record.rows += 1
        self._tracker.table(name, rows)

    def _artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        self._tracker.artifact(name, files, digest)
        self._record.artifacts.append(digest)
        self._save()

    def _end(self, exit_code: int) -> None:
        self._tell(self._tracker.finish(exit_code))
        self._save()

    def _save(self) -> None:
        save_record(self.run.folder, self._name, self._record)

    def _tell(self, line: str) -> None:
        if line:
            self._say(line)

    def _guarded(self, action: Callable[..., Any], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            self.complain(error)

    def complain(self, error: Exception) -> None:
        """Say that tracking failed, the first time."""
        if self._failed:
            return
        self._failed = True
        reason = (str(error).splitlines() or [""])[0]
        with contextlib.suppress(Exception):
            self._say(f"tracking failed ({type(error).__name__}: {reason}); the run goes on")


def _absent(cell: Cell) -> bool:
    return isinstance(cell, Path) and not cell.is_file()
