"""The straight path, and the noise levels of the official schedules."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from wanedit.errors import InputError
from wanedit.flow.path import (
    Levels,
    Schedule,
    classifier_free,
    clean_estimate,
    interpolate,
    rcm_levels,
    schedule,
    shift_sigma,
)

SIGMAS = [1.0, 0.7, 0.31, 1e-3]


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    return clean, noise


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_clean_estimate_of_the_true_velocity_is_the_data(pair, sigma: float) -> None:
    clean, noise = pair
    x = interpolate(clean, noise, sigma)
    assert torch.allclose(clean_estimate(x, noise - clean, sigma), clean, atol=1e-14)


def test_the_path_runs_from_data_to_noise(pair) -> None:
    clean, noise = pair
    assert torch.equal(interpolate(clean, noise, 0.0), clean)
    assert torch.equal(interpolate(clean, noise, 1.0), noise)


# Worked out by hand from `shift s / (1 + (shift - 1) s)`: at shift 16 and 8 steps, s = k/8 gives 16 k / (8 + 15 k).
BY_HAND_SIGMAS = [16 * k / (8 + 15 * k) for k in range(8, -1, -1)]


@pytest.mark.parametrize(
    ("solver", "timesteps"),
    [
        ("unipc", [999, 991, 979, 963, 941, 905, 841, 695]),
        ("dpm++", [1000, 991, 979, 963, 941, 905, 842, 695]),
        ("euler", [1000 * sigma for sigma in BY_HAND_SIGMAS[:-1]]),
        ("heun", [1000 * sigma for sigma in BY_HAND_SIGMAS[:-1]]),
    ],
)
def test_official_timesteps(solver: str, timesteps: list[float]) -> None:
    assert schedule(8, 16.0, solver).timesteps == pytest.approx(timesteps, rel=1e-7)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++"])
def test_official_sigmas(solver: str) -> None:
    assert schedule(8, 16.0, solver).sigmas == pytest.approx(BY_HAND_SIGMAS, abs=1e-7)


def test_unipc_starts_below_pure_noise() -> None:
    """Its highest training level is 999/1000, shifted: 16 * 0.999 / (1 + 15 * 0.999)."""
    assert schedule(8, 16.0, "unipc").sigmas[0] == pytest.approx(15.984 / 15.985, abs=1e-7)


def test_integer_timesteps_may_repeat_where_sigmas_do_not() -> None:
    plan = schedule(50, 16.0, "unipc")
    assert all(t == int(t) for t in plan.timesteps)
    assert len(set(plan.sigmas)) == 51


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 16.0])
def test_shift(shift: float) -> None:
    """It keeps both ends and multiplies the odds sigma / (1 - sigma) by `shift`."""
    sigma = np.linspace(0.05, 0.95, 10)
    shifted = shift_sigma(sigma, shift)
    assert shifted / (1 - shifted) == pytest.approx(shift * sigma / (1 - sigma))
    assert shift_sigma(np.array([0.0, 1.0]), shift) == pytest.approx([0.0, 1.0])


SOLVER = """
import numpy as np
from wanedit.flow.path import Levels, visits

def walk(velocity, x, schedule, observe=None):
    return x

squares = visits(Levels(lambda n: (1 - np.arange(n) / n) ** 2, integer_timesteps=True))(walk)
def bare(velocity, x, schedule, observe=None): ...
def short(velocity, x, schedule, observe=None): ...
short.levels = Levels(lambda n: np.ones(1))
def words(velocity, x, schedule, observe=None): ...
words.levels = "karras"
"""


def test_a_solver_declares_its_own_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No list elsewhere knows which solvers want other ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solvers_of_levels.py").write_text(SOLVER)
    plan = schedule(4, 1.0, "solvers_of_levels:squares")
    assert plan.sigmas == pytest.approx((1, 9 / 16, 1 / 4, 1 / 16, 0))
    assert plan.timesteps == (1000, 562, 250, 62)
    assert schedule(8, 3.0, "solvers_of_levels:bare") == schedule(8, 3.0, "euler")
    with pytest.raises(
        InputError, match=r"solver solvers_of_levels:short has \(1,\) levels; expected \(4,\)"
    ):
        schedule(4, 1.0, "solvers_of_levels:short")
    with pytest.raises(InputError, match="levels of the solver solvers_of_levels:words are 'karras'"):
        schedule(4, 1.0, "solvers_of_levels:words")
    with pytest.raises(InputError, match="solver is 'eular'"):
        schedule(4, 1.0, "eular")
    assert schedule(4, 1.0, "unipc").sigmas[0] < 1 == Levels().sigmas(3)[0]


def test_steps() -> None:
    plan = schedule(5, 3.0)
    steps = list(plan)
    assert len(plan) == len(steps) == 5
    assert [step.index for step in steps] == list(range(5))
    assert sum(step.h for step in steps) == pytest.approx(1.0)
    assert all(a.sigma_next == b.sigma for a, b in pairwise(steps))
    assert steps[-1].sigma_next == 0
    assert steps[1].end().sigma == steps[2].sigma
    assert steps[1].end().timestep == pytest.approx(steps[2].timestep)


def test_after_keeps_the_tail() -> None:
    plan = schedule(10, 1.0)
    tail = plan.after(0.55)
    assert tail.sigmas == plan.sigmas[5:]
    assert tail.timesteps == plan.timesteps[5:]
    assert plan.after(1.0) == plan
    with pytest.raises(InputError, match=r"starts at sigma <= 0.01; lowest 0.1"):
        plan.after(0.01)


@pytest.mark.parametrize(
    ("steps", "shift", "said"),
    [
        (0, 5.0, "num_inference_steps is 0; expected at least 1"),
        (-3, 5.0, "num_inference_steps is -3"),
        (8, 0.0, "shift is 0; expected a positive number"),
        (8, -1.0, "shift is -1"),
        (8, math.nan, "shift is nan"),
        (8, math.inf, "shift is inf"),
        (8, 1e12, "strictly decreasing"),  # float32 cannot tell the first levels apart
    ],
)
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_bad_schedule_is_refused(steps: int, shift: float, said: str, solver: str) -> None:
    with pytest.raises(InputError, match=said):
        schedule(steps, shift, solver)


@pytest.mark.parametrize("sigmas", [(1.0, 0.5, 0.5), (0.5, 1.0, 0.0), (1.0, 0.0), (1.0, math.nan, 0.0)])
def test_a_schedule_decreases(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=f"schedule has {len(sigmas)} sigmas and 2 timesteps"):
        Schedule(sigmas, (1000.0, 500.0))


def test_guidance() -> None:
    conditional, unconditional = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])
    assert torch.equal(classifier_free(conditional, unconditional, 1.0), conditional)
    assert torch.equal(classifier_free(conditional, unconditional, 0.0), unconditional)
    assert torch.equal(classifier_free(conditional, unconditional, 5.0), torch.tensor([5.0, -6.0]))


def test_four_steps_at_shift_5_are_those_of_a_distilled_model() -> None:
    assert schedule(4, 5.0).sigmas == pytest.approx((1, 0.9375, 5 / 6, 0.625, 0), abs=1e-7)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++", "unipc"])
@pytest.mark.parametrize(("steps", "shift"), [(10, 2.7), (12, 3.0), (50, 16.0)])
def test_the_levels_of_a_schedule_listed_are_that_schedule(solver: str, steps: int, shift: float) -> None:
    own = schedule(steps, shift, solver)
    listed = schedule(steps, 1.0, solver, own.sigmas[:-1])
    assert listed == own
    assert (listed.start, listed.shift, own.shift) == (1.0, None, shift)


def test_fewer_steps_visit_the_first_of_listed_levels() -> None:
    plan = schedule(2, 7.0, noise_levels=(1.0, 0.934, 0.862))
    assert plan.sigmas == pytest.approx((1.0, 0.934, 0))
    assert plan.timesteps == pytest.approx((1000, 934))
    assert plan.after(0.95).sigmas == pytest.approx((0.934, 0))


def test_a_first_level_below_pure_noise_begins_with_less_noise() -> None:
    """Nothing is known of the data there: (1 - sigma) 0 + sigma eps. UniPC's own .9997 stands for pure noise."""
    assert schedule(4, 1.0, "renoise", rcm_levels(200.0)).start == pytest.approx(200 / 201)
    assert schedule(4, 1.0, "unipc", (0.998, 0.5, 0.2, 0.1)).start == pytest.approx(0.998)
    assert schedule(4, 5.0, "unipc").start == schedule(4, 5.0, "euler").start == 1


@pytest.mark.parametrize(
    ("steps", "levels", "said"),
    [
        (3, (1.0, 0.5), "num_inference_steps is 3 and there are 2 noise_levels"),
        (2, (1.0, 1.0), r"noise_levels\[1\] is 1 after 1; expected falling ones"),
        (2, (0.5, 0.8, 0.2), r"noise_levels\[1\] is 0.8 after 0.5"),
        (2, (0.9, 0.90000001), r"noise_levels\[1\] is 0.9 after 0.9"),
        (2, (1.0, 0.0), r"noise_levels\[1\] is 0; expected sigma in \(0, 1\]"),
        (1, (0.5, -0.1), r"noise_levels\[1\] is -0.1"),
        (1, (math.nan,), r"noise_levels\[0\] is nan"),
        (2, (1000.0, 750.0), r"noise_levels\[0\] is 1000; .*: 1 for the timestep 1000"),
    ],
)
def test_listed_levels_that_no_solver_can_visit_are_named(steps: int, levels: tuple, said: str) -> None:
    with pytest.raises(InputError, match=said):
        schedule(steps, 5.0, "euler", levels)


def test_levels_of_rcm() -> None:
    """sin t / (cos t + sin t) is tan t / (1 + tan t): sigma_max / (1 + sigma_max) at atan(sigma_max)."""
    tangents = (80.0, math.tan(1.5), math.tan(1.4), math.tan(1.0))
    assert rcm_levels(80.0) == pytest.approx([t / (1 + t) for t in tangents])
    assert rcm_levels(200.0)[1:] == rcm_levels(80.0)[1:]
    with pytest.raises(InputError, match="sigma_max is 14; expected more than"):
        rcm_levels(14.0)
