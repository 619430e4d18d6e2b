"""What the plan says of operations, against those that torch counts."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.wan import small
from wanedit.runtime.cost import forward_flops
from wanedit.wan.vae import OFFICIAL, decoding_bytes


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


# What a process grew by that only decoded, in MB: VAE, side, frames. On a CPU, whole clips and chunks alike.
GREW = {
    ("tiny", 128, 33): 266,
    ("tiny", 256, 17): 459,
    ("tiny", 256, 33): 902,
    ("tiny", 384, 33): 778,
    (16, 64, 9): 137,
    (16, 128, 17): 740,
    (16, 256, 9): 1529,
    (16, 256, 17): 1641,
    (16, 384, 9): 3126,
    (48, 64, 9): 173,
    (48, 128, 17): 901,
    (48, 256, 9): 1819,
    (48, 384, 9): 3718,
}


@pytest.mark.parametrize("case", GREW, ids=str)
def test_memory_of_decoding_is_what_was_measured_to_15_percent(case: tuple[str | int, int, int]) -> None:
    vae, side, frames = case
    config = OFFICIAL[16] | {"dim": 16} if vae == "tiny" else OFFICIAL[int(vae)]
    said = decoding_bytes(config, frames, (side, side))
    assert said == pytest.approx(GREW[case] * 1e6, rel=0.15)
