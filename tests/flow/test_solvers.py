"""Solvers against a flow with a known solution: order of convergence, evaluations, failures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.flow import gaussian
from wanedit.errors import InputError, NumericalError
from wanedit.flow.path import Schedule, Step, rcm_levels, schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.rng import noise

NAMES = sorted(SOLVERS)
ODE = sorted({*SOLVERS} - {"renoise"})
START = torch.linspace(-2, 2, 9, dtype=torch.float64)


def _levels(steps: int, first: float, last: float) -> Schedule:
    sigmas = np.linspace(first, last, steps + 1)
    return Schedule(tuple(map(float, sigmas)), tuple(float(1000 * s) for s in sigmas[:-1]))


def _error(solver: str, plan: Schedule) -> float:
    end = SOLVERS[solver](gaussian.velocity, START, plan)
    return float((end - gaussian.solution(START, plan.sigmas[0], plan.sigmas[-1])).abs().max())


def _order(solver: str, coarse: Schedule, fine: Schedule) -> float:
    """log2 of how much the error falls when the steps are halved."""
    return math.log2(_error(solver, coarse) / _error(solver, fine))


def test_the_closed_form_solves_its_equation() -> None:
    h = 1e-5
    for sigma in (0.9, 0.5, 0.1):
        x = gaussian.solution(START, 1.0, sigma)
        ahead, behind = (gaussian.solution(x, sigma, sigma + d) for d in (h, -h))
        expected = gaussian.velocity(x, Step(0, sigma, 0.0, 0.0))
        assert torch.allclose((ahead - behind) / (2 * h), expected, atol=1e-8)


# Levels that stop short of 0 and 1: there lambda = log((1 - sigma) / sigma) is smooth and the multistep formulas
# show their own order. UniPC-2 corrects every step but the last, which gains one order over its predictor.
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpm++", 2), ("unipc", 3)])
def test_order_inside_the_path(solver: str, order: int) -> None:
    measured = _order(solver, _levels(160, 0.95, 0.05), _levels(320, 0.95, 0.05))
    assert measured == pytest.approx(order, abs=0.2)


# The whole path, by the official schedule. Near both ends lambda runs to infinity, its steps do not shrink with n
# and the multistep solvers take steps of first order: one such step costs h^2, so UniPC falls back to 2, and
# DPM++ loses a logarithm as well, error ~ log(n) / n^2: at 160 to 320 steps 2 - log2(log 320 / log 160) = 1.8.
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpm++", 1.8), ("unipc", 2)])
def test_order_over_the_whole_path(solver: str, order: float) -> None:
    measured = _order(solver, schedule(160, 1.0, solver), schedule(320, 1.0, solver))
    assert measured == pytest.approx(order, abs=0.2)


# The first two steps alone: what starting without a history costs. UniPC's corrector repairs its first step of
# first order; DPM++ has none, so its error there is h^2, as Euler's.
@pytest.mark.parametrize(("solver", "order"), [("euler", 2), ("heun", 3), ("dpm++", 2), ("unipc", 3)])
def test_local_order_of_the_start(solver: str, order: int) -> None:
    measured = _order(solver, _levels(2, 0.6, 0.59), _levels(2, 0.6, 0.595))
    assert measured == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("solver", NAMES)
def test_a_straight_flow_is_exact_in_one_step(solver: str) -> None:
    """Data at one point: the clean estimate never changes, so no solver may err."""
    clean = torch.tensor([0.3, -1.2], dtype=torch.float64)
    noise = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for steps in (1, 2, 5):
        plan = schedule(steps, 5.0, solver)
        x = (1 - plan.sigmas[0]) * clean + plan.sigmas[0] * noise
        assert torch.allclose(
            SOLVERS[solver](lambda x, step: (x - clean) / step.sigma, x, plan), clean, atol=1e-12
        )


@pytest.mark.parametrize("solver", ODE)
def test_the_tail_of_a_schedule_can_be_solved(solver: str) -> None:
    """Editing starts at partial noise."""
    assert _error(solver, schedule(400, 3.0, solver).after(0.6)) < 0.02


class Counted:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        self.steps.append(step)
        return gaussian.velocity(x, step)


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations(solver: str, steps: int) -> None:
    velocity, plan = Counted(), schedule(steps, 3.0, solver)
    SOLVERS[solver](velocity, START, plan)
    assert len(velocity.steps) == (2 * steps - 1 if solver == "heun" else steps)
    assert {step.sigma for step in velocity.steps} == set(plan.sigmas[:-1])
    if solver != "heun":
        assert [step.timestep for step in velocity.steps] == list(plan.timesteps)


@pytest.mark.parametrize("solver", NAMES)
def test_observe_sees_every_step_once(solver: str) -> None:
    seen: list[tuple[Step, Tensor, Tensor]] = []
    plan = schedule(6, 3.0, solver)
    SOLVERS[solver](gaussian.velocity, START, plan, lambda step, x, v: seen.append((step, x, v)))
    assert [step for step, _, _ in seen] == list(plan)
    assert torch.equal(seen[0][1], START)
    for step, x, v in seen:
        assert torch.equal(v, gaussian.velocity(x, step))


@pytest.mark.parametrize("solver", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_velocity_names_its_step(solver: str, bad: float) -> None:
    plan = schedule(6, 3.0, solver)

    def velocity(x: Tensor, step: Step) -> Tensor:
        v = gaussian.velocity(x, step)
        return v if step.index < 3 else v.index_fill(0, torch.tensor([2]), bad)

    with pytest.raises(NumericalError, match=rf"step 3 \(sigma {plan.sigmas[3]:.4f}\)"):
        SOLVERS[solver](velocity, START, plan)


def test_heun_names_a_bad_end_of_step() -> None:
    """Its second evaluation belongs to the same step."""
    plan = schedule(6, 3.0, "heun")
    bad_at = plan.sigmas[3]

    def velocity(x: Tensor, step: Step) -> Tensor:
        return gaussian.velocity(x, step) * (math.nan if step.sigma == bad_at else 1)

    with pytest.raises(NumericalError, match=rf"step 2 \(sigma {bad_at:.4f}\)"):
        SOLVERS["heun"](velocity, START, plan)


@pytest.mark.parametrize("solver", NAMES)
def test_inputs_are_left_alone(solver: str) -> None:
    x, returned = START.clone(), []

    def velocity(x: Tensor, step: Step) -> Tensor:
        v = gaussian.velocity(x, step)
        returned.append((v, v.clone()))
        return v

    SOLVERS[solver](velocity, x, schedule(4, 3.0, solver))
    assert torch.equal(x, START)
    assert all(torch.equal(v, kept) for v, kept in returned)


@pytest.mark.parametrize("solver", NAMES)
def test_the_dtype_stays(solver: str) -> None:
    x = START.float().reshape(1, 9)
    end = SOLVERS[solver](gaussian.velocity, x, schedule(20, 3.0, solver))
    assert (end.dtype, end.shape) == (torch.float32, x.shape)
    assert end.isfinite().all()


def test_an_unknown_solver_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"'dpm'; expected one of dpm\+\+, euler, heun, renoise, unipc"):
        SOLVERS["dpm"]
    assert all(SOLVERS[name] is solver for name, solver in SOLVERS.items())


def _jumping(noise_of: Callable[[int], Tensor], x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Renoising by hand: of Gaussian data with its one mean and deviation, jump to x_0_hat, noise it again."""
    for k, (now, after) in enumerate(pairwise(sigmas)):
        clean = x - now * gaussian.velocity(x, Step(k, now, after, 1000 * now))
        x = (1 - after) * clean + after * noise_of(k) if after else clean
    return x


def test_renoising_is_its_reference_and_its_noise_is_the_samples_own() -> None:
    plan = replace(schedule(4, 1.0, "renoise", rcm_levels(80.0)), seed=11)
    clips = torch.stack([START, -START])

    def drawn(k: int) -> Tensor:
        return torch.stack([noise((9,), 11, "renoise", k, row) for row in range(2)]).double()

    end = SOLVERS["renoise"](gaussian.velocity, clips, plan)
    assert torch.allclose(end, _jumping(drawn, clips, plan.sigmas), atol=1e-12)
    assert torch.equal(end, SOLVERS["renoise"](gaussian.velocity, clips, plan))
    assert not torch.allclose(end, SOLVERS["renoise"](gaussian.velocity, clips, replace(plan, seed=12)))


def test_renoising_in_one_step_is_the_clean_estimate() -> None:
    assert torch.equal(
        SOLVERS["renoise"](gaussian.velocity, START, schedule(1, 5.0)),
        SOLVERS["euler"](gaussian.velocity, START, schedule(1, 5.0)),
    )
