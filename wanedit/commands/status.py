"""`wanedit status`: what of a run is done, who is at what, and when it will be complete."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser
from wanedit.errors import InputError
from wanedit.runtime.claims import Worker
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.events import events_of, read_events, wide_console
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.settings import FINAL_NAME

if TYPE_CHECKING:
    from rich.console import Group

HELP = "what of a run is done, who is at what, and when it will be complete"
ORDER = 7
EVERY = 2.0  # seconds


def parser() -> Parser:
    """Its flags."""
    made = new_parser("Show the tasks of a run and its workers, on whatever machines, from its folder alone.")
    made.add_argument("run", type=str, help="the run's folder, or its finished video")
    made.add_argument(
        "--watch", action="store_true", help=f"again every {EVERY:g} s, until no worker is left"
    )
    return made


def run(settings: Namespace) -> int:
    """Print it, once or until the run is over. Returns the exit code."""
    root = run_folder(Path(settings.run))
    directory, console = RunDirectory(root, root / FINAL_NAME), wide_console()
    if not directory.recorded:
        raise InputError(f"run: {root} holds no record that wanedit wrote; expected a run's folder")
    found = status(directory)
    if settings.watch and console.is_terminal:
        from rich.live import Live

        with Live(shown(found), console=console, auto_refresh=False) as live:
            while found.workers:
                time.sleep(EVERY)
                found = status(directory)
                live.update(shown(found), refresh=True)
        return 0
    console.print(shown(found))
    while settings.watch and found.workers:
        time.sleep(EVERY)
        before, found = found, status(directory)
        if found.words != before.words:
            console.print(found.words)
    return 0


@dataclass(frozen=True)
class _Start:
    """Of a run: digests of its tasks, by what is made of them."""

    stages: dict[str, list[str]] | None = None
    edit: str | None = None


@dataclass(frozen=True)
class Status:
    """What a run came to so far.

    Attributes:
        words: how much is done, and how long the rest may take. failed: how much of that came to nothing.
        workers: of those at work, and of those that were lost and whose tasks nobody took over yet: what each says of
            itself, seconds since then by this machine's clock, and whether it is surely lost. None for one that
            cannot be read just now.
    """

    words: str
    workers: Mapping[str, tuple[Worker | None, float, bool]]
    failed: int = 0


def status(directory: RunDirectory) -> Status:
    """Read it. Raises InputError where the journal cannot be read."""
    from wanedit.runtime.pool import outcomes  # brings NumPy, which help does without

    starts = [*events_of(read_events(directory.metrics), _Start, "start")]
    start, journal, queue = (starts or [_Start()])[-1], Manifest(directory).read(), directory.queue
    workers: dict[str, tuple[Worker | None, float, bool]] = {}
    for name, worker in queue.workers().items():
        if (said := queue.said_at(name)) is not None:
            workers[name] = worker, max(0.0, time.time() - said), queue.is_lost(name)
    parts, left, failures = [], 0.0, 0
    for what, names in (start.stages or ({"edit": [start.edit]} if start.edit else {})).items():
        ended = outcomes(directory.root, [name for name in names if name not in journal])
        seconds = [journal[name].seconds for name in names if name in journal]
        seconds += [one.seconds for one in ended.values() if one.error is None]
        failed = sum(one.error is not None for one in ended.values())
        failures += failed
        done = len(seconds) + failed
        if names:
            parts.append(f"{done} of {len(names)} {what}" + f" ({failed} failed)" * (failed > 0))
        if seconds:
            left += (len(names) - done) * fmean(seconds)
    busy = sum(worker is not None and bool(worker.task) and not lost for worker, _, lost in workers.values())
    words = ", ".join(parts) or "no task on record"
    if directory.film_sha256() is not None:
        words += "; complete"
    elif left and busy:
        words += f"; about {left / busy / 60:.1f} minutes of {busy} worker{'s' * (busy != 1)} left"
    elif not workers:
        words += "; nobody is at work: the same command, or wanedit work, goes on"
    return Status(words, workers, failures)


def shown(found: Status) -> "Group":
    """For the terminal."""
    from rich.console import Group
    from rich.table import Table

    if not found.workers:
        return Group(found.words)
    table = Table()
    for column in ("machine", "process", "rank", "at", "step", "said so"):
        table.add_column(column, overflow="fold")
    for worker, seconds, lost in found.workers.values():
        ago = "lost" if lost else f"{seconds:.0f} s ago"
        if worker is None:
            table.add_row("", "", "", "begins, or cannot be read", "", ago)
        else:
            step = str(worker.step) if worker.task else ""
            table.add_row(worker.host, str(worker.pid), str(worker.rank), worker.doing, step, ago)
    return Group(found.words, table)
