"""EasyCache: skip while the predicted change of the velocity, added up since it was computed, stays small."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.caches import CACHES
from wanedit.flow.caching import Clock, Moment, StepCache, opening, size
from wanedit.flow.path import Step


@CACHES.register("easycache")
@dataclass(frozen=True)
class EasyCache(StepCache):
    """EasyCache (arXiv 2507.02860, equations 4 to 6): the velocity changes as fast, against x, as it did when it was
    last computed. It calibrates itself, for any model and schedule. The paper holds v - x, which drifts as the noise
    falls; what is held here is v, which is constant on a straight path.

    Attributes:
        threshold: of the relative change; 0.05 is the paper's for Wan 2.1.
        warm_up: share of the first steps that are computed; the paper's 10 of 50.
    """

    threshold: float = 0.05
    warm_up: float = 0.2

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise InputError(f"easycache threshold is {self.threshold:g}; expected more than 0")
        if not 0 <= self.warm_up < 1:
            raise InputError(f"easycache warm_up is {self.warm_up:g}; expected 0 or more, less than 1")

    def forecast(self, past: Sequence[Moment], x: Tensor, step: Step, clock: Clock | None) -> Tensor | None:
        full = max(i for i, moment in enumerate(past) if moment.computed)
        if opening(step, self.warm_up) or full == 0:
            return None
        before, now = past[full - 1], past[full]
        # Equation 4: the transformation rate.
        rate = size(now.v - before.v) / max(size(now.x - before.x), 1e-12)
        # Equations 5 and 6.
        points = [*((moment.x, moment.v) for moment in past[full:]), (x, now.v)]
        change = sum(rate * size(b - a) / max(size(v), 1e-12) for (a, v), (b, _) in pairwise(points))
        return now.v if change < self.threshold else None
