"""What became of the sprites of a clip: the truth passes, and each kind of wrong sample fails."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from wanedit.sprites import Background, Motion, Scene, Sprite, truth
from wanedit.sprites.recognise import Recognition
from wanedit.sprites.sets import Clip, first_clips, single_plain
from wanedit.sprites.truth import (
    LEAST_BEND,
    NOT_FOUND,
    Acceleration,
    Sighting,
    Sightings,
    Trace,
    acceleration,
    drift,
    is_named,
    looked_at,
    traces,
)


def test_truth_passes_and_a_wrong_sample_fails():
    clips = first_clips(3, 17, single_plain)
    for clip, other in zip(clips, clips[1:] + clips[:1], strict=True):
        truth, wrong = clip.video(64), other.video(64)
        empty = clip.background(64).expand(-1, 17, -1, -1)
        assert is_named(clip, looked_at(truth)) == (True, True, True)
        assert not is_named(clip, looked_at(wrong))[0]
        kept = drift(clip, truth, truth)
        assert kept.colour < 0.03
        assert kept.background > 30
        assert not kept.lost
        gone = drift(clip, empty, truth)
        assert gone.lost
        assert gone.colour > 0.08
        assert traces(clip, truth, truth) == [Trace(0.0, 0.0)]
        assert traces(clip, truth.roll(5, dims=-1), truth)[0].error > 2
        assert traces(clip, empty, truth) == [Trace(NOT_FOUND, 1.0)]


def path(*places: float, truth: Sequence[float] | None = None) -> dict[int, Sightings]:
    """One sprite on a line, from frame 1 on; in truth a pixel a frame."""
    real = truth or range(1, 1 + len(places))
    return {
        t: [Sighting((x, 0), (x, 0), (y, 0))] for t, (x, y) in enumerate(zip(real, places, strict=True), 1)
    }


def test_motion_that_stops_at_a_join_is_accelerated_there():
    assert acceleration(path(1, 2, 3, 4, 5), [3]) == Acceleration(0, 0)
    # Second differences -1, 2 and -1.
    stops = acceleration(path(1, 2, 2, 4, 5), [3])
    assert stops is not None
    assert (stops.error, stops.ratio) == (pytest.approx(4 / 3), pytest.approx(math.sqrt(2) / LEAST_BEND))
    bent = [1, 2, 4, 7, 11]
    assert acceleration(path(*bent, truth=bent), [3]) == Acceleration(0, 1)
    assert acceleration(path(1, 2, 3, 4, 5), [9]) is None


def test_what_the_instrument_misreads_says_nothing_of_a_join():
    frames = path(1, 2, 2, 4, 5) | {3: [Sighting(seen=(3, 0), real=(3.3, 0), found=(2, 0))]}
    assert acceleration(frames, [3]) is None
    assert acceleration(path(1, 2, 3, 4, 5) | {3: [None]}, [3]) is None


@pytest.fixture
def red_circle() -> Clip:
    """A red circle moves to the right before blue and green."""
    motion = Motion("linear", (-0.3, 0.0), (0.3, 0.1), duration=1.0)
    scene = Scene(
        Background("gradient", ("blue", "green"), angle=0.7), (Sprite("circle", "red", 0.4, motion=motion),)
    )
    return Clip(0, scene, 17)


@pytest.mark.parametrize("start", [32, 0])
def test_a_repainted_background_is_seen(red_circle, start):
    truth, sprite = red_circle.video(64), red_circle.masks(64)[0]
    painted, magenta = truth.clone(), torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1)
    painted[..., start:] = torch.where(sprite[..., start:] > 0, truth[..., start:], magenta)
    background = drift(red_circle, painted, truth).background
    assert math.isfinite(background)
    assert background < 15
    everything = magenta.expand_as(truth).clone()
    assert drift(red_circle, everything, truth).background < 15


def test_a_recoloured_and_a_faded_sprite_have_another_colour(red_circle):
    truth, mask = red_circle.video(64), red_circle.masks(64)
    empty = red_circle.background(64)
    other = replace(red_circle, scene=red_circle.scene.with_sprite(0, colour="orange")).video(64)
    faded = torch.lerp(truth, empty, 0.5 * mask)
    left = (torch.arange(64) < 32 + 0.3 * 32).float()
    half_faded = torch.lerp(truth, empty, 0.6 * mask * left)
    assert drift(red_circle, truth, truth).colour < 0.03
    for wrong in (other, faded, half_faded):
        assert drift(red_circle, wrong, truth).colour > 0.1


def test_a_speck_is_no_sprite(red_circle):
    truth = red_circle.video(64)
    speck = red_circle.background(64).expand_as(truth).clone()
    speck[:, :, 32, 32] = truth[:, 8, 32, 32, None]
    assert traces(red_circle, speck, truth) == [Trace(NOT_FOUND, 1.0)]


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        (["red circle", "red circle", "blue star"], (True, True, True)),
        (["red circle", "red star", "blue circle"], (False, True, True)),
        (["red circle", "blue star", "blue star"], (False, False, False)),
        (["blue star", "red circle", "red circle"], (True, True, True)),
    ],
)
def test_a_sprite_is_named_by_two_of_three_frames(red_circle, seen, named, monkeypatch):
    answers = iter(Recognition(colour, shape, 1.0) for colour, shape in map(str.split, seen))
    monkeypatch.setattr(truth, "recognise", lambda _: next(answers))
    assert is_named(red_circle, looked_at(red_circle.video(64))) == named
