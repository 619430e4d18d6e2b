"""What a decoded edit gets back: the source's pixels where nothing changed, the keyframes' along the motion."""

from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np
import pytest

from wanedit.metrics.functional import frame_psnr
from wanedit.sprites import frame_times, render, sample_scene
from wanedit.video import to_uint8
from wanedit.video.restoring import (
    AGREED,
    NOTHING,
    EditTable,
    Restoration,
    Restored,
    Sight,
    light_gain,
    restored_segment,
    spread,
    three_cornered_hat,
)

KINDS: list[Restored] = ["source", "residual", "keyframes", "fused"]


def drawn(size: int) -> np.ndarray:
    return to_uint8(render(sample_scene(5, "test", 1.0), frame_times(17, 16), (size, size)).video)


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return drawn(64)


def coded(frames: np.ndarray) -> np.ndarray:
    """A codec that loses detail: every 2 x 2 pixels become their mean."""
    side = frames.shape[1] // 2
    small = frames.reshape(len(frames), side, 2, side, 2, 3).mean((2, 4), dtype=np.float32)
    return np.ascontiguousarray(small.repeat(2, axis=1).repeat(2, axis=2))


def restore(
    edited: np.ndarray,
    coded_source: np.ndarray,
    source: np.ndarray,
    keyframes: np.ndarray,
    indices: tuple[int, ...],
    kind: Restored,
) -> np.ndarray:
    return Restoration(
        edited.astype(np.float32), coded_source.astype(np.float32), source, keyframes, indices, kind
    ).frames()


def psnr(frames: np.ndarray, truth: np.ndarray) -> float:
    return float(frame_psnr(np.clip(np.rint(frames), 0, 255).astype(np.uint8), truth).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_that_changes_nothing_gives_the_source_back(source: np.ndarray, kind: Restored) -> None:
    lossy = coded(source)
    assert psnr(lossy, source) < 40
    assert np.array_equal(restore(lossy, lossy, source, source[[0, 8]], (0, 8), kind), source)


@pytest.mark.parametrize("kind", KINDS)
def test_also_in_the_size_of_a_larger_source(kind: Restored) -> None:
    """The model saw half the size: what it made is enlarged, and the source's detail comes back."""
    large = drawn(128)
    small = np.stack([cv2.resize(f, (64, 64), interpolation=cv2.INTER_AREA) for f in large])
    lossy = coded(small)
    assert np.array_equal(restore(lossy, lossy, large, large[[0]], (0,), kind), large)
    truth = 255 - large
    edited = coded(255 - small)
    enlarged = np.stack([cv2.resize(f, (128, 128), interpolation=cv2.INTER_CUBIC) for f in edited])
    made = restore(edited, lossy, large, truth[[0, 16]], (0, 16), kind)
    assert made.shape == large.shape
    if kind == "keyframes":
        assert psnr(made, truth) > psnr(enlarged, truth) + 2


def test_a_small_change_keeps_the_detail_and_its_colour(source: np.ndarray) -> None:
    """Twenty levels redder everywhere, then coded: the detail returns, the colour stays."""
    redder = (source.astype(np.float32) * 0.9 + [20, 0, 0]).astype(np.uint8)
    restored = restore(coded(redder), coded(source), source, source[:1], (0,), "source")
    assert psnr(restored, redder) > psnr(coded(redder), redder) + 5


def test_where_the_picture_is_another_nothing_is_added(source: np.ndarray) -> None:
    """A whole range away is exp(-4): the source's outlines must not shine through what took its place."""
    black, white = np.zeros_like(source), np.full_like(source, 255)
    detail = black.copy()
    detail[:, ::2] = 40
    restored = restore(white, black, detail, source[:1], (0,), "source")
    assert np.abs(restored.astype(int) - white).max() <= round(40 * np.exp(-4))


@pytest.mark.parametrize("kind", ["residual", "keyframes", "fused"])
def test_keyframes_are_met_exactly(source: np.ndarray, kind: Restored) -> None:
    keyframes = 255 - source[[0, 16]]
    restored = restore(coded(source), coded(source), source, keyframes, (0, 16), kind)
    assert np.array_equal(restored[[0, 16]], keyframes)


@pytest.mark.parametrize("indices", [(0,), (8,), (0, 16), (3, 9)])
@pytest.mark.parametrize("kind", ["residual", "keyframes", "fused"])
def test_what_keyframes_show_is_carried_along_the_motion(
    source: np.ndarray, indices: tuple[int, ...], kind: Restored
) -> None:
    """An edit that came half way, one or two keyframes that show all of it."""
    truth = (np.array([0, 60, 30]) + source[..., [2, 0, 1]] * 0.7).astype(np.uint8)
    edited = 0.5 * truth + 0.5 * source
    restored = restore(edited, source, source, truth[list(indices)], indices, kind)
    assert psnr(restored, truth) > psnr(edited, truth) + 6
    assert (frame_psnr(restored, truth) - frame_psnr(np.rint(edited).astype(np.uint8), truth)).min() > 0


@pytest.mark.parametrize("kind", ["residual", "keyframes", "fused"])
def test_what_a_keyframe_does_not_show_is_left_alone(kind: Restored) -> None:
    """A cut: after it, the source has nothing of the keyframe."""
    rng = np.random.default_rng(0)
    first, second = (np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))) for _ in range(2))
    source = np.stack([first] * 4 + [second] * 4).astype(np.uint8)
    edited = np.full(source.shape, 100, np.float32)
    keyframe = np.full((1, 64, 64, 3), 200, np.uint8)
    restored = restore(edited, source, source, keyframe, (0,), kind).astype(int)
    assert np.array_equal(restored[0], keyframe[0])
    assert np.median(np.abs(restored[4:] - 100)) < 5


@pytest.mark.parametrize("kind", ["residual", "keyframes", "fused"])
@pytest.mark.parametrize("last", [30, 70, 160])
def test_the_nearer_keyframe_counts_more(last: int, kind: Restored) -> None:
    """A still clip, a keyframe 10 levels brighter at one end and more at the other: a straight line between."""
    source = np.full((9, 64, 64, 3), 50, np.uint8)
    source[:, 16:48, 16:48] = 60
    keyframes = np.stack([source[0] + 10, source[0] + last])
    restored = restore(source, source, source, keyframes, (0, 8), kind)
    assert restored.mean((1, 2, 3)) - source.mean() == pytest.approx(np.linspace(10, last, 9), abs=0.5)


@pytest.mark.parametrize("picture", ["right", "noisy", "flickers", "half", "at once", "late"])
def test_an_edit_that_comes_slowly_is_carried_as_it_comes(picture: str) -> None:
    """A red light that grows, of which a model knows something: no frame jumps to its picture or to a keyframe."""
    source, rng = bird()[0], np.random.default_rng(0)
    grown = np.linspace(0, 60, 9)[:, None, None, None]
    truth = (source + grown * (1, 0, 0)).astype(np.uint8)
    made = {
        "right": truth.astype(np.float32),
        "noisy": truth + rng.normal(0, 3, truth.shape),
        "flickers": truth + 10 * (-1.0) ** np.arange(9)[:, None, None, None],
        "half": source + 0.5 * grown * (1, 0, 0),
        "at once": source + 60.0 * np.array([1, 0, 0]),
        "late": source + 60.0 * (grown > 30) * (1, 0, 0),
    }[picture]
    restored = restore(made, source, source, truth[[0, -1]], (0, 8), "fused").astype(float)
    assert (restored - source)[..., 0].mean((1, 2)) == pytest.approx(np.linspace(0, 60, 9), abs=1)
    assert np.abs(restored - truth).mean() < 1


@pytest.mark.parametrize("noise", [0, 10])
def test_what_each_keyframe_has_its_own_texture_of_fades_from_one_to_the_other(noise: float) -> None:
    """As image models draw it, which know nothing of each other; the picture has none, and noise."""
    source, rng = bird()[0], np.random.default_rng(1)
    ends = source[[0, -1]].copy()
    for frame in ends:
        texture = cv2.resize(rng.normal(0, 80, (12, 12, 1)), (48, 48))
        frame[24:72, 24:72] = np.clip((150, 100, 60) + texture[..., None], 0, 255)
    picture = source.astype(np.float32)
    place = np.s_[:, 24:72, 24:72]
    picture[place] = rng.normal((150, 100, 60), noise, (9, 48, 48, 3))
    made = restore(picture, source, source, ends, (0, 8), "fused").astype(float)[place]
    # By way of the picture, so in half of the frames; no step is a leap, and the picture's flicker is not the edit's.
    fade = np.abs(made[-1] - made[0]).mean() / 8
    assert np.abs(np.diff(made, axis=0)).mean((1, 2, 3)).max() < 2.5 * fade
    assert np.abs(np.diff(made, 2, axis=0)).mean() < 4 + np.abs(np.diff(picture[place], 2, axis=0)).mean() / 3


def test_three_pictures_are_judged_by_each_other() -> None:
    """What the keyframes count is the inverse of the errors, of which none is told."""
    rng = np.random.default_rng(0)
    source = np.zeros((64, 64, 3), np.float32)
    truth = rng.uniform(0, 255, source.shape)

    def off(levels: float) -> np.ndarray:
        return (truth + rng.normal(0, levels, truth.shape)).astype(np.float32)

    made, edits = off(10), [off(20), off(40)]
    shares, sure = (np.broadcast_to(np.array(pair, np.float32), (64, 64, 2)) for pair in ((0.7, 0.3), (1, 1)))
    theirs = 3 * (0.7**2 * 20**2 + 0.3**2 * 40**2)
    expected = 1 - 4 * 0.7 * 0.3 / (1 + AGREED) * theirs / (3 * 10**2 + theirs + NOTHING**2)
    assert three_cornered_hat(source, made, shares, sure, edits).mean() == pytest.approx(expected, abs=0.03)

    def count(made: np.ndarray, *, shares: np.ndarray = shares, beliefs: np.ndarray = sure) -> float:
        return float(three_cornered_hat(source, made, shares, beliefs, edits).min())

    # Where one alone is believed; near to one; beside a picture that shows nothing of the edit, or next to nothing.
    assert count(made, beliefs=sure * np.array([1, 0], np.float32)) > 0.98
    assert count(made, shares=np.broadcast_to(np.array([0.999, 0.001], np.float32), shares.shape)) > 0.98
    assert count(source) == 1
    assert count((0.02 * truth).astype(np.float32)) > 0.9
    # Keyframes that agree; that differ by a tint alone; and whose mean the picture meets, as in a fade.
    edits = [truth.astype(np.float32)] * 2
    assert count(made) > 0.98
    edits = [edits[0], edits[0] + np.array([60, 0, -30], np.float32)]
    assert count(made) > 0.98
    edits = [off(40), off(40)]
    assert count(edits[0] + np.float32(0.3) * (edits[1] - edits[0])) > 0.98


def test_a_good_picture_stays_where_motion_misleads_both_keyframes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey wall that was painted; its motion, which is none, is followed to the left from one side and to the right
    from the other. A picture that does not show the edit has no say."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.standard_normal((96, 96, 3)), (0, 0), 2) * 400
    source = np.full((9, 96, 96, 3), 120, np.uint8)
    truth = np.repeat(np.clip(120 + texture, 0, 255).astype(np.uint8)[None], 9, axis=0)

    def seen(self: Restoration, at: int, frames: range) -> Iterator[Sight]:
        for t in frames:
            flow, one = np.zeros((96, 96, 2), np.float32), np.ones((96, 96), np.float32)
            flow[..., 0] = 3 if at == 0 else -3
            yield Sight(abs(t - at), flow, one, one)

    monkeypatch.setattr(Restoration, "seen", seen)
    picture = np.clip(truth + rng.normal(0, 8, truth.shape), 0, 255)
    ends = truth[[0, -1]]
    made = restore(picture, source, source, ends, (0, 8), "fused")[4]
    misled = restore(picture, source, source, ends, (0, 8), "keyframes")[4]
    unheard = restore(source, source, source, ends, (0, 8), "fused")[4]
    assert psnr(made[None], truth[4:5]) > psnr(misled[None], truth[4:5]) + 8
    assert np.abs(unheard.astype(int) - misled).mean() < 1


def test_a_picture_that_is_right_is_believed_about_what_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is as in the source but for a recoloured disc, which no keyframe shows: what the picture misses beside it
    says how far it is off there."""
    monkeypatch.setattr(
        EditTable, "read", lambda self, picture, where: np.zeros((*picture.shape[:2], 4), np.float32)
    )
    rng = np.random.default_rng(0)
    ground = np.clip(127 + cv2.GaussianBlur(rng.standard_normal((96, 96, 3)), (0, 0), 3) * 300, 0, 255)
    source = np.repeat(ground.astype(np.uint8)[None], 9, axis=0)
    truth = source.copy()
    for before, after in zip(source[3:6], truth[3:6], strict=True):
        cv2.circle(before, (48, 48), 12, (200, 40, 40), -1)
        cv2.circle(after, (48, 48), 12, (40, 40, 200), -1)
    disc = np.s_[4, 40:57, 40:57]
    good, poor = (
        restore(truth + rng.normal(0, noise, truth.shape), source, source, truth[[0, -1]], (0, 8), "fused")[
            disc
        ]
        for noise in (8, 80)
    )
    assert np.abs(good - truth[disc].astype(float)).mean() < 25
    assert (
        np.abs(poor - source[disc].astype(float)).mean()
        < 0.7 * np.abs(poor - truth[disc].astype(float)).mean()
    )


def test_a_model_is_heard_against_the_colours_of_an_edit_so_far_as_it_is_right_about_them() -> None:
    """Half of a red bar is behind a board in both keyframes; it was turned blue. What comes out from behind the board
    is blue too, if the model dreams of green; but a white patch, if the model has one and all else is right."""
    source = np.full((9, 96, 96, 3), (120, 130, 110), np.uint8)
    source[:, 40:56, 8:88] = (200, 40, 40)
    truth = source.copy()
    truth[:, 40:56, 8:88] = (40, 40, 200)
    patched = truth.copy()
    patched[:, 40:56, 60:78] = (230, 240, 250)
    for t in range(9):
        width = 40 - 9 * min(t, 8 - t)
        for clip in (source, truth, patched):
            clip[t, 30:66, 88 - width : 88] = (60, 60, 60)
    patch = np.s_[4, 42:54, 62:76]
    dream = truth.astype(np.float32)
    dream[:, 40:56, 8:88] = np.where((dream[:, 40:56, 8:88] == 60).all(-1, keepdims=True), 60, (60, 180, 60))
    for picture, expected in ((dream, truth), (patched.astype(np.float32), patched)):
        made = restore(picture, source, source, truth[[0, -1]], (0, 8), "fused").astype(float)
        assert np.abs(made[patch] - expected[patch]).mean() < 16


def test_what_moves_in_the_edit_alone_moves_on_unless_it_is_replaced() -> None:
    """Snow over a still source: a bright dot that falls, and a keyframe that shows it at its start."""
    source = np.random.default_rng(0).integers(60, 120, (9, 64, 64, 3)).astype(np.uint8)
    source[:] = source[:1]
    snow = source.copy()
    for t in range(9):
        snow[t, 8 + 4 * t : 12 + 4 * t, 30:34] = 250
    assert np.array_equal(restore(snow, source, source, snow[:1], (0,), "residual"), snow)
    frozen = restore(snow, source, source, snow[:1], (0,), "keyframes")
    assert frozen[8, 9:11, 31:33].min() > 200


def bird(count: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """A still green ground, and the same with a red disc that flies across it."""
    ground = cv2.resize(
        np.random.default_rng(0).integers(60, 120, (12, 12, 1)).astype(np.float32), (96, 96), interpolation=2
    )
    source = np.repeat((ground[..., None] * (0.6, 1, 0.5)).astype(np.uint8)[None], count, axis=0)
    flown = source.copy()
    for t, frame in enumerate(flown):
        cv2.circle(
            frame, (14 + 68 * t // (count - 1), 48 - 6 * t * (count - 1 - t) // 4), 9, (230, 30, 40), -1
        )
    return source, flown


def test_what_two_keyframes_contradict_each_other_about_moves_as_the_picture_has_it() -> None:
    source, flown = bird()
    ends = flown[[0, -1]]
    ghosts = restore(coded(flown), coded(source), source, ends, (0, 8), "keyframes")
    moved = restore(coded(flown), coded(source), source, ends, (0, 8), "fused")
    assert psnr(moved[1:-1], flown[1:-1]) > psnr(ghosts[1:-1], flown[1:-1]) + 8
    # Where it was in either keyframe and is no more, the ground is back, whose detail the codec had lost.
    for x in (14, 82):
        place = np.s_[4, 40:56, x - 8 : x + 8]
        assert np.abs(moved[place].astype(int) - source[place]).max() <= 6


def test_a_light_that_goes_in_one_place_and_comes_in_another_fades() -> None:
    """It has the colours of one thing that moves; the model's picture says that none does."""
    source = bird()[0]
    truth = source.astype(np.float32)
    red = np.array([220, 40, 40], np.float32)
    for t, frame in enumerate(truth):
        for x, share in ((12, 1 - t / 8), (60, t / 8)):
            frame[36:60, x : x + 24] += share * (red - frame[36:60, x : x + 24])
    made = restore(truth, source, source, truth[[0, -1]].astype(np.uint8), (0, 8), "fused")
    assert np.abs(made - truth).max() < 3


def test_what_was_recoloured_and_leaps_is_not_taken_for_what_was_added() -> None:
    """A red disc turned blue, too fast for any motion: where it was, the ground stays as it is."""
    source, rng = bird()[0], np.random.default_rng(2)
    truth = source.copy()
    for before, after in zip(source, truth, strict=True):
        at = tuple(map(int, rng.integers(14, 82, 2)))
        cv2.circle(before, at, 11, (200, 40, 40), -1)
        cv2.circle(after, at, 11, (40, 40, 200), -1)
    made = restore(truth.astype(np.float32), source, source, truth[[0, -1]], (0, 8), "fused")
    assert psnr(made[1:-1], truth[1:-1]) > 40


def test_a_picture_that_shows_nothing_of_an_edit_has_no_say() -> None:
    """All is tinted; the disc, in another place in each keyframe, is not in the picture, nor is the tint."""
    source, flown = bird()
    ends = np.clip(flown[[0, -1]] + np.array([60, -20, 60]), 0, 255).astype(np.uint8)
    heard = restore(coded(source), coded(source), source, ends, (0, 8), "fused").astype(int)
    # Between, both keyframes stand half transparent, as they are.
    half = (ends[0, 44:52, 10:18].astype(int) + ends[1, 44:52, 10:18]) / 2
    asked = source[4, 44:52, 10:18].astype(int)
    assert np.abs(heard[4, 44:52, 10:18] - half).mean() < np.abs(asked - half).mean() / 4


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 600), (900, 3)])
@pytest.mark.parametrize("kind", ["source", "residual", "keyframes", "fused"])
def test_frames_of_any_shape_are_restored(size: tuple[int, int], kind: Restored) -> None:
    source = np.random.default_rng(0).integers(0, 200, (5, *size, 3)).astype(np.uint8)
    truth = source + np.array([40, 10, 0], np.uint8)
    made = restore(truth.astype(np.float32), source, source, truth[[0, 4]], (0, 4), kind)
    assert np.abs(made.astype(int) - truth).mean() < 10


def balls(count: int = 13) -> tuple[np.ndarray, np.ndarray]:
    """A textured red ball that leaps so far that no motion finds it, a brown one at rest; the red one turned blue."""
    rng = np.random.default_rng(1)
    ground = cv2.resize(
        rng.integers(90, 160, (16, 24, 3)).astype(np.uint8), (192, 128), interpolation=cv2.INTER_CUBIC
    )
    source, truth = [], []
    for t in range(count):
        before = ground.copy()
        cv2.circle(before, (40, 100), 18, (110, 60, 30), -1)
        after, at = before.copy(), (30 + 97 * t % 130, 30 + 31 * t % 45)
        for radius in range(20, 0, -2):
            cv2.circle(before, at, radius, (255 - 6 * radius, 20, 30), -1)
            cv2.circle(after, at, radius, (20, 30, 255 - 6 * radius), -1)
        source.append(before)
        truth.append(after)
    return np.stack(source), np.stack(truth)


def test_what_no_motion_finds_is_looked_up() -> None:
    """The model does nothing at all; the ball leaps over half the picture between two frames."""
    source, truth = balls()
    made = restore(source, source, source, truth[[0, 12]], (0, 12), "keyframes").astype(float)
    edited = np.abs(truth.astype(int) - source).max(-1) > 12
    off = np.s_[1:12]
    nearer = np.square(made - truth).sum(-1) < np.square(made - source).sum(-1)
    assert nearer[off][edited[off]].mean() > 0.9
    assert np.square(made - truth)[off][edited[off]].mean() < 255**2 / 10**2.3  # 23 dB
    # What has another colour, or lies in another place, is left alone.
    aside = cv2.dilate(edited.any(0).astype(np.uint8), np.ones((7, 7))) == 0
    assert np.abs(made - source)[:, aside].max() <= 12


def test_what_looks_like_the_edited_thing_and_was_not_edited_is_left_alone() -> None:
    """Two black boards, one of them turned brown, and a hand that hides and shows them again."""
    rng = np.random.default_rng(2)
    source = np.tile(rng.integers(120, 140, (128, 256, 3)).astype(np.uint8), (9, 1, 1, 1))
    source[:, 90:120, 40:216] = source[:, 10:60, 60:200] = 20
    truth = source.copy()
    truth[:, 90:120, 40:216] = (150, 90, 40)
    for t in range(9):
        for clip in (source, truth):
            clip[t, 0:70, 20 * t : 20 * t + 50] = rng.integers(180, 200, 3)
    made = restore(source, source, source, truth[:1], (0,), "keyframes").astype(int)
    assert np.abs(made - source)[:, 10:60, 60:200].max() <= 12
    assert np.abs(made - truth)[:, 92:118, 42:214].mean() < 3


def test_only_what_lies_between_two_keyframes_is_held() -> None:
    """The frames come one by one: the first is made before the last is looked at."""
    source = drawn(64)

    class Asked(list[int]):
        def __getitem__(self, t: int) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
            self.append(t)
            return source[t].astype(np.float32)

    asked = Asked()
    frames = iter(Restoration(asked, source.astype(np.float32), source, source[[0, 8]], (0, 8), "keyframes"))
    for _ in range(3):
        next(frames)
    assert max(asked) == 2


@pytest.mark.parametrize("kind", ["residual", "keyframes"])
def test_a_decoded_segment_shows_its_keyframes_and_what_they_know_of_its_frames(
    source: np.ndarray, kind: Literal["residual", "keyframes"]
) -> None:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in source])
    restored = restored_segment(blurred, source[0], source[-1], kind)
    assert np.array_equal(restored[[0, -1]], source[[0, -1]])
    near = [1, 2, 14, 15]
    assert psnr(restored[near], source[near]) > psnr(blurred[near], source[near]) + 1
    assert psnr(restored[1:-1], source[1:-1]) > psnr(blurred[1:-1], source[1:-1])


@pytest.mark.parametrize("kind", ["residual", "keyframes"])
def test_a_segment_that_meets_its_keyframes_is_left_as_it_is(
    source: np.ndarray, kind: Literal["residual", "keyframes"]
) -> None:
    assert np.array_equal(restored_segment(source, source[0], source[-1], kind), source)


def test_light_multiplies_what_a_keyframe_shows() -> None:
    """A still textured clip that grows dark, and its recolouring: the edit grows as dark."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (64, 64, 3)).astype(np.float32), (0, 0), 2)
    picture = np.clip((picture - 127) * 5 + 127, 20, 235)
    light = np.linspace(1, 0.6, 9, dtype=np.float32)[:, None, None, None]
    source = (picture * light).astype(np.uint8)
    truth = (picture[..., [1, 2, 0]] * light).astype(np.uint8)
    fused, plain = (restore(source, source, source, truth[:1], (0,), kind) for kind in ("fused", "keyframes"))
    assert psnr(fused[1:], truth[1:]) > 35
    assert psnr(fused[1:], truth[1:]) > psnr(plain[1:], truth[1:]) + 6


def test_the_factor_of_light_is_found_and_kept_within_its_bounds() -> None:
    picture = np.random.default_rng(0).uniform(60, 120, (16, 16, 3)).astype(np.float32)
    assert light_gain(picture, picture) == pytest.approx(1)
    # A prior of three times DARK squared levels holds it back by a few percent.
    assert light_gain(1.5 * picture, picture) == pytest.approx(1.5, abs=0.03)
    assert light_gain(9 * picture, picture) == pytest.approx(2.5)
    assert light_gain(picture / 9, picture) == pytest.approx(0.4)
    # Black says nothing about light.
    assert light_gain(0 * picture, 0 * picture) == pytest.approx(1)


def test_a_guess_is_corrected_as_its_neighbours_are_and_a_worthless_one_is_dropped() -> None:
    rng = np.random.default_rng(0)
    truth = cv2.GaussianBlur(rng.uniform(0, 255, (64, 64, 3)).astype(np.float32), (0, 0), 1.5)
    sure = np.ones((64, 64), np.float32)
    sure[24:40, 24:40] = 0
    hole = sure == 0
    seen = np.where(hole[..., None], 0, truth)

    # Right but for its colour: the model's detail, in the right colour.
    made, doubt = spread(truth + np.array([30, -20, 10], np.float32), seen, sure)
    assert np.abs(made - truth)[hole].mean() < 2
    assert doubt.max() < 1
    # Nothing in common with what is known: the mean of that, not the guess, off by as much as what is near it varies.
    noise = rng.uniform(0, 255, truth.shape).astype(np.float32)
    made, doubt = spread(noise, seen, sure)
    assert np.abs(made - truth)[hole].mean() < np.abs(truth.mean((0, 1)) - truth)[hole].mean() * 1.5
    assert 0.3 < doubt[hole].mean() / truth.var((0, 1)).sum() < 1
    # Nothing is known anywhere: the guess, and what is thought of it.
    made, doubt = spread(noise, seen, 0 * sure, unheard=7)
    assert (made, doubt) == (pytest.approx(noise), pytest.approx(7))
    # The same, and so to the last bit.
    assert np.abs(spread(truth, truth, sure)[0] - truth).max() < 0.01


@pytest.mark.parametrize("edit", ["thing", "background"])
def test_what_no_keyframe_shows_is_of_the_guess_that_is_right_beside_it(
    edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square that hides a part of the background in the keyframe, and is gone afterwards. The model draws the whole
    background anew: where the edit leaves it alone, the source knows it better; where it is edited, the model does."""
    rng = np.random.default_rng(0)
    # The look-up has no say.
    monkeypatch.setattr(
        EditTable, "read", lambda self, picture, where: np.zeros((*picture.shape[:2], 4), np.float32)
    )

    def texture(strength: float) -> np.ndarray:
        return (
            strength * cv2.GaussianBlur(rng.standard_normal((128, 128, 3)).astype(np.float32), (0, 0), 3) * 6
        )

    background = np.clip(127 + texture(50), 0, 255)
    hidden = np.zeros((128, 128), bool)
    hidden[52:76, 52:76] = True
    source = np.stack([background] * 5)
    source[0][hidden] = (250, 10, 10)
    truth = background if edit == "thing" else np.clip(127 + texture(50), 0, 255)
    keyframe = truth.copy()
    keyframe[hidden] = (10, 250, 10) if edit == "thing" else (250, 10, 10)
    model = np.stack([np.clip(truth + texture(80 if edit == "thing" else 20), 0, 255)] * 5)
    made = restore(model, source, source.astype(np.uint8), keyframe[None].astype(np.uint8), (0,), "fused")
    off, model_off = (np.abs(one[1:].astype(np.float32) - truth)[:, hidden].mean() for one in (made, model))
    assert off < (0.3 if edit == "thing" else 1.1) * model_off
    assert off < 0.5 * np.abs(source[1:] - truth)[:, hidden].mean() or edit == "thing"
