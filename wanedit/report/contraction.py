"""The steps of an edit as series to draw, with what `metrics.functional.convergence` says of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wanedit.errors import InputError
from wanedit.metrics.functional.convergence import recursion, unpredicted
from wanedit.runtime.events import number

Points = list[tuple[float, float]]
SERIES = {"residual": "r_k_norm_relative", "error": "keyframe_error", "gain": "alpha_h"}


@dataclass(frozen=True)
class Contraction:
    """Series of one edit over its steps, as (step, value); all residuals relative to the RMS of x_e.

    Attributes:
        residual, error, gain: |r|, |e| / |x_e| and the gain times the step, as logged.
        decay, low, high: as of `Recursion`; empty where nothing is predicted.
        within: share of the steps between low and high; NaN where none is predicted.
        unpredicted: why nothing is predicted; None where something is.
    """

    residual: Points
    error: Points
    gain: Points
    decay: Points
    low: Points
    high: Points
    within: float
    unpredicted: str | None


def contraction(steps: Sequence[Mapping[str, object]], method: Mapping[str, object]) -> Contraction | None:
    """The series of a run's steps; None where its method ties no keyframes in."""
    read = [{name: number(value) for name, value in step.items()} for step in steps]
    needed = ("step", "sigma", "h", "r_k_norm_relative")
    # A damaged record may hold anything in a number's place.
    rows = [row for row in read if all(_finite(row.get(name)) for name in needed)]
    series = {
        name: [(row["step"], row[key]) for row in rows if _finite(row.get(key))]
        for name, key in SERIES.items()
    }
    if not series["residual"]:
        return None
    why = unpredicted(method)
    predicted = None if why else _predicted(rows)
    return Contraction(*series.values(), *(predicted or ([], [], [], math.nan)), why)  # pyright: ignore


def _predicted(rows: Sequence[Mapping[str, float | None]]) -> tuple[Points, Points, Points, float] | None:
    """Of the steps up to the first that is missing: the law leads from each to the next."""
    first = rows[0]["step"] or 0.0
    whole = [k for k, row in enumerate(rows) if row["step"] != first + k or not _finite(row.get("alpha_h"))]
    rows = rows[: min(whole, default=len(rows))]
    residuals, sigmas, h, gain_h, errors = (
        np.array([row.get(name) for row in rows], np.float64)
        for name in ("r_k_norm_relative", "sigma", "h", "alpha_h", "keyframe_error")
    )
    if not rows:
        return None
    try:
        law = recursion(residuals, sigmas, h, gain_h, errors if np.isfinite(errors).all() else None)
    except InputError:  # a damaged record
        return None
    at = [float(first) + k for k in range(len(rows))]
    decay, low, high = (
        list(zip(at[len(at) - len(s) :], map(float, s), strict=True)) for s in (law.decay, law.low, law.high)
    )
    return decay, low, high, law.within


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
