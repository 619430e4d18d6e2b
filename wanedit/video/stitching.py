"""Segments into one video, the keyframe that two share shown once; and smoothing over time around these joins."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

import av
import numpy as np
from av.error import BlockingIOError, EOFError
from av.filter import Graph

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame, Frames, require_same_size
from wanedit.video.motion import Motion, motion_between, warp

SHARED = ("mean", "left", "right")  # what is shown of a keyframe that two segments hold


@dataclass(frozen=True)
class Piece:
    """One segment's frames for output frames `first` to `last`, both included.

    `frames` is taken once and in order, so it may be an array (T, H, W, 3) or a generator over a file.
    """

    first: int
    last: int
    frames: Iterable[AnyFrame]

    @property
    def count(self) -> int:
        return self.last - self.first + 1


def stitch(pieces: Iterable[Piece], shared: str = "mean") -> Iterator[AnyFrame]:
    """Yield the frames of all pieces in order, `pieces[-1].last - pieces[0].first + 1` of them.

    Two neighbours both hold the keyframe between them, each decoded by itself. By default their mean is
    shown: it halves the step on either side, and both were corrected to one truth. `left` and `right`
    show that segment's own. Of each piece one frame at most is held.

    Raises:
        InputError: no pieces, a gap or overlap between two, a piece with more or fewer frames than its place
            has, frames of unequal size.
    """
    if shared not in SHARED:
        raise InputError(
            f"stitch: unknown choice {shared!r} for shared keyframes, expected {', '.join(SHARED)}"
        )
    return require_same_size(_joined(pieces, shared), "stitch")


def _joined(pieces: Iterable[Piece], shared: str) -> Iterator[AnyFrame]:
    held: AnyFrame | None = None
    end: int | None = None
    for number, piece in enumerate(pieces):
        if piece.last <= piece.first:
            raise InputError(
                f"stitch: segment {number} covers frames {piece.first} to {piece.last}, expected two or more"
            )
        if end is not None and piece.first != end:
            raise InputError(
                f"stitch: segment {number} begins at frame {piece.first}, expected {end} where the one before it ends"
            )
        count = 0
        # One more than the piece has room for, to see that there is none.
        for count, frame in enumerate(islice(piece.frames, piece.count + 1), 1):
            if count > piece.count:
                break
            if held is not None and count > 1:
                yield held
            elif held is not None and shared == "left":
                frame = held
            elif held is not None and shared == "mean":
                if held.shape != frame.shape:
                    raise InputError(f"stitch: segments of unequal size meet, {held.shape} and {frame.shape}")
                # In 16 bits, or the sum would wrap; half a level is rounded up.
                frame = ((held.astype(np.uint16) + frame + 1) // 2).astype(np.uint8)
            held = frame
        if count != piece.count:
            more = "more" if count > piece.count else str(count)
            raise InputError(f"stitch: segment {number} needs {piece.count} frames, got {more}")
        end = piece.last
    if held is None:
        raise InputError("stitch: no segments")
    yield held


WEIGHTS = (1, 2, 3, 2, 1)  # over the frames i-2 … i+2
TAPS = len(WEIGHTS) // 2

# (window of frames, place of the join in it, reach) -> window, changed at most `reach` frames from the join
Smoother = Callable[[Frames, int, int], Frames]


def smooth(frames: Frames, junctions: Sequence[int], method: str = "none", radius: int = 4) -> Frames:
    """Smooth a video (T, H, W, 3) around the frames at which segments join. Arguments as `smooth_stream`."""
    return np.stack(list(smooth_stream(frames, len(frames), junctions, method, radius)))


def smooth_stream(
    frames: Iterable[Frame], count: int, junctions: Sequence[int], method: str = "none", radius: int = 4
) -> Iterator[Frame]:
    """The same over a stream of `count` frames, of which it holds 2 (radius + 2) + 1 at most.

    none: nothing changes. temporal_filter: FFmpeg's tmix, a weighted mean over five frames. optical_flow: the
    same mean, each neighbour first moved along its motion to the frame's own time, so nothing is doubled.

    The frame at a junction shows a keyframe and stays bit-identical, as do all frames more than `reach` away.
    The effect falls off linearly over `reach`, which is `radius`, or less where `reaches` says so.

    Raises:
        InputError: unknown method, radius below 1, junctions not ascending or not inside, count not met.
    """
    if method not in METHODS:
        raise InputError(f"smooth: unknown method {method!r}, expected one of: {', '.join(METHODS)}")
    # Here and not in the generator, so that what is wrong is told before the first frame is taken.
    reach = reaches(count, junctions, radius)
    return _smoothed(frames, count, junctions, reach, METHODS[method])


def reaches(count: int, junctions: Sequence[int], radius: int) -> list[int]:
    """How far each junction's window extends: `radius`, cut so that windows neither meet nor hold an end frame."""
    if radius < 1:
        raise InputError(f"smooth: radius must be at least 1, got {radius}")
    if not junctions:
        return []
    places = [0, *junctions, count - 1]
    gaps = [right - left for left, right in pairwise(places)]
    if min(gaps) < 1:
        raise InputError(
            f"smooth: junctions must ascend inside frames 1 to {count - 2}, got {list(junctions)}"
        )
    room = [gaps[0] - 1, *((gap - 1) // 2 for gap in gaps[1:-1]), gaps[-1] - 1]
    return [min(radius, left, right) for left, right in pairwise(room)]


def _smoothed(
    frames: Iterable[Frame], count: int, junctions: Sequence[int], reach: list[int], smoother: Smoother
) -> Iterator[Frame]:
    source = _Lookahead(frames, count)
    done = 0
    for junction, distance in zip(junctions, reach, strict=True):
        if distance == 0:  # so near to its neighbour that only the keyframe itself could change
            continue
        start, stop = junction - distance, junction + distance + 1
        yield from source.take(done, start)
        low = max(0, start - TAPS)
        window = source.window(low, min(count, stop + TAPS))
        changed = smoother(window, junction - low, distance)
        yield from changed[start - low : stop - low]
        done = stop
    yield from source.take(done, count)
    source.require_end()


class _Lookahead:
    """A stream of frames that can be read ahead of, and a little behind, where it is taken."""

    def __init__(self, frames: Iterable[Frame], count: int) -> None:
        self.source = iter(frames)
        self.count = count
        self.held: dict[int, Frame] = {}
        self.read = 0

    def _at(self, index: int) -> Frame:
        while self.read <= index:
            frame = next(self.source, None)
            if frame is None:
                raise InputError(f"smooth: {self.count} frames expected, {self.read} came")
            self.held[self.read] = frame
            self.read += 1
        return self.held[index]

    def take(self, start: int, stop: int) -> Iterator[Frame]:
        for index in range(start, stop):
            yield self._at(index)
            # The next window looks this far back.
            self._forget(index - TAPS)

    def window(self, start: int, stop: int) -> Frames:
        frames = np.stack([self._at(index) for index in range(start, stop)])
        self._forget(start)
        return frames

    def _forget(self, before: int) -> None:
        for index in [held for held in self.held if held < before]:
            del self.held[index]

    def require_end(self) -> None:
        if next(self.source, None) is not None:
            raise InputError(f"smooth: {self.count} frames expected, more came")


def _optical_flow(window: Frames, junction: int, reach: int) -> Frames:
    """WEIGHTS over neighbours fetched along their motion, where that motion can be believed."""
    filtered, motions = window.copy(), _Motions(window)
    for index in range(junction - reach, junction + reach + 1):
        if index == junction:
            continue
        total = WEIGHTS[TAPS] * window[index].astype(np.float32)
        weight = np.full((*total.shape[:2], 1), WEIGHTS[TAPS], np.float32)
        for offset in range(-TAPS, TAPS + 1):
            other = index + offset
            if offset and 0 <= other < len(window):
                motion = motions.between(index, other)
                share = WEIGHTS[TAPS + offset] * motion.seen_forward[..., None]
                total += share * warp(window[other], motion.forward)
                weight += share
        filtered[index] = np.rint(total / weight).astype(np.uint8)
    return _faded(window, filtered, junction, reach)


METHODS: dict[str, Smoother] = {
    "none": lambda window, junction, reach: window,
    "temporal_filter": lambda window, junction, reach: _faded(window, _tmix(window), junction, reach),
    "optical_flow": _optical_flow,
}


def _faded(window: Frames, filtered: Frames, junction: int, reach: int) -> Frames:
    """All of `filtered` beside the join, less and less of it further out, none at the join itself."""
    out = window.copy()
    for index in range(junction - reach, junction + reach + 1):
        distance = abs(index - junction)
        if distance:
            share = (reach + 1 - distance) / reach
            out[index] = np.rint(window[index] + share * (filtered[index].astype(np.float32) - window[index]))
    return out


def _tmix(window: Frames) -> Frames:
    """FFmpeg's tmix with WEIGHTS, centred; the window's own ends are repeated."""
    padded = np.concatenate([window[:1].repeat(TAPS, 0), window, window[-1:].repeat(TAPS, 0)])
    height, width = window.shape[1:3]
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("gbrp"), time_base=Fraction(1, 25)
    )
    mix = graph.add("tmix", f"frames={len(WEIGHTS)}:weights='{' '.join(map(str, WEIGHTS))}'")
    graph.link_nodes(source, mix, graph.add("buffersink")).configure()
    mixed: list[Frame] = []
    for index, frame in enumerate([*padded, None]):
        picture = None
        if frame is not None:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="gbrp")
            picture.pts, picture.time_base = index, Fraction(1, 25)
        graph.vpush(picture)
        try:
            while True:
                mixed.append(graph.vpull().to_ndarray(format="rgb24"))
        except (BlockingIOError, EOFError):  # nothing more until the next push
            pass
    # tmix looks back only: its output i is centred on i - TAPS
    return np.stack(mixed)[2 * TAPS :]


class _Motions:
    """Motion between any two frames of a window, each pair looked at once."""

    def __init__(self, window: Frames) -> None:
        self.window = window
        self.known: dict[tuple[int, int], Motion] = {}

    def between(self, first: int, second: int) -> Motion:
        if first > second:
            return self.between(second, first).reversed()
        if (first, second) not in self.known:
            self.known[first, second] = motion_between(self.window[first], self.window[second])
        return self.known[first, second]
