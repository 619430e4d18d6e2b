"""No cache: every velocity is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from wanedit.flow.caches import CACHES
from wanedit.flow.caching import Clock, Moment, StepCache
from wanedit.flow.path import Step


@CACHES.register("none")
@dataclass(frozen=True)
class NoCache(StepCache):
    """Every velocity is computed."""

    adapts: ClassVar[bool] = False

    def forecast(self, past: Sequence[Moment], x: Tensor, step: Step, clock: Clock | None) -> Tensor | None:
        return None
