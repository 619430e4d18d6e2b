"""A method tried out before a model is loaded: what it refuses, what it costs, whether it reads what it says."""

from dataclasses import dataclass, replace
from zlib import crc32

import torch
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, Metrics, Part, View
from wanedit.flow.guiding import Pass
from wanedit.flow.path import Step, schedule
from wanedit.flow.solvers import Velocity
from wanedit.lit.edit_clip import EditSettings, require_result, shown_frames, windowed
from wanedit.lit.model import OpenModel, require_readable
from wanedit.lit.tasks import EditTask
from wanedit.rng import noise
from wanedit.timeline import STRIDE


@dataclass(frozen=True)
class Rehearsal:
    """What a method does in a run.

    Attributes:
        steps: that it reports.
        evaluations: forward passes of the network that it asks for; fewer, where a cache that adapts answers some.
        beyond_training: it shows the model a frame that its condition channels were never trained to show.
    """

    steps: int
    evaluations: int
    beyond_training: bool


class _StandIn:
    """In the place of a model: a velocity that bends, so that a solver of equations has something to solve, and that
    is another for another view.

    Attributes:
        asked: the parts of the edit that it was asked about, whatever became of its answers.
    """

    def __init__(self, opened: OpenModel, edit: Edit, settings: EditSettings) -> None:
        self.opened = opened
        self.settings = settings
        self.handovers = opened.handovers(settings.boundary_timestep)
        self.edit = edit
        self.evaluations = 0
        self.beyond_training = False
        self.asked: set[Part] = set()

    def velocity(self, view: View, slots: int) -> Velocity:
        require_readable(self.opened, view)
        self.asked.add("model")
        if view.prompt == self.edit.reference.prompt:
            self.asked.add("reference")
        length = STRIDE * (slots - view.joint - 1) + 1
        self.beyond_training |= len(self.opened.showable(view.images, length)) < len(view.images)
        shown = sum(float(image.mean()) + frame + 1 for frame, image in view.images.items())
        turn = torch.tensor(crc32(view.prompt.encode()) % 997 + shown + view.guidance_scale).sin()

        asked = replace(
            self.settings, guidance_scale=view.guidance_scale, guidance_scale_low=view.guidance_scale_low
        )

        def answer(x: Tensor, step: Step, passes: tuple[Pass, ...]) -> list[Tensor]:
            self.evaluations += len(passes)
            v = torch.sin(x + turn) + torch.linspace(0.5, 1.5, x.shape[2])[:, None, None] * x
            return [v] * len(passes)

        return asked.velocity(self.handovers, answer)

    def encode(self, video: Tensor) -> Tensor:
        self.asked.add("model")
        space = self.opened.latent_space
        return torch.zeros(1, space.channels, *space.grid(video.shape[2], (1, 1)))

    def decode(self, latents: Tensor) -> Tensor:
        self.asked.add("model")
        side = self.opened.latent_space.token_side
        return latents.mean() * torch.ones(1, 3, STRIDE * (latents.shape[2] - 1) + 1, side, side)


def rehearse(method: Method, opened: OpenModel, task: EditTask, settings: EditSettings) -> Rehearsal:
    """Run a method on a clip of the task's length and of a few pixels, with a formula in the model's place; and, where
    it says that it ignores something, again on a clip whose only difference is that: the result must be the same.

    Raises:
        InputError: what the method itself refuses: keyframes at other frames than it needs, a schedule too short
            for its settings, images for a model that reads none; it reads what it says that it ignores; or what it
            makes is not what `require_result` expects.
    """
    edit, ignored = _stage(opened, task, settings), method.ignores
    model, steps = _StandIn(opened, edit, settings), list[Metrics]()
    made = require_result(method, _perform(method, model, edit, settings, steps), edit)
    lies = set(model.asked & ignored)
    if "model" in ignored and made.pixels is None:
        lies.add("model")  # which is what decodes latents
    if ignored and not lies and _differs(made, ignored, method, opened, task, settings):
        apart = {
            part for part in ignored if _differs(made, frozenset({part}), method, opened, task, settings)
        }
        lies = apart or ignored
    if lies:
        raise InputError(
            f"{type(method).__name__} says that it ignores {', '.join(sorted(lies))} and reads it; expected `ignores` "
            "without it, or results would be taken for those of other settings"
        )
    return Rehearsal(len(steps), model.evaluations, model.beyond_training)


def _stage(
    opened: OpenModel, task: EditTask, settings: EditSettings, other: frozenset[Part] = frozenset()
) -> Edit:
    """The edit to rehearse, with other values of the parts `other`: of all that the hash of an edit leaves out where
    its method ignores them, see `wanedit.jobs.edit.method.READ_THROUGH`."""
    # Whoever ignores the model ignores what it made, what it is told, and the noise that it starts from.
    anew = "model" in other
    # Of one token's size.
    space, side = opened.latent_space, opened.latent_space.token_side
    count, frames = len(task.keyframe_indices), task.sampled_frames
    x_s = noise((1, space.channels, *space.grid(frames, (1, 1))), 0, "rehearsal", anew)
    shown = () if anew or "images" in other else shown_frames(opened, settings, task)
    video = noise((1, 3, frames, side, side), 2, "rehearsal").clamp(-1, 1)
    keyframes = -video[:, :, list(task.keyframe_indices)]
    pictures = dict(zip(task.keyframe_indices, keyframes[0].unbind(1), strict=True))
    images = {frame: pictures[frame] for frame in shown}
    words, scale = ("other ", 1.5) if anew or "reference" in other else ("", 1.0)
    return Edit(
        source=x_s,
        edited=(-0.75 if anew or "edited" in other else 0.5) * x_s[:, :, :count],
        slots=task.slots,
        noise=noise(x_s.shape, 1, "rehearsal", anew),
        target=View(
            "other target" if anew else "target",
            settings.guidance_scale,
            images,
            guidance_scale_low=settings.guidance_scale_low,
        ),
        reference=View(f"{words}reference", scale * settings.source_guidance_scale, dict(images)),
        video=video,
        keyframes=keyframes,
        frames=task.keyframe_indices,
        flow=lambda a, b: torch.zeros(1, 2, side, side),
    )


def _perform(
    method: Method, model: _StandIn, edit: Edit, settings: EditSettings, steps: list[Metrics], more: int = 0
) -> object:
    levels = settings.schedule
    if more:
        levels = schedule(len(levels) + more, settings.shift, settings.solver)
    # A method that draws from torch's own generator draws the same again.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return method(windowed(model, settings), edit, levels, lambda step, metrics: steps.append(metrics))


def _differs(
    made: Edited,
    other: frozenset[Part],
    method: Method,
    opened: OpenModel,
    task: EditTask,
    settings: EditSettings,
) -> bool:
    """Whether the method makes something else of an edit with other values of these parts."""
    edit = _stage(opened, task, settings, other)
    try:
        done = _perform(method, _StandIn(opened, edit, settings), edit, settings, [], more="model" in other)
        again = require_result(method, done, edit)
    except Exception:  # it cannot do without
        return True
    for a, b in ((made.latents, again.latents), (made.pixels, again.pixels)):
        if a is None or b is None:
            if a is not b:
                return True
        elif a.shape != b.shape or not bool(((a == b) | (a.isnan() & b.isnan())).all()):
            return True
    return False
