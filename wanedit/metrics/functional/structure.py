"""Whether an edit keeps its source's layout, by the similarity of each place of a picture to every other place.

    S_ij = cos(f_i, f_j),    distance = mean over i, j of (S_ij - S'_ij)^2

With the keys of the last layer of DINO ViT-B/8 as f this is the structure distance of FiVE-Bench (arXiv 2503.13684) and
of PnP Inversion (arXiv 2310.01506), after Tumanyan et al. 2022 (arXiv 2201.00424, equation 4): `perceptual.Dino.keys`.
`gradient_cells` are features made by hand instead, in the manner of Dalal and Triggs 2005. What comes of them is a
surrogate of this project, on a scale of its own.
"""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from wanedit.errors import InputError

Features = Float[np.ndarray, "n d"]

# Cells along each side, orientations of a cell, and pixels of a cell's side.
CELLS, BINS, PIXELS = 16, 8, 8
# Gradient, in levels a pixel, below which a cell counts as empty.
FAINT = 1.0


def self_similarity(features: Features) -> Float[np.ndarray, "n n"]:
    """Cosine of the features of every two places; 0 with a place that has none."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, 1e-8)
    return unit @ unit.T


def structure_distance(a: Features, b: Float[np.ndarray, "_ _"]) -> float:
    """Mean squared difference of the self-similarities of two pictures.

    Raises:
        InputError: pictures with unequal numbers of places.
    """
    if len(a) != len(b):
        raise InputError(f"pictures have {len(a)} and {len(b)} places; expected one number")
    return float(np.square(self_similarity(a) - self_similarity(b)).mean())


def gradient_distances(
    video: UInt8[np.ndarray, "t height width 3"], source: UInt8[np.ndarray, "_ _ _ 3"]
) -> Float[np.ndarray, " t"]:
    """The surrogate, frame by frame: `structure_distance` of `gradient_cells`.

    Raises:
        InputError: clips of unequal length.
    """
    if len(video) != len(source):
        raise InputError(f"clips have {len(video)} and {len(source)} frames; expected one length")
    pairs = zip(video, source, strict=True)
    return np.array([structure_distance(gradient_cells(a), gradient_cells(b)) for a, b in pairs])


def gradient_cells(frame: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "256 9"]:
    """Histogram of unsigned gradient directions of each of 16 x 16 cells, each cell of length 1.

    The ninth number is what an empty cell has instead of directions, so that empty cells are like each other.
    """
    side = CELLS * PIXELS
    grey = cv2.cvtColor(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    dy, dx = np.gradient(grey.astype(np.float64))
    size, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi) / np.pi * BINS
    low = np.floor(angle)
    cells = np.zeros((side, side, BINS + 1))
    for name, share in ((low, 1 - (angle - low)), (low + 1, angle - low)):
        np.put_along_axis(
            cells, (name % BINS).astype(np.int64)[..., None], (size * share)[..., None], axis=-1
        )
    cells[..., BINS] = FAINT
    summed = cells.reshape(CELLS, PIXELS, CELLS, PIXELS, BINS + 1).sum(axis=(1, 3)).reshape(-1, BINS + 1)
    return summed / np.linalg.norm(summed, axis=1, keepdims=True)
