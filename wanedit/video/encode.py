"""Writing frames: lossless segments, the final film with its sound, single images. Streaming and atomic."""

import hashlib
import io
import json
import os
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import cast
from zlib import crc32

import av
import numpy as np
from av import Packet, VideoFrame, VideoStream
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.filter import Graph
from av.filter.context import FilterContext
from PIL import Image

from wanedit.errors import InputError, WaneditError
from wanedit.files import PARTIAL_SUFFIX, atomic_path, temporary
from wanedit.progress import counted
from wanedit.timeline import rate_of
from wanedit.video.arrays import (
    AnyFrame,
    Clock,
    Frame,
    Rate,
    peek,
    require_frame,
    require_same_size,
    size_text,
)
from wanedit.video.decode import iter_frames, probe
from wanedit.video.display import ACCURATE_SCALING
from wanedit.video.formats import Format, format_of
from wanedit.video.sound import Sound, sound_packets

# Bytes of a PNG's signature and of its first chunk, IHDR; of the checksum that ends a chunk (PNG, third edition, 5).
PNG_HEAD, PNG_CRC = 33, 4


def write_lossless(path: str | Path, frames: Iterable[AnyFrame], fps: Rate = 16) -> int:
    """Write frames as FFV1 in Matroska, every RGB pixel exact, any size; return how many.

    Every frame is a keyframe and its own cluster with checksums, and is on disk before the next but one is
    taken: the partial file of a killed writer is readable up to the last frame but one.

    Raises:
        InputError: no frames, unequal sizes, not uint8 RGB, or no such folder.
        ResourceError: the disk is full; nothing half-written is left.
    """
    return _write(Path(path), frames, rate_of(fps), _LOSSLESS, {})


def write_video(
    path: str | Path,
    frames: Iterable[AnyFrame],
    fps: Rate,
    metadata: Mapping[str, str] | None = None,
    crf: int = 16,
    preset: str = "medium",
    *,
    sound: Sound | None = None,
    clock: Clock | None = None,
) -> int:
    """Write frames as the film that its name says (`formats.FORMATS`), playable everywhere; return how many.

    Colours are converted to, and tagged as, BT.709 in limited range; pixels are square. Where the film needs even
    sides, an odd last row or column is left out. `metadata` may have any keys, which `decode.probe` gives back.

    Args:
        fps: frames a second.
        crf: quality from 0, the best, to 51, in H.264's terms.
        preset: of H.264.
        sound: is written beside the pictures.
        clock: when each frame is shown, where that is not evenly at `fps`.

    Raises:
        InputError: an ending of another kind, no frames, unequal sizes, crf outside 0..51, more frames a second than
            the film can show, sides of less than 2 pixels, or a clock of other frames.
        ResourceError: the disk is full; nothing half-written is left.
    """
    path, rate = Path(path), rate_of(fps)
    kind = format_of(path)
    if not 0 <= crf <= 51:
        raise InputError(f"{path}: crf must be between 0 and 51, got {crf}")
    kind.require_rate(rate, clock and clock.shortest)
    if kind.codec == "gif":
        return _write_gif(path, frames, rate, metadata or {}, clock)
    options = dict(kind.options) | {"crf": str(kind.quality(crf))}
    if kind.codec == "libx264":
        options["preset"] = preset
        if clock is not None:
            # mp4 ends with what was decoded last, which with B-frames is not what is shown last.
            options["bf"] = "0"
    return _write(path, frames, rate, replace(kind, options=options), metadata or {}, sound, clock)


def write_png(path: str | Path, image: Frame) -> None:
    """Write one RGB image as PNG that says who wrote it, and the hash of what follows: a program that saves it anew may
    keep the words. Raises InputError for another array, ResourceError for a full disk."""
    require_frame(image, str(path))
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="png")
    head, rest = encoded.getvalue()[:PNG_HEAD], encoded.getvalue()[PNG_HEAD:]
    said = b"tEXtSoftware\0wanedit " + hashlib.sha256(rest).hexdigest().encode()
    with atomic_path(path) as partial:
        partial.write_bytes(
            head + struct.pack(">I", len(said) - 4) + said + struct.pack(">I", crc32(said)) + rest
        )


def png_is_own(path: Path) -> bool:
    """Whether `write_png` wrote a PNG file as it is; of an earlier version's its words alone tell.

    Raises what Pillow does.
    """
    with Image.open(path) as picture:
        said = str(picture.info.get("Software", ""))
    if said == "wanedit":
        return True
    _, found, rest = path.read_bytes().partition(said.encode())
    return bool(found) and said == "wanedit " + hashlib.sha256(rest[PNG_CRC:]).hexdigest()


# FFV1 codes 8-bit RGB as bgr0 only; from rgb24 that is a shuffle of bytes.
_LOSSLESS = Format(
    "matroska",
    "ffv1",
    "bgr0",
    {"level": "3", "g": "1", "slices": "4", "slicecrc": "1"},
    {"flush_packets": "1", "cluster_time_limit": "1"},
    even=False,
)
# AVCOL_SPC_BT709, AVCOL_RANGE_MPEG, AVCOL_PRI_BT709, AVCOL_TRC_BT709
_BT709 = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}


def _picture(frame: Frame, pixel_format: str) -> VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    if pixel_format != "yuv420p":
        return picture.reformat(format=pixel_format)
    return picture.reformat(
        format=pixel_format,
        dst_colorspace="ITU709",
        dst_color_range="MPEG",
        interpolation=ACCURATE_SCALING,
    )


def _write(
    path: Path,
    frames: Iterable[AnyFrame],
    fps: Fraction,
    kind: Format,
    metadata: Mapping[str, str],
    sound: Sound | None = None,
    clock: Clock | None = None,
) -> int:
    first, frames = peek(frames, str(path))
    require_frame(first, str(path))
    height, width = kind.fitted(*first.shape[:2])
    if not height or not width:
        raise InputError(f"{path}: frames are {size_text(first)}; expected 2 pixels or more a side")
    time_base = 1 / fps if clock is None else clock.time_base
    with atomic_path(path) as partial:
        container = av.open(os.fspath(partial), "w", format=kind.container, options=kind.muxer)
        container.metadata.update(metadata)
        stream = cast(VideoStream, container.add_stream(kind.codec, rate=fps, options=kind.options))
        stream.height, stream.width = height, width
        stream.pix_fmt = kind.pixel_format
        stream.time_base = stream.codec_context.time_base = time_base
        if kind.pixel_format == "yuv420p":
            stream.codec_context.sample_aspect_ratio = Fraction(1)
            for tag, value in _BT709.items():
                setattr(stream.codec_context, tag, value)
        beside = _Beside(container, sound, kind)
        # By time: the codec gives pictures back in another order, and forgets how long they last.
        count, lasts = 0, dict[int, int]()
        try:
            for frame in require_same_size(frames, str(path)):
                picture = _picture(frame[:height, :width], kind.pixel_format)
                picture.pts, lasts[picture.pts] = _when(count, clock, path)
                picture.time_base = time_base
                beside.mux(stream.encode(picture), lasts)
                count += 1
            beside.mux(stream.encode(None), lasts)
            beside.mux_rest()
            container.close()
        except BaseException as error:
            # Closing writes the trailer, which on a full disk fails a second time: the first failure is the news.
            with suppress(FFmpegError):
                container.close()
            if sound is not None and isinstance(error, InvalidDataError | ArgumentError):
                raise InputError(
                    f"{sound.path}: no film can hold its sound ({error.strerror}); expected a whole file"
                ) from error
            raise
        _read_back(partial, path, count)
    return count


def _read_back(partial: Path, path: Path, count: int) -> None:
    """Before the file gets its name: a muxer can lose frames without an error."""
    if (found := probe(partial).frames) != count:
        raise WaneditError(f"{path}: {count} frames were written but {found} can be read back")


def _write_gif(
    path: Path, frames: Iterable[AnyFrame], fps: Fraction, metadata: Mapping[str, str], clock: Clock | None
) -> int:
    """Frames in 256 colours, chosen from all of them by FFmpeg's palettegen and dithered by its paletteuse.

    The colours are known only after the last frame: meanwhile frames are kept without loss on disk, not in memory.
    """
    kept = path.with_name(f".{path.name[:60]}.{os.getpid()}.frames{PARTIAL_SUFFIX}")
    kind, tick = format_of(path), Fraction(1, 100)
    unit = (1 / fps if clock is None else clock.time_base) / tick
    with temporary(kept):
        count = write_lossless(kept, frames, fps)
        with atomic_path(path) as partial:
            choosing, using = Graph(), Graph()
            chooser, user = choosing.add("palettegen"), using.add("paletteuse", "dither=sierra2_4a")
            source, shown = None, None
            for frame in counted(iter_frames(kept), "choosing colours", "frames", count):
                picture = _picture(frame, "rgb24")
                source = source or _configured(choosing, chooser, picture)
                source.push(picture)
            assert source is not None
            source.push(None)
            palette = cast(VideoFrame, choosing.pull())
            # FFmpeg ends a GIF as long after its last frame as that came after the one before, unless told.
            at, lasts = _when(count - 1, clock, path)
            ending = {"final_delay": str(max(1, round((at + lasts) * unit) - round(at * unit)))}
            container = av.open(os.fspath(partial), "w", format=kind.container, options=ending)
            stream = cast(VideoStream, container.add_stream(kind.codec, rate=fps))
            stream.pix_fmt, stream.time_base = kind.pixel_format, tick
            stream.codec_context.time_base = tick
            for index, frame in enumerate(counted(iter_frames(kept), "dithering", "frames", count)):
                picture = _picture(frame, "rgb24")
                if shown is None:
                    stream.height, stream.width = frame.shape[:2]
                    shown = _configured(using, user, picture, palette)
                # Each frame at its own nearest tick, so that their rounding does not add up.
                picture.pts, picture.time_base = round(_when(index, clock, path)[0] * unit), tick
                shown.push(picture)
                container.mux(stream.encode(cast(VideoFrame, using.pull())))
            container.mux(stream.encode(None))
            container.close()
            _comment_gif(partial, json.dumps(dict(metadata)))
            _read_back(partial, path, count)
    return count


def _configured(
    graph: Graph, operation: FilterContext, picture: VideoFrame, palette: VideoFrame | None = None
) -> FilterContext:
    """A graph of one filter, with its palette; what frames are pushed into is returned."""
    source, sink = _buffer(graph, picture), graph.add("buffersink")
    source.link_to(operation)
    operation.link_to(sink)
    if palette is None:
        graph.configure()
        return source
    colours = _buffer(graph, palette)
    colours.link_to(operation, 0, 1)
    graph.configure()
    colours.push(palette)
    colours.push(None)
    return source


def _buffer(graph: Graph, picture: VideoFrame) -> FilterContext:
    return graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 100)
    )


def _comment_gif(path: Path, text: str) -> None:
    """Put a comment into a GIF (GIF89a, section 24), which FFmpeg's muxer does not: behind the number of loops."""
    content, loops = path.read_bytes(), b"NETSCAPE2.0"
    place = content.index(loops) + len(loops) + 5
    raw = text.encode("ascii")
    blocks = b"".join(bytes([len(part := raw[i : i + 255])]) + part for i in range(0, len(raw), 255))
    path.write_bytes(content[:place] + b"\x21\xfe" + blocks + b"\x00" + content[place:])


def _when(index: int, clock: Clock | None, path: Path) -> tuple[int, int]:
    """When a frame is shown and for how long, in the film's time base."""
    if clock is None:
        return index, 1
    if index >= len(clock.pts):
        raise InputError(f"{path}: more frames than the {len(clock.pts)} times that they are shown at")
    one = clock.cut(index, index + 1)
    return one.pts[0] - clock.pts[0], one.end - one.pts[0]


class _Beside:
    """Writes pictures and the sound beside them in order of time, as players want to read them."""

    def __init__(self, film: OutputContainer, sound: Sound | None, kind: Format) -> None:
        self.film = film
        self.packets = iter(()) if sound is None else sound_packets(sound, film, kind)
        self.held: Packet | None = None

    def mux(self, pictures: list[Packet], lasts: dict[int, int]) -> None:
        for picture in pictures:
            assert picture.dts is not None
            assert picture.pts is not None
            assert picture.time_base is not None
            picture.duration = lasts.pop(picture.pts)
            self._sound_before(picture.dts * picture.time_base)
            self.film.mux(picture)

    def mux_rest(self) -> None:
        self._sound_before(None)

    def _sound_before(self, time: Fraction | None) -> None:
        while (packet := self.held or next(self.packets, None)) is not None:
            assert packet.dts is not None
            assert packet.time_base is not None
            if time is not None and packet.dts * packet.time_base > time:
                self.held = packet
                return
            self.held = None
            self.film.mux(packet)
