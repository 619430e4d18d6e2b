"""What is asked of FFmpeg in more than one place."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
from av import Packet, VideoStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Interpolation

from wanedit.errors import InputError

# Names of demuxers. Playlists, which open other files and addresses, and text rendered as video are left out.
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif,apng,ivf,asf,mxf,h264,hevc,obu,yuv4mpegpipe"

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
        raise InputError(f"{path}: not a readable video file ({_reason(error)})") from error
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


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
