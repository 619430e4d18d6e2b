"""The residual's rate against recursions that are run by hand, and against the project's own method."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from tests.flow.problems import Mixing, problem
from wanedit.errors import InputError
from wanedit.flow.keyframes import Controller, Covariance, Exponential, Replacement, Residual
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import Step
from wanedit.flow.path import schedule as levels
from wanedit.metrics.functional.convergence import convergence, recursion, unpredicted


def schedule(steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """sigma and h of the shifted schedule."""
    u = np.linspace(1, 0, steps + 1)
    levels = shift * u / (1 + (shift - 1) * u)
    return levels[:-1], -np.diff(levels)


def run(sigmas: np.ndarray, h: np.ndarray, gain_h: np.ndarray, d: np.ndarray, e: np.ndarray) -> np.ndarray:
    """RMS of r at every step, of vectors d and e, by the recursion of the docstring."""
    norms = []
    for sigma, step, gain in zip(sigmas, h, gain_h, strict=True):
        rho = (sigma - step) / sigma
        r = rho * d + (1 - rho) * e
        norms.append(np.sqrt(np.square(r).mean()))
        d = (1 - gain) * r
    return np.array(norms)


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("kind", ["residual", "exponential"])
def test_without_error_the_rate_is_the_predicted_one(kind: str, shift: float) -> None:
    sigmas, h = schedule(20, shift)
    gain_h = 10 * h if kind == "residual" else -np.expm1(-10 * h)
    d = np.random.default_rng(0).normal(size=50)
    residuals = run(sigmas, h, gain_h, d, np.zeros(50))
    found = convergence(residuals, sigmas, h, gain_h, np.zeros(20))
    np.testing.assert_allclose(residuals[1:-1] / residuals[:-2], found.law.factors[:-1], rtol=1e-9)
    assert found.measured_rate == pytest.approx(found.predicted_rate, rel=1e-9)
    assert found.driven_rate == pytest.approx(found.predicted_rate, rel=1e-9)
    assert found.law.over_bound == pytest.approx(1, abs=1e-6)


def test_a_constant_factor_is_the_rate() -> None:
    """h in proportion to sigma: rho is 0.8 and 1 - g h is 0.5 at every step."""
    sigmas = 0.8 ** np.arange(8)
    h, gain_h = 0.2 * sigmas, np.full(8, 0.5)
    found = convergence(3 * 0.4 ** np.arange(8.0), sigmas, h, gain_h)
    np.testing.assert_allclose(found.law.factors, 0.4)
    assert (found.measured_rate, found.predicted_rate) == (pytest.approx(0.4), pytest.approx(0.4))
    assert np.isnan(found.law.over_bound)
    assert np.isnan(found.driven_rate)


def test_an_error_holds_the_residual_up() -> None:
    """With e along d the bound is reached at every step; with e in any direction it is never passed."""
    sigmas, h = schedule(30, 3.0)
    gain_h, rng = -np.expm1(-10 * h), np.random.default_rng(1)
    d, e = rng.normal(size=40), rng.normal(size=40)
    size = np.full(30, np.sqrt(np.square(e).mean()))
    along = convergence(run(sigmas, h, gain_h, 0.2 * e, e), sigmas, h, gain_h, size)
    assert along.law.over_bound == pytest.approx(1)
    assert along.measured_rate == pytest.approx(along.driven_rate)
    assert along.measured_rate > 1 > along.predicted_rate
    across = convergence(run(sigmas, h, gain_h, d, e), sigmas, h, gain_h, size)
    assert across.law.over_bound <= 1 + 1e-9


def test_what_the_recursion_does_not_allow_is_seen() -> None:
    sigmas, h = schedule(10, 1.0)
    found = convergence(np.full(10, 0.5), sigmas, h, 5 * h, np.full(10, 0.01))
    assert found.law.over_bound > 1.2


def test_a_residual_of_zero_ends_the_fit() -> None:
    sigmas = 0.8 ** np.arange(6)
    residuals = np.array([1, 0.4, 0.16, 0.0, 0.0, 0.0])
    found = convergence(residuals, sigmas, 0.2 * sigmas, np.full(6, 0.5))
    assert found.measured_rate == pytest.approx(0.4)
    # An analytic start at the keyframes themselves: there is nothing to fit.
    assert np.isnan(convergence(np.zeros(6), sigmas, 0.2 * sigmas, np.full(6, 0.5)).measured_rate)


def test_records_that_are_none() -> None:
    two = np.array([1.0, 0.5])
    with pytest.raises(InputError, match="has 2 steps; expected 3 or more"):
        convergence(two, two, two / 2, two)
    three = np.array([1.0, 0.6, 0.3])
    with pytest.raises(InputError, match="expected a run's record"):
        convergence(three, three, 2 * three, three)
    with pytest.raises(InputError, match="expected a run's record"):
        convergence(three * np.nan, three, three / 2, three)


def logged(controller: Controller, **options: object) -> tuple[dict, list[dict]]:
    """The settings of a method as a run records them, and what it logs of its steps on a toy."""
    method = ResidualCorrectedFlow(controller, **options)  # pyright: ignore[reportArgumentType]
    steps = []

    def observe(step: Step, values: dict) -> None:
        steps.append({"sigma": step.sigma, "h": step.h, **values})

    method(Mixing(), problem(), levels(20, 3.0), observe)
    kind = {"kind": type(controller).__name__, **asdict(controller)}  # pyright: ignore[reportArgumentType]
    return {"controller": kind, "edit_branch": method.edit_branch, "renew_noise": method.renew_noise}, steps


@pytest.mark.parametrize(
    ("controller", "options"),
    [
        (Residual(6.0), {}),
        (Residual(6.0), {"renew_noise": True}),
        (Exponential(), {"strength": 0.7, "renew_noise": True}),
        (Exponential(), {"source_weight": 0.5}),
        (Residual(6.0, 1.0), {}),
        (Exponential(6.0, 1.0), {}),
        (Residual(6.0), {"edit_branch": "denoised"}),
    ],
    ids=repr,
)
def test_a_prediction_exists_exactly_where_the_method_obeys_it(controller: Controller, options: dict) -> None:
    method, steps = logged(controller, **options)
    names = ("r_k_norm_relative", "sigma", "h", "alpha_h", "keyframe_error")
    law = recursion(*(np.array([float(step[name]) for step in steps]) for name in names))
    obeyed = law.within == 1 and law.over_bound < 1 + 1e-6
    assert obeyed == (unpredicted(method) is None)


def test_why_nothing_is_predicted() -> None:
    method = {"controller": {"kind": "Residual", "alpha": 5.0, "beta": 0.0}, "edit_branch": "analytic"}
    assert unpredicted(method) is None
    beta = {"controller": {"kind": "Residual", "alpha": 5.0, "beta": 1.0}}
    assert "beta draws the edit branch off" in (unpredicted(method | beta) or "")
    assert "not the straight path" in (unpredicted(method | {"edit_branch": "denoised"}) or "")
    assert "outside the package" in (unpredicted(method | {"code": "of a file"}) or "")
    for controller in ({"kind": "Covariance"}, None, 7):
        assert "does not add a multiple" in (unpredicted(method | {"controller": controller}) or "")
    for other in (Replacement(), Covariance()):
        assert "does not add a multiple" in (unpredicted(logged(other)[0]) or "")


def test_two_steps_are_enough_for_a_band_and_one_for_none() -> None:
    sigmas, h = schedule(2, 3.0)
    found = recursion(np.array([1.0, 0.3]), sigmas, h, 0.5 * h, np.array([0.1, 0.2]))
    assert len(found.low) == len(found.high) == 1
    assert found.decay[1] == 0  # the last step ends without noise
    one = recursion(np.array([1.0]), sigmas[:1], h[:1], h[:1], np.array([0.1]))
    assert (len(one.low), list(one.decay)) == (0, [1.0])
    assert math.isnan(one.within)
