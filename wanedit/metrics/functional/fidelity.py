"""How near a video is to its truth, frame by frame."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8

from wanedit.errors import InputError

Frames = UInt8[np.ndarray, "_ _ _ 3"]
Mask = Bool[np.ndarray, "t height width"]
# dB of frames that are equal to the last bit, or nearly: 8-bit frames that differ in one pixel by one level reach 90.
MOST = 100.0
# Side of SSIM's window.
WINDOW = 11


def frame_psnr(video: Frames, truth: Frames, mask: Mask | None = None) -> Float[np.ndarray, " t"]:
    """Peak signal-to-noise ratio of every frame in dB: `10 log10(255^2 / MSE)`, at most 100.

    Args:
        video, truth: of one shape.
        mask: the pixels that count; a frame without any is NaN.

    Raises:
        InputError: shapes that differ.
    """
    _check(video, truth)
    error = np.square(video.astype(np.float64) - truth.astype(np.float64)).mean(axis=-1)
    mse = error.mean(axis=(1, 2)) if mask is None else masked_mean(error, mask)
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255**2 / mse), MOST)


def frame_ssim(video: Frames, truth: Frames, mask: Mask | None = None) -> Float[np.ndarray, " t"]:
    """Structural similarity of every frame (Wang et al. 2004), Gaussian window of 11, by torchmetrics.

    With a mask: the mean of the SSIM map over the mask. A window at its border also sees what lies beyond.

    Args:
        mask: the pixels that count; a frame without any is NaN.

    Raises:
        InputError: shapes that differ, or frames smaller than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check(video, truth)
    if min(video.shape[1:3]) < WINDOW:
        raise InputError(
            f"frames are {video.shape[2]}x{video.shape[1]}; expected at least {WINDOW}x{WINDOW} for SSIM"
        )
    pair = [torch.from_numpy(np.ascontiguousarray(v)).movedim(-1, 1).float() / 255 for v in (video, truth)]
    if mask is None:
        found: Any = structural_similarity_index_measure(*pair, data_range=1.0, reduction="none")  # pyright: ignore
        return found.double().numpy()
    _, maps = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)  # pyright: ignore
    return masked_mean(maps.double().mean(dim=1).numpy(), mask)


def masked_mean(
    values: Float[np.ndarray, "t height width"], mask: Bool[np.ndarray, "_ _ _"]
) -> Float[np.ndarray, " t"]:
    """Mean of every frame over its mask; NaN where the mask is empty.

    Raises:
        InputError: shapes that differ.
    """
    if values.shape != mask.shape:
        raise InputError(f"mask is {mask.shape}; expected {values.shape}")
    count = mask.sum(axis=(1, 2))
    total = np.where(mask, values, 0.0).sum(axis=(1, 2))
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


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


def _check(video: Frames, truth: Frames) -> None:
    if video.shape != truth.shape:
        raise InputError(f"video is {video.shape} and its truth {truth.shape}; expected one shape")
