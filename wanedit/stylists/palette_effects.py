"""Drawing by hand, imitated: brush, ink lines and paper. Each is a pure function of a picture."""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32

from wanedit.video.arrays import Frame

Plane = Float32[np.ndarray, "h w"]

DIRECTIONS = 8
BRUSH = 0.007  # of the longer side
# Small videos are the noisiest: at least so many pixels, yet not so much of a side that outlines are painted over.
SMALLEST, SMALLEST_SHARE = 6.0, 0.015
CALM = 12.0  # variance in levels squared below which neighbourhoods count as equally calm
LINE = 0.0011  # width of ink lines as a share of the longer side
LINE_RATIO, LINE_PUSH, LINE_SOFT = 1.6, 18.0, 0.035


def paint(picture: Frame, size: float) -> Frame:
    """Soft brush strokes that stop at edges; `size` 0 to 1, at which their radius is 0.7 % of the longer side;
    in small pictures up to 1.5 %.

    Every pixel takes the mean of the calmest of eight neighbourhoods around it, weighted softly (Kuwahara 1976;
    Papari, Petkov, Campisi, "Artistic edge and corner enhancing smoothing", 2007). It removes noise too.
    """
    side = max(picture.shape[:2])
    radius = size * max(BRUSH * side, min(SMALLEST, SMALLEST_SHARE * side))
    if radius < 0.7:
        return picture
    edge = int(np.ceil(radius))
    wide = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REFLECT_101).astype(np.float32)
    grey = wide @ np.array([0.299, 0.587, 0.114], np.float32)
    kernel, sigma = (0, 0), radius / 2
    mean = cv2.GaussianBlur(wide, kernel, sigma)
    grey_mean = cv2.GaussianBlur(grey, kernel, sigma)
    variance = cv2.GaussianBlur(grey * grey, kernel, sigma) - grey_mean * grey_mean
    calm = np.square(np.square(CALM / (CALM + np.maximum(variance, 0))))
    weight = cv2.merge([calm + np.float32(1e-12)] * 3)
    return _gathered(mean * weight, weight, picture.shape[:2], edge, radius)


def _gathered(sums: np.ndarray, weight: np.ndarray, size: tuple[int, ...], edge: int, radius: float) -> Frame:
    height, width = size
    total, norm = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 3), np.float32)
    for angle in np.arange(DIRECTIONS) * 2 * np.pi / DIRECTIONS:
        down, right = edge + round(radius * np.sin(angle)), edge + round(radius * np.cos(angle))
        window = (slice(down, down + height), slice(right, right + width))
        cv2.accumulate(sums[window], total)
        cv2.accumulate(weight[window], norm)
    return np.clip(np.rint(cv2.divide(total, norm)), 0, 255).astype(np.uint8)


def ink(picture: Frame, seen: float = 1.0) -> Plane:
    """Where there is no line: 1 on blank paper, towards 0 on lines, from an extended difference of Gaussians.

    Winnemoeller, Kyprianidis, Olsen, "XDoG: an extended difference-of-Gaussians compendium", 2012, equations 7 and 5.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    sigma = max(0.6, LINE * max(picture.shape[:2]) * seen)
    fine, coarse = (cv2.GaussianBlur(grey, (0, 0), s) for s in (sigma, LINE_RATIO * sigma))
    difference = LINE_PUSH * (fine - coarse)
    return np.where(difference >= -LINE_SOFT, 1, 1 + np.tanh(1.6 * (difference + LINE_SOFT))).astype(
        np.float32
    )


@lru_cache(maxsize=2)
def paper(height: int, width: int, seed: int) -> Plane:
    """Relief of a sheet, mean 0, deviation 1: grain, fibres and a slow mottling. It belongs to the screen."""
    generator = np.random.default_rng([seed, 4])
    scale = max(height, width) / 1280
    sheet = np.zeros((height, width), np.float32)
    layers = ((0.9, 0.9, 0.55), (2.2, 2.2, 0.6), (6.0, 1.2, 0.35), (1.2, 6.0, 0.35), (28.0, 28.0, 0.45))
    for across, down, share in layers:
        noise = generator.standard_normal((height, width), dtype=np.float32)
        blurred = cv2.GaussianBlur(
            noise, (0, 0), sigmaX=max(0.5, across * scale), sigmaY=max(0.5, down * scale)
        )
        sheet += np.float32(share) * blurred / max(float(blurred.std()), 1e-6)
    sheet = (sheet - sheet.mean()) / max(float(sheet.std()), 1e-6)
    sheet.setflags(write=False)
    return sheet
