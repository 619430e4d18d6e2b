"""Clips and pictures as data URIs: one file holds all, and every frame can be jumped to."""

import base64
import io
from dataclasses import dataclass
from typing import cast

import av
import cv2
import numpy as np
from av import VideoStream
from jaxtyping import UInt8
from PIL import Image

from wanedit.video.arrays import AnyFrame, Rate
from wanedit.video.encode import as_rate
from wanedit.video.libav import ACCURATE_SCALING

WIDEST = 960
# Frames between two that stand alone: few, so that a jump decodes little.
GROUP = 4
CRF = 20
JPEG_QUALITY = 88

AnyClip = UInt8[np.ndarray, "_ _ _ 3"]


@dataclass(frozen=True)
class Embedded:
    """A file inside the page.

    Attributes:
        uri: "data:...;base64,...".
        size: (width, height) of what is embedded.
        reduced: whether it is smaller than what it was made from.
    """

    uri: str
    size: tuple[int, int]
    reduced: bool


def fitted(frames: AnyClip, widest: int = WIDEST) -> AnyClip:
    """Frames at most `widest` pixels wide and with even sides, which H.264 in yuv420p needs."""
    height, width = frames.shape[1:3]
    scale = min(1.0, widest / width)
    size = max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
    if size == (width, height):
        return frames
    if scale == 1.0:
        # An odd side: its last row or column is shown twice, so that nothing is resampled.
        pad = [(0, 0), (0, height % 2), (0, width % 2), (0, 0)]
        return np.pad(frames, pad, mode="edge")
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])


def embed_video(frames: AnyClip, fps: Rate, widest: int = WIDEST) -> Embedded:
    """A clip as H.264 in mp4, BT.709, no frame of which refers to a later one."""
    shown = fitted(frames, widest)
    size = shown.shape[2], shown.shape[1]
    return Embedded(_uri("video/mp4", _encoded(shown, fps)), size, frames.shape[2] > widest)


def embed_image(frame: AnyFrame, widest: int) -> Embedded:
    """One picture as JPEG, without loss of colour resolution."""
    picture, reduced = Image.fromarray(frame), frame.shape[1] > widest
    if reduced:
        height = max(1, round(frame.shape[0] * widest / frame.shape[1]))
        picture = picture.resize((widest, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Embedded(_uri("image/jpeg", file.getvalue()), picture.size, reduced)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(frames: AnyClip, fps: Rate) -> bytes:
    file, rate = io.BytesIO(), as_rate(fps)
    # One thread and no macroblock tree: the same frames give the same bytes.
    private = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=0:mbtree=0:threads=1"
    options = {"crf": str(CRF), "preset": "medium", "x264-params": private}
    with av.open(file, "w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream("libx264", rate=rate, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / rate
        for name, value in _BT709.items():
            setattr(stream.codec_context, name, value)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace="ITU709",
                dst_color_range="MPEG",
                interpolation=ACCURATE_SCALING,
            )
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return file.getvalue()


_BT709 = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}
