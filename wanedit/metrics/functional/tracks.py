"""Whether an edit moves as its source: a surrogate of the motion fidelity score.

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

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import reduced

Frames = UInt8[np.ndarray, "t height width 3"]
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
