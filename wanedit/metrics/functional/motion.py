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

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Clip
from wanedit.video.colour import rgb_to_lab
from wanedit.video.motion import Flow, Motion, consistency, dis_flow, warp

# (frame, next frame) -> motion of each pixel of the first.
FlowOf = Callable[[np.ndarray, np.ndarray], Flow]

# Motion is followed on frames whose longer side is at most this; what it shows, it shows at any size.
SIDE = 480
# Motion below this, in pixels a frame of the reduced clip, has no direction: it is noise of the flow.
SPEED = 0.1


@dataclass(frozen=True, eq=False)
class Step:
    """From a frame to the next, both reduced, and the motion between them: all that measures of motion look at.

    Attributes:
        first, second: (h, w, 3), longer side at most `SIDE`.
    """

    first: AnyFrame
    second: AnyFrame
    motion: Motion

    @cached_property
    def change(self) -> float:
        """Mean squared change in levels^2."""
        return float(np.square(self.first.astype(np.float32) - self.second).mean(dtype=np.float64))

    @cached_property
    def speed(self) -> float:
        """Mean motion in pixels a frame."""
        return float(np.linalg.norm(self.motion.forward, axis=-1).mean())

    @cached_property
    def moved_back(self) -> tuple[float, float]:
        """RMS in levels, and distance in CIELAB of the mean colours, of the first frame and the second laid back on it,
        where both see the same."""
        back = np.clip(np.rint(warp(self.second, self.motion.forward)), 0, 255).astype(np.uint8)
        seen = self.motion.seen_forward[..., None]
        total = max(float(seen.sum()), 1.0)
        off = np.square(self.first.astype(np.float32) - back).mean(axis=-1, keepdims=True)
        step = ((rgb_to_lab(self.first) - rgb_to_lab(back)) * seen).sum(axis=(0, 1)) / total
        return float(np.sqrt((off * seen).sum() / total)), float(np.linalg.norm(step))


def step_between(first: AnyFrame, second: AnyFrame, flow: FlowOf = dis_flow) -> Step:
    """The step between two reduced frames, by DIS optical flow or another one."""
    forward, backward = flow(first, second), flow(second, first)
    seen = consistency(forward, backward), consistency(backward, forward)
    return Step(first, second, Motion(forward, backward, *seen))


def follow(video: Clip, flow: FlowOf = dis_flow) -> Iterator[Step]:
    """The steps of a clip, T - 1 of them, made as they are asked for: two frames are held."""
    before: AnyFrame | None = None
    for frame in video:
        small = reduced(frame)
        if before is not None:
            yield step_between(before, small, flow)
        before = small


def endpoint_error(source: Step, output: Step) -> tuple[float, float]:
    """End-point error of the output's flow against the source's (Otte and Nagel 1994).

    The mean of `|f_output - f_source|` in pixels a frame of the reduced clips, where the source's flow is believed; and
    its share of the mean `|f_source|` there, which is 1 for an output that stands still and NaN where the source does.

    Raises:
        InputError: frames of unequal size.
    """
    if source.first.shape != output.first.shape:
        raise InputError(f"frames are {source.first.shape} and {output.first.shape}; expected one shape")
    ours, theirs = output.motion, source.motion
    total = max(float(theirs.seen_forward.sum()), 1.0)
    gap = np.linalg.norm(ours.forward - theirs.forward, axis=-1)
    way = np.linalg.norm(theirs.forward, axis=-1)
    error, moved = (float((values * theirs.seen_forward).sum()) / total for values in (gap, way))
    return error, error / moved if moved >= SPEED else float("nan")


def reduced(frame: AnyFrame, side: int = SIDE) -> UInt8[np.ndarray, "_ _ 3"]:
    """A frame (H, W, 3) whose longer side is at most `side` pixels, by means of areas."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


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


class MotionWindows:
    """Both scores of an output, of reduced frames in order; a window of 17 of them is held."""

    def __init__(self) -> None:
        self.windows: list[tuple[float, float]] = []
        self.pairs: list[tuple[AnyFrame, AnyFrame]] = []

    def update(self, source: AnyFrame, output: AnyFrame) -> None:
        """Take the next frame of both."""
        self.pairs.append((source, output))
        if len(self.pairs) > LENGTH:
            self._close()

    def scores(self) -> MotionScores:
        """Of all frames so far."""
        if len(self.pairs) > 1:
            self._close()
        known = [[v for v in values if not np.isnan(v)] for values in zip(*self.windows, strict=True)]
        fidelity, placed = (float(np.mean(v)) if v else float("nan") for v in known or ([], []))
        return MotionScores(fidelity, placed)

    def _close(self) -> None:
        pair = [tracklets(frames) for frames in zip(*self.pairs, strict=True)]
        if all(len(tracks) for tracks in pair):
            self.windows.append((tracklet_similarity(*pair), in_place(*pair)))
        # Windows share the frame between them.
        self.pairs = self.pairs[-1:]


def motion_scores(source: Clip, output: Clip) -> MotionScores:
    """Both scores of an output.

    Raises:
        InputError: fewer than two frames, or clips of unequal length or size.
    """
    if source.shape != output.shape or len(source) < 2:
        raise InputError(f"clips are {source.shape} and {output.shape}; expected one shape, 2 frames or more")
    found = MotionWindows()
    for a, b in zip(source, output, strict=True):
        found.update(reduced(a), reduced(b))
    return found.scores()


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


def tracklets(video: Iterable[AnyFrame]) -> Tracks:
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
