"""Fidelity and seams against closed forms."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from wanedit.errors import InputError
from wanedit.metrics.functional import frame_changes, frame_psnr, frame_ssim, seam_ratio
from wanedit.video import write_lossless
from wanedit.video.decode import open_frames


@pytest.fixture
def video() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 230, (6, 24, 32, 3), dtype=np.uint8)


def test_psnr_of_a_constant_offset_is_its_closed_form(video):
    np.testing.assert_allclose(frame_psnr(video + np.uint8(5), video), 20 * np.log10(255 / 5))
    assert (frame_psnr(video, video) == 100).all()


def test_psnr_counts_only_the_mask(video):
    other, mask = video.copy(), np.zeros(video.shape[:3], dtype=bool)
    other[:, :8] += np.uint8(10)
    mask[1:, 8:] = True
    values = frame_psnr(other, video, mask)
    assert np.isnan(values[0])
    assert (values[1:] == 100).all()
    mask[:, :8] = True
    np.testing.assert_allclose(frame_psnr(other, video, mask)[0], 20 * np.log10(255 / 10))


def test_ssim_is_one_for_equal_frames_and_falls_with_noise(video):
    np.testing.assert_allclose(frame_ssim(video, video), 1, atol=1e-12)
    mild = np.clip(video + np.random.default_rng(1).normal(0, 8, video.shape), 0, 255).astype(np.uint8)
    hard = np.clip(video + np.random.default_rng(1).normal(0, 40, video.shape), 0, 255).astype(np.uint8)
    assert (frame_ssim(mild, video) > frame_ssim(hard, video)).all()


def test_ssim_and_psnr_frame_by_frame_are_torchmetrics_of_the_whole_clip():
    video = np.random.default_rng(0).integers(20, 230, (3, 70, 32, 3), dtype=np.uint8)
    other = np.clip(video + np.random.default_rng(1).normal(0, 20, video.shape), 0, 255).astype(np.uint8)
    # In doubles: in floats its mean is 7e-6 off on real frames.
    pair = [torch.from_numpy(v).movedim(-1, 1).double() / 255 for v in (other, video)]
    whole = structural_similarity_index_measure(pair[0], pair[1], data_range=1.0, reduction="none")
    np.testing.assert_allclose(frame_ssim(other, video), whole, atol=1e-9)
    psnr = peak_signal_noise_ratio(pair[0], pair[1], data_range=1.0, reduction="none", dim=(1, 2, 3))
    np.testing.assert_allclose(frame_psnr(other, video), psnr, rtol=1e-6)


def test_a_clip_that_stays_in_its_file_is_measured_alike(video, tmp_path):
    write_lossless(tmp_path / "a.mkv", video)
    stored, mask = open_frames(tmp_path / "a.mkv"), video[..., 0] > 120
    other = video[::-1].copy()
    for measure in (frame_psnr, frame_ssim):
        assert (measure(stored, other) == measure(video, other)).all()
        assert (measure(other, stored, mask) == measure(other, video, mask)).all()
    assert (frame_changes(stored) == frame_changes(video)).all()


def test_ssim_of_two_constants_is_its_luminance_term():
    a, b = np.full((1, 16, 16, 3), 60, np.uint8), np.full((1, 16, 16, 3), 180, np.uint8)
    x, y, c = 60 / 255, 180 / 255, 0.01**2
    np.testing.assert_allclose(frame_ssim(a, b), (2 * x * y + c) / (x * x + y * y + c), rtol=1e-9)


def test_changes_and_seams_of_a_ramp():
    ramp = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((10, 8, 8, 3), np.uint8) * np.uint8(4)
    np.testing.assert_allclose(frame_changes(ramp), 4)
    assert seam_ratio(frame_changes(ramp), [5]) == 1
    jumped = ramp.copy()
    jumped[5] += np.uint8(40)
    assert seam_ratio(frame_changes(jumped), [5]) == pytest.approx((44 + 36) / 2 / 4)


def test_a_still_clip_is_floored():
    assert seam_ratio(frame_changes(np.zeros((5, 8, 8, 3), np.uint8)), [2]) == 0


@pytest.mark.parametrize("seams", [[], [9], [0, 2, 4]])
def test_seams_that_cannot_be_measured_are_refused(seams):
    with pytest.raises(InputError, match="expected"):
        seam_ratio(np.zeros(4), seams)


def test_shapes_that_differ_are_refused(video):
    for measure in (frame_psnr, frame_ssim):
        with pytest.raises(InputError, match="one shape"):
            measure(video, video[:-1])
