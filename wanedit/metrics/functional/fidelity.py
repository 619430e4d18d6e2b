"""How near a video is to its truth, frame by frame, and whether an edit keeps its source's layout.

Layout is the similarity of each place of a picture to every other place:

    S_ij = cos(f_i, f_j),    distance = mean over i, j of (S_ij - S'_ij)^2

With the keys of the last layer of DINO ViT-B/8 as f this is the structure distance of PnP Inversion (arXiv 2310.01506),
after Tumanyan et al. 2022 (arXiv 2201.00424, equation 4): `metrics.networks.Dino.keys`. FiVE-Bench's (arXiv 2503.13684)
is the same of other numbers, for its code shows DINO levels of 0 to 255: the group `five_structure`.
`gradient_cells` are features made by hand instead, in the manner of Dalal and Triggs 2005. What comes of them is a
surrogate of this project, on a scale of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Clip, FrameSequence

FrameMask = Bool[np.ndarray, "_ _"]
FrameMap = Float[np.ndarray, "_ _"]
Mask = Bool[np.ndarray, "_ _ _"] | FrameSequence
# dB of frames that are equal to the last bit, or nearly: 8-bit frames that differ in one pixel by one level reach 90.
MOST = 100.0
# Side of SSIM's window.
WINDOW = 11


@dataclass(frozen=True, eq=False)
class Nearness:
    """A frame beside the one that it should be; what both measures share is worked out once.

    Raises:
        InputError: shapes that differ.
    """

    frame: AnyFrame
    truth: AnyFrame

    def __post_init__(self) -> None:
        if self.frame.shape != self.truth.shape:
            raise InputError(
                f"video is {self.frame.shape} and its truth {self.truth.shape}; expected one shape"
            )

    def psnr(self, mask: FrameMask | None = None) -> float:
        """Peak signal-to-noise ratio in dB, `10 log10(255^2 / MSE)`, at most 100; NaN where the mask is empty."""
        mse = self._square_error.mean() if mask is None else masked_mean(self._square_error, mask)
        with np.errstate(divide="ignore"):
            return float(np.minimum(10 * np.log10(255**2 / np.float64(mse)), MOST))

    def ssim(self, mask: FrameMask | None = None) -> float:
        """Structural similarity (Wang et al. 2004), Gaussian window of 11 and sigma 1.5, mirrored at the edges.

        With a mask: the mean of the SSIM map over the mask. A window at its border also sees what lies beyond.

        Raises:
            InputError: frames smaller than the window.
        """
        return float(self._ssim.mean()) if mask is None else masked_mean(self._ssim, mask)

    @cached_property
    def _square_error(self) -> FrameMap:
        # In whole numbers: exact, and a third of the memory of doubles.
        step = np.subtract(self.frame, self.truth, dtype=np.int32)
        return np.square(step).mean(axis=-1, dtype=np.float64)

    @cached_property
    def _ssim(self) -> FrameMap:
        height, width = self.frame.shape[:2]
        if min(height, width) < WINDOW:
            raise InputError(f"frames are {width}x{height}; expected at least {WINDOW}x{WINDOW} for SSIM")
        channels = zip(cv2.split(self.frame), cv2.split(self.truth), strict=True)
        return sum(_ssim_map(a / 255.0, b / 255.0) for a, b in channels) / self.frame.shape[2]


def _ssim_map(x: FrameMap, y: FrameMap) -> FrameMap:
    """Of one channel, 0 … 1. In doubles: variances are small differences of large numbers.

    Rows, then columns: a sixth of the time of torchmetrics, which convolves with all of the window and agrees.
    """

    def mean(values: FrameMap) -> FrameMap:
        return cv2.GaussianBlur(values, (WINDOW, WINDOW), 1.5, borderType=cv2.BORDER_REFLECT_101)

    # Wang et al. 2004, equation 13.
    (mx, my), (c1, c2) = (mean(x), mean(y)), (0.01**2, 0.03**2)
    spread, shared = mean(x * x + y * y) - mx * mx - my * my, mean(x * y) - mx * my
    return (2 * mx * my + c1) * (2 * shared + c2) / ((mx * mx + my * my + c1) * (spread + c2))


def frame_psnr(video: Clip, truth: Clip, mask: Mask | None = None) -> Float[np.ndarray, " t"]:
    """`Nearness.psnr` of every frame; one pair of frames is held at a time.

    Args:
        mask: the pixels that count; a frame without any is NaN.

    Raises:
        InputError: shapes that differ.
    """
    return np.array([near.psnr(part) for near, part in _pairs(video, truth, mask)], np.float64)


def frame_ssim(video: Clip, truth: Clip, mask: Mask | None = None) -> Float[np.ndarray, " t"]:
    """`Nearness.ssim` of every frame. Arguments and errors as `frame_psnr`, and frames smaller than the window."""
    return np.array([near.ssim(part) for near, part in _pairs(video, truth, mask)], np.float64)


def _pairs(video: Clip, truth: Clip, mask: Mask | None) -> Iterable[tuple[Nearness, FrameMask | None]]:
    if len(video) != len(truth):
        raise InputError(f"video is {video.shape} and its truth {truth.shape}; expected one shape")
    if mask is not None and len(mask) != len(video):
        raise InputError(f"a mask of {len(mask)} frames for a video of {len(video)}; expected one for each")
    masks = [None] * len(video) if mask is None else mask
    return ((Nearness(a, b), part) for a, b, part in zip(video, truth, masks, strict=True))


def masked_mean(values: Float[np.ndarray, "_ _"], mask: FrameMask) -> float:
    """Mean over the mask; NaN where it is empty.

    Raises:
        InputError: shapes that differ.
    """
    if values.shape != mask.shape:
        raise InputError(f"mask is {mask.shape}; expected {values.shape}")
    count = int(mask.sum())
    return float(np.where(mask, values, 0.0).sum() / count) if count else float("nan")


def keyframe_distance(frames: int, keyframes: Iterable[int]) -> Int[np.ndarray, " t"]:
    """How many frames lie between each frame and the nearest keyframe; 0 at a keyframe.

    Raises:
        InputError: no keyframe, or one outside the clip.
    """
    places = np.array(sorted(keyframes), dtype=np.int64)
    if not len(places) or places[0] < 0 or places[-1] >= frames:
        raise InputError(f"keyframes are {places.tolist()}; expected frames 0 … {frames - 1}")
    return np.abs(np.arange(frames)[:, None] - places).min(axis=1)


def mean_by_distance(values: Float[np.ndarray, " t"], distance: Int[np.ndarray, " t"]) -> dict[int, float]:
    """Mean of the frames at each distance from the nearest keyframe: {distance: mean}."""
    return {int(d): float(values[distance == d].mean()) for d in np.unique(distance)}


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


def gradient_distances(video: Clip, source: Clip) -> Float[np.ndarray, " t"]:
    """`gradient_distance` of every frame.

    Raises:
        InputError: clips of unequal length.
    """
    if len(video) != len(source):
        raise InputError(f"clips have {len(video)} and {len(source)} frames; expected one length")
    return np.array([gradient_distance(a, b) for a, b in zip(video, source, strict=True)])


def gradient_distance(frame: AnyFrame, source: AnyFrame) -> float:
    """The surrogate of one frame: `structure_distance` of `gradient_cells`."""
    return structure_distance(gradient_cells(frame), gradient_cells(source))


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
