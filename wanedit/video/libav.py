"""Video files through FFmpeg: open one, count its packets, decode its pictures, exact by index.

What a file holds is what its packets hold; what its header declares is only compared.
"""

import io
import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, count, islice, pairwise
from math import ceil
from pathlib import Path

import av
from av import CodecContext, Packet, VideoCodecContext, VideoFrame, VideoStream, logging
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from PIL import Image

from wanedit.errors import InputError
from wanedit.files import is_refused, reading, require_file
from wanedit.video.arrays import Clock, Frame
from wanedit.video.display import Display
from wanedit.video.ending import breaks_off, keeps_place
from wanedit.video.images import CONTAINERS, count_pictures, is_animated_png

SALVAGE_HINT = "`wanedit edit --salvage`, in Python salvage=True, reads what is there"


def open_video(path: Path, options: dict[str, str] | None = None) -> "InputContainer":
    """Open a video file with PyAV. Raises InputError if it is missing, no file, no video, or unreadable."""
    require_file(path, "a video")
    only_files = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        container = av.open(
            os.path.abspath(path),  # since 'a:b.mp4' would be read as protocol 'a'
            # FFmpeg looks for what tells an animation in a PNG's first bytes only, where a colour profile may stand.
            format="apng" if is_animated_png(path) else None,
            options=options or {},
            container_options=only_files,
        )
    except (FFmpegError, ValueError) as error:
        if is_refused(error, path):
            raise
        reason = getattr(error, "strerror", None) or error
        if count_pictures(path):
            raise InputError(
                f"{path}: is a picture; expected a video, an animation or a folder of pictures"
            ) from error
        raise InputError(f"{path}: not a readable video file ({reason})") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no video stream")
    stream = video_stream(container)
    if stream.disposition & Disposition.attached_pic:
        container.close()
        raise InputError(f"{path}: holds a cover picture and no video stream")
    if stream.codec_context is None:  # PyAV finds no decoder for what the header names
        container.close()
        raise InputError(f"{path}: its video is in a codec that this FFmpeg does not know")
    # With threads of its own a decoder loses the mark of a damaged picture: of 60 damaged H.264 clips 5 are
    # noticed with them and 59 without. And a log line can be caught on the thread that decodes only.
    for stream in container.streams.video:
        if stream.codec_context is not None:
            stream.thread_type = "NONE"
    return container


def video_stream(container: InputContainer) -> VideoStream:
    """The film of a file, as FFmpeg chooses it: no cover picture and no still, if there is anything else."""
    best = container.streams.best("video")
    return best if isinstance(best, VideoStream) else container.streams.video[0]


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
    fps: frames a second; where they are not evenly spaced, on average.
    seekable: every frame has a time of its own, so a decoded frame can be told by its time.
    declared: how many frames the header promises; None where it promises nothing.
    finished: False where the file breaks off.
    assumed_rate: nothing in the file says how fast it is; `fps` is FFmpeg's guess.
    """

    pts: tuple[int, ...]
    end: int
    keys: tuple[int, ...]
    time_base: Fraction
    fps: Fraction
    seekable: bool
    declared: int | None
    finished: bool
    assumed_rate: bool = False

    @property
    def frames(self) -> int:
        return len(self.pts)

    @property
    def clock(self) -> Clock | None:
        """The same as a clock; None where frames have no times of their own."""
        return Clock(self.pts, self.end, self.time_base) if self.seekable and self.pts else None

    @property
    def variable_rate(self) -> bool:
        """Whether frames are not evenly spaced."""
        return not Clock(self.pts, self.end, self.time_base).even

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
        if self.declared not in (None, self.frames):
            raise InputError(f"{path}: the header declares {self.declared} frames, {found}; {SALVAGE_HINT}")
        if not self.finished:
            raise InputError(f"{path}: breaks off before its end, {found}; {SALVAGE_HINT}")
        if not self.frames:
            raise InputError(f"{path}: no frames")


def scan(path: Path) -> PacketIndex:
    """Count the frames of a file by reading all its packets, decoding none. Raises InputError as `open_video`."""
    found = _Packets(path)
    order = sorted(range(len(found.pts)), key=lambda i: found.pts[i])
    rank = {packet: frame for frame, packet in enumerate(order)}
    pts = tuple(found.pts[i] for i in order)
    end = pts[-1] + found.lasts(pts, order[-1]) if pts else 0
    header = Fraction(found.average_rate) if found.average_rate else None
    fps = kept_rate(pts, end, found.time_base, header) if found.timed else header or Fraction(25)
    return PacketIndex(
        pts=pts,
        end=end,
        keys=tuple(sorted(rank[i] for i in found.keys)),
        time_base=found.time_base if found.timed else 1 / fps,
        fps=fps,
        seekable=found.timed and len(set(found.pts)) == len(found.pts),
        declared=found.declared(fps),
        finished=found.finished,
        assumed_rate=found.assumed_rate,
    )


_ROUNDED = Fraction(1, 5000)  # a fifth of what broadcast's rates differ from whole ones
# Rates that are meant where the frames' times allow them.
_USUAL = (*map(Fraction, (24, 25, 30, 50, 60)), *(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)))


def kept_rate(pts: Sequence[int], end: int, time_base: Fraction, header: Fraction | None) -> Fraction:
    """Frames a second of these times, in ticks of `time_base`: the header's where they keep it, else their own.

    Within the rounding of the clock, even ones mean a usual rate, a whole number or the shortest fraction.
    """
    steps = [b - a for a, b in pairwise(pts)]
    if not steps or pts[0] == pts[-1]:
        return header or (
            1 / (end * time_base - pts[0] * time_base) if pts and end > pts[0] else Fraction(25)
        )
    if max(steps) - min(steps) > 1:
        return len(pts) / ((end - pts[0]) * time_base)
    # The first and the last time are rounded by up to half a tick each, and some writers round every step.
    span = len(steps) / time_base
    low, high = span / (pts[-1] - pts[0] + 1), span / max(pts[-1] - pts[0] - 1, 1)
    low, high = low * (1 - _ROUNDED), high * (1 + _ROUNDED)
    for rate in (header, *_USUAL, Fraction(ceil(low))):
        if rate and low <= rate <= high:
            return rate
    # Of a frame every few years, too, the search begins where a numerator of 1 is possible.
    denominator = next(d for d in count(max(1, ceil(1 / high))) if ceil(low * d) <= high * d)
    return Fraction(ceil(low * denominator), denominator)


# Streams without a container. FFmpeg sets a clock of 25 a second to them, whatever rate they state.
_BARE = ("h264", "hevc", "obu")
_PLACEHOLDER = 1 << 30  # frames, and more, that FFmpeg writes where it does not know them (AVI, IVF)


class _Packets:
    """One pass over the packets of a file."""

    def __init__(self, path: Path, options: dict[str, str] | None = None) -> None:
        self.path = path
        self.pts: list[int] = []
        self.durations: list[int] = []
        self.keys: list[int] = []
        self.timed = True
        self.total = 0  # whole packets, those hidden by an edit list included
        self.video_end = self.end = Fraction(0)
        with reading(path, "a whole video", computes=True), open_video(path, options) as container:
            stream = video_stream(container)
            self.time_base = stream.time_base or Fraction(1, 1000)
            self.average_rate = stream.average_rate or stream.guessed_rate
            self.assumed_rate = False
            if container.format.name in _BARE:
                stated = stream.codec_context.framerate
                self.average_rate, self.assumed_rate = stated or self.average_rate, not stated
            # What a writer to a pipe leaves in its head, for it cannot come back, is no promise.
            open_end = stream.frames >= _PLACEHOLDER
            self.header_frames = 0 if open_end else stream.frames
            duration = None if open_end else container.duration
            self.seconds = None if duration is None else Fraction(duration, 1_000_000)
            self.start = Fraction(container.start_time or 0, 1_000_000)
            self.stream_seconds = clock_seconds(stream.metadata.get("DURATION"))
            self.finished = True
            self.repeats = container.format.name == "avi"
            self.seen, self.ticks, self.data_end, self.cut = 0, 0, None, False
            # Browsers and pipes write Matroska without a duration. It is whole, unless its writer meant to fill one in,
            # or the demuxer's log says that the last piece is not.
            unfinished = self.seconds is None and "matroska" in container.format.name
            try:
                with _log(unfinished) as log:
                    for packet in packets(container):
                        self._note(packet, packet.stream_index == stream.index)
                if unfinished:
                    cut = any("ended prematurely" in message for _, _, message in log)
                    self.finished = not cut and not keeps_place(path)
                elif self.cut or breaks_off(path, container.format.name, self.data_end):
                    self.finished = False
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
        if not video or not packet.size:
            return
        self.seen += 1
        if packet.dts is not None:
            self.ticks = max(self.ticks, packet.dts + 1)
        if packet.pos is not None:
            self.data_end = packet.pos + packet.size
        self.cut = packet.is_corrupt  # by the end of the file, if it is the last
        if packet.is_corrupt:
            return
        self.total += 1
        if packet.is_discard:
            return
        if packet.is_keyframe:
            self.keys.append(len(self.pts))
        self.timed = self.timed and packet.pts is not None
        self.pts.append(len(self.pts) if packet.pts is None else packet.pts)
        self.durations.append(packet.duration or 0)

    def lasts(self, pts: Sequence[int], packet: int) -> int:
        """How long the last frame is shown, in ticks: as its packet says, else as long as the one before."""
        if not self.timed:
            return 1
        if self.durations[packet] > 0:  # below it only in damaged files
            return self.durations[packet]
        if len(pts) > 1:
            return pts[-1] - pts[-2]
        return round(1 / self.average_rate / self.time_base) if self.average_rate else 1

    def declared(self, fps: Fraction) -> int | None:
        """Frames that the header promises, counting only those to be shown; None if it promises nothing."""
        if self.header_frames:
            # An mp4 may hold more frames than it shows; with the edit list ignored all must be there.
            hidden = self.header_frames != len(self.pts) and (
                _Packets(self.path, {"ignore_editlist": "1"}).total == self.header_frames
            )
            # In AVI, whose ticks are chunks, an empty chunk says that the picture before stays. FFmpeg passes over it,
            # while the header counts it.
            empty = max(0, self.ticks - self.seen) if self.repeats else 0
            return len(self.pts) if hidden else self.header_frames - empty
        if self.stream_seconds is not None:  # FFmpeg's and mkvtoolnix's own tag, exact to the millisecond
            missing = round((self.stream_seconds - self.video_end) * fps)
        elif self.seconds is not None:  # of the longest stream, kept loosely by some writers
            missing = round((self.start + self.seconds - self.end - Fraction(1, 10)) * fps)
        else:
            return None
        return len(self.pts) + max(missing, 0)


def clock_seconds(text: str | None) -> Fraction | None:
    """'00:00:01.251000000' -> 1.251; None for what is no such tag."""
    if not text or text.count(":") != 2:
        return None
    try:
        hours, minutes, seconds = (Fraction(part) for part in text.split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds


Log = list[tuple[int, str, str]]


class PyAVDecoder:
    """Implements `wanedit.video.decode.Decoder`."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        with open_video(path) as container:
            display = display_of(container, path)
            for picture in display.deinterlaced(decoded_pictures(container, path, salvage)):
                yield display(picture)
                self.notes = display.notes

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        runs: list[list[int]] = []
        for frame in wanted:
            # A new run begins where jumping to a keyframe saves decoding.
            if not runs or index.key_before(frame) > runs[-1][-1] + 1:
                runs.append([])
            runs[-1].append(frame)
        with open_video(path) as container:
            display = display_of(container, path)
            for run in runs:
                for picture in _run(container, path, index, run, salvage, display):
                    yield display(picture)
                    self.notes = display.notes


def display_of(container: InputContainer, path: Path) -> Display:
    """What shows the pictures of a file."""
    stream = video_stream(container)
    profile = _png_profile(path) if stream.codec_context.name in ("png", "apng") else None
    return Display(path, stream.sample_aspect_ratio, profile)


def _png_profile(path: Path) -> bytes:
    """The colour profile of the first picture of a film in PNG; empty where it has none."""
    with open_video(path) as container, reading(path, "a whole video"):
        first = next(packets(container, video_stream(container)))
        # An animation's own stands before its first picture.
        source = path if container.format.name == "apng" else io.BytesIO(bytes(first))
        with Image.open(source, formats=["PNG"]) as picture:
            return picture.info.get("icc_profile") or b""


def first_picture(container: InputContainer, path: Path) -> VideoFrame:
    """The first picture that decodes, damaged or not. Raises InputError if there is none."""
    picture = next(decoded_pictures(container, path, salvage=True), None)
    if picture is None:
        raise InputError(f"{path}: not one frame can be decoded")
    return picture


def _run(
    container: InputContainer,
    path: Path,
    index: PacketIndex,
    wanted: Sequence[int],
    salvage: bool,
    display: Display,
) -> Iterator[VideoFrame]:
    """The wanted pictures, ascending and near each other."""
    left = deque(wanted)
    if index.seekable:
        # Told by their times. An interlaced picture is made whole from both its neighbours, so decoding begins before.
        first = left[0]
        container.seek(index.pts[index.key_before(first)], stream=video_stream(container), backward=True)
        pictures = decoded_pictures(container, path, salvage)
        head = next(pictures, None)
        if head is not None and head.interlaced_frame and first and head.pts == index.pts[first]:
            container.seek(
                index.pts[index.key_before(first - 1)], stream=video_stream(container), backward=True
            )
            pictures = decoded_pictures(container, path, salvage)
            head = next(pictures, None)
        for picture in display.deinterlaced(pictures if head is None else chain([head], pictures)):
            if picture.pts == index.pts[left[0]]:
                left.popleft()
                yield picture
            # The seek table of some files leads past what was asked for.
            if not left or (picture.pts or 0) > index.pts[left[0]]:
                break
    if left:
        container.seek(0, backward=True)
        pictures = display.deinterlaced(decoded_pictures(container, path, salvage))
        chosen = set(left)
        yield from (p for number, p in enumerate(islice(pictures, left[-1] + 1)) if number in chosen)


def decoded_pictures(container: InputContainer, path: Path, salvage: bool) -> Iterator[VideoFrame]:
    """Decode from where the file stands. InputError at damage, unless salvaging."""
    stream = video_stream(container)
    decode = _decode(stream)
    checked = stream.codec_context.name == "ffv1"  # which tells of a wrong checksum only in its log
    number = 0
    try:
        for packet in packets(container, stream):
            pictures, damage = list[VideoFrame](), ""
            try:
                with _log(checked) as log:
                    pictures = decode(packet)
            except InvalidDataError as error:
                damage = error.strerror or "invalid data"
            else:
                if any("CRC mismatch" in message for _, _, message in log):
                    damage = "wrong checksum"
                elif any(picture.is_corrupt for picture in pictures):
                    damage = "lost data"
            if damage and not salvage:
                raise InputError(f"{path}: frame {number} is damaged ({damage}); {SALVAGE_HINT}")
            for picture in pictures:
                yield picture
                number += 1
    except FFmpegError as error:
        if not salvage:
            raise InputError(f"{path}: decoding stopped after {number} frames ({error.strerror})") from error


def _decode(stream: VideoStream) -> Callable[[Packet], list[VideoFrame]]:
    """What decodes this stream's packets."""
    transparent = "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE"))
    if transparent and stream.codec_context.name in _WITH_ALPHA:
        # FFmpeg's own decoders of WebM leave transparency out, and show what is hidden under it.
        codec = CodecContext.create(_WITH_ALPHA[stream.codec_context.name], "r")
        assert isinstance(codec, VideoCodecContext)
        return codec.decode
    return lambda packet: [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]


_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_log_lock = threading.Lock()


@contextmanager
def _log(wanted: bool) -> Iterator[Log]:
    """What FFmpeg logs on this thread meanwhile. Its level is global, so one decoder at a time."""
    if not wanted:
        yield []
        return
    with _log_lock:
        level, skips = logging.get_level(), logging.get_skip_repeated()
        logging.set_level(logging.ERROR)
        # PyAV leaves out a message that equals the last one, even where that came from another file.
        logging.set_skip_repeated(False)
        try:
            with logging.Capture(local=True) as log:
                yield log
        finally:
            logging.set_level(level)
            logging.set_skip_repeated(skips)
