"""Means and bootstrap intervals of paired differences; the draws are pinned."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

DRAWS = 2000
Line = dict[str, Any]


class Estimate(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def mean(lines: Iterable[Line], name: str) -> float:
    """Over the lines that have this value."""
    values = [line[name] for line in lines if line[name] is not None]
    return float(np.mean(values)) if values else float("nan")


def paired(ours: Iterable[Line], theirs: Iterable[Line], name: str = "psnr") -> Estimate:
    """Mean of ours - theirs over the clips of both; scenes are resampled, for edits of a scene are not independent."""
    known = {(line["seed"], line["edit"]): line[name] for line in ours}
    gaps: dict[int, list[float]] = defaultdict(list)
    for line in theirs:
        if (line["seed"], line["edit"]) in known:
            gaps[line["seed"]].append(known[line["seed"], line["edit"]] - line[name])
    means = np.array([np.mean(values) for values in gaps.values()])
    draws = np.random.default_rng(0).choice(means, (DRAWS, len(means))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(means.mean()), float(low), float(high))
