"""SDEdit: noise the source part of the way, denoise under the target's prompt."""

from dataclasses import dataclass
from typing import Annotated

from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule, interpolate
from wanedit.flow.sampling import check_strength, watching
from wanedit.flow.solvers import SOLVERS
from wanedit.registry import Registered


@METHODS.register("sdedit")
@dataclass(frozen=True)
class SDEdit(Method):
    """SDEdit (arXiv 2108.01073, algorithm 1) on the straight path, with an ODE solver in the place of the SDE's.

    The edited keyframes enter only through what `edit.target` shows the model.

    Attributes:
        strength: noise level to start from, in (0, 1]; the first level of the schedule at or below it is taken.
        guidance_scale: instead of the target view's own.
        solver: a name of `wanedit.flow.solvers`; "unipc" and "dpm++" want the schedule of that name.
    """

    strength: float = 0.7
    guidance_scale: float | None = None
    solver: Annotated[str, Registered("wanedit.flow:SOLVERS")] = "euler"

    def __post_init__(self) -> None:
        check_strength(self.strength)
        SOLVERS[self.solver]  # a name that is none is refused before the run

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"reference"})

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        levels = schedule.after(self.strength)
        velocity = model.velocity(edit.target.guided(self.guidance_scale), edit.num_slots)
        x = interpolate(edit.source, edit.noise, levels.sigmas[0])
        return Edited(latents=SOLVERS[self.solver](velocity, x, levels, watching(edit, observe)))
