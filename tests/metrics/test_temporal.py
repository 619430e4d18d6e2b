"""Consistency in time, of a clip whose motion is known and of clips that are spoilt on purpose."""

from itertools import pairwise

import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import bend, follow, reduced
from wanedit.metrics.functional.temporal import temporal_scores


def test_even_motion_has_its_speed_and_little_else(clip: np.ndarray) -> None:
    found = temporal_scores(clip)
    assert found.dynamic_degree == pytest.approx(1.5, abs=0.2)
    assert found.warp_error < 2
    assert found.smoothness < 3
    assert found.consistency > 0.8
    steps = list(follow(clip[:6]))
    bends = [bend(a.motion, b.motion) for a, b in pairwise(steps)]
    acceleration, turn = np.array(bends).T
    assert acceleration.max() < 0.1
    assert turn.max() < 0.05


def test_a_frozen_clip_has_no_consistency(clip: np.ndarray) -> None:
    found = temporal_scores(np.repeat(clip[:1], 8, axis=0))
    assert (found.dynamic_degree, found.warp_error, found.flicker, found.consistency) == (0, 0, 0, 0)


def test_flicker_is_the_change_of_still_places(clip: np.ndarray) -> None:
    """Brightness that goes up and down by four levels over a still picture."""
    still = np.repeat(clip[:1], 8, axis=0).astype(int)
    still[1::2] += 4
    found = temporal_scores(np.clip(still, 0, 255).astype(np.uint8))
    assert found.flicker == pytest.approx(4, abs=0.3)
    assert found.warp_error == pytest.approx(4, abs=0.6)


def test_noise_and_stutter_are_seen(clip: np.ndarray) -> None:
    clean = temporal_scores(clip)
    noisy = np.clip(clip + np.random.default_rng(0).normal(0, 10, clip.shape), 0, 255).astype(np.uint8)
    assert temporal_scores(noisy).warp_error > 5 * clean.warp_error
    assert temporal_scores(noisy).consistency < 0.5 * clean.consistency
    stutter = clip[np.arange(len(clip)) // 2 * 2]
    assert temporal_scores(stutter).smoothness > 1.5 * clean.smoothness


def test_motion_is_followed_on_a_reduced_clip() -> None:
    wide = np.zeros((90, 960, 3), np.uint8)
    assert reduced(wide).shape == (45, 480, 3)
    assert reduced(wide[:, :400]).shape == (90, 400, 3)


def test_two_frames_are_too_few(clip: np.ndarray) -> None:
    with pytest.raises(InputError, match="has 2 frames; expected 3 or more"):
        temporal_scores(clip[:2])
