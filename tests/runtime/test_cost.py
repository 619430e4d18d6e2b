"""What the plan says of operations, against those that torch counts."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.wan import small
from wanedit.runtime.cost import forward_flops


@pytest.mark.parametrize("kind", ["t2v", "vace"])
def test_operations_are_those_that_torch_counts(kind: str) -> None:
    model = small.transformer(kind, dim=48, num_layers=3)
    values = small.inputs(model)
    context = model.prepare(small.GRID, values["text"], None, values.get("condition"))
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.velocity(values["latents"], values["timestep"], context)
    config, tokens = model.config, math.prod(small.GRID) // 4
    dim, blocks = config.dim, config.num_layers + len(config.vace_layers)
    # On a CPU torch leaves attention out; the plan leaves out what the timestep costs.
    attention = 2 * tokens * blocks * 2 * dim * (tokens + config.text_len)
    times = 2 * (config.freq_dim * dim + dim * dim + dim * 6 * dim)
    assert counted.get_total_flops() - times == forward_flops(config, tokens) - attention
