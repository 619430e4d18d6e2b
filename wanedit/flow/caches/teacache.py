"""TeaCache: skip while the blocks' modulation by time, rescaled by a polynomial of the model, has changed little."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.caches import CACHES
from wanedit.flow.caching import Clock, Moment, StepCache, opening, size
from wanedit.flow.path import Step

# TeaCache4Wan2.1, of the time projection, highest degree first. Of models with a last frame nobody has fitted one.
POLYNOMIALS = {
    "Wan2.1-T2V-1.3B": (-5.21862437e04, 9.23041404e03, -5.28275948e02, 1.36987616e01, -4.99875664e-02),
    "Wan2.1-T2V-14B": (-3.03318725e05, 4.90537029e04, -2.65530556e03, 5.87365115e01, -3.15583525e-01),
    "Wan2.1-I2V-14B-480P": (2.57151496e05, -3.54229917e04, 1.40286849e03, -1.35890334e01, 1.32517977e-01),
    "Wan2.1-I2V-14B-720P": (8.10705460e03, 2.13393892e03, -3.72934672e02, 1.66203073e01, -4.17769401e-02),
}
BORROWED = "Wan2.1-I2V-14B-720P"


@CACHES.register("teacache")
@dataclass(frozen=True)
class TeaCache(StepCache):
    """TeaCache (arXiv 2411.19108, equations 6 and 7). What is held is v, as in `EasyCache`.

    Attributes:
        threshold: of the rescaled relative change, added up since the velocity was computed; 0.18 to 0.3 for I2V-720P.
        warm_up: share of the first steps that are computed: 5 of 50.
        table: the model whose polynomial is taken; null for the model's own, or that of I2V-14B-720P, borrowed.
        polynomial: in its place, the highest degree first.
    """

    threshold: float = 0.2
    warm_up: float = 0.1
    table: str | None = None
    polynomial: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and 0 <= self.warm_up < 1):
            raise InputError(
                f"teacache threshold is {self.threshold:g} and warm_up {self.warm_up:g}; expected more than 0, and 0 or"
                " more and less than 1"
            )
        if self.table is not None and self.table not in POLYNOMIALS:
            raise InputError(f"teacache table is {self.table!r}; expected one of {', '.join(POLYNOMIALS)}")

    def of_model(self, name: str, folder: Path | None) -> "TeaCache":
        if folder is None:
            raise InputError(
                f"teacache reads the time projection of a Wan, and {name} is none; expected easycache"
            )
        own = POLYNOMIALS[self.table or (name if name in POLYNOMIALS else BORROWED)]
        return self if self.polynomial else replace(self, table=None, polynomial=own)

    def doubts(self, name: str) -> list[str]:
        if name in POLYNOMIALS or self.polynomial not in POLYNOMIALS.values():
            return []
        of = next(model for model, own in POLYNOMIALS.items() if own == self.polynomial)
        return [
            f"nobody has fitted teacache to {name}: the polynomial of {of} is borrowed; easycache needs none"
        ]

    def forecast(self, past: Sequence[Moment], x: Tensor, step: Step, clock: Clock | None) -> Tensor | None:
        if opening(step, self.warm_up) or clock is None:
            return None
        full = max(i for i, moment in enumerate(past) if moment.computed)
        times = [clock(moment) for moment in (*(moment.step for moment in past[full:]), step)]
        # Equation 6, and 7 with the polynomial of section 3.3.
        change = sum(np.polyval(self.polynomial, size(b - a) / size(a)) for a, b in pairwise(times))
        return past[full].v if change < self.threshold else None
