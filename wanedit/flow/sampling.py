"""What several methods share: pictures of the keyframes, and what is logged."""

from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Metrics, OnStep, at_slots, rms
from wanedit.flow.path import Step, clean_estimate
from wanedit.flow.solvers import Observer
from wanedit.timeline import STRIDE

# Relative errors of a clip that is zero everywhere are taken relative to this.
TINY = 1e-12


def check_strength(strength: float) -> None:
    """Refuse a noise level to start from outside (0, 1]."""
    if not 0 < strength <= 1:
        raise InputError(f"strength is {strength:g}; expected a number in (0, 1]")


def num_frames(edit: Edit) -> int:
    """Frames of the source clip."""
    return STRIDE * (edit.num_slots - 1) + 1 if edit.video is None else edit.video.shape[2]


def pictures(edit: Edit) -> dict[int, Float[Tensor, "3 height width"]]:
    """frame -> edited keyframe (3, H, W), as a view shows it to a model.

    Raises:
        InputError: the edit has latents only, more than one clip (a view shows one), or a keyframe beyond the clip.
    """
    if edit.keyframes is None or len(edit.frames) != len(edit.slots):
        raise InputError(
            f"{len(edit.frames)} frames and {'no' if edit.keyframes is None else 'some'} pixels for {len(edit.slots)} "
            "edited keyframes; this method shows them to the model and expected frames and pixels of each"
        )
    if edit.keyframes.shape[0] != 1:
        raise InputError(f"a batch of {edit.keyframes.shape[0]} clips; a view shows the keyframes of 1")
    if edit.frames[-1] >= num_frames(edit):
        raise InputError(f"keyframes are at {list(edit.frames)}; expected 0 … {num_frames(edit) - 1}")
    return {frame: edit.keyframes[0, :, k] for k, frame in enumerate(edit.frames)}


def errors(edit: Edit, clean: Float[Tensor, "b c s h w"]) -> Metrics:
    """How far a clean estimate is from the edited keyframes and from the source, relative to their RMS."""
    off = at_slots(clean, edit.slots) - edit.edited
    return {
        "keyframe_error": rms(off) / max(edit.scale, TINY),
        "source_error": rms(clean - edit.source) / max(rms(edit.source), TINY),
    }


def report(
    observe: OnStep | None,
    edit: Edit,
    step: Step,
    x: Float[Tensor, "b c s h w"],
    v: Float[Tensor, "b c s h w"],
) -> None:
    """Tell `observe` where a step is heading."""
    if observe is not None:
        observe(step, errors(edit, clean_estimate(x, v, step.sigma)))


def watching(edit: Edit, observe: OnStep | None) -> Observer | None:
    """`report` as a solver calls it."""
    if observe is None:
        return None
    return lambda step, x, v: report(observe, edit, step, x, v)
