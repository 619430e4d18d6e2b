"""The residual's rate against recursions that are run by hand."""

import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.metrics.functional.convergence import convergence


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
    np.testing.assert_allclose(residuals[1:-1] / residuals[:-2], found.factors[:-1], rtol=1e-9)
    assert found.measured_rate == pytest.approx(found.predicted_rate, rel=1e-9)
    assert found.driven_rate == pytest.approx(found.predicted_rate, rel=1e-9)
    assert found.over_bound == pytest.approx(1, abs=1e-6)


def test_a_constant_factor_is_the_rate() -> None:
    """h in proportion to sigma: rho is 0.8 and 1 - g h is 0.5 at every step."""
    sigmas = 0.8 ** np.arange(8)
    h, gain_h = 0.2 * sigmas, np.full(8, 0.5)
    found = convergence(3 * 0.4 ** np.arange(8.0), sigmas, h, gain_h)
    np.testing.assert_allclose(found.factors, 0.4)
    assert (found.measured_rate, found.predicted_rate) == (pytest.approx(0.4), pytest.approx(0.4))
    assert np.isnan(found.over_bound)
    assert np.isnan(found.driven_rate)


def test_an_error_holds_the_residual_up() -> None:
    """With e along d the bound is reached at every step; with e in any direction it is never passed."""
    sigmas, h = schedule(30, 3.0)
    gain_h, rng = -np.expm1(-10 * h), np.random.default_rng(1)
    d, e = rng.normal(size=40), rng.normal(size=40)
    size = np.full(30, np.sqrt(np.square(e).mean()))
    along = convergence(run(sigmas, h, gain_h, 0.2 * e, e), sigmas, h, gain_h, size)
    assert along.over_bound == pytest.approx(1)
    assert along.measured_rate == pytest.approx(along.driven_rate)
    assert along.measured_rate > 1 > along.predicted_rate
    across = convergence(run(sigmas, h, gain_h, d, e), sigmas, h, gain_h, size)
    assert across.over_bound <= 1 + 1e-9


def test_what_the_recursion_does_not_allow_is_seen() -> None:
    sigmas, h = schedule(10, 1.0)
    found = convergence(np.full(10, 0.5), sigmas, h, 5 * h, np.full(10, 0.01))
    assert found.over_bound > 1.2


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
