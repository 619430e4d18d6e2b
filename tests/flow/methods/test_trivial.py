"""The methods that ask no model: copying the source, and warping the nearest keyframe."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.flow.problems import draw, gaussian, largest, pixel_edit, problem
from wanedit.errors import InputError
from wanedit.flow.editing import Edit
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.methods.warp import WarpNearestKeyframe, backward_warp
from wanedit.flow.path import schedule

PLAN = schedule(3, 3.0)


def test_a_copy_is_the_source() -> None:
    edit = pixel_edit((0, 4), 9)
    made = CopySource()(gaussian(), edit, PLAN)
    assert made.pixels is edit.video
    assert made.latents is None
    latents = CopySource()(gaussian(), problem(), PLAN)
    assert latents.latents is not None
    assert torch.equal(latents.latents, problem().source)


def moving(step: tuple[int, int], frames: tuple[int, ...], total: int) -> Edit:
    """A picture that moves by `step` pixels (x, y) a frame, wrapping round; keyframes are its frames recoloured."""
    picture = draw(1, 3, 16, 20)
    video = torch.stack(
        [torch.roll(picture, (t * step[1], t * step[0]), dims=(-2, -1)) for t in range(total)], dim=2
    )
    edit = pixel_edit(frames, total, (16, 20))
    return replace(edit, video=video, source=video[:, :, ::4], noise=video[:, :, ::4], edited=video[:, :, list(frames)],
                   keyframes=0.5 * video[:, :, list(frames)] + 0.1)  # fmt: skip


def known_flow(video: Tensor, step: tuple[int, int]):
    """The true motion from frame a to frame b, told from the frames themselves."""

    def when(frame: Tensor) -> int:
        return next(t for t in range(video.shape[2]) if torch.equal(video[:, :, t], frame))

    def flow(a: Tensor, b: Tensor) -> Tensor:
        apart = when(b) - when(a)
        return torch.tensor(step, dtype=a.dtype)[None, :, None, None].expand(1, 2, *a.shape[-2:]) * apart

    return flow


def still(a: Tensor, b: Tensor) -> Tensor:
    """The optical flow of a picture that does not move."""
    return torch.zeros(1, 2, 4, 6, dtype=torch.float64)


@pytest.mark.parametrize("step", [(1, 0), (0, -1), (-1, 1)])
def test_a_known_translation_is_undone(step: tuple[int, int]) -> None:
    edit = moving(step, (0, 8), 9)
    assert edit.video is not None
    edit = replace(edit, flow=known_flow(edit.video, step))
    made = WarpNearestKeyframe()(gaussian(), edit, PLAN).pixels
    assert edit.video is not None
    assert made is not None
    expected = 0.5 * edit.video + 0.1
    # At most four frames from a keyframe, so four pixels at the border may come from outside the picture.
    assert largest((made - expected)[..., 4:-4, 4:-4]) < 1e-12
    for frame in (0, 8):
        assert torch.equal(made[:, :, frame], expected[:, :, frame])
    assert largest(made - expected) > 0.1  # the border, where nothing is known


def test_half_a_pixel_is_the_mean_of_two() -> None:
    picture = draw(2, 3, 5, 7)
    half = torch.tensor([0.5, 0.0], dtype=torch.float64)[None, :, None, None].expand(2, 2, 5, 7)
    assert (
        largest(backward_warp(picture, half)[..., :-1] - (picture[..., :-1] + picture[..., 1:]) / 2) < 1e-12
    )
    down = half.flip(1)
    assert (
        largest(backward_warp(picture, down)[..., :-1, :] - (picture[..., :-1, :] + picture[..., 1:, :]) / 2)
        < 1e-12
    )


def test_beyond_the_border_is_the_border() -> None:
    picture = draw(1, 3, 5, 7)
    far = torch.full((1, 2, 5, 7), -100.0, dtype=torch.float64)
    assert largest(backward_warp(picture, far) - picture[..., :1, :1]) < 1e-12
    assert backward_warp(picture[..., :1, :1], far[..., :1, :1]).shape == (1, 3, 1, 1)


def test_warping_keeps_float32() -> None:
    assert backward_warp(draw(1, 3, 5, 7).float(), torch.zeros(1, 2, 5, 7)).dtype == torch.float32


def test_the_nearest_keyframe_is_the_earlier_of_two_as_near() -> None:
    edit = pixel_edit((1, 5, 10), 13)
    levels = torch.arange(3, dtype=torch.float64)[:, None, None]
    edit = replace(edit, keyframes=levels.expand(1, 3, 3, 4, 6).clone(), flow=still)
    made = WarpNearestKeyframe()(gaussian(), edit, PLAN).pixels
    assert made is not None
    assert made[0, 0, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_the_flow_is_asked_from_each_frame_to_its_keyframe() -> None:
    edit = pixel_edit((0, 6), 9)
    video = edit.video
    assert video is not None
    asked = []

    def flow(a: Tensor, b: Tensor) -> Tensor:
        asked.append((a, b))
        return torch.zeros(1, 2, 4, 6, dtype=torch.float64)

    WarpNearestKeyframe()(gaussian(), replace(edit, flow=flow), PLAN)
    pairs = [(1, 0), (2, 0), (3, 0), (4, 6), (5, 6), (7, 6), (8, 6)]
    assert len(asked) == len(pairs)
    for (a, b), (t, at) in zip(asked, pairs, strict=True):
        assert torch.equal(a, video[:, :, t])
        assert torch.equal(b, video[:, :, at])


def test_warping_needs_pixels() -> None:
    edit = replace(pixel_edit((0, 4), 9), flow=still)
    method = WarpNearestKeyframe()
    with pytest.raises(InputError, match="an edit without an optical flow"):
        method(gaussian(), replace(edit, flow=None), PLAN)
    for change in ({"video": None}, {"keyframes": None}, {"frames": ()}):
        with pytest.raises(InputError, match="an edit without pixels"):
            method(gaussian(), replace(edit, **change), PLAN)
    assert edit.video is not None
    with pytest.raises(InputError, match=r"keyframes are at \[0, 4\]; expected 0 … 3"):
        method(gaussian(), replace(edit, video=edit.video[:, :, :4]), PLAN)
