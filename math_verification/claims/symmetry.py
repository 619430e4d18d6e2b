"""The derivative of an exact velocity is symmetric, so its product with a vector needs no transpose.

v = eps_hat - x0_hat and both are affine in z and grad log p(z), so dv/dz is a multiple of I plus one of a Hessian.
Classifier-free guidance adds such fields with weights: symmetric still, but no longer a covariance. With w > 1 the
guided "Cov" is w C_cond - (w - 1) C_uncond, negative along what the prompt decides and the empty prompt leaves open.
"""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor

from math_verification.claims.recursion import models
from math_verification.closed_form import normal
from math_verification.mixture import MixtureVideo
from math_verification.report import FULL, Row, Size, at_least, at_most
from wanedit.flow.editing import View, rms
from wanedit.flow.path import Step, classifier_free
from wanedit.flow.solvers import Velocity

SENTENCE = "exact velocities have symmetric derivatives: JVP = VJP; guidance keeps that but loses positivity"
SIGMAS, GUIDANCE, SLOTS = (0.95, 0.7, 0.4, 0.1), 5.0, 9


@dataclass(frozen=True)
class Symmetry:
    """Attributes:
    asymmetry: velocity -> largest RMS of (J - J^T) u over that of J u, over noise levels.
    analytic: largest relative distance of the mixture's derivative from the closed form.
    least: velocity -> smallest eigenvalue of sigma^2 / (1 - sigma) (I - sigma J) over noise levels and clips.
    """

    asymmetry: dict[str, float]
    analytic: float
    least: dict[str, float]

    def rows(self) -> list[Row]:
        rows = [
            at_most(f"{name}: |(J - J^T) u| / |J u|", error, 1e-12) for name, error in self.asymmetry.items()
        ]
        rows.append(at_most("mixture: J against its closed form", self.analytic, 1e-10))
        rows += [
            at_least(f"{name}: least eigenvalue of its Cov(x_0 | z)", self.least[name], -1e-12)
            for name in ("Gaussian", "mixture")
        ]
        rows.append(
            at_most("guided mixture, w = 5: least eigenvalue of its 'Cov'", self.least["guided"], -0.01)
        )
        return rows

    def figures(self) -> dict[str, Figure]:
        return {}


def velocities() -> dict[str, Velocity]:
    """Two exact velocities and one under guidance, whose prompt asks for the mixture's first component."""
    mixture = models()["mixture"]
    assert isinstance(mixture, MixtureVideo)
    mixture.prompts["first"] = torch.tensor([0.999, 0.001], dtype=torch.float64)
    free, told = mixture.velocity(View(""), SLOTS), mixture.velocity(View("first"), SLOTS)
    return {
        "Gaussian": models()["Gaussian"].velocity(View(""), SLOTS),
        "mixture": free,
        "guided": lambda z, step: classifier_free(told(z, step), free(z, step), GUIDANCE),
    }


def jacobian(velocity: Velocity, z: Tensor, step: Step) -> Tensor:
    """(B, D, D), the derivative of every clip's velocity by its own latents."""
    rows = [
        torch.func.jvp(lambda x: velocity(x, step), (z,), (unit.view(z[:1].shape).expand_as(z),))[1].flatten(
            1
        )
        for unit in torch.eye(z[0].numel(), dtype=z.dtype)
    ]
    return torch.stack(rows, dim=-1)


def _asymmetry(velocity: Velocity, z: Tensor, step: Step) -> float:
    u = normal(len(z), SLOTS, 81)
    forward = torch.func.jvp(lambda x: velocity(x, step), (z,), (u,))[1]
    pull = torch.func.vjp(lambda x: velocity(x, step), z)[1]
    return rms(forward - pull(u)[0]) / rms(forward)


def _least(velocity: Velocity, z: Tensor, step: Step) -> float:
    sigma, identity = step.sigma, torch.eye(SLOTS, dtype=z.dtype)
    covariance = sigma**2 / (1 - sigma) * (identity - sigma * jacobian(velocity, z, step))
    return float(torch.linalg.eigvalsh((covariance + covariance.mT) / 2).min())


def verify(size: Size = FULL, added: dict[str, Velocity] | None = None) -> Symmetry:
    """Probe every velocity at four noise levels; `added` are further ones that should be symmetric."""
    every = velocities() | (added or {})
    z = normal(64, SLOTS, 82)
    steps = [Step(0, sigma, 0.0, 1000 * sigma) for sigma in SIGMAS]
    mixture = models()["mixture"]
    assert isinstance(mixture, MixtureVideo)
    gaps = []
    for step in steps:
        exact = mixture.jacobian(z.flatten(1), step.sigma)
        gaps.append(rms(jacobian(every["mixture"], z, step) - exact) / rms(exact))
    return Symmetry(
        {name: max(_asymmetry(v, z, step) for step in steps) for name, v in every.items()},
        max(gaps),
        {name: min(_least(v, z, step) for step in steps) for name, v in every.items()},
    )
