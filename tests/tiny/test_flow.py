"""What one step of the transformer's training is conditioned on."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tiny.fit import Budget
from tiny.flow import FlowTraining, TinyWan, masks, multiplies_halves, zero_image_values
from tiny.train import dropped_ids
from wanedit.wan.config import IMAGE_TOKENS

GRID: tuple[int, ...] = (2, 4, 4)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    frames = torch.zeros(3, 5, dtype=torch.bool)
    frames[:, 0] = True
    frames[:2, 4] = True
    return {
        "latents": torch.randn(3, 16, *GRID),
        "known": torch.randn(3, 16, *GRID),
        "frames": frames,
        "ids": torch.randint(2, 1500, (3, 64)),
        "keyframes": torch.randint(0, 256, (3, 3, 2, 32, 32), dtype=torch.uint8),
    }


def training(monkeypatch, step=100, **settings):
    """A FlowTraining at `step` of 100, and the function (batch, blind) -> (text, condition, image tokens)."""
    torch.manual_seed(0)
    net = TinyWan()
    drop_ids = torch.full((4, 64), 7)
    empty = {GRID: torch.full((1, 16, *GRID), 0.5)}
    module: Any = FlowTraining(net, 1e-3, Budget(100, 1.0, 1e-3), drop_ids, empty, **settings)
    module._trainer = SimpleNamespace(global_step=step)
    seen, whole = [], net.context

    def keep(*given):
        seen.append(given)
        return whole(*given)

    def conditions(batch, blind):
        module._context(batch, blind)
        return seen[-1]

    monkeypatch.setattr(net, "context", keep)
    return module, conditions


@torch.no_grad()
def test_a_blind_clip_is_shown_nothing_and_the_others_what_is_known_of_them(batch, monkeypatch):
    module, conditions = training(monkeypatch, drop_text=0.0)
    blind = torch.tensor([False, True, False])
    text, condition, tokens = conditions(batch, blind)
    torch.testing.assert_close(text, module.net.features(batch["ids"]))
    assert condition[1, :4].count_nonzero() == 0
    assert torch.equal(condition[1, 4:], module.empty[GRID][0])
    assert torch.equal(condition[::2, :4], masks(batch["frames"], 4, 4)[::2])
    assert torch.equal(condition[::2, 4:], batch["known"][::2])
    first, last = tokens.split(IMAGE_TOKENS, dim=1)
    assert [bool(row.any()) for row in first] == [True, False, True]
    assert [bool(row.any()) for row in last] == [True, False, False]


@torch.no_grad()
def test_dropped_text_is_one_of_the_empty_prompts(batch, monkeypatch):
    module, conditions = training(monkeypatch, drop_text=1.0)
    text, _, _ = conditions(batch, torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(text, module.net.features(torch.full((3, 64), 7)))


@torch.no_grad()
def test_image_tokens_take_part_only_from_their_share_of_the_budget_on(batch, monkeypatch):
    seeing = torch.zeros(3, dtype=torch.bool)
    for step in (79, 80):
        _, conditions = training(monkeypatch, step, image_from=0.8)
        assert (conditions(batch, seeing)[2] is not None) == (step == 80)


def test_other_devices_than_gpus_and_cpus_multiply_in_float32():
    assert multiplies_halves(torch.device("cuda"))
    assert not any(multiplies_halves(torch.device(kind)) for kind in ("meta", "mps"))


def test_products_in_bfloat16_change_a_step_by_their_rounding_alone(batch, monkeypatch):
    found = []
    for halves in (False, True):
        monkeypatch.setattr("tiny.flow.multiplies_halves", lambda device, halves=halves: halves)
        module, _ = training(monkeypatch, step=0, drop_text=0.0)
        torch.nn.init.normal_(module.net.transformer.head.head.weight, std=0.02)
        monkeypatch.setattr(module, "log_dict", lambda values: None)
        torch.manual_seed(1)
        loss = module.training_step(batch, 0)
        loss.backward()
        moved = [p.grad.flatten() for p in module.net.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(moved)))
    (exact, direction), (rounded, other) = found
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=0.01)
    assert torch.cosine_similarity(direction, other, dim=0) > 0.99


@torch.no_grad()
def test_leaving_the_image_tokens_out_is_exact_while_their_values_are_zero(batch):
    torch.manual_seed(0)
    net = TinyWan()
    for parameter in net.transformer.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    zero_image_values(net.transformer)
    text, condition = net.features(batch["ids"]), torch.randn(3, 20, *GRID)
    tokens, timestep = torch.randn(3, 2 * IMAGE_TOKENS, 128), torch.tensor([100.0, 500.0, 900.0])
    with_tokens, without = (
        net.transformer.velocity(batch["latents"], timestep, net.context(text, condition, given))
        for given in (tokens, None)
    )
    assert without.abs().max() > 0.01
    assert torch.allclose(with_tokens, without, atol=1e-5)


def test_no_prompt_is_the_empty_or_the_negative_one(tokenizer):
    ids = dropped_ids(tokenizer, 64)
    assert ids.shape == (4, 64)
    assert [int(row.count_nonzero()) for row in ids[:2]] == [1, 1]
    assert all(row.count_nonzero() > 10 for row in ids[2:])
    assert not torch.equal(ids[2], ids[3])
