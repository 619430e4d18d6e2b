"""Writing frames: lossless segments, the final mp4, single images. Streaming and atomic."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av import VideoFrame, VideoStream
from av.error import FFmpegError
from PIL import Image

from wanedit.errors import InputError, WaneditError
from wanedit.files import atomic_path
from wanedit.video.arrays import AnyFrame, Frame, Rate, peek, require_frame, require_same_size, size_text
from wanedit.video.decode import probe
from wanedit.video.display import ACCURATE_SCALING


def write_lossless(path: str | Path, frames: Iterable[AnyFrame], fps: Rate = 16) -> int:
    """Write frames as FFV1 in Matroska, every RGB pixel exact, any size; return how many.

    Every frame is a keyframe and its own cluster with checksums, and is on disk before the next but one is
    taken: the partial file of a killed writer is readable up to the last frame but one.

    Raises:
        InputError: no frames, unequal sizes, not uint8 RGB, or no such folder.
        ResourceError: the disk is full; nothing half-written is left.
    """
    return _write(Path(path), frames, as_rate(fps), _LOSSLESS, {})


def write_mp4(
    path: str | Path,
    frames: Iterable[AnyFrame],
    fps: Rate,
    metadata: Mapping[str, str] | None = None,
    crf: int = 16,
    preset: str = "medium",
) -> int:
    """Write frames as H.264 yuv420p in mp4, playable everywhere; return how many.

    Colours are converted to, and tagged as, BT.709 in limited range. The index stands in front
    (faststart), and `metadata` may have any keys. crf 0 is the best quality, 51 the worst.

    Raises:
        InputError: odd sides (before anything is opened), no frames, unequal sizes, crf outside 0..51.
        ResourceError: the disk is full; nothing half-written is left.
    """
    if not 0 <= crf <= 51:
        raise InputError(f"{path}: crf must be between 0 and 51, got {crf}")
    codec = replace(_MP4, options=_MP4.options | {"crf": str(crf), "preset": preset})
    return _write(Path(path), frames, as_rate(fps), codec, metadata or {})


def write_png(path: str | Path, image: Frame) -> None:
    """Write one RGB image as PNG. Raises InputError for another array, ResourceError for a full disk."""
    require_frame(image, str(path))
    with atomic_path(path) as partial:
        Image.fromarray(image).save(partial, format="png")


def as_rate(fps: Rate) -> Fraction:
    """Frames per second as an exact fraction: 12.5 -> 25/2, 29.97 -> 30000/1001 as broadcast means it.

    Raises:
        InputError: not a number above 0 and up to 1000.
    """
    if not 0 < fps <= 1000:  # also False for NaN
        raise InputError(f"fps must be above 0 and at most 1000, got {fps}")
    for nominal in (24, 30, 48, 60, 120):
        if isinstance(fps, float) and abs(fps - nominal / 1.001) < 5e-3:
            return Fraction(nominal * 1000, 1001)
    return Fraction(fps).limit_denominator(100_000)


@dataclass(frozen=True)
class _Codec:
    """What differs between the two kinds of file."""

    name: str
    container: str
    pixel_format: str
    picture: Callable[[Frame], VideoFrame]
    options: dict[str, str]
    muxer: dict[str, str]
    even: bool = False
    colour: dict[str, int] = field(default_factory=dict)


_LOSSLESS = _Codec(
    name="ffv1",
    container="matroska",
    pixel_format="bgr0",
    # FFV1 codes 8-bit RGB as bgr0 only; from rgb24 that is a shuffle of bytes.
    picture=lambda frame: av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0"),
    options={"level": "3", "g": "1", "slices": "4", "slicecrc": "1"},
    muxer={"flush_packets": "1", "cluster_time_limit": "1"},
)


_MP4 = _Codec(
    name="libx264",
    container="mp4",
    pixel_format="yuv420p",
    picture=lambda frame: av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace="ITU709",
        dst_color_range="MPEG",
        interpolation=ACCURATE_SCALING,
    ),
    # x264's macroblock tree, in its AVX-512 form, reads memory beyond small frames: of 64x64 clips one file in
    # twenty then differs from the others. Without it the same frames give the same file.
    options={"x264-params": "mbtree=0"},
    muxer={"movflags": "+faststart+use_metadata_tags"},
    even=True,
    # AVCOL_SPC_BT709, AVCOL_RANGE_MPEG, AVCOL_PRI_BT709, AVCOL_TRC_BT709
    colour={"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1},
)


def _write(
    path: Path, frames: Iterable[AnyFrame], fps: Fraction, codec: _Codec, metadata: Mapping[str, str]
) -> int:
    first, frames = peek(frames, str(path))
    require_frame(first, str(path))
    if codec.even and (first.shape[0] % 2 or first.shape[1] % 2):
        raise InputError(f"{path}: H.264 in yuv420p needs even sides, got {size_text(first)}")
    with atomic_path(path) as partial:
        container = av.open(os.fspath(partial), "w", format=codec.container, options=codec.muxer)
        container.metadata.update(metadata)
        stream = cast(VideoStream, container.add_stream(codec.name, rate=fps, options=codec.options))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = codec.pixel_format
        stream.time_base = stream.codec_context.time_base = 1 / fps
        for tag, value in codec.colour.items():
            setattr(stream.codec_context, tag, value)
        count = 0
        try:
            for frame in require_same_size(frames, str(path)):
                picture = codec.picture(frame)
                picture.pts, picture.time_base = count, 1 / fps
                container.mux(stream.encode(picture))
                count += 1
            container.mux(stream.encode(None))
        except BaseException:
            # Closing writes the trailer, which on a full disk fails a second time: the first failure is the news.
            with suppress(FFmpegError):
                container.close()
            raise
        container.close()
        # Read back before the file gets its name: a muxer can lose frames without an error.
        if (found := probe(partial).frames) != count:
            raise WaneditError(f"{path}: {count} frames were written but {found} can be read back")
    return count
