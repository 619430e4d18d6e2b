"""How a clip moves: its optical flow, computed once for every measure that needs it, and tracklets of its points.

Tracklets tell whether an edit moves as its source, by a surrogate of the motion fidelity score.

Yatim et al. 2024 (arXiv 2311.17009, section 5) compare the tracklets T of a source with the tracklets T' of an output,
both by CoTracker:

    corr(a, b) = mean over frames of <v_a, v_b> / (|v_a| |v_b|)
    score = mean over T' of the max over T of corr, plus mean over T of the max over T' of corr

Here tracklets come from pyramidal Lucas-Kanade (Bouguet 2001) on a grid, in windows of 16 steps; only those that move
are asked for their like, since in most clips most places stand still in source and output alike; and the sum is halved,
so that 1 is best. The numbers are this project's and must not stand in one table with the paper's.

The max is taken over the whole frame, so a clip run backwards finds its like wherever things move both ways. Edits keep
their layout, which allows a stricter measure: `in_place` compares the tracklets that start at the same place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

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


Tracks = Float[np.ndarray, "n t 2"]

# Points along the longer side.
GRID = 32
# Steps that a tracklet lasts.
LENGTH = 16
# A point that does not come back to within this many pixels is lost.
RETURNS = 0.5
# A step below this many pixels has no direction; two such steps agree.
STILL = 0.1
# Mean step of a tracklet that moves.
MOVES = 0.25
SEARCH = {"winSize": (15, 15), "maxLevel": 3}


@dataclass(frozen=True)
class MotionScores:
    """Means over the windows in which something moves in either clip; NaN where nothing does in any.

    Attributes:
        fidelity: the score above.
        in_place: mean corr of tracklets that start at the same place, where either moves.
    """

    fidelity: float
    in_place: float


def motion_scores(source: Frames, output: UInt8[np.ndarray, "_ _ _ 3"]) -> MotionScores:
    """Both scores of an output.

    Raises:
        InputError: fewer than two frames, or clips of unequal length or size.
    """
    if source.shape != output.shape or len(source) < 2:
        raise InputError(f"clips are {source.shape} and {output.shape}; expected one shape, 2 frames or more")
    small = reduced(source), reduced(output)
    found = []
    for start in range(0, len(source) - 1, LENGTH):
        pair = [tracklets(video[start : start + LENGTH + 1]) for video in small]
        if all(len(tracks) for tracks in pair):
            found.append((tracklet_similarity(*pair), in_place(*pair)))
    known = [[value for value in values if not np.isnan(value)] for values in zip(*found, strict=True)]
    fidelity, placed = (float(np.mean(v)) if v else float("nan") for v in known or ([], []))
    return MotionScores(fidelity, placed)


def tracklet_similarity(source: Tracks, output: Float[np.ndarray, "m _ 2"]) -> float:
    """Both directed means of the equation above, halved; a clip in which nothing moves, unlike the other, adds 0.

    Args:
        source, output: places (x, y) of each tracklet in each frame.

    Raises:
        InputError: no tracklet, or tracklets of unequal length.
    """
    if not len(source) or not len(output) or source.shape[1] != output.shape[1] or source.shape[1] < 2:
        raise InputError(
            f"tracklets are {source.shape} and {output.shape}; expected some, over one number of frames"
        )
    moved = [_moves(tracks) for tracks in (source, output)]
    if not (moved[0].any() or moved[1].any()):
        return float("nan")
    corr = _correlation(source, output)
    best = corr.max(axis=1)[moved[0]], corr.max(axis=0)[moved[1]]
    return float(sum(values.mean() if len(values) else 0.0 for values in best)) / 2


def in_place(source: Tracks, output: Float[np.ndarray, "m _ 2"]) -> float:
    """Mean corr of the tracklets that start at the same place, where either moves; NaN where none does."""
    starts = {tuple(place): k for k, place in enumerate(output[:, 0])}
    pairs = [(k, starts[place]) for k, place in enumerate(map(tuple, source[:, 0])) if place in starts]
    if not pairs:
        return float("nan")
    a, b = source[[k for k, _ in pairs]], output[[k for _, k in pairs]]
    moved = _moves(a) | _moves(b)
    return float(np.diagonal(_correlation(a, b))[moved].mean()) if moved.any() else float("nan")


def _moves(tracks: Tracks) -> Bool[np.ndarray, " n"]:
    return np.linalg.norm(np.diff(tracks, axis=1), axis=-1).mean(axis=1) >= MOVES


def _correlation(a: Tracks, b: Float[np.ndarray, "m t 2"]) -> Float[np.ndarray, "n m"]:
    steps = [np.diff(tracks.astype(np.float64), axis=1) for tracks in (a, b)]
    speeds = [np.linalg.norm(step, axis=-1) for step in steps]
    still = [(speed < STILL).astype(np.float64) for speed in speeds]
    ways = [
        np.where(speed[..., None] < STILL, 0.0, step / np.maximum(speed, STILL)[..., None])
        for step, speed in zip(steps, speeds, strict=True)
    ]
    agree = np.einsum("ntc,mtc->nm", *ways) + np.einsum("nt,mt->nm", *still)
    return agree / steps[0].shape[1]


def tracklets(video: Frames) -> Tracks:
    """Grid points of the first frame that are followed to the last one and back from step to step.

    Points without texture are not followed.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
    height, width = grey[0].shape
    spacing = max(max(height, width) / GRID, 1.0)
    y, x = np.mgrid[spacing / 2 : height : spacing, spacing / 2 : width : spacing]
    places = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)
    path, kept = [places], np.ones(len(places), dtype=bool)
    for first, second in zip(grey, grey[1:], strict=False):
        ahead, found = _step(first, second, path[-1])
        back, returned = _step(second, first, ahead)
        kept &= found & returned & (np.linalg.norm(back - path[-1], axis=-1) < RETURNS)
        path.append(ahead)
    return np.stack(path, axis=1)[kept].astype(np.float64)


def _step(first: np.ndarray, second: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    moved, status, _ = cv2.calcOpticalFlowPyrLK(first, second, places, None, **SEARCH)  # type: ignore[call-overload]
    return moved, status.ravel() > 0
