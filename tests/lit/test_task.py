"""EditTask refuses what does not belong together."""

import numpy as np
import pytest

from tests.lit.clips import edit_task, moving
from wanedit.errors import InputError
from wanedit.timeline import check_keyframes


@pytest.mark.parametrize(
    ("count", "indices", "words"),
    [
        (2, (0,), "2 keyframes and 1 keyframe indices; expected one index for each"),
        (0, (), "no keyframes; expected at least one"),
        (1, (9,), r"\[9\] lie outside the source's frames 0 … 8"),
        (1, (-1,), r"\[-1\] lie outside"),
        (2, (4, 0), "keyframe 0 follows 4; expected indices that increase"),
        (2, (4, 4), "keyframe 4 follows 4"),
        (2, (5, 8), "one latent slot, 2, which holds frames 5 to 8"),
        (2, (1, 2), "one latent slot, 1, which holds frames 1 to 4"),
    ],
)
def test_keyframes_that_do_not_fit_are_refused(count: int, indices: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_keyframes(count, indices, 9)


def test_neighbours_in_two_slots_are_accepted() -> None:
    check_keyframes(3, (0, 4, 5), 9)


def test_a_task_checks_itself() -> None:
    with pytest.raises(InputError, match="one latent slot"):
        edit_task(indices=(5, 6))
    with pytest.raises(InputError, match=r"keyframes are \(16, 16, 3\) and the source \(32, 32, 3\)"):
        edit_task(keyframes=np.zeros((2, 16, 16, 3), np.uint8))


def test_sizes_of_a_task() -> None:
    task = edit_task(11, (0, 10))
    assert (task.size, task.sampled_frames, task.slots) == ((32, 32), 13, (0, 3))
    assert (task.grid, task.tokens) == ((4, 4, 4), 16)
    assert len(moving(11)) == len(task.frames)
