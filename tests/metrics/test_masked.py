"""Fidelity inside and outside a mask, and by the distance to keyframes, against closed forms."""

import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.metrics.functional import frame_ssim
from wanedit.metrics.functional.fidelity import keyframe_distance, masked_mean, mean_by_distance


@pytest.fixture
def video() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 230, (3, 40, 64, 3), dtype=np.uint8)


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equation 13 of Wang et al. at every pixel, one loop, Gaussian of 11 and sigma 1.5, edges mirrored."""
    t = np.arange(11) - 5
    window = np.exp(-(t[:, None] ** 2 + t[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    out = np.zeros(a.shape[:2])
    for channel in range(3):
        x, y = (np.pad(v[..., channel] / 255.0, 5, mode="reflect") for v in (a, b))
        for i, j in np.ndindex(out.shape):
            p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp**2, (window * q * q).sum() - mq**2
            cov = (window * p * q).sum() - mp * mq
            out[i, j] += ((2 * mp * mq + 1e-4) * (2 * cov + 9e-4)) / (
                (mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)
            )
    return out / 3


def test_ssim_in_a_mask_is_the_papers_map_over_it(video: np.ndarray) -> None:
    a, b = video[:1, :24, :24], video[1:2, :24, :24] // 2 + video[:1, :24, :24] // 2
    mask = np.zeros((1, 24, 24), dtype=bool)
    mask[0, 3:9, 10:22] = True
    expected = ssim_map(a[0], b[0])
    np.testing.assert_allclose(frame_ssim(a, b, mask), expected[mask[0]].mean(), atol=1e-9)
    np.testing.assert_allclose(frame_ssim(a, b), expected.mean(), atol=1e-9)


def test_a_change_far_from_the_mask_does_not_count(video: np.ndarray) -> None:
    other, mask = video.copy(), np.zeros(video.shape[:3], dtype=bool)
    other[:, :, 32:] = 255 - other[:, :, 32:]
    mask[1:, :, :20] = True
    inside, outside = frame_ssim(other, video, mask), frame_ssim(other, video, ~mask)
    assert np.isnan(inside[0])
    np.testing.assert_allclose(inside[1:], 1, atol=1e-12)
    assert (outside[1:] < 0.5).all()
    np.testing.assert_allclose(
        frame_ssim(other, video, np.ones_like(mask)), frame_ssim(other, video), rtol=1e-9
    )


def test_a_mask_of_another_shape_is_refused(video: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"mask is \(20, 64\); expected \(40, 64\)"):
        frame_ssim(video, video, np.ones((3, 20, 64), dtype=bool))
    with pytest.raises(InputError, match="a mask of 2 frames"):
        frame_ssim(video, video, np.ones((2, 40, 64), dtype=bool))


def test_masked_means_are_numpys() -> None:
    values, mask = (
        np.random.default_rng(1).normal(size=(4, 5, 6)),
        np.random.default_rng(2).random((4, 5, 6)) < 0.4,
    )
    mask[2] = False
    found = [masked_mean(v, m) for v, m in zip(values, mask, strict=True)]
    expected = [v[m].mean() if m.any() else np.nan for v, m in zip(values, mask, strict=True)]
    np.testing.assert_allclose(found, expected)


def test_distance_to_the_nearest_keyframe() -> None:
    distance = keyframe_distance(9, {8: None, 0: None, 3: None})
    assert distance.tolist() == [0, 1, 1, 0, 1, 2, 2, 1, 0]
    means = mean_by_distance(np.arange(9.0), distance)
    assert means == {0: 11 / 3, 1: 3.5, 2: 5.5}


@pytest.mark.parametrize("keyframes", [[], [9], [-1, 2]])
def test_keyframes_outside_the_clip_are_refused(keyframes: list[int]) -> None:
    with pytest.raises(InputError, match=r"expected frames 0 … 8"):
        keyframe_distance(9, keyframes)
