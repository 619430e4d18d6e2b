"""Rotary embedding against the official complex form, for every head size and for fractional positions."""

import pytest
import torch
from torch import Tensor

from wanedit.wan.blocks import axis_dims, rotate, rotation

EVEN = range(2, 257, 2)


@pytest.mark.parametrize("head_dim", [12, 22, 32, 48, 64, 128])
def test_tables_equal_the_official_ones(head_dim: int) -> None:
    cos, sin = rotation(torch.arange(5.0), 3, 4, head_dim)
    expected = _official(5, 3, 4, head_dim)
    assert torch.allclose(torch.complex(cos, sin).to(expected.dtype), expected, atol=1e-7)


def _official(frames: int, height: int, width: int, d: int) -> Tensor:
    """`rope_params` for the three axes, concatenated, and laid out as `rope_apply` does (`wan/modules/model.py`)."""

    def table(length: int, dim: int) -> Tensor:
        exponent = torch.arange(0, dim, 2).to(torch.float64).div(dim)
        angles = torch.outer(torch.arange(length), 1.0 / torch.pow(10000, exponent))
        return torch.polar(torch.ones_like(angles), angles)

    freqs = torch.cat(
        [table(1024, d - 4 * (d // 6)), table(1024, 2 * (d // 6)), table(1024, 2 * (d // 6))], 1
    )
    c = d // 2
    time, rows, columns = freqs.split([c - 2 * (c // 3), c // 3, c // 3], dim=1)
    shape = (frames, height, width, -1)
    parts = [
        time[:frames].view(frames, 1, 1, -1).expand(shape),
        rows[:height].view(1, height, 1, -1).expand(shape),
        columns[:width].view(1, 1, width, -1).expand(shape),
    ]
    return torch.cat(parts, dim=-1).flatten(0, 2)


def test_the_split_is_the_official_one_for_every_even_head() -> None:
    """The official code splits a head twice, once by channels and once by pairs; the two must agree."""
    for d in EVEN:
        time, rows, columns = axis_dims(d)
        assert time + rows + columns == d
        assert (time, rows, columns) == (d - 4 * (d // 6), 2 * (d // 6), 2 * (d // 6))
        c = d // 2
        assert (time // 2, rows // 2, columns // 2) == (c - 2 * (c // 3), c // 3, c // 3)


def test_rotate_equals_the_complex_product() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 24, 3, 22, generator=generator)
    cos, sin = rotation(torch.tensor([0.0, 2.5]), 3, 4, 22)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    turns = torch.complex(cos.double(), sin.double())[None, :, None]
    expected = torch.view_as_real(pairs * turns).flatten(-2)
    assert torch.allclose(rotate(x, cos, sin).double(), expected, atol=1e-6)
    # Wherever it lies in memory.
    for axis in range(4):
        apart = x.movedim(axis, -1).contiguous().movedim(-1, axis)
        assert torch.equal(rotate(apart, cos, sin), rotate(x, cos, sin))


def test_rotate_keeps_dtype_and_computes_in_float32() -> None:
    x = torch.randn(1, 6, 2, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    cos, sin = rotation(torch.arange(1.0), 2, 3, 12)
    turned = rotate(x, cos, sin)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), cos, sin).bfloat16())


@pytest.mark.parametrize("frame_id", [0.5, 1.5, 20.25])
def test_a_fractional_id_turns_by_its_own_angle(frame_id: float) -> None:
    """By exactly `frame_id` times the angles of id 1; rows and columns stay."""
    time = axis_dims(22)[0] // 2
    unit = torch.atan2(*reversed(rotation(torch.tensor([1.0]), 1, 1, 22)))[0].double()
    cos, sin = (table[0].double() for table in rotation(torch.tensor([frame_id]), 1, 1, 22))
    assert torch.allclose(cos[:time], (frame_id * unit[:time]).cos(), atol=1e-5)
    assert torch.allclose(sin[:time], (frame_id * unit[:time]).sin(), atol=1e-5)
    assert torch.equal(cos[time:], torch.ones_like(cos[time:]))


def test_far_positions_are_exact() -> None:
    """Angles are computed in float64: in float32 position 100 000 would be off by a hundredth of a turn."""
    cos, _ = rotation(torch.tensor([100_000.0], dtype=torch.float64), 1, 1, 12)
    assert float(cos[0, 0]) == pytest.approx(-0.9993608, abs=1e-6)


def test_scores_depend_on_relative_position() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 22, generator=generator)

    def score(a: float, b: float) -> Tensor:
        turned = [rotate(x, *rotation(torch.tensor([p]), 1, 1, 22)) for x, p in ((q, a), (k, b))]
        return (turned[0] * turned[1]).sum()

    assert torch.allclose(score(0.0, 2.5), score(7.25, 9.75), atol=1e-5)
    assert not torch.allclose(score(0.0, 2.5), score(0.0, 3.5), atol=1e-2)
