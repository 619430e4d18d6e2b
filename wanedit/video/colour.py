"""Colour of a segment, corrected at both ends by an affine map in CIE Lab, where the truth is known."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import Frame, Frames

MAX_GAIN = 1.5  # of any direction in Lab; beyond it the frames show different things, not different colours
_RIDGE = 1.0  # Lab units squared: variance below it is too little to tell a gain from
_PATCH_SIDE = 48  # the fit compares patch means, so blur and small shifts do not count
_ROUNDS = 8
_OUTLYING = 2.5  # times the median distance (at least one Lab unit): from there patches lose their say


def rgb_to_lab(rgb: UInt8[np.ndarray, "*n 3"]) -> Float32[np.ndarray, "*n 3"]:
    """sRGB levels to CIE L*a*b* (D65): L from 0 to 100."""
    return cv2.cvtColor(_rows(rgb).astype(np.float32) / 255, cv2.COLOR_RGB2Lab).reshape(rgb.shape)


def lab_to_rgb(lab: Float32[np.ndarray, "*n 3"]) -> UInt8[np.ndarray, "*n 3"]:
    """CIE L*a*b* to sRGB levels; what lies outside of sRGB is clipped channel by channel."""
    rgb = cv2.cvtColor(_rows(lab), cv2.COLOR_Lab2RGB).reshape(lab.shape)
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def _rows(pixels: np.ndarray) -> np.ndarray:
    """As an image of one column, which is what cv2.cvtColor takes."""
    return np.ascontiguousarray(pixels.reshape(-1, 1, 3))


@dataclass(frozen=True)
class AffineLab:
    """lab -> matrix @ lab + offset, with the median distance (CIE 1976) to the truth before and after."""

    matrix: Float[np.ndarray, "3 3"]
    offset: Float[np.ndarray, "3"]
    error_before: float = 0.0
    error_after: float = 0.0

    def __call__(self, lab: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        return lab @ self.matrix.T.astype(lab.dtype) + self.offset.astype(lab.dtype)

    def blended(self, other: "AffineLab", share: float) -> "AffineLab":
        """(1 - share) of this map and share of the other."""
        return AffineLab(
            (1 - share) * self.matrix + share * other.matrix, (1 - share) * self.offset + share * other.offset
        )


IDENTITY = AffineLab(np.eye(3), np.zeros(3))


def fit_affine(source: Frame, target: Frame) -> AffineLab:
    """The affine Lab map that brings a frame to the colours of another of the same scene.

    Least squares over patch means, pulled towards the identity where the scene has too little colour to
    tell, singular values within 1/1.5 and 1.5. Patches that show something else lose their weight (Geman
    and McClure 1987; with Huber's weights one vivid object put in takes the map 4 Lab units off).
    Equal frames give the identity. Patch means make it blind to blur and small shifts, which would
    otherwise be read as a loss or gain of contrast.

    Raises:
        InputError: frames of unequal size.
    """
    if source.shape != target.shape:
        raise InputError(f"colour: expected frames of one size, got {source.shape} and {target.shape}")
    x, y = _patches(source), _patches(target)
    found = AffineLab(np.eye(3), np.median(y - x, axis=0))
    for _ in range(_ROUNDS):
        found = _solve(x, y, _trust(np.linalg.norm(y - found(x), axis=1)))
    return AffineLab(found.matrix, found.offset, _distance(x, y), _distance(found(x), y))


def _patches(frame: Frame) -> Float[np.ndarray, "n 3"]:
    height, width = (min(side, _PATCH_SIDE) for side in frame.shape[:2])
    lab = rgb_to_lab(frame)
    return cv2.resize(lab, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)


def _solve(
    x: Float[np.ndarray, "n 3"], y: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, "n"]
) -> AffineLab:
    """Ridge regression of y - x on x, so that the pull is towards the identity."""
    share = weights / weights.sum()
    mean_x, mean_y = share @ x, share @ y
    centred = x - mean_x
    spread = (centred * share[:, None]).T @ centred
    moved = (centred * share[:, None]).T @ (y - x - (mean_y - mean_x))
    matrix = _bounded(np.eye(3) + np.linalg.solve(spread + _RIDGE * np.eye(3), moved).T)
    return AffineLab(matrix, mean_y - matrix @ mean_x)


def _bounded(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    left, gains, right = np.linalg.svd(matrix)
    if gains.max() <= MAX_GAIN and gains.min() >= 1 / MAX_GAIN:
        return matrix  # untouched, so that the identity stays exact
    return (left * np.clip(gains, 1 / MAX_GAIN, MAX_GAIN)) @ right


def _trust(residual: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    scale = _OUTLYING * max(1.4826 * float(np.median(residual)), 1.0)
    return (1 + np.square(residual / scale)) ** -2


def _distance(x: Float[np.ndarray, "n 3"], y: Float[np.ndarray, "n 3"]) -> float:
    return float(np.median(np.linalg.norm(y - x, axis=1)))


def correct_segment(
    frames: Frames, first_truth: UInt8[np.ndarray, "h1 w1 3"], last_truth: UInt8[np.ndarray, "h2 w2 3"]
) -> Frames:
    """Correct a segment (T, H, W, 3) whose first and last frame should look like two given keyframes.

    Raises:
        InputError: no frames, or keyframes of another size than the frames.
    """
    if not len(frames):
        raise InputError("colour: no frames to correct")
    return apply_between(frames, fit_affine(frames[0], first_truth), fit_affine(frames[-1], last_truth))


def apply_between(frames: Frames, first: AffineLab, last: AffineLab) -> Frames:
    """Apply `first` to the first frame, `last` to the last, and their linear blend over time between."""
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        share = index / max(len(frames) - 1, 1)
        out[index] = _applied(frame, first.blended(last, share))
    return out


def _applied(frame: Frame, transform: AffineLab) -> Frame:
    if _is_identity(transform):
        return frame  # a trip through Lab may move a level
    return lab_to_rgb(transform(rgb_to_lab(frame)).astype(np.float32))


def _is_identity(transform: AffineLab) -> bool:
    return np.array_equal(transform.matrix, np.eye(3)) and not transform.offset.any()
