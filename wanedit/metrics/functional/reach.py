"""How far an edit reached: the share of it that each frame carries, of what is known without a truth.

Known are the source s, the edited keyframes e_k and the result r. A keyframe asks for the difference D_k = e_k - s_k;
on frame t it should be found where the source's motion has taken it. With m the motion from keyframe k to frame t and
b how far that is believed, the share is the coefficient of the projection of what is there on what should be,

    share_k(t) = sum b <d_t(x + m(x)), D_k(x)> / sum b |D_k(x)|^2,    d_t = r_t - s_t

1 where the edit arrived, 0 where the source stands as it was, below 0 where it was changed to the opposite. Coding
noise is uncorrelated with D and falls out; what the result changes elsewhere is not asked about. How much of the edit
can be followed at all is `known_k(t) = sum b |D_k|^2 / sum |D_k|^2`.

Motion is chained from frame to frame and estimated in one hop; of each pixel the one is taken that is believed more:
chains follow what moves far, hops do not drift. Where neither is believed, edits that go by colour still tell: for
every colour of the source a keyframe gives the difference that it gets and how surely, and on frame t the same sum is
taken over the pixels of these colours. Where neither motion nor colour tells, the share is not known, and none given.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from tempfile import SpooledTemporaryFile

import cv2
import numpy as np
from jaxtyping import Float32

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import reduced
from wanedit.video.arrays import AnyFrame, Clip
from wanedit.video.motion import Flow, Weight, consistency, motion_between, warp

Change = Float32[np.ndarray, "h w 3"]

# All of it is asked of frames whose longer side is at most this.
SIDE = 256
# Bytes of frames between two keyframes that are held in memory; more of them lie in a temporary file.
HELD = 64 * 2**20
# A keyframe edits a pixel that it changes by more than this many levels; less is what coding does.
EDITED = 10.0
# Share of the pixels that must be edited for there to be an edit to speak of.
LEAST_AREA = 5e-4
# Motion that lays a pixel beside another one, this many levels off, is believed exp(-1).
DOUBTS = 32.0
# Share of an edit that must be followed for its share to be told.
LEAST_KNOWN = 0.3
# Colours a channel is told apart by, pixels that make a colour known, and how surely it must tell of the edit.
COLOURS, LEAST_PIXELS, LEAST_SURE = 16, 8, 0.6
# Below this share a frame lacks the edit; in words for a person.
LACKS = 0.6
WORDS = (
    (0.05, "next to nothing"),
    (0.14, "a tenth"),
    (0.22, "a fifth"),
    (0.29, "a quarter"),
    (0.41, "a third"),
    (0.58, "half"),
    (math.inf, "two thirds"),
)


@dataclass(frozen=True)
class Reach:
    """How far an edit reached.

    Attributes:
        shares: of every frame, 1 for all of the edit; NaN where it cannot be told.
        known: of every frame, the share of the edit that could be followed there.
        keyframes: frames of the keyframes.
    """

    shares: tuple[float, ...]
    known: tuple[float, ...]
    keyframes: tuple[int, ...]

    @cached_property
    def between(self) -> list[float]:
        """Shares of the frames that no keyframe stands at, as far as they are known."""
        off = (s for t, s in enumerate(self.shares) if t not in self.keyframes)
        return [share for share in off if math.isfinite(share)]

    @property
    def mean(self) -> float:
        """Of these; NaN where none is known."""
        return float(np.mean(self.between)) if self.between else math.nan

    @property
    def worst(self) -> float:
        """The least of these."""
        return min(self.between, default=math.nan)

    def told(self) -> list[str]:
        """For a person: how much is carried, each stretch that lacks the edit, and what cannot be told."""
        if not self.between:
            return []
        at = next(t for t, s in enumerate(self.shares) if s == self.worst and t not in self.keyframes)
        lines = [
            f"the edit reached: {self.mean:.0%} of it is carried off the keyframes on average, least at frame {at} "
            f"({self.worst:.0%})"
        ]
        # Where not even a keyframe has its edit, the method follows none, and another would not help.
        kept = any(self.shares[k] >= LACKS for k in self.keyframes)
        for first, last in self._stretches(lambda share: share < LACKS):
            share = float(np.mean(self.shares[first : last + 1]))
            carried = next(words for most, words in WORDS if share < most)
            free = max(range(first, last + 1), key=lambda t: min(abs(t - k) for k in self.keyframes))
            advice = (
                f"add a keyframe near {free}"
                if kept
                else "the keyframes themselves lack it, so more would not help"
            )
            lines.append(f"{_frames(first, last)}: {carried} of the edit carried; {advice}")
        unknown = self._stretches(lambda share: math.isnan(share))
        if unknown:
            named = ", ".join(_frames(*ends) for ends in unknown)
            lines.append(
                f"{named}: how much of the edit is there cannot be told, the source's motion is lost"
            )
        return lines

    def _stretches(self, of: Callable[[float], bool]) -> list[tuple[int, int]]:
        """(first, last) of each run of frames between keyframes whose share is so."""
        found: list[tuple[int, int]] = []
        for t in (t for t, share in enumerate(self.shares) if t not in self.keyframes and of(share)):
            if found and t == found[-1][1] + 1:
                found[-1] = found[-1][0], t
            else:
                found.append((t, t))
        return found


def _frames(first: int, last: int) -> str:
    return f"frame {first}" if first == last else f"frames {first} to {last}"


@dataclass(frozen=True, eq=False)
class _Asked:
    """What one keyframe asks for, reduced.

    Attributes:
        source: the frame that was edited.
        change: D_k, 0 where it is no more than coding does.
        energy: |D_k|^2 of each pixel.
    """

    source: AnyFrame
    change: Change
    energy: Weight

    @classmethod
    def of(cls, source: AnyFrame, keyframe: AnyFrame) -> "_Asked":
        small = reduced(source, SIDE)
        change = reduced(keyframe, SIDE).astype(np.float32) - small
        change = np.where(np.abs(change).max(-1, keepdims=True) > EDITED, change, np.float32(0))
        return cls(small, change, np.square(change).sum(-1))

    @property
    def edits(self) -> bool:
        """Whether there is an edit to speak of."""
        return float((self.energy > 0).mean()) >= LEAST_AREA

    @cached_property
    def by_colour(self) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, " n"]]:
        """Of every colour of the source: the mean change that it gets, and how surely, 0 … 1."""
        bins = _colours(self.source).ravel()
        count = np.bincount(bins, minlength=COLOURS**3)
        each = [np.bincount(bins, self.change[..., c].ravel(), COLOURS**3) for c in range(3)]
        mean = np.stack(each, -1) / np.maximum(count, 1)[:, None]
        # Share of the colour's change that its mean explains: a colour that is edited here and not there has little.
        power = np.bincount(bins, self.energy.ravel(), COLOURS**3)
        sure = count * np.square(mean).sum(-1) / np.maximum(power, 1e-6)
        sure = np.where((count >= LEAST_PIXELS) & (sure >= LEAST_SURE), sure, 0)
        return mean.astype(np.float32), sure.astype(np.float32)

    @cached_property
    def known_by_colour(self) -> float:
        """How much of the edit goes by colour."""
        sure = self.by_colour[1][_colours(self.source)]
        return float((sure * self.energy).sum() / max(float(self.energy.sum()), 1e-6))


class _Pairs:
    """Frames of source and result in order, reduced, that can be read from either end: 0.2 MB a pair.

    The next keyframe may be thousands of them away: what is over `HELD` lies on disk.
    """

    def __init__(self) -> None:
        self.shape, self.count = (0,), 0
        # Gone with the pairs themselves.
        self.file = SpooledTemporaryFile(max_size=HELD)  # noqa: SIM115

    def __len__(self) -> int:
        return self.count

    def append(self, source: AnyFrame, result: AnyFrame) -> None:
        pair = np.stack([source, result])
        self.file.seek(self.count * pair.nbytes)
        self.file.write(pair.tobytes())
        self.shape, self.count = pair.shape, self.count + 1

    def read(self, order: Iterable[int]) -> Iterator[tuple[AnyFrame, Change]]:
        """The source's frame and the change of the result against it, at these places."""
        size = math.prod(self.shape)
        for place in order:
            self.file.seek(place * size)
            pair = np.frombuffer(self.file.read(size), np.uint8).reshape(self.shape)
            yield pair[0], pair[1].astype(np.float32) - pair[0]


@dataclass(eq=False)
class ReachSeries:
    """`Reach` of frames in order.

    Args:
        keyframes: frame -> edited picture.
        sources: frame -> the source there.

    Raises:
        InputError: no keyframes, or sources of other frames.
    """

    keyframes: InitVar[Mapping[int, AnyFrame]]
    sources: InitVar[Mapping[int, AnyFrame]]
    held: _Pairs = field(default_factory=_Pairs)
    found: list[list[tuple[float, float, float]]] = field(default_factory=list)

    def __post_init__(self, keyframes: Mapping[int, AnyFrame], sources: Mapping[int, AnyFrame]) -> None:
        if not keyframes or set(keyframes) != set(sources):
            raise InputError(
                f"keyframes at {sorted(keyframes)} and their sources at {sorted(sources)}; expected some, at the same "
                "frames"
            )
        self.asked = {k: _Asked.of(sources[k], keyframes[k]) for k in sorted(keyframes)}

    @property
    def edits(self) -> bool:
        """Whether a keyframe changes its frame by enough to speak of."""
        return any(asked.edits for asked in self.asked.values())

    def update(self, source: AnyFrame, result: AnyFrame) -> None:
        """Take the next frame of both."""
        self.held.append(reduced(source, SIDE), reduced(result, SIDE))
        if len(self.found) + len(self.held) - 1 in self.asked:
            self._close()

    def reach(self) -> Reach:
        """Of all frames so far."""
        self._close()
        shares, known = [], []
        for told in self.found:
            # Of two keyframes the nearer counts more, and one that sees nothing not at all.
            weights = [seen / max(away, 0.5) if seen >= LEAST_KNOWN else 0.0 for _, seen, away in told]
            total = sum(weights)
            mean = sum(w * share for w, (share, _, _) in zip(weights, told, strict=True) if w) / (total or 1)
            shares.append(mean if total else math.nan)
            known.append(max((seen for _, seen, _ in told), default=0.0))
        return Reach(tuple(shares), tuple(known), tuple(self.asked))

    def _close(self) -> None:
        """What the keyframes on both sides say of the frames that are held."""
        first, count = len(self.found), len(self.held)
        told: list[list[tuple[float, float, float]]] = [[] for _ in range(count)]
        before, after = max((k for k in self.asked if k < first), default=None), first + count - 1
        if before is not None and self.asked[before].edits:
            onward = self.held.read(range(count))
            for i, (share, known) in enumerate(_followed(self.asked[before], onward)):
                told[i].append((share, known, first + i - before))
        if after in self.asked and self.asked[after].edits:
            backward = self.held.read(reversed(range(count)))
            for i, (share, known) in enumerate(_followed(self.asked[after], backward)):
                told[count - 1 - i].append((share, known, i))
        self.found += told
        self.held = _Pairs()


def reach(source: Clip, result: Clip, keyframes: Mapping[int, AnyFrame]) -> Reach:
    """How far the edit of a whole clip reached.

    Args:
        keyframes: frame -> edited picture; all of one size.

    Raises:
        InputError: no keyframes, or clips of unequal length.
    """
    if len(source) != len(result):
        raise InputError(f"source has {len(source)} frames and the result {len(result)}; expected one length")
    series = ReachSeries(keyframes, {k: source[k] for k in keyframes})
    for pair in zip(source, result, strict=True):
        series.update(*pair)
    return series.reach()


def _followed(asked: _Asked, frames: Iterable[tuple[AnyFrame, Change]]) -> Iterator[tuple[float, float]]:
    """(share, known) of frames that lead away from a keyframe, one after the other."""
    before, whole = asked.source, max(float(asked.energy.sum()), 1e-6)
    ahead = back = np.zeros((*before.shape[:2], 2), np.float32)
    for small, change in frames:
        step = motion_between(before, small)
        # Chained: from the keyframe here, and from here to the keyframe.
        ahead = ahead + warp(step.forward, ahead)
        back = step.backward + warp(back, step.backward)
        direct = motion_between(asked.source, small)
        hop, chain = (
            seen * _explains(asked.source, small, flow)
            for flow, seen in ((direct.forward, direct.seen_forward), (ahead, consistency(ahead, back)))
        )
        better = (chain > hop)[..., None]
        flow, belief = np.where(better, ahead, direct.forward), np.maximum(hop, chain)
        there = (warp(change, flow) * asked.change).sum(-1)
        known = float((belief * asked.energy).sum()) / whole
        share = float((belief * there).sum()) / max(known * whole, 1e-6)
        if known < LEAST_KNOWN and asked.known_by_colour >= LEAST_KNOWN:
            share, known = _by_colour(asked, small, change)
        yield share, known
        before = small


def _explains(picture: AnyFrame, other: AnyFrame, flow: Flow) -> Weight:
    """How far the motion lays every pixel on one of its colour."""
    off = np.abs(picture.astype(np.float32) - warp(other, flow)).max(-1)
    return np.exp(-np.square(cv2.blur(off, (3, 3)) / DOUBTS))


def _by_colour(asked: _Asked, small: AnyFrame, change: Change) -> tuple[float, float]:
    """(share, known) by the colours of the source alone."""
    mean, sure = asked.by_colour
    bins = _colours(small)
    expected, weight = mean[bins], sure[bins]
    whole = float((weight * np.square(expected).sum(-1)).sum())
    if whole < LEAST_KNOWN * float(asked.energy.sum()) * asked.known_by_colour:
        return math.nan, 0.0  # what is edited is not to be seen here
    return float((weight * (expected * change).sum(-1)).sum()) / whole, asked.known_by_colour


def _colours(frame: AnyFrame) -> np.ndarray:
    """(h, w) number of the colour of each pixel, of `COLOURS` steps a channel."""
    steps = frame.astype(np.int64) * COLOURS // 256
    return (steps[..., 0] * COLOURS + steps[..., 1]) * COLOURS + steps[..., 2]
