import numpy as np
import pytest

from tests.video.scenes import panning
from wanedit.errors import InputError
from wanedit.video.sheets import (
    ACCENT,
    comparison_sheet,
    contact_indices,
    contact_sheet,
    junction_indices,
    junction_sheet,
)


def test_a_contact_sheet_shows_the_frames_and_marks_keyframes():
    frames = panning(30, 48, 80)
    plain, marked = contact_sheet(frames), contact_sheet(frames, keyframes=[0, 13, 29], title="a clip")
    assert not (plain == ACCENT).all(-1).any()
    assert (marked == ACCENT).all(-1).sum() > 3000
    assert (plain[0, 0] == 255).all()


def test_chosen_frames_hold_the_ends_and_the_keyframes():
    for count, keys in ((1, []), (2, [0]), (5, [2]), (100, [0, 50, 99]), (1000, [3])):
        chosen = contact_indices(count, keys)
        assert chosen == sorted(set(chosen))
        assert {0, count - 1, *keys} <= set(chosen)
        assert len(chosen) == min(count, 12)
    assert len(contact_indices(100, range(40))) == 12


def test_sheets_of_chosen_frames_equal_those_of_all():
    frames = panning(40)
    chosen = contact_indices(40, [0, 20])
    np.testing.assert_array_equal(
        contact_sheet(frames, [0, 20]), contact_sheet(frames[chosen], [0, 20], indices=chosen)
    )
    near = junction_indices(40, [20, 37])
    np.testing.assert_array_equal(
        junction_sheet(frames, [20, 37]), junction_sheet(frames[near], [20, 37], indices=near)
    )


@pytest.mark.parametrize("shape", [(16, 16), (48, 80), (90, 40), (1, 200)])
@pytest.mark.parametrize("count", [1, 3, 12, 25])
def test_any_shape_makes_a_sheet(shape, count):
    assert contact_sheet(panning(count, *shape), [0]).ndim == 3
    if count > 3:
        assert junction_sheet(panning(count, *shape), [1, count // 2], fps=12.5).ndim == 3


def test_what_cannot_be_shown_is_refused():
    frames = panning(6)
    with pytest.raises(InputError, match="6 frames and 2 indices"):
        contact_sheet(frames, indices=[0, 1])
    with pytest.raises(InputError, match="joins"):
        junction_sheet(frames, [9])
    with pytest.raises(InputError, match="joins"):
        junction_sheet(frames, [])


def test_a_comparison_says_when_uneven_frames_are_shown():
    frames = dict(enumerate(np.zeros((3, 64, 64, 3), np.uint8)))
    even = comparison_sheet({"a": frames}, [0, 2], fps=10)
    assert np.array_equal(comparison_sheet({"a": frames}, [0, 2], times=[0, 0.1, 0.2]), even)
    assert not np.array_equal(comparison_sheet({"a": frames}, [0, 2], fps=10, times=[0, 0.1, 0.9]), even)
