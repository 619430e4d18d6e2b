"""Weights that stay small in memory: 8 bits with scales, or GGUF's blocks, made numbers layer by layer when used.

What a file has so is kept as it is: its numbers are those that it would become when it is read, to the byte. Others are
rounded to 8 bits, one scale for each output channel, which costs exactness.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.wan.formats.block_formats import UNPACK

# Numbers that are made at once: a whole layer in float32 beside itself would be as large as what is saved.
PIECE = 1 << 22
# A number format that weights are rounded to -> the torch format, and the largest number that it holds.
ROUNDED = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}


@dataclass(frozen=True)
class Packed:
    """A matrix.

    Attributes:
        codes: (rows, columns) in 8 bits; or (blocks, bytes) of a block format, row after row.
        scale: of everything, or of each row; None where the codes are the numbers, or blocks.
        shape: (rows, columns).
        kind: name of a block format; "" for 8 bits.
    """

    codes: Tensor
    scale: Tensor | None
    shape: tuple[int, int]
    kind: str = ""

    def to(self, device: torch.device | str) -> "Packed":
        """On another device."""
        scale = None if self.scale is None else self.scale.to(device)
        return replace(self, codes=self.codes.to(device), scale=scale)

    def unpack(self, dtype: torch.dtype) -> Float[Tensor, "rows columns"]:
        """Its numbers, computed in float32 and rounded to `dtype`, some rows at a time."""
        rows, columns = self.shape
        # Blocks of whole rows; of 8 bits a row is a block.
        blocks = len(self.codes) // rows
        step = max(1, PIECE // columns)
        pieces = [self._rows(i, min(step, rows - i), blocks, dtype) for i in range(0, rows, step)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _rows(self, start: int, count: int, blocks: int, dtype: torch.dtype) -> Tensor:
        codes = self.codes.narrow(0, start * blocks, count * blocks)
        if self.kind:
            return UNPACK[self.kind](codes).reshape(count, -1).to(dtype)
        numbers = codes.float()
        if self.scale is not None:
            scale = self.scale.float().reshape(-1, 1)
            numbers = numbers * (scale if len(scale) == 1 else scale.narrow(0, start, count))
        return numbers.to(dtype)


def rounded(weight: Float[Tensor, "rows columns"], kind: str) -> Packed:
    """To 8 bits, each row by its largest number.

    Raises:
        InputError: no such format, or a weight that is not finite.
    """
    if kind not in ROUNDED:
        raise InputError(f"weights are to be {kind}; expected one of {', '.join(ROUNDED)}")
    dtype, largest = ROUNDED[kind]
    numbers = weight.float()
    scale = numbers.abs().amax(dim=1, keepdim=True) / largest
    if not torch.isfinite(scale).all():
        raise InputError(f"a weight of {tuple(weight.shape)} is not finite and cannot be {kind}")
    numbers = numbers / scale.clamp(min=torch.finfo(torch.float32).tiny)
    codes = numbers.round_().to(dtype) if dtype is torch.int8 else numbers.to(dtype)
    return Packed(codes, scale, (weight.shape[0], weight.shape[1]))


def packable(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a transformer's weight may stay small: the matrices of blocks, nearly all there is."""
    return len(shape) == 2 and name.startswith(("blocks.", "vace_blocks."))


def packed_bytes(shape: tuple[int, ...]) -> int:
    """Of a matrix that is `rounded`."""
    return math.prod(shape) + 4 * shape[0]


class PackedLinear(nn.Module):
    """A linear layer whose weight is made of codes each time.

    Its bias is its first parameter, and of the number format that it computes in, as `blocks.linear` asks for it.
    """

    def __init__(self, packed: Packed, bias: nn.Parameter) -> None:
        super().__init__()
        self.bias = bias
        self.codes = nn.Parameter(packed.codes, requires_grad=False)
        self.scale = None if packed.scale is None else nn.Parameter(packed.scale, requires_grad=False)
        self.shape, self.kind = packed.shape, packed.kind

    def forward(self, x: Float[Tensor, "... columns"]) -> Float[Tensor, "... rows"]:
        weight = Packed(self.codes, self.scale, self.shape, self.kind).unpack(x.dtype)
        return F.linear(x, weight, self.bias)
