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

The last functions take one feature vector a frame, of any picture network (`networks.ClipImages`, `networks.Dino`).
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import Step, follow
from wanedit.video.arrays import AnyFrame, Clip
from wanedit.video.motion import between

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


def temporal_scores(video: Clip) -> TemporalScores:
    """All of them, of one clip of three frames or more.

    Raises:
        InputError: fewer than three frames.
    """
    found = TemporalSeries()
    for step in follow(video):
        found.update(step)
    return found.scores()


@dataclass(eq=False)
class TemporalSeries:
    """The same of steps in order; the frame before the last step is held."""

    fastest: list[float] = field(default_factory=list)
    warped: list[float] = field(default_factory=list)
    bent: list[float] = field(default_factory=list)
    change: float = 0.0
    still: int = 0
    before: AnyFrame | None = None

    def update(self, step: Step) -> None:
        """Take the next step of the clip."""
        self.fastest.append(fastest(step))
        self.warped.append(step.moved_back[0])
        resting = np.linalg.norm(step.motion.forward, axis=-1) < STILL
        change = np.abs(step.first.astype(np.float32) - step.second).mean(axis=-1)
        self.change, self.still = self.change + float(change[resting].sum()), self.still + int(resting.sum())
        # Every second frame, and the middle of its neighbours along their motion.
        if self.before is not None and len(self.fastest) % 2 == 0:
            middle = between(self.before, step.second, 0.5).astype(np.float32)
            self.bent.append(float(np.square(middle - step.first).mean()))
        self.before = step.first

    def scores(self) -> TemporalScores:
        """Of all steps so far. Raises InputError for fewer than two."""
        if len(self.fastest) < 2:
            raise InputError(f"the video has {len(self.fastest) + 1} frames; expected 3 or more")
        dynamic, error = float(np.mean(self.fastest)), float(np.mean(self.warped))
        flicker = self.change / self.still if self.still else float("nan")
        held = float(np.exp(-error / WARP_SCALE)) if dynamic >= FROZEN else 0.0
        return TemporalScores(dynamic, error, flicker, float(np.sqrt(np.mean(self.bent))), held)


def fastest(step: Step) -> float:
    """Mean of the fastest 5 % of a step's flow: of a clip, the mean of these is the dynamic degree."""
    speed = np.sort(np.linalg.norm(step.motion.forward, axis=-1).ravel())
    return float(speed[-max(1, round(FASTEST * speed.size)) :].mean())


Features = Float[np.ndarray, "t d"]
# Shares of the best frame, of the mean step and of the worst step in `subject_score`.
SHARES = (0.4, 0.3, 0.3)


def cosines(a: Features, b: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, " t"]:
    """Cosine of each row of a and of b.

    Raises:
        InputError: shapes that differ, or a row of zeros, which has no direction.
    """
    if a.shape != b.shape:
        raise InputError(f"features are {a.shape} and {b.shape}; expected one shape")
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    if not (lengths > 0).all():
        raise InputError(f"features of frame {int(np.argmin(lengths))} are all zero; expected a direction")
    return (a * b).sum(axis=1) / lengths


def step_similarities(features: Features) -> Float[np.ndarray, " n"]:
    """Cosine of each frame and the next: frame consistency is their mean (Esser et al. 2023, arXiv 2302.03011).

    Raises:
        InputError: fewer than two frames.
    """
    if len(features) < 2:
        raise InputError(f"features are of {len(features)} frame; expected 2 or more")
    return cosines(features[:-1], features[1:])


def background_consistency(features: Features) -> float:
    """VBench (arXiv 2311.17982): mean over frames 2 … T of the mean cosine to the first and to the frame before.

    Cosines below 0 count as 0.
    """
    steps = np.maximum(step_similarities(features), 0)
    first = np.maximum(cosines(features[1:], np.broadcast_to(features[0], features[1:].shape)), 0)
    return float((steps + first).mean() / 2)


def subject_score(picture: Float[np.ndarray, " _"], features: Features) -> float:
    """VBench's i2v_subject (VBench++, arXiv 2411.13503): does the video keep the picture that it was made from?

    `0.4 max_t cos(p, f_t) + 0.3 mean_t cos(f_t, f_t+1) + 0.3 min_t cos(f_t, f_t+1)`, cosines below 0 counted as 0. An
    earlier release had the shares 0.5, 0.5 and 0.

    Args:
        picture: features of the input picture.
        features: of every frame.

    Raises:
        InputError: fewer than two frames, or a picture with features of another size.
    """
    if picture.shape != features.shape[1:]:
        raise InputError(f"the picture's features are {picture.shape}; expected {features.shape[1:]}")
    steps = np.maximum(step_similarities(features), 0)
    to_picture = np.maximum(cosines(np.broadcast_to(picture, features.shape), features), 0)
    best, mean, worst = SHARES
    return float(best * to_picture.max() + mean * steps.mean() + worst * steps.min())
