"""results.csv (tidy), summary.csv, table.md, record.json and the figures of an experiment."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wanedit.files import atomic_path, write_text
from wanedit.jobs.ablate.config import TABLE
from wanedit.jobs.ablate.grid import Figure, Grid, Settings, column_names, label_text, same_point
from wanedit.jobs.ablate.runs import Run, rows
from wanedit.metrics.functional.bootstrap import Interval, interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Key = tuple[str, ...]
# Okabe and Ito (2008): told apart without colour vision too.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vPX*"
UNITS = {
    "psnr_off": "PSNR off the keyframes in dB",
    "psnr_key": "PSNR at the keyframes in dB",
    "ssim_off": "SSIM off the keyframes",
    "keyframe_error": "relative residual at the keyframes",
    "seconds": "seconds a clip",
    "evaluations": "network evaluations",
    "joins_shown": "joins that show, a clip",
    "warp_error": "warp error in levels",
}


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
        folder: where they are written.
    """

    columns: list[str]
    rows: list[Row]
    missing: dict[str, str]
    folder: Path = Path()

    @property
    def told(self) -> str:
        """In words."""
        return f"results: {self.folder / TABLE}"

    @property
    def failed(self) -> int:
        """How many runs have none."""
        return len(self.missing)

    def points(self) -> list[Key]:
        """In the order of the grid."""
        return list(dict.fromkeys(point for point, _ in self._places))

    def measures(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(measure for _, measure in self._places))

    def labels(self, point: Key) -> dict[str, str]:
        """The values of a point by their columns; "" for a setting that means nothing there."""
        return dict(zip(self.columns, point, strict=True))

    @cached_property
    def _places(self) -> dict[tuple[Key, str], dict[tuple[str, int], Row]]:
        found: dict[tuple[Key, str], dict[tuple[str, int], Row]] = {}
        for row in self.rows:
            found.setdefault((row.point, row.measure), {})[row.item, row.seed] = row
        return found

    def of(self, point: Key, measure: str) -> dict[tuple[str, int], Row]:
        """The rows of a point and measure by clip and seed."""
        return self._places.get((point, measure), {})

    @cached_property
    def _tables(self) -> dict[Key, dict[Key, list[Key]]]:
        return {}

    def at(self, wanted: Mapping[str, str]) -> list[Key]:
        """The points that have these values, by their columns."""
        names = tuple(wanted)
        if names not in self._tables:
            table = self._tables[names] = {}
            for point in self.points():
                labels = self.labels(point)
                table.setdefault(tuple(label_text(labels.get(name)) for name in names), []).append(point)
        return self._tables[names].get(tuple(wanted.values()), [])

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


def collect(grid: Grid, runs: Sequence[Run], root: Path, folder: Path = Path()) -> Results:
    """Read the results of all runs, which are written into `folder`."""
    columns = column_names(grid)
    found = []
    for run, measure, value in rows(runs, root):
        point = tuple(label_text(run.labels.get(name)) for name in columns)
        found.append(Row(run.name, run.item.name, run.item.group, run.seed, point, measure, value))
    missing = {run.name: run.failure(root) or "not made yet" for run in runs if run.result(root) is None}
    return Results(columns, found, missing, folder)


def write_results(grid: Grid, results: Results, folder: Path, record: Settings) -> None:
    """Write the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    # The record first: it says whose the others are, should they not be written.
    write_text(folder / "record.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
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
    write_text(folder / TABLE, table(grid, results))


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def table(grid: Grid, results: Results) -> str:
    """Markdown: a row for each point, a column for each measure of the grid; differences to the baseline below."""
    elsewhere = {name for values in grid.published.values() for name in values}
    measures = [m for m in (grid.measures or results.measures()) if m in {*results.measures(), *elsewhere}]
    text = [f"# {grid.title}", "", grid.shows.strip(), ""]
    text += ["Means over n clips with 95 % intervals: bootstrap over scenes.", ""]
    text += _markdown(results, measures, lambda point, measure: results.mean(point, measure), grid.published)
    if grid.baseline:
        named = ", ".join(f"{name} {value}" for name, value in grid.baseline.items())
        text += ["", f"## Paired differences to {named}", ""]
        text += _markdown(
            results, measures, lambda point, m: gain_over_baseline(grid, results, point, m), sign="+"
        )
        lost = [
            ", ".join(part for part in point if part)
            for point in results.points()
            if not same_point(results.labels(point), list(grid.baseline.items()))
            and not any(gain_over_baseline(grid, results, point, measure) for measure in measures)
        ]
        if lost:
            text += ["", f"Without one point of the baseline to compare with: {'; '.join(lost)}."]
    if results.missing:
        text += ["", "## Runs without a result", ""]
        text += [f"- {name}: {why}" for name, why in results.missing.items()]
    return "\n".join(text) + "\n"


def gain_over_baseline(grid: Grid, results: Results, point: Key, measure: str) -> Interval | None:
    """The paired differences to the point that has the baseline's values and this point's others; None for that one."""
    labels = results.labels(point) | {name: label_text(value) for name, value in grid.baseline.items()}
    # An empty label, of an axis that means nothing there, agrees with any value.
    over = results.at({name: value for name, value in labels.items() if value != ""})
    # Several: an axis means nothing at this point, and the baseline does not say which of its values is meant.
    return None if len(over) != 1 or over[0] == point else results.gain(point, over[0], measure)


def _markdown(
    results: Results,
    measures: Sequence[str],
    of: Callable[[Key, str], Interval | None],
    published: Mapping[str, Settings] | None = None,
    sign: str = "",
) -> list[str]:
    def cell(found: Interval | None) -> str:
        if found is None:
            return ""
        digits = 3 if abs(found.mean) < 1 else 2 if abs(found.mean) < 100 else 0
        shown = [f"{value:{sign}.{digits}f}" for value in (found.mean, found.low, found.high)]
        return shown[0] if shown[0] == shown[1] == shown[2] else f"{shown[0]} ({shown[1]} … {shown[2]})"

    header = [*results.columns, "n", *measures]
    lines = [header, ["---"] * len(header)]
    for point in results.points():
        found = [of(point, measure) for measure in measures]
        # Some clips may lack some measure, such as one of joins that nothing moves through.
        if count := max((one.n for one in found if one), default=0):
            lines.append([*point, str(count), *map(cell, found)])
    for label, values in (published or {}).items():
        unlabelled = [""] * len(results.columns)
        lines.append([label, *unlabelled, *(str(values.get(measure, "")) for measure in measures)])
    # A bar would end a cell of Markdown, and a line break the row.
    escaped = ((cell.replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)
    return ["| " + " | ".join(line) + " |" for line in escaped]


def draw_figures(grid: Grid, results: Results, folder: Path) -> list[Path]:
    """Write every figure as PNG; returns the paths. One whose measure nobody has is left out."""
    # Takes a second, for which a plan of an experiment need not wait.
    from matplotlib.figure import Figure as Canvas

    made = []
    for figure in grid.figures:
        if figure.y not in results.measures():
            continue
        panels = [None] if figure.panels is None else _values(results, figure.panels)
        canvas = Canvas(figsize=(2.6 + 3.6 * len(panels), 3.6), layout="constrained")
        axes = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, figure, grid, results, panel)
        what = UNITS.get(figure.y, figure.y.replace("_", " "))
        over = ", ".join(label_text(value) for value in grid.baseline.values())
        axes[0].set_ylabel(f"{what}:\ngain over {over}" if figure.gain else what)
        if figure.lines is not None:
            # Beside the panels, where it hides nothing.
            named = axes[0].get_legend_handles_labels()
            title = figure.lines.replace("_", " ")
            canvas.legend(*named, title=title, frameon=False, fontsize=8, loc="outside right upper")
        if figure.title:
            canvas.suptitle(figure.title, fontsize=10)
        made.append(folder / f"{figure.name}.png")
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(made[-1]) as partial:
            # No name of the software: the same results give the same file.
            canvas.savefig(partial, format="png", dpi=130, metadata={"Software": None})
    return made


def _draw_panel(axis: "Axes", figure: Figure, grid: Grid, results: Results, panel: str | None) -> None:
    """Lines with intervals over numbers, points with intervals over names."""
    ticks = _values(results, figure.x)
    places = [value for tick in ticks if (value := _number(tick)) is not None]
    numbers = len(places) == len(ticks)
    lines = [None] if figure.lines is None else _values(results, figure.lines)
    for k, line in enumerate(lines):
        fixed = {figure.panels: panel, figure.lines: line}
        # Over names, the lines stand beside each other.
        x = places if numbers else [place + 0.16 * (k - (len(lines) - 1) / 2) for place in range(len(ticks))]
        means = [_mean(figure, grid, results, fixed | {figure.x: tick}) for tick in ticks]
        found = [(place, mean) for place, mean in zip(x, means, strict=True) if mean is not None]
        if found:
            axis.errorbar(
                [place for place, _ in found],
                [mean.mean for _, mean in found],
                [[m.mean - m.low for _, m in found], [m.high - m.mean for _, m in found]],
                label=line,
                color=PALETTE[k % len(PALETTE)],
                marker=MARKERS[k % len(MARKERS)],
                markersize=4.5,
                capsize=2.5,
                linewidth=1.4,
                linestyle="-" if numbers else "none",
            )
    axis.set_xlabel(figure.x.replace("_", " "))
    axis.grid(alpha=0.25, linewidth=0.6)
    if figure.gain:
        axis.axhline(0, color="0.3", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    if not numbers:
        # Many stand too close to lie flat.
        few = len(ticks) < 9
        axis.set_xticks(
            range(len(ticks)),
            ticks,
            ha="right",
            rotation=20 if few else 45,
            rotation_mode=None if few else "anchor",
        )
    elif figure.log:
        axis.set_xscale("log", base=2)
        axis.set_xticks(places, ticks, minor=False)
    if panel is not None:
        axis.set_title(f"{(figure.panels or '').replace('_', ' ')} {panel}", fontsize=9)


def _mean(
    figure: Figure, grid: Grid, results: Results, fixed: dict[str | None, str | None]
) -> Interval | None:
    """Of the first point that agrees, or its gain; None where there is none."""
    for point in results.points():
        labels = results.labels(point)
        # An empty place of the point, a setting that means nothing there, agrees with any value.
        if all(name is None or labels[name] in ("", value) for name, value in fixed.items()):
            if not figure.gain:
                return results.mean(point, figure.y)
            if same_point(labels, list(grid.baseline.items())):
                return Interval(0.0, 0.0, 0.0, 0)
            return gain_over_baseline(grid, results, point, figure.y)
    return None


def _values(results: Results, column: str) -> list[str]:
    """The values of a column in the order of the grid, numbers in theirs."""
    found = list(dict.fromkeys(labels[column] for labels in map(results.labels, results.points())))
    found = [value for value in found if value != ""]
    numbers = [_number(value) for value in found]
    return found if None in numbers else [v for _, v in sorted(zip(numbers, found, strict=True))]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
