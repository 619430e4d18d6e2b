"""Pictures to and from bytes, and whether a result is only the source again."""

import io
import warnings

import numpy as np
from PIL import Image

from wanedit.errors import InputError
from wanedit.stylists.gemini_errors import WrongImageError
from wanedit.video.arrays import AnyFrame
from wanedit.video.images import FORMATS, MAX_PIXELS, from_pillow

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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise WrongImageError(f"the answer's image has more than the {max_pixels} pixels allowed") from None
    except (OSError, SyntaxError, ValueError):
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
