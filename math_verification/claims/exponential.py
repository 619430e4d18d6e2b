"""The exponential gain contracts at every step of every schedule, and has the residual controller's limit.

Its step leaves exp(-alpha h) r. As h -> 0 both controllers become dz/dsigma = v + alpha (z - z_e) at the key slots,
since g r -> alpha d; (1 - exp(-alpha h)) / h and alpha differ by O(h), and so do the results. As alpha -> infinity at
fixed steps it leaves d' = 0: replacement, which from coupled noise holds d = 0 too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.claims.stability import SHIFTS, STEPS
from math_verification.closed_form import GaussianVideo, draw, normal, smooth_covariance
from math_verification.figures import BLUE, GREEN, ORANGE, panels
from math_verification.record import keyed, largest, levels_between, run
from math_verification.report import FULL, Row, Size, at_most, equals, slope
from wanedit.flow.editing import Edit, at_slots, into_slots, rms
from wanedit.flow.keyframes import Controller, Exponential, Replacement, Residual
from wanedit.flow.path import Step, interpolate, schedule

SENTENCE = "the exponential gain is stable on every schedule and has the same continuous limit, error O(h)"
SLOTS, KEYS = 7, (1, 4)
COUNTS = (50, 100, 200, 400, 800)
Make = Callable[[float], Controller]


@dataclass(frozen=True)
class ExponentialGain:
    """Attributes:
    ratios: (alpha, shift, steps) -> the largest |d'| / |r| / exp(-alpha h) - 1, in absolute value.
    contraction: the same runs -> the largest |d'| / |r|.
    errors: controller -> distance to the continuous limit for each of COUNTS; "apart" is between the two.
    to_replacement: distance to replacement at alpha 1e5.
    """

    ratios: dict[tuple[float, float, int], float]
    contraction: dict[tuple[float, float, int], float]
    errors: dict[str, list[float]]
    to_replacement: float

    def rows(self) -> list[Row]:
        rows = [
            at_most(
                "24 schedules, alpha 10 and 100: |d'| / |r| against exp(-alpha h)",
                max(self.ratios.values()),
                1e-8,
            ),
            at_most(
                "24 schedules, alpha 10 and 100: largest |d'| / |r|", max(self.contraction.values()), 0.999
            ),
        ]
        for name, errors in self.errors.items():
            order = slope([1 / n for n in COUNTS[: len(errors)]], errors)
            label = "residual against exponential" if name == "apart" else f"{name} to its limit"
            rows.append(equals(f"{label}: order in h", 1.0, order, 0.1))
            rows.append(at_most(f"{label}: distance at {COUNTS[len(errors) - 1]} steps", errors[-1], 0.02))
        rows.append(at_most("alpha 1e5: distance to replacement", self.to_replacement, 1e-10))
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (axis,) = panels(1, 3.6)
        for (name, errors), colour, mark in zip(
            self.errors.items(), (ORANGE, BLUE, GREEN), "os^", strict=True
        ):
            label = "residual - exponential" if name == "apart" else f"{name} - limit"
            axis.loglog([1 / n for n in COUNTS[: len(errors)]], errors, f"{mark}-", color=colour, label=label)
        ends = [1 / COUNTS[0], 1 / COUNTS[-1]]
        axis.loglog(ends, [5 * h for h in ends], color="#777777", linewidth=0.8, label="order 1")
        axis.set(xlabel="h", ylabel="largest difference", title="alpha 10, equal steps, Gaussian data")
        axis.set_xticks([1 / n for n in COUNTS], [f"1/{n}" for n in COUNTS])
        axis.minorticks_off()
        axis.legend()
        return {"exponential": figure}


def _problem() -> tuple[GaussianVideo, Edit]:
    model = GaussianVideo(smooth_covariance(SLOTS, 2.0))
    source = draw(torch.zeros(SLOTS, dtype=torch.float64), model.covariance, 4, 7)
    values = torch.tensor([1.2, -0.8], dtype=torch.float64)
    return model, keyed(source, normal(4, SLOTS, 8), KEYS, values)


def _limit(alpha: float, steps: int = 1000) -> Tensor:
    """The continuous limit by the classical Runge-Kutta method, written without the project's controllers."""
    model, edit = _problem()
    target, total = model.velocity(edit.target, SLOTS), edit.num_slots

    def slope_at(z: Tensor, sigma: float) -> Tensor:
        step = Step(0, sigma, 0.0, 0.0)
        drift = edit.noise - edit.source - target(interpolate(edit.source, edit.noise, sigma), step)
        d = at_slots(z, KEYS) - interpolate(edit.edited, edit.edited_noise, sigma)
        return target(z, step) + drift + into_slots(alpha * d, KEYS, total)

    z, h = edit.noise, 1 / steps
    for i in range(steps):
        sigma = 1 - i * h
        k1 = slope_at(z, sigma)
        k2 = slope_at(z - h / 2 * k1, sigma - h / 2)
        k3 = slope_at(z - h / 2 * k2, sigma - h / 2)
        k4 = slope_at(z - h * k3, sigma - h)
        z = z - h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return z


def verify(size: Size = FULL, make: Make = Exponential) -> ExponentialGain:
    """Contract on every schedule; then refine equal steps towards the limit."""
    model, edit = _problem()
    ratios, contraction = {}, {}
    for key in [(alpha, shift, n) for alpha in (10.0, 100.0) for shift in SHIFTS for n in STEPS]:
        alpha, shift, n = key
        trace = run(model, edit, schedule(n, shift), make(alpha))
        pairs = [
            (s, rms(a) / rms(s.residual)) for s, a in zip(trace.states, trace.differences[1:], strict=True)
        ]
        # Below 1e-6 a ratio is rounding: |d'| is a difference of numbers near one.
        ratios[key] = max(
            (abs(q / math.exp(-alpha * s.step.h) - 1) for s, q in pairs if q * rms(s.residual) > 1e-6),
            default=math.inf,
        )
        contraction[key] = max(q for _, q in pairs)
    limit = _limit(10.0)
    ends = {
        name: [run(model, edit, levels_between(1.0, 0.0, n), c).latents for n in COUNTS[: size.refinements]]
        for name, c in (("residual", Residual(10.0, switch=False)), ("exponential", make(10.0)))
    }
    errors = {name: [largest(end - limit) for end in found] for name, found in ends.items()}
    errors["apart"] = [largest(a - b) for a, b in zip(*ends.values(), strict=True)]
    plan = schedule(20, 5.0)
    hard = run(model, edit, plan, Replacement()).latents
    return ExponentialGain(
        ratios, contraction, errors, largest(run(model, edit, plan, make(1e5)).latents - hard)
    )
