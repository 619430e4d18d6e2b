"""MAMBO-G: less guidance where the prompt changes much, as it does in the first steps."""

from dataclasses import dataclass

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import NEGATIVE, PROMPT, Answers, Guidance, norm
from wanedit.flow.path import Step


@GUIDANCES.register("mambo_g")
@dataclass(frozen=True)
class MagnitudeAware(Guidance):
    """MAMBO-G (arXiv 2508.03442): w = 1 + (w - 1) exp(-alpha |v_c - v_u| / |v_u|).

    Attributes:
        alpha: how fast; 0 is classifier-free guidance.
    """

    alpha: float = 8.0

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise InputError(f"mambo_g alpha is {self.alpha:g}; expected 0 or more")

    def combine(
        self, answers: Answers, scale: float, x: Tensor, step: Step, carried: Tensor | None
    ) -> Tensor:
        if NEGATIVE not in answers:
            return answers[PROMPT]
        difference, v_u = answers[PROMPT] - answers[NEGATIVE], answers[NEGATIVE]
        damped = 1 + (scale - 1) * (-self.alpha * norm(difference) / norm(v_u)).exp()
        return v_u + damped * difference
