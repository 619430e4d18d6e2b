"""How near a video is to its truth, frame by frame."""

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from wanedit.errors import InputError

Frames = UInt8[np.ndarray, "_ _ _ 3"]
# dB of frames that are equal to the last bit, or nearly: 8-bit frames that differ in one pixel by one level reach 90.
MOST = 100.0


def frame_psnr(
    video: Frames, truth: Frames, mask: Bool[np.ndarray, "t height width"] | None = None
) -> Float[np.ndarray, " t"]:
    """Peak signal-to-noise ratio of every frame in dB: `10 log10(255^2 / MSE)`, at most 100.

    Args:
        video, truth: of one shape.
        mask: the pixels that count; a frame without any is NaN.

    Raises:
        InputError: shapes that differ.
    """
    _check(video, truth)
    error = np.square(video.astype(np.float64) - truth.astype(np.float64)).mean(axis=-1)
    if mask is None:
        mse = error.mean(axis=(1, 2))
    else:
        count = mask.sum(axis=(1, 2))
        mse = np.divide(
            (error * mask).sum(axis=(1, 2)), count, out=np.full(len(video), np.nan), where=count > 0
        )
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255**2 / mse), MOST)


def frame_ssim(video: Frames, truth: Frames) -> Float[np.ndarray, " t"]:
    """Structural similarity of every frame (Wang et al. 2004), Gaussian window of 11, by torchmetrics.

    Raises:
        InputError: shapes that differ, or frames smaller than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check(video, truth)
    if min(video.shape[1:3]) < 11:
        raise InputError(f"frames are {video.shape[2]}x{video.shape[1]}; expected at least 11x11 for SSIM")
    pair = [torch.from_numpy(np.ascontiguousarray(v)).movedim(-1, 1).float() / 255 for v in (video, truth)]
    return structural_similarity_index_measure(*pair, data_range=1.0, reduction="none").double().numpy()  # pyright: ignore


def _check(video: Frames, truth: Frames) -> None:
    if video.shape != truth.shape:
        raise InputError(f"video is {video.shape} and its truth {truth.shape}; expected one shape")
