"""Named sets of clips: only a stated rule leaves a seed out."""

from dataclasses import replace

import pytest

from wanedit.sprites import Background, Motion, Scene, Sprite
from wanedit.sprites.sets import Clip, batches, first_clips, linear, moves_through, unseen_pair


def test_clips_are_consecutive_seeds_that_obey_the_rule():
    chosen, every = first_clips(5, 17, linear), first_clips(40, 17)
    assert [clip.seed for clip in every] == list(range(40))
    assert [clip.seed for clip in chosen] == [clip.seed for clip in every if linear(clip.scene)][:5]
    assert sum(map(len, batches(every, 64 * 64 * 17))) == 40
    assert isinstance(chosen[0], Clip)
    validation = first_clips(40, 17, split="validation")
    assert validation != every
    assert not any(unseen_pair(clip.scene) for clip in validation)


@pytest.mark.parametrize(
    ("motion", "through"),
    [
        # Two world units, of 32 px each, in two seconds.
        (Motion("linear", (-1.0, 0.0), (1.0, 0.0), duration=2.0), True),
        (Motion("linear", (-0.4, 0.0), (0.4, 0.0), duration=2.0), False),  # slow
        (Motion("linear", (0.1, 0.0), (2.1, 0.0), duration=2.0), False),  # out of the picture
        (Motion("bounce", (-1.0, 0.0), (1.0, 0.0), duration=2.0, radius=0.3, rate=1.0), False),
        (Motion("bounce", (-1.0, 0.0), (1.0, 0.0), duration=2.0, radius=0.3, rate=1.0, phase=0.5), True),
    ],
)
def test_only_motion_that_passes_a_time_goes_through_it(motion, through):
    disc = Sprite("circle", "red", 0.3, motion=motion)
    scene = Scene(Background("gradient", ("blue", "white")), (disc,))
    assert moves_through(scene, 1.0, 0.25, 30.0) is through
    before = Sprite("square", "green", 0.5, motion=replace(motion, kind="linear"))
    assert not moves_through(replace(scene, sprites=(disc, before)), 1.0, 0.25, 30.0)  # hidden
    assert not moves_through(replace(scene, sprites=()), 1.0, 0.25, 30.0)
