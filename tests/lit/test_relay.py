"""Prompts along time on wan-tiny: each half of a clip comes out nearer to what its own prompt alone makes."""

import pytest
import torch
from torch import Tensor

from wanedit.flow.path import schedule
from wanedit.flow.relay import Told, penalty
from wanedit.flow.solvers import SOLVERS
from wanedit.lit.velocity import GuidedVelocity
from wanedit.rng import noise
from wanedit.sprites import caption, sample_scene
from wanedit.wan import load_wan
from wanedit.wan.condition import known_frames

GRID = (9, 8, 8)


@pytest.mark.slow
@torch.no_grad()
def test_each_half_follows_its_own_prompt_and_both_joined_are_one_mixture() -> None:
    wan, levels, shares = load_wan("tiny"), schedule(12, 3.0, "unipc"), list[Tensor]()
    assert wan.image_encoder is not None
    # Shown nothing, as in training: what comes is the prompt's.
    condition = known_frames(wan.transformer.config, {}, 33, wan.vae.encode, (64, 64))
    tokens = wan.image_encoder(torch.zeros(2, 3, 64, 64)).flatten(0, 1)[None]
    along = penalty([Told("", 0, 5), Told("", 5, 9)], 9)
    for k in range(4):
        texts = [caption(sample_scene(7000 + 2 * k + i, "test")) for i in (0, 1)]
        first, second, joined, negative = (
            wan.text_encoder([text]) for text in (*texts, ", ".join(texts), "")
        )

        def sampled(
            text: Tensor, cost: Tensor | None = None, k: int = k, negative: Tensor = negative
        ) -> Tensor:
            velocity = GuidedVelocity(
                wan.transformer, GRID, text, negative, tokens, condition, 4.0, penalty=cost
            )
            start = levels.start * noise((1, 16, *GRID), k, "relay")
            return SOLVERS["unipc"](velocity, start, levels, lambda step, x, v: None)

        a, b = sampled(first), sampled(second)
        both = sampled(torch.cat([first, second], dim=1), along)
        # Of the way from one prompt's latents to the other's, slot by slot.
        line = b - a
        share = [
            ((one - a) * line).sum((0, 1, 3, 4)) / line.square().sum((0, 1, 3, 4))
            for one in (both, sampled(joined))
        ]
        shares.append(torch.stack(share))
    relayed, mixed = torch.stack(shares).mean(0)
    assert relayed[:4].max() < 0.3
    assert relayed[5:].min() > 0.6
    assert mixed.max() - mixed.min() < 0.15
