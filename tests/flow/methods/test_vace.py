"""Masked video: what the model is given of keyframes and source, and that nothing else is asked."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from tests.flow.methods.test_trivial import known_flow, moving, still
from tests.flow.problems import pixel_edit, refuses
from wanedit.errors import InputError
from wanedit.flow.editing import Edit, View
from wanedit.flow.methods.vace import MaskedVideo
from wanedit.flow.path import Step, schedule

PLAN = schedule(3, 3.0, "unipc")


@dataclass
class Taught:
    """A model that makes exactly the video that it is given, its images over it; VAE stride 4 in time."""

    views: list[View] = field(default_factory=list)
    evaluations: int = 0

    def velocity(self, view: View, slots: int):
        self.views.append(view)
        assert view.video is not None
        clip = view.video.clone()
        for frame, image in view.images.items():
            clip[:, frame] = image

        def velocity(z: Tensor, step: Step) -> Tensor:
            self.evaluations += 1
            return (z - clip[None, :, ::4]) / step.sigma

        return velocity

    def encode(self, video: Tensor) -> Tensor:
        return video[:, :, ::4]

    def decode(self, latents: Tensor) -> Tensor:
        raise AssertionError("a method that makes latents decodes nothing")


def told(method: MaskedVideo, edit: Edit) -> tuple[View, Tensor]:
    model = Taught()
    made = method(model, edit, PLAN)
    (view,), latents = model.views, made.latents
    assert latents is not None
    assert model.evaluations == len(PLAN)
    assert view.prompt == edit.target.prompt
    assert list(view.images) == list(edit.frames)
    assert view.video is not None
    assert view.mask is not None
    assert edit.keyframes is not None
    for k, frame in enumerate(edit.frames):
        assert torch.equal(view.images[frame], edit.keyframes[0, :, k])
        if frame % 4 == 0:
            assert (latents[:, :, frame // 4] - edit.keyframes[:, :, k]).abs().max() < 1e-6
    return view, latents


def with_square(frames: tuple[int, ...] = (0, 8), step: tuple[int, int] = (1, 0)) -> Edit:
    """A picture that moves by `step`; in each keyframe a square of 4 x 4 that moves along is edited."""
    edit = moving(step, frames, 9)
    assert edit.video is not None
    keyframes = edit.video[:, :, list(frames)].clone()
    for k, frame in enumerate(frames):
        keyframes[:, 0, k, 6:10, 4 + frame : 8 + frame] += 0.7
    return replace(edit, keyframes=keyframes, edited=keyframes, flow=known_flow(edit.video, step))


def test_the_source_is_kept_outside_of_the_edit_which_moves_along() -> None:
    edit = with_square()
    view, _ = told(MaskedVideo(grow=0), edit)
    assert view.mask is not None
    assert view.video is not None
    assert edit.video is not None
    for t in range(9):
        square = torch.zeros(16, 20, dtype=torch.float64)
        square[6:10, 4 + t : 8 + t] = 1
        assert torch.equal(view.mask[t], square), t
    assert torch.equal(view.video, edit.video[0] * (1 - view.mask))


def test_the_region_is_widened_on_every_side() -> None:
    edit = with_square()
    plain, wide = (told(MaskedVideo(grow=grow), edit)[0].mask for grow in (0, 2))
    assert plain is not None
    assert wide is not None
    assert int(plain[4].sum()) == 16
    assert int(wide[4].sum()) == 64
    assert bool((wide >= plain).all())


def test_a_keyframe_without_an_edit_changes_nothing() -> None:
    edit = with_square()
    assert edit.video is not None
    same = edit.video[:, :, list(edit.frames)]
    view, latents = told(MaskedVideo(), replace(edit, keyframes=same, edited=same))
    assert view.mask is not None
    assert not view.mask.any()
    assert (latents - edit.source).abs().max() < 1e-6


@pytest.mark.parametrize("source", ["luminance", "video", "none"])
def test_what_is_to_be_changed_is_the_whole_source_or_nothing(source) -> None:
    edit = replace(pixel_edit((0, 5, 12), 17), flow=still)
    view, _ = told(MaskedVideo(source), edit)
    assert view.mask is not None
    assert view.video is not None
    assert edit.video is not None
    assert (view.mask == 1).all()
    if source == "video":
        assert torch.equal(view.video, edit.video[0])
    elif source == "none":
        assert not view.video.any()
    else:
        assert torch.equal(view.video[0], view.video[2])
        grey = torch.ones(1, 3, 17, 4, 6, dtype=torch.float64) * 0.25
        same, _ = told(MaskedVideo(source), replace(edit, video=grey, source=grey[:, :, ::4]))
        assert same.video is not None
        assert (same.video - grey[0]).abs().max() < 1e-12, "grey stays grey"


def test_what_it_cannot_do_is_refused() -> None:
    edit = pixel_edit((0, 4), 9)
    with pytest.raises(InputError, match="an edit without pixels or optical flow"):
        MaskedVideo()(Taught(), edit, PLAN)
    refuses(MaskedVideo(), "source is 'all'; expected one of region, luminance, video, none", source="all")
    refuses(MaskedVideo(), "threshold is 0 and grow 8", threshold=0.0)
    refuses(MaskedVideo(), "threshold is 0.1 and grow -1", grow=-1)
    assert MaskedVideo("region").doubts(PLAN, (1.0, None)) == []
    assert "colours nothing is seen" in MaskedVideo("luminance").doubts(PLAN, (1.0, None))[0]
    assert "not on a video in colour" in MaskedVideo("video").doubts(PLAN, (1.0, None))[0]
