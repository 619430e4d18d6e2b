"""An evaluation, or several, as tables. Groups are taken as they come: dicts of numbers, however deep."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from wanedit.errors import WaneditError
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.metric import better
from wanedit.jobs.evaluate.run import Evaluation, evaluate
from wanedit.runtime.privacy import Discreet

# Stands between the names that lead to a number.
BETWEEN = " · "
# Of numbers by frame or step; more of them are drawn.
MOST_LINES = 4
Measured = tuple[Evaluation | None, str | None]
Values = Mapping[str, object]


@dataclass(frozen=True)
class Cell:
    """One number of the table. `shows` marks a join at which a person should look."""

    text: str
    value: float
    shows: bool = False
    hint: str | None = None
    series: tuple[float, ...] = ()

    @property
    def sparkline(self) -> str:
        """The series as the points of a line as small as a word."""
        low, high, last = min(self.series), max(self.series), max(1, len(self.series) - 1)
        span = (high - low) or 1.0
        places = ((60 * i / last, 15 - 14 * (v - low) / span) for i, v in enumerate(self.series))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def measure(root: Path, metrics: str) -> Measured:
    """A run's evaluation; or none, and the reason."""
    if metrics == "none":
        return None, "not asked for"
    try:
        return evaluate(EvaluationConfig(run=str(root), metrics=metrics)), None
    except WaneditError as error:
        if metrics != "auto":
            raise
        return None, str(error)


def metric_tables(names: Sequence[str], found: Sequence[Measured], discreet: Discreet) -> dict[str, object]:
    """One column for each run, a single run's junctions as joins by measures, and what was not measured."""
    results = [result for result, _ in found]
    groups = list(dict.fromkeys(group for result in results if result for group in result.metrics))
    matrices, rest = [], groups
    if len(results) == 1 and (result := results[0]):
        for group in filter(lambda group: _is_matrix(result.metrics[group]), groups):
            joins = result.metrics[group]
            measures = list(next(iter(joins.values())))
            rows = [
                [f"frame {at}", *(_cell(row.get(name)) for name in measures)] for at, row in joins.items()
            ]
            head = ["Join", *map(words, measures)]
            matrices.append({"group": group, "title": words(group), "head": head, "rows": rows})
        rest = [group for group in groups if group not in [matrix["group"] for matrix in matrices]]
    # One column of numbers alone would leave most of the page empty: then every group is a table of its own.
    tables = [[group] for group in rest] if len(names) == 1 else [rest] if rest else []
    notes = (discreet.text(note) for result in results if result for note in result.notes)
    return {
        "note": "Measured on the frames before lossy encoding. What could not be measured is named with the reason.",
        "matrices": matrices,
        "cards": len(names) == 1,
        "tables": [_columns(names, results, shown) for shown in tables],
        "notes": list(dict.fromkeys(notes)),
        "missing": _missing(names, found, discreet),
    }


def _is_matrix(values: Values) -> bool:
    """Joins by measures."""
    return bool(values) and all(
        isinstance(row, dict) and row and all(map(_is_score, row.values())) for row in values.values()
    )


def _is_score(value: object) -> TypeGuard[Values]:
    return isinstance(value, dict) and {"ratio", "shows"} <= set(value)


def _columns(
    names: Sequence[str], results: Sequence[Evaluation | None], groups: Sequence[str]
) -> dict[str, object]:
    """A table: under the name of each group its rows, each with its cells and which of them are the best."""
    shown = []
    for group in groups:
        columns = [flat(result.metrics.get(group, {})) if result else {} for result in results]
        rows = []
        for name in dict.fromkeys(name for column in columns for name in column):
            cells = [column.get(name) for column in columns]
            way = better(group, name.split(BETWEEN))
            values = [cell.value for cell in cells if cell and not math.isnan(cell.value)]
            # None is marked where all are equal, or where the group does not say which way is better.
            marked = way != "neither" and len(set(values)) > 1
            top = (max if way == "higher" else min)(values) if marked else None
            best = {k for k, cell in enumerate(cells) if marked and cell and cell.value == top}
            rows.append((words(name), cells, best))
        shown.append((words(group), rows))
    if len(names) == 1:
        caption, head = f"Measures: {', '.join(map(words, groups))}", ["Measure", "Value"]
    else:
        caption, head = "Measures by run", ["Measure", *names]
    return {"caption": caption, "head": head, "groups": shown}


def flat(values: object, at: str = "") -> dict[str, Cell]:
    """Numbers of nested dicts by their path; a join's score is one number, its ratio, and a series one cell."""
    if isinstance(values, dict) and not _is_score(values):
        counted = all(str(name).lstrip("-").isdecimal() for name in values)
        numbers = all(isinstance(value, int | float) for value in values.values())
        if not (counted and numbers and len(values) > MOST_LINES):
            found: dict[str, Cell] = {}
            for name, value in values.items():
                found |= flat(value, f"{at}{BETWEEN}{name}" if at else str(name))
            return found
    cell = _cell(values)
    return {at: cell} if cell is not None else {}


def _cell(value: object) -> Cell | None:
    if _is_score(value):
        others = [
            f"{name} {_short(x)}" for name, x in value.items() if not isinstance(x, bool) and name != "ratio"
        ]
        others += ["above the limit of this measure"] if value.get("beyond") else []
        ratio = float(x) if isinstance(x := value["ratio"], int | float) else math.nan
        return Cell(f"{_short(ratio)}×", ratio, bool(value["shows"]), ", ".join(others) or None)
    if isinstance(value, dict | list | tuple):
        parts = list(value.values()) if isinstance(value, dict) else value
        series = tuple(float(v) for v in parts if isinstance(v, int | float) and math.isfinite(v))
        text = f"{_short(min(series))} … {_short(max(series))}" if series else ""
        return Cell(text, math.nan, hint=f"{len(parts)} values", series=series) if series else None
    if isinstance(value, bool):
        return Cell("yes" if value else "no", float(value))
    if isinstance(value, int | float):
        return Cell(_short(value), float(value))
    return None if value is None else Cell(str(value), math.nan)


def _short(value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−")


def _missing(names: Sequence[str], found: Sequence[Measured], discreet: Discreet) -> list[tuple[str, str]]:
    """(group, why) of all that was not measured, with the runs in brackets where it was measured of others."""
    lines: dict[tuple[str, str], list[str]] = {}
    for name, (result, reason) in zip(names, found, strict=True):
        reasons = result.skipped if result else {"all": reason or "no reason given"}
        for group, why in reasons.items():
            lines.setdefault((words(group), discreet.text(why)), []).append(name)
    return [
        (f"{group} ({', '.join(of)})" if len(of) < len(names) else group, why)
        for (group, why), of in lines.items()
    ]


def words(name: str) -> str:
    """A measure's name as text."""
    return str(name).replace("_", " ")
