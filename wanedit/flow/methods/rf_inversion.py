"""RF-Inversion: invert the source under control towards the noise, sample under control towards the source."""

from dataclasses import dataclass

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule
from wanedit.flow.sampling import report
from wanedit.flow.solvers import Velocity, finite


@METHODS.register("rf_inversion")
@dataclass(frozen=True)
class RFInversion(Method):
    """RF-Inversion (arXiv 2410.10792, algorithms 1 and 2), by Euler steps on one schedule both ways.

    The paper inverts under an empty prompt. Here that is the reference view at guidance 1: give it an empty prompt
    to do the same.

    Attributes:
        gamma: control of the inversion, in [0, 1]: 0 follows the model, 1 goes straight to the edit's noise.
        eta: control of the sampling, in [0, 1]: 0 follows the model, 1 goes straight to the source.
        until: eta acts at the steps whose index is below this share of their number.
        source_guidance_scale, guidance_scale: of the inversion and the sampling; None for the view's own.
    """

    gamma: float = 0.5
    eta: float = 0.9
    until: float = 0.25
    source_guidance_scale: float | None = 1.0
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.gamma, self.eta, self.until)):
            raise InputError(
                f"gamma is {self.gamma:g}, eta {self.eta:g}, until {self.until:g}; expected numbers in [0, 1]"
            )

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        source = model.velocity(edit.reference.guided(self.source_guidance_scale), edit.num_slots)
        target = model.velocity(edit.target.guided(self.guidance_scale), edit.num_slots)
        z = self._invert(source, edit, schedule)
        for step in schedule:
            v = target(z, step)
            if step.index < self.until * len(schedule):
                v = v + self.eta * ((z - edit.source) / step.sigma - v)
            report(observe, edit, step, z, finite(v, step))
            z = z - step.h * v
        return Edited(latents=z)

    def _invert(self, source: Velocity, edit: Edit, schedule: Schedule) -> Tensor:
        """From the source at sigma 0 to the first level of the schedule, each step evaluated where it starts."""
        y = edit.source
        for step in reversed(list(schedule)):
            start = step.end()
            v = finite(source(y, start), start)
            straight = (edit.noise - y) / (1 - start.sigma)
            y = y + step.h * (v + self.gamma * (straight - v))
        return y
