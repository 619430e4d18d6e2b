"""Every experiment that `wanedit ablate` has recorded: a figure where something is a number, a table where it is not.

An experiment is experiments/NN_name with grid.yaml, which says what to draw, and results/summary.csv, with a column for
each axis and `measure, mean, low, high, n`; paired differences to the grid's baseline are of results.csv. ablations.tex
takes in all that have both, but for those that have a section of their own: a new record needs no line of main.tex.
Those in EXPECTED without a record are named there as not made yet.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

from paper.make.look import SERIES, axes_row, save
from paper.make.records import EXPERIMENTS, JOINS, read_csv, read_yaml
from paper.make.tex import HEAD, escape, write_table
from wanedit.jobs.ablate.grid import label_text
from wanedit.jobs.ablate.results import Results
from wanedit.jobs.ablate.results import Row as Value
from wanedit.metrics.functional.bootstrap import Interval

EXPECTED = (
    "02_alpha_controller_shift",
    "03_keyframe_spacing",
    "04_guidance",
    "05_edit_branch",
    "06_keyframe_encoding",
    "07_junction_smoothing",
    "08_steps",
)
# Those that have a section, a figure and numbers of their own.
TOLD = (JOINS.name,)
FIXED = ("measure", "mean", "low", "high", "n")
UNITS = {
    "psnr_off": "PSNR off the keyframes, dB",
    "psnr_key": "PSNR at the keyframes, dB",
    "ssim_off": "SSIM off the keyframes",
    "seconds": "seconds",
    "evaluations": "network evaluations",
    "keyframe_error": "keyframe error",
    "joins_shown": "joins that show",
}
LOWER = ("seconds", "evaluations", "keyframe_error", "joins_shown", "junction_")
# A row holds so many panels, a table so many measures, and intervals only beside so many.
MOST_PANELS, MOST_COLUMNS, ROOM = 3, 8, 4
Row = dict[str, str]


class Experiment:
    """One recorded experiment.

    Attributes:
        name, title: of the folder, of the grid.
        rows: of summary.csv.
        axes: its columns that say where a row lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self.grid: dict[str, Any] = read_yaml(folder / "grid.yaml")
        self.title, self.shows = self.grid["title"], " ".join(self.grid["shows"].split())
        self.rows = read_csv(folder / "results" / "summary.csv")
        self.axes = [name for name in self.rows[0] if name not in FIXED]

    @property
    def key(self) -> str:
        """For labels and files."""
        return "ablation_" + self.name

    @property
    def measures(self) -> list[str]:
        """Those that the grid shows and the record has; all that were recorded if it names none."""
        recorded = list(dict.fromkeys(row["measure"] for row in self.rows))
        return [m for m in self.grid.get("measures", recorded) if m in recorded]

    @cached_property
    def results(self) -> Results:
        """Every value of every clip, as the experiment's own tables have them."""
        rows = [
            Value(
                run=cells["run"],
                item=cells["item"],
                group=cells["group"],
                seed=int(cells["seed"]),
                point=tuple(cells[axis] for axis in self.axes),
                measure=cells["measure"],
                value=float(cells["value"]),
            )
            for cells in read_csv(self.folder / "results" / "results.csv")
        ]
        return Results(self.axes, rows, {})

    def plots(self) -> list[dict[str, Any]]:
        """The grid's figures over numbers, of the axes that it had when it was recorded.

        Where gains are drawn, the same measure's levels are not: scenes differ by more than what is compared.
        """
        drawn = [
            f
            for f in self.grid.get("figures", [])
            if {f["x"], f.get("lines"), f.get("panels")} - {None} <= {*self.rows[0]}
            if self.is_number(f["x"]) and f["y"] in self.measures
        ]
        gained = [(f["x"], f["y"]) for f in drawn if f.get("gain")]
        return [f for f in drawn if f.get("gain") or (f["x"], f["y"]) not in gained]

    def panels(self) -> list[tuple[dict[str, Any], str | None]]:
        """All of these figures, each at every value of its panels."""
        return [
            (plot, value)
            for plot in self.plots()
            for value in (self.values(plot["panels"]) if plot.get("panels") else [None])
        ]

    @property
    def is_cut(self) -> bool:
        """Whether the row or the table has no room for all; the caption then says so."""
        panels = self.panels()
        return len(panels) > MOST_PANELS if panels else len(self.measures) > MOST_COLUMNS

    def values(self, axis: str) -> list[str]:
        """All values of an axis, in order."""
        found = list(dict.fromkeys(row[axis] for row in self.rows if row[axis] != ""))
        return sorted(found, key=float) if self.is_number(axis) else found

    def is_number(self, axis: str) -> bool:
        """Whether all values of an axis are."""
        return all(_is_number(row[axis]) for row in self.rows if row[axis] != "")

    def at(self, measure: str, **places: str) -> Interval | None:
        """What was found there; None where nothing was, or at more than one point."""
        found = [
            row
            for row in self.rows
            if row["measure"] == measure and all(row[a] == v for a, v in places.items())
        ]
        return told(found[0]) if len(found) == 1 else None

    @property
    def baseline(self) -> dict[str, str]:
        """What differences are to, of the axes that the grid had when it was recorded."""
        return {n: label_text(v) for n, v in self.grid.get("baseline", {}).items() if n in self.axes}

    def gain(self, measure: str, **places: str) -> Interval | None:
        """The paired differences there to the baseline with these values otherwise; None where either is missing.

        Of several points with these values it is the first, as in the experiment's own figures.
        """
        ours, theirs = self.results.at(places), self.results.at(places | self.baseline)
        return self.results.gain(ours[0], theirs[0], measure) if ours and theirs else None


def told(row: Row) -> Interval:
    """The numbers of a row of summary.csv."""
    return Interval(float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def recorded(folder: Path = EXPERIMENTS) -> list[Experiment]:
    """All experiments with a grid and a summary."""
    found = sorted(path.parents[1] for path in folder.glob("*/results/summary.csv"))
    return [Experiment(path) for path in found if (path / "grid.yaml").exists()]


def make(out: Path, folder: Path = EXPERIMENTS) -> None:
    """Figures, tables, and ablations.tex, which shows them."""
    experiments = [experiment for experiment in recorded(folder) if experiment.name not in TOLD]
    for name in ("figures", "tables"):
        (out / name).mkdir(parents=True, exist_ok=True)
    drawn = [experiment for experiment in experiments if experiment.plots()]
    listed = [experiment for experiment in experiments if not experiment.plots()]
    for experiment in drawn:
        _draw(experiment, out / "figures" / f"{experiment.key}.pdf")
    for experiment in listed:
        _tabulate(experiment, out / "tables" / f"{experiment.key}.tex")
    parts = [_paragraph(experiment) for experiment in experiments]
    parts += [_figure(drawn)] * bool(drawn) + [_table(listed)] * bool(listed)
    absent = [name for name in EXPECTED if name not in {experiment.name for experiment in experiments}]
    if absent:
        names = "; ".join(name.replace("_", " ") for name in absent)
        parts.append(f"Not recorded at the time of writing: experiments {names}.\n")
    (out / "ablations.tex").write_text(HEAD + "\n".join(parts), encoding="utf-8")


def _paragraph(experiment: Experiment) -> str:
    question = re.split(r"(?<=[.?]) (?=[A-Z])", experiment.shows)[0]
    return rf"\paragraph{{{escape(experiment.title)}.}} {escape(question)} {_best(experiment)}" + "\n"


def _figure(experiments: list[Experiment]) -> str:
    """All that is drawn, in one float; narrow ones share a line."""
    graphics = [rf"\includegraphics{{figures/{experiment.key}.pdf}}" for experiment in experiments]
    return _float("figure", "fig:ablations", "\\hfil\n".join(graphics), experiments)


def _table(experiments: list[Experiment]) -> str:
    """All that is listed, in one float."""
    tables = [
        rf"\emph{{{escape(experiment.title)}}}\\[0.5ex]" + rf"\fitting{{\input{{tables/{experiment.key}}}}}"
        for experiment in experiments
    ]
    return _float("table", "tab:ablations", "\\\\[2ex]\n".join(tables), experiments)


def _float(kind: str, label: str, body: str, experiments: list[Experiment]) -> str:
    counts = "; ".join(f"{escape(e.title)}: {_clips(e)}" for e in experiments)
    bands = {
        "figure": r"means; differences to the baseline are paired, with 95\,\% bootstrap intervals as bands",
        "table": r"means, and 95\,\% bootstrap intervals where they fit",
    }
    caption = rf"Ablations: {bands[kind]}. {counts}."
    size = r"\footnotesize\setlength{\tabcolsep}{4pt}" if kind == "table" else ""
    head = rf"\begin{{{kind}}}[tbp]\centering{size}"
    return "\n".join([head, body, rf"\caption{{{caption}}}\label{{{label}}}", rf"\end{{{kind}}}", ""])


def _clips(experiment: Experiment) -> str:
    counts = sorted({int(row["n"]) for row in experiment.rows if row["measure"] == experiment.measures[0]})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    more = ", further measures in the folder of the experiment" if experiment.is_cut else ""
    return number + (" clip" if counts == [1] else " clips") + more


def _best(experiment: Experiment) -> str:
    """The best place by the first measure, for each value of the axis that the grid draws lines for."""
    measure = experiment.measures[0]
    lines = next((f["lines"] for f in experiment.grid.get("figures", []) if f.get("lines")), None)
    groups: dict[str, list[Row]] = {}
    for row in experiment.rows:
        if row["measure"] == measure:
            groups.setdefault(row[lines] if lines else "", []).append(row)
    pick = min if measure.startswith(LOWER) else max
    best = {name: pick(rows, key=lambda row: float(row["mean"])) for name, rows in groups.items()}
    where = r"Figure~\ref{fig:ablations}" if experiment.plots() else r"Table~\ref{tab:ablations}"
    found = "; ".join(
        f"{_named(lines, name)}{_mean(told(row))} at {_place(experiment, row, lines)}"
        for name, row in best.items()
    )
    return f"The best by {_label(measure, inline=True)} ({where}): {found}."


def _named(lines: str | None, name: str) -> str:
    if lines is None:
        return ""
    # Names of methods speak for themselves, a yes or a number does not.
    question = "" if lines in ("method", "controller") else f"{lines} "
    return f"{escape(question.replace('_', ' '))}{_value(name)} "


def _place(experiment: Experiment, row: Row, lines: str | None) -> str:
    axes = [axis for axis in experiment.axes if axis != lines and row[axis] != ""]
    return ", ".join(f"{axis} {_value(row[axis])}".replace("_", " ") for axis in axes)


def _value(text: str) -> str:
    """4.0 is 4, True is yes."""
    if _is_number(text):
        return f"{float(text):g}"
    return escape({"true": "yes", "false": "no"}.get(text.lower(), text).replace("_", " "))


def _label(measure: str, inline: bool = False) -> str:
    plain = UNITS.get(measure, measure.removeprefix("junction_").replace("_", " "))
    if measure.startswith("junction_"):
        plain += ", ratio to interior"
    return plain.removesuffix(", dB") if inline else plain


def _mean(found: Interval, interval: bool = True) -> str:
    mean, low, high, _ = found
    digits = 1 if abs(mean) >= 100 else 2 if abs(mean) >= 1 else 3
    if not interval:
        return f"{mean:.{digits}f}"
    return rf"{mean:.{digits}f} \interval{{{low:.{digits}f}}}{{{high:.{digits}f}}}"


def _tabulate(experiment: Experiment, path: Path) -> None:
    """A row for each place, a column for each measure; intervals where there is room for them."""
    measures = experiment.measures[:MOST_COLUMNS]
    places = list(dict.fromkeys(tuple(row[axis] for axis in experiment.axes) for row in experiment.rows))
    body = []
    for place in places:
        found = [experiment.at(m, **dict(zip(experiment.axes, place, strict=True))) for m in measures]
        cells = [_mean(one, len(measures) <= ROOM) if one else "" for one in found]
        body.append([*map(_value, place), *cells])
    header = [*(a.replace("_", " ") for a in experiment.axes), *(_short(m) for m in measures)]
    write_table(path, "l" * len(experiment.axes) + "r" * len(measures), header, [body])


def _short(measure: str) -> str:
    """For the head of a column."""
    return measure.removeprefix("junction_").replace("psnr", "PSNR").replace("ssim", "SSIM").replace("_", " ")


def _draw(experiment: Experiment, path: Path) -> None:
    """The grid's figures side by side, each over the values of its panels."""
    panels = experiment.panels()[:MOST_PANELS]
    shown = [(plot["y"], bool(plot.get("gain"))) for plot, _ in panels]
    width = 3.2 if len(panels) == 1 else 6.5
    figure, axes = axes_row(len(panels), 1.95, width, share_y=len(set(shown)) == 1)
    figure.suptitle(experiment.title, fontsize=8)
    for k, (axis, (plot, value)) in enumerate(zip(axes, panels, strict=True)):
        _panel(axis, experiment, plot, value)
        if k == 0 or shown[k] != shown[k - 1]:
            axis.set_ylabel(_label(plot["y"]).replace(" off the keyframes", " off"))
    handles, names = axes[0].get_legend_handles_labels()
    if names:
        figure.legend(handles, names, loc="outside lower center", ncols=3 if len(panels) == 1 else 6)
    save(figure, path)


def _panel(axis: Any, experiment: Experiment, plot: dict[str, Any], value: str | None) -> None:
    """All lines of one figure at one value of its panels."""
    fixed = {plot["panels"]: value} if value is not None else {}
    lines: Sequence[str | None] = experiment.values(plot["lines"]) if plot.get("lines") else [None]
    # Looks repeat where there are more lines than looks: no line is left out.
    for line, (colour, look) in zip(lines, cycle(SERIES), strict=False):
        place = fixed | ({plot["lines"]: line} if line is not None else {})
        _curve(axis, experiment, plot, place, colour, look)
    if plot.get("log"):
        axis.set_xscale("log", base=2)
    ticks = experiment.values(plot["x"])
    axis.set_xticks([float(tick) for tick in ticks], [f"{float(tick):g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel(plot["x"].replace("_", " "))
    titles = [f"{plot['panels'].replace('_', ' ')} {_value(value)}"] if value is not None else []
    if plot.get("gain"):
        to = ", ".join(f"{name} {_value(v)}" for name, v in experiment.baseline.items())
        titles.append(f"difference to {to.replace('_', ' ')}")
    axis.set_title(", ".join(titles))


def _curve(
    axis: Any, experiment: Experiment, plot: dict[str, Any], place: Row, colour: str, look: str
) -> None:
    """One line; of gains with their intervals."""
    find = experiment.gain if plot.get("gain") else experiment.at
    found = [(float(v), find(plot["y"], **place, **{plot["x"]: v})) for v in experiment.values(plot["x"])]
    points = [(x, *one[:3]) for x, one in found if one is not None]
    name = place.get(plot.get("lines") or "", "").replace("_", " ")
    if not points:
        # A line to which this axis means nothing has one value for all of it.
        whole = find(plot["y"], **place, **{plot["x"]: ""})
        if whole is not None:
            axis.axhline(whole.mean, color=colour, linestyle=look[1:], linewidth=1.2, label=name or None)
        return
    x, mean, low, high = zip(*points, strict=True)
    axis.plot(x, mean, look, color=colour, label=name or None)
    if plot.get("gain"):
        axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
