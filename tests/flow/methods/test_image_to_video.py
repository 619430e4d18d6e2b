"""First-frame I2V and FLF2V between keyframes, on a model whose clips are straight ramps."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.flow.problems import MEANS, Ramp, carried, gaussian, largest, pixel_edit, problem, refuses
from wanedit.errors import InputError
from wanedit.flow.editing import blend
from wanedit.flow.methods.first_frame import FirstFrame
from wanedit.flow.methods.flf2v import FLF2V, join
from wanedit.flow.path import schedule
from wanedit.flow.solvers import SOLVERS

PLAN = schedule(3, 3.0)


def ramps(keyframes: Tensor, frames: tuple[int, ...], total: int, drift: float) -> Tensor:
    """Straight lines between keyframes, onwards by `drift` a frame after the last and before the first."""
    out = []
    for t in range(total):
        at = [i for i, frame in enumerate(frames) if frame <= t]
        if not at:
            out.append(keyframes[:, :, 0] + drift * (frames[0] - t))
        elif at[-1] + 1 == len(frames):
            out.append(keyframes[:, :, -1] + drift * (t - frames[-1]))
        else:
            p, q = frames[at[-1]], frames[at[-1] + 1]
            share = (t - p) / (q - p)
            out.append(keyframes[:, :, at[-1]] * (1 - share) + keyframes[:, :, at[-1] + 1] * share)
    return torch.stack(out, dim=2)


@given(
    st.sets(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 3), st.sampled_from(sorted(SOLVERS))
)
@settings(max_examples=25, deadline=None)
def test_every_frame_is_where_it_belongs(places: set[int], more: int, solver: str) -> None:
    """Uneven gaps: segments of n frames are sampled at 4n+1 and retimed, so that a ramp stays the same ramp."""
    frames = tuple(sorted({4 * -(-p // 4): p for p in places}.values()))  # one in a slot
    total = 4 * (-(-frames[-1] // 4) + more) + 1
    edit = pixel_edit(frames, total)
    assert edit.keyframes is not None
    made = FLF2V(solver=solver, before="reverse")(Ramp(0.1), edit, schedule(3, 3.0, solver))
    assert made.latents is None
    assert made.pixels is not None
    assert made.pixels.shape == (1, 3, total, 4, 6)
    assert largest(made.pixels - ramps(edit.keyframes, frames, total, 0.1)) < 1e-10


def test_what_each_segment_is_shown_and_asked_for() -> None:
    model, edit = Ramp(), pixel_edit((0, 5, 14, 17), 25)
    seen = []
    FLF2V(guidance_scale=4.0)(
        model, edit, PLAN, lambda step, metrics: seen.append((step.index, metrics["piece"]))
    )
    assert edit.keyframes is not None
    # 6, 10 and 4 frames, then 8 that are open: sampled at 9, 13, 5 and 9.
    assert [sorted(view.images) for view in model.views] == [[0, 8], [0, 12], [0, 4], [0]]
    for j, view in enumerate(model.views):
        assert torch.equal(view.images[0], edit.keyframes[0, :, j])
        assert (view.prompt, view.guidance_scale) == ("a dog", 4.0)
    for j, view in enumerate(model.views[:3]):
        assert torch.equal(view.images[max(view.images)], edit.keyframes[0, :, j + 1])
    assert model.evaluations == 4 * len(PLAN)
    assert seen == [(i, float(piece)) for piece in range(4) for i in range(len(PLAN))]


def test_segments_have_noise_of_their_own() -> None:
    starts: list[Tensor] = []

    class Watching(Ramp):
        def velocity(self, view, slots):
            inner = super().velocity(view, slots)
            return lambda z, step: (starts.append(z) if step.index == 0 else None) or inner(z, step)

    edit = pixel_edit((0, 8, 16), 17)
    torch.manual_seed(1)
    FLF2V(seed=3)(Watching(), edit, PLAN)
    torch.manual_seed(2)
    FLF2V(seed=3)(Watching(), edit, PLAN)
    FLF2V(seed=4)(Watching(), edit, PLAN)
    first, second, again, _, other, _ = starts
    assert torch.equal(first, again)
    for a, b in ((first, second), (first, other)):
        assert largest(a - b) > 0.5


def test_a_segment_does_not_depend_on_keyframes_of_others() -> None:
    edit = pixel_edit((0, 8, 16), 17)
    assert edit.keyframes is not None
    changed = edit.keyframes.clone()
    changed[:, :, 2] += 1
    made = [FLF2V()(Ramp(), e, PLAN).pixels for e in (edit, replace(edit, keyframes=changed))]
    assert made[0] is not None
    assert made[1] is not None
    assert torch.equal(made[0][:, :, :8], made[1][:, :, :8])
    assert largest(made[0][:, :, 9:] - made[1][:, :, 9:]) > 0.1


def test_the_retime_function_gets_what_was_sampled() -> None:
    asked = []

    def retime(video: Tensor, count: int) -> Tensor:
        asked.append((video.shape[2], count))
        return blend(video, count)

    FLF2V()(Ramp(), replace(pixel_edit((0, 3, 12, 16), 17), retime=retime), PLAN)
    assert asked == [(5, 4), (13, 10)]  # five frames from 12 to 16 are sampled as they are
    with pytest.raises(InputError, match="retime gave 9 frames from 9; expected 6"):
        FLF2V()(Ramp(), replace(pixel_edit((0, 5), 9), retime=lambda video, count: video), PLAN)


def test_a_first_keyframe_later_than_frame_0_is_refused_unless_asked() -> None:
    with pytest.raises(
        InputError, match="first edited keyframe is at frame 3; expected one at frame 0, or before"
    ):
        FLF2V()(Ramp(), pixel_edit((3, 8), 9), PLAN)


@pytest.mark.parametrize(("sampled", "count"), [(5, 2), (9, 6), (13, 12), (9, 9), (5, 7)])
def test_blend(sampled: int, count: int) -> None:
    """Both ends bit for bit; a straight line stays one; whole positions stay whole."""
    video = pixel_edit((0,), sampled if sampled % 4 == 1 else 5).video
    assert video is not None
    made = blend(video, count)
    assert made.shape[2] == count
    assert torch.equal(made[:, :, 0], video[:, :, 0])
    assert torch.equal(made[:, :, -1], video[:, :, -1])
    line = torch.linspace(0, 1, sampled, dtype=torch.float64)[:, None, None].expand(1, 3, sampled, 2, 2)
    straight = torch.linspace(0, 1, count, dtype=torch.float64)[:, None, None].expand(1, 3, count, 2, 2)
    assert largest(blend(line, count) - straight) < 1e-12
    if sampled == count:
        assert torch.equal(made, video)


def test_a_shared_frame_is_the_mean_of_both() -> None:
    pieces = [
        torch.full((1, 3, 4, 2, 2), 1.0),
        torch.full((1, 3, 3, 2, 2), 3.0),
        torch.full((1, 3, 2, 2, 2), 7.0),
    ]
    assert join(pieces)[0, 0, :, 0, 0].tolist() == [1, 1, 1, 2, 3, 5, 7]


def test_first_frame_shows_the_first_keyframe_alone() -> None:
    model, edit = Ramp(0.2), pixel_edit((0, 6, 16), 17)
    shown = replace(edit.target, images={16: torch.zeros(3, 4, 6, dtype=torch.float64)})
    made = FirstFrame()(model, replace(edit, target=shown), PLAN).latents
    assert made is not None
    assert edit.keyframes is not None
    (view,) = model.views
    assert list(view.images) == [0]
    assert torch.equal(view.images[0], edit.keyframes[0, :, 0])
    assert largest(model.decode(made) - ramps(edit.keyframes[:, :, :1], (0,), 17, 0.2)) < 1e-12


@pytest.mark.parametrize("solver", sorted({*SOLVERS} - {"renoise"}))  # those of the ODE
def test_first_frame_samples_from_the_noise_of_the_edit(solver: str) -> None:
    edit = problem((0,))
    edit = replace(
        edit,
        source=edit.source[:1],
        edited=edit.edited[:1],
        noise=edit.noise[:1],
        keyframes=edit.edited[:1],
        frames=(0,),
    )
    plan = schedule(300 if solver == "euler" else 80, 1.0, solver)
    made = FirstFrame(solver=solver)(gaussian(), edit, plan).latents
    assert made is not None
    exact = carried(edit.noise, MEANS["a dog"], 1.0, 0.0)
    assert largest(made - exact) < (0.03 if solver == "euler" else 0.01)


@pytest.mark.parametrize("method", [FirstFrame(), FLF2V()], ids=["first_frame", "flf2v"])
def test_what_cannot_be_shown_is_refused(method) -> None:
    edit = pixel_edit((0, 8), 9)
    assert edit.keyframes is not None
    with pytest.raises(InputError, match="expected one at frame 0"):
        method(Ramp(), pixel_edit((4, 8), 9), PLAN)
    with pytest.raises(InputError, match="no pixels for 2 edited keyframes"):
        method(Ramp(), replace(edit, keyframes=None), PLAN)
    with pytest.raises(InputError, match="0 frames and some pixels for 2 edited keyframes"):
        method(Ramp(), replace(edit, frames=()), PLAN)
    two = {
        name: torch.cat([getattr(edit, name)] * 2)
        for name in ("source", "edited", "noise", "video", "keyframes")
    }
    with pytest.raises(InputError, match="a batch of 2 clips; a view shows the keyframes of 1"):
        method(Ramp(), replace(edit, **two), PLAN)
    assert edit.video is not None
    with pytest.raises(InputError, match=r"keyframes are at \[0, 8\]; expected 0 … 7"):
        method(Ramp(), replace(edit, video=edit.video[:, :, :8]), PLAN)


def test_a_source_that_is_not_4n_plus_1_long_is_matched() -> None:
    edit = pixel_edit((0, 6), 13)
    assert edit.video is not None
    made = FLF2V()(Ramp(), replace(edit, video=edit.video[:, :, :11]), PLAN).pixels
    assert made is not None
    assert made.shape[2] == 11
    made = FLF2V()(Ramp(), replace(edit, video=None), PLAN).pixels
    assert made is not None
    assert made.shape[2] == 13


@pytest.mark.parametrize("method", [FirstFrame(), FLF2V()], ids=["first_frame", "flf2v"])
def test_bad_solvers_are_refused(method) -> None:
    refuses(replace(method), "solver is 'rk4'", solver="rk4")


def test_bad_settings_are_refused() -> None:
    refuses(FLF2V(), "before is 'hold'; expected 'refuse' or 'reverse'", before="hold")


def test_neighbouring_frames_make_the_shortest_clip() -> None:
    """Keyframes at 4 and 5 are in neighbouring slots, one frame apart: two frames, sampled at five."""
    model, edit = Ramp(), pixel_edit((0, 4, 5), 9)
    made = FLF2V()(model, edit, PLAN).pixels
    assert made is not None
    assert edit.keyframes is not None
    assert sorted(model.views[1].images) == [0, 4]
    for k, frame in enumerate(edit.frames):
        assert largest(made[:, :, frame] - edit.keyframes[:, :, k]) < 1e-12
    assert all(q > p for p, q in pairwise(edit.frames))
