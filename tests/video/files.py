"""Video files as other programs write them, whole and damaged."""

import struct
from fractions import Fraction

import av


def encode(path, codec, frames, pts=None, options=None, pix_fmt="yuv420p"):
    """A file as some other program might write it."""
    with av.open(path, "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100 if pts else 25)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = (pts[index] if pts else index), stream.codec_context.time_base
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def declare(path, count):
    """Let the header of an mp4 promise `count` frames, whatever it holds."""
    content = bytearray(path.read_bytes())
    for box, offset in ((b"stts", 12), (b"stsz", 12)):  # sample counts of the time and of the size table
        place = content.index(box) + offset
        content[place : place + 4] = struct.pack(">I", count)
    path.write_bytes(content)


def turn(path, matrix):
    """Let the header of an mp4 say that it is to be shown turned by a 2x2 matrix, given row by row."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version, flags, times, ids, layer, volume, then the matrix
    a, b, c, d = (value * 65536 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def overwrite(path, share, data):
    """Put `data` over a file, from that share of its length on."""
    content = bytearray(path.read_bytes())
    place = int(len(content) * share)
    content[place : place + len(data)] = data
    path.write_bytes(content)


def truncate(path, share):
    """Cut the media data of an mp4, or all of any other file, to a share of its length."""
    whole = path.read_bytes()
    start = whole.index(b"mdat") if path.suffix == ".mp4" else 0
    path.write_bytes(whole[: start + int((len(whole) - start) * share)])
