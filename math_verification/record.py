"""A controlled run, recorded from outside: the project's own method with a controller that remembers."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.flow.editing import Edit, VideoModel, View, at_slots
from wanedit.flow.keyframes import Branches, Controller, Correction
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import Schedule


@dataclass
class Recorder(Controller):
    """Passes a controller's corrections on and keeps every state that it was shown."""

    controller: Controller
    states: list[Branches] = field(default_factory=list)

    def __call__(self, state: Branches) -> Correction:
        self.states.append(state)
        return self.controller(state)


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened at the key slots.

    Attributes:
        states: before every step.
        latents: the result.
        differences: d = z_diff before every step and after the last.
    """

    states: list[Branches]
    latents: Float[Tensor, "b c s h w"]
    differences: list[Float[Tensor, "b c k h w"]]


def run(
    model: VideoModel,
    edit: Edit,
    levels: Schedule,
    controller: Controller,
    source_weight: float = 1.0,
) -> Trace:
    """`ResidualCorrectedFlow` with this controller, its derivatives exact."""
    recorder = Recorder(controller)
    method = ResidualCorrectedFlow(recorder, source_weight=source_weight, derivative="forward")
    latents = method(model, edit, levels).latents
    assert latents is not None
    last = at_slots(latents, edit.slots) - edit.edited
    return Trace(recorder.states, latents, [*(state.z_diff for state in recorder.states), last])


def keyed(
    source: Float[Tensor, "b c s h w"],
    noise: Float[Tensor, "b c s h w"],
    slots: tuple[int, ...],
    values: Float[Tensor, " k"] | Float[Tensor, "b c k h w"],
    prompts: tuple[str, str] = ("", ""),
) -> Edit:
    """An edit in closed form; `values` of one pixel serve every clip, `prompts` are (target, source)."""
    edited = values
    if values.ndim == 1:
        edited = values[None, None, :, None, None].expand(*source.shape[:2], -1, *source.shape[3:])
    return Edit(source, edited, slots, noise, View(prompts[0]), View(prompts[1]))


def levels_between(first: float, last: float, steps: int) -> Schedule:
    """Equal steps in float64, for orders of convergence; `schedule` rounds its levels to float32."""
    sigmas = torch.linspace(first, last, steps + 1, dtype=torch.float64).tolist()
    return Schedule(tuple(sigmas), tuple(1000 * sigma for sigma in sigmas[:-1]))


def largest(x: Tensor) -> float:
    """max |x|."""
    return float(x.abs().max())
