"""Keyframes laid exactly over their frames: pictures in closed form, so that every slip and its truth are known."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from wanedit.errors import InputError
from wanedit.sprites import frame_times, render, sample_scene
from wanedit.video import to_uint8
from wanedit.video.aligning import Alignment, align

SIZE = (72, 96)
Places = tuple[np.ndarray, np.ndarray]
Picture = Callable[[np.ndarray, np.ndarray], np.ndarray]


def places(size: tuple[int, int] = SIZE) -> Places:
    """Of every pixel, x and y in units of the longer side of SIZE."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(float)
    unit = max(SIZE) / max(size)
    return (columns + 0.5) * unit, (rows + 0.5) * unit


def source(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Waves of several lengths, of 30 to 225 levels."""
    waves = [
        np.sin(0.31 * x + 0.12 * y + 1)
        + np.sin(0.23 * y - 0.17 * x + 2 * c)
        + np.sin(0.11 * x + 0.41 * y + c)
        for c in range(3)
    ]
    return 127.5 + 32 * np.stack(waves, -1)


def edited(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A disc of 14 pixels about (60, 40) becomes a striped other thing, and one of 8 beside it smoothly fades in."""
    disc = np.clip(14.5 - np.hypot(x - 60, y - 40), 0, 1)[..., None]
    stripes = np.stack([230 + 0 * x, 120 + 60 * np.sin(0.9 * (x + y)), 40 + 0 * x], -1)
    return source(x, y) * (1 - disc) + disc * stripes


def slipped(x: np.ndarray, y: np.ndarray) -> Places:
    """Where a keyframe that is turned by a degree, enlarged by 2 %, shifted and bent has what it shows."""
    turn, scale = np.deg2rad(1), 1.02
    a, b = x - 48, y - 36
    return (
        48 + scale * (np.cos(turn) * a - np.sin(turn) * b) + 0.8 + 0.3 * np.sin(y / 25),
        36 + scale * (np.sin(turn) * a + np.cos(turn) * b) - 1.1 + 0.3 * np.cos(x / 30),
    )


def levels(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a.astype(float) - b).mean()))


IN_THE_EDIT = np.hypot(places()[0] - 60, places()[1] - 40) < 15
FRAME, TRUTH = levels(source(*places())), levels(edited(*places()))


@pytest.mark.parametrize("shift", [(0.6, -0.4), (-2.3, 1.7), (0.0, 3.5)])
def test_a_shift_is_found_to_a_twentieth_of_a_pixel_and_undone(shift: tuple[float, float]) -> None:
    x, y = places()
    keyframe = levels(edited(x - shift[0], y - shift[1]))
    found = align(keyframe, FRAME)
    assert found.moved == pytest.approx(np.hypot(*shift), abs=0.05)
    assert found.tinted == 0
    assert found.note is not None
    assert f"{found.moved:.1f} pixels" in found.note
    undone = found.undone(keyframe, FRAME)
    inside = np.s_[6:-6, 6:-6]  # what a shift brings in at the edges was not in the keyframe
    assert rms(undone[inside], TRUTH[inside]) < 3 < rms(keyframe[inside], TRUTH[inside]) / 2


def test_a_smooth_warp_is_found_and_undone() -> None:
    keyframe = levels(edited(*slipped(*places())))
    found = align(keyframe, FRAME)
    undone = found.undone(keyframe, FRAME)
    inside = np.s_[6:-6, 6:-6]
    assert rms(undone[inside], TRUTH[inside]) < 3.5 < rms(keyframe[inside], TRUTH[inside]) / 4
    # The frame's own pixels where nothing is edited.
    alike = (undone == FRAME).all(-1)[inside]
    assert alike[~IN_THE_EDIT[inside]].mean() > 0.8


def test_the_drift_of_colours_is_undone_in_the_edit_too() -> None:
    gain, offset = np.array([1.04, 0.97, 1.0]), np.array([5, -6, 3])
    keyframe = levels(edited(*places()) * gain + offset)
    found = align(keyframe, FRAME)
    assert (found.moved, found.most) == (0, 0)
    drift = np.square((gain - 1) * source(*places()) + offset).mean(-1)[~IN_THE_EDIT]
    assert found.tinted == pytest.approx(float(np.sqrt(drift.mean())), rel=0.05)
    undone = found.undone(keyframe, FRAME)
    assert rms(undone, TRUTH) < 1 < rms(keyframe, TRUTH) / 4
    assert rms(undone[IN_THE_EDIT], TRUTH[IN_THE_EDIT]) < 2


def test_slip_and_drift_at_once_at_any_size_of_the_picture() -> None:
    """Found on pictures of four times the size, undone on those and on small ones."""
    large = (4 * SIZE[0], 4 * SIZE[1])
    x, y = places(large)
    keyframe, frame = levels(edited(*slipped(x, y)) * 1.03 - 6), levels(source(x, y))
    small_keyframe = levels(edited(*slipped(*places())) * 1.03 - 6)
    found = align(keyframe, frame)
    for of, on, truth in (
        (keyframe, frame, levels(edited(x, y))),
        (small_keyframe, FRAME, TRUTH),
    ):
        rim = len(on) // 12
        inside = np.s_[rim:-rim, rim:-rim]
        undone = found.undone(of, on)
        assert rms(undone[inside], truth[inside]) < 3.5 < rms(of[inside], truth[inside]) / 4


def test_an_edit_is_not_aligned_away() -> None:
    """What the edit alone moves stays moved: a part of the picture, of a fifth of it, that the edit shifts by 3 pixels,
    in a keyframe that is off by another shift."""
    x, y = places()
    within = (np.clip(13 - np.maximum(abs(x - 40), abs(y - 36)), 0, 1))[..., None]

    def moved(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        share = np.clip(13 - np.maximum(abs(x - 40), abs(y - 36)), 0, 1)[..., None]
        return source(x, y) * (1 - share) + share * source(x - 3, y + 2)

    keyframe, truth = levels(moved(x - 1.2, y + 0.7)), levels(moved(x, y))
    found = align(keyframe, FRAME)
    undone = found.undone(keyframe, FRAME)
    assert found.moved == pytest.approx(np.hypot(1.2, 0.7), abs=0.25)
    core = within[..., 0] == 1
    assert rms(undone[core], truth[core]) < 0.4 * rms(FRAME[core], truth[core])


def noisy(picture: np.ndarray) -> np.ndarray:
    return levels(picture + np.random.default_rng(0).normal(0, 4, picture.shape))


def through_jpeg(picture: np.ndarray) -> np.ndarray:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 75])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1].copy()


@pytest.mark.parametrize(
    "keyframe",
    [
        FRAME,
        TRUTH,
        noisy(edited(*places())),
        through_jpeg(TRUTH),
        # The tint is the edit.
        levels(source(*places()) * [1.05, 1, 0.95] + [5, 0, -5]),
        # A part is moved, all else lies well.
        np.where(
            (abs(places()[0] - 40) < 13)[..., None], levels(source(places()[0] - 3, places()[1])), FRAME
        ),
    ],
    ids=["unedited", "edited", "noisy", "jpeg", "tinted", "moved"],
)
def test_a_keyframe_that_lies_well_stays_to_the_byte(keyframe: np.ndarray) -> None:
    found = align(keyframe, FRAME)
    assert (found.estimate, found.moved, found.tinted, found.note) == (None, 0, 0, None)
    assert found.undone(keyframe, FRAME) is keyframe


def test_what_has_nothing_in_common_stays_and_is_said() -> None:
    other = np.random.default_rng(0).integers(0, 256, FRAME.shape).astype(np.uint8)
    for keyframe in (other, 255 - FRAME, levels(edited(*places()) * [1.0, 0.7, 0.4])):
        found = align(keyframe, FRAME)
        assert found.undone(keyframe, FRAME) is keyframe
        assert found.note is not None
        assert "too little of it" in found.note


def test_a_flat_picture_says_nothing() -> None:
    flat = np.full((*SIZE, 3), 90, np.uint8)
    assert align(flat, flat).note is None
    assert align(FRAME, flat).estimate is None
    assert align(flat, FRAME).estimate is None


# The last two have another share of their sides when they are made smaller, by rounding.
@pytest.mark.parametrize("size", [(16, 16), (16, 200), (33, 17), (22, 66), (71, 25)])
def test_small_and_narrow_pictures(size: tuple[int, int]) -> None:
    x, y = np.meshgrid(np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5)
    frame, keyframe = levels(source(x, y)), levels(source(x - 0.5, y))
    assert isinstance(align(keyframe, frame), Alignment)
    assert align(frame, frame).estimate is None


def test_two_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="pictures of one size"):
        align(FRAME, FRAME[:-1])


@pytest.mark.parametrize("seed", [0, 2, 3, 25, 30, 56])
@pytest.mark.parametrize("style", ["pastel", "dull"])
def test_a_keyframe_in_another_style_is_not_bent(seed: int, style: str) -> None:
    """All of it changes, so that soft edges seem to lie elsewhere; hard ones do not."""
    frame = to_uint8(render(sample_scene(seed, "test", 1.0), frame_times(1, 16), (64, 64)).video)[0]
    styled = 0.45 * frame + 124 if style == "pastel" else 0.6 * frame + np.array([60, 40, 70])
    keyframe = np.clip(np.rint(styled), 0, 255).astype(np.uint8)
    assert align(keyframe, frame).moved == 0
