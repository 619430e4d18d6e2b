"""Where a film cuts from one scene to another.

Two measures of every pair of neighbouring frames, on thumbnails:

- colour: half the L1 distance of their Lab histograms, 0 for the same colours, 1 for none in common;
- unexplained: the share of the picture that optical flow cannot carry from one frame to the next.

Fast motion keeps its colours and is mostly explained, or, if it is too fast for the flow, goes on for several frames.
A cut is a pair whose two measures together are large, and stand out from the pairs around by a ratio, and so does its
colour alone. A flash, after which the scene is as it was before, is no cut. Dissolves are not found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float32

from wanedit.video.arrays import AnyFrame
from wanedit.video.colour import rgb_to_lab
from wanedit.video.motion import dis_flow, warp

LONG_SIDE = 96
BINS = ((0, 100, 12), (-60, 60, 10), (-60, 60, 10))
DIFFERENT = 12.0  # Lab units from which a pixel counts as unexplained
SCORE = 0.3  # of a cut: the geometric mean of both measures
RATIO = 2.2  # of a cut to the median of the pairs around it
AROUND = 4  # pairs on either side
FLASH = 2  # frames that a flash may last
ALIKE = 0.5  # of the cut's score: below it the frames around a flash show one scene


@dataclass(frozen=True, eq=False)
class Thumb:
    """A frame, small: its pixels, their Lab values and the histogram of these."""

    pixels: AnyFrame
    lab: Float32[np.ndarray, "h w 3"]
    histogram: Float32[np.ndarray, "n"]


def thumb_of(frame: AnyFrame) -> Thumb:
    """The thumbnail of a frame, its longer side 96 pixels at most."""
    scale = min(1.0, LONG_SIDE / max(frame.shape[:2]))
    size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
    pixels = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    lab = rgb_to_lab(pixels)
    places = [
        np.clip((lab[..., c] - low) * (bins / (high - low)), 0, bins - 1).astype(np.int64)
        for c, (low, high, bins) in enumerate(BINS)
    ]
    index = (places[0] * BINS[1][2] + places[1]) * BINS[2][2] + places[2]
    counts = np.bincount(index.ravel(), minlength=BINS[0][2] * BINS[1][2] * BINS[2][2])
    cube = counts.reshape([bins for _, _, bins in BINS]).astype(np.float32) / index.size
    for axis in range(3):  # neighbouring bins hold neighbouring colours
        ahead, behind = np.roll(cube, 1, axis), np.roll(cube, -1, axis)
        cube = (ahead + 2 * cube + behind) / 4
    return Thumb(pixels, lab, cube.ravel().astype(np.float32))


def measures(before: Thumb, after: Thumb) -> tuple[float, float]:
    """(colour, unexplained) of two frames, each 0 to 1; see the module."""
    colour = 0.5 * float(np.abs(before.histogram - after.histogram).sum())
    moved = warp(after.lab, dis_flow(before.pixels, after.pixels))
    unexplained = float((np.linalg.norm(moved - before.lab, axis=-1) > DIFFERENT).mean())
    return colour, unexplained


def change(before: Thumb, after: Thumb) -> float:
    """How much two frames differ as a cut does, 0 to 1: the geometric mean of both measures."""
    return float(np.sqrt(np.prod(measures(before, after))))


def cuts_of(thumbs: Sequence[Thumb]) -> list[int]:
    """The first frame of each scene after the first, ascending."""
    pairs = np.array([measures(a, b) for a, b in pairwise(thumbs)]).reshape(-1, 2)
    scores = np.sqrt(pairs.prod(1))
    found = [
        i + 1
        for i in range(len(pairs))
        if scores[i] >= SCORE and all(_stands_out(v, i) for v in (scores, pairs[:, 0]))
    ]
    return _without_flashes(found, thumbs, scores)


def find_cuts(frames: Iterable[AnyFrame]) -> list[int]:
    """`cuts_of` for frames that are read one by one; only thumbnails are kept."""
    return cuts_of([thumb_of(frame) for frame in frames])


def _stands_out(values: np.ndarray, i: int) -> bool:
    around = np.concatenate([values[max(0, i - AROUND) : i], values[i + 1 : i + 1 + AROUND]])
    return not len(around) or bool(values[i] >= RATIO * np.median(around))


def _without_flashes(found: list[int], thumbs: Sequence[Thumb], scores: np.ndarray) -> list[int]:
    kept: list[int] = []
    for cut in found:
        start = kept[-1] if kept else None
        if start is not None and cut - start <= FLASH and start > 0:
            limit = ALIKE * min(scores[start - 1], scores[cut - 1])
            if change(thumbs[start - 1], thumbs[cut]) < limit:
                kept.pop()
                continue
        kept.append(cut)
    return kept
