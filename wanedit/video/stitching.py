"""Segments into one video: the keyframe that two segments share is shown once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, require_same_size


@dataclass(frozen=True)
class Piece:
    """One segment's frames for output frames `first` to `last`, both included.

    `frames` is taken once and in order, so it may be an array (T, H, W, 3) or a generator over a file.
    """

    first: int
    last: int
    frames: Iterable[AnyFrame]

    @property
    def count(self) -> int:
        return self.last - self.first + 1


def stitch(pieces: Iterable[Piece], shared: str = "mean") -> Iterator[AnyFrame]:
    """Yield the frames of all pieces in order, `pieces[-1].last - pieces[0].first + 1` of them.

    Two neighbours both hold the keyframe between them, each decoded by itself. By default their mean is
    shown: it halves the step on either side, and both were corrected to one truth. `left` and `right`
    show that segment's own. Of each piece one frame at most is held.

    Raises:
        InputError: no pieces, a gap or overlap between two, a piece with more or fewer frames than its place
            has, frames of unequal size.
    """
    if shared not in _JOINS:
        raise InputError(
            f"stitch: unknown choice {shared!r} for shared keyframes, expected {', '.join(_JOINS)}"
        )
    return require_same_size(_joined(pieces, shared), "stitch")


def _joined(pieces: Iterable[Piece], shared: str) -> Iterator[AnyFrame]:
    held: AnyFrame | None = None
    end: int | None = None
    for number, piece in enumerate(pieces):
        _require_adjacent(piece, number, end)
        frames = _exact(piece, number)
        if held is not None:
            frames = _replace_first(frames, held, shared)
        held = next(frames)
        for frame in frames:
            yield held
            held = frame
        end = piece.last
    if held is None:
        raise InputError("stitch: no segments")
    yield held


def _replace_first(frames: Iterator[AnyFrame], held: AnyFrame, shared: str) -> Iterator[AnyFrame]:
    yield _JOINS[shared](held, next(frames))
    yield from frames


def _mean(left: AnyFrame, right: AnyFrame) -> AnyFrame:
    if left.shape != right.shape:
        raise InputError(f"stitch: segments of unequal size meet, {left.shape} and {right.shape}")
    return ((left.astype(np.uint16) + right + 1) // 2).astype(np.uint8)


_JOINS = {"mean": _mean, "left": lambda left, right: left, "right": lambda left, right: right}


def _require_adjacent(piece: Piece, number: int, end: int | None) -> None:
    if piece.last <= piece.first:
        raise InputError(
            f"stitch: segment {number} covers frames {piece.first} to {piece.last}, expected two or more"
        )
    if end is not None and piece.first != end:
        raise InputError(
            f"stitch: segment {number} begins at frame {piece.first}, expected {end} where the one before it ends"
        )


def _exact(piece: Piece, number: int) -> Iterator[AnyFrame]:
    count = 0
    for frame in piece.frames:
        count += 1
        if count > piece.count:
            break
        yield frame
    if count != piece.count:
        more = "more" if count > piece.count else str(count)
        raise InputError(f"stitch: segment {number} needs {piece.count} frames, got {more}")
