"""From a configuration to a tracked run: which backend, under which id."""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wanedit.errors import InputError
from wanedit.tracking.handle import Tracking
from wanedit.tracking.record import Record, find_record
from wanedit.tracking.tracker import HasTracking, NullTracker, RunInfo, Tracker

# Weights & Biases' own limits of a project and a group.
NAME_LIMIT = 128
NOT_IN_PROJECT = set("/\\#?%:")
PACKAGES = {"tensorboard": "pip install 'wanedit[tensorboard]'", "wandb": "pip install wandb"}


def check_tracking(config: HasTracking) -> None:
    """Refuse a backend that is not installed, and names that Weights & Biases would refuse at the end of a run.

    Raises:
        InputError: naming the field, what was got and what was expected, or how to install the backend.
    """
    command = PACKAGES.get(config.tracking)
    if command and importlib.util.find_spec(config.tracking) is None:
        raise InputError(
            f"tracking is {config.tracking!r}, which is not installed; install it with: {command}"
        )
    project = config.tracking_project
    if not project or len(project) > NAME_LIMIT or NOT_IN_PROJECT & set(project):
        raise InputError(
            f"tracking_project is {project!r}; expected 1 to {NAME_LIMIT} characters, none of "
            + " ".join(sorted(NOT_IN_PROJECT))
        )
    if len(config.experiment) > NAME_LIMIT:
        raise InputError(f"experiment has {len(config.experiment)} characters; expected at most {NAME_LIMIT}")


def identify(config: HasTracking, directory: Path, key: str = "", fresh: bool = False) -> str:
    """The id under which a run is tracked: that of an earlier attempt, else a new one; "" without a backend.

    Args:
        directory: the run's folder.
        key: what makes a run the same run, such as the hash of all that decides its pixels.
        fresh: forget the earlier attempts.
    """
    if config.tracking == "none":
        return ""
    try:
        return find_record(directory, _name(config, key), fresh).run_id
    except Exception:
        return ""  # `open_tracker` meets the same failure and says it


def open_tracker(
    config: HasTracking,
    directory: Path,
    job_type: str,
    values: Mapping[str, Any] | None = None,
    key: str = "",
    say: Callable[[str], None] = print,
) -> Tracking:
    """A tracked run, to be used in a `with` block on one rank; the same folder and key resume the same run.

    Args:
        config: which backend, experiment and project; a run's configuration or a TrackingSettings.
        directory: the run's folder, made if it is not there; all files of the backend stand inside.
        job_type: what kind of run it is.
        values: the configuration to show. It leaves this machine: no paths but last names, no keys.
        key: what makes a run the same run, such as the hash of all that decides its pixels.
        say: where lines for the user go: how to sync, what failed.
    """
    name = "" if config.tracking == "none" else _name(config, key)
    record = Record("")
    tracker: Tracker = NullTracker()
    failure: Exception | None = None
    try:
        if name:
            directory.mkdir(parents=True, exist_ok=True)
            record = find_record(directory, name)
            tracker = _backend(config.tracking)
    except Exception as error:
        name, failure = "", error
    run = RunInfo(
        record.run_id,
        directory,
        job_type,
        config.tracking_project,
        config.experiment,
        dict(values or {}),
        record.rows,
        record.attempts > 0,
    )
    tracking = Tracking(tracker, run, record, name, say)
    if failure is not None:
        tracking.complain(failure)
    return tracking


def _name(config: HasTracking, key: str) -> str:
    """Of the record: another backend has logged other things."""
    return f"{config.tracking}:{key}"


def _backend(name: str) -> Tracker:
    """A backend, imported when it is asked for: each brings a large library."""
    if name == "csv":
        from wanedit.tracking.csv_files import CsvTracker

        return CsvTracker()
    if name == "tensorboard":
        from wanedit.tracking.event_files import TensorBoardTracker

        return TensorBoardTracker()
    from wanedit.tracking.weights_and_biases import WandbTracker

    return WandbTracker()
