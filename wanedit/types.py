"""Frozen data shared by every floor."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path


@dataclass(frozen=True)
class Keyframe:
    """An image that the video must show at a time, in seconds from the start of the story."""

    path: Path
    seconds: float


@dataclass(frozen=True)
class Segment:
    """The stretch between two neighbouring keyframes, both ends included.

    Attributes:
        index: position in the chain, from 0.
        start, end: output frames of its two keyframes; `end` is the `start` of the next segment.
        sampled_frames: 4n+1 frames that the model is asked for; more than `frames` are retimed away,
            fewer (a segment beyond the model's limit) are stretched by optical flow.
    """

    index: int
    start: int
    end: int
    sampled_frames: int

    @property
    def frames(self) -> int:
        """Frames that the segment contributes, both keyframes included."""
        return self.end - self.start + 1

    @property
    def slots(self) -> int:
        """Latent slots of the sampled clip."""
        return (self.sampled_frames - 1) // 4 + 1


@dataclass(frozen=True)
class Timeline:
    """A plan in frames: where every keyframe stands and which segments lie between.

    Attributes:
        fps: frames a second.
        keyframe_frames: output frame of every keyframe; the first is 0.
        segments: one fewer than keyframes.
    """

    fps: Fraction
    keyframe_frames: tuple[int, ...]
    segments: tuple[Segment, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the whole output."""
        return self.keyframe_frames[-1] + 1
