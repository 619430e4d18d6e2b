"""Several prompts along time in one transformer: each slot attends to its own, and by the penalty to the others."""

import pytest
import torch

from tests.wan import small
from wanedit.errors import InputError
from wanedit.flow.guidance.nag import NormalizedAttention
from wanedit.flow.guiding import Guide
from wanedit.flow.path import schedule
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan.blocks import CrossAttention
from wanedit.wan.transformer import Experts

SLOTS, WORDS = small.GRID[0], 10


def texts(model, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, WORDS, model.config.text_dim, generator=generator) for _ in range(count)]


def test_attention_of_a_slot_is_that_to_each_prompt_weighed_by_its_sum_of_logits() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(8, 2, 1e-6, image_tokens=False).requires_grad_(False)
    x, first, second = torch.randn(1, 6, 8), torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    both = layer.keys_values(torch.cat([first, second], dim=1), None)
    cost = torch.tensor([0.0, 0.7, 1.7, 6.9, 30.0, 1e4])
    penalty = torch.cat([torch.zeros(6, 3), cost[:, None].expand(6, 5)], dim=1)
    found = layer(x, both.expand(1, penalty))

    def alone(words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention to some words, before the last projection, and the sum of the exponentials of its logits."""
        keys, values = layer.keys_values(words, None).text
        q = layer.heads(layer.norm_q(layer.q(x)))
        weights = torch.einsum("bnhd,bmhd->bnhm", q, keys).div(4**0.5).exp()
        total = weights.sum(-1, keepdim=True)
        return torch.einsum("bnhm,bmhd->bnhd", weights / total, values), total

    (a, z_a), (b, z_b) = alone(first), alone(second)
    share = z_b * torch.exp(-cost)[:, None, None] / (z_a + z_b * torch.exp(-cost)[:, None, None])
    expected = layer.o(((1 - share) * a + share * b).flatten(2))
    assert torch.allclose(found, expected, atol=1e-5)
    # Far from where it is meant a prompt is not there.
    own = layer(x, layer.keys_values(first, None).expand(1, None))
    assert torch.allclose(found[:, -2:], own[:, -2:], atol=1e-6)
    assert not torch.allclose(found[:, :1], own[:, :1], atol=1e-2)


def test_prompts_that_are_equal_are_one_whatever_the_penalty() -> None:
    model = small.transformer("flf2v")
    given = small.inputs(model)
    [text] = texts(model, 1)
    inputs = given["image_tokens"], given["condition"]
    penalty = 5 * torch.rand(SLOTS, 3, generator=torch.Generator().manual_seed(1))
    one = model.prepare(small.GRID, text, *inputs)
    three = model.prepare(small.GRID, text.repeat(1, 3, 1), *inputs, penalty=penalty)
    expected = model.velocity(given["latents"], given["timestep"], one)
    found = model.velocity(given["latents"], given["timestep"], three)
    assert torch.allclose(found, expected, atol=1e-5)
    other = model.prepare(small.GRID, torch.cat([text, 2 * text, text], 1), *inputs, penalty=penalty)
    assert not torch.allclose(model.velocity(given["latents"], given["timestep"], other), expected, atol=1e-3)


def test_every_kind_of_guidance_reads_the_negative_prompt_whole() -> None:
    """Where both prompts are one, what is told along time is guided as that one is; two experts as each of them."""
    model = small.transformer("flf2v")
    given = small.inputs(model)
    text, negative = texts(model, 2)
    step = next(iter(schedule(4, 3.0, "euler")))
    inputs = negative, given["image_tokens"], given["condition"], 3.0
    penalty = torch.tensor([[0.0, 9.0]] * 2 + [[9.0, 0.0]] * 2)
    for guide in (Guide(), Guide(NormalizedAttention())):
        alone = GuidedVelocity(model, small.GRID, text, *inputs, guide=guide)
        both = GuidedVelocity(model, small.GRID, text.repeat(1, 2, 1), *inputs, guide=guide, penalty=penalty)
        expected = alone(given["latents"], step)
        assert torch.allclose(both(given["latents"], step), expected, atol=1e-4)
        assert alone.evaluations == both.evaluations == 2
        pair = GuidedVelocity(
            Experts(model, model), small.GRID, text.repeat(1, 2, 1), *inputs, guide=guide, penalty=penalty
        )
        assert torch.allclose(pair(given["latents"], step), expected, atol=1e-4)


def test_words_and_slots_that_do_not_fit_the_penalty_are_refused() -> None:
    model = small.transformer("t2v")
    [text] = texts(model, 1)
    with pytest.raises(InputError, match=r"text is \(1, 10, 12\); expected \(B, 20, 12\)"):
        model.prepare(small.GRID, text, penalty=torch.zeros(SLOTS, 2))
    with pytest.raises(InputError, match=r"penalty is of 3 slots; expected 4"):
        model.prepare(small.GRID, text.repeat(1, 2, 1), penalty=torch.zeros(3, 2))
