"""Skip-layer guidance: away from what the network says without some of its blocks."""

from dataclasses import dataclass, replace

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guiding import PROMPT, Answers, Guidance, Pass
from wanedit.flow.path import Step


@GUIDANCES.register("slg")
@dataclass(frozen=True)
class SkipLayer(Guidance):
    """Skip-layer guidance (Stable Diffusion 3.5; as spatiotemporal skip guidance arXiv 2411.18664): classifier-free
    guidance, and `strength` times v_c less what the prompt gives without the blocks. One pass more a step.

    Attributes:
        blocks: that are left out; none for 9 and 10, which the field takes of Wan's 30 or 40, and in a smaller model
            for that at the same share of its depth.
        strength: of the difference.
        start, stop: shares of the whole schedule's steps between which it acts.
    """

    blocks: tuple[int, ...] = ()
    strength: float = 3.0
    start: float = 0.01
    stop: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1:
            raise InputError(
                f"slg start is {self.start:g}, stop {self.stop:g}; expected two shares from 0 to 1, the lower one first"
            )

    def of_model(self, name: str, blocks: int) -> "SkipLayer":
        chosen = self.blocks or ((9, 10) if blocks >= 30 else (blocks * 3 // 10,))
        if len(chosen) >= blocks or not {*chosen} <= {*range(blocks)}:
            raise InputError(
                f"slg blocks are {list(chosen)} and {name} has {blocks}; expected some of 0 to {blocks - 1}, not all"
            )
        return replace(self, blocks=tuple(sorted(set(chosen))))

    @property
    def weakened(self) -> Pass:
        """The prompt, without the blocks."""
        return Pass(without=self.blocks)

    def passes(self, scale: float) -> tuple[Pass, ...]:
        return (*super().passes(scale), self.weakened)

    def asks(self, step: Step, scale: float) -> tuple[Pass, ...]:
        i, total = step.whole
        acts = self.start * total < i < self.stop * total
        return self.passes(scale) if acts else super().passes(scale)

    def combine(
        self, answers: Answers, scale: float, x: Tensor, step: Step, carried: Tensor | None
    ) -> Tensor:
        v = super().combine(answers, scale, x, step, carried)
        if self.weakened not in answers:
            return v
        return v + self.strength * (answers[PROMPT] - answers[self.weakened])
