"""FlowAlign against the recursion that it becomes for Gaussian data."""

import math

import pytest
import torch
from torch import Tensor

from tests.flow.problems import (
    MEANS,
    SLOTS,
    Mixing,
    across,
    column,
    gaussian,
    largest,
    problem,
    refuses,
    smooth,
    variance,
)
from wanedit.flow.methods.flowalign import FlowAlign
from wanedit.flow.methods.flowedit import FlowEdit
from wanedit.flow.path import Schedule, schedule


def recursion(levels: Schedule, omega: float, zeta: float) -> Tensor:
    """u = z - x_s, step by step: p - q = u, v_p - v_q = A (u - (1 - sigma) delta) - delta, delta = omega (m_t - m_s).

    A = V^-1 (sigma I - (1 - sigma) C). The pull is E[x_0 | q] - E[x_0 | p] = -u + sigma (v_p - v_q).
    """
    delta, identity = omega * (MEANS["a dog"] - MEANS["a cat"]), torch.eye(SLOTS, dtype=torch.float64)
    u = torch.zeros(SLOTS, dtype=torch.float64)
    for sigma, after in zip(levels.sigmas, levels.sigmas[1:], strict=False):
        slope = torch.linalg.inv(variance(sigma)) @ (sigma * identity - (1 - sigma) * smooth())
        change = slope @ (u - (1 - sigma) * delta) - delta
        u = u + (after - sigma) * change + zeta * (sigma * change - u)
    return u


@pytest.mark.parametrize(("omega", "zeta"), [(1.0, 0.0), (7.5, 0.01), (7.5, 0.2)])
def test_gaussian_data(omega: float, zeta: float) -> None:
    edit, plan = problem(guidance=5.0), schedule(33, 3.0)
    made = FlowAlign(omega, zeta)(gaussian(), edit, plan).latents
    assert made is not None
    assert largest(made - edit.source - column(recursion(plan, omega, zeta))) < 1e-11


def test_the_pull_is_towards_the_source() -> None:
    edit, plan = problem(), schedule(33, 3.0)
    far = []
    for zeta in (0.0, 0.01, 0.1):
        made = FlowAlign(zeta=zeta)(gaussian(), edit, plan).latents
        assert made is not None
        far.append(float((made - edit.source).norm()))
    assert far[0] > far[1] > far[2] > 0


def test_without_pull_and_guidance_it_is_flowedit() -> None:
    """For Gaussian data, where the noise that they draw differently cancels."""
    edit, plan = problem(), schedule(10, 3.0)
    made = FlowAlign(1.0, 0.0)(gaussian(), edit, plan).latents
    same = FlowEdit(10, guidance_scale=1.0, source_guidance_scale=1.0)(gaussian(), edit, plan).latents
    assert made is not None
    assert same is not None
    assert largest(made - same) < 1e-12
    assert across(smooth(), made).shape == made.shape


@pytest.mark.parametrize("model", [gaussian, Mixing])
def test_equal_prompts_give_the_source_exactly(model) -> None:
    edit = problem(identity=True)
    made = FlowAlign()(model(), edit, schedule(33, 3.0)).latents
    assert made is not None
    assert torch.equal(made, edit.source)


def test_noise_is_a_function_of_the_seed() -> None:
    edit, plan = problem(), schedule(12, 3.0)
    torch.manual_seed(1)
    first = FlowAlign()(Mixing(), edit, plan).latents
    torch.manual_seed(2)
    again, other = FlowAlign()(Mixing(), edit, plan).latents, FlowAlign(seed=1)(Mixing(), edit, plan).latents
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert largest(first - other) > 1e-2


@pytest.mark.parametrize(
    "fields", [{"zeta": -0.1}, {"zeta": math.nan}, {"guidance_scale": math.inf}, {"guidance_scale": math.nan}]
)
def test_bad_settings_are_refused(fields: dict) -> None:
    name, value = next(iter(fields.items()))
    refuses(FlowAlign(), f"{name} (is )?{value:g}.*expected numbers, zeta >= 0", **fields)
