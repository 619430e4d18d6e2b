"""What is measured, group by group: each function takes what is given and says so where that is not enough."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from wanedit.jobs.evaluate.inputs import Inputs
from wanedit.metrics.functional import frame_psnr, frame_ssim, seam_ratio
from wanedit.metrics.functional.convergence import convergence, unpredicted
from wanedit.metrics.functional.features import background_consistency, step_similarities, subject_score
from wanedit.metrics.functional.fidelity import keyframe_distance, mean_by_distance
from wanedit.metrics.functional.junctions import junction_scores, score
from wanedit.metrics.functional.motion import endpoint_errors, follow
from wanedit.metrics.functional.structure import gradient_distances, structure_distance
from wanedit.metrics.functional.temporal import dynamic_degree, temporal_scores
from wanedit.metrics.functional.tracks import motion_scores
from wanedit.video.arrays import Frames

Values = dict[str, Any]


class NotGivenError(Exception):
    """A group lacks an input, which the message names."""


def _of_junctions(inputs: Inputs) -> Values:
    if not inputs.junctions:
        raise NotGivenError("no junctions are given")
    found = junction_scores(inputs.video, inputs.junctions, inputs.motion)
    return {str(j): {name: asdict(value) for name, value in scores.items()} for j, scores in found.items()}


def _of_seams(inputs: Inputs) -> Values:
    """At inner keyframes, or at joins where there are none."""
    last = len(inputs.video) - 1
    seams = [frame for frame in inputs.keyframes or {} if 0 < frame < last] or list(inputs.junctions)
    if not seams:
        raise NotGivenError("neither junctions nor keyframes between the first and the last frame are given")
    values = {"seam_ratio": seam_ratio(inputs.video, seams)}
    if inputs.reference is not None:
        values["seam_ratio_reference"] = seam_ratio(inputs.reference, seams)
    return values


def _of_time(inputs: Inputs) -> Values:
    if len(inputs.video) < 3:
        raise NotGivenError(f"the video has {len(inputs.video)} frames; 3 are needed")
    return asdict(temporal_scores(inputs.video, inputs.motion))


def _of_raft(inputs: Inputs) -> Values:
    from wanedit.metrics.raft import Raft

    if len(inputs.video) < 2:
        raise NotGivenError("the video has 1 frame; 2 are needed")
    motion = follow(inputs.video, Raft.load())
    return {"warp_error": float(motion.warp_errors().mean()), "dynamic_degree": dynamic_degree(motion)}


def _of_clip(inputs: Inputs) -> Values:
    from wanedit.metrics.encoders import ClipImages

    if len(inputs.video) < 2:
        raise NotGivenError("the video has 1 frame; 2 are needed")
    features = ClipImages.load().embed(inputs.video)
    steps = step_similarities(features)
    consistency = {"frame_consistency": float(steps.mean()), "frame_consistency_worst": float(steps.min())}
    return consistency | {"background_consistency": background_consistency(features)}


def _of_subject(inputs: Inputs) -> Values:
    from wanedit.metrics.encoders import Dino

    if not inputs.keyframes:
        raise NotGivenError("no keyframes are given, of which the first is the picture to keep")
    dino = Dino.load()
    picture = dino.embed(inputs.keyframes[min(inputs.keyframes)][None])[0]
    return {"i2v_subject": subject_score(picture, dino.embed(inputs.video))}


def _of_reference(inputs: Inputs) -> Values:
    reference = _reference(inputs)
    psnr = frame_psnr(inputs.video, reference)
    values = {"psnr": float(psnr.mean()), "psnr_worst": float(psnr.min()), "worst_frame": int(psnr.argmin())}
    return values | {"ssim": float(frame_ssim(inputs.video, reference).mean())}


def _reference(inputs: Inputs) -> Frames:
    if inputs.reference is None:
        raise NotGivenError("no reference is given")
    return inputs.reference


def _of_mask(inputs: Inputs) -> Values:
    if inputs.reference is None or inputs.mask is None:
        raise NotGivenError("no reference and mask are given")
    values = {}
    for name, measure in (("psnr", frame_psnr), ("ssim", frame_ssim)):
        for place, mask in _places(inputs).items():
            values[f"{name}_{place}"] = _mean(measure(inputs.video, inputs.reference, mask))
    return values


def _places(inputs: Inputs) -> dict[str, np.ndarray]:
    assert inputs.mask is not None
    return {"inside": inputs.mask, "outside": ~inputs.mask}


def _of_keyframes(inputs: Inputs) -> Values:
    shown, pictures = _at_keyframes(inputs)
    psnr, ssim = frame_psnr(shown, pictures), frame_ssim(shown, pictures)
    per_frame = dict(zip(map(str, inputs.keyframes or {}), map(float, psnr), strict=True))
    return {"psnr": float(psnr.mean()), "ssim": float(ssim.mean()), "psnr_by_frame": per_frame}


def _at_keyframes(inputs: Inputs) -> tuple[Frames, Frames]:
    if not inputs.keyframes:
        raise NotGivenError("no keyframes are given")
    return inputs.video[list(inputs.keyframes)], np.stack(list(inputs.keyframes.values()))


def _of_truth(inputs: Inputs) -> Values:
    """Against a drawn scene, or against a reference that is the truth because keyframes were taken from it."""
    scene = inputs.scene
    truth = scene.frames if scene is not None else inputs.truth
    if truth is None or (scene is None and not inputs.keyframes):
        lacking = "a run's reference is its source and no truth; " if inputs.of_run else ""
        raise NotGivenError(f"{lacking}neither a scene nor a reference with keyframes is given")
    psnr = frame_psnr(inputs.video, truth)
    values: Values = {"psnr": float(psnr.mean())}
    if inputs.keyframes:
        distance = keyframe_distance(len(psnr), inputs.keyframes)
        off = psnr[distance > 0]
        values["psnr_off_keyframes"] = float(off.mean()) if len(off) else math.nan
        values["psnr_keyframes"] = float(psnr[distance == 0].mean())
        by_distance = mean_by_distance(psnr, distance)
        values["psnr_by_distance"] = {str(d): mean for d, mean in by_distance.items()}
    return values | ({} if scene is None else scene.centre_errors(inputs.video))


def _of_motion(inputs: Inputs) -> Values:
    reference = _reference(inputs)
    if len(inputs.video) < 2:
        raise NotGivenError("the video has 1 frame; 2 are needed")
    errors, shares = endpoint_errors(inputs.reference_motion, inputs.motion).T
    found = motion_scores(reference, inputs.video)
    return {
        "fidelity_surrogate": found.fidelity,
        "fidelity_in_place": found.in_place,
        "endpoint_error": float(errors.mean()),
        "endpoint_error_worst": float(errors.max()),
        "endpoint_error_share": _mean(shares),
    }


def _of_structure(inputs: Inputs) -> Values:
    from wanedit.metrics.encoders import Dino

    reference = _reference(inputs)
    dino = Dino.for_structure()
    pairs = zip(inputs.video, reference, strict=True)
    return {"distance": float(np.mean([structure_distance(dino.keys(a), dino.keys(b)) for a, b in pairs]))}


def _of_structure_surrogate(inputs: Inputs) -> Values:
    return {"distance_of_gradients": float(gradient_distances(inputs.video, _reference(inputs)).mean())}


def _of_lpips(inputs: Inputs) -> Values:
    from wanedit.metrics.perceptual import Lpips

    lpips = Lpips.load()
    values: Values = {}
    if inputs.reference is not None:
        values["reference"] = float(lpips.distances(inputs.video, inputs.reference).mean())
        for place, mask in ({} if inputs.mask is None else _places(inputs)).items():
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


def _of_convergence(inputs: Inputs) -> Values:
    steps, method = inputs.steps, inputs.method
    if not steps:
        raise NotGivenError("the video is not from the folder of an edit, whose steps are on record")
    if not all("r_k_norm" in step for step in steps):
        raise NotGivenError("the method of this edit keeps no residual")
    residuals, sigmas, h, gain_h = (_series(steps, name) for name in ("r_k_norm", "sigma", "h", "alpha_h"))
    found = convergence(residuals, sigmas, h, gain_h, _errors(steps))
    values: Values = {"measured_rate": found.measured_rate}
    if unpredicted(method) is None:
        values["predicted_rate"] = found.predicted_rate
        values["driven_rate"] = found.driven_rate
        values["over_bound"] = found.law.over_bound
    values["keyframe_error"] = float(_series([{"keyframe_error": math.nan} | steps[-1]], "keyframe_error")[0])
    values["residual_by_step"] = {str(k): float(value) for k, value in enumerate(residuals)}
    return values


def _errors(steps: Sequence[Values]) -> np.ndarray | None:
    """RMS of e in the residual's unit: the record has it relative to the RMS of x_e, and the residual both ways."""
    if not all({"keyframe_error", "r_k_norm_relative"} <= step.keys() for step in steps):
        return None
    residuals, relative = _series(steps, "r_k_norm"), _series(steps, "r_k_norm_relative")
    known = relative > 0
    if not known.any():
        return None
    return _series(steps, "keyframe_error") * float(np.median(residuals[known] / relative[known]))


def _series(steps: Sequence[Values], name: str) -> np.ndarray:
    try:
        return np.array([float(step[name]) for step in steps], dtype=np.float64)
    except (TypeError, ValueError, KeyError):
        raise NotGivenError(f"the record of this edit has no {name} that is a number at every step") from None


def _mean(values: np.ndarray) -> float:
    """Of the frames that have a value; NaN where none has."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


GROUPS: dict[str, Callable[[Inputs], Values]] = {
    "junctions": _of_junctions,
    "seams": _of_seams,
    "temporal": _of_time,
    "temporal_raft": _of_raft,
    "clip": _of_clip,
    "subject": _of_subject,
    "fidelity": _of_reference,
    "mask": _of_mask,
    "keyframes": _of_keyframes,
    "truth": _of_truth,
    "motion": _of_motion,
    "structure": _of_structure,
    "structure_surrogate": _of_structure_surrogate,
    "lpips": _of_lpips,
    "convergence": _of_convergence,
}
