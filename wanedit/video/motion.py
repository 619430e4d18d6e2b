"""Dense motion between two frames and what is made along it: frames between, and M frames to exactly N."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import Frame, Frames

Flow = Float32[np.ndarray, "h w 2"]
Weight = Float32[np.ndarray, "h w"]

# Pixels a frame, and the share of the picture that has to be faster, for motion to be read off it; squared levels a
# pixel at which a place counts half; how alike, as a cosine, two motions are that are the same one.
LEAST_SPEED, LEAST_MOVING, LEAST_STRUCTURE, ALIKE = 0.3, 0.004, 100.0, 0.7
MIN_SIDE = 32  # DIS needs a few 8-pixel patches on its coarsest level


def dis_flow(source: Frame, target: Frame) -> Flow:
    """Motion of each source pixel, (dx, dy) in pixels: source(x) = target(x + flow(x)).

    Kroeger et al., Fast Optical Flow using Dense Inverse Search, 2016, as OpenCV has it.
    """
    height, width = source.shape[:2]
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (source, target)]
    below, right = max(0, MIN_SIDE - height), max(0, MIN_SIDE - width)
    if below or right:
        grey = [cv2.copyMakeBorder(g, 0, below, 0, right, cv2.BORDER_REPLICATE) for g in grey]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)  # type: ignore[arg-type]
    return np.ascontiguousarray(flow[:height, :width], dtype=np.float32)


def warp(image: np.ndarray, flow: Flow, way: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Backward warp: result(x) = image(x + flow(x)), bilinear unless told, edges repeated. Float32, any channels."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image.astype(np.float32),
        x + flow[..., 0],
        y + flow[..., 1],
        way,
        borderMode=cv2.BORDER_REPLICATE,
    )


def consistency(forward: Flow, backward: Flow) -> Weight:
    """1 where going there and back returns to the start, towards 0 where the pixel is hidden in the other.

    The tolerance grows with the motion (Sundaram, Brox, Keutzer 2010, equation 5).
    """
    back = warp(backward, forward)
    gap = np.square(forward + back).sum(-1)
    tolerance = 0.5 + 0.01 * (np.square(forward).sum(-1) + np.square(back).sum(-1))
    return np.exp(-gap / tolerance)


@dataclass(frozen=True)
class Motion:
    """Motion between two frames, both ways, with how far each can be believed."""

    forward: Flow
    backward: Flow
    seen_forward: Weight  # pixel of the first frame is also seen in the second
    seen_backward: Weight

    def reversed(self) -> "Motion":
        """The same motion, from the second frame to the first."""
        return Motion(self.backward, self.forward, self.seen_backward, self.seen_forward)


def motion_between(first: Frame, second: Frame) -> Motion:
    forward, backward = dis_flow(first, second), dis_flow(second, first)
    return Motion(forward, backward, consistency(forward, backward), consistency(backward, forward))


def between(first: Frame, second: Frame, t: float, motion: Motion | None = None) -> Frame:
    """The frame at time t in [0, 1] between two frames, along their motion.

    The flow of both is carried to time t by splatting, then both frames are fetched along it and blended; a
    place that is hidden in one frame is taken from the other alone (Baker et al., A Database and Evaluation
    Methodology for Optical Flow, 2011, section 3.3.2).
    """
    if t <= 0 or t >= 1:
        return (first if t <= 0 else second).copy()
    motion = motion or motion_between(first, second)
    # Displacement from the first to the second frame of what is seen at each place at time t.
    ahead = _splat(motion.forward, t * motion.forward, motion.seen_forward)
    behind = _splat(-motion.backward, (1 - t) * motion.backward, motion.seen_backward)
    total = ahead + behind
    sums, weight = total[..., :2], total[..., 2]
    velocity = sums / np.maximum(weight, 1e-6)[..., None]
    # Places that nothing reached take it from wider and wider neighbourhoods.
    empty, side = weight < 1e-4, 3
    while empty.any() and side < 2 * max(weight.shape):
        near = cv2.blur(sums, (side, side)), cv2.blur(weight, (side, side))
        reached = empty & (near[1] > 1e-7)
        velocity[reached] = near[0][reached] / near[1][reached][:, None]
        empty &= ~reached
        side = 2 * side + 1
    velocity[empty] = 0
    to_first, to_second = -t * velocity, (1 - t) * velocity
    # what the second frame does not show comes from the first, and the other way round
    only_first = 1 - warp(motion.seen_forward, to_first)
    only_second = 1 - warp(motion.seen_backward, to_second)
    # The small terms decide where a place is hidden in both.
    weight_first = (1 - t) * (1 - only_second) + 1e-3 * (1 - t)
    weight_second = t * (1 - only_first) + 1e-3 * t
    share = (weight_second / (weight_first + weight_second))[..., None]
    mixed = (1 - share) * warp(first, to_first) + share * warp(second, to_second)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _splat(values: Flow, displacement: Flow, weight: Weight) -> np.ndarray:
    """Carry values along a displacement; (h, w, 3) of weighted sums and the weight itself."""
    height, width = weight.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x + displacement[..., 0], y + displacement[..., 1]
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    out = np.zeros((height * width, 3), np.float32)
    for down in (0, 1):
        for across in (0, 1):
            column, row = left + across, top + down
            share = (1 - np.abs(x - column)) * (1 - np.abs(y - row)) * (weight + 1e-3)
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row * width + column)[inside]
            for channel, value in enumerate((values[..., 0], values[..., 1], 1.0)):
                amount = (share * value)[inside]
                out[:, channel] += np.bincount(place, amount, height * width)
    return out.reshape(height, width, 3)


Between = Callable[[Frame, Frame, Sequence[float]], list[Frame]]


def speed_change(before: Frame, shown: Frame, after: Frame) -> float | None:
    """How many times as fast what a frame shows moves on from it as it came; None where motion does not say.

    It does not where next to nothing moves, or where motion turns or is another one.
    """
    came, goes = motion_between(shown, before), motion_between(shown, after)
    # In flat places flow is a guess.
    grey = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY).astype(np.float32)
    slopes = np.square(cv2.Sobel(grey, cv2.CV_32F, 1, 0) / 8) + np.square(
        cv2.Sobel(grey, cv2.CV_32F, 0, 1) / 8
    )
    structure = cv2.blur(slopes, (5, 5))
    weight = came.seen_forward * goes.seen_forward * structure / (structure + LEAST_STRUCTURE)
    here, there = -came.forward, goes.forward
    moving = weight * (np.linalg.norm(here, axis=-1) + np.linalg.norm(there, axis=-1) > 2 * LEAST_SPEED)
    if moving.mean() < LEAST_MOVING:
        return None
    energy, next_energy, common = (
        float((moving * (a * b).sum(-1)).sum()) for a, b in ((here, here), (there, there), (here, there))
    )
    if common < ALIKE * np.sqrt(energy * next_energy) or min(energy, next_energy) == 0:
        return None
    return float(np.sqrt(next_energy / energy))


def retime(
    frames: Frames, count: int, method: str = "linear", ends: tuple[float, float] = (1.0, 1.0)
) -> UInt8[np.ndarray, "n h w 3"]:
    """Resample a clip (T, H, W, 3) to `count` frames at positions i (T - 1) / (count - 1).

    The first and the last frame, and every other that a position falls on, are kept bit for bit. Between two
    frames, `linear` blends them and `optical_flow` moves along the motion between them.

    Args:
        ends: speed at the first and at the last frame in units of the even one, 0 to 3. Unless both are 1, positions
            follow the cubic with these slopes, which such slopes leave monotone (Fritsch and Carlson 1980, section 4).

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
    at = [divmod(i * (total - 1), steps) for i in range(count)]
    positions = [(left, rest / steps) for left, rest in at]
    if ends != (1.0, 1.0):
        t = np.arange(count) / steps
        # Hermite's cubic from 0 to 1; its ends are exact.
        even = t * t * (3 - 2 * t) + ends[0] * t * (1 - t) ** 2 - ends[1] * t * t * (1 - t)
        positions = [(int(x), float(x % 1)) for x in np.clip(even, 0, 1) * (total - 1)]
    out = np.empty((count, *frames.shape[1:]), np.uint8)
    for left, group in groupby(range(count), key=lambda i: positions[i][0]):
        places = list(group)
        shares = [positions[i][1] for i in places]
        # The pair is only looked at if a position lies inside it.
        inside = [share for share in shares if share]
        made = METHODS[method](frames[left], frames[left + 1], inside) if inside else []
        out[places] = [frames[left]] * (len(shares) - len(inside)) + made
    return out


def blend(first: Frame, second: Frame, times: Sequence[float]) -> list[Frame]:
    """(1 - t) first + t second, to the nearest level, for each t."""
    start, step = first.astype(np.float32), second.astype(np.float32) - first
    return [np.rint(start + t * step).astype(np.uint8) for t in times]


def along_motion(first: Frame, second: Frame, times: Sequence[float]) -> list[Frame]:
    """`between` for each t; their motion is estimated once."""
    motion = motion_between(first, second)
    return [between(first, second, t, motion) for t in times]


METHODS: dict[str, Between] = {"linear": blend, "optical_flow": along_motion}
