import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video.scenes import panning, texture
from wanedit.errors import InputError
from wanedit.video.motion import between, dis_flow, retime, speed_change, warp


@given(total=st.integers(1, 40), count=st.integers(2, 60))
@settings(max_examples=80, deadline=None)
def test_counts_and_ends_are_exact(total, count):
    frames = np.random.default_rng(total).integers(0, 256, (total, 3, 4, 3), dtype=np.uint8)
    out = retime(frames, count)
    assert out.shape == (count, 3, 4, 3)
    np.testing.assert_array_equal(out[0], frames[0])
    np.testing.assert_array_equal(out[-1], frames[-1])
    if total == count:
        np.testing.assert_array_equal(out, frames)


@given(total=st.integers(2, 30), times=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_positions_that_fall_on_a_frame_keep_it(total, times):
    frames = np.random.default_rng(total).integers(0, 256, (total, 2, 2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(retime(frames, (total - 1) * times + 1)[::times], frames)


@given(
    total=st.integers(2, 40),
    count=st.integers(2, 60),
    ends=st.tuples(*[st.floats(1 / 3, 3)] * 2),
)
@settings(max_examples=120, deadline=None)
def test_speeds_at_the_ends_move_neither_of_them_and_nothing_backwards(total, count, ends):
    ramp = np.round(np.linspace(0, 60000, total)).astype(np.int64)
    frames = np.stack([ramp // 256, ramp % 256, ramp * 0], -1).astype(np.uint8)[:, None, None]
    out = retime(frames[..., :1].repeat(3, -1), count, "linear", ends)
    assert len(out) == count
    np.testing.assert_array_equal(out[[0, -1], 0, 0, 0], frames[[0, -1], 0, 0, 0])
    assert (np.diff(out[:, 0, 0, 0].astype(int)) >= 0).all()


def test_the_speeds_at_the_ends_are_those_asked_for():
    ramp = np.arange(0, 250, 2, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    out = retime(ramp, 125, "linear", (2.0, 0.5))[:, 0, 0, 0].astype(float)
    assert out[4] - out[0] == pytest.approx(2.0 * 8, abs=2)
    assert out[-1] - out[-5] == pytest.approx(0.5 * 8, abs=2)
    np.testing.assert_array_equal(retime(ramp, 125, "linear", (1.0, 1.0)), ramp)


@pytest.mark.parametrize("times", [0.5, 1.0, 2.5])
def test_a_change_of_speed_is_read_off_three_frames(times):
    frames = panning(12, 64, 96, step=1)
    before, after = frames[2], frames[4 + round(2 * times)]
    assert speed_change(before, frames[4], after) == pytest.approx(times, rel=0.15)


def test_no_speed_is_read_off_a_turn_or_what_stands_still():
    frames = panning(9, 64, 96, step=2)
    assert speed_change(frames[2], frames[4], frames[2]) is None
    assert speed_change(frames[4], frames[4], frames[6]) is None
    assert speed_change(frames[4], frames[4], frames[4]) is None


def test_linear_is_linear():
    ramp = np.arange(0, 250, 10, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    for count in (2, 7, 24, 26, 100):
        expected = np.linspace(0, 240, count)
        assert np.abs(retime(ramp, count)[:, 0, 0, 0] - expected).max() <= 0.51


@pytest.mark.parametrize("method", ["linear", "optical_flow"])
@pytest.mark.parametrize("count", [2, 5, 8, 13])
def test_both_methods_keep_the_ends(method, count):
    frames = panning(8)
    out = retime(frames, count, method)
    assert len(out) == count
    np.testing.assert_array_equal(out[0], frames[0])
    np.testing.assert_array_equal(out[-1], frames[-1])


def test_optical_flow_moves_where_linear_doubles():
    frames = panning(9, 64, 96, step=6)
    truth = frames[1::2]
    error = {}
    for method in ("linear", "optical_flow"):
        made = retime(frames[::2], 9, method)[1::2]
        error[method] = np.abs(made[:, 8:-8, 16:-16].astype(int) - truth[:, 8:-8, 16:-16]).mean()
    assert error["optical_flow"] < 0.4 * error["linear"]


def test_an_occluder_does_not_smear():
    """A square passes over a still background: halfway it stands halfway, and the background is whole."""
    background = texture(64, 96)
    frames = [background.copy(), background.copy(), background.copy()]
    square = texture(30, 30, seed=5)
    for frame, left in zip(frames, (20, 24, 28), strict=True):
        frame[16:46, left : left + 30] = square
    made = between(frames[0], frames[2], 0.5).astype(int)
    blended = (frames[0].astype(int) + frames[2]) // 2
    assert np.abs(made - frames[1]).mean() < 0.5 * np.abs(blended - frames[1]).mean()


def test_flow_points_from_source_to_target():
    frames = panning(2, 64, 96, step=4)  # the camera moves right, so content moves left
    flow = dis_flow(frames[0], frames[1])
    assert np.median(flow[..., 0]) == pytest.approx(-4, abs=0.5)
    restored = warp(frames[1], flow)
    assert np.abs(restored - frames[0])[8:-8, 8:-8].mean() < 3


@pytest.mark.parametrize(("height", "width"), [(2, 2), (16, 16), (9, 70), (33, 31)])
def test_small_frames_have_flow_too(height, width):
    frames = panning(3, height, width)
    assert dis_flow(frames[0], frames[1]).shape == (height, width, 2)
    assert retime(frames, 5, "optical_flow").shape == (5, height, width, 3)


def test_impossible_counts_are_refused():
    frames = panning(3)
    with pytest.raises(InputError, match="lose one of the two ends"):
        retime(frames, 1)
    with pytest.raises(InputError, match="at least one"):
        retime(frames, 0)
    with pytest.raises(InputError, match="linear, optical_flow"):
        retime(frames, 4, "nearest")
    np.testing.assert_array_equal(retime(frames[:1], 1), frames[:1])
