"""The optical flow of a whole clip, computed once for every measure that needs it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from wanedit.errors import InputError
from wanedit.video.colour import rgb_to_lab
from wanedit.video.motion import Flow, Motion, consistency, dis_flow, warp

Frames = UInt8[np.ndarray, "t height width 3"]
Series = Float[np.ndarray, " n"]
# (frame, next frame) -> motion of each pixel of the first.
FlowOf = Callable[[np.ndarray, np.ndarray], Flow]

# Motion is followed on frames whose longer side is at most this; what it shows, it shows at any size.
SIDE = 480
# Motion below this, in pixels a frame of the reduced clip, has no direction: it is noise of the flow.
SPEED = 0.1


@dataclass(frozen=True, eq=False)
class ClipMotion:
    """A clip, reduced, and the motion from each frame to the next.

    Attributes:
        frames: (T, h, w, 3), longer side at most `SIDE`.
        pairs: T - 1 motions.
    """

    frames: Frames
    pairs: tuple[Motion, ...]

    @cached_property
    def _moved(self) -> Float[np.ndarray, "n 2"]:
        pairs = zip(self.frames, self.frames[1:], self.pairs, strict=False)
        return np.array([moved_back(*pair) for pair in pairs], dtype=np.float64)

    def warp_errors(self) -> Series:
        """RMS in levels of each frame and the next moved back on it, where both see the same."""
        return self._moved[:, 0]

    def colour_steps(self) -> Series:
        """Distance in CIELAB of the mean colour of the same."""
        return self._moved[:, 1]

    def changes(self) -> Series:
        """Mean squared change from each frame to the next, in levels^2."""
        pairs = zip(self.frames, self.frames[1:], strict=False)
        return np.array([np.square(a.astype(np.float32) - b).mean(dtype=np.float64) for a, b in pairs])

    def bends(self) -> Float[np.ndarray, "n 2"]:
        """Acceleration at the T - 2 inner frames, in px / frame^2, and its share of the motion there."""
        return np.array([bend(a, b) for a, b in zip(self.pairs, self.pairs[1:], strict=False)])


def follow(video: Frames, flow: FlowOf = dis_flow) -> ClipMotion:
    """The motion of a clip of two frames or more, both ways, by DIS optical flow or another one."""
    small = reduced(video)
    pairs = tuple(_both_ways(a, b, flow) for a, b in zip(small, small[1:], strict=False))
    return ClipMotion(small, pairs)


def _both_ways(first: np.ndarray, second: np.ndarray, flow: FlowOf) -> Motion:
    forward, backward = flow(first, second), flow(second, first)
    return Motion(forward, backward, consistency(forward, backward), consistency(backward, forward))


def endpoint_errors(source: ClipMotion, output: ClipMotion) -> Float[np.ndarray, "n 2"]:
    """End-point error of the output's flow against the source's (Otte and Nagel 1994), from each frame to the next.

    The mean of `|f_output - f_source|` in pixels a frame of the reduced clips, where the source's flow is believed; and
    its share of the mean `|f_source|` there, which is 1 for an output that stands still and NaN where the source does.

    Raises:
        InputError: clips of unequal length or size.
    """
    if source.frames.shape != output.frames.shape:
        raise InputError(f"clips are {source.frames.shape} and {output.frames.shape}; expected one shape")
    return np.array([_endpoint_error(a, b) for a, b in zip(source.pairs, output.pairs, strict=True)])


def _endpoint_error(source: Motion, output: Motion) -> tuple[float, float]:
    total = max(float(source.seen_forward.sum()), 1.0)
    gap = np.linalg.norm(output.forward - source.forward, axis=-1)
    way = np.linalg.norm(source.forward, axis=-1)
    error, moved = (float((values * source.seen_forward).sum()) / total for values in (gap, way))
    return error, error / moved if moved >= SPEED else float("nan")


def reduced(video: Frames) -> UInt8[np.ndarray, "t h w 3"]:
    """Frames whose longer side is at most `SIDE`."""
    height, width = video.shape[1:3]
    scale = SIDE / max(height, width)
    if scale >= 1:
        return video
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video])


def moved_back(first: np.ndarray, second: np.ndarray, motion: Motion) -> tuple[float, float]:
    """RMS and Lab distance of a frame and the next laid back on it, where the motion is believed both ways."""
    back = np.clip(np.rint(warp(second, motion.forward)), 0, 255).astype(np.uint8)
    seen = motion.seen_forward[..., None]
    total = max(float(seen.sum()), 1.0)
    off = np.square(first.astype(np.float32) - back).mean(axis=-1, keepdims=True)
    step = ((rgb_to_lab(first) - rgb_to_lab(back)) * seen).sum(axis=(0, 1)) / total
    return float(np.sqrt((off * seen).sum() / total)), float(np.linalg.norm(step))


def bend(before: Motion, after: Motion) -> tuple[float, float]:
    """Mean |x(t + 1) - 2 x(t) + x(t - 1)| over what frame t shows of both neighbours, and its share of the motion.

    The share is 0 for even motion and 1 for motion that goes back; what stands still counts for little in it.
    """
    seen = before.seen_backward * after.seen_forward
    change = np.linalg.norm(before.backward + after.forward, axis=-1)
    way = np.linalg.norm(before.backward, axis=-1) + np.linalg.norm(after.forward, axis=-1)
    total = max(float(seen.sum()), 1.0)
    mean, moved = float((change * seen).sum()) / total, float((way * seen).sum()) / total
    return mean, mean / max(moved, SPEED)
