"""How the residual of an edit falls, against what its controller promises: the one place that knows the law.

With the analytic edit branch, which stays on its straight path to x_e, and a controller that adds g r to v[K] alone,
the difference d at the key slots obeys (`math_verification/claims/recursion.py`), with r the logged residual and e the
error of the clean estimate:

    r = rho d + (1 - rho) e,    d' = (1 - g h) r,    rho = 1 - h / sigma

so that `r' = rho' (1 - g h) r + (1 - rho') e'`. Without e the residual falls by the factor `rho' |1 - g h|` a step; e,
by which the model misses the keyframes, holds it up. Of norms it follows that r' lies between |p - q| and p + q, with
p = rho' |1 - g h| r and q = (1 - rho') |e'|. Noise that is renewed at every step moves both branches alike and leaves
d, and so the law, as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wanedit.errors import InputError

Series = Float[np.ndarray, " n"]
TINY = 1e-12
# Rounding of sigma, which a record has in single precision: below it the last step's rho counts as 0.
ROUNDING = 1e-6
# A share of r by which single precision may put it beside its bounds.
SLACK = 1e-3
# Controllers that add g r to v[K], by the name under which a run records them.
SCALAR_GAIN = ("Residual", "Exponential")


def unpredicted(method: Mapping[str, object]) -> str | None:
    """Why the recursion is not that of a method, of its settings as a run records them; None where it is."""
    controller = method.get("controller")
    settings = controller if isinstance(controller, Mapping) else {}
    if settings.get("kind") not in SCALAR_GAIN:
        return "its controller does not add a multiple of the residual to the velocity of the key slots alone"
    if "code" in method or "code" in settings:
        return "it comes from outside the package, and no law of it is known"
    if method.get("edit_branch") != "analytic":
        return "its edit branch is not the straight path to the keyframes"
    if settings.get("beta", 0) != 0:
        return "beta draws the edit branch off its straight path, and then the error does not close the recursion"
    return None


@dataclass(frozen=True, eq=False)
class Recursion:
    """What the law says of an edit's residuals, whose unit all series have.

    Attributes:
        decay: the first residual times the product of the factors.
        factors: of every step but the last, from one residual to the next if e were 0.
        driven: the largest series that the law allows from the first residual on, with the e that was logged.
        low, high: between which the law puts every residual but the first, given the one before and e.
        within: share of them that lie there.
        over_bound: the largest ratio of a residual to `high`: at most 1 where the law holds.

    `driven`, `low` and `high` are empty, `within` and `over_bound` NaN, where e is not known or there is one step.
    """

    decay: Series
    factors: Float[np.ndarray, " n-1"]
    driven: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]
    within: float
    over_bound: float


def recursion(
    residuals: Series,
    sigmas: Float[np.ndarray, " n"],
    h: Float[np.ndarray, " n"],
    gain_h: Float[np.ndarray, " n"],
    errors: Float[np.ndarray, " n"] | None = None,
) -> Recursion:
    """The law along one edit.

    Args:
        residuals: RMS of r.
        sigmas, h: where each step begins and how long it is.
        gain_h: g h, as logged.
        errors: RMS of e in the unit of r.

    Raises:
        InputError: no step, one that begins at no noise or goes beyond it, or a residual that is not finite.
    """
    if len(residuals) == 0:
        raise InputError("the run has no step with all of its numbers; expected 1 or more")
    if not ((sigmas > 0).all() and (h <= sigmas * (1 + ROUNDING)).all() and np.isfinite(residuals).all()):
        raise InputError(
            "a step has sigma <= 0, h > sigma, or a residual that is not finite; expected a run's record"
        )
    rho = 1 - h / sigmas
    rho = np.where(rho < ROUNDING, 0.0, rho)[1:]
    factors = rho * np.abs(1 - gain_h[:-1])
    decay = residuals[0] * np.cumprod([1.0, *factors])
    if errors is None or len(residuals) < 2:
        none = np.zeros(0)
        return Recursion(decay, factors, none, none, none, np.nan, np.nan)
    carried, forces = factors * residuals[:-1], (1 - rho) * errors[1:]
    driven = [residuals[0]]
    for factor, force in zip(factors, forces, strict=True):
        driven.append(factor * driven[-1] + force)
    low, high, later = np.abs(carried - forces), carried + forces, residuals[1:]
    within = float(((low * (1 - SLACK) <= later) & (later <= high * (1 + SLACK))).mean())
    over_bound = float((later / np.maximum(high, TINY)).max())
    return Recursion(decay, factors, np.array(driven), low, high, within, over_bound)


@dataclass(frozen=True, eq=False)
class Convergence:
    """The residual of an edit from step to step, as factors a step: exp of the slope of its logarithm by least squares.

    Attributes:
        law: what the recursion says of the series.
        measured_rate: of the residuals.
        predicted_rate: of `law.decay`, as if e were 0.
        driven_rate: of `law.driven`; NaN where e is not known.
    """

    law: Recursion
    measured_rate: float
    predicted_rate: float
    driven_rate: float


def convergence(
    residuals: Series,
    sigmas: Float[np.ndarray, " n"],
    h: Float[np.ndarray, " n"],
    gain_h: Float[np.ndarray, " n"],
    errors: Float[np.ndarray, " n"] | None = None,
) -> Convergence:
    """Fit the rates over the steps that have one. Arguments as `recursion`.

    The last step has rho = 0 and shows e alone; it, and steps from the first residual of 0 on, are in no fit.

    Raises:
        InputError: fewer than three steps, or a record that is none.
    """
    if len(residuals) < 3:
        raise InputError(f"the run has {len(residuals)} steps; expected 3 or more")
    law = recursion(residuals, sigmas, h, gain_h, errors)
    ends = [*np.flatnonzero(law.factors <= TINY)[:1] + 1, *np.flatnonzero(residuals <= 0)[:1]]
    kept = int(min([len(residuals), *ends]))
    predicted = np.concatenate([[0.0], np.cumsum(np.log(law.factors[: max(kept - 1, 0)]))])[:kept]
    return Convergence(
        law,
        _rate(np.log(residuals[:kept])),
        _rate(predicted),
        _rate(np.log(np.maximum(law.driven, TINY)[:kept])),
    )


def _rate(logs: Float[np.ndarray, " n"]) -> float:
    """exp of the slope; NaN for fewer than two values."""
    return float(np.exp(np.polyfit(np.arange(len(logs)), logs, 1)[0])) if len(logs) > 1 else float("nan")
