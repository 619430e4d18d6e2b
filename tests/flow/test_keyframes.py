"""Controllers: what each does to the difference of the branches, and when it is stable."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.flow.problems import SHAPE, SLOTS, across, draw, gaussian, largest, refuses, smooth, variance
from wanedit.flow.covariance import covariance_product
from wanedit.flow.editing import View, at_slots, into_slots, rms
from wanedit.flow.keyframes import (
    CONTROLLERS,
    Branches,
    Correction,
    Covariance,
    Exponential,
    Replacement,
    Residual,
    largest_stable_alpha,
    step_metrics,
    steps_for,
)
from wanedit.flow.path import Step, clean_estimate, interpolate, schedule

K = (1, 4)
ALPHAS = [
    Residual(3.0),
    Exponential(3.0),
    Residual(3.0, 2.0),
    Exponential(3.0, 2.0),
    Replacement(),
    Covariance(),
]


def no_product(w: Tensor) -> Tensor:
    raise AssertionError("this controller has no use for the covariance")


def state(sigma: float, sigma_next: float, slots: tuple[int, ...] = K, seed: int = 0) -> Branches:
    """Branches in general position, the edit branch on its straight path."""
    x_e, eps_e = draw(2, 3, len(slots), 2, 2, seed=seed + 1), draw(2, 3, len(slots), 2, 2, seed=seed + 2)
    z, step = draw(*SHAPE, seed=seed), Step(0, sigma, sigma_next, 1000 * sigma)
    velocity = gaussian().velocity(View("a cat"), SLOTS)
    v = velocity(z, step)
    product = covariance_product(velocity, z, v, step, "forward")
    return Branches(step, z, v, interpolate(x_e, eps_e, sigma), eps_e - x_e, x_e, slots, product)


def difference_after(state: Branches, correction: Correction) -> Tensor:
    """z[K] - z_e one Euler step on."""
    h = state.step.h
    z = state.z - h * (state.v + correction.main)
    z_e = state.z_e - h * (state.v_e + (0 if correction.edit is None else correction.edit))
    return at_slots(z, state.slots) - z_e


levels = st.tuples(st.floats(0.01, 1), st.floats(0, 0.99)).map(lambda p: (p[0], p[0] * p[1]))


@given(levels, st.floats(0, 30), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_recursion_of_the_residual_controller(
    sigmas: tuple[float, float], alpha: float, seed: int
) -> None:
    """d' = (1 - alpha h) (rho d + (1 - rho) e), rho = sigma' / sigma.

    On the straight edit branch v_e = (z_e - x_e) / sigma, and v[K] = (z[K] - x0_hat[K]) / sigma, so
    v_diff = (d - e) / sigma and r = d - h v_diff = rho d + (1 - rho) e, of which the controller takes alpha h away.
    """
    s = state(*sigmas, seed=seed)
    s = replace(s, product=no_product)
    d, rho, h = s.z_diff, sigmas[1] / sigmas[0], s.step.h
    # z and v as the model gives them; e from its definition, not from the class under test.
    e = at_slots(clean_estimate(s.z, s.v, sigmas[0]), K) - s.x_e
    expected = (1 - alpha * h) * (rho * d + (1 - rho) * e)
    assert largest(difference_after(s, Residual(alpha, switch=False)(s)) - expected) < 1e-10
    expected = math.exp(-alpha * h) * (rho * d + (1 - rho) * e)
    assert largest(difference_after(s, Exponential(alpha)(s)) - expected) < 1e-10


@given(levels, st.floats(0, 20), st.floats(0, 20))
@settings(max_examples=40, deadline=None)
def test_beta_shares_the_work(sigmas: tuple[float, float], alpha: float, beta: float) -> None:
    s = state(*sigmas)
    h = s.step.h
    residual, exponential = Residual(alpha, beta, switch=False)(s), Exponential(alpha, beta)(s)
    assert largest(difference_after(s, residual) - (1 - (alpha + beta) * h) * s.residual) < 1e-10
    assert largest(difference_after(s, exponential) - math.exp(-(alpha + beta) * h) * s.residual) < 1e-10
    for made in (residual, exponential):
        drawn = torch.zeros(()) if made.edit is None else made.edit
        # The branches move in the proportion alpha : beta, towards each other.
        assert largest(alpha * drawn + beta * at_slots(made.main, K)) < 1e-9


def test_the_exponential_is_the_limit_of_many_small_residual_steps() -> None:
    """Frozen velocities, h cut into n: (1 - alpha h / n)^n -> exp(-alpha h), at first order."""
    alpha, h = 7.0, 0.3

    def error(n: int) -> float:
        return abs((1 - alpha * h / n) ** n - math.exp(-alpha * h))

    assert error(4000) < 1e-3
    assert error(2000) / error(4000) == pytest.approx(2, rel=0.01)
    s = state(0.8, 0.8 - h)
    s = replace(s, product=no_product)
    shrunk = difference_after(s, Exponential(alpha)(s)) / s.residual
    assert largest(shrunk - (1 - alpha * h / 1e6) ** 1e6) < 1e-5


@pytest.mark.parametrize("alpha", [1e-9, 1.0, 40.0, 1e4])
def test_the_exponential_never_overshoots(alpha: float) -> None:
    s = state(0.9, 0.0)
    shrunk = difference_after(s, Exponential(alpha)(s)).norm() / s.residual.norm()
    assert 0 <= float(shrunk) <= 1


def test_replacement_is_the_residual_controller_at_the_horizon() -> None:
    """alpha h = 1 with h all of sigma."""
    s = state(0.6, 0.0)
    assert largest(Residual(1 / 0.6)(s).main - Replacement()(s).main) < 1e-12


def test_replacement_sets_the_clean_estimate() -> None:
    s = state(0.6, 0.5)
    v = s.v + Replacement()(s).main
    assert largest(at_slots(clean_estimate(s.z, v, 0.6), K) - s.x_e) < 1e-12


def test_replacement_keeps_branches_together_that_began_together() -> None:
    """d' = rho d: from 0 it stays 0."""
    s = state(0.6, 0.2)
    assert largest(difference_after(s, Replacement()(s)) - s.z_diff / 3) < 1e-12


@pytest.mark.parametrize("controller", ALPHAS, ids=repr)
def test_only_covariance_moves_other_slots(controller) -> None:
    s = state(0.6, 0.5)
    main = controller(s).main
    others = [slot for slot in range(SLOTS) if slot not in K]
    moved = largest(main[:, :, others])
    assert moved > 1e-3 if isinstance(controller, Covariance) else moved == 0
    assert largest(at_slots(main, K)) > 1e-3


@pytest.mark.parametrize("controller", [*ALPHAS, Covariance("scalar")], ids=repr)
def test_branches_that_agree_are_left_alone(controller) -> None:
    s = state(0.6, 0.5)
    x_e = at_slots(clean_estimate(s.z, s.v, 0.6), K)
    z_e = at_slots(s.z, K)
    agreed = replace(s, x_e=x_e, z_e=z_e, v_e=(z_e - x_e) / 0.6)
    assert largest(controller(agreed).main) < 1e-12


def conditional_mean(s: Branches, sigma: float, tau: float) -> Tensor:
    """E[x_0 | z, x_e = x_0[K] + tau noise] for Gaussian data, written with matrices alone."""
    clean = clean_estimate(s.z, s.v, sigma)
    c = smooth()
    posterior = c - (1 - sigma) ** 2 * c @ torch.linalg.inv(variance(sigma)) @ c
    k = list(s.slots)
    inside = posterior[k][:, k] + tau**2 * torch.eye(len(k), dtype=torch.float64)
    return clean + across(posterior[:, k] @ torch.linalg.inv(inside), s.x_e - clean[:, :, k])


@pytest.mark.parametrize("tau", [0.0, 0.5])
@pytest.mark.parametrize("sigma", [0.95, 0.5, 0.1])
def test_full_covariance_control_gives_the_conditional_mean(sigma: float, tau: float) -> None:
    s = state(sigma, sigma / 2, (0, 1, 4))
    made = Covariance("full", tau, tolerance=1e-12, iterations=20)(s)
    clean = clean_estimate(s.z, s.v + made.main, sigma)
    assert largest(clean - conditional_mean(s, sigma, tau)) < 1e-9


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_scalar_covariance_control_is_exact_for_one_slot(tau: float) -> None:
    """There C[K, K] is a number times the identity."""
    s = state(0.5, 0.4, (2,))
    clean = clean_estimate(s.z, s.v + Covariance("scalar", tau)(s).main, 0.5)
    assert largest(clean - conditional_mean(s, 0.5, tau)) < 1e-11


def test_scalar_covariance_control_is_not_exact_for_two() -> None:
    """So that the test above can tell the two apart."""
    s = state(0.5, 0.4)
    clean = clean_estimate(s.z, s.v + Covariance("scalar")(s).main, 0.5)
    assert largest(clean - conditional_mean(s, 0.5, 0.0)) > 1e-2


@pytest.mark.parametrize("solve", ["scalar", "full"])
def test_covariance_control_waits_until_below(solve) -> None:
    s = replace(state(0.9, 0.8), product=no_product)
    made = Covariance(solve, below=0.8)(s)
    assert made.main.shape == s.v.shape
    assert (largest(made.main), made.gain, made.edit) == (0, 0, None)


def test_a_covariance_without_power_along_the_error_moves_nothing() -> None:
    for product in (lambda w: -w, lambda w: 0 * w):
        assert largest(Covariance("scalar")(replace(state(0.5, 0.4), product=product)).main) == 0
    assert largest(Covariance("full")(replace(state(0.5, 0.4), product=lambda w: 0 * w)).main) == 0


def test_the_full_solve_needs_no_sign() -> None:
    """With -I in the place of C the keyframes are met still."""
    s = replace(state(0.5, 0.4), product=lambda w: -w)
    clean = clean_estimate(s.z, s.v + Covariance("full")(s).main, 0.5)
    assert largest(at_slots(clean, s.slots) - s.x_e) < 1e-12


def test_a_clip_of_a_batch_is_controlled_as_if_alone() -> None:
    for controller in ALPHAS:
        s = state(0.5, 0.4)
        velocity = gaussian().velocity(View("a cat"), SLOTS)
        one = slice(1, 2)
        cut = {name: getattr(s, name)[one] for name in ("z", "v", "z_e", "v_e", "x_e")}
        alone = replace(s, **cut, product=covariance_product(velocity, cut["z"], cut["v"], s.step, "forward"))
        assert largest(controller(alone).main - controller(s).main[one]) < 1e-12


def test_metrics() -> None:
    s = state(0.5, 0.4)
    made = Residual(6.0)(s)
    found = step_metrics(s, made, 2.0)
    assert found["r_k_norm"] == pytest.approx(rms(s.z_diff - 0.1 * s.v_diff))
    assert found["v_diff_norm"] == pytest.approx(rms(s.v_diff))
    assert found["delta_v_norm"] == pytest.approx(rms(into_slots(6.0 * s.residual, K, SLOTS)))
    for name in ("r_k_norm", "v_diff_norm", "delta_v_norm"):
        assert found[f"{name}_relative"] == pytest.approx(found[name] / 2)
    assert found["gain"] == 6
    assert found["alpha_h"] == pytest.approx(0.6)
    off = at_slots(s.z - 0.5 * s.v, K) - s.x_e
    assert found["keyframe_error"] == pytest.approx(rms(off) / 2)
    assert all(math.isfinite(value) for value in step_metrics(s, made, 0.0).values())


@pytest.mark.parametrize(
    ("made", "fields", "said"),
    [
        (Residual(), {"alpha": -1.0}, "alpha is -1 and beta 0; expected numbers >= 0"),
        (Residual(), {"beta": -2.0}, "beta -2"),
        (Exponential(), {"alpha": math.nan}, "alpha is nan"),
        (Exponential(), {"beta": math.inf}, "beta inf"),
        (Covariance(), {"solve": "half"}, "solve is 'half'; expected 'scalar' or 'full'"),
        (Covariance(), {"tau": -0.1}, r"tau is -0\.1"),
        (Covariance(), {"tau": math.nan}, "tau is nan"),
        (Covariance(), {"tolerance": 1.0}, "tolerance 1"),
        (Covariance(), {"iterations": 0}, "iterations 0"),
        (Covariance(), {"below": 1.0}, "below 1;"),
    ],
)
def test_bad_settings_are_refused(made, fields: dict, said: str) -> None:
    refuses(made, said, **fields)


def test_the_residual_controller_switches_where_it_would_overshoot() -> None:
    """At each step it is one of the two, whole: the seed method where alpha h < 2, else the exponential one."""
    levels = schedule(20, 5.0)
    made = Residual(10.0)
    assert made.switched(levels) == (19,)
    assert Residual(10.0, switch=False).switched(levels) == ()
    for step in levels:
        s = replace(state(0.6, 0.5), step=step)
        other = Exponential(10.0) if step.index == 19 else Residual(10.0, switch=False)
        assert largest(made(s).main - other(s).main) == 0
        assert made(s).gain == other(s).gain


def test_doubts_are_about_the_levels_that_are_visited() -> None:
    """By hand: of 1, .9, .6, .2 the largest h is .4, so alpha 5 is the bound, however many steps there are."""
    (note,) = Residual(10.0).doubts(schedule(4, 5.0, noise_levels=(1.0, 0.9, 0.6, 0.2)))
    assert "steps 1, 2, 3 of 4 are made by the controller exponential" in note or "steps 1, 2 of 4" in note
    assert "The largest stable alpha for these noise levels is 5;" in note
    assert Residual(4.9).doubts(schedule(4, 5.0, noise_levels=(1.0, 0.9, 0.6, 0.2))) == []
    (even,) = Residual(10.0).doubts(schedule(4, 5.0))
    assert "for 4 steps at shift 5 is 3.2; 22 steps would do" in even


def test_every_controller_has_a_name() -> None:
    assert {type(made) for made in ALPHAS} == set(CONTROLLERS.values())


# By hand: the last h of shift s and n steps is the last sigma, s / (n - 1 + s): 5 / 24 and 16 / 65.
@pytest.mark.parametrize(("shift", "steps", "last"), [(5.0, 20, 5 / 24), (16.0, 50, 16 / 65)])
def test_ten_diverges_at_the_official_schedules(shift: float, steps: int, last: float) -> None:
    plan = schedule(steps, shift)
    assert 10 * last > 2
    assert largest_stable_alpha(plan) == pytest.approx(2 / last, rel=1e-6)
    # 10 s / (n - 1 + s) < 2 needs n > 1 + 4 s.
    enough = steps_for(10.0, shift)
    assert enough is not None
    assert enough == math.floor(1 + 4 * shift) + 1
    assert (
        largest_stable_alpha(schedule(enough, shift))
        > 10
        >= largest_stable_alpha(schedule(enough - 1, shift))
    )
    assert steps_for(10.0, shift, most=20) is None


@given(levels, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_logged_norms_hold_the_miss_weighted_by_the_noise(sigmas: tuple[float, float], seed: int) -> None:
    """v_diff = (z_diff - e) / sigma and r = (1 - h / sigma) z_diff + (h / sigma) e, whatever the model."""
    s = state(*sigmas, seed=seed)
    share = s.step.h / s.step.sigma
    assert torch.allclose(s.step.sigma * s.v_diff, s.z_diff - s.error, atol=1e-4)
    assert torch.allclose(s.residual, (1 - share) * s.z_diff + share * s.error, atol=1e-4)


def test_the_last_residual_is_the_miss_itself() -> None:
    s = state(0.1, 0.0)
    assert torch.allclose(s.residual, s.error, atol=1e-5)


@pytest.mark.parametrize("both_by_the_model", [True, False])
def test_norms_that_fall_do_not_say_that_the_keyframe_was_met(both_by_the_model: bool) -> None:
    """One number, data N(0, 1) known exactly. Where both branches are the model's, they meet beside the keyframe."""
    x_e, eps, norms, misses = 1.3, -0.7, [], []
    levels = schedule(30, 3.0).after(0.9)
    z, z_e = (interpolate(torch.tensor(x), torch.tensor(eps), levels.sigmas[0]) for x in (0.3, x_e))

    def velocity(z: Tensor, sigma: float) -> Tensor:
        return (z - (1 - sigma) * z / ((1 - sigma) ** 2 + sigma**2)) / sigma

    for step in levels:
        v, h = velocity(z, step.sigma), step.h
        v_e = velocity(z_e, step.sigma) if both_by_the_model else torch.tensor(eps - x_e)
        r = z - z_e - h * (v - v_e)
        norms.append(abs(float(r)))
        misses.append(abs(float(clean_estimate(z, v, step.sigma) - x_e)))
        z, z_e = z - h * (v + 10 * r), z_e - h * v_e
    if both_by_the_model:
        assert norms[-1] < 1e-3 * norms[0]
        assert misses[-1] > 0.5 * misses[0]
    else:
        assert misses[-1] < 0.1 * misses[0]
        assert max(norms) > norms[0]
