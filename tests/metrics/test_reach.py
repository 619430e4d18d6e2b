"""How much of an edit each frame carries, against edits whose truth is known at every frame."""

import cv2
import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.metrics.functional.reach import Reach, reach
from wanedit.sprites import apply_edit, frame_times, render, sample_edit, sample_scene
from wanedit.video import to_uint8

FRAMES, KEYS = 17, (0, 16)


def scene(kind: str, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A drawn source, and its edit at every frame."""
    times, drawn = frame_times(FRAMES), sample_scene(seed, "test", FRAMES / 16)
    edited = apply_edit(drawn, sample_edit(drawn, seed, (kind,)))
    pair = render(drawn, times, (96, 96)), render(edited.scene, times, (96, 96), edited.style)
    return to_uint8(pair[0].video), to_uint8(pair[1].video)


def carrying(source: np.ndarray, truth: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A result that has so much of the edit, blurred and noisy as a decoder leaves it."""
    mixed = source + shares[:, None, None, None] * (truth.astype(np.float32) - source)
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.7) for frame in mixed])
    return np.clip(np.rint(soft + np.random.default_rng(0).normal(0, 3, soft.shape)), 0, 255).astype(np.uint8)


def measured(source: np.ndarray, truth: np.ndarray, shares: np.ndarray) -> Reach:
    result = carrying(source, truth, shares)
    return reach(source, result, {k: truth[k] for k in KEYS})


@pytest.mark.parametrize("kind", ["recolour", "background", "style"])
def test_the_share_is_that_of_the_truth(kind: str) -> None:
    """Blue, red, blue: the edit is there at both ends and fades in between."""
    shares = np.abs(np.arange(FRAMES) - 8) / 8
    found = np.array(measured(*scene(kind), shares).shares)
    told = np.isfinite(found)
    assert told.mean() > 0.9
    assert np.abs(found - shares)[told].mean() < 0.06


def test_what_lacks_the_edit_is_said_with_a_place_for_a_keyframe() -> None:
    shares = np.where((np.arange(FRAMES) >= 5) & (np.arange(FRAMES) <= 12), 0.2, 1.0)
    found = measured(*scene("recolour"), shares)
    first, second = found.told()
    assert second == "frames 5 to 12: a fifth of the edit carried; add a keyframe near 8"
    assert "least at frame" in first
    assert found.worst == pytest.approx(0.2, abs=0.05)
    whole = measured(*scene("recolour"), np.ones(FRAMES)).told()
    assert len(whole) == 1


def test_an_edit_that_is_undone_has_less_than_nothing() -> None:
    found = measured(*scene("recolour"), np.where(np.arange(FRAMES) == 8, -0.5, 1.0))
    # Beyond the range of levels nothing can be undone: it comes out a little less.
    assert -0.55 < found.shares[8] < -0.3


def test_where_motion_and_colour_are_lost_nothing_is_said() -> None:
    """From the middle on the source shows noise: what the keyframe edited is not to be seen."""
    source, truth = scene("recolour")
    other = np.random.default_rng(1).integers(0, 256, source.shape, dtype=np.uint8)
    cut = np.where((np.arange(FRAMES) < 8)[:, None, None, None], source, other)
    found = reach(cut, cut, {0: truth[0]})
    assert np.isfinite(found.shares[:8]).all()
    assert np.isnan(found.shares[8:]).all()
    assert any(
        line.startswith("frames 8 to 16: how much of the edit is there cannot be told")
        for line in found.told()
    )


def test_keyframes_that_change_nothing_ask_for_nothing() -> None:
    source, _ = scene("recolour")
    found = reach(source, source, {k: source[k] for k in KEYS})
    assert np.isnan(found.shares).all()
    assert np.isnan(found.mean)
    assert found.told() == []


def test_inputs_that_do_not_fit() -> None:
    source, truth = scene("recolour")
    with pytest.raises(InputError, match="17 frames and the result 5"):
        reach(source, source[:5], {0: truth[0]})
    with pytest.raises(InputError, match="expected some"):
        reach(source, source, {})


def test_a_further_keyframe_is_advised_only_where_keyframes_are_followed() -> None:
    followed, copied = (Reach((at, 0.0, 0.0, 0.0), (1.0,) * 4, (0,)) for at in (1.0, 0.0))
    assert "add a keyframe near" in followed.told()[1]
    assert copied.told()[1].endswith("the keyframes themselves lack it, so more would not help")
