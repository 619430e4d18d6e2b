"""M frames to exactly N, first and last kept."""

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import Frame, Frames
from wanedit.video.motion import between, motion_between

Between = Callable[[Frame, Frame, Sequence[float]], list[Frame]]


def retime(frames: Frames, count: int, method: str = "linear") -> UInt8[np.ndarray, "n h w 3"]:
    """Resample a clip (T, H, W, 3) to `count` frames at positions i (T - 1) / (count - 1).

    The first and the last frame, and every other that a position falls on, are kept bit for bit. Between two
    frames, `linear` blends them and `optical_flow` moves along the motion between them.

    Raises:
        InputError: count below 1, count 1 for a longer clip (its two ends do not fit), unknown method.
    """
    if method not in METHODS:
        raise InputError(f"retime: unknown method {method!r}, expected one of: {', '.join(METHODS)}")
    total = len(frames)
    if count < 1 or total < 1:
        raise InputError(f"retime: from {total} frames to {count}, expected at least one of each")
    if count == 1 and total > 1:
        raise InputError(f"retime: {total} frames to 1 would lose one of the two ends")
    steps = max(count - 1, 1)  # positions are kept in integers, so that no end is missed by rounding
    out = np.empty((count, *frames.shape[1:]), np.uint8)
    for left, group in groupby(range(count), key=lambda i: i * (total - 1) // steps):
        places = list(group)
        shares = [(i * (total - 1) % steps) / steps for i in places]
        out[places] = _around(frames, left, shares, METHODS[method])
    return out


def _around(frames: Frames, left: int, shares: list[float], resample: Between) -> list[Frame]:
    """Frames at `left` + share; the pair is only looked at if a position lies inside it."""
    inside = [share for share in shares if share]
    made = resample(frames[left], frames[left + 1], inside) if inside else []
    return [frames[left]] * (len(shares) - len(inside)) + made


def blend(first: Frame, second: Frame, times: Sequence[float]) -> list[Frame]:
    """(1 - t) first + t second, to the nearest level, for each t."""
    start, step = first.astype(np.float32), second.astype(np.float32) - first
    return [np.rint(start + t * step).astype(np.uint8) for t in times]


def _along_motion(first: Frame, second: Frame, times: Sequence[float]) -> list[Frame]:
    motion = motion_between(first, second)
    return [between(first, second, t, motion) for t in times]


METHODS: dict[str, Between] = {"linear": blend, "optical_flow": _along_motion}
