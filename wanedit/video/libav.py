"""Video files through FFmpeg: open one, count its packets, decode its pictures, exact by index.

What a file holds is what its packets hold; what its header declares is only compared.
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av import Packet, VideoFrame, VideoStream, logging
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.video.reformatter import Interpolation

from wanedit.errors import InputError
from wanedit.video.arrays import Clock, Frame

# Names of demuxers. Playlists, which open other files and addresses, and text rendered as video are left out.
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif,apng,ivf,asf,mxf,h264,hevc,obu,yuv4mpegpipe"

SALVAGE_HINT = "salvage=True reads what is there"

# Exact colour; swscale's fast path is off by -0.9 levels in red and blue and by -1.4 in green.
ACCURATE_SCALING = int(
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


def open_video(path: Path, options: dict[str, str] | None = None) -> "InputContainer":
    """Open a video file with PyAV. Raises InputError if it is missing, no file, no video, or unreadable."""
    if not path.is_file():  # a named pipe would wait for a writer for ever
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    only_files = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        # an absolute path, since 'a:b.mp4' would be read as protocol 'a'
        container = av.open(os.path.abspath(path), options=options or {}, container_options=only_files)
    except (FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: not a readable video file ({reason})") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no video stream")
    if container.streams.video[0].codec_context is None:  # PyAV finds no decoder for what the header names
        container.close()
        raise InputError(f"{path}: its video is in a codec that this FFmpeg does not know")
    # With threads of its own a decoder loses the mark of a damaged picture: of 60 damaged H.264 clips 5 are
    # noticed with them and 59 without. And a log line can be caught on the thread that decodes only.
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.thread_type = "NONE"
    return container


def packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet]:
    """The packets of these streams (of all, if none is named), and an empty one at the end of each."""
    # PyAV fails after the last packet of an MPEG transport stream in which another stream began on the way
    with suppress(IndexError):
        yield from container.demux(*streams)


@dataclass(frozen=True)
class PacketIndex:
    """The frames that a file shows, in order of presentation.

    pts: presentation time of each frame, in units of `time_base` seconds. end: when the last one ends.
    keys: which of them can be decoded without any other, ascending.
    seekable: every frame has a time of its own, so a decoded frame can be told by its time.
    declared: how many frames the header promises; None where it promises nothing.
    finished: False where the writer never came to close the file.
    """

    pts: tuple[int, ...]
    end: int
    keys: tuple[int, ...]
    time_base: Fraction
    fps: Fraction
    seekable: bool
    declared: int | None
    finished: bool

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def clock(self) -> Clock | None:
        """The same as a clock; None where frames have no times of their own."""
        return Clock(self.pts, self.end, self.time_base) if self.seekable and self.pts else None

    @property
    def times(self) -> tuple[float, ...]:
        """Presentation time of each frame in seconds, from the first frame's."""
        return tuple(float((pts - self.pts[0]) * self.time_base) for pts in self.pts)

    def key_before(self, frame: int) -> int:
        """The last frame at or before `frame` from which decoding can start."""
        place = bisect_right(self.keys, frame)
        return self.keys[place - 1] if place else 0

    def require_complete(self, path: Path) -> None:
        """Raise InputError unless the file holds what its header declares."""
        found = f"{self.frames} whole frames found"
        if not self.finished:
            raise InputError(f"{path}: its writer was stopped before the end, {found}; {SALVAGE_HINT}")
        if self.declared not in (None, self.frames):
            raise InputError(f"{path}: the header declares {self.declared} frames, {found}; {SALVAGE_HINT}")
        if not self.frames:
            raise InputError(f"{path}: no frames")


def scan(path: Path) -> PacketIndex:
    """Count the frames of a file by reading all its packets, decoding none. Raises InputError as `open_video`."""
    found = _Packets(path)
    fps = found.rate()
    order = sorted(range(len(found.pts)), key=lambda i: found.pts[i])
    rank = {packet: frame for frame, packet in enumerate(order)}
    return PacketIndex(
        pts=tuple(found.pts[i] for i in order),
        end=round(found.video_end / found.time_base),
        keys=tuple(sorted(rank[i] for i in found.keys)),
        time_base=found.time_base,
        fps=fps,
        seekable=found.timed and len(set(found.pts)) == len(found.pts),
        declared=found.declared(fps),
        finished=found.finished,
    )


class _Packets:
    """One pass over the packets of a file."""

    def __init__(self, path: Path, options: dict[str, str] | None = None) -> None:
        self.path = path
        self.pts: list[int] = []
        self.keys: list[int] = []
        self.timed = True
        self.total = 0  # whole packets, those hidden by an edit list included
        self.video_end = self.end = Fraction(0)
        with open_video(path, options) as container:
            stream = container.streams.video[0]
            self.time_base = stream.time_base or Fraction(1, 1000)
            self.average_rate = stream.average_rate or stream.guessed_rate
            self.header_frames = stream.frames
            self.seconds = None if container.duration is None else Fraction(container.duration, 1_000_000)
            self.start = Fraction(container.start_time or 0, 1_000_000)
            self.stream_seconds = _clock_seconds(stream.metadata.get("DURATION"))
            self.finished = self.seconds is not None or "matroska" not in container.format.name
            try:
                for packet in packets(container):
                    self._note(packet, packet.stream_index == stream.index)
            except FFmpegError:  # damage between packets: what was read so far is all there is
                self.finished = False

    def _note(self, packet: Packet, video: bool) -> None:
        """When a packet ends, and, of a whole one of the video, which frame it shows."""
        if packet.pts is not None and packet.size and packet.time_base is not None:
            end = (packet.pts + (packet.duration or 0)) * packet.time_base
            if video and not packet.duration and self.average_rate:
                end += 1 / self.average_rate
            self.end = max(self.end, end)
            if video:
                self.video_end = max(self.video_end, end)
        if not video or not packet.size or packet.is_corrupt:
            return
        self.total += 1
        if packet.is_discard:
            return
        if packet.is_keyframe:
            self.keys.append(len(self.pts))
        self.timed = self.timed and packet.pts is not None
        self.pts.append(len(self.pts) if packet.pts is None else packet.pts)

    def rate(self) -> Fraction:
        """The header's frame rate, or the one that the packets keep."""
        if self.average_rate:
            return Fraction(self.average_rate)
        span = (max(self.pts) - min(self.pts)) * self.time_base if self.timed and self.pts else Fraction(0)
        return (len(self.pts) - 1) / span if span else Fraction(25)

    def declared(self, fps: Fraction) -> int | None:
        """Frames that the header promises, counting only those to be shown; None if it promises nothing."""
        if self.header_frames:
            # An mp4 may hold more frames than it shows; with the edit list ignored all must be there.
            hidden = self.header_frames != len(self.pts) and (
                _Packets(self.path, {"ignore_editlist": "1"}).total == self.header_frames
            )
            return len(self.pts) if hidden else self.header_frames
        if self.stream_seconds is not None:  # FFmpeg's and mkvtoolnix's own tag, exact to the millisecond
            missing = round((self.stream_seconds - self.video_end) * fps)
        elif self.seconds is not None:  # of the longest stream, kept loosely by some writers
            missing = round((self.start + self.seconds - self.end - Fraction(1, 10)) * fps)
        else:
            return None
        return len(self.pts) + max(missing, 0)


def _clock_seconds(text: str | None) -> Fraction | None:
    """'00:00:01.251000000' -> 1.251; None for what is no such tag."""
    if not text or text.count(":") != 2:
        return None
    try:
        hours, minutes, seconds = (Fraction(part) for part in text.split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


Log = list[tuple[int, str, str]]

UNSPECIFIED_COLOUR = 2  # AVCOL_SPC_UNSPECIFIED


class PyAVDecoder:
    """Implements `wanedit.video.decode.Decoder`."""

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        with open_video(path) as container:
            yield from map(to_rgb, decoded_pictures(container, path, salvage))

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        runs: list[list[int]] = []
        for frame in wanted:
            # A new run begins where jumping to a keyframe saves decoding.
            if not runs or index.key_before(frame) > runs[-1][-1] + 1:
                runs.append([])
            runs[-1].append(frame)
        with open_video(path) as container:
            for run in runs:
                pictures = _by_seeking(container, path, index, run, salvage) if index.seekable else None
                if pictures is None:  # counted from the first one
                    container.seek(0, backward=True)
                    upto, chosen = islice(decoded_pictures(container, path, salvage), run[-1] + 1), set(run)
                    pictures = (picture for number, picture in enumerate(upto) if number in chosen)
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


def decoded_pictures(container: InputContainer, path: Path, salvage: bool) -> Iterator[VideoFrame]:
    """Decode from where the file stands. InputError at damage, unless salvaging."""
    stream = container.streams.video[0]
    checked = stream.codec_context.name == "ffv1"  # which tells of a wrong checksum only in its log
    count = 0
    try:
        for packet in packets(container, stream):
            pictures, damage = list[VideoFrame](), ""
            try:
                with _log(checked) as log:
                    pictures = list(packet.decode())
            except InvalidDataError as error:
                damage = error.strerror or "invalid data"
            else:
                if any("CRC mismatch" in message for _, _, message in log):
                    damage = "wrong checksum"
                elif any(picture.is_corrupt for picture in pictures):
                    damage = "lost data"
            if damage and not salvage:
                raise InputError(f"{path}: frame {count} is damaged ({damage}); {SALVAGE_HINT}")
            for picture in pictures:
                yield picture
                count += 1
    except FFmpegError as error:
        if not salvage:
            raise InputError(f"{path}: decoding stopped after {count} frames ({error.strerror})") from error


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
