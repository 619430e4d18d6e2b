"""Progress on a terminal: how far, how long, how long yet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
