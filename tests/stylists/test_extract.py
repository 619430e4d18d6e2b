"""Which frames become keyframes: rates, limits, scenes, cuts, exact pixels, wrong numbers."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.stylists.extract import (
    check_indices,
    choose_indices,
    find_cuts,
    open_clip,
    read_keyframes,
    scene_cuts,
)
from wanedit.video import write_lossless


def scenery(seed: int, frames: int, speed: float, size: tuple[int, int] = (72, 128)) -> np.ndarray:
    """A camera that pans over a random painting; uint8 (T, H, W, 3)."""
    generator = np.random.default_rng(seed)
    height, width = size
    wide = width + round(speed * frames) + 8
    canvas = np.full((height, wide, 3), generator.integers(40, 220, 3), np.float32)
    for _ in range(wide // 3):
        x, y, radius = generator.integers(0, wide), generator.integers(0, height), generator.integers(4, 22)
        cv2.circle(
            canvas, (int(x), int(y)), int(radius), tuple(map(float, generator.integers(0, 256, 3))), -1
        )
    canvas = cv2.GaussianBlur(canvas, (0, 0), 1.0)
    places = [round(speed * k) for k in range(frames)]
    moving = np.stack([canvas[:, x : x + width] for x in places]).clip(0, 255)
    noise = generator.normal(0, 2, moving.shape)
    return (moving + noise).clip(0, 255).astype(np.uint8)


def test_hard_cuts_are_found_to_the_frame() -> None:
    scenes = [scenery(seed, length, 2.0) for seed, length in ((1, 20), (2, 9), (3, 31), (4, 12))]
    assert find_cuts(np.concatenate(scenes)) == [20, 29, 60]


@pytest.mark.parametrize("speed", [0.0, 3.0, 9.0, 20.0, 45.0])
def test_motion_of_any_speed_is_no_cut(speed: float) -> None:
    assert find_cuts(scenery(5, 40, speed)) == []


def test_a_cut_between_two_fast_scenes() -> None:
    assert find_cuts(np.concatenate([scenery(6, 20, 12.0), scenery(7, 20, 14.0)])) == [20]


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length: int) -> None:
    frames = scenery(8, 40, 1.0)
    frames[15 : 15 + length] = 250
    assert find_cuts(frames) == []


def test_a_fade_and_noise_are_no_cut() -> None:
    frames = scenery(9, 40, 1.0).astype(np.float32)
    frames *= np.linspace(1, 0.1, 40)[:, None, None, None]
    noisy = frames + np.random.default_rng(1).normal(0, 12, frames.shape)
    assert find_cuts(noisy.clip(0, 255).astype(np.uint8)) == []


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_hardly_any_frames(frames: int) -> None:
    assert find_cuts(scenery(1, 3, 1.0)[:frames]) == []


def test_a_second_apart() -> None:
    assert choose_indices(81, Fraction(16), 1.0, 10) == (0, 16, 32, 48, 64, 80)
    assert choose_indices(60, Fraction(179, 6), 1.0, 10) == (0, 30)
    assert choose_indices(81, Fraction(16), 2.0, 100)[:3] == (0, 8, 16)


def test_at_most_so_many_spread_over_all() -> None:
    chosen = choose_indices(1189, Fraction(30), 1.0, 10)
    assert len(chosen) == 10
    assert (chosen[0], chosen[-1]) == (0, 1188)
    assert max(b - a for a, b in pairwise(chosen)) - min(b - a for a, b in pairwise(chosen)) <= 1
    assert choose_indices(500, 25, 1.0, 1) == (0,)


def test_every_scene_gets_one_and_none_stands_beside_a_cut() -> None:
    cuts = (20, 60, 63, 200)
    chosen = choose_indices(260, 25, 1.0, 10, cuts)
    bounds = [0, *cuts, 260]
    for start, stop in pairwise(bounds):
        if stop - start > 4:
            assert any(start <= frame < stop for frame in chosen)
    for cut in cuts:
        near = [frame for frame in chosen if cut - 2 <= frame < cut + 2]
        assert all(start <= frame < start + 4 for frame in near for start in (60,)), near


def test_more_scenes_than_keyframes_takes_the_first_and_the_longest() -> None:
    chosen = choose_indices(200, 25, 1.0, 3, (10, 20, 90, 100))
    assert len(chosen) == 3
    assert chosen[0] == 0
    assert 20 <= chosen[1] < 90
    assert chosen[2] >= 100


@given(
    st.integers(1, 400),
    st.sampled_from([8, 16, Fraction(30000, 1001), 60]),
    st.floats(0.1, 30),
    st.integers(1, 20),
    st.sets(st.integers(1, 399), max_size=8),
)
def test_whatever_is_asked_for(count: int, fps: Fraction, target: float, most: int, cuts: set[int]) -> None:
    inside = sorted(cut for cut in cuts if cut < count)
    chosen = choose_indices(count, fps, target, most, inside)
    assert chosen == choose_indices(count, fps, target, most, inside)
    assert chosen[0] == 0
    assert 1 <= len(chosen) <= most
    assert all(0 <= frame < count for frame in chosen)
    slots = [timeline.slot(frame) for frame in chosen]
    assert len(set(slots)) == len(slots)


@pytest.fixture
def film(tmp_path: Path) -> tuple[Path, np.ndarray]:
    frames = np.concatenate([scenery(1, 24, 2.0), scenery(2, 26, 3.0)])
    path = tmp_path / "a film = ünï.mkv"
    write_lossless(path, frames, 16)
    return path, frames


def test_frames_are_exact_and_counted_from_start(film: tuple[Path, np.ndarray]) -> None:
    path, frames = film
    clip = open_clip(path, start=10)
    assert (clip.count, clip.total, clip.size) == (40, 50, (72, 128))
    assert scene_cuts(clip) == [14]
    found = read_keyframes(clip, (0, 7, 39))
    assert np.array_equal(found.frames, frames[[10, 17, 49]])


def test_a_folder_of_images(tmp_path: Path) -> None:
    frames = scenery(4, 12, 2.0)
    for k, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{k}.png")
    clip = open_clip(tmp_path, start=2, num_frames=9)
    assert (clip.count, clip.fps) == (9, 16)
    assert np.array_equal(read_keyframes(clip, (0, 8)).frames, frames[[2, 10]])
    assert scene_cuts(clip) == []


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([0, 50], "frame 50 asked for, the clip has frames 0 to 49"),
        ([-1], "frame -1"),
        ([3, 3], "twice"),
        ([], "empty"),
    ],
)
def test_wrong_indices(film: tuple[Path, np.ndarray], indices: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_indices(indices, open_clip(film[0]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"start": 50}, "start is frame 50"),
        ({"num_frames": 60}, "expected 1 to 50"),
        ({"decoder": "x"}, "decoder"),
    ],
)
def test_wrong_stretches(film: tuple[Path, np.ndarray], values: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_clip(film[0], **values)
