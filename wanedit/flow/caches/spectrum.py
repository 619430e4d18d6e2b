"""Spectrum: velocities forecast by Chebyshev polynomials over the steps, fitted to those that were computed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.caches import CACHES
from wanedit.flow.caching import Clock, Moment, StepCache
from wanedit.flow.path import Step


@CACHES.register("spectrum")
@dataclass(frozen=True)
class Spectrum(StepCache):
    """Spectrum (arXiv 2603.01623), which forecasts the features of the last block: here the velocity, which is one more
    linear map of them under a modulation that changes slowly.

    Attributes:
        degree: M, of the polynomials.
        ridge: lambda, of the fit.
        warm_up: how many steps are computed first.
        window: of so many steps one is computed,
        growth: and each that is lets the window grow by this.
    """

    adapts: ClassVar[bool] = False
    memory: ClassVar[int] = 16

    degree: int = 4
    ridge: float = 0.1
    warm_up: int = 5
    window: float = 2.0
    growth: float = 0.75

    def __post_init__(self) -> None:
        if not (
            self.degree >= 0
            and self.ridge > 0
            and self.warm_up >= 2
            and self.window >= 1
            and self.growth >= 0
        ):
            raise InputError(
                f"spectrum degree is {self.degree}, ridge {self.ridge:g}, warm_up {self.warm_up}, window "
                f"{self.window:g}, growth {self.growth:g}; expected 0 or more, more than 0, 2 or more, 1 or more, "
                "0 or more"
            )

    def computes(self, index: int) -> bool:
        """Whether the step of this index is computed."""
        window, skipped, computed = self.window, 0, True
        for _ in range(self.warm_up, index + 1):
            computed = (skipped + 1) % math.floor(window) == 0
            window, skipped = (window + self.growth, 0) if computed else (window, skipped + 1)
        return computed

    def forecast(self, past: Sequence[Moment], x: Tensor, step: Step, clock: Clock | None) -> Tensor | None:
        if step.count < 2 or self.computes(step.index):
            return None
        known = [moment for moment in past if moment.computed]
        # A moment at the end of a step is the next one's.
        at = np.array([one.index + (one.h == 0) for one in (*(moment.step for moment in known), step)])
        basis = chebvander(2 * at / (step.count - 1) - 1, self.degree)
        fit, here = basis[:-1], basis[-1]
        # The ridge fit is linear in what it is fitted to: the forecast is a weighted sum of the velocities.
        weights = here @ np.linalg.solve(fit.T @ fit + self.ridge * np.eye(self.degree + 1), fit.T)
        return sum((float(w) * moment.v for w, moment in zip(weights, known, strict=True)), 0 * x)
