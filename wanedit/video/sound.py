"""Sound beside the pictures: the packets of a stretch copied in time; where a film cannot hold them, encoded anew."""

import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import av
from av import AudioCodecContext, AudioFrame, AudioLayout, AudioStream, Codec, CodecContext, Packet
from av.container import InputContainer, OutputContainer
from av.error import BlockingIOError, EOFError, FFmpegError, InvalidDataError
from av.filter import Graph
from av.stream import Disposition

from wanedit.errors import InputError
from wanedit.files import is_refused, read_each, reading, require_file
from wanedit.video.arrays import Clock
from wanedit.video.formats import Format
from wanedit.video.images import CONTAINERS, is_animation
from wanedit.video.libav import clock_seconds

# Demuxers of files that hold sound alone.
SOUND_CONTAINERS = "mp3,wav,w64,flac,aac,ac3,eac3,aiff,caf,amr"
# A decoder that begins inside a stream is exact only after some sound: Opus after 80 ms (RFC 7845, section 4.6), what
# overlaps its frames (AAC, MP3) after two of them.
OPUS_PREROLL = Fraction(80, 1000)
PREROLL_FRAMES = 2
BITS_PER_CHANNEL = 96_000
# Sound that outlasts the pictures by less is the rest of its last packet.
NEGLIGIBLE = Fraction(1, 10)

_HEARD = "a whole file of sound or video"

Notes = list[str]


@dataclass(frozen=True)
class Sound:
    """The sound of a stretch of a file.

    start: seconds on the file's clock at which the first picture stands. seconds: how long the pictures last.
    """

    path: Path
    start: Fraction
    seconds: Fraction


@runtime_checkable
class SoundOf(Protocol):
    """`sound_of` a stretch of a video that is known already."""

    def __call__(
        self, fps: Fraction | None, kind: Format, *, frames: int | None = None
    ) -> tuple[Sound | None, Notes]: ...


def sound_of(
    path: Path,
    clock: Clock | None,
    fps: Fraction | None,
    kind: Format,
    last: bool = False,
    frames: int | None = None,
) -> tuple[Sound | None, Notes]:
    """The sound that belongs to a stretch of a video, and what the user should know of it.

    Args:
        clock: when the file shows the frames of the stretch; None where it does not say.
        fps: at which they will be shown evenly; None for at their own times, which alone sound fits, as it is never
            re-timed.
        kind: of the film that it goes into.
        last: whether the stretch ends where the video does.
        frames: how many are shown, where they may be others than those of the stretch.

    Raises:
        InputError: the file cannot be read.
    """
    heard = None if is_animation(path) else _listen(path, kind)
    if heard is None or not heard.tracks:
        return None, [] if heard is None else heard.notes
    gone = "the source's sound is left out"
    if kind.sound is None:
        return None, [f"{gone}: a film in {kind.container} has none"]
    if clock is None:
        return None, [f"{gone}: the file does not say when its frames are shown"]
    if frames not in (None, len(clock.pts)):
        return None, [f"{gone}: it belongs to {len(clock.pts)} frames, and {frames} are shown"]
    if fps is not None and (off := drift(clock, fps)) > 1 / fps:
        return None, [
            f"{gone}: at {float(fps):.6g} fps frames are shown up to {float(off):.3g} s off their time, and sound is "
            "never re-timed"
        ]
    notes, end = heard.notes, heard.end
    beyond = 0 if end is None else end - clock.start - clock.seconds
    if last and beyond > NEGLIGIBLE:
        notes.append(f"{float(beyond):.2f} s of sound after the last frame are left out")
    return Sound(path, clock.start, clock.seconds), notes


def left_out(path: Path) -> Notes:
    """What a video holds beside its pictures and their sound, which no film that is written here gets.

    Raises:
        InputError: the file cannot be read.
    """
    if is_animation(path):
        return []
    with reading(path, _HEARD), _open(path) as container:
        tracks, chapters = container.streams.subtitles, len(container.chapters())
    said = [track.metadata.get("language", "und") for track in tracks]
    held = {"subtitles": ", ".join(said), "chapters": str(chapters) if chapters else ""}
    return [f"the source's {name} ({what}) are left out" for name, what in held.items() if what]


def silent(fps: Fraction | None, kind: Format, *, frames: int | None = None) -> tuple[Sound | None, Notes]:
    """`sound_of` what has none."""
    return None, []


def sound_file(path: Path, seconds: Fraction, kind: Format) -> tuple[Sound, Notes]:
    """A file's sound from its beginning, to be laid under a film of so many seconds, and notes as `sound_of`.

    Raises:
        InputError: it cannot be read or holds no sound, or the film cannot have any.
    """
    heard = _listen(path, kind)
    if not heard.tracks:
        raise InputError(f"{path}: {'; '.join(heard.notes) or 'holds no sound'}")
    if kind.sound is None:
        raise InputError(f"audio is {path}, but a film in {kind.container} has no sound")
    notes, lasts = heard.notes, None if heard.end is None else heard.end - heard.begin
    if lasts is not None and abs(lasts - seconds) > NEGLIGIBLE:
        rest = "the rest is left out" if lasts > seconds else "silence follows"
        notes.append(f"{path.name} lasts {float(lasts):.2f} s and the film {float(seconds):.2f} s: {rest}")
    return Sound(path, heard.begin, seconds), notes


def film_clock(clock: Clock | None, fps: Fraction) -> Clock | None:
    """When a film shows frames that the file showed by `clock`: None for evenly at `fps`, which is the same to the
    rounding of the file's clock."""
    return clock if clock is not None and drift(clock, fps) > 1.5 * clock.time_base else None


def drift(clock: Clock, fps: Fraction) -> Fraction:
    """By how many seconds a frame, or the end, is shown off its time at most, where frames are shown evenly."""
    places = enumerate((*clock.pts, clock.end))
    return max(abs((pts - clock.pts[0]) * clock.time_base - i / fps) for i, pts in places)


def sound_packets(sound: Sound, film: OutputContainer, kind: Format) -> Iterator[Packet]:
    """Add the sound's tracks to a film, whose first picture stands at 0, and yield their packets in order of time.

    Nothing of the film may be written before; the file is read as packets are taken.
    """
    container = _open(sound.path)
    with reading(sound.path, _HEARD, computes=True):
        streams = _tracks(container)
        tracks: dict[int, _Track] = {}
        for stream in streams:
            kept = _copies(kind, stream)
            tracks[stream.index] = (_Copied if kept else _Encoded)(stream, film, kind, sound)

    newest: dict[int, int] = {}

    def in_order(made: Iterator[Packet]) -> Iterator[Packet]:
        for packet in made:
            # A damaged file may go back in time, which no film can hold.
            if packet.dts is not None and packet.dts > newest.get(packet.stream_index, packet.dts - 1):
                newest[packet.stream_index] = packet.dts
                yield packet

    def packets() -> Iterator[Packet]:
        with container:
            done: set[int] = set()
            try:
                for packet in container.demux(*streams):
                    if packet.pts is None or not packet.size or packet.time_base is None:
                        continue
                    if packet.pts * packet.time_base - sound.start >= sound.seconds:
                        done.add(packet.stream_index)
                        if len(done) == len(tracks):
                            break
                        continue
                    yield from in_order(tracks[packet.stream_index].take(packet))
            except FFmpegError:  # damage between packets: what was read so far is all there is
                pass
            for track in tracks.values():
                with suppress(FFmpegError):  # of a track that broke off at once
                    yield from in_order(track.rest())

    return read_each(packets(), sound.path, _HEARD)


class _Track(Protocol):
    def take(self, packet: Packet) -> Iterator[Packet]:
        """What of the film a packet of the file becomes."""
        ...

    def rest(self) -> Iterator[Packet]:
        """What is still held when there are no more."""
        ...


class _Copied:
    """Packets as they are, moved so that the first picture stands at 0."""

    def __init__(self, stream: AudioStream, film: OutputContainer, kind: Format, sound: Sound) -> None:
        self.sound = sound
        self.stream = film.add_stream_from_template(stream)
        self.stream.metadata.update(_names(stream))
        self.tick = Fraction(1, stream.rate)
        context = stream.codec_context
        # Samples of every packet, where they are all alike.
        self.samples = 0 if _codec(stream) == "vorbis" else context.frame_size or 0
        preroll = OPUS_PREROLL if _codec(stream) == "opus" else PREROLL_FRAMES * self.samples * self.tick
        self.hides_lead = kind.hides_lead
        self.lead = preroll if kind.hides_lead else _skipped(stream)
        self.next: int | None = None
        # Bytes of a sample of all channels, where packets can be cut between any two.
        plain = re.fullmatch(r"pcm_([suf]\d+(le|be)?|alaw|mulaw)", _codec(stream))
        self.block = (context.bit_rate or 0) // stream.rate // 8 if plain else 0

    def take(self, packet: Packet) -> Iterator[Packet]:
        assert packet.pts is not None
        assert packet.time_base is not None
        seconds = packet.pts * packet.time_base - self.sound.start
        if self.block:
            yield from self._cut(packet, round(seconds / self.tick))
            return
        lasts = (packet.duration or 0) * packet.time_base
        if seconds + (lasts if self.hides_lead else 0) < -self.lead:
            return
        pts = round(seconds / self.tick)
        # A container with a coarse clock rounds the times of packets that follow each other without a gap.
        if self.next is not None and abs(pts - self.next) * self.tick <= packet.time_base:
            pts = self.next
        length = round(lasts / self.tick)
        self.next = pts + self.samples if self.samples else None
        left = round(self.sound.seconds / self.tick) - pts
        packet.stream = self.stream
        packet.time_base, packet.pts, packet.dts = self.tick, pts, pts
        packet.duration = max(1, min(length, left))
        yield packet

    def _cut(self, packet: Packet, pts: int) -> Iterator[Packet]:
        """What of a packet of PCM, which may last for seconds, is heard beside the pictures."""
        assert packet.time_base is not None
        if self.next is not None and abs(pts - self.next) * self.tick <= packet.time_base:
            pts = self.next
        data = bytes(packet)
        self.next = pts + len(data) // self.block
        first, last = max(pts, 0), min(self.next, round(self.sound.seconds / self.tick))
        if first < last:
            made = Packet(data[(first - pts) * self.block : (last - pts) * self.block])
            made.stream, made.time_base = self.stream, self.tick
            made.pts, made.dts, made.duration = first, first, last - first
            made.is_keyframe = True
            yield made

    def rest(self) -> Iterator[Packet]:
        return iter(())


class _Encoded:
    """Decoded, cut to the sample, and encoded as the film has it."""

    def __init__(self, stream: AudioStream, film: OutputContainer, kind: Format, sound: Sound) -> None:
        assert kind.sound is not None
        rates = Codec(kind.sound, "w").audio_rates
        rate = stream.rate if not rates or stream.rate in rates else 48_000
        self.stream = cast(AudioStream, film.add_stream(kind.sound, rate=rate))
        self.stream.codec_context.layout = layout = AudioLayout(_layout(stream, kind.sound))
        self.stream.codec_context.bit_rate = BITS_PER_CHANNEL * layout.nb_channels
        self.stream.metadata.update(_names(stream))
        self.start = sound.start
        cut = f"start={float(sound.start):.9f}:end={float(sound.start + sound.seconds):.9f}"
        self.graph = Graph()
        source = self.graph.add_abuffer(template=stream)
        trim, sink = self.graph.add("atrim", cut), self.graph.add("abuffersink")
        source.link_to(trim)
        trim.link_to(sink)
        self.graph.configure()

    def take(self, packet: Packet) -> Iterator[Packet]:
        try:
            frames = cast(list[AudioFrame], packet.decode())
        except InvalidDataError:  # a damaged packet is silence
            return
        for frame in frames:
            self.graph.push(frame)
            yield from self._pulled()

    def rest(self) -> Iterator[Packet]:
        self.graph.push(None)
        yield from self._pulled()
        yield from self.stream.encode(None)

    def _pulled(self) -> Iterator[Packet]:
        while True:
            try:
                frame = cast(AudioFrame, self.graph.pull())
            except (BlockingIOError, EOFError):
                return
            if frame.pts is None or frame.time_base is None:
                continue  # what has no time has no place beside the pictures
            frame.pts -= round(self.start / frame.time_base)
            yield from self.stream.encode(frame)


def _open(path: Path) -> InputContainer:
    require_file(path, _HEARD)
    only = {"protocol_whitelist": "file", "format_whitelist": f"{CONTAINERS},{SOUND_CONTAINERS}"}
    try:
        return av.open(os.path.abspath(path), container_options=only)
    except (FFmpegError, ValueError) as error:
        if is_refused(error, path):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: not a readable file of sound or video ({reason})") from error


@dataclass(frozen=True)
class _Heard:
    """What a file has to hear.

    begin: seconds on its clock at which the first of what it plays begins. end: at which its last sound ends; None
    where that is not told. tracks: how many can be decoded. notes: what becomes of them in the film.
    """

    begin: Fraction
    end: Fraction | None
    tracks: int
    notes: Notes


def _listen(path: Path, kind: Format) -> _Heard:
    with reading(path, _HEARD, computes=True), _open(path) as container:
        tracks = _tracks(container)
        films = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
        begins = [
            one.start_time * one.time_base for one in (*tracks, *films) if one.start_time and one.time_base
        ]
        # What is heard or seen before 0 is a codec's lead, and not played.
        begin = min(begins, default=Fraction(0)) if len(begins) == len(tracks) + len(films) else Fraction(0)
        ends = [end for track in tracks if (end := _end(track)) is not None]
        notes = [note for track in tracks if kind.sound is not None for note in _changes(track, kind)]
        if lost := len(container.streams.audio) - len(tracks):
            notes.append(f"{lost} of {lost + len(tracks)} tracks of sound cannot be decoded here: left out")
        return _Heard(max(begin, Fraction(0)), max(ends, default=None), len(tracks), notes)


def _tracks(container: InputContainer) -> list[AudioStream]:
    """The tracks of sound that FFmpeg can decode: of an unknown codec it knows nothing, of a broken one no rate."""
    streams = container.streams.audio
    return [s for s in streams if s.codec_context is not None and s.rate and s.layout.nb_channels]


def _end(track: AudioStream) -> Fraction | None:
    if track.duration is None or track.time_base is None:
        return clock_seconds(track.metadata.get("DURATION"))  # Matroska's, of the time since 0
    return ((track.start_time or 0) + track.duration) * track.time_base


def _codec(stream: AudioStream) -> str:
    """The name of a stream's codec, whichever decoder reads it: FFmpeg reads MP3 with its `mp3float`."""
    return stream.codec_context.codec.canonical_name


def _copies(kind: Format, stream: AudioStream) -> bool:
    """Whether a track is copied into such a film."""
    codec = _codec(stream)
    if codec == "mp3" and kind.container == "mp4" and stream.rate < 16_000:
        return False  # MPEG-2.5, for which mp4 has no name
    if "*" in kind.sounds:
        with av.open(io.BytesIO(), "w", format=kind.container) as film:
            return codec in film.supported_codecs
    return any(codec == name or (name[-1] == "*" and codec.startswith(name[:-1])) for name in kind.sounds)


def _changes(stream: AudioStream, kind: Format) -> Notes:
    """What is done to a track that is not copied."""
    if _copies(kind, stream):
        return []
    assert kind.sound is not None
    notes = [
        f"sound in {_codec(stream)} is encoded anew as {kind.sound}: a film in {kind.container} does not hold it"
    ]
    if AudioLayout(_layout(stream, kind.sound)).nb_channels != (own := stream.layout.nb_channels):
        notes.append(f"its {own} channels are mixed down to stereo: {kind.sound} does not have them")
    return notes


def _names(stream: AudioStream) -> dict[str, str]:
    """What tells tracks apart; the rest, such as its duration, is of the file that it comes from."""
    return {name: text for name, text in stream.metadata.items() if name.lower() in ("language", "title")}


# FFmpeg's layouts by their number of channels, for files that tell no more than that (libavutil/channel_layout.c).
_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")


def _layout(stream: AudioStream, codec: str) -> str:
    """The layout that a track is encoded in: its own, one of as many channels, or stereo if the codec has neither."""
    channels = stream.layout.nb_channels
    own = [] if stream.layout.name.endswith(" channels") else [stream.layout.name]
    for layout in (*own, *_LAYOUTS[channels - 1 : channels]):
        context = cast(AudioCodecContext, CodecContext.create(codec, "w"))
        context.layout, context.sample_rate, context.time_base = layout, 48_000, Fraction(1, 48_000)
        formats = Codec(codec, "w").audio_formats
        context.format = formats[0] if formats else "fltp"
        try:
            context.open()
        except FFmpegError:
            continue
        return layout
    return "stereo"


def _skipped(stream: AudioStream) -> Fraction:
    """Seconds at the beginning of a track that Matroska has its player skip: Opus' pre-skip (RFC 7845, section 5.1)."""
    header = stream.codec_context.extradata or b""
    if _codec(stream) != "opus" or len(header) < 12:
        return Fraction(0)
    return Fraction(int.from_bytes(header[10:12], "little"), 48_000)
