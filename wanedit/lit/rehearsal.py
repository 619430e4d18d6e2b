"""A method tried out before a model is loaded: what it refuses, what it costs, whether it reads what it says."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Method, Metrics, View
from wanedit.flow.path import Step, schedule
from wanedit.flow.solvers import Velocity
from wanedit.lit.edit_clip import EditSettings
from wanedit.lit.editor import shown_frames
from wanedit.lit.model import OpenModel, require_readable
from wanedit.lit.tasks import EditTask
from wanedit.rng import noise
from wanedit.timeline import STRIDE, slots

SIDE = 16


@dataclass(frozen=True)
class Rehearsal:
    """What a method does in a run.

    Attributes:
        steps: that it reports.
        evaluations: forward passes of the network that it asks for.
        beyond_training: it shows the model a frame that its condition channels were never trained to show.
    """

    steps: int
    evaluations: int
    beyond_training: bool


class _StandIn:
    """In the place of a model: a velocity that bends, so that a solver of equations has something to solve."""

    def __init__(self, opened: OpenModel, edit: Edit) -> None:
        self.opened = opened
        self.edit = edit
        self.evaluations = 0
        self.beyond_training = False
        # Parts of the edit that the method was seen to read.
        self.read: set[str] = set()

    def velocity(self, view: View, slots: int) -> Velocity:
        require_readable(self.opened, view)
        self.read.add("model")
        length = STRIDE * (slots - view.joint - 1) + 1
        self.beyond_training |= len(self.opened.showable(view.images, length)) < len(view.images)
        if view.prompt == self.edit.reference.prompt:
            self.read.add("reference")
        if view.images and any(view.images is own.images for own in (self.edit.target, self.edit.reference)):
            self.read.add("images")

        def answer(x: Tensor, step: Step) -> Tensor:
            self.evaluations += 1 if view.guidance_scale == 1.0 else 2
            return torch.sin(x) + torch.linspace(0.5, 1.5, x.shape[2])[:, None, None] * x

        return answer

    def encode(self, video: Tensor) -> Tensor:
        self.read.add("model")
        return torch.zeros(1, 16, slots(video.shape[2]), SIDE // 8, SIDE // 8)

    def decode(self, latents: Tensor) -> Tensor:
        self.read.add("model")
        return torch.zeros(1, 3, STRIDE * (latents.shape[2] - 1) + 1, SIDE, SIDE)


def rehearse(method: Method, opened: OpenModel, task: EditTask, settings: EditSettings) -> Rehearsal:
    """Run a method on a clip of the task's length and of a few pixels, with a formula in the model's place.

    Raises:
        InputError: what the method itself refuses: keyframes at other frames than it needs, a schedule too short
            for its settings, images for a model that reads none; or it reads what it says that it ignores.
    """
    count, frames = len(task.keyframe_indices), task.sampled_frames
    x_s = noise((1, 16, task.grid[0], SIDE // 8, SIDE // 8), 0, "rehearsal")
    images = {frame: torch.zeros(3, SIDE, SIDE) for frame in shown_frames(opened, settings, task)}
    ignored = method.ignores
    edit = Edit(
        source=x_s,
        # What is not a number spreads: latents that are said to be ignored must not reach the result.
        edited=torch.full_like(x_s[:, :, :count], torch.nan)
        if "edited" in ignored
        else 0.5 * x_s[:, :, :count],
        slots=task.slots,
        noise=noise(x_s.shape, 1, "rehearsal"),
        target=View("target", settings.guidance_scale, images),
        reference=View("reference", settings.source_guidance_scale, dict(images)),
        video=torch.zeros(1, 3, frames, SIDE, SIDE),
        keyframes=torch.zeros(1, 3, count, SIDE, SIDE),
        frames=task.keyframe_indices,
        flow=lambda a, b: torch.zeros(1, 2, SIDE, SIDE),
    )
    levels = schedule(settings.num_inference_steps, settings.shift, settings.solver)
    steps: list[Metrics] = []
    model = _StandIn(opened, edit)
    with torch.no_grad():
        made = method(model, edit, levels, lambda step, metrics: steps.append(metrics))
    if "edited" in ignored and made.latents is not None and not bool(made.latents.isfinite().all()):
        model.read.add("edited")
    lies = sorted(model.read & ignored)
    if lies:
        raise InputError(
            f"{type(method).__name__} says that it ignores {', '.join(lies)} and reads it; expected `ignores` "
            "without it, or results would be taken for those of other settings"
        )
    if made.latents is None and made.pixels is None:
        raise InputError(f"{type(method).__name__} returns neither latents nor pixels; expected one of them")
    if made.pixels is not None and not method.makes_pixels:
        raise InputError(
            f"{type(method).__name__} returns pixels without makes_pixels; expected `makes_pixels = True`, or latents"
        )
    return Rehearsal(len(steps), model.evaluations, model.beyond_training)
