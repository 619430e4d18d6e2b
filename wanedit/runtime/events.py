"""What a run tells while it works: metrics.jsonl for programs, written and read here alone; a bar on the terminal for
people.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wanedit.errors import ResourceError
from wanedit.files import Json

Event = Json
NOT_FINITE = ("inf", "-inf", "nan")


def append_event(path: Path, event: Event) -> None:
    """Add one line to a JSONL file, in one write: appends are not torn between ranks.

    A number that is not finite, for which JSON has no word, is written as the string "inf", "-inf" or "nan".

    Raises:
        ResourceError: the disk is full.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_spelt(event), ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise ResourceError(f"{path}: not written, {os.strerror(error.errno or 0)}") from None


def _spelt(value: object) -> object:
    if isinstance(value, dict):
        return {name: _spelt(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def parse_events(text: bytes) -> Iterator[Event | None]:
    """The event of every line that is not empty; None for a line that cannot be read: a kill may tear one."""
    for line in filter(str.strip, text.decode("utf-8", errors="replace").splitlines()):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        yield event if isinstance(event, dict) else None


def read_events(path: Path) -> list[Event]:
    """The events of a metrics.jsonl that can be read, in order; none of a file that is not there."""
    try:
        return [event for event in parse_events(path.read_bytes()) if event is not None]
    except OSError:
        return []


def recorded_steps(events: Iterable[Event], digest: object) -> tuple[Event, tuple[Event, ...]]:
    """The method's settings and the steps of the last run that finished the edit `digest`; where none did, of the last
    that took a step of it.

    A run that found the edit complete, or that was cut short after another had finished it, leaves events of its own,
    which do not count.
    """
    method: Event = {}
    steps: list[Event] = []
    finished: tuple[Event, list[Event]] | None = None
    begun: tuple[Event, list[Event]] = {}, []
    own = False
    for event in events:
        match event.get("event"):
            case "start":
                given = event.get("method")
                method, steps = given if isinstance(given, dict) else {}, []
                own = event.get("edit") == digest
                begun = (method, steps) if own and not begun[1] else begun
            case "step":
                steps.append(event)
                begun = (method, steps) if own else begun
            case "edited" if event.get("digest") == digest:
                finished = method, steps
    method, steps = finished or begun
    return method, tuple(steps)


def number(value: object) -> float | None:
    """A number of an event, those that had to be spelt among them; None for anything else."""
    if isinstance(value, str):
        return float(value) if value in NOT_FINITE else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


PIPE_WIDTH = 160


def wide_console():
    """A rich console that prints brackets as they are, since file names hold them.

    Into a file or a pipe it writes lines long enough that no table wraps.
    """
    from rich.console import Console

    console = Console(markup=False)
    return console if console.is_terminal else Console(markup=False, width=PIPE_WIDTH)


@contextmanager
def progress_bar(total: int, label: str, unit: str, shown: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that counts one `unit` of `total`; nothing is drawn unless `shown`."""
    if not shown or total == 0:
        yield lambda: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda: progress.advance(bar)
