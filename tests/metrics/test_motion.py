"""Whether an output moves as its source: clips whose motion is known, and tracklets by hand."""

import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import (
    endpoint_error,
    follow,
    in_place,
    motion_scores,
    tracklet_similarity,
    tracklets,
)


def straight(*steps: tuple[float, float], length: int = 5) -> np.ndarray:
    """Tracklets that move evenly by these steps."""
    return np.arange(length)[None, :, None] * np.array(steps)[:, None]


def test_the_score_is_the_papers_formula_halved() -> None:
    right, up, diagonal = (2.0, 0.0), (0.0, -3.0), (1.0, 1.0)
    assert tracklet_similarity(straight(right, up), straight(up, right, right)) == pytest.approx(1)
    # One direction of the source has no like: its best is cos 90 degrees; each tracklet of the output has one.
    assert tracklet_similarity(straight(right, up), straight(right)) == pytest.approx((1 + 0.5) / 2)
    assert tracklet_similarity(straight(right), straight(diagonal)) == pytest.approx(np.sqrt(0.5))
    assert tracklet_similarity(straight(right), -straight(right)) == pytest.approx(-1)


def test_only_directions_of_what_moves_count() -> None:
    right, none = (2.0, 0.0), (0.0, 0.0)
    assert tracklet_similarity(straight(right), straight((5.0, 0.0))) == pytest.approx(1)
    assert np.isnan(tracklet_similarity(straight(none), straight((0.01, 0.0))))
    # Many places that stand still do not hide the one that does not.
    assert tracklet_similarity(straight(right, none, none), straight(none, none, none)) == 0
    assert tracklet_similarity(straight(right, none), straight(none, right)) == pytest.approx(1)


def test_in_place_asks_the_same_place() -> None:
    places = np.array([[[0.0, 0.0]], [[8.0, 0.0]], [[0.0, 8.0]]])
    right, left, none = (2.0, 0.0), (-2.0, 0.0), (0.0, 0.0)
    source = places + straight(right, left, none)
    assert in_place(source, source) == pytest.approx(1)
    assert in_place(source, places + straight(left, right, none)) == pytest.approx(-1)
    # The second start is not in the output; of the others one moves, and its like stands still.
    output = (places + straight(none, none, none))[[2, 0]]
    assert in_place(source, output) == pytest.approx(0)
    assert np.isnan(in_place(source, source + 3))
    assert np.isnan(in_place(output, output))


def test_the_mean_over_frames_is_inside_the_maximum() -> None:
    """A tracklet that turns back half way is orthogonal on average to one that does not."""
    turned = straight((1.0, 0.0))
    turned[:, 3:] = turned[:, [1, 0]]
    assert tracklet_similarity(straight((1.0, 0.0)), turned) == pytest.approx(0)


def test_tracklets_follow_the_clip(clip: np.ndarray) -> None:
    found = tracklets(clip[:9])
    assert len(found) > 300
    np.testing.assert_allclose(np.median(np.diff(found, axis=1), axis=(0, 1)), [-1.5, 0], atol=0.05)


def test_nothing_is_followed_without_texture() -> None:
    assert len(tracklets(np.full((4, 64, 64, 3), 90, np.uint8))) == 0
    still = np.full((4, 64, 64, 3), 90, np.uint8)
    assert np.isnan(motion_scores(still, still).fidelity)


def test_fidelity_sees_other_motion_and_not_another_look(clip: np.ndarray) -> None:
    def scores(output: np.ndarray) -> tuple[float, float]:
        found = motion_scores(clip, output)
        return found.fidelity, found.in_place

    assert scores(clip) == pytest.approx((1, 1))
    assert min(scores(255 - clip)) > 0.95
    assert max(scores(clip[::-1].copy())) < -0.9
    assert scores(np.repeat(clip[:1], len(clip), axis=0)) == (0, 0)


def test_the_end_point_error_of_known_motion(clip: np.ndarray) -> None:
    """1.5 px a frame to the left against standing still, and against the other way."""
    moving, still = clip[:8], np.repeat(clip[:1], 8, axis=0)

    def errors(source: np.ndarray, output: np.ndarray) -> np.ndarray:
        return np.array(list(map(endpoint_error, follow(source), follow(output))))

    assert errors(moving, moving).max() == 0
    np.testing.assert_allclose(errors(moving, still), [[1.5, 1.0]] * 7, atol=0.1)
    back = clip[7::-1].copy()
    np.testing.assert_allclose(errors(moving, back).mean(axis=0), [3.0, 2.0], atol=0.2)
    assert np.isnan(errors(still, moving)[:, 1]).all()


def test_clips_that_do_not_fit(clip: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected one shape"):
        endpoint_error(next(follow(clip)), next(follow(clip[:, :40])))
    with pytest.raises(InputError, match="expected one shape, 2 frames or more"):
        motion_scores(clip, clip[1:])
    with pytest.raises(InputError, match="expected some, over one number of frames"):
        tracklet_similarity(straight((1.0, 0.0)), straight((1.0, 0.0), length=4))
    with pytest.raises(InputError, match="expected some"):
        tracklet_similarity(straight((1.0, 0.0)), np.zeros((0, 5, 2)))
