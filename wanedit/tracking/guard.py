"""Tracking: what a run holds while it is tracked. Whatever a backend does, the run goes on."""

import contextlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from wanedit.errors import InputError, ResourceError
from wanedit.runtime.privacy import Discreet
from wanedit.runtime.settings import TrackingSettings
from wanedit.tracking.backends import TRACKERS, Cell, RunInfo, Scalar, Tracker
from wanedit.tracking.record import METRICS, Record, find_record, new_rows, save_record, write_metrics_csv

METRICS_CSV = "metrics.csv"
# Weights & Biases' own limits of a project and a group.
NAME_LIMIT = 128
NOT_IN_PROJECT = set("/\\#?%:")
TAG_LIMIT = 64


class Tracking:
    """A tracked run, as a context manager; every failure of its backend is caught and said once.

    Use it on one rank, and end it there: `follow` reads what all ranks leave in metrics.jsonl.

    Args:
        tracker: the backend, not started; None for a run that is not tracked.
        run: what it is told.
        record: how much was logged before; it changes and is saved as more is.
        name: of the record in tracking.json.
        say: where lines for the user go.
    """

    def __init__(
        self, tracker: Tracker | None, run: RunInfo, record: Record, name: str, say: Callable[[str], None]
    ) -> None:
        self.run = run
        self._tracker, self._record, self._name, self._say = tracker, record, name, say
        self._failed = self._finished = False

    @classmethod
    def idle(cls, run: RunInfo) -> "Tracking":
        """One that logs and writes nothing, for ranks other than 0."""
        tracking = cls(None, run, Record(run.run_id), "", lambda line: None)
        tracking._finished = True
        return tracking

    def has(self, digest: str) -> bool:
        """Whether an artifact of this content hash was logged before."""
        return digest in self._record.artifacts

    @property
    def active(self) -> bool:
        """Whether there is a backend to log to."""
        return self._tracker is not None and not self._finished

    def attempt(self, action: Callable[..., object], *arguments: object) -> None:
        """Do what tracking alone needs; a failure is caught, and said if it is the first."""
        try:
            action(*arguments)
        except Exception as error:
            self.complain(error)

    def __enter__(self) -> "Tracking":
        if self._tracker is not None and not self._finished:
            try:
                self._tell(self._tracker.start(self.run))
                self._save()
            except Exception as error:
                # Nothing is counted as logged: a later attempt logs it.
                self._tracker = None
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
        def read() -> None:
            rows, offset = new_rows(self.run.folder / METRICS, self._record.offset)
            if offset == self._record.offset:
                return
            for row, behind in rows:
                try:
                    self._backend.log(*row)
                except (OSError, ResourceError):
                    raise  # a disk that is full now: tried again at the next call, or when the run goes on
                except Exception as error:
                    self.complain(error)  # a row that a backend refuses, which it would refuse each time
                self._record.rows += 1
                self._record.offset = behind
            self._record.offset = offset
            self._save()

        if self.active:
            self.attempt(read)

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        """One row of a series at its own index."""
        if self.active:
            self._record.rows += 1
            self.attempt(self._backend.log, series, index, values)

    def summary(self, values: Mapping[str, Scalar]) -> None:
        """What the run came to; a later call adds to it."""
        if self.active:
            self.attempt(self._backend.summary, values)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """A table; a cell that is a Path is an image or the video, and left out if it is not there."""
        if self.active:
            kept = [
                {key: None if isinstance(c, Path) and not c.is_file() else c for key, c in row.items()}
                for row in rows
            ]
            self._record.rows += 1
            self.attempt(self._backend.table, name, kept)

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        """Files by name, each a path or its text; nothing happens for a content hash that was logged before."""

        def store() -> None:
            self._backend.artifact(name, files, digest)
            self._record.artifacts.append(digest)
            self._save()

        if self.active and not self.has(digest):
            self.attempt(store)

    def finish(self, exit_code: int = 0) -> None:
        """Log what is left, end the backend and write metrics.csv; again: nothing. `__exit__` calls it."""

        def end() -> None:
            self._tell(self._backend.finish(exit_code))
            self._save()

        if self._finished:
            return
        self.follow()
        if self.active:
            self.attempt(end)
        self._finished = True
        folder = self.run.folder
        self.attempt(write_metrics_csv, folder / METRICS, folder / METRICS_CSV)

    def complain(self, error: Exception) -> None:
        """Say that tracking failed, the first time."""
        if not self._failed:
            self._failed = True
            reason = (str(error).splitlines() or [""])[0]
            with contextlib.suppress(Exception):
                self._say(f"tracking failed ({type(error).__name__}: {reason}); the run goes on")

    @property
    def _backend(self) -> Tracker:
        assert self._tracker is not None
        return self._tracker

    def _save(self) -> None:
        save_record(self.run.folder, self._name, self._record)

    def _tell(self, line: str) -> None:
        if line:
            self._say(line)


def check_tracking(config: TrackingSettings) -> None:
    """Refuse a backend that is not installed, and names that Weights & Biases would refuse at the end of a run.

    Raises:
        InputError: naming the field, what was got and what was expected, or how to install the backend.
    """
    backend = TRACKERS[config.tracking]
    if backend.package and importlib.util.find_spec(backend.package) is None:
        raise InputError(
            f"tracking is {config.tracking!r}, which is not installed; install it with: {backend.install}"
        )
    project = config.tracking_project
    if not project or len(project) > NAME_LIMIT or NOT_IN_PROJECT & set(project):
        raise InputError(
            f"tracking_project is {project!r}; expected 1 to {NAME_LIMIT} characters, none of "
            + " ".join(sorted(NOT_IN_PROJECT))
        )
    for name, text, limit in (
        ("experiment", config.experiment, NAME_LIMIT),
        ("run_name", config.run_name, NAME_LIMIT),
        *(("a word of tags", tag, TAG_LIMIT) for tag in split_tags(config.tags)),
    ):
        if len(text) > limit:
            raise InputError(f"{name} has {len(text)} characters; expected at most {limit}")


def split_tags(text: str) -> list[str]:
    """The words of "a, b", each once."""
    return list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def identify(config: TrackingSettings, directory: Path, key: str = "", fresh: bool = False) -> str:
    """The id under which a run is tracked: that of an earlier attempt, else a new one; "" without a backend.

    Args:
        directory: the run's folder.
        key: what makes a run the same run, such as the hash of all that decides its pixels.
        fresh: forget the earlier attempts.
    """
    if config.tracking == "none":
        return ""
    try:
        return find_record(directory, f"{config.tracking}:{key}", fresh).run_id
    except Exception:
        return ""  # `open_tracker` meets the same failure and says it


def open_tracker(
    config: TrackingSettings,
    directory: Path,
    job_type: str,
    values: Mapping[str, object] | None = None,
    key: str = "",
    say: Callable[[str], None] = print,
) -> Tracking:
    """A tracked run, to be used in a `with` block on one rank; the same folder and key resume the same run.

    Args:
        config: which backend, experiment, project, name and tags; a run's configuration is one.
        directory: the run's folder, made if it is not there; all files of the backend stand inside.
        job_type: what kind of run it is.
        values: the configuration to show. It leaves this machine, so of paths the last names are kept and of
            secrets nothing; the model and the method that it names become tags.
        key: what makes a run the same run, such as the hash of all that decides its pixels.
        say: where lines for the user go: how to sync, what failed.
    """
    # Of the record: another backend has logged other things.
    name = f"{config.tracking}:{key}"
    record, tracker, failure = Record(""), None, None
    if config.tracking != "none":
        try:
            directory.mkdir(parents=True, exist_ok=True)
            record = find_record(directory, name)
            tracker = TRACKERS[config.tracking]()
        except Exception as error:
            failure = error
    shown: dict[str, object] = Discreet([directory.absolute().parent]).value(dict(values or {}))
    # A model outside the catalogue is a folder, whose name may be longer than a tag.
    own = [
        str(part)[:TAG_LIMIT]
        for part in (shown.get("ckpt_dir") or shown.get("model"), shown.get("method"))
        if part
    ]
    run = RunInfo(
        record.run_id,
        directory,
        job_type,
        config.tracking_project,
        config.experiment,
        shown,
        record.rows,
        config.run_name or directory.resolve().name,
        tuple(dict.fromkeys([*split_tags(config.tags), *own])),
    )
    tracking = Tracking(tracker, run, record, name, say)
    if failure is not None:
        tracking.complain(failure)
    return tracking
