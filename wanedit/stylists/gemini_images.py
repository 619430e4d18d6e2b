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
    """Whether a result of the source's size differs from it by no more than compression and resizing do.

    A plain source, such as a black frame, may rightly come out as it was.
    """
    if int(np.ptp(source)) <= PLAIN_RANGE:
        return False
    coarse = [_shrunk(picture) for picture in (source, result)]
    return _rms(source, result) <= FINE_TOLERANCE and _rms(*coarse) <= COARSE_TOLERANCE


def _shrunk(picture: AnyFrame) -> np.ndarray:
    scale = COARSE_SIDE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _rms(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.sqrt(np.mean((first.astype(np.float32) - second.astype(np.float32)) ** 2)))
