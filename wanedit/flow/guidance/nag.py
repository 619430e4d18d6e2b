"""Normalized attention guidance: the negative prompt acts inside of cross-attention, at guidance scale 1 too."""

from dataclasses import dataclass

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import NEGATIVE, PROMPT, Answers, Guidance, Pass
from wanedit.flow.path import Step, classifier_free


@GUIDANCES.register("nag")
@dataclass(frozen=True)
class NormalizedAttention(Guidance):
    """NAG (arXiv 2505.21179, algorithm 1), for models that are distilled to guidance scale 1: one pass a step. At other
    scales what it gives is the conditional velocity of classifier-free guidance.

    Attributes:
        strength: phi, how far beyond the prompt's attention, away from the negative one's.
        tau: how much larger than the prompt's attention the result may be, token by token, in the sum of its absolute
            values.
        alpha: share of the result, the rest is the prompt's attention; at 0 this is no guidance.
    """

    strength: float = 11.0
    tau: float = 2.5
    alpha: float = 0.25

    def __post_init__(self) -> None:
        if not (self.strength >= 1 and self.tau > 0 and 0 <= self.alpha <= 1):
            raise InputError(
                f"nag strength is {self.strength:g}, tau {self.tau:g}, alpha {self.alpha:g}; expected 1 or more, more "
                "than 0, 0 to 1"
            )

    def lead(self, positive: Tensor, negative: Tensor) -> Tensor:
        """(B, N, width), from the attention to the words of either prompt."""
        # Equation 7 to 9; in float32, where 11 times a number of 16 bits loses it.
        z, away = positive.float(), negative.float()
        beyond = self.strength * z - (self.strength - 1) * away
        ratio = beyond.abs().sum(-1, keepdim=True) / z.abs().sum(-1, keepdim=True).clamp(min=1e-12)
        bounded = beyond * (self.tau / ratio.clamp(min=self.tau))
        return (self.alpha * bounded + (1 - self.alpha) * z).to(positive.dtype)

    @property
    def led(self) -> Pass:
        """The prompt, led away from the negative one."""
        return Pass(led=self.lead)

    def passes(self, scale: float) -> tuple[Pass, ...]:
        return (self.led,) if scale == 1.0 else (self.led, NEGATIVE)

    def combine(
        self, answers: Answers, scale: float, x: Tensor, step: Step, carried: Tensor | None
    ) -> Tensor:
        if self.led not in answers:
            return answers[PROMPT]
        if NEGATIVE not in answers:
            return answers[self.led]
        return classifier_free(answers[self.led], answers[NEGATIVE], scale)
