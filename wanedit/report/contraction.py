"""How an edit came to its keyframes, and what the theory says of it.

With the analytic edit branch and Euler's step the predicted difference r = d - h v_diff obeys, at the key slots,

    r_{i+1} = rho_{i+1} (1 - a_i h_i) r_i + (1 - rho_{i+1}) e_{i+1},    rho = sigma' / sigma,

where a h is the controller's gain times the step and e = x0_hat[K] - x_e (math_verification, claim `recursion`).
Of norms it follows that r_{i+1} lies within | p - q | and p + q, p = rho |1 - a h| r_i, q = (1 - rho) |e_{i+1}|.
Without the drive by e the first value would fall as the product of rho |1 - a h|.
"""

import math
from dataclasses import dataclass
from typing import Any

Steps = list[dict[str, Any]]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Contraction:
    """Series of one edit over its steps, as (step, value); all residuals relative to the RMS of x_e.

    Attributes:
        residual: |r| as measured.
        decay: |r| of the first step times the product of rho |1 - a h|; empty where the theory is of another method.
        low, high: between which the recursion puts each |r|, given the one before and e.
        error: |e| / |x_e|.
        gain: a h, beyond which 2 is an overshoot larger than what it corrects.
        share: of the steps whose |r| lies within low and high; NaN where none is predicted.
    """

    residual: Points
    decay: Points
    low: Points
    high: Points
    error: Points
    gain: Points
    share: float


def contraction(steps: Steps, method: dict[str, Any]) -> Contraction | None:
    """The series of a run's steps; None where the method ties no keyframes in."""
    steps = [step for step in steps if all(_number(step.get(name)) is not None for name in NEEDED)]
    # No step starts without noise, and a damaged record must not divide by it.
    steps = [step for step in steps if step["sigma"] > 0]
    if not steps:
        return None
    series = {
        name: [(float(s["step"]), float(s[key])) for s in steps if _number(s.get(key)) is not None]
        for name, key in SERIES.items()
    }
    decay, low, high = _predicted(steps, method) if applies(method) else ([], [], [])
    measured = dict(series["residual"])
    slack = 1e-3
    inside = [
        below * (1 - slack) <= measured[at] <= above * (1 + slack)
        for (at, below), (_, above) in zip(low, high, strict=True)
    ]
    share = sum(inside) / len(inside) if inside else math.nan
    return Contraction(series["residual"], decay, low, high, series["error"], series["gain"], share)


NEEDED = ("step", "sigma", "h", "r_k_norm_relative")
SERIES = {"residual": "r_k_norm_relative", "error": "keyframe_error", "gain": "alpha_h"}


def applies(method: dict[str, Any]) -> bool:
    """Whether the recursion is that of this method: see the top of this file."""
    controller = method.get("controller")
    kind = controller.get("kind") if isinstance(controller, dict) else None
    analytic = method.get("edit_branch") == "analytic" and not method.get("renew_noise")
    return analytic and kind in ("Residual", "Exponential")


def _predicted(steps: Steps, method: dict[str, Any]) -> tuple[Points, Points, Points]:
    alpha, beta = (_number(method["controller"].get(name)) or 0.0 for name in ("alpha", "beta"))
    # What is logged is the gain of the main branch; beta draws the other branch towards it.
    both = (alpha + beta) / alpha if alpha else 1.0
    first = steps[0]
    decay = [(float(first["step"]), float(first["r_k_norm_relative"]))]
    low, high = [], []
    for before, step in zip(steps, steps[1:], strict=False):
        if _number(before.get("alpha_h")) is None or step["step"] != before["step"] + 1:
            return decay, low, high
        rho = max(0.0, 1 - step["h"] / step["sigma"])
        rho = 0.0 if rho < 1e-6 else rho
        factor = rho * abs(1 - both * before["alpha_h"])
        at = float(step["step"])
        decay.append((at, decay[-1][1] * factor))
        carried, driven = factor * before["r_k_norm_relative"], _drive(step, rho)
        if driven is not None:
            low.append((at, abs(carried - driven)))
            high.append((at, carried + driven))
    return decay, low, high


def _drive(step: dict[str, Any], rho: float) -> float | None:
    error = _number(step.get("keyframe_error"))
    return None if error is None else (1 - rho) * error


def _number(value: Any) -> float | None:
    """A finite number; metrics.jsonl spells others as text."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None
