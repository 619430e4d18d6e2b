"""First-frame image-to-video: what the model makes of the edited first frame alone."""

from dataclasses import dataclass, replace
from typing import Annotated

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule
from wanedit.flow.sampling import pictures, watching
from wanedit.flow.solvers import SOLVERS
from wanedit.registry import Registered


@METHODS.register("first_frame")
@dataclass(frozen=True)
class FirstFrame(Method):
    """Plain image-to-video sampling (Wan 2.1, arXiv 2503.20314) from the keyframe at frame 0.

    Neither the source nor another keyframe is seen: the floor that every other use of them has to beat.

    Attributes:
        guidance_scale: instead of the target view's own.
        solver: a name of `wanedit.flow.solvers`; "unipc" and "dpm++" want the schedule of that name.
    """

    guidance_scale: float | None = None
    solver: Annotated[str, Registered("wanedit.flow:SOLVERS")] = "euler"

    def __post_init__(self) -> None:
        SOLVERS[self.solver]  # a name that is none is refused before the run

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"reference", "edited", "images"})

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        shown = pictures(edit)
        if 0 not in shown:
            raise InputError(f"edited keyframes are at frames {list(shown)}; expected one at frame 0")
        view = replace(edit.target, images={0: shown[0]}).guided(self.guidance_scale)
        velocity = model.velocity(view, edit.num_slots)
        solve = SOLVERS[self.solver]
        return Edited(latents=solve(velocity, schedule.start * edit.noise, schedule, watching(edit, observe)))
