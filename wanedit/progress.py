"""What takes long counts itself, on any floor, and does not know who looks:

    for frame in counted(frames, "restoring", "frames"): ...

A caller may listen (`runtime.events.progress_bars` draws bars). While nobody does, counting costs nothing: `counted`
gives back what it was given.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Advance(Protocol):
    """Counts units that are done."""

    def __call__(self, units: int = 1, /) -> None: ...


# (label, unit, how many, None where that is not known) -> a block of work, which counts its units.
Listener = Callable[[str, str, int | None], AbstractContextManager[Advance]]
# By context: what runs in other threads, as a server's requests do, is not drawn into this one's bars.
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell `listener` of the work inside the block; where one listens already, that one goes on."""
    if _listener.get() is not None:
        yield
        return
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def heard() -> bool:
    """Whether somebody listens."""
    return _listener.get() is not None


def counting(label: str, unit: str, total: int | None = None) -> AbstractContextManager[Advance]:
    """A block of work; it gives the function that counts.

    Args:
        label: what is done, as in "restoring".
        unit: what of, as in "frames".
        total: how many.
    """
    listener = _listener.get()
    return nullcontext(_unheard) if listener is None else listener(label, unit, total)


def counted(items: Iterable[T], label: str, unit: str, total: int | None = None) -> Iterable[T]:
    """The same items, each counted when the next one is asked for. Arguments as `counting`; the length of `items`
    where that has one."""
    if _listener.get() is None:
        return items
    return _counted(items, label, unit, len(items) if total is None and isinstance(items, Sized) else total)


def _counted(items: Iterable[T], label: str, unit: str, total: int | None) -> Iterator[T]:
    with counting(label, unit, total) as advance:
        for item in items:
            yield item
            advance()


def _unheard(units: int = 1, /) -> None:
    pass
