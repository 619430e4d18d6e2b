"""Cov(x_0 | z) times a vector, from one derivative of a velocity, and the solver for what needs its inverse.

Tweedie's formula, second order (arXiv 2310.06721, equation 6), on the path z = (1 - sigma) x_0 + sigma eps:
`Cov(x_0 | z) = sigma^2 / (1 - sigma) d x0_hat / dz`, and `d x0_hat / dz = I - sigma dv/dz`.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.flow.editing import inner
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity

Derivative = Literal["difference", "central", "forward"]


def covariance_product(
    velocity: Velocity,
    z: Float[Tensor, "b c s h w"],
    v: Float[Tensor, "b c s h w"],
    step: Step,
    derivative: Derivative = "difference",
    relative_step: float = 1e-2,
) -> Callable[[Float[Tensor, "b c s h w"]], Float[Tensor, "b c s h w"]]:
    """w -> Cov(x_0 | z) w at (z, step), sigma < 1.

    Args:
        velocity: a function of (z, step).
        v: its value at (z, step), which "difference" starts from.
        derivative: "difference", one more evaluation per product; "central", two; "forward", `torch.func.jvp`: exact,
            one evaluation with a tangent beside it.
        relative_step: norm of a difference's step relative to that of z, clip by clip.
    """

    def product(w: Tensor) -> Tensor:
        if derivative == "forward":
            change = torch.func.jvp(lambda point: velocity(point, step), (z,), (w,))[1]
        else:
            # Each clip of a batch has a step of its own, or a small w would drown beside a large one.
            energy = inner(w, w)
            size = relative_step * (inner(z, z) / energy.where(energy > 0, torch.ones_like(energy))).sqrt()
            behind = v if derivative == "difference" else velocity(z - size * w, step)
            reach = size if derivative == "difference" else 2 * size
            change = (velocity(z + size * w, step) - behind) / reach
        return step.sigma**2 / (1 - step.sigma) * (w - step.sigma * change)

    return product


def conjugate_gradient(
    apply: Callable[[Tensor], Tensor],
    right: Float[Tensor, "b c k h w"],
    tolerance: float,
    iterations: int,
) -> Float[Tensor, "b c k h w"]:
    """Solve `apply(x) = right`, each clip of the batch for itself (Hestenes and Stiefel 1952).

    Args:
        apply: linear, symmetric and positive definite up to rounding.
        tolerance: stop when every residual is below this share of its right-hand side.
        iterations: stop after so many applications.

    Returns:
        The iterate with the smallest residual. For the exact operator that is the last; a network's derivative is
        not symmetric, and there the residual can grow without bound (`math_verification`, claim symmetry_tiny).
        A clip whose direction has no positive curvature stays where it was.
    """
    x, r = torch.zeros_like(right), right
    p, energy = r, inner(right, right)
    goal = tolerance**2 * energy
    best, lowest = x, energy
    for _ in range(iterations):
        if bool((energy <= goal).all()):
            break
        image = apply(p)
        curvature = inner(p, image)
        active = (energy > goal) & (curvature > 0)
        if not bool(active.any()):
            break
        length = torch.where(active, energy / curvature.where(active, torch.ones_like(curvature)), 0.0)
        x, r = x + length * p, r - length * image
        fresh = inner(r, r)
        best, lowest = torch.where(fresh < lowest, x, best), torch.minimum(fresh, lowest)
        p = r + torch.where(active, fresh / energy.where(active, torch.ones_like(energy)), 0.0) * p
        energy = fresh
    return best
