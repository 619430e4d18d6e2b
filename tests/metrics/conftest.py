"""A clip whose motion is known."""

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """uint8 (40, 72, 96, 3): a smooth texture that moves 1.5 px a frame, by exact shifts of a larger one."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (72, 240, 3)).astype(np.float32), (0, 0), 3.0)
    wide = 128 + 5 * (wide - wide.mean())
    frames = []
    for t in range(40):
        shift = np.array([[1, 0, -1.5 * t - 8], [0, 1, 0]], np.float32)
        frames.append(cv2.warpAffine(wide, shift, (96, 72), flags=cv2.INTER_CUBIC))
    return np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)
