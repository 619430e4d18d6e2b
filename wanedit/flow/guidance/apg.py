"""Adaptive projected guidance: less of what only strengthens the picture that is there already."""

from dataclasses import dataclass

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import inner
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import NEGATIVE, PROMPT, Answers, Guidance, norm
from wanedit.flow.path import Step, clean_estimate


@GUIDANCES.register("apg")
@dataclass(frozen=True)
class AdaptiveProjected(Guidance):
    """APG (arXiv 2410.02416, algorithm 1), of clean estimates D = x - sigma v, as there.

    Attributes:
        eta: share that is kept of the part of D_c - D_u which is parallel to D_c, and oversaturates; at 1, without
            momentum and limit, this is classifier-free guidance.
        momentum: beta, of the sum of the differences so far; negative: what stays the same counts less.
        limit: r, of the difference's root mean square. The paper's r bounds the norm, which grows with the clip; its 15
            for SDXL's 65,536 numbers are 0.059. 0 for none.
    """

    eta: float = 0.0
    momentum: float = -0.5
    limit: float = 0.0

    def __post_init__(self) -> None:
        if not (self.limit >= 0 and -1 < self.momentum < 1):
            raise InputError(
                f"apg momentum is {self.momentum:g}, limit {self.limit:g}; expected more than -1 and less than 1, "
                "0 or more"
            )

    @property
    def remembers(self) -> bool:
        return self.momentum != 0

    def remember(self, answers: Answers, step: Step, past: Tensor | None) -> Tensor | None:
        if NEGATIVE not in answers:
            return past
        # D_c - D_u
        difference = step.sigma * (answers[NEGATIVE] - answers[PROMPT])
        return difference if past is None else difference + self.momentum * past

    def combine(
        self, answers: Answers, scale: float, x: Tensor, step: Step, carried: Tensor | None
    ) -> Tensor:
        if NEGATIVE not in answers or carried is None:
            return answers[PROMPT]
        v, change = answers[PROMPT], carried
        if self.limit:
            change = change * (self.limit * change[0].numel() ** 0.5 / norm(change)).clamp(max=1)
        clean = clean_estimate(x, v, step.sigma)
        parallel = inner(change, clean) / norm(clean) ** 2 * clean
        # D = D_c + (w - 1) (…), and v = (x - D) / sigma.
        return v - (scale - 1) / step.sigma * (change - (1 - self.eta) * parallel)
