"""Whether a join between pieces of a video shows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from wanedit.errors import InputError

# A clip that stands still changes by less than this from frame to frame: half a level.
FLOOR = 0.5


def frame_changes(video: UInt8[np.ndarray, "t height width 3"]) -> Float[np.ndarray, " t-1"]:
    """RMS change from each frame to the next, in levels of 255."""
    steps = np.diff(video.astype(np.float64), axis=0)
    return np.sqrt(np.square(steps).mean(axis=(1, 2, 3)))


def seam_ratio(video: UInt8[np.ndarray, "t height width 3"], seams: Sequence[int]) -> float:
    """The change into and out of the frames `seams`, relative to the median change elsewhere: 1 where none shows.

    The mean over the changes that touch a seam, over the median of the others, floored at half a level.

    Raises:
        InputError: a seam outside the clip, none, or so many that no change is left to compare with.
    """
    outside = [seam for seam in seams if not 0 <= seam < len(video)]
    if outside or not seams:
        raise InputError(f"seams are {list(seams)}; expected frames 0 … {len(video) - 1}")
    changes = frame_changes(video)
    touching = np.zeros(len(changes), dtype=bool)
    for seam in seams:
        touching[max(seam - 1, 0) : seam + 1] = True
    if touching.all():
        raise InputError(
            f"{len(seams)} seams touch every change of {len(video)} frames; expected some that do not"
        )
    return float(changes[touching].mean() / max(float(np.median(changes[~touching])), FLOOR))
