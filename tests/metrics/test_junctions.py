"""Every fault of a join is seen by the measure that is made for it, and none by a clip without one."""

import cv2
import numpy as np
import pytest

from paper.make import junction_faults
from paper.make.junction_faults import FPS, FRAMES, SIZE
from wanedit.errors import InputError
from wanedit.metrics.functional.junctions import (
    MEASURES,
    REACH,
    JunctionScore,
    Series,
    Transitions,
    check_junctions,
    junction_scores,
    score,
)
from wanedit.sprites import frame_times, render, sample_scene
from wanedit.video import to_uint8

JOIN = 20


def scaled(clip: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(np.rint(clip.astype(float) * gain), 0, 255).astype(np.uint8)


def jumped(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([clip[:JOIN], np.roll(clip[JOIN:], 8, axis=1)])


def reversed_motion(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([clip[:JOIN], clip[JOIN - 2 :: -1]])


def recoloured(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([clip[:JOIN], scaled(clip[JOIN:], 1.02)])


def softened(clip: np.ndarray) -> np.ndarray:
    """A second piece that is less sharp."""
    return np.concatenate([clip[:JOIN], [cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in clip[JOIN:]]])


def blurred(clip: np.ndarray) -> np.ndarray:
    out = clip.copy()
    out[JOIN] = cv2.GaussianBlur(clip[JOIN], (0, 0), 1.5)
    return out


def grainy(clip: np.ndarray) -> np.ndarray:
    """One frame with another texture over it, of no colour and no motion."""
    out, grain = clip.copy(), np.random.default_rng(1).normal(0, 12, clip.shape[1:3])[..., None]
    out[JOIN] = np.clip(np.rint(clip[JOIN] + grain), 0, 255)
    return out


def duplicated(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([clip[:JOIN], clip[JOIN - 1 :]])


FAULTS = {
    "mse": jumped,
    "acceleration": jumped,
    "turn": reversed_motion,
    "warp": grainy,
    "colour": recoloured,
    "sharpness": blurred,
    "duplicate": duplicated,
}


def shown(clip: np.ndarray, join: int = JOIN) -> set[str]:
    return {name for name, found in junction_scores(clip, [join])[join].items() if found.shows}


@pytest.mark.parametrize("measure", FAULTS)
def test_a_fault_is_seen(clip: np.ndarray, measure: str) -> None:
    assert measure in shown(FAULTS[measure](clip))


@pytest.mark.parametrize("join", [8, 15, 20, 31])
def test_a_clean_clip_shows_nothing(clip: np.ndarray, join: int) -> None:
    assert shown(clip, join) == set()


def test_a_piece_that_is_less_sharp_is_seen(clip: np.ndarray) -> None:
    assert "sharpness" in shown(softened(clip))


def test_only_the_join_that_has_the_fault_shows(clip: np.ndarray) -> None:
    found = junction_scores(recoloured(clip), [10, JOIN, 30])
    assert [found[j]["colour"].shows for j in (10, JOIN, 30)] == [False, True, False]


def test_a_step_in_colour_has_its_size(clip: np.ndarray) -> None:
    """Two per cent of a mean lightness near 54 in CIELAB, whatever moves."""
    grey = clip.mean(axis=(0, 1, 2))
    assert np.abs(grey - 128).max() < 12
    found = junction_scores(recoloured(clip), [JOIN])[JOIN]["colour"]
    assert found.value == pytest.approx(1.0, abs=0.25)
    assert found.interior < 0.1


def test_a_still_clip_shows_nothing() -> None:
    still = np.full((20, 40, 40, 3), 90, np.uint8)
    found = junction_scores(still, [10])[10]
    assert {s.ratio for s in found.values()} == {1.0}
    assert not any(s.shows for s in found.values())


def test_the_ratio_is_to_the_median_away_from_all_joins() -> None:
    values = np.array([np.nan, *[2.0] * 9, 8.0, *[2.0] * 9])
    assert score("mse", Series(values), 10, [10]) == JunctionScore(8.0, 2.0, 4.0, True, severity=2.0)
    assert score("mse", Series(values), 5, [5]) == JunctionScore(2.0, 2.0, 1.0, False, severity=0.2)
    # The worst of the interior is worse: the clip does this anyway.
    values[15] = 9.0
    assert score("mse", Series(values), 10, [10]).shows is False


@pytest.mark.parametrize(
    ("measure", "usual"),
    # Below the limits that some have, above which a join shows by its size alone.
    [
        ("mse", 1.0),
        ("acceleration", 1.0),
        ("turn", 1.0),
        ("warp", 1.0),
        ("colour", 0.09),
        ("sharpness", 0.03),
    ],
)
def test_what_has_its_like_beside_it_is_no_join(measure: str, usual: float) -> None:
    hump, spike = np.full(40, usual), np.full(40, usual)
    spike[20] = 8.0 * usual
    # As when a camera sets off and stops: over five frames, of which a join excuses all from the interior.
    hump[18:23] = np.array([7.0, 7.9, 8.0, 7.9, 7.0]) * usual
    assert score(measure, Series(spike), 20, [20]).shows
    assert not score(measure, Series(hump), 20, [20]).shows


def test_a_change_of_speed_lasts_and_is_seen() -> None:
    values = np.full(40, 0.09)
    values[20:23] = 8.0 * 0.09
    assert score("mse", Series(values), 20, [20]).shows
    assert not score("colour", Series(values), 19, [19]).shows


def test_clean_places_and_faults_of_drawn_scenes() -> None:
    """Of clean footage these two scenes have the most places that show, for something bounces there."""
    clean, missed = [], []
    spoilt = {name: spoil for name, spoil in junction_faults.FAULTS.items() if name != "none"}
    for seed in (1, 6):
        scene = sample_scene(seed, "test", FRAMES / FPS)
        clip = to_uint8(render(scene, frame_times(FRAMES, FPS), SIZE).video)
        whole = Transitions.of(clip)
        for place in range(REACH + 1, FRAMES - REACH - 1):
            clean += [place] * any(one.shows for one in whole.scores([place])[place].values())
        join = FRAMES // 2
        for fault, spoil in spoilt.items():
            found = junction_scores(spoil(clip, join), [join])[join]
            missed += [(seed, fault)] * (not any(one.shows for one in found.values()))
    assert len(clean) <= 4
    # What moves in scene 1 is small and slow.
    assert missed == [(1, "motion reversed"), (1, "speed doubled")]


LIMITED = [("warp", 14.0), ("colour", 1.0), ("sharpness", 0.6)]


def half_bad(value: float, calm: float) -> np.ndarray:
    """Every second pair of frames is bad, as where a picture pulses at keyframes four apart."""
    return np.where(np.arange(30) % 4 < 2, value, calm)


@pytest.mark.parametrize(("measure", "value"), LIMITED)
def test_a_join_shows_by_its_size_where_half_of_the_interior_is_as_bad(measure: str, value: float) -> None:
    slow, fast = np.full(30, 0.5), np.full(30, 9.0)
    values = half_bad(value, value / 5)
    found = score(measure, Series(values, slow), 12, [12, 20])
    assert (found.shows, found.beyond) == (True, True)
    # Far below the limit, or with a limit that fast motion raises, or without one.
    assert not score(measure, Series(values / 3, slow), 12, [12, 20]).shows
    assert score(measure, Series(values, fast), 12, [12, 20]).shows == (measure == "colour")
    assert not score("mse", Series(half_bad(1e4, 1.0), slow), 12, [12, 20]).shows


@pytest.mark.parametrize(("measure", "value"), LIMITED)
def test_a_film_that_is_above_the_limit_throughout_has_no_limit(measure: str, value: float) -> None:
    for calm in (value, value / 3):
        assert not score(measure, Series(half_bad(value, calm), np.full(30, 0.5)), 12, [12, 20]).shows


@pytest.mark.parametrize(("measure", "value"), LIMITED)
def test_a_join_where_the_reference_is_above_the_limit_is_within_it(measure: str, value: float) -> None:
    slow, ours, theirs = np.full(30, 0.5), half_bad(value, 0.0), np.zeros(30)
    clean = Series(theirs.copy(), slow)
    theirs[12] = value
    found = [score(measure, Series(ours, slow), j, [12, 20], Series(theirs, slow)).shows for j in (12, 20)]
    assert found == [False, True]
    assert score(measure, Series(ours, slow), 12, [12, 20], clean).shows


def test_what_the_reference_does_at_a_join_is_no_fault(clip: np.ndarray) -> None:
    """A cut, with and without a flash that is the video's own."""
    cut = np.concatenate([clip[:JOIN], clip[:JOIN, ::-1, ::-1]])
    assert {"mse", "warp"} <= shown(cut)
    assert not any(s.shows for s in junction_scores(cut, [JOIN], cut)[JOIN].values())
    darker = junction_scores(recoloured(clip), [JOIN], clip)[JOIN]
    assert darker["colour"].shows
    with pytest.raises(InputError, match="reference has 39 frames; expected the video's 40"):
        junction_scores(clip, [JOIN], clip[1:])


def panned(cell: int, speed: float, frames: int = 30) -> np.ndarray:
    """Random blocks of all colours in motion: nothing is joined, and much of it is above the limits."""
    rng, width = np.random.default_rng(0), 160 + 80
    board = (
        rng.integers(0, 256, (90 // cell, width // cell, 3), dtype=np.uint8).repeat(cell, 0).repeat(cell, 1)
    )
    shifts = (np.array([[1, 0, -speed * t], [0, 1, 0]], np.float32) for t in range(frames))
    return np.stack([cv2.warpAffine(board, shift, (160, 90), flags=cv2.INTER_CUBIC) for shift in shifts])


@pytest.mark.parametrize(("cell", "speed"), [(1, 1.0), (2, 2.5), (5, 0.4)])
def test_fine_texture_in_motion_shows_no_join(cell: int, speed: float) -> None:
    clip = panned(cell, speed)
    over = [MEASURES[m].share_of_limit(Transitions.of(clip).series(m)) for m in ("warp", "colour")]
    assert max(np.nanmax(share) for share in over) > 1
    found = Transitions.of(clip)
    places = [found.scores([j])[j] for j in range(4, 26)]
    assert not any(s.shows for scores in places for s in scores.values())


def pulsing(clip: np.ndarray) -> np.ndarray:
    """Between keyframes every four frames the picture is soft: sharp, soft, soft, soft, sharp …"""
    soft = [cv2.GaussianBlur(frame, (0, 0), 2.5) for frame in clip]
    return np.stack([frame if t % 4 == 0 else soft[t] for t, frame in enumerate(clip)])


def test_every_join_of_a_clip_that_pulses_at_each_shows(clip: np.ndarray) -> None:
    found = junction_scores(pulsing(clip), [8, JOIN])
    assert all(found[j]["sharpness"].beyond and found[j]["sharpness"].shows for j in (8, JOIN))
    assert not any(s.beyond for s in junction_scores(clip, [8, JOIN])[JOIN].values())


@pytest.mark.parametrize(
    ("junctions", "words"),
    [
        ([], "junctions are"),
        ([0], "expected frames 1 … 38"),
        ([5, 5], r"junctions are \[5, 5\]; expected each frame once"),
        ([39], "expected frames"),
        (list(range(3, 38, 4)), "leave less"),
    ],
)
def test_joins_that_cannot_be_measured(clip: np.ndarray, junctions: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        junction_scores(clip, junctions)


@pytest.mark.parametrize(
    ("frames", "junction", "needed"), [(2, 1, 9), (8, 1, 9), (9, 4, 11), (10, 4, 11), (9, 2, 10)]
)
def test_a_short_clip_is_told_how_long_it_must_be(frames: int, junction: int, needed: int) -> None:
    with pytest.raises(InputError, match=rf"{frames} frames.*expected a clip of at least {needed} frames"):
        check_junctions(frames, [junction])
    check_junctions(needed, [junction])
