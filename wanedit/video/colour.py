"""Colour of a segment, corrected at both ends by an affine map in CIE Lab, where the truth is known."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame, Frames

MAX_GAIN = 1.5  # of any direction in Lab; beyond it the frames show different things, not different colours
_RIDGE = 1.0  # Lab units squared: variance below it is too little to tell a gain from
_PATCH_SIDE = 48  # the fit compares patch means, so blur and small shifts do not count
_ROUNDS = 8
_OUTLYING = 2.5  # times the median distance (at least one Lab unit): from there patches lose their say


# Linear sRGB to XYZ over the white point (IEC 61966-2-1), and f(XYZ) to L*a*b* (CIE 15). OpenCV's own float
# conversion goes through a table and moves colours by up to a level and a half.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_TO_XYZ /= _TO_XYZ.sum(1, keepdims=True)
_TO_LAB = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
_EDGE = 6 / 29


def rgb_to_lab(rgb: UInt8[np.ndarray, "*n 3"]) -> Float32[np.ndarray, "*n 3"]:
    """sRGB levels to CIE L*a*b* (D65): L from 0 to 100."""
    xyz = _times(_LINEAR[rgb], _TO_XYZ)
    f = np.where(xyz > _EDGE**3, np.cbrt(xyz), xyz / np.float32(3 * _EDGE**2) + np.float32(4 / 29))
    return _times(f, _TO_LAB) - np.array([16, 0, 0], np.float32)


def lab_to_rgb(lab: Float32[np.ndarray, "*n 3"]) -> UInt8[np.ndarray, "*n 3"]:
    """CIE L*a*b* to sRGB levels; what lies outside of sRGB is clipped channel by channel."""
    f = _times(lab + np.array([16, 0, 0], np.float32), np.linalg.inv(_TO_LAB))
    xyz = np.where(f > _EDGE, f * f * f, np.float32(3 * _EDGE**2) * (f - np.float32(4 / 29)))
    linear = np.clip(_times(xyz, np.linalg.inv(_TO_XYZ)), 0, 1)
    curved = np.float32(1.055) * np.power(linear, np.float32(1 / 2.4)) - np.float32(0.055)
    levels = np.where(linear > np.float32(0.0031308), curved, np.float32(12.92) * linear)
    return np.rint(levels * np.float32(255)).astype(np.uint8)


def _times(
    pixels: Float32[np.ndarray, "*n 3"], matrix: Float[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "*n 3"]:
    """matrix @ pixel for each; ten times as fast as numpy's product of such a tall array."""
    return cv2.transform(pixels.reshape(-1, 1, 3), matrix).reshape(pixels.shape)


_LEVEL = np.arange(256) / 255
_LINEAR = np.where(_LEVEL > 0.04045, ((_LEVEL + 0.055) / 1.055) ** 2.4, _LEVEL / 12.92).astype(np.float32)


@dataclass(frozen=True)
class AffineLab:
    """lab -> matrix @ lab + offset."""

    matrix: Float[np.ndarray, "3 3"]
    offset: Float[np.ndarray, "3"]

    def __call__(self, lab: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        return lab @ self.matrix.T.astype(lab.dtype) + self.offset.astype(lab.dtype)

    def blended(self, other: "AffineLab", share: float) -> "AffineLab":
        """(1 - share) of this map and share of the other."""
        return AffineLab(
            (1 - share) * self.matrix + share * other.matrix, (1 - share) * self.offset + share * other.offset
        )


IDENTITY = AffineLab(np.eye(3), np.zeros(3))


def fit_affine(source: AnyFrame, target: AnyFrame) -> AffineLab:
    """The affine Lab map that brings a frame to the colours of another of the same scene.

    Least squares over patch means, pulled towards the identity where the scene has too little colour to
    tell, singular values within 1/1.5 and 1.5. Patches that show something else lose their weight (Geman
    and McClure 1987; with Huber's weights one vivid object put in takes the map 4 Lab units off).
    Equal frames give the identity. Patch means make it blind to blur and small shifts, which would
    otherwise be read as a loss or gain of contrast.

    A map fitted to the large areas can turn the colours of small things: where it does not lower the mean
    squared error over all patches, its shift alone is taken, and where that does not either, the identity.

    Raises:
        InputError: frames of unequal size.
    """
    if source.shape != target.shape:
        raise InputError(f"colour: expected frames of one size, got {source.shape} and {target.shape}")
    x, y = _patches(source), _patches(target)
    found = shift = AffineLab(np.eye(3), np.median(y - x, axis=0))
    for _ in range(_ROUNDS):
        residual = np.linalg.norm(y - found(x), axis=1)
        scale = _OUTLYING * max(1.4826 * float(np.median(residual)), 1.0)
        weights = (1 + np.square(residual / scale)) ** -2
        share = weights / weights.sum()
        mean_x, mean_y = share @ x, share @ y
        centred = x - mean_x
        spread = (centred * share[:, None]).T @ centred
        # Ridge regression of y - x on x, so that the pull is towards the identity.
        moved = (centred * share[:, None]).T @ (y - x - (mean_y - mean_x))
        matrix = np.eye(3) + np.linalg.solve(spread + _RIDGE * np.eye(3), moved).T
        left, gains, right = np.linalg.svd(matrix)
        # Untouched where no gain is too large, so that the identity stays exact.
        if gains.max() > MAX_GAIN or gains.min() < 1 / MAX_GAIN:
            matrix = (left * np.clip(gains, 1 / MAX_GAIN, MAX_GAIN)) @ right
        found = AffineLab(matrix, mean_y - matrix @ mean_x)
        shift = AffineLab(np.eye(3), weights @ (y - x) / weights.sum())
    return min((IDENTITY, shift, found), key=lambda candidate: float(np.square(y - candidate(x)).mean()))


def _patches(frame: Frame) -> Float[np.ndarray, "n 3"]:
    height, width = (min(side, _PATCH_SIDE) for side in frame.shape[:2])
    lab = rgb_to_lab(frame)
    return cv2.resize(lab, (width, height), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)


def correct_segment(
    frames: Frames, first_truth: AnyFrame, last_truth: AnyFrame, borrowed: bool = False
) -> Frames:
    """Correct a segment (T, H, W, 3) whose first and last frame should look like two given keyframes.

    Args:
        borrowed: the first frame was decoded from another segment's latents. It says nothing of the colours of the
            others, which are read off the two that follow it: so near a keyframe, patch means hardly move.

    Raises:
        InputError: no frames, or keyframes of another size than the frames.
    """
    if not len(frames):
        raise InputError("colour: no frames to correct")
    shown, last = fit_affine(frames[0], first_truth), fit_affine(frames[-1], last_truth)
    if not borrowed or len(frames) < 4:
        return apply_between(frames, shown, last)
    own = fit_affine(frames[1], first_truth).blended(fit_affine(frames[2], first_truth), 0.5)
    return np.concatenate([apply_between(frames[:1], shown, shown), apply_between(frames, own, last)[1:]])


def apply_between(frames: Frames, first: AffineLab, last: AffineLab) -> Frames:
    """Apply `first` to the first frame, `last` to the last, and their linear blend over time between."""
    out = np.empty_like(frames)
    for index, frame in enumerate(frames):
        here = first.blended(last, index / max(len(frames) - 1, 1))
        if np.array_equal(here.matrix, np.eye(3)) and not here.offset.any():
            out[index] = frame  # a trip through Lab may move a level
        else:
            out[index] = lab_to_rgb(here(rgb_to_lab(frame)).astype(np.float32))
    return out
