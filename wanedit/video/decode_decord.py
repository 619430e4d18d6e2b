"""decord as a decoder, for those who compare with pipelines that read through it.

decord 0.6.0 is exact where it reads a whole file from its first frame on. What it gets wrong it does not tell: it
shows a damaged frame as if nothing were or another in its place, begins an MPEG transport stream at the second
keyframe, miscounts from a keyframe that pictures shown before it refer to, and returns four channels of nonsense
where a video is to be turned by 90 degrees; and it is reported never to come back from opening some damaged
files. So it is handed a file only after all of it was decoded through PyAV, without the conversion to RGB that
costs the most.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.container import InputContainer
from jaxtyping import Float

from wanedit.errors import InputError
from wanedit.video.arrays import Frame
from wanedit.video.libav import UNSPECIFIED_COLOUR, PacketIndex, decoded_pictures, open_video

INSTALL = "pip install 'wanedit[decord]'"

_CONTAINERS = {"mov": "mp4 or mov", "matroska": "Matroska or WebM", "avi": "AVI"}  # by FFmpeg's first name
_HD = 720
_RAISED = (RuntimeError, AssertionError)
_ANY_REPEAT = 1e-9  # share of frames that may stand in for others; decord counts them only if it is above 0


@dataclass(frozen=True)
class _Stream:
    """What PyAV found in a file that it decoded to the end."""

    container: str
    height: int
    width: int
    is_untagged_hd: bool


class DecordDecoder:
    """Implements `wanedit.video.decode.Decoder`; does not salvage.

    Colours come from decord's own, faster conversion, on average 1 to 1.5 levels darker than PyAV's.

    Raises:
        InputError: decord is not installed or does not load; here, and nowhere later.
    """

    def __init__(self) -> None:
        self.decord = _imported()

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        stream = _checked(path, index, salvage)
        return self._in_order(self._open(path, index), path, stream, range(index.frames))

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        stream = _checked(path, index, salvage)
        reader = self._open(path, index)
        # decord numbers keyframes by packet: that is their place on the screen where no picture refers across them
        exact = index.seekable and stream.container != "avi" and reader.get_key_indices() == list(index.keys)
        read = self._by_seeking if exact else self._in_order
        return read(reader, path, stream, wanted)

    def _open(self, path: Path, index: PacketIndex) -> Any:
        # with an absolute path, since 'a:b.mp4' would be read as protocol 'a'
        name, decord = os.path.abspath(path), self.decord
        reader = self._call(
            path, lambda: decord.VideoReader(name, decord.cpu(0), num_threads=1, fault_tol=_ANY_REPEAT)
        )
        if len(reader) != index.frames:
            raise InputError(
                f"{path}: decord counts {len(reader)} frames, the packets hold {index.frames}; "
                "decoder: pyav goes by the packets"
            )
        return reader

    def _in_order(self, reader: Any, path: Path, stream: _Stream, wanted: Sequence[int]) -> Iterator[Frame]:
        chosen = set(wanted)
        for number in range(wanted[-1] + 1):
            frame = self._call(path, reader.next)
            if number in chosen:
                yield _rgb(frame, path, stream)

    def _by_seeking(self, reader: Any, path: Path, stream: _Stream, wanted: Sequence[int]) -> Iterator[Frame]:
        for number in wanted:
            yield _rgb(self._call(path, lambda number=number: reader[number]), path, stream)

    def _call(self, path: Path, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except StopIteration as error:
            raise InputError(f"{path}: decord ends before the last frame; decoder: pyav reads it") from error
        # its library has two errors of its own, its Python code raises the others
        except (self.decord.DECORDError, self.decord.DECORDLimitReachedError, *_RAISED) as error:
            raise InputError(
                f"{path}: decord cannot read it ({_reason(error)}); decoder: pyav may"
            ) from error


def _imported() -> Any:
    try:
        import decord
    except (ImportError, OSError, RuntimeError) as error:  # the last two where its library does not load
        raise InputError(f"decoder 'decord' is not installed ({_reason(error)}): {INSTALL}") from error
    return decord


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _checked(path: Path, index: PacketIndex, salvage: bool) -> _Stream:
    """Decode all of a file through PyAV. Raises InputError for damage and for what decord reads wrongly."""
    if salvage:
        raise InputError(f"{path}: decord cannot salvage, it hides what is damaged; decoder: pyav can")
    with open_video(path) as container:
        kind = _known(container, path)
        count, first = 0, None
        for picture in decoded_pictures(container, path, salvage=False):
            first, count = first or picture, count + 1
    if first is None or count != index.frames:
        raise InputError(
            f"{path}: {index.frames} frames expected, {count} decoded; decoder: pyav can salvage"
        )
    if round(first.rotation / 90) % 2:
        raise InputError(
            f"{path}: is shown turned by {first.rotation} degrees, which decord gets wrong; decoder: pyav reads it"
        )
    untagged = first.colorspace == UNSPECIFIED_COLOUR and not first.format.is_rgb
    return _Stream(kind, first.height, first.width, untagged and first.height >= _HD)


def _known(container: InputContainer, path: Path) -> str:
    kind = container.format.name.split(",")[0]
    if kind not in _CONTAINERS:
        expected = ", ".join(_CONTAINERS.values())
        raise InputError(f"{path}: decord is exact with {expected}, got {kind}; decoder: pyav reads it")
    if container.streams.video[0].codec.canonical_name == "av1":
        raise InputError(f"{path}: decord has no decoder for AV1; decoder: pyav reads it")
    return kind


def _rgb(frame: Any, path: Path, stream: _Stream) -> Frame:
    """The frame as an array of its own, whatever framework decord's bridge is set to."""
    rgb = frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame).copy()
    if rgb.shape != (stream.height, stream.width, 3):
        raise InputError(
            f"{path}: decord returns frames of shape {rgb.shape}, expected {(stream.height, stream.width, 3)}; "
            "decoder: pyav reads it"
        )
    return cv2.transform(rgb, _FROM_601_TO_709) if stream.is_untagged_hd else rgb


def _from_ycbcr(kr: float, kb: float) -> Float[np.ndarray, "3 3"]:
    """Y'CbCr to R'G'B' for the luma weights of red and blue (ITU-R BT.601 and BT.709, item 3)."""
    cr, cb = 2 * (1 - kr), 2 * (1 - kb)
    kg = 1 - kr - kb
    return np.array([[1, 0, cr], [1, -kb * cb / kg, -kr * cr / kg], [1, cb, 0]])


# decord takes untagged video of any size as BT.601, players (and PyAV's `to_rgb`) from 720 lines up as BT.709
_FROM_601_TO_709 = _from_ycbcr(0.2126, 0.0722) @ np.linalg.inv(_from_ycbcr(0.299, 0.114))
