"""Whether a file ends as its format says that a whole one does, where FFmpeg reads a cut one without a word."""

from collections.abc import Callable
from pathlib import Path

_TAIL = 4 << 20  # bytes from the end in which a format's last part is looked for

# GUIDs of ASF's objects, and the first bytes of MXF's partitions, as they stand in a file.
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_INDEX = bytes.fromhex("90080033b1e5cf1189f400a0c90349cb")
_MXF_FOOTER = bytes.fromhex("060e2b34020501010d01020101 04")


def breaks_off(path: Path, demuxer: str, data_end: int | None) -> bool:
    """Whether a file is cut, as far as its last bytes tell.

    Args:
        demuxer: FFmpeg's name of the format.
        data_end: where the last packet of the video ends in the file; None where FFmpeg does not say.
    """
    size = path.stat().st_size
    if demuxer == "yuv4mpegpipe":  # which has frames of one size and nothing behind the last
        return data_end is not None and data_end != size
    if demuxer not in _WHOLE:
        return False
    with path.open("rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, size - _TAIL))
        return not _WHOLE[demuxer](head, file.read(), size)


def keeps_place(path: Path) -> bool:
    """Whether a Matroska file begins with a place kept free, which FFmpeg's writer fills when it is closed."""
    with path.open("rb") as file:
        # A Segment of unknown size (RFC 9559, section 5.1), and a Void (RFC 8794, section 11.3.2) for its index.
        return b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff\xec" in file.read(256)


def _gif(head: bytes, tail: bytes, size: int) -> bool:
    # GIF89a, section 27: a trailer, after the empty block that ends a picture or an extension. Some programs pad it.
    return tail.rstrip(b"\0\r\n").endswith(b"\0;")


def _apng(head: bytes, tail: bytes, size: int) -> bool:
    # PNG, section 11.2.5: an empty chunk IEND with its checksum. Other data may follow.
    return b"\0\0\0\0IEND\xaeB`\x82" in tail


def _flv(head: bytes, tail: bytes, size: int) -> bool:
    # FLV 10.1, annex E.3: behind each tag stands how long it was, which is 11 more than what its own head says.
    length = int.from_bytes(tail[-4:])
    return 11 <= length <= len(tail) - 4 and int.from_bytes(tail[-3 - length : -length]) == length - 11


def _asf(head: bytes, tail: bytes, size: int) -> bool:
    # ASF 1.20, section 3.2: the size of the file, and whether it is broadcast, when nothing there is valid but that
    # all data packets are of one size (offsets 40, 88 and 92 in the object).
    at = head.find(_ASF_FILE)
    if at < 0:
        return True
    broadcast = head[at + 88] & 1
    if not broadcast:
        return size >= int.from_bytes(head[at + 40 : at + 48], "little")
    packet = int.from_bytes(head[at + 92 : at + 96], "little")
    start = int.from_bytes(head[16:24], "little") + 50  # behind the header and the head of the data object
    index = tail.rfind(_ASF_INDEX)
    end = size if index < 0 else size - len(tail) + index
    return not packet or (end - start) % packet == 0


def _mxf(head: bytes, tail: bytes, size: int) -> bool:
    # SMPTE 377-1, section 7.1: the first partition names the place of the footer, if its writer could come back.
    length = head[16]
    value = 17 + (length & 0x7F if length & 0x80 else 0)
    footer = int.from_bytes(head[value + 24 : value + 32])
    return footer < size if footer else _MXF_FOOTER in tail


_WHOLE: dict[str, Callable[[bytes, bytes, int], bool]] = {
    "gif": _gif,
    "apng": _apng,
    "flv": _flv,
    "asf": _asf,
    "mxf": _mxf,
}
