"""A progress bar with the time left, counted in sampler steps over all segments of this rank."""

from collections.abc import Iterator
from contextlib import contextmanager

from wanedit.lit.chain import OnStep

PIPE_WIDTH = 160


def wide_console():
    """A rich console that prints brackets as they are, since file names hold them.

    Into a file or a pipe it writes lines long enough that no table wraps.
    """
    from rich.console import Console

    console = Console(markup=False)
    return console if console.is_terminal else Console(markup=False, width=PIPE_WIDTH)


@contextmanager
def step_bar(total_steps: int, verbose: bool, label: str = "sampling") -> Iterator[OnStep]:
    """Yield a callback for `FLF2VChain`; draws nothing when not verbose."""
    if not verbose or total_steps == 0:
        yield lambda segment, step: None
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
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(f"{label} (loading)", total=total_steps)

        def on_step(segment: int, step: int) -> None:
            progress.update(bar, advance=1, description=f"{label} segment {segment}")

        yield on_step
