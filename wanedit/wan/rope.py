"""Rotary position embedding of Wan over time, height and width, in real arithmetic."""

import torch
from jaxtyping import Float
from torch import Tensor

THETA = 10000.0


def axis_dims(head_dim: int) -> tuple[int, int, int]:
    """Split a head over (time, height, width): `d - 4 (d // 6)`, `2 (d // 6)`, `2 (d // 6)`.

    Source: Wan 2.1, `wan/modules/model.py`, the tables that `WanModel.__init__` concatenates.
    """
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial, spatial


def _angles(positions: Float[Tensor, " n"], dim: int) -> Float[Tensor, "n pairs"]:
    exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
    return torch.outer(positions.double(), THETA**-exponent)


def rotation(
    frame_ids: Float[Tensor, " s"], height: int, width: int, head_dim: int
) -> tuple[Float[Tensor, "length pairs"], Float[Tensor, "length pairs"]]:
    """Cosine and sine of every token's angle, tokens in the order (slot, row, column).

    Args:
        frame_ids: temporal position of every latent slot, in slots; integer or fractional.
        height, width: patches, not pixels.

    Returns:
        Two float32 tensors of shape (S * height * width, head_dim / 2), computed in float64.
    """
    time_dim, row_dim, column_dim = axis_dims(head_dim)
    device = frame_ids.device
    time = _angles(frame_ids, time_dim)
    rows = _angles(torch.arange(height, dtype=torch.float64, device=device), row_dim)
    columns = _angles(torch.arange(width, dtype=torch.float64, device=device), column_dim)
    shape = (len(frame_ids), height, width, -1)
    angles = torch.cat(
        [
            time[:, None, None].expand(shape),
            rows[None, :, None].expand(shape),
            columns[None, None, :].expand(shape),
        ],
        dim=-1,
    ).flatten(0, 2)
    return angles.cos().float(), angles.sin().float()


def rotate(
    x: Float[Tensor, "b length heads d"],
    cos: Float[Tensor, "length pairs"],
    sin: Float[Tensor, "length pairs"],
) -> Float[Tensor, "b length heads d"]:
    """Turn neighbouring channel pairs by the tabulated angles (RoFormer, arXiv 2104.09864, equation 34).

    Written on real pairs: torch.compile fuses it into the projection before it, where a complex view
    would break the graph. The arithmetic is float32 whatever the dtype of `x`.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)
