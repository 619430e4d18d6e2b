"""How fast the residual of an edit falls, against the rate that its controller promises.

Under the residual and the exponential controller, with beta = 0 and an analytic edit branch, the difference d at the
key slots obeys (`math_verification/claims/recursion.py`), with r the logged residual, e the error of the clean estimate
and g the gain:

    r = rho d + (1 - rho) e,    d' = (1 - g h) r,    rho = 1 - h / sigma

so that `r' = rho' (1 - g h) r + (1 - rho') e'`. Without e the residual falls by the factor `rho' |1 - g h|` a step; e,
by which the model misses the keyframes, holds it up.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wanedit.errors import InputError

Series = Float[np.ndarray, " n"]
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Convergence:
    """The residual of an edit from step to step.

    Attributes:
        residuals: RMS of r at every step.
        factors: predicted factor of every step but the last, from one residual to the next.
        measured_rate: factor a step: exp of the slope of log r against the step, by least squares.
        predicted_rate: the same fit of the series that the factors make, as if e were 0.
        driven_rate: the same fit of the largest series that the recursion allows with the e that was logged.
        over_bound: the largest r' / (rho' |1 - g h| r + (1 - rho') |e'|): at most 1 where the recursion holds. This and
            `driven_rate` are NaN where e is not known.
    """

    residuals: Series
    factors: Float[np.ndarray, " n-1"]
    measured_rate: float
    predicted_rate: float
    driven_rate: float
    over_bound: float


def convergence(
    residuals: Series,
    sigmas: Float[np.ndarray, " n"],
    h: Float[np.ndarray, " n"],
    gain_h: Float[np.ndarray, " n"],
    errors: Float[np.ndarray, " n"] | None = None,
) -> Convergence:
    """Fit both rates over the steps that have one.

    The last step has rho = 0 and shows e alone; it, and steps of which a residual is 0, are left out of both fits.

    Args:
        residuals: RMS of r.
        sigmas, h: where each step begins and how long it is.
        gain_h: g h, as logged.
        errors: RMS of e in the unit of r.

    Raises:
        InputError: fewer than three steps, or a step that begins at no noise or goes beyond it.
    """
    if len(residuals) < 3:
        raise InputError(f"the run has {len(residuals)} steps; expected 3 or more")
    rho = 1 - h / sigmas
    if not ((sigmas > 0).all() and (rho > -1e-6).all() and np.isfinite(residuals).all()):
        raise InputError(
            "a step has sigma <= 0, h > sigma, or a residual that is not finite; expected a run's record"
        )
    rho = np.maximum(rho, 0.0)
    factors = rho[1:] * np.abs(1 - gain_h[:-1])
    kept = 1 + int(np.argmin([*(factors > TINY), False]))
    kept = min(kept, int(np.argmin([*(residuals > 0), False])))
    predicted = np.concatenate([[0.0], np.cumsum(np.log(factors[: max(kept - 1, 0)]))])
    driven, bound = np.nan, np.nan
    if errors is not None:
        forces = (1 - rho[1:]) * errors[1:]
        bound = float((residuals[1:] / np.maximum(factors * residuals[:-1] + forces, TINY)).max())
        driven = _rate(np.log(_driven(residuals[0], factors, forces)[:kept]))
    measured = np.log(residuals[:kept])
    return Convergence(residuals, factors, _rate(measured), _rate(predicted[:kept]), driven, bound)


def _driven(first: float, factors: Series, forces: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n+1"]:
    series = [first]
    for factor, force in zip(factors, forces, strict=True):
        series.append(factor * series[-1] + force)
    return np.maximum(np.array(series), TINY)


def _rate(logs: Series) -> float:
    """exp of the slope; NaN for fewer than two values."""
    return float(np.exp(np.polyfit(np.arange(len(logs)), logs, 1)[0])) if len(logs) > 1 else float("nan")
