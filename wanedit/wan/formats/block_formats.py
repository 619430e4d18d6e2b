"""GGUF's block formats as numbers, by torch, so that they can be made where they are used: on any device, at any time.

Source: ggml, `ggml-common.h` (the layouts) and `ggml-quants.c` (dequantize_row_*). Equal to the package `gguf`, which
computes in NumPy (tests/wan/test_packed.py).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Codes = UInt8[Tensor, "blocks num_bytes"]
Numbers = Float[Tensor, "blocks numbers"]


def _half(codes: Codes, at: int) -> Float[Tensor, "blocks 1"]:
    return codes[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(codes: Codes) -> Tensor:
    """(blocks, n) bytes to (blocks, 2, n): the low halves, then the high ones."""
    return torch.stack([codes & 15, codes >> 4], dim=1)


def _bits(codes: Codes, width: int) -> Tensor:
    """(blocks, n) bytes to (blocks, 8 / width, n) numbers of so many bits, the lowest first."""
    return torch.stack([(codes >> k) & ((1 << width) - 1) for k in range(0, 8, width)], dim=1)


def _fifth(codes: Codes) -> Tensor:
    """Four bytes to the fifth bit of 32 numbers, (blocks, 2, 16), worth 16."""
    return (_bits(codes, 1).transpose(1, 2).flatten(1) << 4).unflatten(1, (2, 16))


def _q4_0(codes: Codes) -> Numbers:
    return _half(codes, 0) * (_nibbles(codes[:, 2:]).flatten(1).float() - 8)


def _q4_1(codes: Codes) -> Numbers:
    return _half(codes, 0) * _nibbles(codes[:, 4:]).flatten(1).float() + _half(codes, 2)


def _q5_0(codes: Codes) -> Numbers:
    q = _nibbles(codes[:, 6:]) | _fifth(codes[:, 2:6])
    return _half(codes, 0) * (q.flatten(1).float() - 16)


def _q5_1(codes: Codes) -> Numbers:
    q = _nibbles(codes[:, 8:]) | _fifth(codes[:, 4:8])
    return _half(codes, 0) * q.flatten(1).float() + _half(codes, 2)


def _q8_0(codes: Codes) -> Numbers:
    return _half(codes, 0) * codes[:, 2:].contiguous().view(torch.int8).float()


def _q2_k(codes: Codes) -> Numbers:
    scales, q = codes[:, :16], codes[:, 16:80].unflatten(1, (2, 32)).flatten(0, 1)
    numbers = _bits(q, 2).reshape(-1, 16, 16).float()
    d = (_half(codes, 80) * (scales & 15).float())[..., None]
    least = (_half(codes, 82) * (scales >> 4).float())[..., None]
    return (d * numbers - least).flatten(1)


def _q3_k(codes: Codes) -> Numbers:
    low, high = _nibbles(codes[:, 96:104]).flatten(1), _bits(codes[:, 104:108], 2).flatten(1)
    scales = (low | (high << 4)).float() - 32
    numbers = _bits(codes[:, 32:96].unflatten(1, (2, 32)).flatten(0, 1), 2).reshape(-1, 16, 16).float()
    # A bit that is not set takes 4 away.
    above = _bits(codes[:, :32], 1).reshape(-1, 16, 16).float()
    return ((_half(codes, 108) * scales)[..., None] * (numbers - 4 * (1 - above))).flatten(1)


def _six_bits(codes: Codes) -> tuple[Tensor, Tensor]:
    """The eight scales and eight minima of `Q4_K` and `Q5_K`, (blocks, 8) each, out of twelve bytes."""
    first, second, third = codes[:, :4], codes[:, 4:8], codes[:, 8:12]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=1)
    least = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=1)
    return scales.float(), least.float()


def _q4_k(codes: Codes, fifth: Tensor | None = None) -> Numbers:
    scales, least = _six_bits(codes[:, 4:16])
    q = _nibbles(codes[:, -128:].unflatten(1, (4, 32)).flatten(0, 1)).reshape(-1, 8, 32)
    q = q if fifth is None else q | fifth
    d, least = (_half(codes, 0) * scales)[..., None], (_half(codes, 2) * least)[..., None]
    return (d * q.float() - least).flatten(1)


def _q5_k(codes: Codes) -> Numbers:
    return _q4_k(codes, _bits(codes[:, 16:48], 1) << 4)


def _q6_k(codes: Codes) -> Numbers:
    low = _nibbles(codes[:, :128].unflatten(1, (2, 64)).flatten(0, 1)).reshape(-1, 16, 16)
    high = _bits(codes[:, 128:192].unflatten(1, (2, 32)).flatten(0, 1), 2).reshape(-1, 16, 16)
    scales = codes[:, 192:208].contiguous().view(torch.int8).float()
    d = (_half(codes, 208) * scales)[..., None]
    return (d * ((low | (high << 4)).float() - 32)).flatten(1)


# By the names of `numbers.BLOCKS`, which are read without torch.
UNPACK: dict[str, Callable[[Codes], Numbers]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
