"""Guidance: a velocity that is steered by the prompt, made of several passes of the network.

Any solver and any method has it, and none knows: each asks for one velocity. Caches stand below it, see
`wanedit.flow.caching`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.caching import Cached, Clock, StepCache
from wanedit.flow.editing import inner
from wanedit.flow.path import Step, classifier_free


@dataclass(frozen=True)
class Pass:
    """One pass of the network, by what it is told.

    Attributes:
        negative: the negative prompt, and not the prompt.
        without: blocks of the network that are left out.
        led: in cross-attention, what is made of the attention to the prompt's words and of that to the negative one's,
            (B, N, width) each; None where the negative prompt is not attended to.
    """

    negative: bool = False
    without: tuple[int, ...] = ()
    led: Callable[[Tensor, Tensor], Tensor] | None = None


PROMPT, NEGATIVE = Pass(), Pass(negative=True)
Answers = Mapping[Pass, Float[Tensor, "b c s h w"]]


@dataclass(frozen=True)
class Guidance:
    """One way to steer: a frozen dataclass of its settings, whose functions are pure. Itself it is classifier-free
    guidance; what is made from it says what it does otherwise."""

    @property
    def remembers(self) -> bool:
        """Whether earlier steps of a trajectory count."""
        return False

    def passes(self, scale: float) -> tuple[Pass, ...]:
        """All that may be asked for at a guidance scale; at 1 nothing is steered away from."""
        return (PROMPT,) if scale == 1.0 else (PROMPT, NEGATIVE)

    def asks(self, step: Step, scale: float) -> tuple[Pass, ...]:
        """Those of `passes` that a step needs; none where the velocity is 0."""
        return self.passes(scale)

    def remember(
        self, answers: Answers, step: Step, past: Float[Tensor, "b c s h w"] | None
    ) -> Float[Tensor, "b c s h w"] | None:
        """What a trajectory carries on, from what it has brought; None at its beginning."""
        return None

    def combine(
        self,
        answers: Answers,
        scale: float,
        x: Float[Tensor, "b c s h w"],
        step: Step,
        carried: Float[Tensor, "b c s h w"] | None,
    ) -> Float[Tensor, "b c s h w"]:
        """The velocity.

        Args:
            answers: of what was asked for.
            carried: as `remember` has made it of these.
        """
        if NEGATIVE not in answers:
            return answers[PROMPT]
        return classifier_free(answers[PROMPT], answers[NEGATIVE], scale)

    def of_model(self, name: str, blocks: int) -> "Guidance":
        """The same for a model that is known, of so many blocks.

        Raises:
            InputError: it asks for something that this model does not have.
        """
        return self


@dataclass(frozen=True)
class Guide:
    """How a run is guided, beside its scales.

    Attributes:
        interval: (low, high), the noise levels at which it is; at others the prompt alone is asked about
            (arXiv 2404.07724).
    """

    guidance: Guidance = Guidance()
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise InputError(
                f"guidance_interval is {low:g}, {high:g}; expected two noise levels from 0 to 1, the lower one first"
            )

    def passes(self, scales: Sequence[float]) -> tuple[Pass, ...]:
        """All that may be asked for at these scales, the most usual first."""
        guided = [one for scale in scales for one in self.guidance.passes(scale)]
        return tuple(dict.fromkeys([*guided, *([PROMPT] if self.interval != (0.0, 1.0) else [])]))

    def reads_negative(self, scales: Sequence[float]) -> bool:
        """Whether the negative prompt is asked about at any of these scales."""
        return any(one.negative or one.led is not None for one in self.passes(scales))

    def idle(self, scales: Sequence[float]) -> bool:
        """Whether nothing is steered at these scales."""
        return self.passes(scales) == (PROMPT,)

    def asks(self, step: Step, scale: float) -> tuple[Pass, ...]:
        """What a step needs."""
        low, high = self.interval
        return self.guidance.asks(step, scale) if low <= step.sigma <= high else (PROMPT,)


# The network: (x, step, passes) -> their velocities.
Ask = Callable[[Tensor, Step, tuple[Pass, ...]], Sequence[Tensor]]


class Guided:
    """`velocity(x, step)` under guidance.

    Args:
        ask: the network.
        scales: of guidance, of the first network and of all after it.
        cache: answers in the network's place where it may; each pass has a past of its own.
        network: which of several networks answers at a step.
        shared: has two passes made in two places; None for here.
    """

    def __init__(
        self,
        ask: Ask,
        guide: Guide,
        scales: tuple[float, float],
        cache: StepCache | None = None,
        clock: Clock | None = None,
        network: Callable[[Step], int] = lambda step: 0,
        shared: Callable[[Sequence[Callable[[], Tensor]]], Sequence[Tensor]] | None = None,
    ) -> None:
        self.ask, self.guide, self.scales, self.cache = ask, guide, scales, cache
        self.clock, self.network, self.shared = clock, network, shared
        self._cached: dict[Pass, Cached] = {}
        self._last: Step | None = None
        self._brought: Tensor | None = None
        self._carried: Tensor | None = None

    def scale(self, step: Step) -> float:
        """The guidance scale of a step."""
        return self.scales[min(self.network(step), 1)]

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        guidance, scale = self.guide.guidance, self.scale(step)
        asked = self.guide.asks(step, scale)
        if not asked:
            return torch.zeros_like(x)
        answers = dict(zip(asked, self._answers(x, step, asked), strict=True))
        last, self._last = self._last, step
        if last is not None and (step.index, step.sigma) == (last.index, last.sigma):
            # Asked again at one moment, as for a derivative: nothing is carried on.
            carried = guidance.remember(answers, step, self._brought)
            return guidance.combine(answers, scale, x, step, carried)
        # Another trajectory, or another network, as of caches.
        new = last is None or step.index < last.index or self.network(step) != self.network(last)
        self._brought = None if new else self._carried
        self._carried = guidance.remember(answers, step, self._brought)
        v = guidance.combine(answers, scale, x, step, self._carried)
        for one in self._cached.values():
            one.led = v
        return v

    def _answers(self, x: Tensor, step: Step, asked: tuple[Pass, ...]) -> Sequence[Tensor]:
        if self.shared is not None and len(asked) == 2:
            return self.shared([partial(self._answer, x, step, one) for one in asked])
        if self.cache is None:
            return self.ask(x, step, asked)
        return [self._answer(x, step, one) for one in asked]

    def _answer(self, x: Tensor, step: Step, one: Pass) -> Tensor:
        """That of one pass, computed or from the cache."""
        if self.cache is None:
            return self.ask(x, step, (one,))[0]
        if one not in self._cached:
            network = partial(self._alone, which=(one,))
            self._cached[one] = Cached(network, self.cache, self.clock, self.network)
        return self._cached[one](x, step)

    def _alone(self, x: Tensor, step: Step, which: tuple[Pass, ...]) -> Tensor:
        return self.ask(x, step, which)[0]


def norm(x: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b 1 1 1 1"]:
    """|x| of every clip of a batch, never quite 0, so that it may divide."""
    return inner(x, x).sqrt().clamp(min=1e-12)
