"""The package's own groups of measures: pure functions of `wanedit.metrics`, put to what is given, frame by frame."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from wanedit.jobs.evaluate.metric import METRICS, Inputs, Metric, Moment, NotGivenError, Values, given
from wanedit.metrics import weights
from wanedit.metrics.functional.convergence import convergence, unpredicted
from wanedit.metrics.functional.fidelity import (
    Nearness,
    gradient_distance,
    keyframe_distance,
    mean_by_distance,
    structure_distance,
)
from wanedit.metrics.functional.junctions import (
    OF_PIXELS,
    Series,
    Transitions,
    change_between,
    score,
    seam_ratio,
)
from wanedit.metrics.functional.motion import MotionWindows, endpoint_error, step_between
from wanedit.metrics.functional.reach import ReachSeries
from wanedit.metrics.functional.temporal import (
    TemporalSeries,
    background_consistency,
    fastest,
    step_similarities,
    subject_score,
)
from wanedit.runtime.events import Event
from wanedit.sprites.truth import Sightings, acceleration, sightings, trace

# Frames on either side of a join that are near it: what a latent slot holds.
NEAR_JOINS = 4


@METRICS.register("junctions")
class Junctions(Metric):
    """What the reference does at a join, the video may do."""

    needs = ("junctions",)
    uses = ("reference",)
    lower = OF_PIXELS

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.transitions = Transitions()
        self.of_reference = Transitions() if inputs.has("reference") else None

    def update(self, moment: Moment) -> None:
        self.transitions.update(moment.frame, moment.step)
        if self.of_reference is not None:
            self.of_reference.update(given(moment.reference), moment.reference_step)

    def compute(self) -> Values:
        found = self.transitions.scores(self.inputs.junctions, self.of_reference)
        return {
            str(j): {name: asdict(value) for name, value in scores.items()} for j, scores in found.items()
        }


@METRICS.register("seams")
class Seams(Metric):
    """At inner keyframes, or at joins where there are none."""

    uses = ("keyframes", "junctions", "reference")
    lower = ("seam_ratio",)
    plain = ("seam_ratio_reference",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        last = len(inputs.video) - 1
        inner = [frame for frame in inputs.keyframes or {} if 0 < frame < last]
        self.seams = inner or list(inputs.junctions)
        if not self.seams:
            raise NotGivenError(
                "neither junctions nor keyframes between the first and the last frame are given"
            )
        self.before: tuple[np.ndarray | None, ...] = ()
        self.changes: dict[str, list[float]] = defaultdict(list)

    def update(self, moment: Moment) -> None:
        now = (moment.frame, moment.reference)
        for name, first, second in zip(
            ("seam_ratio", "seam_ratio_reference"), self.before, now, strict=False
        ):
            if first is not None and second is not None:
                self.changes[name].append(change_between(first, second))
        self.before = now

    def compute(self) -> Values:
        return {name: seam_ratio(np.array(changes), self.seams) for name, changes in self.changes.items()}


@METRICS.register("temporal")
class Temporal(Metric):
    least_frames = 3
    higher = ("consistency",)
    lower = ("warp_error", "flicker", "smoothness")
    plain = ("dynamic_degree",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.series = TemporalSeries()

    def update(self, moment: Moment) -> None:
        if moment.step is not None:
            self.series.update(moment.step)

    def compute(self) -> Values:
        return asdict(self.series.scores())


@METRICS.register("temporal_raft")
class TemporalRaft(Metric):
    least_frames = 2
    weights = (weights.RAFT_LARGE,)
    lower = ("warp_error",)
    plain = ("dynamic_degree",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import Raft

        self.flow = Raft.load()
        self.found: list[tuple[float, float]] = []

    def update(self, moment: Moment) -> None:
        if moment.before is not None:
            step = step_between(moment.before.small, moment.small, self.flow)
            self.found.append((step.moved_back[0], fastest(step)))

    def compute(self) -> Values:
        warped, fast = np.mean(self.found, axis=0)
        return {"warp_error": float(warped), "dynamic_degree": float(fast)}


@METRICS.register("clip")
class ClipConsistency(Metric):
    least_frames = 2
    weights = (weights.CLIP,)
    higher = ("frame_consistency", "frame_consistency_worst", "background_consistency")

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import ClipImages

        self.clip = ClipImages.load()
        self.features: list[np.ndarray] = []

    def update(self, moment: Moment) -> None:
        self.features.append(self.clip.embed(moment.frame[None])[0])

    def compute(self) -> Values:
        features = np.stack(self.features)
        steps = step_similarities(features)
        consistency = {
            "frame_consistency": float(steps.mean()),
            "frame_consistency_worst": float(steps.min()),
        }
        return consistency | {"background_consistency": background_consistency(features)}


@METRICS.register("subject")
class Subject(Metric):
    """The first keyframe is the picture to keep."""

    needs = ("keyframes",)
    weights = (weights.DINO_B16,)
    higher = ("i2v_subject",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import Dino

        self.dino, keyframes = Dino.load(), inputs.keyframes or {}
        self.picture = self.dino.embed(keyframes[min(keyframes)][None])[0]
        self.features: list[np.ndarray] = []

    def update(self, moment: Moment) -> None:
        self.features.append(self.dino.embed(moment.frame[None])[0])

    def compute(self) -> Values:
        return {"i2v_subject": subject_score(self.picture, np.stack(self.features))}


class Averaged(Metric):
    """Numbers of every frame by row, of which the clip has the mean over the frames that have one."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.series: dict[str, list[float]] = defaultdict(list)

    def add(self, **numbers: float) -> None:
        """What the next frame has."""
        for name, value in numbers.items():
            self.series[name].append(value)

    def compute(self) -> Values:
        return {name: _mean(np.array(values)) for name, values in self.series.items()}


@METRICS.register("fidelity")
class Fidelity(Averaged):
    needs = ("reference",)
    higher = ("psnr", "psnr_worst", "ssim")
    plain = ("worst_frame",)

    def update(self, moment: Moment) -> None:
        self.add(psnr=moment.to_reference.psnr(), ssim=moment.to_reference.ssim())

    def compute(self) -> Values:
        psnr = np.array(self.series["psnr"])
        worst = {"psnr_worst": float(psnr.min()), "worst_frame": int(psnr.argmin())}
        return super().compute() | worst


@METRICS.register("mask")
class Mask(Averaged):
    """Inside it, the reference may be changed: nearness is no merit there."""

    needs = ("reference", "mask")
    higher = ("psnr_outside", "ssim_outside")
    plain = ("psnr_inside", "ssim_inside")

    def update(self, moment: Moment) -> None:
        near = moment.to_reference
        for place, mask in _places(moment).items():
            self.add(**{f"psnr_{place}": near.psnr(mask), f"ssim_{place}": near.ssim(mask)})


@METRICS.register("keyframes")
class Keyframes(Averaged):
    needs = ("keyframes",)
    higher = ("psnr", "ssim", "psnr_by_frame")

    def update(self, moment: Moment) -> None:
        if (picture := (self.inputs.keyframes or {}).get(moment.index)) is not None:
            near = Nearness(moment.frame, picture)
            self.add(psnr=near.psnr(), ssim=near.ssim())

    def compute(self) -> Values:
        by_frame = zip(map(str, sorted(self.inputs.keyframes or {})), self.series["psnr"], strict=True)
        return super().compute() | {"psnr_by_frame": dict(by_frame)}


@METRICS.register("reach")
class EditReach(Metric):
    """The reference is the source, and the keyframes are edits of it."""

    needs = ("reference", "keyframes")
    higher = ("share", "share_worst", "share_by_frame")
    plain = ("known",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        reference, keyframes = given(inputs.reference), inputs.keyframes or {}
        places = list(keyframes)
        self.reach = ReachSeries(keyframes, dict(zip(places, reference[places], strict=True)))
        if not self.reach.edits:
            raise NotGivenError("the keyframes change nothing of the reference")

    def update(self, moment: Moment) -> None:
        self.reach.update(given(moment.reference), moment.frame)

    def compute(self) -> Values:
        found = self.reach.reach()
        by_frame = {str(t): share for t, share in enumerate(found.shares)}
        known = float(np.mean(found.known))
        return {"share": found.mean, "share_worst": found.worst, "known": known, "share_by_frame": by_frame}


@METRICS.register("truth")
class Truth(Averaged):
    """Against a drawn scene, or against a reference that is the truth because keyframes were taken from it. PSNR near
    joins is that of the frames about them that are no keyframes."""

    uses = ("scene", "reference", "keyframes", "mask", "junctions")
    higher = (
        *("psnr", "psnr_off_keyframes", "ssim_off_keyframes", "psnr_keyframes"),
        *("psnr_changed", "ssim_changed", "psnr_unchanged", "ssim_unchanged"),
        *("psnr_by_distance", "psnr_near_joins", "psnr_far_from_joins"),
    )
    lower = ("centre_error", "centre_missing", "centre_error_near_joins", "acceleration_error")
    plain = ("sprites_followed", "acceleration_ratio")

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        known = inputs.scene is not None or (inputs.reference is not None and not inputs.of_run)
        if not known or (inputs.scene is None and not inputs.keyframes):
            lacking = "a run's reference is its source and no truth; " if inputs.of_run else ""
            raise NotGivenError(f"{lacking}neither a scene nor a reference with keyframes is given")
        self.distance: np.ndarray | None = None
        if inputs.keyframes:
            self.distance = keyframe_distance(len(inputs.video), inputs.keyframes)
        self.seen: dict[int, Sightings] = {}

    def update(self, moment: Moment) -> None:
        near, t, clip = moment.to_truth, moment.index, self.inputs.scene and self.inputs.scene.clip
        self.add(psnr=near.psnr())
        if self.distance is not None:
            self.add(ssim=near.ssim() if self.distance[t] else math.nan)
            # Where the edit may change something, and where nothing.
            if moment.mask is not None and self.distance[t]:
                for place, mask in (("changed", moment.mask), ("unchanged", ~moment.mask)):
                    self.add(**{f"psnr_{place}": near.psnr(mask), f"ssim_{place}": near.ssim(mask)})
        if clip is not None and moment.truth is not None and 0 < t < len(self.inputs.video) - 1:
            self.seen[t] = sightings(clip, t, moment.frame, moment.truth)

    def compute(self) -> Values:
        psnr = np.array(self.series["psnr"])
        values: Values = {"psnr": float(psnr.mean())}
        if self.distance is not None:
            off = self.distance > 0
            values["psnr_off_keyframes"] = _mean(psnr[off])
            values["ssim_off_keyframes"] = _mean(np.array(self.series["ssim"])[off])
            values["psnr_keyframes"] = float(psnr[~off].mean())
            # These have the frames off the keyframes alone.
            masked = [name for name in self.series if name.endswith("changed")]
            values |= {name: _mean(np.array(self.series[name])) for name in masked}
            by_distance = mean_by_distance(psnr, self.distance)
            values["psnr_by_distance"] = {str(d): mean for d, mean in by_distance.items()}
        joins = self.inputs.junctions
        to_join = keyframe_distance(len(psnr), joins) if joins else np.full(len(psnr), len(psnr))
        near = to_join <= NEAR_JOINS
        if joins and self.distance is not None:
            values["psnr_near_joins"] = _mean(psnr[near & (self.distance > 0)])
            values["psnr_far_from_joins"] = _mean(psnr[~near & (self.distance > 0)])
        # Of the sprites that the instrument can follow in the truth, between the first frame and the last; one that is
        # not found counts with half of the frame's width.
        side = self.inputs.video.shape[2] / 64
        if found := trace(self.seen.values()):
            values["centre_error"] = float(np.mean([f.error for f in found])) * side
            values["centre_missing"] = float(np.mean([f.missing for f in found]))
            values["sprites_followed"] = len(found)
        if close := trace(seen for t, seen in self.seen.items() if near[t]):
            values["centre_error_near_joins"] = float(np.mean([f.error for f in close])) * side
        if bent := acceleration(self.seen, joins):
            values["acceleration_error"] = bent.error * side
            values["acceleration_ratio"] = bent.ratio
        return values


@METRICS.register("motion")
class MotionFidelity(Averaged):
    needs = ("reference",)
    least_frames = 2
    higher = ("fidelity_surrogate", "fidelity_in_place")
    lower = ("endpoint_error", "endpoint_error_worst", "endpoint_error_share")

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        self.windows = MotionWindows()

    def update(self, moment: Moment) -> None:
        self.windows.update(moment.small_reference, moment.small)
        if moment.reference_step is not None and moment.step is not None:
            error, share = endpoint_error(moment.reference_step, moment.step)
            self.add(endpoint_error=error, endpoint_error_share=share)

    def compute(self) -> Values:
        found, worst = self.windows.scores(), float(np.max(self.series["endpoint_error"]))
        scores = {"fidelity_surrogate": found.fidelity, "fidelity_in_place": found.in_place}
        return scores | {"endpoint_error_worst": worst} | super().compute()


@METRICS.register("structure")
class Structure(Averaged):
    needs = ("reference",)
    weights = (weights.DINO_B8,)
    lower = ("distance",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import Dino

        self.dino = Dino.for_structure()

    def update(self, moment: Moment) -> None:
        pair = moment.to_reference
        self.add(distance=structure_distance(self.dino.keys(pair.frame), self.dino.keys(pair.truth)))


@METRICS.register("structure_surrogate")
class StructureSurrogate(Averaged):
    needs = ("reference",)
    lower = ("distance_of_gradients",)

    def update(self, moment: Moment) -> None:
        pair = moment.to_reference
        self.add(distance_of_gradients=gradient_distance(pair.frame, pair.truth))


@METRICS.register("lpips")
class PerceptualDistance(Averaged):
    """To all that is given."""

    uses = ("reference", "mask", "keyframes", "junctions")
    weights = (weights.ALEXNET,)
    lower = ("reference", "outside", "keyframes", "junctions")
    plain = ("inside",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import Lpips

        self.lpips = Lpips.load()
        if not any(inputs.has(name) for name in ("reference", "keyframes", "junctions")):
            raise NotGivenError("neither a reference, nor keyframes, nor junctions are given")
        self.before: tuple[np.ndarray | None, ...] = (None, None)
        # From frame to frame, of the video and of the reference.
        self.steps: tuple[list[float], ...] = ([], [])

    def update(self, moment: Moment) -> None:
        if moment.reference is not None:
            self.add(reference=self.lpips.distance(moment.frame, moment.reference))
            for place, mask in _places(moment).items():
                self.add(**{place: self.lpips.distance(moment.frame, moment.reference, mask)})
        if (picture := (self.inputs.keyframes or {}).get(moment.index)) is not None:
            self.add(keyframes=self.lpips.distance(moment.frame, picture))
        if self.inputs.junctions:
            now = (moment.frame, moment.reference)
            for steps, first, second in zip(self.steps, self.before, now, strict=True):
                if first is None or second is None:
                    steps.append(math.nan)
                else:
                    steps.append(self.lpips.distance(first, second))
            self.before = now

    def compute(self) -> Values:
        values, joins = super().compute(), self.inputs.junctions
        if joins:
            ours, theirs = (Series(np.array(steps)) for steps in self.steps)
            of = theirs if self.inputs.has("reference") else None
            values["junctions"] = {str(j): asdict(score("lpips", ours, j, joins, of)) for j in joins}
        return values


@METRICS.register("cvvdp")
class ColourVideo(Metric):
    """ColorVideoVDP in just-objectionable differences: 10 where nobody sees a difference, less the more one is seen."""

    needs = ("reference",)
    least_frames = 2
    on_request = True
    higher = ("jod",)
    plain = ("fps",)

    def __init__(self, inputs: Inputs) -> None:
        super().__init__(inputs)
        from wanedit.metrics.networks import require_cvvdp

        require_cvvdp()

    def compute(self) -> Values:
        from wanedit.metrics.networks import visible_difference

        # It asks for frames itself, each once and in order.
        video, reference, fps = self.inputs.video, given(self.inputs.reference), float(self.inputs.fps)
        return {"jod": visible_difference(video, reference, fps), "fps": fps}


@METRICS.register("convergence")
class Convergence(Metric):
    """How the residual of an edit fell, against what its controller promises."""

    needs = ("steps",)
    uses = ("method",)
    lower = ("keyframe_error",)
    plain = ("measured_rate", "predicted_rate", "driven_rate", "over_bound", "residual_by_step")

    def compute(self) -> Values:
        steps = self.inputs.steps
        if not all("r_k_norm" in step for step in steps):
            raise NotGivenError("the method of this edit keeps no residual")
        residuals, sigmas, h, gain_h = (
            _series(steps, name) for name in ("r_k_norm", "sigma", "h", "alpha_h")
        )
        errors = None
        if all({"keyframe_error", "r_k_norm_relative"} <= step.keys() for step in steps):
            # The record has e relative to the RMS of x_e, and the residual both ways: that gives its unit.
            relative = _series(steps, "r_k_norm_relative")
            if (known := relative > 0).any():
                unit = float(np.median(residuals[known] / relative[known]))
                errors = _series(steps, "keyframe_error") * unit
        found = convergence(residuals, sigmas, h, gain_h, errors)
        values: Values = {"measured_rate": found.measured_rate}
        if unpredicted(self.inputs.method) is None:
            values["predicted_rate"] = found.predicted_rate
            values["driven_rate"] = found.driven_rate
            values["over_bound"] = found.law.over_bound
        last = {"keyframe_error": math.nan} | steps[-1]
        values["keyframe_error"] = float(_series([last], "keyframe_error")[0])
        values["residual_by_step"] = {str(k): float(value) for k, value in enumerate(residuals)}
        return values


def _places(moment: Moment) -> dict[str, np.ndarray]:
    return {} if moment.mask is None else {"inside": moment.mask, "outside": ~moment.mask}


def _series(steps: Sequence[Event], name: str) -> np.ndarray:
    try:
        return np.array([float(step[name]) for step in steps], dtype=np.float64)
    except (TypeError, ValueError, KeyError):
        raise NotGivenError(f"the record of this edit has no {name} that is a number at every step") from None


def _mean(values: np.ndarray) -> float:
    """Of the frames that have a value; NaN where none has."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
