"""The package's own groups of measures: pure functions of `wanedit.metrics`, put to what is given."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from wanedit.jobs.evaluate.metric import METRICS, Inputs, Metric, NotGivenError, Values, given
from wanedit.metrics import weights
from wanedit.metrics.functional import frame_psnr, frame_ssim, seam_ratio
from wanedit.metrics.functional.convergence import convergence, unpredicted
from wanedit.metrics.functional.fidelity import (
    gradient_distances,
    keyframe_distance,
    mean_by_distance,
    structure_distance,
)
from wanedit.metrics.functional.junctions import MEASURES, junction_scores, score
from wanedit.metrics.functional.motion import endpoint_errors, follow, motion_scores
from wanedit.metrics.functional.temporal import (
    background_consistency,
    dynamic_degree,
    step_similarities,
    subject_score,
    temporal_scores,
)
from wanedit.runtime.events import Event
from wanedit.video.arrays import Frames


@METRICS.register("junctions")
class Junctions(Metric):
    needs = ("junctions",)
    lower = tuple(name for name in MEASURES if name != "lpips")

    def measure(self, inputs: Inputs) -> Values:
        found = junction_scores(inputs.video, inputs.junctions, inputs.motion)
        return {
            str(j): {name: asdict(value) for name, value in scores.items()} for j, scores in found.items()
        }


@METRICS.register("seams")
class Seams(Metric):
    """At inner keyframes, or at joins where there are none."""

    uses = ("keyframes", "junctions", "reference")
    lower = ("seam_ratio",)
    plain = ("seam_ratio_reference",)

    def measure(self, inputs: Inputs) -> Values:
        last = len(inputs.video) - 1
        seams = [frame for frame in inputs.keyframes or {} if 0 < frame < last] or list(inputs.junctions)
        if not seams:
            raise NotGivenError(
                "neither junctions nor keyframes between the first and the last frame are given"
            )
        values = {"seam_ratio": seam_ratio(inputs.video, seams)}
        if inputs.reference is not None:
            values["seam_ratio_reference"] = seam_ratio(inputs.reference, seams)
        return values


@METRICS.register("temporal")
class Temporal(Metric):
    least_frames = 3
    higher = ("consistency",)
    lower = ("warp_error", "flicker", "smoothness")
    plain = ("dynamic_degree",)

    def measure(self, inputs: Inputs) -> Values:
        return asdict(temporal_scores(inputs.video, inputs.motion))


@METRICS.register("temporal_raft")
class TemporalRaft(Metric):
    least_frames = 2
    weights = (weights.RAFT_LARGE,)
    lower = ("warp_error",)
    plain = ("dynamic_degree",)

    def measure(self, inputs: Inputs) -> Values:
        from wanedit.metrics.networks import Raft

        motion = follow(inputs.video, Raft.load())
        return {"warp_error": float(motion.warp_errors().mean()), "dynamic_degree": dynamic_degree(motion)}


@METRICS.register("clip")
class ClipConsistency(Metric):
    least_frames = 2
    weights = (weights.CLIP,)
    higher = ("frame_consistency", "frame_consistency_worst", "background_consistency")

    def measure(self, inputs: Inputs) -> Values:
        from wanedit.metrics.networks import ClipImages

        features = ClipImages.load().embed(inputs.video)
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

    def measure(self, inputs: Inputs) -> Values:
        from wanedit.metrics.networks import Dino

        dino, keyframes = Dino.load(), inputs.keyframes or {}
        picture = dino.embed(keyframes[min(keyframes)][None])[0]
        return {"i2v_subject": subject_score(picture, dino.embed(inputs.video))}


@METRICS.register("fidelity")
class Fidelity(Metric):
    needs = ("reference",)
    higher = ("psnr", "psnr_worst", "ssim")
    plain = ("worst_frame",)

    def measure(self, inputs: Inputs) -> Values:
        reference = given(inputs.reference)
        psnr = frame_psnr(inputs.video, reference)
        values = {
            "psnr": float(psnr.mean()),
            "psnr_worst": float(psnr.min()),
            "worst_frame": int(psnr.argmin()),
        }
        return values | {"ssim": float(frame_ssim(inputs.video, reference).mean())}


@METRICS.register("mask")
class Mask(Metric):
    """Inside it, the reference may be changed: nearness is no merit there."""

    needs = ("reference", "mask")
    higher = ("psnr_outside", "ssim_outside")
    plain = ("psnr_inside", "ssim_inside")

    def measure(self, inputs: Inputs) -> Values:
        reference, values = given(inputs.reference), {}
        for name, measure in (("psnr", frame_psnr), ("ssim", frame_ssim)):
            for place, mask in _places(inputs).items():
                values[f"{name}_{place}"] = _mean(measure(inputs.video, reference, mask))
        return values


@METRICS.register("keyframes")
class Keyframes(Metric):
    needs = ("keyframes",)
    higher = ("psnr", "ssim", "psnr_by_frame")

    def measure(self, inputs: Inputs) -> Values:
        shown, pictures = _at_keyframes(inputs)
        psnr, ssim = frame_psnr(shown, pictures), frame_ssim(shown, pictures)
        per_frame = dict(zip(map(str, inputs.keyframes or {}), map(float, psnr), strict=True))
        return {"psnr": float(psnr.mean()), "ssim": float(ssim.mean()), "psnr_by_frame": per_frame}


@METRICS.register("truth")
class Truth(Metric):
    """Against a drawn scene, or against a reference that is the truth because keyframes were taken from it."""

    uses = ("scene", "reference", "keyframes", "mask")
    higher = (
        *("psnr", "psnr_off_keyframes", "ssim_off_keyframes", "psnr_keyframes", "psnr_unchanged"),
        "psnr_by_distance",
    )
    lower = ("centre_error", "centre_missing")
    plain = ("sprites_followed",)

    def measure(self, inputs: Inputs) -> Values:
        scene = inputs.scene
        truth = scene.frames if scene is not None else None if inputs.of_run else inputs.reference
        if truth is None or (scene is None and not inputs.keyframes):
            lacking = "a run's reference is its source and no truth; " if inputs.of_run else ""
            raise NotGivenError(f"{lacking}neither a scene nor a reference with keyframes is given")
        psnr = frame_psnr(inputs.video, truth)
        values: Values = {"psnr": float(psnr.mean())}
        if inputs.keyframes:
            distance = keyframe_distance(len(psnr), inputs.keyframes)
            off = distance > 0
            values["psnr_off_keyframes"] = _mean(psnr[off])
            values["ssim_off_keyframes"] = _mean(frame_ssim(inputs.video, truth)[off])
            values["psnr_keyframes"] = float(psnr[~off].mean())
            if inputs.mask is not None:
                # Off the keyframes too, where the edit may change nothing.
                values["psnr_unchanged"] = _mean(frame_psnr(inputs.video, truth, ~inputs.mask)[off])
            by_distance = mean_by_distance(psnr, distance)
            values["psnr_by_distance"] = {str(d): mean for d, mean in by_distance.items()}
        return values | ({} if scene is None else scene.centre_errors(inputs.video))


@METRICS.register("motion")
class MotionFidelity(Metric):
    needs = ("reference",)
    least_frames = 2
    higher = ("fidelity_surrogate", "fidelity_in_place")
    lower = ("endpoint_error", "endpoint_error_worst", "endpoint_error_share")

    def measure(self, inputs: Inputs) -> Values:
        errors, shares = endpoint_errors(inputs.reference_motion, inputs.motion).T
        found = motion_scores(given(inputs.reference), inputs.video)
        return {
            "fidelity_surrogate": found.fidelity,
            "fidelity_in_place": found.in_place,
            "endpoint_error": float(errors.mean()),
            "endpoint_error_worst": float(errors.max()),
            "endpoint_error_share": _mean(shares),
        }


@METRICS.register("structure")
class Structure(Metric):
    needs = ("reference",)
    weights = (weights.DINO_B8,)
    lower = ("distance",)

    def measure(self, inputs: Inputs) -> Values:
        from wanedit.metrics.networks import Dino

        dino = Dino.for_structure()
        pairs = zip(inputs.video, given(inputs.reference), strict=True)
        return {
            "distance": float(np.mean([structure_distance(dino.keys(a), dino.keys(b)) for a, b in pairs]))
        }


@METRICS.register("structure_surrogate")
class StructureSurrogate(Metric):
    needs = ("reference",)
    lower = ("distance_of_gradients",)

    def measure(self, inputs: Inputs) -> Values:
        distances = gradient_distances(inputs.video, given(inputs.reference))
        return {"distance_of_gradients": float(distances.mean())}


@METRICS.register("lpips")
class PerceptualDistance(Metric):
    """To all that is given."""

    uses = ("reference", "mask", "keyframes", "junctions")
    weights = (weights.ALEXNET,)
    lower = ("reference", "outside", "keyframes", "junctions")
    plain = ("inside",)

    def measure(self, inputs: Inputs) -> Values:
        from wanedit.metrics.networks import Lpips

        lpips = Lpips.load()
        values: Values = {}
        if inputs.reference is not None:
            values["reference"] = float(lpips.distances(inputs.video, inputs.reference).mean())
            for place, mask in _places(inputs).items():
                values[place] = _mean(lpips.distances(inputs.video, inputs.reference, mask))
        if inputs.keyframes:
            values["keyframes"] = float(lpips.distances(*_at_keyframes(inputs)).mean())
        if inputs.junctions:
            steps = np.concatenate([[np.nan], lpips.steps(inputs.video)])
            joins = inputs.junctions
            values["junctions"] = {str(j): asdict(score("lpips", steps, j, joins)) for j in joins}
        if not values:
            raise NotGivenError("neither a reference, nor keyframes, nor junctions are given")
        return values


@METRICS.register("convergence")
class Convergence(Metric):
    """How the residual of an edit fell, against what its controller promises."""

    needs = ("steps",)
    uses = ("method",)
    lower = ("keyframe_error",)
    plain = ("measured_rate", "predicted_rate", "driven_rate", "over_bound", "residual_by_step")

    def measure(self, inputs: Inputs) -> Values:
        steps = inputs.steps
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
        if unpredicted(inputs.method) is None:
            values["predicted_rate"] = found.predicted_rate
            values["driven_rate"] = found.driven_rate
            values["over_bound"] = found.law.over_bound
        last = {"keyframe_error": math.nan} | steps[-1]
        values["keyframe_error"] = float(_series([last], "keyframe_error")[0])
        values["residual_by_step"] = {str(k): float(value) for k, value in enumerate(residuals)}
        return values


def _places(inputs: Inputs) -> dict[str, np.ndarray]:
    return {} if inputs.mask is None else {"inside": inputs.mask, "outside": ~inputs.mask}


def _at_keyframes(inputs: Inputs) -> tuple[Frames, Frames]:
    """The frames that should show keyframes, and the keyframes."""
    keyframes = inputs.keyframes or {}
    return inputs.video[list(keyframes)], np.stack(list(keyframes.values()))


def _series(steps: Sequence[Event], name: str) -> np.ndarray:
    try:
        return np.array([float(step[name]) for step in steps], dtype=np.float64)
    except (TypeError, ValueError, KeyError):
        raise NotGivenError(f"the record of this edit has no {name} that is a number at every step") from None


def _mean(values: np.ndarray) -> float:
    """Of the frames that have a value; NaN where none has."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
