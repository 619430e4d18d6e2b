"""The difference at the key slots obeys an exact recursion under every identity-gain controller.

Analytic edit branch: z_e = (1 - sigma) x_e + sigma eps_e and v_e = eps_e - x_e, hence x_e = z_e - sigma v_e. With
e = x0_hat[K] - x_e and x0_hat = z - sigma v this gives v_diff = (d - e) / sigma, and the predicted difference is

    r = d - h v_diff = rho d + (1 - rho) e,    rho = sigma' / sigma.

A controller that adds g r to v[K] leaves d' = (1 - g h) r; replacement adds e / sigma and leaves d' = rho d, so that
from coupled noise, d = 0, it never leaves the straight path to x_e. At the last step rho = 0: what remains of the
keyframe error is (1 - g h) e, whatever happened before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.closed_form import GaussianVideo, draw, normal, smooth_covariance
from math_verification.figures import BLUE, ORANGE, RED, panels
from math_verification.mixture import MixtureVideo
from math_verification.record import keyed, largest, run
from math_verification.report import FULL, Row, Size, at_most, equals
from wanedit.flow.editing import VideoModel, rms
from wanedit.flow.keyframes import Controller, Exponential, Replacement, Residual
from wanedit.flow.path import Step, schedule

SENTENCE = "the key difference obeys d' = (1 - alpha h)(rho d + (1 - rho) e) exactly"
SLOTS, KEYS, ALPHA = 9, (0, 3, 8), 10.0

# (d, e, step) -> d' as derived above.
Rule = Callable[[Tensor, Tensor, Step], Tensor]


def _coast(d: Tensor, e: Tensor, step: Step) -> Tensor:
    rho = step.sigma_next / step.sigma
    return rho * d + (1 - rho) * e


def rules() -> dict[str, tuple[Controller, Rule]]:
    """Controllers and what is derived for them."""
    return {
        "residual": (
            Residual(ALPHA, switch=False),
            lambda d, e, step: (1 - ALPHA * step.h) * _coast(d, e, step),
        ),
        "exponential": (
            Exponential(ALPHA),
            lambda d, e, step: math.exp(-ALPHA * step.h) * _coast(d, e, step),
        ),
        "replacement": (Replacement(), lambda d, e, step: step.sigma_next / step.sigma * d),
    }


def models() -> dict[str, VideoModel]:
    """A linear and a nonlinear velocity."""
    covariance = smooth_covariance(SLOTS, 2.0)
    bump = torch.linspace(-1, 1, SLOTS, dtype=torch.float64)
    return {
        "Gaussian": GaussianVideo(covariance, {"target": bump}),
        "mixture": MixtureVideo(
            torch.tensor([0.3, 0.7], dtype=torch.float64),
            torch.stack([bump, -bump]),
            0.2 * torch.stack([covariance, torch.eye(SLOTS, dtype=torch.float64)]),
        ),
    }


@dataclass(frozen=True)
class Recursion:
    """Attributes:
    errors: (controller, model, lambda) -> largest |d' - rule| over all steps, relative to the RMS of x_e.
    beta_error: the same of d' = (1 - (alpha + beta) h) r, which is what holds where the edit branch moves too.
    last: (controller, shift, steps) -> what remains of e at the last step, measured.
    norms: controller -> RMS of d before every step and after the last, for the figure.
    """

    errors: dict[tuple[str, str, float], float]
    beta_error: float
    last: dict[tuple[str, float, int], float]
    norms: dict[str, list[float]]

    def rows(self) -> list[Row]:
        rows = []
        for case in dict.fromkeys((controller, weight) for controller, _, weight in self.errors):
            worst = max(error for (name, _, weight), error in self.errors.items() if (name, weight) == case)
            rows.append(
                at_most(f"{case[0]}, lambda {case[1]:g}, Gaussian and mixture: |d' - rule|", worst, 1e-10)
            )
        rows.append(at_most("beta > 0: d' = (1 - (alpha + beta) h) r", self.beta_error, 1e-10))
        for (controller, shift, steps), ratio in self.last.items():
            last_h = schedule(steps, shift).sigmas[-2]
            exact = {
                "residual": 1 - ALPHA * last_h,
                "exponential": math.exp(-ALPHA * last_h),
                "replacement": 0,
            }
            what = f"{controller}, shift {shift:g}, {steps} steps: final difference / last e"
            rows.append(equals(what, exact[controller], ratio, 1e-8))
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (axis,) = panels(1, 3.6)
        looks = zip(self.norms.items(), ((RED, "--"), (ORANGE, "-."), (BLUE, "-")), strict=True)
        for (name, values), (colour, line) in looks:
            axis.plot(values, color=colour, linestyle=line, label=name)
        axis.set(
            xlabel="step", ylabel="RMS of z[K] - z_e", title="shift 5, 20 steps, alpha 10, Gaussian data"
        )
        axis.set_ylim(top=0.24)
        axis.legend(loc="upper left", ncols=3)
        return {"recursion": figure}


def verify(size: Size = FULL, cases: dict[str, tuple[Controller, Rule]] | None = None) -> Recursion:
    """Run the project's method with recorded controllers, and compare each step with the rule."""
    cases = rules() if cases is None else cases
    clips = min(size.samples, 16)
    covariance = smooth_covariance(SLOTS, 2.0)
    source = draw(torch.zeros(SLOTS, dtype=torch.float64), covariance, clips, 1)
    values = torch.tensor([1.5, -1.0, 0.5], dtype=torch.float64)
    edit = keyed(source, normal(clips, SLOTS, 2), KEYS, values, ("target", "source"))
    errors, last, norms = {}, {}, {}
    for name, (controller, rule) in cases.items():
        for label, model in models().items():
            for weight in (0.0, 1.0):
                worst = 0.0
                for shift, steps in ((1.0, 50), (5.0, 20), (16.0, 50)):
                    trace = run(model, edit, schedule(steps, shift), controller, weight)
                    for state, d, after in zip(
                        trace.states, trace.differences, trace.differences[1:], strict=False
                    ):
                        worst = max(worst, largest(after - rule(d, state.error, state.step)) / edit.scale)
                    if (label, weight) == ("Gaussian", 1.0) and shift > 1:
                        e = trace.states[-1].error
                        last[name, shift, steps] = float((trace.differences[-1] * e).sum() / (e * e).sum())
                        if steps == 20:
                            norms[name] = [rms(d) for d in trace.differences]
                errors[name, label, weight] = worst
    return Recursion(errors, _with_beta(edit), last, norms)


def _with_beta(edit) -> float:
    """With beta the edit branch leaves its straight path, so e no longer closes the recursion; r still does."""
    alpha, beta = 4.0, 3.0
    trace = run(models()["Gaussian"], edit, schedule(30, 3.0), Residual(alpha, beta, switch=False))
    pairs = zip(trace.states[:-1], trace.differences[1:-1], strict=True)
    gaps = [largest(after - (1 - (alpha + beta) * s.step.h) * s.residual) for s, after in pairs]
    return max(gaps) / edit.scale
