"""Whether a video holds together in time. Consistency is never given without motion: a frozen video has most of it.

- dynamic degree: mean over frames of the fastest 5 % of the optical flow, in pixels a frame of the clip reduced to 480
  (VBench, arXiv 2311.17982, with DIS flow for RAFT);
- warp error: RMS of a frame and the next moved back on it, where both see the same, in levels (Lai et al. 2018,
  equation 1);
- flicker: mean absolute change from frame to frame where nothing moves, in levels (VBench's temporal flickering, which
  has the clips chosen to stand still);
- smoothness: RMS of every second frame and the one interpolated from its neighbours, in levels (VBench's motion
  smoothness, with DIS flow for AMT);
- consistency: exp(-warp error / 10), and 0 where the dynamic degree is below 0.1 (this project's).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import ClipMotion, follow
from wanedit.video.motion import between

Frames = UInt8[np.ndarray, "t height width 3"]

FASTEST = 0.05
# Below this the clip is frozen, and its consistency is no merit.
FROZEN = 0.1
# Places that move by less than this, in pixels a frame, are still.
STILL = 0.25
WARP_SCALE = 10.0


@dataclass(frozen=True)
class TemporalScores:
    """See the table above.

    Attributes:
        flicker: NaN where no place is still.
    """

    dynamic_degree: float
    warp_error: float
    flicker: float
    smoothness: float
    consistency: float


def temporal_scores(video: Frames, motion: ClipMotion | None = None) -> TemporalScores:
    """All of them, of one clip of three frames or more.

    Args:
        motion: of the clip, where it is known already.

    Raises:
        InputError: fewer than three frames.
    """
    if len(video) < 3:
        raise InputError(f"the video has {len(video)} frames; expected 3 or more")
    motion = motion or follow(video)
    dynamic = dynamic_degree(motion)
    error = float(np.mean(motion.warp_errors()))
    held = float(np.exp(-error / WARP_SCALE)) if dynamic >= FROZEN else 0.0
    return TemporalScores(dynamic, error, flicker(motion), smoothness(motion), held)


def dynamic_degree(motion: ClipMotion) -> float:
    """Mean over frames of the mean of the fastest 5 % of the flow."""
    means = []
    for pair in motion.pairs:
        speed = np.sort(np.linalg.norm(pair.forward, axis=-1).ravel())
        means.append(speed[-max(1, round(FASTEST * speed.size)) :].mean())
    return float(np.mean(means))


def flicker(motion: ClipMotion) -> float:
    """Mean absolute change of still places; NaN where there are none."""
    total, count = 0.0, 0
    for first, second, pair in zip(motion.frames, motion.frames[1:], motion.pairs, strict=False):
        still = np.linalg.norm(pair.forward, axis=-1) < STILL
        change = np.abs(first.astype(np.float32) - second).mean(axis=-1)
        total, count = total + float(change[still].sum()), count + int(still.sum())
    return total / count if count else float("nan")


def smoothness(motion: ClipMotion) -> float:
    """RMS between every second frame and the middle of its neighbours along their motion."""
    frames = motion.frames
    squares = [
        np.square(between(frames[t - 1], frames[t + 1], 0.5).astype(np.float32) - frames[t]).mean()
        for t in range(1, len(frames) - 1, 2)
    ]
    return float(np.sqrt(np.mean(squares)))
