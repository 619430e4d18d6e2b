"""How the palette stylist judges its own work: measures that any restyled picture could pass or fail."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32

from wanedit.stylists.protocol import Verdict
from wanedit.stylists.transport import Cloud, cloud_of, sliced_distance
from wanedit.video.arrays import Frame

SIDE = 320  # longer side at which edges are compared: lines and paper are finer than that
STRUCTURE = 0.6  # correlation of gradients below which a shape has moved or gone
FLAT = 0.7  # of the strongest hundredth of gradients: below it a picture has no shapes to keep
NEARER = 0.1  # share of the palette's distance that must be gone, of all keyframes together, at strength 1
NEAR = 3.0  # Lab units at which a palette matches anyway


@dataclass(frozen=True)
class Measured:
    """What was measured of one keyframe.

    structure: correlation of its gradient magnitudes with its source's, 1 for the same edges.
    palette_before, palette_after: sliced Wasserstein distance in Lab of source and result to the reference.
    """

    structure: float
    palette_before: float
    palette_after: float


def measure(source: Frame, styled: Frame, reference: Cloud) -> Measured:
    """Compare a restyled keyframe with its source and with the reference's colours."""
    before, after = (sliced_distance(cloud_of([p]), reference) for p in (source, styled))
    return Measured(structure(source, styled), before, after)


def structure(source: Frame, styled: Frame) -> float:
    """Correlation of gradient magnitudes; 1 where the source has none to keep."""
    x, y = _gradient(source), _gradient(styled)
    if float(np.quantile(x, 0.99)) < FLAT:
        return 1.0
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / max(np.sqrt(float(np.square(x).sum() * np.square(y).sum())), 1e-6))


def _gradient(picture: Frame) -> Float32[np.ndarray, "_ _"]:
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    size = (max(8, round(picture.shape[1] * scale)), max(8, round(picture.shape[0] * scale)))
    grey = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.2)
    strength = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)) / 8
    return np.sqrt(strength)  # so that a few hard edges do not speak for all


def judge(kept: float, distances: tuple[float, float], same_map: bool, strength: float = 1.0) -> Verdict:
    """A verdict from measures.

    Args:
        kept: `structure` of the keyframe.
        distances: of the palette of all keyframes to the reference's, before and after the map: the palette is
            matched by the clip, for one keyframe may show only what the reference has little of.
        same_map: whether the keyframe was made by the map of the others.
        strength: how far colours were meant to go, 0 to 1; so far the palette must have come nearer.
    """
    (before, after), left = distances, 1 - NEARER * strength
    whole, matched = kept >= STRUCTURE, after <= max(left * before, NEAR)
    reasons = []
    if not whole:
        reasons.append(f"edges agree with the source by {kept:.2f}, expected {STRUCTURE} or more")
    if not matched:
        reasons.append(
            f"the palette is {after:.1f} Lab units from the reference, before it was {before:.1f}; expected at most "
            f"{left:.1%} of that"
        )
    if not same_map:
        reasons.append("it was not made by the colour map of the other keyframes")
    return Verdict(structure_kept=whole, style_matched=matched, consistent=same_map, reasons=reasons)
