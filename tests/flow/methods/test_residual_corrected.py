"""The project's own method: exactness of the identity, the joint branch, what is refused, what it costs."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flow.problems import (
    MEANS,
    SHAPE,
    SLOTS,
    Mixing,
    across,
    carried,
    column,
    draw,
    gaussian,
    largest,
    problem,
    refuses,
    smooth,
)
from wanedit.errors import InputError, NumericalError
from wanedit.flow.keyframes import Branches, Correction, Covariance, Exponential, Replacement, Residual
from wanedit.flow.methods.flowedit import FlowEdit
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import interpolate, schedule

CONTROLLERS = [
    Residual(),
    Residual(5.0, 3.0),
    Exponential(),
    Replacement(),
    Covariance(),
    Covariance("scalar"),
]


@pytest.mark.parametrize("controller", CONTROLLERS, ids=repr)
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("branch", ["analytic", "denoised"])
@pytest.mark.parametrize("renew", [False, True])
def test_an_edit_that_changes_nothing_gives_the_source_back(
    controller, strength: float, branch, renew: bool
) -> None:
    method = ResidualCorrectedFlow(controller, strength=strength, edit_branch=branch, renew_noise=renew)
    edit = problem(identity=True)
    made = method(Mixing(), edit, schedule(30, 3.0)).latents
    assert made is not None
    assert largest(made - edit.source) < 1e-11


@given(st.sets(st.integers(0, SLOTS - 1), min_size=1), st.integers(1, 25), st.floats(0.5, 16))
@settings(max_examples=20, deadline=None)
def test_the_identity_holds_for_any_keyframes_and_schedule(slots: set[int], steps: int, shift: float) -> None:
    edit = problem(tuple(sorted(slots)), identity=True, guidance=4.0)
    made = ResidualCorrectedFlow(Exponential())(gaussian(), edit, schedule(steps, shift)).latents
    assert made is not None
    assert largest(made - edit.source) < 1e-11


def test_without_the_source_the_identity_is_lost() -> None:
    """So that the tests above can fail."""
    edit = problem(identity=True)
    made = ResidualCorrectedFlow(Exponential(), source_weight=0.0)(
        gaussian(), edit, schedule(30, 3.0)
    ).latents
    assert made is not None
    assert largest(made - edit.source) > 0.1


def test_without_a_controller_the_gaussian_edit_moves_by_the_difference_of_the_means() -> None:
    """v is affine: u = z - z_s obeys du/dsigma = A (u - (1 - sigma) delta) - delta, solved by u = (1 - sigma) delta.

    That is a straight line, so Euler's steps are exact, however few.
    """
    edit = problem()
    delta = column(MEANS["a dog"] - MEANS["a cat"])
    made = ResidualCorrectedFlow(Residual(0.0))(gaussian(), edit, schedule(5, 3.0)).latents
    assert made is not None
    assert largest(made - edit.source - delta) < 1e-12


@pytest.mark.parametrize("kind", [gaussian, Mixing])
def test_with_fresh_noise_and_no_controller_it_is_flowedit(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ordinary differential equation in other coordinates: z - sigma (eps - x_s) is FlowEdit's z."""

    def drawn(
        shape: torch.Size, like: torch.Tensor, seed: int, name: str, step: int, *rest: int
    ) -> torch.Tensor:
        return draw(*shape, seed=step)

    for module in ("residual_corrected", "flowedit"):
        monkeypatch.setattr(f"wanedit.flow.methods.{module}.fresh_noise", drawn)
    plan = schedule(12, 3.0)
    ours = ResidualCorrectedFlow(Residual(0.0), strength=0.9, renew_noise=True)
    theirs = FlowEdit(len(plan.after(0.9)), guidance_scale=None, source_guidance_scale=None)
    edit = problem(guidance=2.0)
    made, expected = ours(kind(), edit, plan).latents, theirs(kind(), edit, plan).latents
    assert made is not None
    assert expected is not None
    assert largest(expected - edit.source) > 0.1
    assert largest(made - expected) < 1e-10


@pytest.mark.parametrize("branch", ["analytic", "denoised"])
def test_both_branches_are_moved(branch) -> None:
    """What the controller leaves of the difference is what it finds at the next step."""
    states = []

    class Watched(Residual):
        def __call__(self, state: Branches) -> Correction:
            states.append(state)
            return super().__call__(state)

    method = ResidualCorrectedFlow(Watched(2.0, 3.0), edit_branch=branch)
    method(Mixing(), problem(), schedule(6, 3.0))
    for before, after in pairwise(states):
        assert largest(after.z_diff - (1 - 5 * before.step.h) * before.residual) < 1e-12
    assert largest(states[-1].z_diff) > 1e-3


def test_without_source_and_controller_it_is_sampling() -> None:
    edit = problem()
    made = ResidualCorrectedFlow(Residual(0.0), 0.0)(gaussian(), edit, schedule(300, 1.0)).latents
    assert made is not None
    assert largest(made - carried(edit.noise, MEANS["a dog"], 1.0, 0.0)) < 0.03


def test_covariance_control_propagates_the_edit_as_the_data_do() -> None:
    """Equal prompts: what is left beside the keyframes is C[:, K] C[K, K]^-1 (x_e - x_s[K]), the regression on K.

    With residual-corrected flow u = z - z_s follows the flow of mean zero from 0, conditioned on u[K] = x_e - x_s[K].
    """
    edit = problem((1, 3))
    edit = replace(edit, target=edit.reference)
    plan = schedule(100, 1.0)
    made = ResidualCorrectedFlow(Covariance("full", tolerance=1e-10, iterations=20))(
        gaussian(), edit, plan
    ).latents
    assert made is not None
    change = edit.edited - edit.source[:, :, [1, 3]]
    c, k = smooth(), [1, 3]
    expected = across(c[:, k] @ torch.linalg.inv(c[k][:, k]), change)
    assert largest((made - edit.source)[:, :, k] - change) < 1e-8
    error = largest(made - edit.source - expected)
    assert error < 0.05 * largest(change)
    still = ResidualCorrectedFlow(Replacement())(gaussian(), edit, plan).latents
    assert still is not None
    assert largest(still - edit.source - expected) > 3 * error


def test_replacement_ends_on_the_keyframes() -> None:
    edit = problem()
    made = ResidualCorrectedFlow(Replacement())(gaussian(), edit, schedule(9, 5.0)).latents
    assert made is not None
    assert largest(made[:, :, list(edit.slots)] - edit.edited) < 1e-12


def test_too_strong_a_residual_controller_diverges_and_the_exponential_does_not() -> None:
    edit, plan = problem(), schedule(20, 5.0)
    off = {}
    for controller in (Residual(200.0, switch=False), Residual(200.0), Exponential(200.0)):
        made = ResidualCorrectedFlow(controller)(gaussian(), edit, plan).latents
        assert made is not None
        off[controller] = largest(made[:, :, list(edit.slots)] - edit.edited)
    assert off[Residual(200.0, switch=False)] > 1
    assert off[Residual(200.0)] < 1e-6
    assert off[Exponential(200.0)] < 1e-6


def test_the_joint_sequence_is_told_where_its_slots_stand() -> None:
    model, edit = Mixing(), problem((1, 3))
    ResidualCorrectedFlow(Residual(), edit_branch="denoised")(model, edit, schedule(3, 3.0))
    target, source = model.views
    for view in (target, source):
        assert view.frame_ids == (0, 1, 2, 3, 4, 1, 3)
        assert view.joint == 2
    assert target.prompt == "a dog"
    assert source.prompt == "a cat"
    assert target.appended is edit.edited
    assert source.appended is not None
    assert torch.equal(source.appended, edit.source[:, :, [1, 3]])


def test_keyframes_may_stand_at_their_own_fractional_time() -> None:
    model, edit = Mixing(), problem((1, 3))
    method = ResidualCorrectedFlow(Residual(1.0), edit_branch="denoised", keyframe_ids="frame")
    method(model, replace(edit, frames=(2, 11)), schedule(2, 3.0))
    assert all(view.frame_ids[-2:] == (0.5, 2.75) for view in model.views if view.frame_ids)
    assert len(model.views) == 2
    refuses(method, "keyframe_ids", keyframe_ids="pixel")
    with pytest.raises(InputError, match="need the frames"):
        method(model, replace(edit, frames=()), schedule(2, 3.0))


def test_the_joint_sequence_moves_the_clip_without_any_controller() -> None:
    """The network reads the keyframes: what an edit of one keyframe changes falls off with the distance."""
    edit = problem((1,))
    edit = replace(edit, target=edit.reference)
    method = ResidualCorrectedFlow(Residual(0.0), edit_branch="denoised")
    made = method(Mixing(), edit, schedule(20, 3.0)).latents
    assert made is not None
    moved = [largest(made[:, :, s] - edit.source[:, :, s]) for s in range(SLOTS)]
    assert moved[1] == max(moved)
    assert moved[1] > 0.1
    assert moved[2] > moved[3] > moved[4] > 0


def test_the_refused_run_would_have_reported_nothing_but_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both branches from one noise, at one position, told nothing: they are one, whatever the edit."""
    said = "a denoised edit branch that starts from pure noise"
    refuses(ResidualCorrectedFlow(edit_branch="denoised"), said, show_keyframes=False)
    blind = ResidualCorrectedFlow(edit_branch="denoised")
    object.__setattr__(blind, "show_keyframes", False)
    with pytest.raises(InputError, match="is the main branch itself"):
        blind(Mixing(), problem(), schedule(10, 3.0))
    monkeypatch.setattr(ResidualCorrectedFlow, "_require_apart", lambda *_: None)
    norms = []
    blind(Mixing(), problem(), schedule(10, 3.0), lambda step, metrics: norms.append(metrics["r_k_norm"]))
    assert max(norms) < 1e-12
    shown = []
    method = ResidualCorrectedFlow(edit_branch="denoised")
    method(Mixing(), problem(), schedule(10, 3.0), lambda step, metrics: shown.append(metrics["r_k_norm"]))
    assert max(shown) > 0.1


def test_partial_noise_may_leave_the_keyframes_unshown() -> None:
    method = ResidualCorrectedFlow(edit_branch="denoised", strength=0.5, show_keyframes=False)
    norms = []
    method(Mixing(), problem(), schedule(10, 1.0), lambda step, metrics: norms.append(metrics["r_k_norm"]))
    assert norms[0] > 0.1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"strength": 0.0}, r"strength is 0; expected a number in \(0, 1\]"),
        ({"strength": 1.5}, r"strength is 1\.5"),
        ({"strength": math.nan}, "strength is nan"),
        ({"source_weight": math.inf}, "source_weight is inf"),
        ({"source_weight": 0.5, "renew_noise": True}, "renew_noise with source_weight 0.5"),
        ({"edit_branch": "free"}, "edit_branch is 'free'; expected 'analytic' or 'denoised'"),
        (
            {"derivative": "backward"},
            "derivative is 'backward'; expected one of difference, central, forward",
        ),
    ],
)
def test_bad_settings_are_refused(fields: dict, said: str) -> None:
    refuses(ResidualCorrectedFlow(), said, **fields)


@pytest.mark.parametrize(
    ("method", "a_step"),
    [
        (ResidualCorrectedFlow(Residual()), 2),
        (ResidualCorrectedFlow(Residual(), source_weight=0.0), 1),
        (ResidualCorrectedFlow(Residual(), edit_branch="denoised"), 2),
        (ResidualCorrectedFlow(Residual(), guidance_scale=5.0), 3),
        (ResidualCorrectedFlow(Residual(), guidance_scale=5.0, source_guidance_scale=5.0), 4),
        (ResidualCorrectedFlow(Covariance("scalar", below=0.9999)), 3),
        (ResidualCorrectedFlow(Covariance("scalar", below=0.9999), guidance_scale=5.0), 5),
        (ResidualCorrectedFlow(Covariance("scalar", below=0.9999), derivative="central"), 4),
        (ResidualCorrectedFlow(Covariance("scalar", below=0.9999), derivative="forward"), 3),
        # Two keyframes: the second column of conjugate residuals is exact.
        (ResidualCorrectedFlow(Covariance("full", below=0.9999, tolerance=1e-6)), 2 + 2),
        (ResidualCorrectedFlow(Covariance("full", below=0.9999, iterations=1)), 2 + 1),
    ],
)
def test_evaluations(method: ResidualCorrectedFlow, a_step: int) -> None:
    model = gaussian() if method.edit_branch == "analytic" else Mixing()
    plan = schedule(10, 3.0).after(0.99)
    method(model, problem(), plan)
    assert model.evaluations == a_step * len(plan)


def test_observe_sees_every_step_with_the_numbers_of_the_design() -> None:
    seen = []
    plan = schedule(7, 3.0)
    ResidualCorrectedFlow(Residual(4.0))(gaussian(), problem(), plan, lambda *pair: seen.append(pair))
    assert [step for step, _ in seen] == list(plan)
    wanted = {"r_k_norm", "v_diff_norm", "delta_v_norm", "gain", "alpha_h", "keyframe_error"}
    for step, metrics in seen:
        assert wanted <= set(metrics)
        assert metrics["alpha_h"] == pytest.approx(4 * step.h)
    # Coupled noise: at pure noise both branches are one, and all of r is the step's own -h v_diff.
    assert seen[0][1]["r_k_norm"] == pytest.approx(plan.sigmas[0] * seen[0][0].h * seen[0][1]["v_diff_norm"])


def test_strength_starts_from_the_noised_source_and_keyframes() -> None:
    starts = []

    class Watching(Mixing):
        def velocity(self, view, slots):
            inner = super().velocity(view, slots)
            return lambda z, step: starts.append(z) or inner(z, step)

    edit, plan = problem(), schedule(10, 1.0)
    ResidualCorrectedFlow(Residual(), strength=0.55)(Watching(), edit, plan)
    assert torch.equal(starts[0], interpolate(edit.source, edit.noise, plan.sigmas[5]))


def test_a_velocity_that_is_not_finite_names_its_step() -> None:
    class Broken(Mixing):
        def velocity(self, view, slots):
            inner = super().velocity(view, slots)
            return lambda z, step: inner(z, step) * (math.nan if step.index == 2 else 1)

    with pytest.raises(NumericalError, match="step 2"):
        ResidualCorrectedFlow()(Broken(), problem(), schedule(5, 3.0))


def test_clips_of_a_batch_do_not_meet() -> None:
    """Each row alone gives the same as in a batch of two."""
    edit, plan = problem(), schedule(12, 3.0)
    assert SHAPE[0] == 2
    for controller in CONTROLLERS:
        method = ResidualCorrectedFlow(controller, derivative="forward")
        both = method(Mixing(), edit, plan).latents
        assert both is not None
        for b in range(2):
            one = slice(b, b + 1)
            row = replace(edit, source=edit.source[one], edited=edit.edited[one], noise=edit.noise[one])
            alone = method(Mixing(), row, plan).latents
            assert alone is not None
            assert largest(alone - both[one]) < 1e-7
