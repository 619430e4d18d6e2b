"""FlowEdit against its solution for Gaussian data, and its noise."""

from dataclasses import replace

import pytest
import torch

from tests.flow.problems import (
    MEANS,
    SHAPE,
    Mixing,
    across,
    column,
    draw,
    gaussian,
    largest,
    power,
    problem,
    refuses,
    smooth,
    variance,
)
from wanedit.errors import InputError
from wanedit.flow.methods.flowedit import FlowEdit
from wanedit.flow.methods.sdedit import SDEdit
from wanedit.flow.path import fresh_noise, schedule


def test_settings_are_those_of_wan_edit() -> None:
    method = FlowEdit()
    assert (method.n_max, method.n_min, method.n_avg) == (None, 0, 1)
    assert (method.source_guidance_scale, method.guidance_scale) == (5.0, 12.0)
    seen = []
    plan = schedule(50, 5.0)
    method(gaussian(), problem(), plan, lambda step, metrics: seen.append(step.sigma))
    assert tuple(seen) == plan.sigmas[9:-1]


@pytest.mark.parametrize("model", [gaussian, Mixing])
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_equal_prompts_and_guidance_give_the_source_exactly(model, scale: float) -> None:
    edit = problem(identity=True)
    method = FlowEdit(n_avg=2, guidance_scale=scale, source_guidance_scale=scale)
    made = method(model(), edit, schedule(50, 5.0)).latents
    assert made is not None
    assert torch.equal(made, edit.source)


def moved(steps: int, n_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the edit changed, and what the flow of differences changes in the limit of small steps.

    u = z - x_s obeys du/dsigma = A (u - (1 - sigma) delta) - delta, where v = A (z - (1 - sigma) m) - m, whatever the
    noise: w = u - (1 - sigma) delta obeys dw/dsigma = A w, which sqrt(V) solves.
    """
    edit, plan = problem(), schedule(steps, 1.0)
    made = FlowEdit(n_max, guidance_scale=3.0, source_guidance_scale=2.0)(gaussian(), edit, plan).latents
    assert made is not None
    delta = column(3 * MEANS["a dog"] - 2 * MEANS["a cat"])
    start = plan.sigmas[steps - n_max]
    ratio = power(smooth(), 0.5) @ power(variance(start), -0.5)
    return made - edit.source, delta - across(ratio, (1 - start) * delta)


def test_the_edit_of_gaussian_data() -> None:
    errors = [largest(torch.sub(*moved(n, 4 * n // 5))) for n in (100, 200)]
    assert errors[1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)


def test_from_pure_noise_the_means_change_places_exactly() -> None:
    assert largest(torch.sub(*moved(7, 7))) < 1e-12


def test_the_last_steps_may_be_plain_sampling() -> None:
    """With n_min = n_max all of them: SDEdit under the noise that FlowEdit draws."""
    edit, plan = problem(), schedule(20, 3.0)
    made = FlowEdit(15, 15, guidance_scale=None, seed=3)(gaussian(), edit, plan).latents
    eps = fresh_noise(SHAPE, edit.source, 3, "flowedit", 0, 0)
    same = SDEdit(plan.sigmas[5])(gaussian(), replace(edit, noise=eps), plan).latents
    assert made is not None
    assert same is not None
    assert largest(made - same) < 1e-12


def test_noise_is_the_samples_own() -> None:
    """Not the process's: its generator is neither read nor moved, and every row, step and draw has another."""
    edit, plan = problem(), schedule(12, 3.0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = FlowEdit(10)(Mixing(), edit, plan).latents
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = FlowEdit(10)(Mixing(), edit, plan).latents
    other = FlowEdit(10, seed=1)(Mixing(), edit, plan).latents
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert largest(first - other) > 1e-2
    drawn = [fresh_noise(SHAPE, edit.source, 0, "flowedit", step, n) for step in range(2) for n in range(2)]
    rows = torch.cat(drawn)
    apart = torch.cdist(rows.flatten(1), rows.flatten(1)) + 100 * torch.eye(len(rows))
    assert float(apart.min()) > 1


def test_averaging_draws_lowers_the_spread_between_seeds() -> None:
    edit, plan = problem(), schedule(8, 3.0)

    def spread(n_avg: int) -> float:
        made = [FlowEdit(6, 0, n_avg, seed=s)(Mixing(), edit, plan).latents for s in range(6)]
        return float(torch.stack([x for x in made if x is not None]).std(0).mean())

    assert spread(8) < 0.6 * spread(1)  # 1 / sqrt(8) = 0.35 if draws are independent


def test_float32_stays() -> None:
    edit = problem()
    single = {name: getattr(edit, name).float() for name in ("source", "edited", "noise")}
    made = FlowEdit(4)(Mixing(), replace(edit, **single), schedule(5, 3.0)).latents
    assert made is not None
    assert made.dtype == torch.float32
    assert draw(1).dtype == torch.float64


def test_a_schedule_shorter_than_n_max_is_refused() -> None:
    with pytest.raises(InputError, match="n_max is 41; expected at most the 20 steps"):
        FlowEdit(41)(gaussian(), problem(), schedule(20, 3.0))


@pytest.mark.parametrize("fields", [{"n_max": 0}, {"n_min": -1}, {"n_min": 42}, {"n_avg": 0}])
def test_bad_settings_are_refused(fields: dict) -> None:
    name, value = next(iter(fields.items()))
    refuses(
        FlowEdit(41), rf"{name} (is )?{value}.*expected n_max >= 1, 0 <= n_min <= n_max, n_avg >= 1", **fields
    )
