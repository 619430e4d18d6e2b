"""CFG-Zero*: the unconditional velocity is scaled to fit, and the first steps are not taken."""

from dataclasses import dataclass

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import inner
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import NEGATIVE, PROMPT, Answers, Guidance, Pass, norm
from wanedit.flow.path import Step, classifier_free


@GUIDANCES.register("cfg_zero")
@dataclass(frozen=True)
class ClassifierFreeZero(Guidance):
    """CFG-Zero* (arXiv 2503.18886, equations 8 and 9, and algorithm 1).

    Attributes:
        zero_init: share of the whole schedule's first steps at which the velocity is 0, and the network not asked;
            the paper's 4 %, which is 2 of 50 steps, 1 of 20 and none of 8.
    """

    zero_init: float = 0.04

    def __post_init__(self) -> None:
        if not 0 <= self.zero_init < 1:
            raise InputError(f"cfg_zero zero_init is {self.zero_init:g}; expected 0 or more, less than 1")

    def asks(self, step: Step, scale: float) -> tuple[Pass, ...]:
        i, total = step.whole
        return () if scale != 1.0 and i < round(self.zero_init * total) else self.passes(scale)

    def combine(
        self, answers: Answers, scale: float, x: Tensor, step: Step, carried: Tensor | None
    ) -> Tensor:
        if NEGATIVE not in answers:
            return answers[PROMPT]
        v_c, v_u = answers[PROMPT], answers[NEGATIVE]
        # Equation 8: s* = <v_c, v_u> / |v_u|^2, which brings s v_u nearest to v_c.
        s = inner(v_c, v_u) / norm(v_u) ** 2
        return classifier_free(v_c, s * v_u, scale)
