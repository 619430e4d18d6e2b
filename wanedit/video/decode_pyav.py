"""The default decoder: FFmpeg through PyAV, exact by packet index, on files that it did not write too."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from av import Packet, VideoFrame, logging
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError

from wanedit.errors import InputError
from wanedit.video.arrays import Frame
from wanedit.video.index import SALVAGE_HINT, PacketIndex
from wanedit.video.libav import ACCURATE_SCALING, open_video, packets

Log = list[tuple[int, str, str]]

UNSPECIFIED_COLOUR = 2  # AVCOL_SPC_UNSPECIFIED


class PyAVDecoder:
    """Implements `wanedit.video.decode.Decoder`."""

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        with open_video(path) as container:
            yield from map(to_rgb, decoded_pictures(container, path, salvage))

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        with open_video(path) as container:
            for group in _runs(index, wanted):
                pictures = _by_seeking(container, path, index, group, salvage) if index.seekable else None
                if pictures is None:
                    pictures = _by_counting(container, path, group, salvage)
                yield from map(to_rgb, pictures)


def first_picture(container: InputContainer, path: Path) -> VideoFrame:
    """The first picture that decodes, damaged or not. Raises InputError if there is none."""
    picture = next(decoded_pictures(container, path, salvage=True), None)
    if picture is None:
        raise InputError(f"{path}: not one frame can be decoded")
    return picture


def to_rgb(picture: VideoFrame) -> Frame:
    """Convert by the picture's own colour matrix, and turn upright.

    Untagged files are taken as players take them: BT.709 from 720 lines up, BT.601 below.
    """
    untagged = "ITU709" if picture.height >= 720 else "ITU601"
    source = untagged if picture.colorspace == UNSPECIFIED_COLOUR else None
    rgb = picture.reformat(format="rgb24", src_colorspace=source, interpolation=ACCURATE_SCALING)
    turns = round(picture.rotation / 90)
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), turns))


def _runs(index: PacketIndex, wanted: Sequence[int]) -> Iterator[list[int]]:
    """Cut ascending indices where jumping to a keyframe saves decoding."""
    run: list[int] = []
    for frame in wanted:
        if run and index.key_before(frame) > run[-1] + 1:
            yield run
            run = []
        run.append(frame)
    yield run


def _by_seeking(
    container: InputContainer, path: Path, index: PacketIndex, wanted: list[int], salvage: bool
) -> list[VideoFrame] | None:
    """The wanted pictures, told by their times; None if the file's seek table led past one of them."""
    stream = container.streams.video[0]
    container.seek(index.pts[index.key_before(wanted[0])], stream=stream, backward=True)
    missing = {index.pts[i] for i in wanted}
    found: list[VideoFrame] = []
    for picture in decoded_pictures(container, path, salvage):
        if picture.pts in missing:
            missing.remove(picture.pts)
            found.append(picture)
        if not missing:
            return found
    return None


def _by_counting(
    container: InputContainer, path: Path, wanted: list[int], salvage: bool
) -> Iterator[VideoFrame]:
    container.seek(0, backward=True)
    chosen = set(wanted)
    for number, picture in enumerate(decoded_pictures(container, path, salvage)):
        if number in chosen:
            yield picture
        if number == wanted[-1]:
            return


def decoded_pictures(container: InputContainer, path: Path, salvage: bool) -> Iterator[VideoFrame]:
    """Decode from where the file stands. InputError at damage, unless salvaging."""
    stream = container.streams.video[0]
    checked = stream.codec_context.name == "ffv1"  # which tells of a wrong checksum only in its log
    count = 0
    try:
        for packet in packets(container, stream):
            pictures, damage = _decode(packet, checked)
            if damage and not salvage:
                raise InputError(f"{path}: frame {count} is damaged ({damage}); {SALVAGE_HINT}")
            for picture in pictures:
                yield picture
                count += 1
    except FFmpegError as error:
        if not salvage:
            raise InputError(f"{path}: decoding stopped after {count} frames ({error.strerror})") from error


def _decode(packet: Packet, checked: bool) -> tuple[list[VideoFrame], str]:
    """The pictures that a packet completes, and what is wrong with them ('' if nothing)."""
    try:
        with _log(checked) as log:
            pictures = list(packet.decode())
    except InvalidDataError as error:
        return [], error.strerror or "invalid data"
    if any("CRC mismatch" in message for _, _, message in log):
        return pictures, "wrong checksum"
    return pictures, "lost data" if any(picture.is_corrupt for picture in pictures) else ""


_log_lock = threading.Lock()


@contextmanager
def _log(wanted: bool) -> Iterator[Log]:
    """What FFmpeg logs on this thread meanwhile. Its level is global, so one decoder at a time."""
    if not wanted:
        yield []
        return
    with _log_lock:
        level = logging.get_level()
        logging.set_level(logging.ERROR)
        try:
            with logging.Capture(local=True) as log:
                yield log
        finally:
            logging.set_level(level)
