"""Frames as arrays: the shape aliases, the checks, and the one bridge between files and models."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wanedit.errors import InputError, NumericalError

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

    def cut(self, start: int, stop: int) -> "Clock":
        """Of the frames `start` to `stop - 1`."""
        end = self.pts[stop] if stop < len(self.pts) else self.end
        return Clock(self.pts[start:stop], end, self.time_base)


def to_uint8(video: Float[Tensor, "3 t h w"]) -> Frames:
    """A model's clip in [-1, 1] as frames for a file.

    Values are clamped to [-1, 1], as the official Wan writer does, and rounded to the nearest level. (The
    official writer truncates, which darkens by half a level and does not give `from_uint8` back.)

    Raises:
        NumericalError: a value is NaN or infinite; cast to uint8 it would be a silent black.
    """
    require_finite(video)
    levels = (video.detach().float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()


def from_uint8(frames: Frames) -> Float[Tensor, "3 t h w"]:
    """Frames of a file as float32 in [-1, 1]; exact inverse of `to_uint8`."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)
    return (video.float() / 127.5 - 1).contiguous()


def require_finite(video: Float[Tensor, "3 t h w"]) -> None:
    """Raise NumericalError for a clip with a value that is NaN or infinite."""
    bad = ~torch.isfinite(video)
    if bad.any():
        frame = int(bad.any(dim=(0, 2, 3)).nonzero()[0])
        raise NumericalError(
            f"{int(bad.sum())} of {video.numel()} pixel values are NaN or infinite, first in frame {frame}; "
            "written as 8 bits they would be black"
        )


def require_frame(frame: object, what: str) -> Frame:
    """The same object, once it is known to be one uint8 RGB frame. Raises InputError otherwise."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        got = getattr(frame, "dtype", type(frame).__name__)
        raise InputError(f"{what}: expected a uint8 array (H, W, 3), got {got}")
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


def pixels_sha256(pixels: np.ndarray) -> str:
    """SHA-256 of an array's shape and bytes: a picture's or a clip's name by content."""
    found = hashlib.sha256(repr(pixels.shape).encode())
    # The buffer itself, not `tobytes()`: a source clip is large enough without a second copy.
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()
