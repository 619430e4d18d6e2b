import numpy as np
import pytest

from tests.video.scenes import numbered, panning
from wanedit.errors import InputError
from wanedit.video.stitching import Piece, stitch


def pieces(video: np.ndarray, cuts: list[int]) -> list[Piece]:
    return [
        Piece(a, b, iter(video[a - cuts[0] : b + 1 - cuts[0]])) for a, b in zip(cuts, cuts[1:], strict=False)
    ]


@pytest.mark.parametrize("cuts", [[0, 11], [0, 4, 11], [0, 1, 2, 3, 11], [7, 9, 18]])
@pytest.mark.parametrize("shared", ["mean", "left", "right"])
def test_a_cut_video_comes_back(cuts, shared):
    video = numbered(12)
    out = list(stitch(pieces(video, cuts), shared))
    assert len(out) == cuts[-1] - cuts[0] + 1
    np.testing.assert_array_equal(np.stack(out), video)


@pytest.mark.parametrize(("shared", "level"), [("mean", 151), ("left", 100), ("right", 201)])
def test_whose_keyframe_is_shown(shared, level):
    left, right = np.full((3, 2, 2, 3), 100, np.uint8), np.full((4, 2, 2, 3), 201, np.uint8)
    out = list(stitch([Piece(0, 2, left), Piece(2, 5, right)], shared))
    assert [int(frame[0, 0, 0]) for frame in out] == [100, 100, level, 201, 201, 201]


def test_one_frame_is_held_and_pieces_are_asked_for_late():
    asked = []

    def frames(name, count):
        for index in range(count):
            asked.append((name, index))
            yield np.zeros((2, 2, 3), np.uint8)

    def all_pieces():
        for number in range(3):
            yield Piece(2 * number, 2 * number + 2, frames(number, 3))

    stream = stitch(all_pieces())
    next(stream)
    assert asked == [(0, 0), (0, 1)]
    next(stream)
    assert asked[-1] == (0, 2)
    assert len(list(stream)) == 5


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Piece(4, 8, numbered(5)), "segment 1 begins at frame 4, expected 3"),
        (Piece(2, 6, numbered(5)), "segment 1 begins at frame 2, expected 3"),
        (Piece(3, 6, numbered(5)), "segment 1 needs 4 frames, got more"),
        (Piece(3, 9, numbered(5)), "segment 1 needs 7 frames, got 5"),
        (Piece(3, 3, numbered(1)), "covers frames 3 to 3"),
        (Piece(3, 6, numbered(4, 48, 32)), "size"),
    ],
)
def test_pieces_that_do_not_fit_are_named(second, message):
    with pytest.raises(InputError, match=message):
        list(stitch([Piece(0, 3, numbered(4)), second]))


def test_nothing_to_stitch():
    with pytest.raises(InputError, match="no segments"):
        list(stitch([]))
    with pytest.raises(InputError, match="needs 3 frames, got 0"):
        list(stitch([Piece(0, 2, panning(1)[:0])]))
    with pytest.raises(InputError, match="mean, left, right"):
        stitch([], "middle")
