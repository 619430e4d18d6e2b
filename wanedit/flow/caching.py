"""Step caches: a velocity that is answered from what the network said before, where that is near enough.

They stand at the velocity, below guidance: each branch of it, the prompt's and the negative one's, the edit's and the
source's, each window and each expert has a past of its own. So any solver and any method has them, and none knows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from wanedit.flow.editing import Around, VideoModel, View
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity

# What the network makes of a step's timestep, which the blocks are modulated by; None for one that does not say.
Clock = Callable[[Step], Tensor]


@dataclass(frozen=True, eq=False)
class Moment:
    """A point of a trajectory, and the velocity that was answered there.

    Attributes:
        computed: by the network; else by the cache.
    """

    step: Step
    x: Float[Tensor, "b c s h w"]
    v: Float[Tensor, "b c s h w"]
    computed: bool


class StepCache(ABC):
    """One way to answer without the network: a frozen dataclass of its settings, a pure function of the past.

    Attributes:
        adapts: whether the clip decides what is computed; else the schedule alone, and a plan knows the count.
        memory: how many computed moments the past must reach back to; the one before them is kept too.
    """

    adapts: ClassVar[bool] = True
    memory: ClassVar[int] = 1

    @abstractmethod
    def forecast(
        self, past: Sequence[Moment], x: Float[Tensor, "b c s h w"], step: Step, clock: Clock | None
    ) -> Float[Tensor, "b c s h w"] | None:
        """The velocity at (x, step); None to have it computed.

        Args:
            past: what was asked before on this trajectory, the latest last; two moments at least, and all since the
                last one that was computed. Whole batches: what one clip needs is computed for all.
        """

    def seen(self, moment: Moment) -> None:  # noqa: B027  most have nothing to do
        """Told of every moment as it is answered, for one that measures."""

    def of_model(self, name: str, folder: Path | None) -> "StepCache":
        """The same for a model that is known: what was measured of it, read.

        Args:
            folder: of its files; None for one from outside.

        Raises:
            InputError: this cache needs something of the model that is not there.
        """
        return self

    def doubts(self, name: str) -> list[str]:
        """What will run with the model of this name, but perhaps not as meant."""
        return []


class Cached:
    """One branch of a velocity, answered by a cache where that may.

    Args:
        velocity: asks the network.
        network: which of several answers at a step.

    Attributes:
        led: the velocity that was followed after the last answer, where that was but a part of it; None for the answer.

    The network is asked, whatever the cache says, at the first two moments and at the last step; where `x` is not where
    the answers led, since noise was drawn anew; and from then on wherever a method has asked twice at one moment, as a
    derivative does.
    """

    def __init__(
        self,
        velocity: Velocity,
        cache: StepCache,
        clock: Clock | None = None,
        network: Callable[[Step], int] = lambda step: 0,
    ) -> None:
        self.velocity, self.cache, self.clock, self.network = velocity, cache, clock, network
        self.past: tuple[Moment, ...] = ()
        self.led: Tensor | None = None
        self._beside: Tensor | float | None = None

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        last = self.past[-1] if self.past else None
        if last is not None and (step.index, step.sigma) == (last.step.index, last.step.sigma):
            return self._near(last, x, step)
        # Another trajectory, or another network: what the one said before tells nothing of the next.
        if last is not None and (
            step.index < last.step.index or self.network(step) != self.network(last.step)
        ):
            self.past, last = (), None
        v, known = None, len(self.past) > 1 and step.sigma_next > 0 and self._beside is None
        if known and last is not None and followed(last, last.v if self.led is None else self.led, x, step):
            v = self.cache.forecast(self.past, x, step, self.clock)
        computed = v is None
        if v is None:
            v = self.velocity(x, step)
        self._beside = None if self._beside is None else 0.0
        past = (*self.past, Moment(step, x, v, computed))
        self.cache.seen(past[-1])
        kept = [i for i, moment in enumerate(past) if moment.computed][-self.cache.memory :]
        self.past = past[max(0, kept[0] - 1) :]
        return v

    def _near(self, last: Moment, x: Tensor, step: Step) -> Tensor:
        """A difference from what was answered at this moment must be one of the network, not of its cache."""
        if self._beside is None:
            self._beside = 0.0 if last.computed else last.v - self.velocity(last.x, last.step)
        return self.velocity(x, step) + self._beside


class CachedModel(Around):
    """A `VideoModel` that knows of no cache, each velocity that it is asked for answered by one."""

    def __init__(self, model: VideoModel, cache: StepCache) -> None:
        super().__init__(model)
        self.cache = cache

    def velocity(self, view: View, slots: int) -> Velocity:
        """The model's, both of its passes under guidance answered as one."""
        return Cached(self.model.velocity(view, slots), self.cache)


def followed(
    last: Moment, led: Float[Tensor, "b c s h w"], x: Float[Tensor, "b c s h w"], step: Step
) -> bool:
    """Whether `x` is where the last velocity led, within the length of a step: a solver, a controller and a blend with
    other windows lead elsewhere by less, noise that is drawn anew by far more."""
    moved = step.sigma - last.step.sigma
    off = size(x - last.x - moved * led)
    return off <= max(abs(moved), step.h) * size(led)


def size(x: Tensor) -> float:
    """Mean of the absolute values, which the published caches measure by."""
    return float(x.detach().float().abs().mean())


def opening(step: Step, share: float) -> bool:
    """Whether a step is among the first of its schedule, by their share."""
    return step.index < share * step.count
