"""An evaluation, or several, as tables. Groups are taken as they come: dicts of numbers, however deep."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanedit.errors import WaneditError
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.run import Evaluation, evaluate
from wanedit.report.chart import sparkline
from wanedit.report.markup import Html, join, section, table, tag
from wanedit.report.privacy import Discreet

# Words in a measure's name that say which way is better; where none does, none is marked as best.
HIGHER = ("psnr", "ssim", "consistency", "smoothness")
LOWER = ("lpips", "warp_error", "flicker", "keyframe_error", "end_point_error", "structure_distance")
# Of numbers by frame or step; more of them are drawn.
MOST_LINES = 4
Measured = tuple[Evaluation | None, str | None]


@dataclass(frozen=True)
class Cell:
    """One number of the table. `shows` marks a join at which a person should look."""

    text: str
    value: float
    shows: bool = False
    hint: str | None = None
    series: tuple[float, ...] = ()

    def html(self, best: bool = False) -> Html:
        """As the content of a table's cell."""
        kind = "shows" if self.shows else "best" if best else None
        mark = (
            tag("span", " shows", class_="unseen")
            if self.shows
            else tag("span", " best", class_="unseen")
            if best
            else None
        )
        drawn = sparkline(self.series) if len(self.series) > 1 else None
        return tag("span", drawn, self.text, mark, class_=kind, title=self.hint)


Rows = dict[str, Cell]


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


def metric_tables(names: Sequence[str], found: Sequence[Measured], discreet: Discreet) -> Html:
    """One column for each run, a single run's junctions as joins by measures, and what was not measured."""
    parts: list[Html] = []
    groups = list(dict.fromkeys(group for result, _ in found if result for group in result.metrics))
    matrix = [group for group in groups if len(found) == 1 and _is_matrix(found[0][0], group)]
    parts += [_matrix(found[0][0], group) for group in matrix]
    rest = [group for group in groups if group not in matrix]
    if rest and len(found) == 1:
        # One column of numbers alone would leave most of the page empty.
        tables = [_columns(names, [found[0][0]], [group]) for group in rest]
        parts.append(tag("div", *tables, class_="cards"))
    elif rest:
        parts.append(_columns(names, [result for result, _ in found], rest))
    notes = [discreet.text(note) for result, _ in found if result for note in result.notes]
    parts += [tag("p", note, class_="note") for note in dict.fromkeys(notes)]
    note = (
        "Measured on the frames before lossy encoding. What could not be measured is named with the reason."
    )
    return section("metrics", "Metrics", *parts, _missing(names, found, discreet), note=note)


def _is_matrix(result: Evaluation | None, group: str) -> bool:
    values = result.metrics.get(group) if result else None
    return bool(values) and all(
        isinstance(row, dict) and row and all(_is_score(cell) for cell in row.values())
        for row in values.values()
    )


def _is_score(value: Any) -> bool:
    return isinstance(value, dict) and {"ratio", "shows"} <= set(value)


def _matrix(result: Evaluation | None, group: str) -> Html:
    values = result.metrics[group] if result else {}
    names = list(next(iter(values.values())))
    rows = [[f"frame {place}", *(_shown(row.get(name)) for name in names)] for place, row in values.items()]
    heading = tag("h3", _words(group))
    note = tag(
        "p",
        "Each number is a ratio to the median of the clip's interior: 1 is as anywhere else. ",
        tag("span", "Marked", class_="shows"),
        " numbers deserve a look.",
        class_="note",
    )
    return join(
        [heading, note, table(["Join", *map(_words, names)], rows, f"{_words(group)} by join", numbers=True)]
    )


def _shown(value: Any) -> Html | str:
    cell = _cell(value)
    return cell.html() if cell is not None else ""


def _columns(names: Sequence[str], results: Sequence[Evaluation | None], groups: Sequence[str]) -> Html:
    bodies = []
    for group in groups:
        columns = [flat(result.metrics.get(group, {})) if result else {} for result in results]
        lines = [
            tag("tr", tag("th", _words(group), scope="colgroup", colspan=len(names) + 1), class_="group")
        ]
        for name in dict.fromkeys(name for column in columns for name in column):
            cells = [column.get(name) for column in columns]
            best = _best(f"{group}/{name}", cells)
            shown = (tag("td", cell.html(k in best) if cell else "–") for k, cell in enumerate(cells))
            lines.append(tag("tr", tag("th", _words(name), scope="row"), *shown))
        bodies.append(tag("tbody", *lines))
    single = len(names) == 1
    heads = [
        tag("th", "Measure", scope="col"),
        *(tag("th", "Value" if single else name, scope="col") for name in names),
    ]
    caption = f"Measures: {', '.join(map(_words, groups))}" if single else "Measures by run"
    whole = tag(
        "table",
        tag("caption", caption, class_="unseen"),
        tag("thead", tag("tr", *heads)),
        *bodies,
        class_="numbers",
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def flat(values: Any, at: str = "") -> Rows:
    """Numbers of nested dicts by their path; the score of a join is one number, its ratio."""
    if _is_score(values) or not isinstance(values, dict) or _is_series(values):
        cell = _cell(values)
        return {at: cell} if cell is not None else {}
    found: Rows = {}
    for name, value in values.items():
        found |= flat(value, f"{at} · {name}" if at else str(name))
    return found


def _is_series(values: dict[str, Any]) -> bool:
    """Numbers by frame or step, too many for a line each."""
    counted = all(str(name).lstrip("-").isdecimal() for name in values)
    return (
        len(values) > MOST_LINES
        and counted
        and all(isinstance(part, int | float) for part in values.values())
    )


def _cell(value: Any) -> Cell | None:
    if isinstance(value, dict) and not _is_score(value):
        value = list(value.values())
    if _is_score(value):
        others = ", ".join(
            f"{name} {_short(part)}" for name, part in value.items() if name not in ("ratio", "shows")
        )
        ratio = float(value["ratio"]) if value["ratio"] is not None else math.nan
        return Cell(f"{_short(ratio)}×", ratio, bool(value["shows"]), others or None)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", float(value))
    if isinstance(value, int | float):
        return Cell(_short(value), float(value))
    if isinstance(value, list | tuple):
        return _series(value)
    return None if value is None else Cell(str(value), math.nan)


def _series(values: Sequence[Any]) -> Cell | None:
    numbers = tuple(float(v) for v in values if isinstance(v, int | float) and math.isfinite(v))
    if not numbers:
        return None
    text = f"{_short(min(numbers))} … {_short(max(numbers))}"
    return Cell(text, math.nan, hint=f"{len(values)} values", series=numbers)


def _short(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "n/a" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:.4g}".replace("-", "−")


def _best(name: str, cells: Sequence[Cell | None]) -> set[int]:
    """Which columns of a row are the best, where the name says what is better and not all are equal."""
    last = name.rsplit("/", 1)[-1]
    higher, lower = any(word in last for word in HIGHER), any(word in name for word in LOWER)
    values = {k: cell.value for k, cell in enumerate(cells) if cell and not math.isnan(cell.value)}
    if higher == lower or len(set(values.values())) < 2:
        return set()
    top = (max if higher else min)(values.values())
    return {k for k, value in values.items() if value == top}


def _missing(names: Sequence[str], found: Sequence[Measured], discreet: Discreet) -> Html | None:
    lines = []
    for name, (result, reason) in zip(names, found, strict=True):
        reasons = result.skipped if result else {"nothing": reason or "no reason given"}
        for group, why in reasons.items():
            lines.append(((name if len(names) > 1 else None), group, discreet.text(why)))
    if not lines:
        return None
    unique = list(dict.fromkeys((group, why) for _, group, why in lines))
    items = []
    for group, why in unique:
        of = [name for name, *rest in lines if name and tuple(rest) == (group, why)]
        told = f" ({', '.join(of)})" if of and len(of) < len(names) else ""
        items.append(
            join([tag("dt", f"{'all' if group == 'nothing' else _words(group)}{told}"), tag("dd", why)])
        )
    return tag("div", tag("h3", "Not measured"), tag("dl", *items, class_="facts"), class_="skipped")


def _words(name: str) -> str:
    return str(name).replace("_", " ")
