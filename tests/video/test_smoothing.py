import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video.scenes import panning, texture
from wanedit.errors import InputError
from wanedit.video.stitching import METHODS, WEIGHTS, _tmix, reaches, smooth, smooth_stream

ACTIVE = ["temporal_filter", "optical_flow"]


def stepped(step: int = 24) -> np.ndarray:
    """A slow pan whose brightness jumps at frame 10."""
    frames = (panning(21, 48, 64, step=1) // 2 + 30).astype(np.uint8)
    frames[10] += np.uint8(step // 2)
    frames[11:] += np.uint8(step)
    return frames


def largest_step(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(float).mean((1, 2, 3)))).max())


@pytest.mark.parametrize("method", ACTIVE)
@pytest.mark.parametrize("radius", [1, 2, 4])
def test_only_the_window_changes_and_the_keyframe_stays(method, radius):
    frames = stepped()
    out = smooth(frames, [10], method, radius)
    same = [np.array_equal(a, b) for a, b in zip(frames, out, strict=True)]
    changed = [i for i, equal in enumerate(same) if not equal]
    assert changed
    assert set(changed) <= {i for i in range(10 - radius, 11 + radius) if i != 10}


@pytest.mark.parametrize("method", ACTIVE)
def test_a_jump_gets_smaller(method):
    frames = stepped()
    assert largest_step(smooth(frames, [10], method, 4)) < 0.7 * largest_step(frames)


def test_motion_stays_sharp_under_optical_flow():
    """On a fast pan without a jump a plain mean blurs, a motion-compensated one does not."""
    frames = panning(15, 64, 96, step=5)
    middle = np.s_[7 - 2 : 7 + 3, 8:-8, 16:-16]
    damage = {
        m: np.abs(smooth(frames, [7], m, 3)[middle].astype(int) - frames[middle]).mean() for m in ACTIVE
    }
    assert damage["optical_flow"] < 0.35 * damage["temporal_filter"]


def test_tmix_is_the_centred_weighted_mean():
    frames = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), dtype=np.uint8)
    padded = np.concatenate([frames[:1], frames[:1], frames, frames[-1:], frames[-1:]]).astype(float)
    expected = sum(w * padded[i : i + 9] for i, w in enumerate(WEIGHTS)) / sum(WEIGHTS)
    assert np.abs(_tmix(frames) - expected).max() <= 0.51


def test_none_changes_nothing():
    frames = stepped()
    np.testing.assert_array_equal(smooth(frames, [5, 10], "none"), frames)
    np.testing.assert_array_equal(smooth(frames, [], "optical_flow"), frames)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_keyframes_and_ends_stay_whatever_the_junctions(data):
    count = data.draw(st.integers(3, 40))
    junctions = sorted(data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=6)))
    radius = data.draw(st.integers(1, 6))
    frames = np.random.default_rng(count).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    out = smooth(frames, junctions, "temporal_filter", radius)
    assert out.shape == frames.shape
    near = {
        i
        for j, r in zip(junctions, reaches(count, junctions, radius), strict=True)
        for i in range(j - r, j + r + 1)
    }
    for index in range(count):
        if index not in near or index in (0, count - 1, *junctions):
            np.testing.assert_array_equal(out[index], frames[index])


def test_the_reach_is_cut_where_segments_are_short():
    assert reaches(81, [40], 4) == [4]
    assert reaches(81, [40, 46], 4) == [2, 2]
    assert reaches(81, [2, 40, 41], 4) == [1, 0, 0]


def test_a_stream_is_read_no_further_than_needed():
    read = []

    def frames():
        for index in range(60):
            read.append(index)
            yield texture(32, 32, seed=index)

    stream = smooth_stream(frames(), 60, [30], "temporal_filter", 3)
    for _ in range(27):
        next(stream)
    assert len(read) == 27
    next(stream)
    assert len(read) == 36
    assert len(list(stream)) == 60 - 28


def test_what_cannot_be_smoothed_is_refused():
    frames = stepped()
    with pytest.raises(InputError, match="none, temporal_filter, optical_flow"):
        smooth(frames, [5], "magic")
    for junctions in ([0], [20], [5, 5], [9, 5], [-3], [99]):
        with pytest.raises(InputError, match="ascend"):
            smooth(frames, junctions, "temporal_filter")
    with pytest.raises(InputError, match="radius"):
        smooth(frames, [5], "temporal_filter", 0)
    with pytest.raises(InputError, match="30 frames expected, 21 came"):
        list(smooth_stream(frames, 30, [5], "none"))
    with pytest.raises(InputError, match="more came"):
        list(smooth_stream(frames, 12, [5], "none"))
    assert set(METHODS) == {"none", *ACTIVE}
