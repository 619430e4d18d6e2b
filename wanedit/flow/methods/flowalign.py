"""FlowAlign: FlowEdit's difference, guided against the source's prompt, and a pull towards the source."""

import math
from dataclasses import dataclass

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule, classifier_free, clean_estimate, fresh_noise, interpolate
from wanedit.flow.sampling import report
from wanedit.flow.solvers import finite


@METHODS.register("flowalign")
@dataclass(frozen=True)
class FlowAlign(Method):
    """FlowAlign (arXiv 2505.23145; update and defaults as in its code, `diffusion/editing/sd3_edit.py`, `run_edit.py`).

    The source's prompt takes the place of the empty one in guidance, so a step costs three evaluations, each at
    guidance 1 whatever the views say. The pull is per step, not per unit of sigma: more steps, more pull.

    Attributes:
        guidance_scale: omega, from the source's to the target's velocity.
        zeta: weight of the flow-matching term, the difference of the two clean estimates.
        seed: of the noise drawn afresh at every step; the coupled noise of the edit is not used.
    """

    guidance_scale: float = 7.5
    zeta: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.guidance_scale) and math.isfinite(self.zeta) and self.zeta >= 0):
            raise InputError(
                f"guidance_scale is {self.guidance_scale:g} and zeta {self.zeta:g}; expected numbers, zeta >= 0"
            )

    def guidance(self, target: float, source: float) -> tuple[float, float | None]:
        return self.guidance_scale, 1.0

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        source = model.velocity(edit.reference.guided(1.0), edit.num_slots)
        target = model.velocity(edit.target.guided(1.0), edit.num_slots)
        z = edit.source
        for step in schedule:
            eps = fresh_noise(z.shape, z, self.seed, "flowalign", step.index)
            q = interpolate(edit.source, eps, step.sigma)
            p = q + (z - edit.source)
            v_q = source(q, step)
            v_p = classifier_free(target(p, step), source(p, step), self.guidance_scale)
            report(observe, edit, step, z, finite(v_p - v_q, step))
            pull = clean_estimate(q, v_q, step.sigma) - clean_estimate(p, v_p, step.sigma)
            z = z - step.h * (v_p - v_q) + self.zeta * pull
        return Edited(latents=z)
