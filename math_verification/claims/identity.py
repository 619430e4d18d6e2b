"""An edit that changes nothing gives the source back, under every controller.

With lambda = 1 and equal prompts the velocity at z = z_s is v_theta(z_s) + (eps - x_s) - v_theta(z_s) = eps - x_s: the
straight path from eps to x_s. On it d = 0, e = 0 and r = 0, so no controller adds anything, and one Euler step
of a straight path is exact.
"""

from dataclasses import dataclass, replace

import torch
from matplotlib.figure import Figure

from math_verification.claims.recursion import models
from math_verification.closed_form import KernelVideo, draw, normal, smooth_covariance, smooth_kernel
from math_verification.record import keyed, largest
from math_verification.report import FULL, Row, Size, at_least, at_most
from wanedit.flow.editing import VideoModel, at_slots
from wanedit.flow.keyframes import Controller, Covariance, Exponential, Replacement, Residual
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import schedule

SENTENCE = "an edit that changes nothing gives the source back exactly under residual-corrected flow"
SLOTS, KEYS = 9, (0, 3, 8)


def controllers() -> dict[str, Controller]:
    """Every controller of the project."""
    return {
        "residual": Residual(5.0),
        "residual, beta 2": Residual(3.0, 2.0),
        "exponential": Exponential(10.0),
        "replacement": Replacement(),
        "covariance scalar": Covariance("scalar"),
        "covariance full": Covariance("full", iterations=20),
    }


@dataclass(frozen=True)
class Identity:
    """Attributes:
    errors: (model and edit branch, controller) -> |result - x_s| over the largest |x_s|.
    without: controller -> the same at lambda = 0, which must not be zero.
    """

    errors: dict[tuple[str, str], float]
    without: dict[str, float]

    def rows(self) -> list[Row]:
        names = dict.fromkeys(name for _, name in self.errors)
        rows = []
        for name in names:
            found = {model: error for (model, n), error in self.errors.items() if n == name}
            rows.append(at_most(f"{name}, {len(found)} models and branches", max(found.values()), 1e-12))
        rows.append(
            at_least("lambda 0 loses the source: least |result - x_s|", min(self.without.values()), 0.1)
        )
        return rows

    def figures(self) -> dict[str, Figure]:
        return {}


def _models() -> dict[str, tuple[VideoModel, ResidualCorrectedFlow]]:
    joint = KernelVideo(smooth_kernel(2.0), {"clip": lambda t: 0.2 * t})
    plain = {name: (model, ResidualCorrectedFlow()) for name, model in models().items()}
    return plain | {"joint": (joint, ResidualCorrectedFlow(edit_branch="denoised"))}


def verify(size: Size = FULL, nudge: float = 0.0) -> Identity:
    """Edit clips into themselves, plus `nudge` where the keyframes are."""
    source = draw(torch.zeros(SLOTS, dtype=torch.float64), smooth_covariance(SLOTS, 2.0), 8, 21)
    noise = normal(8, SLOTS, 22)
    edit = keyed(source, noise, KEYS, at_slots(source, KEYS) + nudge, ("clip", "clip"))
    errors, without = {}, {}
    for name, controller in controllers().items():
        for label, (model, method) in _models().items():
            for plan in (schedule(20, 5.0), schedule(7, 1.0)):
                latents = replace(method, controller=controller)(model, edit, plan).latents
                assert latents is not None
                error = largest(latents - source) / largest(source)
                errors[label, name] = max(error, errors.get((label, name), 0.0))
        free = ResidualCorrectedFlow(controller, source_weight=0.0)(
            models()["Gaussian"], edit, schedule(20, 5.0)
        )
        assert free.latents is not None
        without[name] = largest(free.latents - source) / largest(source)
    return Identity(errors, without)
