"""Scores over feature vectors and self-similarities, against NumPy and closed forms."""

import cv2
import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.metrics.functional.fidelity import (
    gradient_cells,
    gradient_distances,
    self_similarity,
    structure_distance,
)
from wanedit.metrics.functional.temporal import (
    background_consistency,
    cosines,
    step_similarities,
    subject_score,
)


def turned(*degrees: float) -> np.ndarray:
    """Unit vectors of these angles, of growing length: length must not count."""
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 + np.arange(len(angle)))[:, None]


def test_steps_are_the_cosines_of_the_angles_between() -> None:
    found = step_similarities(turned(0, 60, 60, 180))
    np.testing.assert_allclose(found, [0.5, 1, -0.5], atol=1e-12)


def test_background_consistency_is_vbenchs() -> None:
    """Frames 2 … 4: to the one before 0.5, 1, 0 (not -0.5); to the first 0.5, 0.5, 0 (not -1)."""
    assert background_consistency(turned(0, 60, 60, 180)) == pytest.approx((1 + 1.5 + 0) / 6)


def test_the_subjects_score_is_vbenchs() -> None:
    features = turned(10, 30, 90)
    steps = np.cos(np.radians([20, 60]))
    expected = 0.4 * np.cos(np.radians(10)) + 0.3 * steps.mean() + 0.3 * steps.min()
    assert subject_score(np.array([3.0, 0.0]), features) == pytest.approx(expected)
    assert subject_score(np.array([1.0, 0.0]), turned(0, 0)) == pytest.approx(1)
    assert subject_score(np.array([1.0, 0.0]), turned(180, 180)) == pytest.approx(0.6)


def test_features_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="expected 2 or more"):
        step_similarities(turned(0))
    with pytest.raises(InputError, match="expected one shape"):
        cosines(turned(0, 1), turned(0))
    with pytest.raises(InputError, match="features of frame 1 are all zero"):
        cosines(turned(0, 1), np.array([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(InputError, match=r"picture's features are \(3,\); expected \(2,\)"):
        subject_score(np.ones(3), turned(0, 1))


def test_self_similarity_is_the_matrix_of_cosines() -> None:
    features = np.random.default_rng(0).normal(size=(6, 4))
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in features] for a in features]
    np.testing.assert_allclose(self_similarity(features), expected)
    # Two places alike against two at right angles: the two entries off the diagonal differ by one.
    assert structure_distance(turned(0, 0), turned(0, 90)) == pytest.approx(0.5)
    with pytest.raises(InputError, match="have 2 and 3 places; expected one number"):
        structure_distance(turned(0, 0), turned(0, 1, 2))


def test_cells_hold_directions_of_gradients() -> None:
    """A ramp to the right has its whole gradient in the first direction, one downwards in the fifth."""
    ramp = np.repeat(np.arange(128, dtype=np.uint8)[None, :, None], 128, axis=0).repeat(3, axis=2)
    right = gradient_cells(ramp)
    np.testing.assert_allclose(right[:, 1:8], 0, atol=1e-9)
    np.testing.assert_allclose(right[:, 0], np.sqrt(0.5), atol=1e-6)
    down = gradient_cells(ramp.transpose(1, 0, 2).copy())
    np.testing.assert_allclose(down[:, 4], right[:, 0], atol=1e-6)
    flat = gradient_cells(np.full((40, 60, 3), 90, np.uint8))
    np.testing.assert_allclose(flat, np.eye(9)[[8] * 256])


def test_the_surrogate_sees_layout_and_not_colour(clip: np.ndarray) -> None:
    """Inverting and tinting keep the layout; turning the picture over does not."""
    frames = clip[:2]
    tinted = np.clip(frames * np.array([0.9, 0.6, 0.8]), 0, 255).astype(np.uint8)
    other = np.stack([cv2.flip(frame, -1) for frame in frames])
    assert (gradient_distances(frames, frames) == 0).all()
    moved = gradient_distances(other, frames).min()
    assert gradient_distances(255 - frames, frames).max() < 0.01 * moved
    assert gradient_distances(tinted, frames).max() < 0.2 * moved
    with pytest.raises(InputError, match="2 and 1 frames; expected one length"):
        gradient_distances(frames, frames[:1])
