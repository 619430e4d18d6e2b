import cv2
import numpy as np
import pytest

from tests.video.scenes import panning, texture
from wanedit.errors import InputError
from wanedit.video.colour import MAX_GAIN, AffineLab, correct_segment, fit_affine, lab_to_rgb, rgb_to_lab

CASTS = {
    "warm": AffineLab(np.eye(3), np.array([3.0, 4.0, 8.0])),
    "flat": AffineLab(np.diag([0.85, 1.1, 0.85]), np.array([7.0, -3.0, 2.0])),
    "mixed": AffineLab(np.array([[0.95, 0, 0.05], [0, 1, 0.1], [0.02, -0.1, 1]]), np.array([3.0, 0, 2.0])),
}


def muted(picture: np.ndarray) -> np.ndarray:
    """Colours that stay inside sRGB under the casts."""
    return (picture // 2 + 64).astype(np.uint8)


def cast(frame: np.ndarray, by: AffineLab) -> np.ndarray:
    return lab_to_rgb(by(rgb_to_lab(frame)).astype(np.float32))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(rgb_to_lab(a) - rgb_to_lab(b), axis=-1).mean())


def test_lab_is_the_cie_one():
    rgb = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 128, 255]], np.uint8)
    skimage = pytest.importorskip("skimage.color")
    np.testing.assert_allclose(rgb_to_lab(rgb), skimage.rgb2lab(rgb), atol=0.01)


def test_every_colour_survives_the_round_trip():
    rgb = np.random.default_rng(0).integers(0, 256, (200_000, 3), dtype=np.uint8)
    assert np.abs(lab_to_rgb(rgb_to_lab(rgb)).astype(int) - rgb).max() == 0


@pytest.mark.parametrize("name", CASTS)
def test_a_cast_at_both_ends_is_taken_back(name):
    clean = np.stack([muted(frame) for frame in panning(9, 64, 96)])
    shares = np.linspace(0, 1, len(clean))
    other = AffineLab(np.eye(3), np.array([-3.0, -2.0, 3.0]))
    seen = np.stack(
        [cast(frame, CASTS[name].blended(other, s)) for frame, s in zip(clean, shares, strict=True)]
    )
    corrected = correct_segment(seen, clean[0], clean[-1])
    assert distance(seen[0], clean[0]) > 3
    assert distance(corrected[0], clean[0]) < 1
    assert distance(corrected[-1], clean[-1]) < 1
    assert max(distance(a, b) for a, b in zip(corrected, clean, strict=True)) < 1.5


def test_a_first_frame_of_another_segment_says_nothing_of_the_others_colours():
    clean = np.stack([muted(frame) for frame in panning(9, 64, 96)])
    seen = np.stack([clean[0], *(cast(frame, CASTS["warm"]) for frame in clean[1:])])
    corrected = correct_segment(seen, clean[0], clean[-1], borrowed=True)
    np.testing.assert_array_equal(corrected[0], clean[0])
    assert distance(seen[1], clean[1]) > 3
    assert max(distance(a, b) for a, b in zip(corrected, clean, strict=True)) < 2
    assert distance(correct_segment(seen, clean[0], clean[-1])[1], clean[1]) > 3


def test_frames_that_are_right_stay_bit_identical():
    frames = panning(5)
    np.testing.assert_array_equal(correct_segment(frames, frames[0], frames[-1]), frames)
    assert np.array_equal(fit_affine(frames[0], frames[0]).matrix, np.eye(3))


def test_the_blur_of_an_autoencoder_is_not_a_colour():
    scene = muted(texture(128, 164))
    truth, shifted = scene[:, 2:-2], scene[:, :-4]
    blurred = cv2.GaussianBlur(shifted, (0, 0), 1.5)
    noisy = np.clip(blurred + np.random.default_rng(0).normal(0, 3, truth.shape), 0, 255).astype(np.uint8)
    found = fit_affine(noisy, truth)
    lab = rgb_to_lab(truth)
    assert np.linalg.norm(found(lab) - lab, axis=-1).mean() < 1


def test_an_object_that_is_not_in_the_keyframe_is_no_colour_either():
    truth = muted(texture(128, 160))
    seen = cast(truth, CASTS["warm"])
    seen[40:80, 50:100] = (230, 20, 30)
    found = fit_affine(seen, truth)
    lab = rgb_to_lab(cast(truth, CASTS["warm"]))
    assert np.linalg.norm(found(lab) - rgb_to_lab(truth), axis=-1).mean() < 1


def test_gains_are_bounded():
    picture = texture(64, 64)
    faint = (picture // 8 + 100).astype(np.uint8)
    for source, target in ((faint, picture), (picture, faint), (picture, texture(64, 64, seed=9))):
        gains = np.linalg.svd(fit_affine(source, target).matrix)[1]
        assert gains.max() <= MAX_GAIN + 1e-6
        assert gains.min() >= 1 / MAX_GAIN - 1e-6


def test_a_flat_frame_is_moved_and_not_stretched():
    source, target = (np.full((32, 32, 3), level, np.uint8) for level in (100, 120))
    found = fit_affine(source, target)
    np.testing.assert_allclose(found.matrix, np.eye(3), atol=1e-6)
    before, after = rgb_to_lab(source), rgb_to_lab(target)
    assert np.abs(after - before).max() > 5
    np.testing.assert_allclose(found(before), after, atol=0.01)


def test_a_single_frame_and_bad_sizes():
    frames = panning(1)
    np.testing.assert_array_equal(correct_segment(frames, frames[0], frames[0]), frames)
    with pytest.raises(InputError, match="one size"):
        correct_segment(frames, texture(8, 8), texture(8, 8))
    with pytest.raises(InputError, match="no frames"):
        correct_segment(frames[:0], texture(8, 8), texture(8, 8))


@pytest.mark.parametrize("seed", range(6))
def test_a_map_never_costs_more_than_it_gains(seed: int) -> None:
    # Two large areas drift a little, small vivid ones another way: no affine map serves both.
    rng = np.random.default_rng(seed)
    target = np.empty((96, 96, 3), np.uint8)
    target[:48], target[48:] = rng.integers(80, 200, (2, 3))
    source = target.copy()
    source[:48] = np.clip(target[:48] + rng.integers(-12, 13, 3), 0, 255)
    source[48:] = np.clip(target[48:] + rng.integers(-12, 13, 3), 0, 255)
    for row, column in rng.integers(0, 84, (8, 2)):
        target[row : row + 12, column : column + 12], source[row : row + 12, column : column + 12] = (
            rng.integers(0, 256, (2, 3))
        )
    lab_source, lab_target = rgb_to_lab(source).reshape(-1, 3), rgb_to_lab(target).reshape(-1, 3)
    found = fit_affine(source, target)
    before = np.square(lab_target - lab_source).mean()
    assert np.square(lab_target - found(lab_source.astype(np.float64))).mean() <= 1.02 * before
