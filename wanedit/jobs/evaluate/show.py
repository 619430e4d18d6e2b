"""An evaluation as tables for a person."""

from typing import Any

from rich.console import Console
from rich.table import Table

from wanedit.jobs.evaluate.run import Evaluation
from wanedit.runtime.progress import wide_console


def print_evaluation(result: Evaluation, console: Console | None = None) -> None:
    """What was measured, join by join and group by group, and what was not."""
    console = console or wide_console()
    width, height = result.size
    console.print(f"{result.video}: {result.frames} frames of {width}x{height}", highlight=False)
    joins = dict(result.metrics.get("junctions", {}))
    for join, found in result.metrics.get("lpips", {}).get("junctions", {}).items():
        joins[join] = joins.get(join, {}) | {"lpips": found}
    if joins:
        console.print(_junctions(joins))
    numbers = _numbers(result)
    if numbers.row_count:
        console.print(numbers)
    for group, reason in result.skipped.items():
        console.print(f"not measured: {group}: {reason}", style="yellow", highlight=False)
    for note in result.notes:
        console.print(note, highlight=False)


def _junctions(joins: dict[str, dict[str, Any]]) -> Table:
    names = list(next(iter(joins.values())))
    table = Table(title="Junctions: ratio to the interior; * shows", title_justify="left")
    for column in ("frame", *names):
        table.add_column(column, justify="right")
    for join, found in joins.items():
        cells = [f"{found[name]['ratio']:.2f}{'*' if found[name]['shows'] else ' '}" for name in names]
        table.add_row(join, *cells)
    return table


def _numbers(result: Evaluation) -> Table:
    table = Table(title="Measures", title_justify="left")
    for column in ("group", "measure", "value"):
        table.add_column(column, justify="right" if column == "value" else "left")
    for group, values in result.metrics.items():
        for name, value in values.items():
            if not isinstance(value, dict):
                table.add_row(group, name, f"{value:.4g}")
    return table
