"""FlowMatchingEditor on wan-tiny: the identity edit, encodings of keyframes, exact frame counts, failures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.lit.clips import FAST, edit_task, loaded, moving, tiny
from wanedit.errors import InputError, NumericalError, ResourceError
from wanedit.flow.covariance import Derivative, covariance_product
from wanedit.flow.editing import Method, at_slots
from wanedit.flow.keyframes import Controller, Covariance, Exponential, Replacement, Residual
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import interpolate, schedule
from wanedit.lit.edit_clip import EditSettings, encode_keyframes
from wanedit.lit.editor import FlowMatchingEditor, WanVideoModel
from wanedit.lit.velocity import GuidedVelocity
from wanedit.timeline import round_up, slots
from wanedit.video import from_uint8

CONTROLLERS = [
    Residual(),
    Residual(3.0, 0.5),
    Exponential(),
    Replacement(),
    Covariance(),
    Covariance("scalar"),
]


@pytest.fixture(scope="module")
def loaded_once() -> FlowMatchingEditor:
    """The networks and the prompts of `edit_task`; a test gives it its own settings through `editor`."""
    return loaded(edit_task(keyframes=moving(9)[[0, 8]]), CopySource())


@pytest.fixture
def editor(loaded_once: FlowMatchingEditor) -> FlowMatchingEditor:
    return using(loaded_once, ResidualCorrectedFlow(Exponential()))


def using(editor: FlowMatchingEditor, method: Method, settings: EditSettings = FAST) -> FlowMatchingEditor:
    """The same networks with another method and other settings."""
    editor.method, editor.settings = method, settings
    editor.schedule = schedule(settings.num_inference_steps, settings.shift)
    return editor


def identity(
    editor: FlowMatchingEditor, controller: Controller, edit_branch: str, changed: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of the source, and of an edit whose keyframes are the source's own plus `changed`."""
    task = edit_task(keyframes=moving(9)[[0, 8]], prompt="a red square")
    method = ResidualCorrectedFlow(controller, edit_branch=edit_branch)  # pyright: ignore[reportArgumentType]
    guided = replace(FAST, num_inference_steps=3, guidance_scale=2.0, source_guidance_scale=2.0)
    problem = using(editor, method, guided).problem(task, torch.device("cpu"))
    problem = replace(problem, edited=problem.edited + changed)
    with torch.no_grad():
        model = WanVideoModel(editor, task.size, task.negative_prompt)
        result = method(model, problem, editor.schedule)
    assert result.latents is not None
    return problem.source, result.latents


@pytest.mark.parametrize("edit_branch", ["analytic", "denoised"])
@pytest.mark.parametrize("controller", CONTROLLERS, ids=lambda c: f"{type(c).__name__}-{vars(c)}"[:40])
def test_an_edit_that_changes_nothing_gives_the_source_back(
    editor: FlowMatchingEditor, controller: Controller, edit_branch: str
) -> None:
    source, edited = identity(editor, controller, edit_branch)
    torch.testing.assert_close(edited, source, atol=1e-4, rtol=0)


@pytest.mark.parametrize("edit_branch", ["analytic", "denoised"])
def test_an_edit_that_changes_something_does_not(editor: FlowMatchingEditor, edit_branch: str) -> None:
    source, edited = identity(editor, Exponential(), edit_branch, changed=0.5)
    assert (edited - source).abs().max() > 0.1


def test_a_denoised_branch_that_is_told_what_the_clip_is_told_is_refused_for_it_corrects_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    editor = loaded(edit_task(), ResidualCorrectedFlow(edit_branch="denoised"))

    def largest_residual(*indices: int) -> float:
        task, norms = edit_task(indices=indices), []
        problem = editor.problem(task, torch.device("cpu"))
        with torch.no_grad():
            model = WanVideoModel(editor, task.size, task.negative_prompt)
            editor.method(
                model, problem, editor.schedule, lambda step, metrics: norms.append(metrics["r_k_norm"])
            )
        return max(norms)

    assert largest_residual(8) > 1e-2
    assert largest_residual(0, 8) > 1e-2
    with pytest.raises(InputError, match="is the main branch itself"):
        largest_residual(0)
    monkeypatch.setattr(ResidualCorrectedFlow, "_require_apart", lambda *_: None)
    assert largest_residual(0) < 1e-5


@pytest.mark.parametrize("frames", [9, 10])
@pytest.mark.parametrize("restore", ["source", "keyframes"])
def test_with_its_detail_restored_an_edit_that_changes_nothing_gives_the_very_pixels_back(
    editor: FlowMatchingEditor, frames: int, restore
) -> None:
    indices = (0, 3, 8)
    task = edit_task(frames, indices, keyframes=moving(frames)[list(indices)], prompt="a red square")
    made = loaded(task, editor.method, replace(FAST, restore=restore)).predict_step(task)
    assert np.array_equal(made.frames, task.frames)


def test_an_anchored_keyframe_differs_from_the_source_by_its_edit_alone(editor: FlowMatchingEditor) -> None:
    indices = (0, 3, 8)
    task = edit_task(9, indices, keyframes=moving(9)[list(indices)])
    far = {}
    for kind in ("warped", "anchored"):
        settings = replace(FAST, keyframe_encoding=kind)  # pyright: ignore[reportArgumentType]
        problem = using(editor, editor.method, settings).problem(task, torch.device("cpu"))
        far[kind] = float((problem.edited - at_slots(problem.source, problem.slots)).abs().max())
    assert far["anchored"] < 1e-5 < 0.05 < far["warped"]
    edited = using(editor, editor.method, FAST).problem(edit_task(9, indices), torch.device("cpu"))
    assert (edited.edited - problem.edited).abs().max() > 0.1


def test_restored_keyframes_are_met_exactly_and_the_rest_comes_nearer(editor: FlowMatchingEditor) -> None:
    task, truth = edit_task(10), moving(10, (20, 60, 250))
    gaps = {}
    for restore in ("none", "source", "keyframes"):
        settings = replace(FAST, restore=restore)  # pyright: ignore[reportArgumentType]
        made = loaded(task, editor.method, settings).predict_step(task).frames
        gaps[restore] = np.abs(made.astype(float) - truth).mean((1, 2, 3))
    assert gaps["keyframes"][[0, 8]].max() == 0 < gaps["source"][[0, 8]].min()
    assert gaps["keyframes"][1:8].mean() < gaps["none"][1:8].mean()


def encoded(editor: FlowMatchingEditor, kind: str, indices: tuple[int, ...] = (0, 8)) -> torch.Tensor:
    """x_e under one kind of encoding."""
    task = edit_task(indices=indices)
    model = WanVideoModel(editor, task.size, "")
    pixels = from_uint8(task.keyframes), from_uint8(task.frames)
    return encode_keyframes(model, *pixels, indices, kind).detach()  # pyright: ignore[reportArgumentType]


def test_keyframes_are_encoded_one_by_one(editor: FlowMatchingEditor) -> None:
    apart = encoded(editor, "single")
    keyframes = from_uint8(edit_task().keyframes)
    alone = [editor.encode(keyframes[None, :, k : k + 1]) for k in range(2)]
    assert torch.equal(apart, torch.cat(alone, dim=2))
    # The trap: as one clip of five frames the second keyframe would be read as motion.
    stacked = editor.encode(keyframes[None, :, [0, 1, 1, 1, 1]])
    torch.testing.assert_close(stacked[:, :, 0], apart[:, :, 0], atol=1e-5, rtol=0)
    assert (stacked[:, :, 1] - apart[:, :, 1]).abs().max() > 0.1


def test_encodings_differ_where_a_slot_has_four_frames(editor: FlowMatchingEditor) -> None:
    single, group, warped = (encoded(editor, kind) for kind in ("single", "group", "warped"))
    assert torch.equal(single[:, :, 0], group[:, :, 0])
    assert torch.equal(single[:, :, 0], warped[:, :, 0])
    for a, b in ((single, group), (single, warped), (group, warped)):
        assert (a[:, :, 1] - b[:, :, 1]).abs().max() > 0.01


def test_a_warped_keyframe_moves_as_the_source_does(editor: FlowMatchingEditor) -> None:
    # What the slot of the edited clip holds if the edit is carried through exactly.
    truth = editor.encode(from_uint8(moving(9, (20, 60, 250)))[None])[:, :, 2]
    far = {
        kind: float((encoded(editor, kind)[:, :, 1] - truth).detach().square().mean())
        for kind in ("single", "group", "warped")
    }
    assert far["warped"] < min(far["single"], far["group"])


@pytest.mark.parametrize("index", [1, 4, 5, 6])
def test_a_keyframe_is_warped_inside_its_own_slot(editor: FlowMatchingEditor, index: int) -> None:
    assert encoded(editor, "warped", (index,)).shape[2] == 1


@pytest.mark.parametrize("frames", range(1, 15))
def test_frame_counts_are_exact(editor: FlowMatchingEditor, frames: int) -> None:
    task = edit_task(frames, (frames - 1,))
    blind = replace(FAST, num_inference_steps=1, condition_keyframes=False)
    clip = using(editor, ResidualCorrectedFlow(Exponential()), blind).predict_step(task)
    assert clip.frames.shape == task.frames.shape
    assert clip.latents is not None
    assert clip.latents.shape == (16, slots(round_up(frames)), 4, 4)
    video = editor.problem(task, torch.device("cpu")).video
    assert video is not None
    assert video.shape[2] == round_up(frames)
    held = video[:, :, frames - 1 :]
    assert torch.equal(held, held[:, :, :1].expand_as(held))


def test_the_same_task_gives_the_same_bytes_whatever_happened_before(editor: FlowMatchingEditor) -> None:
    task = edit_task(keyframes=moving(9)[[0, 8]])
    first = editor.predict_step(task)
    torch.manual_seed(1)
    torch.randn(7)
    second, other = editor.predict_step(task), editor.predict_step(replace(task, seed=4))
    assert first.latents is not None
    assert second.latents is not None
    assert other.latents is not None
    assert torch.equal(first.latents, second.latents)
    assert not torch.equal(first.latents, other.latents)
    assert np.array_equal(first.frames, second.frames)


def test_every_step_is_measured_and_counted() -> None:
    task = edit_task()
    settings = replace(FAST, guidance_scale=2.0, source_guidance_scale=1.0)
    seen = []
    editor = FlowMatchingEditor(
        tiny(), ResidualCorrectedFlow(), settings, lambda clip, step, metrics: seen.append((clip, step.index))
    )
    editor.load([task])
    clip = editor.predict_step(task)
    assert seen == [(0, 0), (0, 1)]
    assert [line["step"] for line in clip.steps] == [0, 1]
    names = {"r_k_norm", "v_diff_norm", "delta_v_norm", "gain", "alpha_h", "keyframe_error", "sigma", "h"}
    assert all(names <= set(line) for line in clip.steps)
    # Two steps, each with a guided target (2 passes) and a plain source (1).
    assert clip.evaluations == 6


def test_a_method_of_pixels_has_no_latents(editor: FlowMatchingEditor) -> None:
    task = edit_task(7, (0,))
    clip = using(editor, CopySource()).predict_step(task)
    assert clip.latents is None
    assert np.array_equal(clip.frames, task.frames)
    assert (clip.evaluations, clip.steps) == (0, ())


def test_what_is_shown_can_be_turned_off(editor: FlowMatchingEditor) -> None:
    task = edit_task()
    shown = editor.problem(task, torch.device("cpu"))
    assert (set(shown.target.images), set(shown.reference.images)) == ({0, 8}, {0, 8})
    assert not torch.equal(shown.target.images[8], shown.reference.images[8])
    editor.settings = replace(FAST, condition_keyframes=False)
    hidden = editor.problem(task, torch.device("cpu"))
    assert not hidden.target.images
    assert not hidden.reference.images


@pytest.mark.fault(9)
def test_nan_names_clip_rank_and_step(editor: FlowMatchingEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    task = edit_task(index=5, keyframes=moving(9)[[0, 8]])
    original = GuidedVelocity.__call__
    calls = iter(range(100))

    def poisoned(self, x, step):
        return original(self, x, step) * (float("nan") if next(calls) == 2 else 1)

    monkeypatch.setattr(GuidedVelocity, "__call__", poisoned)
    with pytest.raises(NumericalError, match=r"clip 5, rank 0.*step 1"):
        editor.predict_step(task)


@pytest.mark.fault(30)
def test_running_out_of_memory_names_the_knobs(
    editor: FlowMatchingEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = edit_task(keyframes=moving(9)[[0, 8]])

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory\nmore")

    monkeypatch.setattr(GuidedVelocity, "__call__", full)
    with pytest.raises(ResourceError, match=r"clip 0 \(12 tokens\).*num_frames.*tile"):
        editor.predict_step(task)


def test_nothing_is_loaded_for_no_task() -> None:
    editor = FlowMatchingEditor(tiny(), CopySource(), FAST)
    editor.load([])
    assert editor.networks is None
    with pytest.raises(RuntimeError, match=r"nothing is loaded; call setup"):
        editor.loaded()


@pytest.mark.parametrize(
    ("derivative", "apart", "bound"),
    [("central", 3e-3, 1e-3), ("difference", 1e-3, 5e-3), ("difference", 1e-2, 3e-2)],
)
def test_differences_agree_with_the_exact_derivative(
    editor: FlowMatchingEditor, derivative: Derivative, apart: float, bound: float
) -> None:
    """In float32, of the trained network: `torch.func.jvp` against differences."""
    task = edit_task(keyframes=moving(9)[[0, 8]])
    with torch.no_grad():
        problem = editor.problem(task, torch.device("cpu"))
        velocity = WanVideoModel(editor, task.size, task.negative_prompt).velocity(problem.target, 3)
        step = next(step for step in schedule(8, 3.0) if step.sigma < 0.8)
        z = interpolate(problem.source, problem.noise, step.sigma)
        own, w = velocity(z, step), z.roll(1, dims=-1)
        exact = covariance_product(velocity, z, own, step, "forward")(w)
        near = covariance_product(velocity, z, own, step, derivative, apart)(w)
    # Without what Cov w has of w itself, which is no derivative.
    change = exact - step.sigma**2 / (1 - step.sigma) * w
    assert (near - exact).norm() < bound * change.norm()
