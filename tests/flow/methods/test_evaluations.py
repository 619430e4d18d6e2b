"""What each baseline costs, counted; that each leaves its edit alone, and names a step that is not finite."""

import math
from dataclasses import replace

import pytest
import torch

from tests.flow.problems import Mixing, Ramp, gaussian, pixel_edit, problem
from wanedit.errors import NumericalError
from wanedit.flow.editing import Method
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.methods.first_frame import FirstFrame
from wanedit.flow.methods.flf2v import FLF2V
from wanedit.flow.methods.flowalign import FlowAlign
from wanedit.flow.methods.flowedit import FlowEdit
from wanedit.flow.methods.hard_replacement import HardReplacement
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.methods.rf_inversion import RFInversion
from wanedit.flow.methods.sdedit import SDEdit
from wanedit.flow.methods.warp import WarpNearestKeyframe
from wanedit.flow.path import schedule

# Of 20 steps at shift 1. A guided velocity costs 2, an unguided one 1.
COSTS = [
    (SDEdit(0.5), 10),
    (SDEdit(0.5, guidance_scale=6.0), 20),
    (SDEdit(1.0, solver="heun"), 39),
    (SDEdit(1.0, solver="unipc"), 20),
    (FlowEdit(16), 16 * 4),
    (FlowEdit(16, 6, 3), 10 * 3 * 4 + 6 * 2),
    (FlowEdit(16, source_guidance_scale=None, guidance_scale=None), 16 * 2),
    (FlowAlign(), 20 * 3),
    (RFInversion(), 20 + 20),
    (RFInversion(guidance_scale=3.5), 20 + 40),
    (HardReplacement(), 20),
    (HardReplacement(0.5, guidance_scale=5.0), 20),
    (CopySource(), 0),
]
EULER = [SDEdit(1.0), FlowEdit(4), FlowAlign(), HardReplacement(), ResidualCorrectedFlow()]


@pytest.mark.parametrize(("method", "cost"), COSTS, ids=lambda value: repr(value)[:60])
def test_evaluations(method: Method, cost: int) -> None:
    model, edit = gaussian(), problem()
    method(model, edit, schedule(20, 1.0, getattr(method, "solver", "euler")))
    assert model.evaluations == cost
    views = replace(edit, target=edit.target.guided(2.0), reference=edit.reference.guided(2.0))
    if isinstance(method, FlowAlign):  # guidance of the views is not read
        method(model, views, schedule(20, 1.0))
        assert model.evaluations == 2 * cost


@pytest.mark.parametrize(
    ("method", "cost"), [(FirstFrame(), 20), (FirstFrame(solver="heun"), 39), (FLF2V(), 60)]
)
def test_evaluations_of_image_to_video(method: Method, cost: int) -> None:
    """FLF2V: two segments and the frames after the last keyframe."""
    model = Ramp()
    method(model, pixel_edit((0, 4, 11), 17), schedule(20, 1.0))
    assert model.evaluations == cost


def test_warping_costs_nothing() -> None:
    model = Ramp()
    edit = replace(pixel_edit((0, 4, 11), 17), flow=lambda a, b: torch.zeros(1, 2, 4, 6, dtype=torch.float64))
    WarpNearestKeyframe()(model, edit, schedule(20, 1.0))
    assert model.evaluations == 0


@pytest.mark.parametrize("method", EULER, ids=lambda method: type(method).__name__)
def test_the_edit_is_left_alone(method: Method) -> None:
    edit, fresh = problem(), problem()
    method(gaussian(), edit, schedule(5, 3.0))
    for name in ("source", "edited", "noise"):
        assert torch.equal(getattr(edit, name), getattr(fresh, name))


@pytest.mark.parametrize("method", EULER, ids=lambda method: type(method).__name__)
def test_observe_sees_every_step_and_changes_nothing(method: Method) -> None:
    plan, seen = schedule(4, 3.0), []
    watched = method(gaussian(), problem(), plan, lambda *pair: seen.append(pair)).latents
    alone = method(gaussian(), problem(), plan).latents
    assert watched is not None
    assert alone is not None
    assert torch.equal(watched, alone)
    assert [step.sigma for step, _ in seen] == list(plan.sigmas[:-1])
    for _, metrics in seen:
        assert "keyframe_error" in metrics
        assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("method", EULER, ids=lambda method: type(method).__name__)
def test_a_velocity_that_is_not_finite_names_its_step(method: Method) -> None:
    class Broken(Mixing):
        def velocity(self, view, slots):
            inner = super().velocity(view, slots)
            return lambda z, step: inner(z, step) * (math.nan if step.index == 2 else 1)

    with pytest.raises(NumericalError, match="step 2"):
        method(Broken(), problem(), schedule(4, 3.0))
