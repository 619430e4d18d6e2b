"""MagCache: skip while the size of the network's residual, known beforehand, has changed little."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from wanedit.errors import InputError
from wanedit.files import read_json, reading
from wanedit.flow.caches import CACHES
from wanedit.flow.caching import Clock, Moment, StepCache, opening
from wanedit.flow.path import Step


def beside(model: Path) -> Path:
    """Where `wanedit calibrate` writes the table of a model, a folder or a file."""
    return (model.parent if model.is_file() else model) / "magcache.json"


@CACHES.register("magcache")
@dataclass(frozen=True)
class MagCache(StepCache):
    """MagCache (arXiv 2506.09045, section 3.3). Its residual is here that of the whole network, v - x, and the ratios
    that it tabulates by step are those of one curve over the noise level, for every number of steps and shift. What is
    held is v, as in `EasyCache`.

    Attributes:
        threshold: of the error, |1 - |r| now / |r| then| added up since the velocity was computed; diffusers' default.
        max_skips: how many in a row.
        retain: share of the first steps that are computed.
        table: a file of `wanedit calibrate`; None for the one beside the model's files.
        curve: what stands in it: noise levels, falling, each with the mean of |v - x|.
    """

    adapts: ClassVar[bool] = False

    threshold: float = 0.06
    max_skips: int = 3
    retain: float = 0.2
    table: Path | None = None
    curve: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and self.max_skips >= 1 and 0 <= self.retain < 1):
            raise InputError(
                f"magcache threshold is {self.threshold:g}, max_skips {self.max_skips}, retain {self.retain:g}; "
                "expected more than 0, 1 or more, 0 or more and less than 1"
            )
        levels = [sigma for sigma, _ in self.curve]
        falling = all(a > b for a, b in pairwise(levels))
        if self.curve and not (
            len(levels) > 1 and falling and all(0 < size < np.inf for _, size in self.curve)
        ):
            raise InputError(
                f"magcache curve has {len(levels)} noise levels, {'not ' * (not falling)}falling; expected two or more,"
                " falling, each with a size above 0"
            )

    def of_model(self, name: str, folder: Path | None) -> "MagCache":
        if self.curve:
            return self
        table = self.table or (None if folder is None else beside(folder))
        if table is None or not table.is_file():
            raise InputError(
                f"magcache has no table of {name}{f': {table} is not there' if table else ''}; expected one that "
                "`wanedit calibrate` made, there or as cache_options.table, or the cache easycache, which needs none"
            )
        with reading(table, "a table of wanedit calibrate"):
            rows = read_json(table, "a table of wanedit calibrate")["curve"]
            curve = tuple((float(sigma), float(size)) for sigma, size in rows)
            if not curve:
                raise ValueError("no noise levels")
            return replace(self, table=None, curve=curve)

    def forecast(self, past: Sequence[Moment], x: Tensor, step: Step, clock: Clock | None) -> Tensor | None:
        full = max(i for i, moment in enumerate(past) if moment.computed)
        levels = [*(moment.step.sigma for moment in past[full:]), step.sigma]
        if opening(step, self.retain) or len(levels) - 1 > self.max_skips:
            return None
        sigmas, sizes = zip(*reversed(self.curve), strict=True)
        size = np.interp(levels, sigmas, sizes)
        # Algorithm 1: the errors of all skips since the residual was computed.
        return past[full].v if float(np.abs(1 - size[1:] / size[0]).sum()) < self.threshold else None
