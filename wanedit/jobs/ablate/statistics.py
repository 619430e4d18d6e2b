"""Means over clips with intervals that know which clips belong together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 95.0


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % percentile bootstrap about it (Efron 1979); both ends the mean where one group is all."""

    mean: float
    low: float
    high: float
    count: int


def interval(values: Sequence[float], groups: Sequence[str]) -> Interval:
    """The mean of values, resampling groups: clips of one scene are not independent.

    Args:
        groups: of each value. Each group weighs as much as any other.

    Raises:
        ValueError: no values.
    """
    members: dict[str, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    means = np.array([np.mean(members[name]) for name in sorted(members)])
    if not len(means):
        raise ValueError("expected at least one value")
    # The same draws for every point of a grid, so that equal results have equal intervals.
    draws = np.random.default_rng(0).integers(0, len(means), (DRAWS, len(means)))
    low, high = np.percentile(means[draws].mean(axis=1), [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Interval(float(means.mean()), float(low), float(high), len(values))
