import numpy as np
import pytest
import torch

from wanedit.errors import InputError, NumericalError
from wanedit.video.arrays import peek, require_frame, require_same_size
from wanedit.video.tensors import from_uint8, to_uint8


def test_every_level_survives_the_round_trip():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, -1)
    video = from_uint8(frames)
    assert video.shape == (3, 1, 16, 16)
    assert video.dtype == torch.float32
    assert video.min() == -1
    assert video.max() == 1
    np.testing.assert_array_equal(to_uint8(video), frames)


def test_values_are_rounded_and_clamped():
    video = torch.tensor([-7.0, -0.999, 0.0, 0.9999, 3.0]).reshape(1, 1, 1, 5).expand(3, 1, 1, 5)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_half_precision_is_accepted():
    video = from_uint8(np.full((1, 2, 2, 3), 255, np.uint8)).to(torch.bfloat16)
    assert (to_uint8(video) == 255).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_names_its_frame(value):
    video = torch.zeros(3, 4, 2, 2)
    video[1, 2, 0, 0] = value
    with pytest.raises(NumericalError, match=r"1 of 48 .* frame 2"):
        to_uint8(video)


@pytest.mark.parametrize(
    "frame",
    [np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8), None],
)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(InputError, match="uint8 array"):
        require_frame(frame, "here")


def test_the_first_frame_of_another_size_is_named():
    frames = [np.zeros((2, 2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)]
    with pytest.raises(InputError, match="frame 1 is 4x2, the first is 2x2"):
        list(require_same_size(frames, "clip"))


def test_peek_needs_a_frame_and_loses_none():
    first, rest = peek(iter(np.zeros((3, 2, 2, 3), np.uint8)), "clip")
    assert first.shape == (2, 2, 3)
    assert len(list(rest)) == 3
    with pytest.raises(InputError, match="no frames"):
        peek([], "clip")
