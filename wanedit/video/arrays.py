"""Frames as arrays: the shape aliases and the checks."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from typing import overload

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError

Frame = UInt8[np.ndarray, "h w 3"]
AnyFrame = UInt8[np.ndarray, "_ _ 3"]  # where sizes differ within one function
Frames = UInt8[np.ndarray, "t h w 3"]

Rate = int | float | Fraction  # frames per second


@dataclass(frozen=True)
class Clock:
    """When the frames of a stretch are shown, on the clock of the file that holds them.

    pts: of each frame, strictly ascending, in units of `time_base` seconds. end: when the last one ends.
    """

    pts: tuple[int, ...]
    end: int
    time_base: Fraction

    @property
    def start(self) -> Fraction:
        """Seconds of the first frame."""
        return self.pts[0] * self.time_base

    @property
    def seconds(self) -> Fraction:
        """How long the frames last."""
        return (self.end - self.pts[0]) * self.time_base

    @property
    def shortest(self) -> Fraction:
        """Seconds for which a frame is shown at the least."""
        return min(b - a for a, b in pairwise((*self.pts, self.end))) * self.time_base

    @property
    def even(self) -> bool:
        """Whether the steps between frames differ by no more than the clock's rounding."""
        steps = [b - a for a, b in pairwise(self.pts)]
        return not steps or max(steps) - min(steps) <= 1

    def cut(self, start: int, stop: int) -> "Clock":
        """Of the frames `start` to `stop - 1`."""
        end = self.pts[stop] if stop < len(self.pts) else self.end
        return Clock(self.pts[start:stop], end, self.time_base)


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """Frames that are decoded, or drawn, each time they are looked at, for clips that memory should not hold.

    What is done with an array of frames one by one is done with it alike: its length and shape, a loop, one frame,
    some frames, a stretch. `np.asarray` reads all of it.

    Attributes:
        shape: (T, H, W, 3) as an array would have it; of a mask (T, H, W).
        read: (start, stop) -> frames `start` to `stop - 1` in order.
    """

    shape: tuple[int, ...]
    read: Callable[[int, int], Iterator[np.ndarray]]
    dtype: type[np.generic] = np.uint8

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all frames in memory."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read(0, len(self))

    @overload
    def __getitem__(self, at: slice) -> "FrameSequence": ...
    @overload
    def __getitem__(self, at: int | Sequence[int]) -> np.ndarray: ...
    def __getitem__(self, at: int | slice | Sequence[int]) -> "FrameSequence | np.ndarray":
        """A stretch, itself not read yet; or the frames named, read in one go from the first of them to the last."""
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                raise IndexError(f"frames {at} asked for; expected a stretch without steps")
            shape = (max(stop - start, 0), *self.shape[1:])
            return FrameSequence(shape, lambda a, b: self.read(start + a, start + b), self.dtype)
        if isinstance(at, int | np.integer):
            return self[[int(at)]][0]
        places = [range(len(self))[int(i)] for i in at]
        if not places:
            return np.empty((0, *self.shape[1:]), self.dtype)
        first, wanted = min(places), set(places)
        found = {i: frame for i, frame in enumerate(self.read(first, max(places) + 1), first) if i in wanted}
        return np.stack([found[i] for i in places])

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        every = np.empty(self.shape, self.dtype)
        for t, frame in enumerate(self):
            every[t] = frame
        return every if dtype is None else every.astype(dtype)  # pyright: ignore[reportArgumentType, reportCallIssue]


# A clip, in memory or not.
Clip = UInt8[np.ndarray, "_ _ _ 3"] | FrameSequence


def require_frame(frame: object, what: str) -> Frame:
    """The same object, once it is known to be one uint8 RGB frame. Raises InputError otherwise."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        got = None if frame is None else getattr(frame, "dtype", type(frame).__name__)
        raise InputError(
            f"{what}: expected a uint8 array (H, W, 3), a picture's rows, columns and red, green and blue; got {got}"
        )
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InputError(f"{what}: expected a uint8 array (H, W, 3), got shape {frame.shape}")
    return frame


def require_same_size(frames: Iterable[AnyFrame], what: str) -> Iterator[AnyFrame]:
    """Pass frames on one by one; InputError at the first that is no frame or has another size than the first."""
    size: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        require_frame(frame, f"{what}, frame {index}")
        size = size or frame.shape
        if frame.shape != size:
            raise InputError(f"{what}: frame {index} is {size_text(frame)}, the first is {size[1]}x{size[0]}")
        yield frame


def peek(frames: Iterable[AnyFrame], what: str) -> tuple[AnyFrame, Iterator[AnyFrame]]:
    """The first frame, and all frames. Raises InputError if there is none."""
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError(f"{what}: no frames")
    return first, chain([first], iterator)


def size_text(frame: Frame) -> str:
    """`width x height`, as people write it."""
    return f"{frame.shape[1]}x{frame.shape[0]}"


def pixels_sha256(pixels: np.ndarray | FrameSequence) -> str:
    """SHA-256 of the shape and bytes of a picture or a clip, read row by row or frame by frame: no second copy."""
    found = hashlib.sha256(repr(pixels.shape).encode())
    for part in pixels:
        found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()
