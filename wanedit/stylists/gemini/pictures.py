"""Pictures to Gemini and back.

Image models draw at a few fixed sizes: a picture is padded onto one, and the result cropped and resized back. The
canvas has exactly the size that the model draws at, so that a pixel of the answer and a pixel of the question are one
place. Padding mirrors the picture, since flat bars tempt a model to fill or frame them.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from wanedit.errors import InputError
from wanedit.files import reading
from wanedit.stylists.gemini.faults import WrongImageError
from wanedit.stylists.protocol import Record
from wanedit.video.arrays import AnyFrame
from wanedit.video.images import FORMATS, MAX_PIXELS, from_pillow

# width, height at "1K"; 2K and 4K are two and four times as large. As published for the Gemini 3 image models; of
# gemini-nano-banana-2.1 only 1:1 and 16:9 are confirmed. Sources differ on 2:3 and 4:5, within the tolerance below.
SIZES_1K = {
    "1:1": (1024, 1024),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
FACTOR = {"1K": 1, "2K": 2, "4K": 4}

# Published tables of two generations of these models differ by at most 2.3 % in ratio (1408x768 for 1376x768).
RATIO_TOLERANCE = 0.025


@dataclass(frozen=True)
class Transform:
    """How a picture lies on its canvas. Sizes are (width, height) in pixels, the box (left, top, right, bottom).

    Attributes:
        source: size of the picture.
        ratio: the name of the aspect ratio that is asked for.
        canvas: size of what is sent, and expected back.
        box: where the picture lies on the canvas.
    """

    source: tuple[int, int]
    ratio: str
    canvas: tuple[int, int]
    box: tuple[int, int, int, int]

    def apply(self, picture: AnyFrame) -> AnyFrame:
        """The picture on its canvas, mirrored at its edges."""
        left, top, right, bottom = self.box
        inner = _resize(picture, (right - left, bottom - top))
        width, height = self.canvas
        pads = ((top, height - bottom), (left, width - right), (0, 0))
        return np.pad(inner, pads, mode="symmetric")

    def undo(self, answer: AnyFrame) -> AnyFrame:
        """An answer back at the picture's place and size.

        Raises:
            WrongImageError: its aspect ratio is not the canvas's within RATIO_TOLERANCE.
        """
        self.check_ratio(answer)
        height, width = answer.shape[:2]
        across, down = width / self.canvas[0], height / self.canvas[1]
        left, top, right, bottom = self.box
        return _resize(answer, self.source, (left * across, top * down, right * across, bottom * down))

    def ratio_error(self, answer: AnyFrame) -> float:
        """By which part the answer's aspect ratio differs from the canvas's."""
        ratio = (answer.shape[1] / answer.shape[0]) / (self.canvas[0] / self.canvas[1])
        return max(ratio, 1 / ratio) - 1

    def check_ratio(self, answer: AnyFrame) -> None:
        """Raises WrongImageError for an answer that cannot be laid over the canvas."""
        error = self.ratio_error(answer)
        if error > RATIO_TOLERANCE:
            raise WrongImageError(
                f"the answer is {answer.shape[1]}x{answer.shape[0]}, {error:.1%} off the ratio of "
                f"{self.canvas[0]}x{self.canvas[1]} ({self.ratio}); expected at most {RATIO_TOLERANCE:.1%}"
            )

    def record(self, answer: AnyFrame) -> Record:
        """JSON values for the provenance: how it was laid out, and what came back."""
        return {
            "source": list(self.source),
            "ratio": self.ratio,
            "canvas": list(self.canvas),
            "box": list(self.box),
            "padding": "mirrored",
            "answer": [answer.shape[1], answer.shape[0]],
            "answer_ratio_error": round(self.ratio_error(answer), 6),
        }


def plan(picture: AnyFrame, image_size: str = "1K") -> Transform:
    """The canvas with the least padding for a picture."""
    height, width = picture.shape[:2]
    wanted = math.log(width / height)
    ratio = min(SIZES_1K, key=lambda name: abs(math.log(SIZES_1K[name][0] / SIZES_1K[name][1]) - wanted))
    canvas = (SIZES_1K[ratio][0] * FACTOR[image_size], SIZES_1K[ratio][1] * FACTOR[image_size])
    scale = min(canvas[0] / width, canvas[1] / height)
    inner = [
        min(max(1, round(side * scale)), whole) for side, whole in zip((width, height), canvas, strict=True)
    ]
    left, top = (canvas[0] - inner[0]) // 2, (canvas[1] - inner[1]) // 2
    return Transform((width, height), ratio, canvas, (left, top, left + inner[0], top + inner[1]))


def _resize(
    picture: AnyFrame, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> AnyFrame:
    """Lanczos, antialiased; `box` is the part that is seen, in pixels and fractions of them."""
    whole = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
    if (box or whole) == whole and size == (picture.shape[1], picture.shape[0]):
        return picture
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS, box=box))


REFERENCE_SIDE = 1536
COARSE_SIDE = 96
# A JPEG of quality 50 of a photograph differs from it by about 6 levels RMS, and by under 1 once it is shrunk.
FINE_TOLERANCE = 8.0
COARSE_TOLERANCE = 2.0
PLAIN_RANGE = 8  # levels
# Models brighten or flatten what they give back a little; a grade beyond this is taken for meant.
GAIN_DRIFT = 0.05
OFFSET_DRIFT = 5.0  # levels


def to_png(picture: AnyFrame, max_side: int | None = None) -> bytes:
    """A PNG of the picture, shrunk to `max_side` pixels if it is larger."""
    image = Image.fromarray(picture)
    if max_side is not None:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def decode(data: bytes, mime: str, max_pixels: int = MAX_PIXELS) -> tuple[AnyFrame, str]:
    """RGB pixels of an answer, and the format that it really has, whatever `mime` says.

    Raises:
        WrongImageError: not an image, truncated, or of more than `max_pixels` pixels, read from its header.
    """
    try:
        with reading("the answer", "an image"):
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except InputError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise WrongImageError(
                f"the answer's image has more than the {max_pixels} pixels allowed"
            ) from None
        raise WrongImageError(
            f"the answer says {mime} and holds {len(data)} bytes that are no image of a known format"
        ) from None
    if image.width * image.height > max_pixels:
        raise WrongImageError(
            f"the answer's image is {image.width}x{image.height}, more than the {max_pixels} pixels allowed"
        )
    kind = image.format or "unknown"
    try:
        return from_pillow(image, f"the answer ({kind})").pixels, kind
    except InputError as error:
        raise WrongImageError(str(error)) from None


def is_unchanged(source: AnyFrame, result: AnyFrame) -> bool:
    """Whether a result differs from its source by no more than compression, resizing and a slight drift of levels.

    A plain source, such as a black frame, may rightly come out as it was.
    """
    if int(np.ptp(source)) <= PLAIN_RANGE:
        return False
    if source.shape != result.shape:
        source = np.array(Image.fromarray(source).resize(result.shape[1::-1], Image.Resampling.LANCZOS))
    small, small_result = _shrunk(source), _shrunk(result)
    gain, offset = _drift(small, small_result)
    return (
        _rms(small * gain + offset, small_result) <= COARSE_TOLERANCE
        and _rms(source * gain + offset, result) <= FINE_TOLERANCE
    )


def _drift(source: np.ndarray, result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset of each channel that lead from one picture to the other; 1 and 0 where they are not slight."""
    first, second = (picture.reshape(-1, 3).astype(np.float32) for picture in (source, result))
    spread = first - first.mean(0)
    gain = (spread * second).sum(0) / np.maximum((spread**2).sum(0), 1)
    offset = second.mean(0) - gain * first.mean(0)
    slight = (np.abs(gain - 1) <= GAIN_DRIFT) & (np.abs(offset) <= OFFSET_DRIFT)
    return np.where(slight, gain, 1).astype(np.float32), np.where(slight, offset, 0).astype(np.float32)


def _shrunk(picture: AnyFrame) -> np.ndarray:
    scale = COARSE_SIDE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _rms(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2)))
