"""Means with intervals that know which values belong together."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000
# Percentiles of the interval's ends: 95 %.
ENDS = (2.5, 97.5)


class Interval(NamedTuple):
    """A mean, the 95 % percentile bootstrap about it (Efron 1979), and of how many values n.

    Both ends are the mean where one group is all.
    """

    mean: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float], groups: Sequence[Hashable]) -> Interval:
    """The mean of values, resampling groups: clips of one scene are not independent.

    Args:
        groups: of each value. Each group weighs as much as any other; they are drawn in the order in which they come.

    Raises:
        ValueError: no values.
    """
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    if not members:
        raise ValueError("expected at least one value")
    means = np.array([np.mean(found) for found in members.values()])
    # The same draws for every point of a grid, so that equal results have equal intervals.
    draws = np.random.default_rng(0).integers(0, len(means), (DRAWS, len(means)))
    low, high = np.percentile(means[draws].mean(axis=1), ENDS)
    return Interval(float(means.mean()), float(low), float(high), len(values))
