"""Cov(x_0 | z) times a vector, from one derivative of a velocity, and the solver for what needs its inverse.

Tweedie's formula, second order (arXiv 2310.06721, equation 6), on the path z = (1 - sigma) x_0 + sigma eps:
`Cov(x_0 | z) = sigma^2 / (1 - sigma) d x0_hat / dz`, and `d x0_hat / dz = I - sigma dv/dz`.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from wanedit.flow.editing import inner
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity

Derivative = Literal["difference", "central", "forward"]

# A direction is new if it stands out of the earlier ones by so many roundings.
ROUNDING = 100


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
        relative_step: norm of a difference's step relative to that of z, clip by clip. Against the exact derivative,
            wan-tiny in float32 at sigma 0.3 … 0.95: "central" is off by 0.001 at 0.01 and 0.0002 at 0.003,
            "difference" by 0.01 … 0.025 at 0.01 and 0.001 … 0.003 at 0.001; smaller steps drown in rounding, in
            bfloat16 much sooner.
    """

    def product(w: Tensor) -> Tensor:
        if derivative == "forward":
            # The fused attention kernels have no forward derivative, and compiled blocks take no part in one.
            with sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
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


def conjugate_residuals(
    column: Callable[[Tensor], Tensor],
    read: Callable[[Tensor, Tensor], Tensor],
    right: Float[Tensor, "b c k h w"],
    tolerance: float,
    iterations: int,
) -> Tensor:
    """The sum of columns that reads nearest to `right`: generalised conjugate residuals.

    Eisenstat, Elman and Schultz 1983. Unlike conjugate gradients they need no symmetry, which the derivative of a
    trained network does not have (`math_verification`, claim symmetry_tiny), and what is left of `right` never grows.
    The columns are summed as they are made, so no product is spent on putting the solution together.

    Args:
        column: w (B, C, K, H, W) -> (B, C, S, H, W), linear: one product with the covariance.
        read: (column of w, w) -> (B, C, K, H, W), what the equations say of w: `(C[K, K] + tau^2 I) w`.
        right: the right-hand side; each clip of the batch is solved for itself.
        tolerance: stop when what is left of every clip's is below this share of it.
        iterations: stop after so many columns.

    Returns:
        (B, C, S, H, W); (B, C, 1, H, W) of zeros where no column was needed.
    """
    total, left = torch.zeros_like(right[:, :, :1]), right
    goal = tolerance**2 * inner(right, right)
    past: list[tuple[Tensor, Tensor]] = []
    for _ in range(iterations):
        active = inner(left, left) > goal
        if not bool(active.any()):
            break
        made = column(left)
        image = read(made, left)
        before = inner(image, image)
        for old, its_column in past:
            share = inner(old, image)
            image, made = image - share * old, made - share * its_column
        power = inner(image, image)
        # What orthogonalisation leaves of a direction that is not new is rounding.
        active &= power > (ROUNDING * torch.finfo(power.dtype).eps) ** 2 * before
        if not bool(active.any()):
            break
        scale = torch.where(active, power, torch.ones_like(power)).rsqrt() * active
        image, made = scale * image, scale * made
        # Normalised, so that each later share is one inner product.
        past.append((image, made))
        length = inner(left, image)
        left = left - length * image
        total = total + length * made
    return total
