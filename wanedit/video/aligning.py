"""Edited keyframes laid exactly over the frames that they are edits of, in their colours.

Image models draw the whole picture anew: off by a pixel or two, a little turned or enlarged, its colours by some
levels. Carried along the source's motion, all that would become part of the edit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Float, Float32

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame
from wanedit.video.motion import Flow, Weight, warp

Levels = Float32[np.ndarray, "h w 3"]  # 0 … 255, not rounded
Estimate = Float[np.ndarray, " n"]  # see `_Pair`

# An estimate begins on pictures of the first side and ends on ones of at most the second.
FIRST_SIDE, LAST_SIDE = 64, 256
# Half waves along the longer side of the finest bend that is followed; the usual size of a shift, of a slope, and of a
# bend of one half wave, in half longer sides. Those of k half waves are k squared times smaller: bending energy.
WAVES, SHIFT, SLOPE, BEND = 3, 0.06, 0.03, 0.02
# The usual gain of a colour, its offset in levels, by how much that changes over half the longer side, and half the
# square of the pixels by which the keyframe is blurred: read as a loss of contrast, blur would make gains too small.
GAIN, OFFSET, RAMP, BLURRED = 0.03, 4.0, 1.5, 0.3
# No number of an estimate is more than so many times as large as usual. One that would be, explains no slip.
MOST = 2.0
# What differs by so many levels counts a quarter, as the estimate goes on: the edit is let go of by degrees. On larger
# pictures it begins further on.
TOLERANCES, FURTHER = (48.0, 34.0, 24.0, 17.0, 12.0, 8.0), 3
# Neighbouring pixels and the three colours are no independent witnesses: so many count as one.
ALIKE = 27
# Pixels at FIRST_SIDE within which an estimate begins; by how many all pictures are blurred for it; and of their rims,
# which do not count.
REACH, BLUR, RIM = 4, 0.8, 3
# Squares of the chessboard along the longer side; how many standard errors are evidence, and by what share of it what
# is learnt on white squares and on black ones may differ.
SQUARES, EVIDENT, APART = 8, 2.0, 0.75
# What is less is not worth resampling a picture for: pixels at LAST_SIDE, levels.
LEAST_MOVED, LEAST_TINTED = 0.1, 1.0
# The share of a picture that must be common for anything to be said; and the share that must be edited for the rest to
# have drifted: where a picture is tinted and nothing else, the tint is the edit.
COMMON, EDITED = 0.05, 0.003
# Levels a pixel that are an edge; and how many times as well edges must lie on each other for a slip to be believed: of
# drawn pictures in another style at most 1.006, of real ones that are off by a pixel 1.01, by two 1.05 to 1.15.
EDGE, EDGES = 4.0, 1.008
# A difference of this many times the power of noise has no part that is noise.
NOISE = 3.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """What a keyframe is off by.

    Attributes:
        estimate: see `_Pair`; None where nothing is to be done.
        shape: (height, width) of the pictures that it was found on.
        moved, most: pixels of the frame, root mean square where nothing is edited and most; 0: only colours are off.
        tinted: levels, root mean square likewise; 0: only the place is off.
        note: for the user; None for a keyframe that lies well.
    """

    estimate: Estimate | None = None
    shape: tuple[int, int] = (0, 0)
    moved: float = 0.0
    most: float = 0.0
    tinted: float = 0.0
    note: str | None = None

    def undone(self, keyframe: Frame, frame: Frame) -> Frame:
        """The keyframe as its frame has it, at any size of both; the very keyframe where nothing is to be done.

        What then differs from the frame is edit, or noise of resampling, of the image model and of what is left of the
        slip. The power of that noise is measured where nothing is edited, and taken off as in Lee's filter (1980): so
        the source's own pixels are left there.
        """
        if self.estimate is None:
            return keyframe
        pair = _Pair(frame.astype(np.float32), keyframe.astype(np.float32), self.shape)
        flow, (gain, ramp) = pair.flow(self.estimate), pair.tint(self.estimate)
        change = (warp(pair.keyframe, flow, cv2.INTER_CUBIC) - ramp) / (1 + gain) - pair.frame
        power = _power(change)
        share = np.clip(1 - np.square(NOISE * _noise(power, pair.frame) / np.maximum(power, 1e-6)), 0, 1)
        return np.clip(np.rint(pair.frame + share[..., None] * change), 0, 255).astype(np.uint8)


def align(keyframe: AnyFrame, frame: AnyFrame) -> Alignment:
    """Find what a keyframe is off by from the frame that it is an edit of.

    A smooth flow and a drift of each colour are found together by Gauss and Newton's steps. The more the two pictures
    differ at a place, the less it counts (Geman and McClure 1987, by reweighted least squares), so that the edit is not
    drawn back to the source. Flow and drift are each believed where they foretell: learnt on the white squares of a
    chessboard, they must explain the black ones better than none does, and the other way round; and be much the same.
    By a flow edges must lie on each other better, too: what a new style does to soft ones looks like one.

    Raises:
        InputError: pictures of two sizes.
    """
    if keyframe.shape != frame.shape:
        raise InputError(f"align: expected pictures of one size, got {keyframe.shape} and {frame.shape}")
    same = (keyframe == frame).all(-1)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    edges = [np.abs(cv2.Sobel(grey, cv2.CV_32F, *way, scale=1 / 8)) > EDGE for way in ((1, 0), (0, 1))]
    # Edges of both directions that are as they were: a slip would have moved them, a drift changed them.
    if all(same[edge].mean() >= COMMON if edge.any() else True for edge in edges):
        return Alignment()
    pairs = _pyramid(frame.astype(np.float32), keyframe.astype(np.float32))
    last, pixel = pairs[-1], max(frame.shape) / max(pairs[-1].frame.shape)
    # Learnt on the white squares, on the black ones, and on all: of colours alone, and of both.
    tinted, both = ([_learnt(pairs, where, moving) for where in (0, 1, None)] for moving in (False, True))
    moving = last.foretells(tinted, both, last.flow) and last.moved(both[-1])[0] >= LEAST_MOVED
    # A new style may move what is as bright as before, but no edge.
    moving = moving and last.edges(both[-1]) > EDGES * last.edges(tinted[-1])
    found = both if moving else tinted
    moved, most = last.moved(found[-1])
    unlike = last.gap(found[-1]) > np.square(TOLERANCES[-1])
    if 1 - unlike.mean() < COMMON:
        return Alignment(
            note="too little of it is as in its frame for the two to be aligned; it stays as it is"
        )
    most_usual = np.abs(found[-1]) > 0.9 * MOST * last.usual
    if most_usual[: last.flows].reshape(2, -1)[:, :3].any():  # bends are held back
        far = f"{moved * pixel:.0f} pixels, {most * pixel:.0f} at most"
        return Alignment(note=f"is off its frame by {far}, more than is taken for a slip; it stays as it is")
    levels = last.tinted(found[-1])
    untinted = [
        np.concatenate([one[: last.flows], 0 * last.usual[last.flows : -3], one[-3:]]) for one in found
    ]
    if (
        unlike.mean() < EDITED
        or levels < LEAST_TINTED
        or most_usual[last.flows : -3].any()
        or not last.foretells(untinted, found, last.added)
    ):
        found, levels = untinted, 0.0
    if not moved and not levels:
        return Alignment()
    said = [f"{moved * pixel:.1f} pixels ({most * pixel:.1f} at most)"] * bool(moved)
    said += [f"{levels:.1f} levels of colour"] * bool(levels)
    note = f"was off its frame by {' and '.join(said)}; aligned"
    return Alignment(found[-1], frame.shape[:2], moved * pixel, most * pixel, levels, note)


class _Pair:
    """A frame and its keyframe at one size.

    An estimate of them says: what the frame shows at x, the keyframe shows at x + u(x), 1 + gain times as bright, by a
    ramp of levels brighter and blurred, each colour by itself. u is a shift, a slope along each side, and cosines along
    both. Lengths are in half longer sides, so that an estimate means the same at every size.

    Args:
        shape: (height, width) of the pictures that these are smaller ones of, whose sides alone decide how many cosines
            there are: those of a smaller picture are rounded.

    Attributes:
        usual: standard deviation of each number of an estimate before the pictures are looked at.
        flows: how many of them are u's. There follow, for each colour, gain, offset and ramp along x and y, and at the
            end the blur of each.
        squares, colours: of the chessboard, the number and the colour of each pixel's.
    """

    def __init__(self, frame: Levels, keyframe: Levels, shape: tuple[int, int]) -> None:
        self.frame, self.keyframe = frame, keyframe
        height, width = frame.shape[:2]
        self.half = max(height, width) / 2
        x, y, waves = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5, np.arange(WAVES + 1)
        self.x, self.y = (x - width / 2) / self.half, (y - height / 2) / self.half
        self.across = np.cos(np.pi / width * waves[:, None] * x)
        self.down = np.cos(np.pi / height * waves * y)
        # In half waves of the longer side.
        fine = max(shape) * np.hypot(waves / shape[1], waves[:, None] / shape[0])
        self.bends = np.nonzero((fine > 0) & (fine <= WAVES))
        one_way = [SHIFT, SLOPE, SLOPE, *BEND / np.square(fine[self.bends])]
        self.usual = np.array([*one_way, *one_way, *[GAIN, OFFSET, RAMP, RAMP] * 3, *[BLURRED] * 3])
        self.flows = 2 * len(one_way)
        column, row = (np.floor((place + 1) * (SQUARES / 2)).astype(np.int64) for place in (self.x, self.y))
        self.squares, self.colours = row * SQUARES + column, (row + column) % 2

    @cached_property
    def basis(self) -> Float32[np.ndarray, "h w m"]:
        """What u is a sum of; the first three are those of a ramp: 1, x and y."""
        down, across = self.down[:, self.bends[0]], self.across[self.bends[1]]
        ramp = np.stack(np.broadcast_arrays(1.0, self.x, self.y), -1)
        return np.concatenate([ramp, down[:, None] * across.T], -1).astype(np.float32)

    @cached_property
    def curvature(self) -> Levels:
        """The frame's Laplacian, which blur adds a share of."""
        return cv2.Laplacian(self.frame, cv2.CV_32F)

    def flow(self, estimate: Estimate) -> Flow:
        """u in pixels."""
        both = []
        for shift, right, below, *bends in estimate[: self.flows].reshape(2, -1):
            waves = np.zeros((WAVES + 1, WAVES + 1))
            waves[0, 0], waves[self.bends] = shift, bends
            both.append(self.down @ waves @ self.across + right * self.x + below * self.y)
        return (self.half * np.stack(both, -1)).astype(np.float32)

    def tint(self, estimate: Estimate) -> tuple[Float32[np.ndarray, "3"], Levels]:
        """The gains and the ramps of the three colours."""
        gain, offset, right, below = estimate[self.flows : -3].reshape(3, 4).T.astype(np.float32)
        ramp = offset + right * self.x[:, None] + below * self.y[..., None]
        return gain, ramp.astype(np.float32)

    def added(self, estimate: Estimate) -> Levels:
        """What the tint adds to the frame."""
        gain, ramp = self.tint(estimate)
        return gain * self.frame + ramp

    def missed(self, estimate: Estimate) -> tuple[Levels, Levels]:
        """What the moved keyframe shows, and by how much that is not what it should."""
        moved = warp(self.keyframe, self.flow(estimate))
        blur = estimate[-3:].astype(np.float32) * self.curvature
        return moved, moved - self.frame - self.added(estimate) - blur

    def gap(self, estimate: Estimate) -> Weight:
        """Squared levels between the two, of a pixel and its neighbours."""
        return _power(self.missed(estimate)[1])

    def moved(self, estimate: Estimate) -> tuple[float, float]:
        """Pixels: root mean square of what is common to both, and most."""
        far = np.square(self.flow(estimate)).sum(-1)
        return self._mean(estimate, far), float(np.sqrt(far.max()))

    def tinted(self, estimate: Estimate) -> float:
        """Levels: root mean square of what is common to both."""
        return self._mean(estimate, np.square(self.added(estimate)).mean(-1))

    def _mean(self, estimate: Estimate, squares: Weight) -> float:
        common = _believed(self.gap(estimate), TOLERANCES[-1])
        return float(np.sqrt((common * squares).sum() / common.sum()))

    def foretells(
        self,
        worse: Sequence[Estimate],
        better: Sequence[Estimate],
        field: Callable[[Estimate], Float32[np.ndarray, "h w c"]],
    ) -> bool:
        """Whether the second explain more than the first, square by square of the chessboard, and agree on `field`.

        Args:
            worse, better: learnt on the squares of colour 0, on those of colour 1, and on all; each of the first two is
                asked about the others.
        """
        white, black, all_of_it = (field(one) for one in better)
        if np.square(white - black).sum() > APART**2 * np.square(all_of_it).sum():
            return False
        gain = np.zeros(self.frame.shape[:2])
        for colour, (one, other) in enumerate(zip(worse[:2], better[:2], strict=True)):
            one, other = (gap / (gap + TOLERANCES[-1] ** 2) for gap in (self.gap(one), self.gap(other)))
            gain += np.where(self.colours != colour, one - other, 0)
        count = np.bincount(self.squares.ravel())
        means = np.bincount(self.squares.ravel(), gain.ravel())[count > 0] / count[count > 0]
        error = means.std(ddof=1) / np.sqrt(len(means))
        return bool(means.mean() > EVIDENT * error)

    def edges(self, estimate: Estimate) -> float:
        """The share of all pixels at which edges of the moved keyframe lie on the frame's and run along them, whatever
        their contrast and colours (normalised gradient fields, Haber and Modersitzki 2006)."""
        own, moved = (_directions(one) for one in (self.frame, warp(self.keyframe, self.flow(estimate))))
        return float(np.square((own * moved).sum(-1)).mean())

    def step(self, estimate: Estimate, tolerance: float, where: Weight, moving: bool) -> Estimate:
        """Gauss and Newton's, from the pixels `where` so far as they are explained; of colours alone unless moving."""
        shown, off = self.missed(estimate)
        # Blur mirrors what is at the rims of both, and beyond its own a keyframe shows nothing.
        sides = np.array(where.shape[::-1], np.float32) - 1
        here = np.stack(np.meshgrid(np.arange(where.shape[1]), np.arange(where.shape[0])), -1)
        for at in (here, here + self.flow(estimate)):
            where = where * ((at >= RIM) & (at <= sides - RIM)).all(-1)
        # A third of the tolerance is the noise that is reckoned with.
        weight = where * _believed(_power(off), tolerance) / (np.square(tolerance / 3) * ALIKE)
        slopes = [
            cv2.Sobel(shown - off / 2, cv2.CV_32F, *way, scale=self.half / 8) for way in ((1, 0), (0, 1))
        ]
        curve = np.diag(1 / np.square(self.usual))
        slope = curve @ estimate
        flows = self.flows if moving else 0
        for c in range(3):
            columns = [-self.frame[..., c : c + 1], -self.basis[..., :3], -self.curvature[..., c : c + 1]]
            if moving:
                columns = [*(one[..., c : c + 1] * self.basis for one in slopes), *columns]
            columns = np.concatenate(columns, -1).reshape(weight.size, -1)
            weighted, tints = columns * weight.reshape(-1, 1), self.flows + 4 * c
            of = np.r_[:flows, tints : tints + 4, len(self.usual) - 3 + c]
            curve[np.ix_(of, of)] += weighted.T @ columns
            slope[of] += weighted.T @ off[..., c].ravel()
        free = np.r_[:flows, self.flows : len(self.usual)]
        change = np.zeros_like(estimate)
        change[free] = np.linalg.solve(curve[np.ix_(free, free)], slope[free])
        return np.clip(estimate - change, -MOST * self.usual, MOST * self.usual)


def _pyramid(frame: Levels, keyframe: Levels) -> list[_Pair]:
    """Both at FIRST_SIDE, at twice that, and so on until their own or LAST_SIDE; a little blurred."""
    full, pairs = max(frame.shape), []
    last = min(full, LAST_SIDE)
    sides = [*(side for side in (FIRST_SIDE << n for n in range(8)) if side < last), last]
    height, width = shape = frame.shape[:2]
    for side in sides:
        size = max(1, round(width * side / full)), max(1, round(height * side / full))
        one, other = (
            cv2.GaussianBlur(cv2.resize(x, size, interpolation=cv2.INTER_AREA), (0, 0), BLUR)
            for x in (frame, keyframe)
        )
        pairs.append(_Pair(one, other, shape))
    return pairs


def _learnt(pairs: Sequence[_Pair], colour: int | None, moving: bool) -> Estimate:
    """From the squares of one colour, or from all."""
    estimate = np.zeros_like(pairs[0].usual)
    for level, pair in enumerate(pairs):
        where = np.ones(pair.colours.shape) if colour is None else pair.colours == colour
        where = where.astype(np.float32)
        if moving and level == 0:
            # Steps alone find the way from a pixel or two: from where most is explained, of equals the nearest.
            shifts = np.stack(np.meshgrid(*[np.arange(-REACH, REACH + 1)] * 2), -1).reshape(-1, 2)
            shifts, costs = shifts[np.argsort(np.square(shifts).sum(-1), kind="stable")], []
            for shift in shifts:
                estimate[[0, pair.basis.shape[-1]]] = shift / pair.half
                gap = pair.gap(estimate)
                costs.append(float((where * gap / (gap + TOLERANCES[FURTHER] ** 2)).sum()))
            estimate[[0, pair.basis.shape[-1]]] = shifts[int(np.argmin(costs))] / pair.half
        for tolerance in TOLERANCES[FURTHER if level else 0 :]:
            for _ in range(2):
                estimate = pair.step(estimate, tolerance, where, moving)
    return estimate


def _power(off: Levels) -> Weight:
    """Mean square over the colours, of a pixel and its neighbours."""
    return cv2.blur(np.square(off).mean(-1), (3, 3))


def _directions(picture: Levels) -> Float32[np.ndarray, "h w 3 2"]:
    """Of each colour's slope, of length 1 at edges and less where it is as weak as noise."""
    slopes = [cv2.Sobel(picture, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1))]
    both = np.stack(slopes, -1)
    return both / np.sqrt(np.square(both).sum(-1, keepdims=True) + EDGE**2)


def _believed(gap: Weight, tolerance: float) -> Weight:
    """The weight of Geman and McClure's estimator."""
    return np.square(1 / (1 + gap / tolerance**2))


def _noise(power: Weight, frame: Levels) -> Weight:
    """The power of noise in a difference of two aligned pictures: the same everywhere, and at edges by what is left of
    a slip, which moves them; least squares over what is common to both."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    steep = np.square(cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8))
    steep += np.square(cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8))
    steep, common = cv2.blur(steep, (3, 3)), power < TOLERANCES[-2] ** 2
    if common.mean() < COMMON:
        return np.zeros_like(power)
    slip, flat = np.polyfit(steep[common], power[common], 1)
    return np.maximum(flat + max(slip, 0) * steep, 0).astype(np.float32)
