"""Prompts along time: the penalty by its formula, and which prompts need none."""

import math

import torch

from wanedit.flow.relay import EPSILON, TAIL, Told, joined, penalty


def test_a_stretch_is_free_and_words_fade_beyond_it_as_a_gaussian() -> None:
    cost = penalty([Told("a", 0, 5), Told("b", 5, 9)], 9)
    assert cost.shape == (9, 2)
    # exp(-C) is EPSILON at TAIL slots, and by a Gaussian at one slot EPSILON to the (1 / TAIL)^2.
    weights = torch.exp(-cost)
    expected = [EPSILON ** ((d / TAIL) ** 2) for d in range(6)]
    assert torch.allclose(weights[:, 0], torch.tensor([1.0] * 5 + expected[1:5]))
    assert torch.allclose(weights[:, 1], torch.tensor([*expected[5:0:-1], 1.0, 1.0, 1.0, 1.0]))
    assert math.isclose(weights[6, 0], EPSILON, rel_tol=1e-5)
    # Both sides of a boundary alike, and each step of a hand-over is a smaller change than the whole.
    share = weights[:, 1] / weights.sum(1)
    assert torch.allclose(share[4], 1 - share[5])
    assert share.diff().min() >= 0
    assert share.diff().max() < 0.75


def test_neighbours_of_one_prompt_are_one_and_a_single_one_is_no_relay() -> None:
    assert joined([Told("a", 0, 3), Told("a", 3, 5), Told("b", 5, 9)]) == (Told("a", 0, 5), Told("b", 5, 9))
    assert joined([Told("a", 0, 3), Told("a", 3, 9)]) == joined([Told("a", 0, 9)]) == joined([]) == ()
    # Told again later it is another stretch.
    assert len(joined([Told("a", 0, 3), Told("b", 3, 5), Told("a", 5, 9)])) == 3
