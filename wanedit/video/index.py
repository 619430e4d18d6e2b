"""What a video file holds, by counting its packets; what its header declares is only compared."""

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av import Packet, VideoStream
from av.container import InputContainer
from av.error import FFmpegError

from wanedit.errors import InputError
from wanedit.video.libav import open_video, packets

SALVAGE_HINT = "salvage=True reads what is there"


@dataclass(frozen=True)
class PacketIndex:
    """The frames that a file shows, in order of presentation.

    pts: presentation time of each frame, in units of `time_base` seconds.
    keys: which of them can be decoded without any other, ascending.
    seekable: every frame has a time of its own, so a decoded frame can be told by its time.
    declared: how many frames the header promises; None where it promises nothing.
    finished: False where the writer never came to close the file.
    """

    pts: tuple[int, ...]
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
            self._read_header(container, stream)
            self._read_packets(container, stream)

    def _read_header(self, container: InputContainer, stream: VideoStream) -> None:
        self.time_base = stream.time_base or Fraction(1, 1000)
        self.average_rate = stream.average_rate or stream.guessed_rate
        self.header_frames = stream.frames
        self.seconds = None if container.duration is None else Fraction(container.duration, 1_000_000)
        self.start = Fraction(container.start_time or 0, 1_000_000)
        self.stream_seconds = _clock_seconds(stream.metadata.get("DURATION"))
        self.finished = self.seconds is not None or "matroska" not in container.format.name

    def _read_packets(self, container: InputContainer, stream: VideoStream) -> None:
        try:
            for packet in packets(container):
                self._note_end(packet, packet.stream_index == stream.index)
                if packet.stream_index == stream.index and packet.size and not packet.is_corrupt:
                    self._note_frame(packet)
        except FFmpegError:  # damage between packets: what was read so far is all there is
            self.finished = False

    def _note_end(self, packet: Packet, video: bool) -> None:
        if packet.pts is None or not packet.size or packet.time_base is None:
            return
        end = (packet.pts + (packet.duration or 0)) * packet.time_base
        if video and not packet.duration and self.average_rate:
            end += 1 / self.average_rate
        self.end = max(self.end, end)
        if video:
            self.video_end = max(self.video_end, end)

    def _note_frame(self, packet: Packet) -> None:
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
            return len(self.pts) if self._edit_list_hides() else self.header_frames
        if self.stream_seconds is not None:  # FFmpeg's and mkvtoolnix's own tag, exact to the millisecond
            missing = round((self.stream_seconds - self.video_end) * fps)
        elif self.seconds is not None:  # of the longest stream, kept loosely by some writers
            missing = round((self.start + self.seconds - self.end - Fraction(1, 10)) * fps)
        else:
            return None
        return len(self.pts) + max(missing, 0)

    def _edit_list_hides(self) -> bool:
        """An mp4 may hold more frames than it shows; with the edit list ignored all must be there."""
        if self.header_frames == len(self.pts):
            return True
        return _Packets(self.path, {"ignore_editlist": "1"}).total == self.header_frames


def _clock_seconds(text: str | None) -> Fraction | None:
    """'00:00:01.251000000' -> 1.251; None for what is no such tag."""
    if not text or text.count(":") != 2:
        return None
    try:
        hours, minutes, seconds = (Fraction(part) for part in text.split(":"))
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
