"""results.csv (tidy), summary.csv, table.md and record.json of an experiment."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanedit.files import write_text
from wanedit.jobs.ablate.grid import Grid, Settings, column_names, label_text, same_point
from wanedit.jobs.ablate.runs import Run, rows
from wanedit.metrics.functional.bootstrap import Interval, interval

Key = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One value of one run."""

    run: str
    item: str
    group: str
    seed: int
    point: Key
    measure: str
    value: float


@dataclass(frozen=True)
class Results:
    """All values of an experiment, by the columns of its grid.

    Attributes:
        missing: runs that have no result, and why.
    """

    columns: list[str]
    rows: list[Row]
    missing: dict[str, str]

    def points(self) -> list[Key]:
        """In the order of the grid."""
        return list(dict.fromkeys(row.point for row in self.rows))

    def measures(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(row.measure for row in self.rows))

    def of(self, point: Key, measure: str) -> dict[tuple[str, int], Row]:
        """The rows of a point and measure by clip and seed."""
        return {(r.item, r.seed): r for r in self.rows if r.point == point and r.measure == measure}

    def mean(self, point: Key, measure: str) -> Interval | None:
        """None where nothing was measured."""
        found = sorted(self.of(point, measure).values(), key=lambda row: row.group)
        return interval([r.value for r in found], [r.group for r in found]) if found else None

    def gain(self, point: Key, over: Key, measure: str) -> Interval | None:
        """The mean of the paired differences of two points; None where they share no clip."""
        ours, theirs = self.of(point, measure), self.of(over, measure)
        shared = sorted((key for key in ours if key in theirs), key=lambda key: ours[key].group)
        if not shared:
            return None
        gaps = [ours[key].value - theirs[key].value for key in shared]
        return interval(gaps, [ours[key].group for key in shared])


def collect(grid: Grid, runs: Sequence[Run], root: Path) -> Results:
    """Read the results of all runs."""
    columns = column_names(grid)
    found = [
        Row(run.name, run.item.name, run.item.group, run.seed, _key(run.labels, columns), measure, value)
        for run, measure, value in rows(runs, root)
    ]
    missing = {run.name: run.failure(root) or "not made yet" for run in runs if run.result(root) is None}
    return Results(columns, found, missing)


def _key(labels: Settings, columns: Sequence[str]) -> Key:
    return tuple(label_text(labels.get(name)) for name in columns)


def write_results(grid: Grid, results: Results, folder: Path, record: dict[str, Any]) -> None:
    """Write the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    tidy = [[r.run, r.item, r.group, r.seed, *r.point, r.measure, repr(r.value)] for r in results.rows]
    header = ["run", "item", "group", "seed", *results.columns, "measure", "value"]
    write_text(folder / "results.csv", _csv([header, *tidy]))
    means = [
        [*point, measure, *(repr(v) for v in (found.mean, found.low, found.high)), found.n]
        for point in results.points()
        for measure in results.measures()
        if (found := results.mean(point, measure)) is not None
    ]
    write_text(
        folder / "summary.csv", _csv([[*results.columns, "measure", "mean", "low", "high", "n"], *means])
    )
    write_text(folder / "table.md", table(grid, results))
    write_text(folder / "record.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def table(grid: Grid, results: Results) -> str:
    """Markdown: a row for each point, a column for each measure of the grid; differences to the baseline below."""
    measures = [m for m in (grid.measures or results.measures()) if m in results.measures()]
    text = [f"# {grid.title}", "", grid.shows.strip(), ""]
    text += ["Means over clips with 95 % intervals: bootstrap over scenes.", ""]
    text += _markdown(results, measures, lambda point, measure: results.mean(point, measure))
    if grid.baseline:
        named = ", ".join(f"{name} {value}" for name, value in grid.baseline.items())
        text += ["", f"## Paired differences to {named}", ""]
        text += _markdown(
            results, measures, lambda point, m: gain_over_baseline(grid, results, point, m), "+"
        )
        text += _without_counterpart(grid, results, measures)
    if results.missing:
        text += ["", "## Runs without a result", ""]
        text += [f"- {name}: {why}" for name, why in results.missing.items()]
    return "\n".join(text) + "\n"


def _without_counterpart(grid: Grid, results: Results, measures: Sequence[str]) -> list[str]:
    """The points that are compared with nothing, for the reader."""
    wanted = list(grid.baseline.items())
    lost = [
        ", ".join(part for part in point if part)
        for point in results.points()
        if not same_point(dict(zip(results.columns, point, strict=True)), wanted)
        and not any(gain_over_baseline(grid, results, point, measure) for measure in measures)
    ]
    return ["", f"Without one point of the baseline to compare with: {'; '.join(lost)}."] if lost else []


def gain_over_baseline(grid: Grid, results: Results, point: Key, measure: str) -> Interval | None:
    """The paired differences to the point that has the baseline's values and this point's others; None for that one."""
    labels = dict(zip(results.columns, point, strict=True)) | {
        name: label_text(value) for name, value in grid.baseline.items()
    }
    over = [p for p in results.points() if _same(results, p, labels)]
    # Several: an axis means nothing at this point, and the baseline does not say which of its values is meant.
    return None if len(over) != 1 or over[0] == point else results.gain(point, over[0], measure)


def _same(results: Results, point: Key, labels: Settings) -> bool:
    """An empty label, of an axis that means nothing there, agrees with any value."""
    wanted = [(name, value) for name, value in labels.items() if value != ""]
    return same_point(dict(zip(results.columns, point, strict=True)), wanted)


def _markdown(results: Results, measures: Sequence[str], of: Any, sign: str = "") -> list[str]:
    lines = [[*results.columns, *measures], ["---"] * (len(results.columns) + len(measures))]
    for point in results.points():
        found = [of(point, measure) for measure in measures]
        if any(found):
            lines.append([*point, *(_cell(value, sign) for value in found)])
    return ["| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines]


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _cell(found: Interval | None, sign: str) -> str:
    if found is None:
        return ""
    digits = 3 if abs(found.mean) < 1 else 2 if abs(found.mean) < 100 else 0
    shown = [f"{value:{sign}.{digits}f}" for value in (found.mean, found.low, found.high)]
    return shown[0] if shown[0] == shown[1] == shown[2] else f"{shown[0]} ({shown[1]} … {shown[2]})"
