"""Residual-corrected flow with a keyframe controller: the method of this project."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.covariance import Derivative, covariance_product
from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel, View, at_slots
from wanedit.flow.keyframes import CONTROLLERS, Branches, Controller, Exponential, step_metrics
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule, Step, fresh_noise, interpolate
from wanedit.flow.sampling import check_strength
from wanedit.flow.solvers import Velocity, finite
from wanedit.timeline import STRIDE
from wanedit.timeline import slot as slot_of

# (z, z_e, noise, step) -> v and v_e before control, and the model's own velocity of the clip, without the drift.
Velocities = Callable[[Tensor, Tensor, Tensor, Step], tuple[Tensor, Tensor, Tensor]]


@METHODS.register("residual_corrected")
@dataclass(frozen=True)
class ResidualCorrectedFlow(Method):
    """The source is kept by the model's own error on it, the keyframes by a controller.

    At every step, with z_s on the straight path from the noise eps to the source x_s,
    `v = v_theta(z, target) + lambda ((eps - x_s) - v_theta(z_s, source))`, and the controller's correction on top.

    Attributes:
        controller: ties slots K to the edited keyframes.
        source_weight: lambda. At 1 an edit that changes nothing gives the source back exactly; 0 lets go of it.
        strength: noise level to start from, in (0, 1]; below 1 from the noised source.
        edit_branch: "analytic": the straight path from eps_e to x_e. "denoised": by the model, in one sequence
            `[S slots of the clip; K slots]` with the frame ids `[0 … S-1, K]`. A keyframe at frame 0 that the clip is
            shown too is the clip there, and corrects nothing; such a run with no other keyframe is refused.
        keyframe_ids: temporal positions of those K slots. "slot": their slot numbers. "frame": p / 4, fractional.
        show_keyframes: a denoised edit branch is shown x_e in the condition of its slots.
        renew_noise: exchange the noise of both branches for a fresh draw at every step, as FlowEdit does
            (arXiv 2412.08629): the velocities are then averaged over noise instead of following one draw of it. Without
            a controller this is FlowEdit.
        seed: of that noise.
        guidance_scale, source_guidance_scale: instead of the views' own. Where they differ from each other, an edit
            that changes nothing no longer gives the source back.
        derivative, derivative_step: how a covariance controller differentiates the velocity, and how far apart
            differences are taken; see `covariance_product`.
    """

    restored_by: ClassVar[str] = "fused"

    controller: Controller = field(default_factory=Exponential)
    source_weight: float = 1.0
    strength: float = 1.0
    edit_branch: Literal["analytic", "denoised"] = "analytic"
    keyframe_ids: Literal["slot", "frame"] = "slot"
    show_keyframes: bool = True
    renew_noise: bool = False
    seed: int = 0
    guidance_scale: float | None = None
    source_guidance_scale: float | None = None
    derivative: Derivative = "difference"
    derivative_step: float = 1e-2

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not math.isfinite(self.source_weight):
            raise InputError(f"source_weight is {self.source_weight:g}; expected a number")
        if self.renew_noise and self.source_weight != 1:
            raise InputError(
                f"renew_noise with source_weight {self.source_weight:g}: only at 1 is the noise that is exchanged the "
                "clip's own. Expected source_weight 1"
            )
        if self.derivative not in get_args(Derivative):
            raise InputError(
                f"derivative is {self.derivative!r}; expected one of {', '.join(get_args(Derivative))}"
            )
        if not 0 < self.derivative_step < 1:
            raise InputError(
                f"derivative_step is {self.derivative_step:g}; expected more than 0, less than 1"
            )
        if self.edit_branch not in ("analytic", "denoised"):
            raise InputError(f"edit_branch is {self.edit_branch!r}; expected 'analytic' or 'denoised'")
        if self.keyframe_ids not in ("slot", "frame"):
            raise InputError(f"keyframe_ids is {self.keyframe_ids!r}; expected 'slot' or 'frame'")
        if self.edit_branch == "denoised" and self.strength == 1 and not self.show_keyframes:
            raise InputError(
                "a denoised edit branch that starts from pure noise and is not shown its keyframes is the main branch "
                "itself: every residual would be zero whatever the edit. Expected strength < 1, show_keyframes, or "
                "edit_branch 'analytic'"
            )

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset() if self.source_weight else frozenset({"reference"})

    def decides(self, levels: Schedule) -> dict[str, object]:
        return self.controller.decides(levels.after(self.strength))

    def doubts(self, levels: Schedule, guidance: tuple[float, float | None]) -> list[str]:
        notes, (target, source) = self.controller.doubts(levels), guidance
        if (self.derivative, self.derivative_step) != (
            "difference",
            1e-2,
        ) and not self.controller.differentiates:
            name = CONTROLLERS.name_of(type(self.controller))
            notes.append(f"derivative is not used: the controller {name} differentiates nothing")
        if source is not None and target != source:
            notes.append(
                f"the guidance of the edit is {target:g} and that of the source {source:g}: where they differ, an edit "
                "that changes nothing does not give the source back"
            )
        return notes

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        levels = schedule.after(self.strength)
        target, velocities = self._velocities(model, edit)
        noise = edit.noise
        z = interpolate(edit.source, noise, levels.sigmas[0])
        z_e = interpolate(edit.edited, edit.edited_noise, levels.sigmas[0])
        for step in levels:
            if self.renew_noise:
                # Both branches move by the same change, so that their difference, and the law of it, stay as they are.
                change = fresh_noise(noise.shape, noise, self.seed, "residual_corrected", step.index) - noise
                noise = noise + change
                z, z_e = z + step.sigma * change, z_e + step.sigma * at_slots(change, edit.slots)
            v, v_e, own = velocities(z, z_e, noise, step)
            product = covariance_product(target(z_e), z, own, step, self.derivative, self.derivative_step)
            state = Branches(step, z, finite(v, step), z_e, v_e, edit.edited, edit.slots, product)
            correction = self.controller(state)
            if observe is not None:
                observe(step, step_metrics(state, correction, edit.scale))
            z = z - step.h * (v + correction.main)
            z_e = z_e - step.h * (v_e if correction.edit is None else v_e + correction.edit)
        return Edited(latents=z)

    def _views(self, edit: Edit) -> tuple[View, View]:
        return edit.target.guided(self.guidance_scale), edit.reference.guided(self.source_guidance_scale)

    def _velocities(self, model: VideoModel, edit: Edit) -> tuple[Callable[[Tensor], Velocity], Velocities]:
        """The target's velocity as a function of z alone, given z_e, and the velocities of both branches."""
        return self._joint(model, edit) if self.edit_branch == "denoised" else self._alone(model, edit)

    def _alone(self, model: VideoModel, edit: Edit) -> tuple[Callable[[Tensor], Velocity], Velocities]:
        target_view, source_view = self._views(edit)
        target = model.velocity(target_view, edit.num_slots)
        source = model.velocity(source_view, edit.num_slots) if self.source_weight else None

        def velocities(z: Tensor, z_e: Tensor, noise: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
            own = target(z, step)
            straight = at_slots(noise, edit.slots) - edit.edited
            return own + self._drift(source, edit.source, noise, step), straight, own

        return lambda z_e: target, velocities

    def _joint(self, model: VideoModel, edit: Edit) -> tuple[Callable[[Tensor], Velocity], Velocities]:
        slots, total = edit.slots, edit.num_slots
        places = self._keyframe_ids(edit)
        self._require_apart(edit, places)
        ids = (*map(float, range(total)), *places)
        kept = torch.cat([edit.source, at_slots(edit.source, slots)], dim=2)
        shown = (edit.edited, kept[:, :, total:]) if self.show_keyframes else (None, None)
        views = [
            replace(view, frame_ids=ids, joint=len(slots), appended=latents)
            for view, latents in zip(self._views(edit), shown, strict=True)
        ]
        target = model.velocity(views[0], total + len(slots))
        source = model.velocity(views[1], total + len(slots)) if self.source_weight else None

        def velocities(z: Tensor, z_e: Tensor, noise: Tensor, step: Step) -> tuple[Tensor, Tensor, Tensor]:
            own = target(torch.cat([z, z_e], dim=2), step)
            both = own + self._drift(source, kept, torch.cat([noise, at_slots(noise, slots)], dim=2), step)
            return both[:, :, :total], both[:, :, total:], own[:, :, :total]

        def given(z_e: Tensor) -> Velocity:
            return lambda z, step: target(torch.cat([z, z_e], dim=2), step)[:, :, :total]

        return given, velocities

    def _require_apart(self, edit: Edit, places: list[float]) -> None:
        """Refuse two branches of which all that the model is given is equal, and so every answer: noise, position, and
        what is known of the slot. Slot 0 is known whole where frame 0 is shown, a later one in a part of its frames."""
        known = {slot: "whole" if slot == 0 else "in part" for slot in map(slot_of, edit.target.images)}
        beside = "whole" if self.show_keyframes else "not"
        equal = [
            place == slot and known.get(slot, "not") == beside
            for slot, place in zip(edit.slots, places, strict=True)
        ]
        if self.strength == 1 and all(equal):
            raise InputError(
                "a denoised edit branch that starts from the clip's noise, at the clip's place, and is shown what the "
                "clip is shown there (a keyframe at frame 0) is the main branch itself: every residual would be zero "
                "whatever the edit. Expected strength < 1, a further keyframe, condition_keyframes false, or "
                "edit_branch 'analytic'"
            )

    def _keyframe_ids(self, edit: Edit) -> list[float]:
        if self.keyframe_ids == "slot":
            return [float(slot) for slot in edit.slots]
        if len(edit.frames) != len(edit.slots):
            raise InputError("keyframe_ids 'frame' need the frames of the keyframes; this edit has none")
        return [frame / STRIDE for frame in edit.frames]

    def _drift(self, source: Velocity | None, x_s: Tensor, noise: Tensor, step: Step) -> Tensor | float:
        """lambda ((eps - x_s) - v_theta(z_s, source)): what the model gets wrong about the source."""
        if source is None:
            return 0.0
        z_s = interpolate(x_s, noise, step.sigma)
        return self.source_weight * ((noise - x_s) - source(z_s, step))
