"""Small clips with known content."""

import cv2
import numpy as np


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful picture (H, W, 3) that spans most of the levels."""
    coarse = np.random.default_rng(seed).integers(10, 246, (5, 7, 3)).astype(np.float32)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.rint(fine), 0, 255).astype(np.uint8)


def panning(count: int = 12, height: int = 48, width: int = 64, step: int = 2, seed: int = 0) -> np.ndarray:
    """A camera that moves over a picture by `step` pixels a frame; every frame is another."""
    picture = texture(height, width + count * step, seed)
    return np.stack([picture[:, i * step : i * step + width] for i in range(count)])


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that carry their own number as 8 black or white bars; survives lossy codecs."""
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        bits = [(number >> bit) & 1 for bit in range(8)]
        row = np.repeat(np.array(bits, np.uint8) * 200 + 25, width // 8)
        frames[number] = row[None, :, None]
    return frames


def read_number(frame: np.ndarray) -> int:
    row = frame.mean((0, 2))
    bars = row.reshape(8, -1).mean(1)
    return sum(int(bar > 125) << bit for bit, bar in enumerate(bars))
