"""The figures of an edit's steps, residual, keyframe error and gain, as values that chart.html.j2 draws as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wanedit.errors import InputError
from wanedit.metrics.functional.convergence import recursion, unpredicted
from wanedit.metrics.functional.reach import LACKS
from wanedit.report.record import Record, listing
from wanedit.runtime.events import number

Points = Sequence[tuple[float, float]]
# Below this share of the largest value a logarithmic axis ends.
DEEPEST = 1e-6
# Colours of series that the style sheet has.
COLOURS = 6
SERIES = {"residual": "r_k_norm_relative", "error": "keyframe_error", "gain": "alpha_h"}


class Axes:
    """From data to places in the picture, which a template writes with one digit behind the point."""

    WIDTH, HEIGHT = 420, 270
    LEFT, TOP = 48, 14
    right_end, base = WIDTH - 10, HEIGHT - 42

    def __init__(self, values: Sequence[float], steps: Sequence[float], log: bool) -> None:
        self.left, self.right = min(steps), max(max(steps), min(steps) + 1)
        positive = [value for value in values if value > 0]
        self.log = log and bool(positive)
        if self.log:
            top = max(positive)
            self.bottom = 10 ** math.floor(math.log10(max(min(positive), top * DEEPEST)))
            self.top = max(10 ** math.ceil(math.log10(top)), 10 * self.bottom)
        else:
            self.bottom, self.top = min(0.0, *values), max(values) * 1.08 or 1.0

    def x(self, step: float) -> str:
        """Of a step."""
        part = (step - self.left) / (self.right - self.left)
        return f"{self.LEFT + (self.right_end - self.LEFT) * part:.1f}"

    def y(self, value: float) -> str:
        """Of a value, at the edge for one that is off the axis."""
        value = min(max(value, self.bottom), self.top)
        if self.log:
            part = math.log(value / self.bottom) / math.log(self.top / self.bottom)
        else:
            part = (value - self.bottom) / (self.top - self.bottom)
        return f"{self.base - (self.base - self.TOP) * part:.1f}"

    def path(self, points: Points) -> str:
        """Points as SVG takes them."""
        return " ".join(f"{self.x(step)},{self.y(value)}" for step, value in points)

    def drawable(self, points: Points) -> Points:
        """Points that have a place: a zero has none on a logarithmic axis, where the line ends before it."""
        return [p for p in points if math.isfinite(p[1]) and not (self.log and p[1] < self.bottom)]

    def marks(self) -> list[float]:
        """Where the vertical axis has numbers."""
        if not self.log:
            step = _round_step((self.top - self.bottom) / 4)
            return [
                step * i for i in range(math.ceil(self.bottom / step), math.floor(self.top / step + 1e-9) + 1)
            ]
        low, high = round(math.log10(self.bottom)), round(math.log10(self.top))
        return [10.0**power for power in range(low, high + 1, max(1, math.ceil((high - low) / 5)))]

    def steps(self) -> list[int]:
        """Where the horizontal axis has numbers."""
        step = max(1, round(_round_step((self.right - self.left) / 8)))
        return list(range(math.ceil(self.left), math.floor(self.right) + 1, step))


def _round_step(value: float) -> float:
    """1, 2 or 5 times a power of ten, at least `value`."""
    power = 10 ** math.floor(math.log10(value)) if value > 0 else 1
    return next(power * part for part in (1, 2, 5, 10) if power * part >= value * (1 - 1e-9))


def short_number(value: float) -> str:
    """A number for an axis: powers of ten where it is very large or small."""
    if value and not 1e-3 <= abs(value) < 1e4:
        power = math.floor(math.log10(abs(value)))
        digits = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        part = value / 10**power
        return f"10{digits}" if abs(part - 1) < 1e-6 else f"{part:g}·10{digits}"
    return f"{value:.4g}"


@dataclass(frozen=True)
class Line:
    """One series. `colour` is the number of one of the page's series colours; a dashed line has no dots."""

    name: str
    points: Points
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """The room between two series of the same steps."""

    name: str
    low: Points
    high: Points
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """A figure with its heading, picture, legend and caption.

    Attributes:
        name: of the element, unique in the page.
        description: what is to be seen, for those who see it and, as `desc`, for those who do not.
        levels: horizontal lines with a word on them.
        axis: what the horizontal axis counts.
    """

    name: str
    title: str
    description: str
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    levels: Sequence[tuple[float, str]] = ()
    log: bool = False
    axis: str = "step"

    @cached_property
    def axes(self) -> Axes:
        """Wide enough for everything that is drawn."""
        every = [point for line in self.lines for point in line.points]
        every += [point for band in self.bands for points in (band.low, band.high) for point in points]
        values = [value for _, value in every if math.isfinite(value)] + [value for value, _ in self.levels]
        return Axes(values, [step for step, _ in every], self.log)


@dataclass(frozen=True)
class Steps:
    """Series of one edit over its steps, as (step, value); all residuals relative to the RMS of x_e.

    Attributes:
        residual, error, gain: |r|, |e| / |x_e| and the gain times the step, as logged.
        decay, low, high: as of `convergence.Recursion`; empty where nothing is predicted.
        within: share of the steps between low and high; NaN where none is predicted.
        unpredicted: why nothing is predicted; None where something is.
    """

    residual: Points
    error: Points
    gain: Points
    decay: Points = ()
    low: Points = ()
    high: Points = ()
    within: float = math.nan
    unpredicted: str | None = None


def read_steps(steps: Sequence[Mapping[str, object]], method: Mapping[str, object]) -> Steps | None:
    """The series of a run's steps; None where its method ties no keyframes in."""
    # A damaged record may hold anything in a number's place.
    read = [
        {name: x for name, value in step.items() if (x := number(value)) is not None and math.isfinite(x)}
        for step in steps
    ]
    rows = [row for row in read if {"step", "sigma", "h", "r_k_norm_relative"} <= row.keys()]
    residual, error, gain = (
        [(row["step"], row[key]) for row in rows if key in row] for key in SERIES.values()
    )
    if not rows:
        return None
    if why := unpredicted(method):
        return Steps(residual, error, gain, unpredicted=why)
    # The law leads from each step to the next: a step that is missing ends it.
    first = rows[0]["step"]
    gaps = (k for k, row in enumerate(rows) if row["step"] != first + k or "alpha_h" not in row)
    rows = rows[: next(gaps, len(rows))]
    residuals, sigmas, h, gain_h, errors = (
        np.array([row.get(name, math.nan) for row in rows])
        for name in ("r_k_norm_relative", "sigma", "h", "alpha_h", "keyframe_error")
    )
    try:
        law = recursion(residuals, sigmas, h, gain_h, errors if np.isfinite(errors).all() else None)
    except InputError as damage:
        return Steps(residual, error, gain, unpredicted=str(damage))
    at = [row["step"] for row in rows]
    decay, low, high = (
        list(zip(at[len(at) - len(values) :], map(float, values), strict=True))
        for values in (law.decay, law.low, law.high)
    )
    return Steps(residual, error, gain, decay, low, high, law.within)


def convergence(records: Sequence[Record], names: Sequence[str]) -> dict[str, object] | None:
    """The figures of one run, or of several in one picture each; nothing where none has steps on record."""
    every = [read_steps(record.edit[1], record.edit[0]) for record in records]
    found = [(name, steps) for name, steps in zip(names, every, strict=True) if steps is not None]
    if not found:
        return None
    alone = found[0][1] if len(found) == 1 else None
    note = "The key difference d obeys d′ = (1 − αh)(ρ d + (1 − ρ) e), ρ = σ′/σ: docs/math_verification.md."
    if alone and alone.unpredicted:
        note = f"Nothing is predicted of this method: {alone.unpredicted}."
    charts = [_residual(found)]
    told = (
        "|x̂₀[K] − x_e| / |x_e|: how far the clip that the model is heading for is from the edited keyframes."
    )
    if lines := _lines("measured", [(name, steps.error) for name, steps in found]):
        charts.append(Chart("keyframe-error", "Keyframe error", told, lines))
    told = (
        "Share of the predicted difference that a step takes away. At 1 all of it; beyond 2 the step overshoots "
        "further than it was off."
    )
    if lines := _lines("applied", [(name, steps.gain) for name, steps in found]):
        levels = [(1.0, "exact"), (2.0, "limit of stability")]
        charts.append(Chart("gain", "Gain × step, αh", told, lines, levels=levels))
    return {"note": note, "charts": charts}


def reach(records: Sequence[Record], names: Sequence[str]) -> dict[str, object] | None:
    """How far the edits of one run, or of several, reached, as the runs have it on record; nothing where none has."""
    found, told = [], []
    for name, record in zip(names, records, strict=True):
        event = record.reached
        shares = [(float(t), number(share)) for t, share in enumerate(listing(event.get("shares")))]
        points = [(t, share) for t, share in shares if share is not None and math.isfinite(share)]
        if points:
            found.append((name, points))
            lines = [record.discreet.text(str(line)) for line in listing(event.get("told"))]
            told += [f"{name}: {line}" for line in lines] if len(records) > 1 else lines
    if not found:
        return None
    words = (
        "Share of the keyframes' edit that each frame carries, followed along the source's motion: 1 is all of it. A "
        "frame without a dot is one whose motion is lost."
    )
    levels = [(1.0, "all of the edit"), (LACKS, "below: lacking")]
    lines = _lines("carried", found)
    return {
        "note": "",
        "told": told,
        "charts": [Chart("reach-share", "Share of the edit", words, lines, levels=levels, axis="frame")],
    }


def _lines(word: str, found: Sequence[tuple[str, Points]]) -> list[Line]:
    """A line for each run that has the series, by its name; by a word for one run alone."""
    return [
        Line(name if len(found) > 1 else word, points, k % COLOURS)
        for k, (name, points) in enumerate(found)
        if points
    ]


def _residual(found: Sequence[tuple[str, Steps]]) -> Chart:
    several = len(found) > 1
    lines = _lines("measured", [(f"{name}, measured", steps.residual) for name, steps in found])
    word = "predicted contraction ∏ ρ|1 − αh|"
    faded = [(k, name, steps) for k, (name, steps) in enumerate(found) if len(steps.decay) > 1]
    for k, name, steps in faded:
        title, colour = (f"{name}, {word}", k % COLOURS) if several else (word, 1)
        lines.append(Line(title, steps.decay, colour, dashed=True))
    told = "Predicted key difference after the step, |r| = |d − h Δv|, relative to the keyframes' size."
    if faded:
        told += (
            " Dashed: how the first value alone would fade; what stays above it is driven in anew by the model's own "
            "error e at every step."
        )
    bands, steps = [], found[0][1]
    if not several and steps.low:
        bands.append(Band("what the recursion allows", steps.low, steps.high))
        told += f" {steps.within:.0%} of the steps lie in the shaded band that the recursion allows."
    return Chart("residual", "Residual at the keyframes", told, lines, bands, log=True)
