"""Hard replacement: generate freely, but write the noised edited keyframes over their slots at every step."""

from dataclasses import dataclass

from torch import Tensor

from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule, interpolate
from wanedit.flow.sampling import check_strength, report
from wanedit.flow.solvers import finite


@METHODS.register("hard_replacement")
@dataclass(frozen=True)
class HardReplacement(Method):
    """RePaint (arXiv 2201.09865, algorithm 1) with slots for its mask, without its jumps back in time.

    The known slots have the edit's coupled noise throughout, where RePaint draws anew at every step: an ODE has no
    fresh noise of its own that the two would have to match.

    Attributes:
        strength: noise level to start from, in (0, 1]; below 1 from the noised source.
        guidance_scale: instead of the target view's own.
    """

    strength: float = 1.0
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        check_strength(self.strength)

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"reference"})

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        levels = schedule.after(self.strength)
        velocity = model.velocity(edit.target.guided(self.guidance_scale), edit.num_slots)
        z = interpolate(edit.source, edit.noise, levels.sigmas[0])
        z = _with_keyframes(z, edit, levels.sigmas[0])
        for step in levels:
            v = finite(velocity(z, step), step)
            report(observe, edit, step, z, v)
            z = _with_keyframes(z - step.h * v, edit, step.sigma_next)
        return Edited(latents=z)


def _with_keyframes(z: Tensor, edit: Edit, sigma: float) -> Tensor:
    """z, but at slots K the edited keyframes at noise level sigma."""
    out = z.clone()
    out[:, :, list(edit.slots)] = interpolate(edit.edited, edit.edited_noise, sigma)
    return out
