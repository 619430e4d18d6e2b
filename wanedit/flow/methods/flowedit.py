"""FlowEdit: integrate the difference between the target's and the source's velocity, from the source itself."""

import math
from dataclasses import dataclass

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule, Step, fresh_noise, interpolate
from wanedit.flow.sampling import report
from wanedit.flow.solvers import Velocity, finite

# Wan-Edit takes the last 41 of 50 steps; other numbers of steps keep the share.
SHARE = 41 / 50


@METHODS.register("flowedit")
@dataclass(frozen=True)
class FlowEdit(Method):
    """FlowEdit (arXiv 2412.08629, algorithm 1), with Wan-Edit's settings: of 50 steps the first 9 are skipped.

    Attributes:
        n_max: how many of the last steps are taken; None for Wan-Edit's share, 41 of 50.
        n_min: how many of these, the last, are plain sampling of the target from the noised edit.
        n_avg: draws of noise that a velocity difference is averaged over.
        source_guidance_scale, guidance_scale: of the source's and the target's velocity; None for the view's own.
        seed: of the noise drawn afresh at every step; the coupled noise of the edit is not used.
    """

    n_max: int | None = None
    n_min: int = 0
    n_avg: int = 1
    source_guidance_scale: float | None = 5.0
    guidance_scale: float | None = 12.0
    seed: int = 0

    def __post_init__(self) -> None:
        most = math.inf if self.n_max is None else self.n_max
        if not (most >= 1 and 0 <= self.n_min <= most and self.n_avg >= 1):
            raise InputError(
                f"n_max is {self.n_max}, n_min {self.n_min}, n_avg {self.n_avg}; expected n_max >= 1, "
                "0 <= n_min <= n_max, n_avg >= 1"
            )

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        levels = self._levels(schedule)
        source = model.velocity(edit.reference.guided(self.source_guidance_scale), edit.num_slots)
        target = model.velocity(edit.target.guided(self.guidance_scale), edit.num_slots)
        z = edit.source
        for step in levels:
            left = len(levels) - step.index
            if left == self.n_min:
                _, z = self._noised(edit, z, step, 0)
            v = self._difference(source, target, edit, z, step) if left > self.n_min else target(z, step)
            report(observe, edit, step, z, finite(v, step))
            z = z - step.h * v
        return Edited(latents=z)

    def decides(self, levels: Schedule) -> dict[str, object]:
        return {"n_max": self.taken(len(levels))}

    def taken(self, num_inference_steps: int) -> int:
        """How many of so many steps are taken, the last ones."""
        return max(1, round(SHARE * num_inference_steps)) if self.n_max is None else self.n_max

    def _levels(self, schedule: Schedule) -> Schedule:
        count = self.taken(len(schedule))
        if count > len(schedule):
            raise InputError(f"n_max is {count}; expected at most the {len(schedule)} steps of the schedule")
        return schedule.last(count)

    def _noised(self, edit: Edit, z: Tensor, step: Step, draw: int) -> tuple[Tensor, Tensor]:
        """The source on its path under fresh noise, and the edit beside it."""
        eps = fresh_noise(z.shape, z, self.seed, "flowedit", step.index, draw)
        z_s = interpolate(edit.source, eps, step.sigma)
        # In this order an edit that has not moved yet is z_s to the bit.
        return z_s, z_s + (z - edit.source)

    def _difference(self, source: Velocity, target: Velocity, edit: Edit, z: Tensor, step: Step) -> Tensor:
        total = 0 * z
        for draw in range(self.n_avg):
            z_s, z_t = self._noised(edit, z, step, draw)
            total = total + (target(z_t, step) - source(z_s, step))
        return total / self.n_avg
