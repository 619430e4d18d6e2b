"""What a decoded edit gets back: the source's pixels where nothing changed, the keyframes' along the motion."""

import numpy as np
import pytest

from wanedit.metrics.functional import frame_psnr
from wanedit.sprites import frame_times, render, sample_scene
from wanedit.video import to_uint8
from wanedit.video.restoring import restore_keyframes, restore_source


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return to_uint8(render(sample_scene(5, "test", 1.0), frame_times(17, 16), (64, 64)).video)


def coded(frames: np.ndarray) -> np.ndarray:
    """A codec that loses detail: every 2 x 2 pixels become their mean."""
    small = frames.reshape(len(frames), 32, 2, 32, 2, 3).mean((2, 4), dtype=np.float32)
    return np.ascontiguousarray(small.repeat(2, axis=1).repeat(2, axis=2))


def rounded(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def psnr(levels: np.ndarray, truth: np.ndarray) -> float:
    return float(frame_psnr(rounded(levels), truth).mean())


def test_an_edit_that_changes_nothing_gives_the_source_back(source: np.ndarray) -> None:
    lossy = coded(source)
    restored = restore_source(lossy, lossy, source)
    assert psnr(lossy, source) < 40
    assert np.array_equal(rounded(restored), source)
    same = restore_keyframes(restored, source, source[[0, 8]], (0, 8))
    assert np.array_equal(rounded(same), source)


def test_a_small_change_keeps_the_detail_and_its_colour(source: np.ndarray) -> None:
    """Twenty levels redder everywhere, then coded: the detail returns, the colour stays."""
    redder = (source.astype(np.float32) * 0.9 + [20, 0, 0]).astype(np.uint8)
    restored = restore_source(coded(redder), coded(source), source)
    assert psnr(restored, redder) > psnr(coded(redder), redder) + 5


def test_where_the_picture_is_another_nothing_is_added(source: np.ndarray) -> None:
    """A whole range away is exp(-4): the source's outlines must not shine through what took its place."""
    black, white = np.zeros_like(source), np.full_like(source, 255)
    detail = black.copy()
    detail[:, ::2] = 40
    restored = restore_source(white.astype(np.float32), black.astype(np.float32), detail)
    assert np.abs(restored - white).max() < 40 * np.exp(-4) + 1e-3


def test_keyframes_are_met_exactly(source: np.ndarray) -> None:
    keyframes = 255 - source[[0, 16]]
    restored = restore_keyframes(coded(source), source, keyframes, (0, 16))
    assert np.array_equal(rounded(restored[[0, 16]]), keyframes)


@pytest.mark.parametrize("indices", [(0,), (8,), (0, 16), (3, 9)])
@pytest.mark.parametrize("replace", [False, True])
def test_what_keyframes_show_is_carried_along_the_motion(
    source: np.ndarray, indices: tuple[int, ...], replace: bool
) -> None:
    """An edit that came half way, one or two keyframes that show all of it."""
    truth = (np.array([0, 60, 30]) + source[..., [2, 0, 1]] * 0.7).astype(np.uint8)
    edited = (0.5 * truth + 0.5 * source).astype(np.float32)
    restored = restore_keyframes(edited, source, truth[list(indices)], indices, replace)
    assert psnr(restored, truth) > psnr(edited, truth) + 6
    per_frame = frame_psnr(rounded(restored), truth) - frame_psnr(rounded(edited), truth)
    assert per_frame.min() > 0


def test_what_a_keyframe_does_not_show_is_left_alone() -> None:
    """A cut: after it, the source has nothing of the keyframe."""
    rng = np.random.default_rng(0)
    first, second = (np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))) for _ in range(2))
    source = np.stack([first] * 4 + [second] * 4).astype(np.uint8)
    edited = np.full(source.shape, 100, np.float32)
    restored = restore_keyframes(edited, source, np.full((1, 64, 64, 3), 200, np.uint8), (0,))
    assert np.abs(restored[:4] - 200).max() < 1
    assert np.median(np.abs(restored[4:] - 100)) < 5


@pytest.mark.parametrize("replace", [False, True])
def test_the_nearer_keyframe_counts_more(replace: bool) -> None:
    """A still clip, a keyframe 10 levels brighter at one end and 30 at the other: a straight line between."""
    source = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3)).astype(np.uint8)
    source[:] = source[:1]
    flat = np.full(source.shape, 50, np.float32)
    keyframes = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (60, 80)])
    restored = restore_keyframes(flat, source, keyframes, (0, 8), replace)
    assert restored.mean((1, 2, 3)) == pytest.approx(np.linspace(60, 80, 9), abs=0.1)


def test_what_moves_in_the_edit_alone_moves_on_unless_it_is_replaced() -> None:
    """Snow over a still source: a bright dot that falls, and a keyframe that shows it at its start."""
    source = np.random.default_rng(0).integers(60, 120, (9, 64, 64, 3)).astype(np.uint8)
    source[:] = source[:1]
    snow = source.astype(np.float32)
    for t in range(9):
        snow[t, 8 + 4 * t : 12 + 4 * t, 30:34] = 250
    kept = restore_keyframes(snow, source, snow[:1].astype(np.uint8), (0,), replace=False)
    assert np.array_equal(kept, snow)
    frozen = restore_keyframes(snow, source, snow[:1].astype(np.uint8), (0,), replace=True)
    assert frozen[8, 8:12, 30:34].min() > 240
