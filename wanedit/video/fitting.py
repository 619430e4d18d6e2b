"""Bring a picture to another size, or an edited keyframe onto the frame that it was edited from.

Image editors return shapes of their own: some stretch the frame, some draw more of it, some cut it, and the file does
not say which. Laid wrongly, every edge of the edit stands beside that of the source.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame, require_frame, size_text
from wanedit.video.images import Size

Box = tuple[float, float, float, float]
Fitted = tuple[AnyFrame, tuple[float, float], Box]

ASPECT_TOLERANCE = 0.2


@dataclass(frozen=True)
class FitRecord:
    """How an image was brought to its target size; goes into the run's record.

    scale: (vertical, horizontal) magnification. crop: the part of the source that is seen, (left, top, right,
    bottom) in source pixels. aspect_change: 0 where source and target have one aspect ratio, 0.25 where one
    is 1.25 times the other. warning: text for the user, or None.
    """

    policy: str
    source: Size
    target: Size
    scale: tuple[float, float]
    crop: tuple[float, float, float, float]
    aspect_change: float
    warning: str | None


def fit(
    image: UInt8[np.ndarray, "h w 3"], size: Size, policy: str = "crop"
) -> tuple[UInt8[np.ndarray, "H W 3"], FitRecord]:
    """Bring an image to `size` = (height, width), antialiased (Lanczos).

    crop: scaled until it covers the target, the middle kept. pad: scaled until it fits inside, black around
    it. stretch: each side scaled by itself. If the aspect ratio changes by more than 20 % the record
    carries a warning, which the caller shows.

    Raises:
        InputError: unknown policy, or a side that is not positive.
    """
    require_frame(image, "fit")
    if min(size) < 1:
        raise InputError(f"fit: expected positive sides (height, width), got {size}")
    if policy not in _POLICIES:
        raise InputError(f"fit: unknown policy {policy!r}, expected one of: {', '.join(_POLICIES)}")
    pixels, scale, crop = _POLICIES[policy](image, size)
    source = (image.shape[0], image.shape[1])
    ratio = (size[1] / size[0]) / (source[1] / source[0])
    change = max(ratio, 1 / ratio) - 1
    warning = None
    if change > ASPECT_TOLERANCE:
        sizes = f"{size_text(image)} to {size[1]}x{size[0]}"
        warning = f"aspect ratio changes by {change:.0%}: {sizes} by policy {policy!r}"
    return pixels, FitRecord(policy, source, size, scale, crop, change, warning)


def _resize(image: AnyFrame, size: Size, box: Box) -> AnyFrame:
    if (size[0], size[1]) == image.shape[:2] and box == (0, 0, size[1], size[0]):
        return image.copy()
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return np.array(resized)


def _crop(image: Frame, size: Size) -> Fitted:
    height, width = image.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    seen_h, seen_w = min(size[0] / scale, float(height)), min(size[1] / scale, float(width))
    left, top = (width - seen_w) / 2, (height - seen_h) / 2
    box = (left, top, left + seen_w, top + seen_h)
    return _resize(image, size, box), (scale, scale), box


def _stretch(image: Frame, size: Size) -> Fitted:
    height, width = image.shape[:2]
    box = (0.0, 0.0, float(width), float(height))
    return _resize(image, size, box), (size[0] / height, size[1] / width), box


def _pad(image: Frame, size: Size) -> Fitted:
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    pixels, exact, box = _stretch(image, inner)
    canvas = np.zeros((*size, 3), np.uint8)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = pixels
    return canvas, exact, box


_POLICIES = {"crop": _crop, "pad": _pad, "stretch": _stretch}


Way = Literal["stretch", "crop", "inside"]
KeyframeFit = Literal["auto", "stretch", "crop", "inside"]
# Shapes that differ by less than this many pixels of the larger picture are one.
NEGLIGIBLE = 1.0
# Pixels about a rim in which edges see it.
RIM = 8
# A picture with a side below this has no shape to speak of.
SMALLEST = 8
# Edges that agree by less than this are found together by chance.
AGREES = 0.1


@dataclass(frozen=True, eq=False)
class Placement:
    """How a keyframe is brought to its source's shape.

    Attributes:
        sides: (height, width) of the source as stored.
        how: "stretch" it; "crop" what is beyond the source's shape; "inside": it is the middle of the frame, and the
            source stays around it. None where it has the source's shape.
        record: of bringing it there.
        note: for the user; None where nothing was done.
    """

    sides: Size
    how: Way | None
    record: FitRecord
    note: str | None = None

    def place(
        self, keyframe: UInt8[np.ndarray, "_ _ 3"], frame: UInt8[np.ndarray, "h w 3"], policy: str
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The keyframe as `frame` looks: the source's frame, brought to its size by `fit(…, policy)`."""
        size = (frame.shape[0], frame.shape[1])
        if self.how is None or self.how == policy == "stretch":
            return fit(keyframe, size, policy)[0]
        if self.how != "inside":
            return fit(fit(keyframe, self.sides, self.how)[0], size, policy)[0]
        # Its rim is repeated beyond it, so that resizing mixes nothing foreign into it.
        beyond = fit(self._padded(keyframe, "edge"), size, policy)[0]
        share = self._covered(keyframe, size, policy)
        return np.rint(share * beyond + (1 - share) * frame).astype(np.uint8)

    def covers(
        self, keyframe: UInt8[np.ndarray, "_ _ 3"], size: Size, policy: str
    ) -> Bool[np.ndarray, "h w"]:
        """Where in the frame a keyframe that lies inside is seen."""
        return self._covered(keyframe, size, policy)[..., 0] > 0.5

    def _covered(self, keyframe: np.ndarray, size: Size, policy: str) -> Float32[np.ndarray, "h w 1"]:
        white = self._padded(np.full_like(keyframe, 255), "constant")
        return fit(white, size, policy)[0][..., :1].astype(np.float32) / 255

    def _padded(self, keyframe: np.ndarray, mode: Literal["edge", "constant"]) -> np.ndarray:
        """The keyframe scaled until it fits inside the source's shape, in the middle."""
        scale = min(side / own for side, own in zip(self.sides, keyframe.shape, strict=False))
        inner = [
            min(side, max(1, round(own * scale)))
            for side, own in zip(self.sides, keyframe.shape, strict=False)
        ]
        gaps = [(side - own) for side, own in zip(self.sides, inner, strict=True)]
        around = [(gap // 2, gap - gap // 2) for gap in gaps]
        return np.pad(fit(keyframe, (inner[0], inner[1]), "stretch")[0], [*around, (0, 0)], mode=mode)


def register(
    keyframe: UInt8[np.ndarray, "_ _ 3"],
    frame: UInt8[np.ndarray, "h w 3"],
    sides: Size,
    policy: str,
    how: KeyframeFit = "auto",
) -> Placement:
    """Decide how a keyframe belongs on its source.

    Args:
        keyframe: of any shape.
        frame: the source's frame, brought to its size by `policy`.
        sides: (height, width) of the source as stored.
        how: see `Placement`; "auto": whichever puts the keyframe's edges nearest to the frame's, and "stretch" where
            they agree in no way.

    Raises:
        InputError: an unknown policy.
    """
    height, width = keyframe.shape[:2]
    if same_shape((height, width), sides):
        return Placement(sides, None, fit(keyframe, sides, "stretch")[1])
    ways = {way: Placement(sides, way, fit(keyframe, sides, POLICY[way])[1]) for way in get_args(Way)}
    # Compared where all three have pixels of the keyframe, and its rim is no edge.
    covered = ways["inside"].covers(keyframe, (frame.shape[0], frame.shape[1]), policy)
    core = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    where = cv2.erode(covered.astype(np.uint8), core, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    agree = {w: _agreement(place.place(keyframe, frame, policy), frame, where) for w, place in ways.items()}
    best = max(agree, key=lambda way: agree[way])
    chosen = how if how != "auto" else best if agree[best] >= AGREES else "stretch"
    found = ", ".join(f"{way} {value:.2f}" for way, value in agree.items())
    doubt = "; none agrees" if how == "auto" and agree[best] < AGREES else ""
    note = (
        f"{width}x{height} is not of the source's shape, {sides[1]}x{sides[0]}: {DONE[chosen]} "
        f"(agreement of edges: {found}{doubt}; keyframe_fit chooses)"
    )
    return Placement(sides, chosen, ways[chosen].record, note)


def same_shape(a: Size, b: Size) -> bool:
    """Whether pictures of these sides have one shape, to less than a pixel of the larger one."""
    large, small = (a, b) if a[0] * a[1] >= b[0] * b[1] else (b, a)
    # A small picture's own sides are only known to half a pixel, which is more than one of the large picture's.
    height = small[0] * large[1] / small[1]
    return abs(height - large[0]) < max(NEGLIGIBLE, 0.5 * large[0] / small[0]) and min(small) >= SMALLEST


POLICY: dict[Way, str] = {"stretch": "stretch", "crop": "crop", "inside": "pad"}
DONE: dict[Way, str] = {
    "stretch": "stretched to it",
    "crop": "cropped to it",
    "inside": "laid inside it, the source around it",
}


def _agreement(
    a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"]
) -> float:
    """Correlation of the edges of two pictures, -1 … 1; an edit recolours, but leaves most edges in their place."""
    if not where.any():
        return 0.0
    x, y = (edges[where] - edges[where].mean() for edges in (_edges(a), _edges(b)))
    power = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / power if power else 0.0


def _edges(picture: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Where the brightness changes, and how strongly."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return np.sqrt(across * across + down * down)
