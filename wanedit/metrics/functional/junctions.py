"""Whether the joins between pieces of a video show: each fault of a join has a measure that sees it.

A join at frame j lies before frame j, between two pieces; where both share a frame, j is that frame. Every measure is
taken over the whole clip, and the worst value about the join is given as its ratio to the median of the interior, which
lies away from all joins: what the clip does everywhere is no fault of its joins. That excuses a clip which is bad at
every keyframe, joined there or not, so three measures also have a limit of their own (`Measure.most`). Footage may be
above it, too: fine texture that moves by parts of a pixel, water, noise. So a limit holds only where the calmest
quarter of the interior is far below the join, and neither it nor a ratio says anything against a join where the
reference, such as the source of an edit, does the same at that very place.

| measure | of | sees |
|---|---|---|
| mse | a frame and the next | a jump, a cut |
| acceleration | the motion into and out of a frame | reversed or stopped motion, a jump |
| turn | the same, as a share of that motion | motion that reverses where the clip moves slowly |
| warp | a frame and the next moved back on it, where both see the same | a flash, a change of texture |
| colour | the mean Lab of the same | a step in colour, which motion cannot make |
| sharpness | a frame and the next | a blurred frame, a piece less sharp than the other |
| duplicate | a frame and the next | a frame shown twice where the clip moves |

`seam_ratio` is one number for all joins of a clip, from nothing but the change of its pixels.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count

import cv2
import numpy as np
from jaxtyping import Float

from wanedit.errors import InputError
from wanedit.metrics.functional.motion import Step, bend, reduced, step_between
from wanedit.video.arrays import AnyFrame, Clip

# Frames on either side of a join that belong to it and not to the interior, and how many the interior must have.
REACH, LEAST = 2, 4
# A clip whose one join lies at frame 1: it, what it reaches, the interior, and the two ends.
SHORTEST = 1 + REACH + LEAST + 2
# Above its limit a join must be so many times as bad as the calmest quarter of the interior. A clip that pulses at each
# keyframe is calm between two; of clean footage above a limit few places vary that much (docs/evaluation.md).
CALM = 4.0
# What a clip does by itself, such as a camera that sets off, comes and goes over several frames and so has its like
# beside it, within `REACH`, where the interior does not look.
ASIDE = 1.25


@dataclass(frozen=True)
class Measure:
    """How a series becomes a ratio.

    Attributes:
        floor: the least median that a value is compared with, in the series' own unit.
        limit, margin: a join shows where its ratio is above the limit and its value, by `margin`, worse than all of
            the interior and, by `ASIDE`, than what lies beside it. Limit and margin were set on two real clips, so that
            no place of theirs shows where nothing was joined.
        unit: of the series.
        reach: frames before and after the join at which it may show.
        lasting: whether what lies beside it must be better on one side alone, for a change of speed lasts.
        most, by_speed, by_warp: the limit is `most + by_speed * speed + by_warp * warp`, of the same step: speed is its
            mean motion in pixels of the reduced clip, for what moves fast blurs, and is laid back less well; warp is
            the measure of that name, for what is laid back badly changes in colour. Of 1,143 steps of three real clips
            and twelve drawn scenes, in which nothing was joined, none is above: docs/evaluation.md.
    """

    floor: float
    limit: float
    margin: float
    unit: str
    reach: tuple[int, int]
    lasting: bool = False
    most: float = math.inf
    by_speed: float = 0.0
    by_warp: float = 0.0

    def share_of_limit(self, series: "Series") -> Float[np.ndarray, " t"]:
        """Above 1 where a value is above the limit; 0 without a limit."""
        speed, warp = np.nan_to_num(series.speed), np.nan_to_num(series.warp)
        return series.values / (self.most + self.by_speed * speed + self.by_warp * warp)


MEASURES = {
    "mse": Measure(0.25, 2.0, 1.25, "levels^2", (0, 1), lasting=True),
    # A kink at a join is in the motion about the frame before it, or about its own.
    "acceleration": Measure(0.1, 2.0, 2.0, "px / frame^2", (1, 0), lasting=True),
    "turn": Measure(0.1, 1.5, 1.25, "share", (1, 0), lasting=True),
    "warp": Measure(0.5, 1.5, 1.25, "levels", (0, 1), lasting=True, most=9.5, by_speed=1.5),
    "colour": Measure(0.05, 3.0, 1.25, "CIELAB", (0, 1), most=0.8, by_warp=0.1),
    "sharpness": Measure(0.1, 2.0, 1.25, "log ratio", (1, 2), most=0.3, by_speed=0.15),
    "duplicate": Measure(0.05, 3.0, 2.0, "levels", (0, 1)),
    "lpips": Measure(0.005, 2.0, 1.25, "LPIPS", (0, 1)),
}
# Those that need no trained network.
OF_PIXELS = tuple(name for name in MEASURES if name != "lpips")


@dataclass(frozen=True)
class JunctionScore:
    """One measure of one join.

    Attributes:
        value: the worst about the join, in the measure's unit.
        interior: the median away from all joins.
        ratio: how much worse the join is; 1 where it is as the interior.
        shows: whether a person should look at it: for its ratio, or for its size.
        beyond: whether it shows for its size, above the measure's limit.
        severity: how far it is from where it begins to show, which is 1.
    """

    value: float
    interior: float
    ratio: float
    shows: bool
    beyond: bool = False
    severity: float = 0.0


@dataclass(frozen=True, eq=False)
class Series:
    """A measure at every frame.

    Attributes:
        values: (T,); NaN where there is none.
        speed, warp: (T,) of the step that leads to every frame; 0 for measures without a limit.
    """

    values: Float[np.ndarray, " t"]
    speed: Float[np.ndarray, " t"] | float = 0.0
    warp: Float[np.ndarray, " t"] | float = 0.0


def junction_scores(
    video: Clip, junctions: Sequence[int], reference: Clip | None = None
) -> dict[int, dict[str, JunctionScore]]:
    """Every measure of every join: {join: {measure: score}}.

    Args:
        reference: the source of an edit, or what the video should show: what it does at a join, the video may do.

    Raises:
        InputError: a join outside the clip, a clip too short to have an interior, a reference of another length.
    """
    check_junctions(len(video), junctions)
    if reference is not None and len(reference) != len(video):
        raise InputError(f"reference has {len(reference)} frames; expected the video's {len(video)}")
    theirs = None if reference is None else Transitions.of(reference)
    return Transitions.of(video).scores(junctions, theirs)


def check_junctions(frames: int, junctions: Sequence[int]) -> None:
    """Refuse joins that cannot be measured.

    Raises:
        InputError: none given, one twice, outside 1 … T - 2, or so many that no four frames lie away from all.
    """
    if frames < SHORTEST:
        raise InputError(f"the clip has {frames} frames; expected a clip of at least {SHORTEST} frames")
    outside = [j for j in junctions if not 1 <= j <= frames - 2]
    if outside or not junctions:
        raise InputError(f"junctions are {list(junctions)}; expected frames 1 … {frames - 2}")
    if len(set(junctions)) < len(junctions):
        raise InputError(f"junctions are {list(junctions)}; expected each frame once")
    needed = next(n for n in count(frames) if interior(n, junctions).sum() >= LEAST)
    if needed > frames:
        raise InputError(
            f"{len(junctions)} junctions leave less than {LEAST} of {frames} frames further than {REACH} from all; "
            f"expected a clip of at least {needed} frames"
        )


def interior(frames: int, junctions: Sequence[int]) -> np.ndarray:
    """(T,) whether a frame lies away from all joins, and is neither first nor last."""
    away = np.abs(np.arange(frames)[:, None] - np.array(junctions)).min(axis=1) > REACH
    away[[0, -1]] = False
    return away


def score(
    name: str, series: Series, junction: int, junctions: Sequence[int], reference: Series | None = None
) -> JunctionScore:
    """A join's value against the interior's and the measure's limit, by the measure's own rule.

    What shows is decided here alone, for evaluations, reports and ablations.

    Args:
        junctions: all joins of the clip.
        reference: the same measure of the reference.
    """
    measure, values = MEASURES[name], series.values
    first, last = junction - measure.reach[0], junction + measure.reach[1]
    near = slice(max(first, 0), last + 1)
    away, known = interior(len(values), junctions) & np.isfinite(values), np.nan_to_num(values)
    median, about = float(np.median(values[away])), values[near][np.isfinite(values[near])]
    if name == "duplicate":
        # The floor keeps a clip that stands still, and repeats its frames everywhere, at a ratio of 1.
        value = float(about.min())
        ratio = max(median, measure.floor) / max(value, measure.floor)
        known = np.where(np.isfinite(values), 1 / np.maximum(known, 1e-9), 0.0)
    else:
        value = float(about.max())
        ratio = max(value, measure.floor) / max(median, measure.floor)
    beside = (
        known[max(min(first - 1, junction - REACH), 0) : max(first, 0)],
        known[last + 1 : max(last + 1, junction + REACH) + 1],
    )
    next_to_it = (min if measure.lasting else max)(side.max(initial=0.0) for side in beside)
    apart = known[near].max() / max(measure.margin * known[away].max(), ASIDE * next_to_it, 1e-9)
    share, least, excess = measure.share_of_limit(series), measure.limit, 0.0
    if reference is not None:
        least = max(least, measure.margin * score(name, reference, junction, junctions).ratio)
    if reference is None or not (measure.share_of_limit(reference)[near] > 1).any():
        excess = float(share[near].max() / max(1.0, CALM * np.quantile(share[away], 0.25)))
    severity = max(excess, min(ratio / least, float(apart)))
    return JunctionScore(value, median, ratio, severity > 1, excess > 1, severity)


@dataclass(eq=False)
class Transitions:
    """Every measure at every frame, of frames in order: between t - 1 and t, or of t itself; NaN at the ends that have
    none. The step before the last is held."""

    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in OF_PIXELS})
    speed: list[float] = field(default_factory=list)
    before: Step | None = None
    sharp: float = math.nan

    def update(self, frame: AnyFrame, step: Step | None) -> None:
        """Take the next frame, in full size, with the step that leads to it; the first has none."""
        sharp, none = sharpness(frame), (math.nan, math.nan)
        warp, colour = step.moved_back if step else none
        change = step.change if step else math.nan
        # What is known of frame t - 1 once t is there.
        bends = bend(self.before.motion, step.motion) if self.before and step else none
        for name, value in zip(("acceleration", "turn"), bends, strict=True):
            self.values[name][-1:] = [value, math.nan] if self.values[name] else [math.nan]
        now = {
            "mse": change,
            "warp": warp,
            "colour": colour,
            "sharpness": abs(sharp - self.sharp),
            "duplicate": math.sqrt(change),
        }
        for name, value in now.items():
            self.values[name].append(value)
        self.speed.append(step.speed if step else 0.0)
        self.before, self.sharp = step, sharp

    @classmethod
    def of(cls, video: Clip | Iterable[AnyFrame]) -> "Transitions":
        """Of a whole clip, of which each frame is read once."""
        found, before = cls(), None
        for frame in video:
            small = reduced(frame)
            found.update(frame, None if before is None else step_between(before, small))
            before = small
        return found

    def with_stretch(self, part: "Transitions", offset: int, start: int, stop: int | None) -> "Transitions":
        """The same but for frames `start` to `stop` (None for the end), which are as `part` has them, that begins at
        frame `offset`."""

        def spliced(ours: list[float], theirs: list[float]) -> list[float]:
            end = len(ours) if stop is None else stop
            return [*ours[:start], *theirs[start - offset : end - offset], *ours[end:]]

        values = {name: spliced(ours, part.values[name]) for name, ours in self.values.items()}
        return Transitions(values, spliced(self.speed, part.speed))

    def series(self, name: str) -> Series:
        """One measure so far."""
        return Series(*map(np.array, (self.values[name], self.speed, self.values["warp"])))

    def scores(
        self, junctions: Sequence[int], reference: "Transitions | None" = None
    ) -> dict[int, dict[str, JunctionScore]]:
        """{join: {measure: score}}. Raises InputError as `junction_scores`."""
        check_junctions(len(self.speed), junctions)
        pairs = {name: (self.series(name), reference and reference.series(name)) for name in self.values}
        return {
            j: {name: score(name, ours, j, junctions, theirs) for name, (ours, theirs) in pairs.items()}
            for j in junctions
        }


def sharpness(frame: AnyFrame) -> float:
    """Logarithm of the variance of the Laplacian (Pech-Pacheco et al. 2000)."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return float(np.log(cv2.Laplacian(grey, cv2.CV_64F).var() + 1.0))


# A clip that stands still changes by less than this from frame to frame: half a level.
SEAM_FLOOR = 0.5


def frame_changes(video: Clip) -> Float[np.ndarray, " n"]:
    """RMS change from each frame to the next, in levels of 255."""
    before, found = None, []
    for frame in video:
        if before is not None:
            found.append(change_between(before, frame))
        before = frame
    return np.array(found, np.float64)


def change_between(first: AnyFrame, second: AnyFrame) -> float:
    """RMS change from a frame to the next, in levels of 255."""
    return float(np.sqrt(np.square(np.subtract(second, first, dtype=np.int32)).mean(dtype=np.float64)))


def seam_ratio(changes: Float[np.ndarray, " n"], seams: Sequence[int]) -> float:
    """The change into and out of the frames `seams`, relative to the median change elsewhere: 1 where none shows.

    The mean over the changes that touch a seam, over the median of the others, floored at half a level.

    Args:
        changes: `frame_changes` of the clip.

    Raises:
        InputError: a seam outside the clip, none, or so many that no change is left to compare with.
    """
    frames = len(changes) + 1
    outside = [seam for seam in seams if not 0 <= seam < frames]
    if outside or not seams:
        raise InputError(f"seams are {list(seams)}; expected frames 0 … {frames - 1}")
    touching = np.zeros(len(changes), dtype=bool)
    for seam in seams:
        touching[max(seam - 1, 0) : seam + 1] = True
    if touching.all():
        raise InputError(
            f"{len(seams)} seams touch every change of {frames} frames; expected some that do not"
        )
    return float(changes[touching].mean() / max(float(np.median(changes[~touching])), SEAM_FLOOR))
