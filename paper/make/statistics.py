"""Means and bootstrap intervals of paired differences; the draws are pinned."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from wanedit.metrics.functional.bootstrap import Interval, interval

Line = dict[str, Any]


def mean(lines: Iterable[Line], name: str) -> float:
    """Over the lines that have this value."""
    values = [line[name] for line in lines if line[name] is not None]
    return float(np.mean(values)) if values else float("nan")


def paired(ours: Iterable[Line], theirs: Iterable[Line], name: str = "psnr") -> Interval:
    """Mean of ours - theirs over the clips of both that have this value; scenes are resampled, for edits of a scene are
    not independent.

    Raises:
        ValueError: no clip has it on both sides.
    """
    known = {(line["seed"], line["edit"]): line[name] for line in ours}
    shared = [
        line
        for line in theirs
        if line[name] is not None and known.get((line["seed"], line["edit"])) is not None
    ]
    gaps = [known[line["seed"], line["edit"]] - line[name] for line in shared]
    return interval(gaps, [line["seed"] for line in shared])
