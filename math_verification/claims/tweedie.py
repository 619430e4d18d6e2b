"""Cov(x_0 | z) is one derivative of the velocity (Tweedie's formula of second order).

`Cov(x_0 | z) = sigma^2 / (1 - sigma) d x0_hat / dz` (arXiv 2310.06721, equation 6, on the straight path). The mixture
has this covariance in closed form, and it changes with z. A forward difference with a step of relative size s errs
by O(s), a central one by O(s^2).
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.claims.recursion import models
from math_verification.closed_form import normal
from math_verification.figures import BLUE, ORANGE, panels
from math_verification.mixture import MixtureVideo
from math_verification.report import FULL, Row, Size, at_most, equals, slope
from wanedit.flow.covariance import Derivative, covariance_product
from wanedit.flow.editing import View, rms
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity

SENTENCE = "covariance_product is Cov(x_0 | z) times a vector"
SIGMAS = (0.95, 0.8, 0.6, 0.4, 0.2, 0.05)
RELATIVE = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)


@dataclass(frozen=True)
class Tweedie:
    """Attributes:
    forward: sigma -> relative error of the exact derivative.
    differences: kind -> relative error at sigma 0.6 for each of RELATIVE.
    """

    forward: dict[float, float]
    differences: dict[str, list[float]]

    def rows(self) -> list[Row]:
        rows = [at_most("mixture, sigma 0.95 to 0.05: forward derivative", max(self.forward.values()), 1e-10)]
        for kind, order in (("difference", 1), ("central", 2)):
            found = slope(RELATIVE, self.differences[kind])
            rows.append(equals(f"{kind}: order in its step", order, found, 0.15))
            at_default = self.differences[kind][RELATIVE.index(1e-2)]
            rows.append(at_most(f"{kind}: relative error at the default step 0.01", at_default, 0.02))
        return rows

    def figures(self) -> dict[str, Figure]:
        figure, (axis,) = panels(1, 3.6)
        for (kind, errors), colour, mark in zip(self.differences.items(), (ORANGE, BLUE), "os", strict=True):
            axis.loglog(RELATIVE, errors, f"{mark}-", color=colour, label=kind)
        axis.set(
            xlabel="step relative to z", ylabel="relative error of C w", title="mixture, sigma 0.6, float64"
        )
        axis.legend()
        return {"tweedie": figure}


def _error(
    model: MixtureVideo, velocity: Velocity, sigma: float, kind: Derivative, relative_step: float = 1e-2
) -> float:
    z, w = normal(64, 9, 31), normal(64, 9, 32)
    step = Step(0, sigma, 0.0, 1000 * sigma)
    product = covariance_product(velocity, z, velocity(z, step), step, kind, relative_step)
    exact = torch.einsum("bde,be->bd", model.posterior(z.flatten(1), sigma).covariance, w.flatten(1))
    return rms(product(w).flatten(1) - exact) / rms(exact)


def verify(size: Size = FULL, bend: float = 0.0) -> Tweedie:
    """Compare with the closed form; `bend` adds a multiple of z to the velocity, which then belongs to other data."""
    model = models()["mixture"]
    assert isinstance(model, MixtureVideo)
    exact = model.velocity(View(""), 9)

    def velocity(z: Tensor, step: Step) -> Tensor:
        return exact(z, step) + bend * z

    kinds: tuple[Derivative, ...] = ("difference", "central")
    return Tweedie(
        {sigma: _error(model, velocity, sigma, "forward") for sigma in SIGMAS},
        {kind: [_error(model, velocity, 0.6, kind, s) for s in RELATIVE] for kind in kinds},
    )
