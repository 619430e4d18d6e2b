"""Seconds to frames, frames to segments, frames to latent slots. Exact arithmetic, no tensors."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from wanedit.errors import InputError

STRIDE = 4
MODEL_LIMIT = 81
STIFF_BELOW, DRIFT_ABOVE = 32, 100
MAX_FPS = 1000

Seconds = int | float | Fraction


@dataclass(frozen=True)
class Keyframe:
    """An image that the video must show at a time, in seconds from the start of the story."""

    path: Path
    seconds: float


@dataclass(frozen=True)
class Span:
    """Two neighbouring keyframes of a segment: their output frames, and the sampled ones that show them."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class Segment:
    """The stretch between two keyframes, both ends included, that is sampled at once.

    Attributes:
        index: position in the chain, from 0.
        start, end: output frames of its two keyframes; `end` is the `start` of the next segment.
        sampled_frames: 4n+1 frames that the model is asked for; more than `frames` are retimed away,
            fewer (a segment beyond the model's limit) are stretched by optical flow.
        inner: output frames of the keyframes between the two.
    """

    index: int
    start: int
    end: int
    sampled_frames: int
    inner: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """Frames that the segment contributes, both keyframes included."""
        return self.end - self.start + 1

    @property
    def slots(self) -> int:
        """Latent slots of the sampled clip."""
        return (self.sampled_frames - 1) // 4 + 1

    @property
    def keyframes(self) -> tuple[int, ...]:
        """Output frames of all its keyframes."""
        return (self.start, *self.inner, self.end)

    @property
    def spans(self) -> tuple[Span, ...]:
        """From keyframe to keyframe. What is sampled beyond `frames` lies in the longest of them, whose speed it
        changes least; every inner keyframe is shown by one sampled frame."""
        pairs = list(pairwise(self.keyframes))
        longest = max(range(len(pairs)), key=lambda k: pairs[k][1] - pairs[k][0])
        surplus = self.sampled_frames - self.frames
        return tuple(
            Span(a, b, a - self.start + surplus * (k > longest), b - self.start + surplus * (k >= longest))
            for k, (a, b) in enumerate(pairs)
        )


@dataclass(frozen=True)
class Timeline:
    """A plan in frames: where every keyframe stands and which segments lie between.

    Attributes:
        fps: frames a second.
        keyframe_frames: output frame of every keyframe; the first is 0.
        segments: one fewer than keyframes, or fewer still where they hold several.
    """

    fps: Fraction
    keyframe_frames: tuple[int, ...]
    segments: tuple[Segment, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the whole output."""
        return self.keyframe_frames[-1] + 1

    @property
    def joins(self) -> tuple[int, ...]:
        """Output frames at which segments join."""
        return tuple(segment.start for segment in self.segments[1:])


def slot(frame: int) -> int:
    """The latent slot of a pixel frame: `ceil(frame / 4)`. Slot 0 holds frame 0 alone."""
    if frame < 0:
        raise InputError(f"frame is {frame}; expected >= 0")
    return -(-frame // STRIDE)


def slots(num_frames: int) -> int:
    """Latent slots of a clip of 4n+1 frames.

    Raises:
        InputError: the count is not 4n+1.
    """
    if num_frames < 1 or (num_frames - 1) % STRIDE:
        lower = max(1, (num_frames - 1) // STRIDE * STRIDE + 1)
        raise InputError(f"{num_frames} frames; expected 4n+1, such as {lower} or {lower + STRIDE}")
    return (num_frames - 1) // STRIDE + 1


def round_up(num_frames: int) -> int:
    """The smallest 4n+1 that is at least `num_frames`."""
    return -(-(num_frames - 1) // STRIDE) * STRIDE + 1


def check_keyframes(count: int, indices: Sequence[int], num_frames: int | None = None) -> None:
    """See that keyframes stand at frames of a clip, each in a latent slot of its own.

    Args:
        num_frames: of the clip; None where that is not known yet.

    Raises:
        InputError: naming the first thing that is wrong.
    """
    if count != len(indices):
        raise InputError(
            f"{count} keyframes and {len(indices)} keyframe indices; expected one index for each"
        )
    if not indices:
        raise InputError("no keyframes; expected at least one edited frame of the source")
    outside = [i for i in indices if i < 0 or (num_frames is not None and i >= num_frames)]
    if outside:
        frames = "from 0 up" if num_frames is None else f"0 … {num_frames - 1}"
        raise InputError(f"keyframe indices {outside} lie outside the source's frames {frames}")
    for before, after in zip(indices, indices[1:], strict=False):
        if after <= before:
            raise InputError(f"keyframe {after} follows {before}; expected indices that increase")
        if slot(before) == slot(after):
            shared = slot(after)
            raise InputError(
                f"keyframes {before} and {after} fall into one latent slot, {shared}, which holds frames "
                f"{max(0, 4 * shared - 3)} to {4 * shared}; expected one keyframe in a slot"
            )


def fit_length(num_frames: int) -> int:
    """The frames that a clip of `num_frames` occupies in a model: the next 4n+1.

    The policy for a source that is to be edited: its last frame is held from `num_frames` up to this length,
    and the output is cut back to exactly `num_frames`. No frame is dropped and the clip is not retimed.

    Raises:
        InputError: fewer than one frame.
    """
    if num_frames < 1:
        raise InputError(f"a clip of {num_frames} frames; expected at least 1")
    return round_up(num_frames)


# Rates that broadcast runs at 1000/1001 of.
_NOMINAL = (12, 15, 24, 30, 48, 60, 72, 90, 96, 120, 240)


def rate_of(fps: Seconds | str) -> Fraction:
    """Frames a second as an exact fraction: 12.5 -> 25/2; 29.97 -> 30000/1001, as broadcast means it; "30000/1001".

    Raises:
        InputError: not a number above 0 and up to 1000.
    """
    try:
        # A fraction is taken at its word; a decimal that is near a rate of broadcast stands for it.
        value = Fraction(fps) if isinstance(fps, int | Fraction) or "/" in str(fps) else float(fps)
    except (ValueError, ZeroDivisionError):
        raise InputError(f'fps is {fps!r}; expected a number or a fraction such as "30000/1001"') from None
    if not 0 < value <= MAX_FPS:  # also False for NaN
        raise InputError(f"fps is {fps}; expected a number above 0 and up to {MAX_FPS}")
    if isinstance(value, float):
        for nominal in _NOMINAL:
            if abs(value - nominal / 1.001) < 5e-3:
                return Fraction(nominal * 1000, 1001)
    return Fraction(value).limit_denominator(100_000)


def exact(value: Seconds) -> Fraction:
    """The decimal number that a user wrote: 0.1 is 1/10, not the binary float beside it."""
    return Fraction(value) if isinstance(value, int | Fraction) else Fraction(repr(float(value)))


def _number(value: Seconds) -> str:
    """For messages: enough digits that two times that differ are not printed alike."""
    return f"{float(value):.12g}"


def frame_at(seconds: Seconds, fps: Seconds | str) -> int:
    """`round(t * fps)`, halves upwards, in rational arithmetic."""
    return math.floor(exact(seconds) * rate_of(fps) + Fraction(1, 2))


def plan(
    seconds: Sequence[Seconds],
    fps: Seconds | str,
    limit: int = MODEL_LIMIT,
    stretch: bool = False,
    pack: bool = False,
) -> Timeline:
    """Lay keyframe times out in frames and cut the chain into segments.

    The output has exactly `p_last - p_0 + 1` frames and shows keyframe k at frame `p_k - p_0`, with
    `p_k = round(t_k fps)`.

    Args:
        seconds: keyframe times, at least two, strictly increasing.
        fps: frames a second, as `rate_of` takes them.
        limit: the longest clip that the model is good for, 4n+1.
        stretch: sample a segment beyond the limit at the limit, to be retimed by optical flow.
        pack: segments of as many keyframes as fit the limit: as few of them as possible and, of these divisions, the
            one of the smallest sum of squared lengths, which is what attention costs.

    Raises:
        InputError: too few or unordered times, two keyframes on one frame, or a segment beyond the limit.
    """
    slots(limit)
    _check_times(seconds)
    fps = rate_of(fps)
    frames = [frame_at(t, fps) for t in seconds]
    for k, (a, b) in enumerate(zip(frames, frames[1:], strict=False)):
        if a == b:
            raise InputError(
                f"keyframes {k} ({_number(seconds[k])} s) and {k + 1} ({_number(seconds[k + 1])} s) both fall "
                f"on frame {a} at {_number(fps)} fps; move them apart by at least {1 / float(fps):.4g} s or raise fps"
            )
    starts = [p - frames[0] for p in frames]
    ends = _packed(starts, limit) if pack else range(len(starts))
    segments = tuple(
        _segment(k, starts[i : j + 1], limit, stretch) for k, (i, j) in enumerate(pairwise(ends))
    )
    return Timeline(fps, tuple(starts), segments)


def _packed(frames: Sequence[int], limit: int) -> list[int]:
    """The keyframes at which segments begin or end, see `plan`; one pair may be longer than the limit."""
    best = [
        (0, 0, 0)
    ]  # up to each keyframe: segments, sum of squares, the keyframe at which the last one begins
    for j in range(1, len(frames)):
        options = []
        for i in reversed(range(j)):
            length = frames[j] - frames[i] + 1
            if i < j - 1 and round_up(length) > limit:
                break
            options.append((best[i][0] + 1, best[i][1] + length**2, i))
        best.append(min(options))
    ends = [len(frames) - 1]
    while ends[-1]:
        ends.append(best[ends[-1]][2])
    return ends[::-1]


def _check_times(seconds: Sequence[Seconds]) -> None:
    if len(seconds) < 2:
        raise InputError(f"{len(seconds)} keyframe(s); expected at least two")
    for k, t in enumerate(seconds):
        if not math.isfinite(t) or t < 0:
            raise InputError(f"keyframe {k} is at {_number(t)} s; expected a finite time >= 0")
    for k, (a, b) in enumerate(zip(seconds, seconds[1:], strict=False)):
        if a == b:
            raise InputError(f"keyframes {k} and {k + 1} are both at {_number(a)} s; expected distinct times")
        if a > b:
            raise InputError(
                f"keyframe {k + 1} at {_number(b)} s comes before keyframe {k} at {_number(a)} s; "
                "expected increasing times (sort_keyframes: true sorts them)"
            )


def _segment(index: int, keyframes: Sequence[int], limit: int, stretch: bool) -> Segment:
    start, *inner, end = keyframes
    needed = end - start + 1
    sampled = round_up(needed)
    if sampled > limit:
        if not stretch:
            raise InputError(
                f"segment {index} needs {needed} frames; the model is good for {limit}. Add a keyframe inside "
                "it, lower fps, or leave long_segments at stretch: sampled at the limit, then retimed by optical flow"
            )
        sampled = limit
    return Segment(index, start, end, sampled, tuple(inner))


def renumbered(before: Sequence[tuple[Hashable, int]], now: Sequence[Hashable]) -> list[int]:
    """The numbers of segments of which some were there before: these keep theirs, wherever they stand now.

    Others take, in order, the numbers of those that stood in their place, then the smallest that no segment has. So
    what comes between two keyframes and is taken out again leaves all as it was.

    Args:
        before: segments by what they lie between, each with its number.
        now: what the segments lie between now.
    """
    matcher = SequenceMatcher(None, [one for one, _ in before], now, autojunk=False)
    found: list[int | None] = []
    for _, start, stop, first, last in matcher.get_opcodes():
        there = [number for _, number in before[start:stop]]
        found += [*there, *[None] * (last - first)][: last - first]
    free = iter(number for number in range(len(found)) if number not in found)
    return [next(free) if number is None else number for number in found]


def stretches(timeline: Timeline) -> list[str]:
    """What becomes of each segment beyond the model's limit, and what avoids it."""
    return [
        f"segment {segment.index} needs {segment.frames} frames and the model is good for {segment.sampled_frames}: "
        f"these are sampled and stretched {(segment.frames - 1) / (segment.sampled_frames - 1):.2f}-fold along their "
        "motion (long_segments: error refuses that; a keyframe inside it, or a lower fps, avoids it)"
        for segment in timeline.segments
        if segment.frames > segment.sampled_frames
    ]


def warnings(timeline: Timeline, drift_above: int = DRIFT_ABOVE) -> list[str]:
    """Remedies for segments whose length a full-size model handles badly: under 32 frames, or over `drift_above`."""
    found = []
    for segment in timeline.segments:
        if segment.frames < STIFF_BELOW:
            found.append(
                f"segment {segment.index} has {segment.frames} frames: under {STIFF_BELOW} motion turns stiff; "
                "move its keyframes apart or raise fps"
            )
        elif segment.frames > drift_above:
            found.append(
                f"segment {segment.index} has {segment.frames} frames: over {drift_above} the scene drifts; "
                "add a keyframe inside it"
            )
    return found
