"""Classifier-free guidance."""

from jaxtyping import Float
from torch import Tensor


def classifier_free(
    conditional: Float[Tensor, "*shape"], unconditional: Float[Tensor, "*shape"], guidance_scale: float
) -> Float[Tensor, "*shape"]:
    """`v_u + w (v_c - v_u)` (arXiv 2207.12598, equation 6, in the convention where w = 1 is no guidance)."""
    return unconditional + guidance_scale * (conditional - unconditional)
