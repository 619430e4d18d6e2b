"""The figures that a grid asks for: lines with intervals over numbers, points with intervals over names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wanedit.jobs.ablate.grid import Figure, Grid, label_text, same_point
from wanedit.jobs.ablate.results import Key, Results, gain_over_baseline
from wanedit.metrics.functional.bootstrap import Interval

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


def draw_figures(grid: Grid, results: Results, folder: Path) -> list[Path]:
    """Write every figure as PNG; returns the paths. One whose measure nobody has is left out."""
    made = []
    for figure in grid.figures:
        if figure.y in results.measures():
            made.append(folder / f"{figure.name}.png")
            _draw(figure, grid, results, made[-1])
    return made


def _draw(figure: Figure, grid: Grid, results: Results, path: Path) -> None:
    from matplotlib.figure import Figure as Canvas

    panels = _values(results, figure.panels)
    canvas = Canvas(figsize=(2.6 + 3.6 * len(panels), 3.6), layout="constrained")
    axes = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _panel(axis, figure, grid, results, panel)
    axes[0].set_ylabel(_label(figure, grid))
    if figure.lines is not None:
        # Beside the panels, where it hides nothing.
        named = axes[0].get_legend_handles_labels()
        title = figure.lines.replace("_", " ")
        canvas.legend(*named, title=title, frameon=False, fontsize=8, loc="outside right upper")
    if figure.title:
        canvas.suptitle(figure.title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=130, metadata={"Software": None})


def _label(figure: Figure, grid: Grid) -> str:
    what = UNITS.get(figure.y, figure.y.replace("_", " "))
    over = ", ".join(label_text(value) for value in grid.baseline.values())
    return f"{what}:\ngain over {over}" if figure.gain else what


def _panel(axis: Any, figure: Figure, grid: Grid, results: Results, panel: str | None) -> None:
    ticks = _values(results, figure.x)
    numbers = all(_number(tick) is not None for tick in ticks)
    lines = _values(results, figure.lines)
    for k, line in enumerate(lines):
        fixed = {figure.panels: panel, figure.lines: line}
        found = [
            (_number(tick) if numbers else place + 0.16 * (k - (len(lines) - 1) / 2), mean)
            for place, tick in enumerate(ticks)
            if (mean := _mean(figure, grid, results, fixed | {figure.x: tick})) is not None
        ]
        if found:
            _series(axis, found, line, k, numbers)
    axis.set_xlabel(figure.x.replace("_", " "))
    axis.grid(alpha=0.25, linewidth=0.6)
    if figure.gain:
        axis.axhline(0, color="0.3", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    if not numbers:
        axis.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right")
    elif figure.log:
        axis.set_xscale("log", base=2)
        axis.set_xticks([_number(tick) for tick in ticks], ticks, minor=False)
    if panel is not None:
        axis.set_title(f"{(figure.panels or '').replace('_', ' ')} {panel}", fontsize=9)


def _series(axis: Any, found: Sequence[tuple[Any, Any]], name: str | None, k: int, joined: bool) -> None:
    x, means = [place for place, _ in found], [mean for _, mean in found]
    middle = [mean.mean for mean in means]
    spans = [
        [m - mean.low for m, mean in zip(middle, means, strict=True)],
        [mean.high - m for m, mean in zip(middle, means, strict=True)],
    ]
    style = {"color": PALETTE[k % len(PALETTE)], "marker": MARKERS[k % len(MARKERS)], "markersize": 4.5}
    axis.errorbar(
        x, middle, spans, **style, label=name, capsize=2.5, linewidth=1.4, linestyle="-" if joined else "none"
    )


def _values(results: Results, column: str | None) -> list[Any]:
    """The values of a column in the order of the grid, numbers in theirs; [None] for no column."""
    if column is None:
        return [None]
    place = results.columns.index(column)
    found = list(dict.fromkeys(point[place] for point in results.points() if point[place] != ""))
    numbers = [_number(value) for value in found]
    return found if None in numbers else [v for _, v in sorted(zip(numbers, found, strict=True))]


def _mean(figure: Figure, grid: Grid, results: Results, fixed: dict[str | None, Any]) -> Any:
    """Of the first point that agrees; None where there is none."""
    wanted = {name: value for name, value in fixed.items() if name is not None}
    point = next((point for point in results.points() if _agrees(results, point, wanted)), None)
    if point is None:
        return None
    if figure.gain:
        labels = dict(zip(results.columns, point, strict=True))
        if same_point(labels, list(grid.baseline.items())):
            return Interval(0.0, 0.0, 0.0, 0)
        return gain_over_baseline(grid, results, point, figure.y)
    return results.mean(point, figure.y)


def _agrees(results: Results, point: Key, wanted: dict[str, Any]) -> bool:
    """An empty place of the point, a setting that means nothing there, agrees with any value."""
    values = dict(zip(results.columns, point, strict=True))
    return all(values[name] in ("", value) for name, value in wanted.items())


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
