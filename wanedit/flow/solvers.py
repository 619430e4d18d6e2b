"""Solvers of dx/dsigma = v(x, sigma), from noise at the first level of a schedule to data at 0.

All are called alike, `solver(velocity, x, schedule, observe)`. `velocity(x, step)` may be a network under
guidance, a controlled velocity or a closed form. `observe(step, x, v)` sees each step before it is taken.

The multistep solvers are those of the official Wan 2.1 code, which no library scheduler reproduces:
diffusers' UniPC with flow sigmas visits other timesteps.
"""

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit import flow
from wanedit.errors import InputError, NumericalError
from wanedit.flow.path import (
    TRAIN_TIMESTEPS,
    Levels,
    Schedule,
    Step,
    clean_estimate,
    even,
    fresh_noise,
    interpolate,
    visits,
)
from wanedit.registry import Registry

Velocity = Callable[[Tensor, Step], Tensor]
Observer = Callable[[Step, Tensor, Tensor], None]


@runtime_checkable
class Solver(Protocol):
    """Takes `x` from the first level of a schedule to its last; returns a tensor of the same shape.

    One that wants other levels than even ones from 1 down has an attribute `levels`, see `wanedit.flow.path.visits`.
    """

    def __call__(
        self, velocity: Velocity, x: Tensor, schedule: Schedule, observe: Observer | None = None
    ) -> Tensor: ...


SOLVERS: Registry[Solver] = flow.SOLVERS


def count_evaluations(
    name: str,
    schedule: Schedule,
    velocity: Velocity = lambda x, step: x,
) -> int:
    """How often a solver asks for a velocity, tried out on few numbers.

    Args:
        velocity: what it is answered.

    Raises:
        InputError: there is none of this name, or one from outside fails or returns something else than latents.
    """
    evaluations = 0

    def count(x: Tensor, step: Step) -> Tensor:
        nonlocal evaluations
        evaluations += 1
        return velocity(x, step)

    with SOLVERS.guard(name):
        start = torch.zeros(1, 16, 1, 2, 2)
        end = SOLVERS[name](count, start, schedule, lambda step, x, v: None)
    if getattr(end, "shape", None) != start.shape:
        raise InputError(
            f"solver {name} returns {type(end).__name__} for latents; expected a tensor of their shape"
        )
    return evaluations


def finite(v: Tensor, step: Step) -> Tensor:
    """`v` itself.

    Raises:
        NumericalError: it holds a NaN or an infinity.
    """
    if not bool(v.isfinite().all()):
        raise NumericalError(f"velocity is NaN or infinite at step {step.index} (sigma {step.sigma:.4f})")
    return v


def _evaluate(velocity: Velocity, x: Tensor, step: Step, observe: Observer | None) -> Tensor:
    v = finite(velocity(x, step), step)
    if observe is not None:
        observe(step, x, v)
    return v


@SOLVERS.register("euler")
def euler(
    velocity: Velocity,
    x: Float[Tensor, "*shape"],
    schedule: Schedule,
    observe: Observer | None = None,
) -> Float[Tensor, "*shape"]:
    """First order: x - h v."""
    for step in schedule:
        x = x - step.h * _evaluate(velocity, x, step, observe)
    return x


@SOLVERS.register("heun")
def heun(
    velocity: Velocity,
    x: Float[Tensor, "*shape"],
    schedule: Schedule,
    observe: Observer | None = None,
) -> Float[Tensor, "*shape"]:
    """Second order, two evaluations a step, one at the last (EDM, arXiv 2206.00364, algorithm 1)."""
    for step in schedule:
        v = _evaluate(velocity, x, step, observe)
        x_next = x - step.h * v
        # At sigma 0 there is no noise whose velocity could be asked for.
        if step.sigma_next > 0:
            # Not observed: a step is one row of the record, however often it asks.
            v = (v + _evaluate(velocity, x_next, step.end(), None)) / 2
            x_next = x - step.h * v
        x = x_next
    return x


@SOLVERS.register("renoise")
def renoise(
    velocity: Velocity,
    x: Float[Tensor, "*shape"],
    schedule: Schedule,
    observe: Observer | None = None,
) -> Float[Tensor, "*shape"]:
    """For models that are distilled to jump to the end: each step estimates the clean sample and noises it anew to the
    next level (consistency models, arXiv 2303.01469, algorithm 1; DMD2, arXiv 2405.14867, section 4.5).

    The noise of every step is a function of the schedule's seed and the step's place alone.
    """
    for step in schedule:
        x = clean_estimate(x, _evaluate(velocity, x, step, observe), step.sigma)
        if step.sigma_next > 0:
            eps = fresh_noise(x.shape, x, schedule.seed, "renoise", step.index)
            x = interpolate(x, eps, step.sigma_next)
    return x


def _log_snr(sigma: float) -> float:
    """lambda = log(alpha / sigma) with alpha = 1 - sigma; -inf at pure noise, +inf at data."""
    if sigma <= 0:
        return math.inf
    return math.log1p(-sigma) - math.log(sigma) if sigma < 1 else -math.inf


# `wan/utils/fm_solvers.py`
@SOLVERS.register("dpm++")
@visits(Levels(integer_timesteps=True))
def dpm_plus_plus(
    velocity: Velocity,
    x: Float[Tensor, "*shape"],
    schedule: Schedule,
    observe: Observer | None = None,
) -> Float[Tensor, "*shape"]:
    """DPM-Solver++(2M), midpoint (arXiv 2211.01095, algorithm 2); first and last step of first order."""
    previous, lambda_previous = None, -math.inf
    for step in schedule:
        clean = clean_estimate(x, _evaluate(velocity, x, step, observe), step.sigma)
        lambda_now, lambda_next = _log_snr(step.sigma), _log_snr(step.sigma_next)
        h = lambda_next - lambda_now
        target = clean
        if previous is not None and step.sigma_next > 0 and math.isfinite(lambda_previous):
            r = (lambda_now - lambda_previous) / h
            target = clean + (clean - previous) / (2 * r)
        # Equation 9 of the paper; exp(-h) - 1 is -1 at the first level of pure noise and at the last step.
        x = step.sigma_next / step.sigma * x - (1 - step.sigma_next) * math.expm1(-h) * target
        previous, lambda_previous = clean, lambda_now
    return x


# `wan/utils/fm_solvers_unipc.py`: its training levels are k / 1000 for k < 1000.
@SOLVERS.register("unipc")
@visits(Levels(even(1 - 1 / TRAIN_TIMESTEPS), integer_timesteps=True))
def unipc(
    velocity: Velocity,
    x: Float[Tensor, "*shape"],
    schedule: Schedule,
    observe: Observer | None = None,
) -> Float[Tensor, "*shape"]:
    """UniPC-2, B_2(h) = e^h - 1, predicting the clean sample (arXiv 2302.04867, algorithms 5 and 6).

    Every step first corrects the point that the step before predicted, with the estimate made there; the
    first and the last prediction are of first order, as in the official code.
    """
    history: list[tuple[float, Tensor]] = []  # (lambda, clean estimate) of the last two steps, oldest first
    predicted_from: tuple[Tensor, Step] | None = None
    for step in schedule:
        clean = clean_estimate(x, _evaluate(velocity, x, step, observe), step.sigma)
        if predicted_from is not None:
            start, last = predicted_from
            x = _unipc_correct(start, last, clean, history)
        # As in the official code, the estimate made before the correction is kept: no second evaluation.
        history = [*history[-1:], (_log_snr(step.sigma), clean)]
        predicted_from = (x, step)
        x = _unipc_predict(x, step, history)
    return x


def _phi(h: float) -> tuple[float, float, float]:
    """B(h) = e^-h - 1 and the two right-hand sides b_1, b_2 that UniPC's coefficients solve."""
    # expm1, and not exp - 1, whose difference would be rounding for a short step.
    b_h = math.expm1(-h)
    phi_2 = b_h / -h - 1
    phi_3 = phi_2 / -h - 0.5
    return b_h, phi_2 / b_h, 2 * phi_3 / b_h


def _unipc_predict(x: Tensor, step: Step, history: list[tuple[float, Tensor]]) -> Tensor:
    lambda_now, clean = history[-1]
    h = _log_snr(step.sigma_next) - lambda_now
    b_h = math.expm1(-h)
    target = clean
    if len(history) == 2 and step.sigma_next > 0 and math.isfinite(history[0][0]):
        lambda_before, before = history[0]
        r = (lambda_before - lambda_now) / h
        target = clean + 0.5 * (before - clean) / r
    return step.sigma_next / step.sigma * x - (1 - step.sigma_next) * b_h * target


def _unipc_correct(x: Tensor, step: Step, clean_next: Tensor, history: list[tuple[float, Tensor]]) -> Tensor:
    lambda_now, clean = history[-1]
    h = _log_snr(step.sigma_next) - lambda_now
    b_h, b_1, b_2 = _phi(h)
    change = clean_next - clean
    if len(history) == 2 and math.isfinite(history[0][0]):
        lambda_before, before = history[0]
        r = (lambda_before - lambda_now) / h
        # The 2 x 2 system [1 1; r 1] rho = b.
        rho_next = (b_2 - r * b_1) / (1 - r)
        target = clean + (b_1 - rho_next) * (before - clean) / r + rho_next * change
    else:
        target = clean + 0.5 * change
    return step.sigma_next / step.sigma * x - (1 - step.sigma_next) * b_h * target
