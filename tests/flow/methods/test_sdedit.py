"""SDEdit against the exact flow of Gaussian data."""

import math

import pytest
import torch

from tests.flow.problems import MEANS, carried, gaussian, largest, problem, refuses
from wanedit.errors import InputError
from wanedit.flow.methods.sdedit import SDEdit
from wanedit.flow.path import Schedule, interpolate, schedule
from wanedit.flow.solvers import SOLVERS


@pytest.mark.parametrize("solver", sorted({*SOLVERS} - {"renoise"}))  # those of the ODE
@pytest.mark.parametrize("strength", [0.4, 0.8, 1.0])
def test_the_noised_source_is_carried_to_the_target(solver: str, strength: float) -> None:
    edit, plan = problem(), schedule(300 if solver == "euler" else 80, 2.0, solver)
    made = SDEdit(strength, solver=solver)(gaussian(), edit, plan).latents
    assert made is not None
    start = next(sigma for sigma in plan.sigmas if sigma <= strength)
    exact = carried(interpolate(edit.source, edit.noise, start), MEANS["a dog"], start, 0.0)
    assert largest(made - exact) < (0.03 if solver == "euler" else 0.01)


def test_guidance_is_the_methods_own() -> None:
    """Guidance w moves the mean w times as far from the unconditional one, which is zero."""
    edit, plan = problem(guidance=7.0), schedule(80, 2.0, "unipc")
    made = SDEdit(0.8, guidance_scale=3.0, solver="unipc")(gaussian(), edit, plan).latents
    assert made is not None
    start = next(sigma for sigma in plan.sigmas if sigma <= 0.8)
    exact = carried(interpolate(edit.source, edit.noise, start), 3 * MEANS["a dog"], start, 0.0)
    assert largest(made - exact) < 0.01


def test_the_weaker_the_closer_to_the_source() -> None:
    """The distance goes to zero with the strength, in proportion."""
    edit = problem()
    far = []
    for strength in (0.02, 0.01, 0.005):
        plan = Schedule((strength, strength / 2, 0.0), (1000 * strength, 500 * strength))
        made = SDEdit(strength)(gaussian(), edit, plan).latents
        assert made is not None
        far.append(largest(made - edit.source))
    assert far[2] < 0.1
    assert [far[0] / far[1], far[1] / far[2]] == pytest.approx([2, 2], rel=0.15)


def test_a_strength_below_the_schedule_is_refused() -> None:
    with pytest.raises(InputError, match=r"sigma <= 0\.01; lowest 0\.1"):
        SDEdit(0.01)(gaussian(), problem(), schedule(10, 1.0))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strength": 0.0}, r"strength is 0; expected a number in \(0, 1\]"),
        ({"strength": 1.1}, "strength is 1.1"),
        ({"strength": math.nan}, "strength is nan"),
        ({"solver": "rk4"}, "solver is 'rk4'; expected one of dpm"),
    ],
)
def test_bad_settings_are_refused(fields: dict, said: str) -> None:
    refuses(SDEdit(), said, **fields)


def test_observe_sees_where_each_step_is_heading() -> None:
    edit, plan, seen = problem(), schedule(6, 1.0), []
    made = SDEdit(1.0)(gaussian(), edit, plan, lambda step, metrics: seen.append((step, metrics))).latents
    assert made is not None
    assert [step for step, _ in seen] == list(plan)
    # The last Euler step goes where it is heading.
    off = made - edit.source
    relative = off.norm() / edit.source.norm()
    assert seen[-1][1]["source_error"] == pytest.approx(float(relative))
    keyframe = (made[:, :, list(edit.slots)] - edit.edited).norm() / edit.edited.norm()
    assert seen[-1][1]["keyframe_error"] == pytest.approx(float(keyframe))
    assert torch.isfinite(made).all()
