"""What is measured of one edited clip against its exact truth."""

import warnings
from typing import Any

import numpy as np
from scenes import Case

from wanedit.metrics.functional import frame_psnr, frame_ssim, seam_ratio
from wanedit.sprites.truth import traces
from wanedit.video import from_uint8


def measure(case: Case, indices: tuple[int, ...], video: np.ndarray) -> dict[str, Any]:
    """PSNR and SSIM off and at the keyframes, by distance, of what must stay, the centre error, the seams.

    Args:
        indices: of the keyframes.
        video: the edited clip, uint8 (T, H, W, 3).
    """
    psnr, inner = frame_psnr(video, case.truth), _inner(indices, len(video))
    distance = np.abs(np.arange(len(video))[:, None] - np.array(indices)).min(axis=1)
    off = distance > 0
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # a frame whose every pixel may change has no background
        background = float(np.nanmean(frame_psnr(video, case.truth, ~case.changed)[off]))
    return {
        "psnr": round(float(psnr[off].mean()), 3),
        "ssim": round(float(frame_ssim(video, case.truth)[off].mean()), 4),
        "psnr_keyframes": round(float(psnr[~off].mean()), 3),
        # Of frames 1, 2, … away from a keyframe.
        "psnr_by_distance": [
            round(float(psnr[distance == d].mean()), 2) for d in range(1, int(distance.max()) + 1)
        ],
        "psnr_background": round(background, 3) if np.isfinite(background) else None,
        "centre_error": _centre_error(case, video),
        "seam_ratio": round(seam_ratio(video, inner), 3) if inner else None,
    }


def _inner(indices: tuple[int, ...], total: int) -> list[int]:
    return [index for index in indices if 0 < index < total - 1]


def _centre_error(case: Case, video: np.ndarray) -> float | None:
    """Mean over the sprites that can be followed, in px of 64; None where there is none."""
    if case.clip is None:
        return None
    found = traces(case.clip, from_uint8(video), from_uint8(case.truth))
    return round(float(np.mean([trace.error for trace in found])), 3) if found else None
