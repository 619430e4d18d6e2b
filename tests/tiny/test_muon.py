"""The optimizer of wan-tiny: steps of the right direction and size, and which parameters get which rule."""

import copy

import pytest
import torch
from torch import nn

from tiny.muon import Muon, orthogonalise, split_parameters


@pytest.mark.parametrize("shape", [(8, 8), (16, 40), (40, 16)])
def test_singular_values_end_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalise_keeps_the_singular_vectors():
    u, s, v = torch.linalg.svd(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    cosine = torch.nn.functional.cosine_similarity(
        orthogonalise(u @ torch.diag(s) @ v).flatten(), (u @ v).flatten(), dim=0
    )
    assert cosine > 0.97


def test_convolutions_are_matrices_and_gains_biases_embeddings_are_not():
    first = nn.Conv2d(3, 4, 3)
    net = nn.Sequential(first, nn.Linear(4, 4), nn.Embedding(9, 4))
    net.register_parameter("gamma", nn.Parameter(torch.ones(4, 1, 1)))
    net.register_parameter("positions", nn.Parameter(torch.ones(1, 5, 4)))
    matrices, others = split_parameters(net, [first.weight])
    assert [tuple(p.shape) for p in matrices] == [(4, 4)]
    assert len(matrices) + len(others) == len(list(net.parameters()))


def test_it_minimises_and_both_rules_match_the_size_of_an_adam_step():
    torch.manual_seed(0)
    net = nn.Linear(16, 32)
    truth, x = torch.randn(32, 16), torch.randn(256, 16)
    optimizer = Muon(*split_parameters(net), lr=0.05, weight_decay=0.0)
    losses, before = [], net.weight
    for index in range(150):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - index / 150)
        before = net.weight.detach().clone()
        loss = (net(x) - x @ truth.T - 1).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.02 * losses[0]
    rms = (net.weight - before).square().mean().sqrt() / optimizer.param_groups[0]["lr"]
    assert 0.1 < rms < 0.3


def test_its_state_survives_a_checkpoint():
    def steps(net, optimizer, count):
        for i in range(count):
            optimizer.zero_grad()
            (net(torch.full((1, 4), float(i))) ** 2).sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    optimizer = Muon(*split_parameters(net), lr=0.01)
    steps(net, optimizer, 3)
    other = nn.Linear(4, 3)
    other.load_state_dict(net.state_dict())
    resumed = Muon(*split_parameters(other), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(net, optimizer, 2)
    steps(other, resumed, 2)
    assert torch.equal(net.weight, other.weight)
