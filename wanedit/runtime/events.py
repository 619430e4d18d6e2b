"""What a run tells while it works: metrics.jsonl for programs, written and read here alone; bars on the terminal for
people.
"""

import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wanedit.errors import InputError
from wanedit.files import Json, append_line
from wanedit.progress import Advance, counting, listening

if TYPE_CHECKING:
    from rich.progress import Progress

Event = Json
Values = TypeVar("Values")
NOT_FINITE = ("inf", "-inf", "nan")


def attended(attention: str, off_sdpa: float | None) -> Event:
    """What a line about sampling says of attention, which sdpa's does not."""
    return {} if off_sdpa is None else {"attention": attention, "off_sdpa": float(f"{off_sdpa:.3g}")}


def append_event(path: Path, event: Event) -> None:
    """Add one line to a JSONL file, as `append_line`.

    A number that is not finite, for which JSON has no word, is written as the string "inf", "-inf" or "nan".
    """
    append_line(path, json.dumps(_spelt(event), ensure_ascii=False, allow_nan=False))


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
    except FileNotFoundError:
        return []


def events_of(events: Iterable[Event], kind: type[Values], *names: str) -> Iterator[Values]:
    """What the events of these names say, of all events without one, as the fields of a dataclass.

    A file can be written by anything: an event that lacks a field, or has one of another type, is passed over as a line
    that cannot be read is.
    """
    from pydantic import TypeAdapter, ValidationError

    values = TypeAdapter(kind)
    for event in events:
        if not names or event.get("event") in names:
            with suppress(ValidationError):
                yield values.validate_python(event)


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


# What took less time leaves no line behind.
BRIEF = 1.0
# Seconds between two looks at what other processes have done.
POLL = 2.0


@contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Draw what is counted inside the block (`wanedit.progress`), if `shown`; into a pipe only what came of it."""
    if not shown:
        yield
        return
    bars = _Bars()
    try:
        with listening(bars.counting):
            yield
    finally:
        bars.stop()


class _Bars:
    """One display at a time: the bar of the work that began first, and under it those of its parts while they last."""

    def __init__(self) -> None:
        self.display: Progress | None = None

    @contextmanager
    def counting(self, label: str, unit: str, total: int | None) -> Iterator[Advance]:
        outermost = self.display is None
        display = self._shown()
        bar = display.add_task(label if outermost else f"  {label}", total=total, unit=unit)
        try:
            yield lambda units=1, /: display.advance(bar, units)
        finally:
            if outermost:
                self.stop()
            else:
                display.remove_task(bar)

    def _shown(self) -> "Progress":
        if self.display is None:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self.display = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.display.start()
        return self.display

    def stop(self) -> None:
        """End the display, if there is one."""
        if self.display is not None:
            display, self.display = self.display, None
            brief = all((task.elapsed or 0) < BRIEF for task in display.tasks)
            display.live.transient = brief
            # Rich ends a display in a pipe with a line break, also where it has left nothing there.
            (display.live if brief else display).stop()


@contextmanager
def counting_together(
    label: str, unit: str, total: int, others: Callable[[], int] | None = None
) -> Iterator[Advance]:
    """`counting` of work that several processes share: each counts its own, and one shows the sum of all.

    Args:
        total: of all.
        others: units that the others have done so far, of which the one who shows them asks now and then.
    """
    with counting(label, unit, total) as advance:
        if others is None:
            yield advance
            return
        ended, shown = threading.Event(), 0

        def look() -> None:
            nonlocal shown
            with suppress(OSError, InputError):  # met, and told, by the work itself
                done = others()
                advance(done - shown)
                shown = done

        def watch() -> None:
            while not ended.wait(POLL):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield advance
        finally:
            ended.set()
            watcher.join()
            look()
