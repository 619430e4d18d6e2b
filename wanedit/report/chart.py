"""Line charts as inline SVG: coloured by the page's style sheet, readable by a screen reader, no library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wanedit.report.markup import Html, escape, join, tag

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 14, 42
# Below this share of the largest value a logarithmic axis ends.
DEEPEST = 1e-6


@dataclass(frozen=True)
class Line:
    """One series. `colour` is the number of one of the page's series colours."""

    name: str
    points: Points
    colour: int = 0
    dashed: bool = False
    dots: bool = True


@dataclass(frozen=True)
class Band:
    """The room between two series of the same steps."""

    name: str
    low: Points
    high: Points
    colour: int = 0


@dataclass(frozen=True)
class Level:
    """A horizontal line with a word on it."""

    value: float
    name: str


class _Axes:
    """From data to places in the picture."""

    def __init__(self, values: list[float], steps: list[float], log: bool) -> None:
        self.log = log
        self.left, self.right = min(steps), max(max(steps), min(steps) + 1)
        positive = [value for value in values if value > 0]
        if log and positive:
            top = max(positive)
            self.bottom, self.top = max(min(positive), top * DEEPEST), top
            self.bottom, self.top = (
                10 ** math.floor(math.log10(self.bottom)),
                10 ** math.ceil(math.log10(top)),
            )
            self.top = self.top if self.top > self.bottom else 10 * self.bottom
        else:
            self.log = False
            self.bottom, self.top = min(0.0, *values), max(values) * 1.08 or 1.0

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - self.left) / (self.right - self.left)

    def y(self, value: float) -> float:
        value = min(max(value, self.bottom), self.top)
        if self.log:
            part = math.log(value / self.bottom) / math.log(self.top / self.bottom)
        else:
            part = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part

    def marks(self) -> list[float]:
        """Where the vertical axis has numbers."""
        if not self.log:
            step = _round_step((self.top - self.bottom) / 4)
            first = math.ceil(self.bottom / step)
            return [step * i for i in range(first, math.floor(self.top / step + 1e-9) + 1)]
        low, high = round(math.log10(self.bottom)), round(math.log10(self.top))
        every = max(1, math.ceil((high - low) / 5))
        return [10.0**power for power in range(low, high + 1, every)]

    def steps(self) -> list[int]:
        """Where the horizontal axis has numbers."""
        step = max(1, round(_round_step((self.right - self.left) / 8)))
        return list(range(math.ceil(self.left), math.floor(self.right) + 1, step))


def chart(
    name: str,
    title: str,
    description: str,
    lines: Sequence[Line],
    bands: Sequence[Band] = (),
    levels: Sequence[Level] = (),
    log: bool = False,
    across: str = "step",
) -> Html:
    """A figure with its heading, picture, legend and caption.

    Args:
        name: of the element, unique in the page.
        description: what is to be seen, for those who see it and, as `desc`, for those who do not.
    """
    drawn = [line for line in lines if any(math.isfinite(value) for _, value in line.points)]
    every = [point for line in drawn for point in line.points]
    every += [point for band in bands for points in (band.low, band.high) for point in points]
    axes = _Axes(
        [v for _, v in every if math.isfinite(v)] + [at.value for at in levels], [s for s, _ in every], log
    )
    picture = tag(
        "svg",
        tag("title", title, id=f"{name}-t"),
        tag("desc", description, id=f"{name}-d"),
        _grid(axes, across),
        *(_band(band, axes) for band in bands if band.low),
        *(_level(level, axes) for level in levels),
        *(_line(line, axes) for line in drawn),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{name}-t {name}-d",
    )
    legend = tag("ul", *(_key(item) for item in (*drawn, *(b for b in bands if b.low))), class_="legend")
    caption = tag("figcaption", description)
    return tag("figure", tag("h3", title), picture, legend, caption, class_="chart", id=name)


def _grid(axes: _Axes, across: str) -> Html:
    parts = []
    for value in axes.marks():
        y = f"{axes.y(value):.1f}"
        parts.append(tag("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(tag("text", number(value), x=LEFT - 8, y=y, dy="0.32em", text_anchor="end"))
    for step in axes.steps():
        x = f"{axes.x(step):.1f}"
        parts.append(tag("text", step, x=x, y=HEIGHT - BOTTOM + 18, text_anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(tag("text", across, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="axis"))
    base = HEIGHT - BOTTOM
    parts.append(tag("line", class_="base", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base))
    return tag("g", *parts, aria_hidden="true")


def _band(band: Band, axes: _Axes) -> Html:
    there = [_at(axes, point) for point in band.high]
    back = [_at(axes, point) for point in reversed(band.low)]
    return tag(
        "polygon", tag("title", band.name), points=" ".join(there + back), class_=f"band s{band.colour}"
    )


def _level(level: Level, axes: _Axes) -> Html:
    y = axes.y(level.value)
    rule = tag("line", class_="level", x1=LEFT, x2=WIDTH - RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}")
    word = tag("text", level.name, x=LEFT + 6, y=f"{y - 6:.1f}", class_="axis")
    return join([rule, word])


def _line(line: Line, axes: _Axes) -> Html:
    # A zero has no place on a logarithmic axis: the line ends before it.
    points = [p for p in line.points if math.isfinite(p[1]) and not (axes.log and p[1] < axes.bottom)]
    kind = f"s{line.colour}" + (" dashed" if line.dashed else "")
    path = tag("polyline", points=" ".join(_at(axes, point) for point in points), class_=f"line {kind}")
    if not line.dots:
        return path
    dots = (
        tag(
            "circle",
            tag("title", f"{line.name}, step {step:g}: {value:.4g}"),
            cx=f"{axes.x(step):.1f}",
            cy=f"{axes.y(value):.1f}",
            r="3",
        )
        for step, value in points
    )
    return join([path, tag("g", *dots, class_=f"dots {kind}")])


def _key(item: Line | Band) -> Html:
    swatch = "band" if isinstance(item, Band) else "dashed" if item.dashed else "solid"
    mark = tag("i", class_=f"swatch {swatch} s{item.colour}", aria_hidden="true")
    return tag("li", mark, escape(item.name))


def _at(axes: _Axes, point: tuple[float, float]) -> str:
    return f"{axes.x(point[0]):.1f},{axes.y(point[1]):.1f}"


def _round_step(value: float) -> float:
    """1, 2 or 5 times a power of ten, at least `value`."""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1
    return next(power * part for part in (1, 2, 5, 10) if power * part >= value * (1 - 1e-9))


def number(value: float) -> str:
    """A short number for an axis."""
    if value and not 1e-3 <= abs(value) < 1e4:
        power = math.floor(math.log10(abs(value)))
        digits = "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(c)] if c.isdigit() else "⁻" for c in str(power))
        part = value / 10**power
        return f"10{digits}" if abs(part - 1) < 1e-6 else f"{part:g}·10{digits}"
    return f"{value:.4g}"


def sparkline(values: Sequence[float]) -> Html:
    """A series as small as a word."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = max(1, len(values) - 1)
    points = " ".join(f"{60 * i / last:.1f},{15 - 14 * (v - low) / span:.1f}" for i, v in enumerate(values))
    line = tag("polyline", points=points)
    return tag("svg", line, viewBox="-1 -1 62 18", class_="spark", aria_hidden="true")
