"""M frames to exactly N, first and last kept."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import Frame, Frames

Method = Literal["linear", "optical_flow"]
Between = Callable[[Frame, Frame, float], Frame]


def retime(frames: Frames, count: int, method: Method = "linear") -> UInt8[np.ndarray, "n h w 3"]:
    """Resample a clip (T, H, W, 3) to `count` frames at positions i (T - 1) / (count - 1).

    The first and the last frame, and every other that a position falls on, are kept bit for bit. Between two
    frames, `linear` blends them and `optical_flow` moves along the motion between them.

    Raises:
        InputError: count below 1, count 1 for a longer clip (its two ends do not fit), unknown method.
    """
    if method not in _methods():
        raise InputError(f"retime: unknown method {method!r}, expected one of: {', '.join(_methods())}")
    total = len(frames)
    if count < 1 or total < 1:
        raise InputError(f"retime: from {total} frames to {count}, expected at least one of each")
    if count == 1 and total > 1:
        raise InputError(f"retime: {total} frames to 1 would lose one of the two ends")
    between = _methods()[method]
    return np.stack([_at(frames, i * (total - 1), max(count - 1, 1), between) for i in range(count)])


def _at(frames: Frames, numerator: int, denominator: int, between: Between) -> Frame:
    """The frame at position numerator / denominator; in integers, so that no end is missed by rounding."""
    left, part = divmod(numerator, denominator)
    if part == 0:
        return frames[left]
    return between(frames[left], frames[left + 1], part / denominator)


def blend(first: Frame, second: Frame, t: float) -> Frame:
    """(1 - t) first + t second, to the nearest level."""
    return np.rint((1 - t) * first.astype(np.float32) + t * second.astype(np.float32)).astype(np.uint8)


def _methods() -> dict[str, Between]:
    from wanedit.video import motion

    return {"linear": blend, "optical_flow": motion.between}
