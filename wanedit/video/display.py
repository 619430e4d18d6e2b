"""A decoded picture as a screen shows it: the one door through which the pictures of every video come.

A file says more of its pictures than their pixels: how its colours are meant, the shape of a pixel, which way is up,
what is transparent. All of it is looked at here and put into pixels, and what was done is kept as a note.
"""

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from av.filter import Graph
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame
from wanedit.video.images import OVER_WHITE, Size, by_profile, fit, over_white
from wanedit.video.light import UNSPECIFIED, colour_notes, converts, to_bt709

# Exact colour; swscale's fast path is off by -0.9 levels in red and blue and by -1.4 in green.
ACCURATE_SCALING = int(
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

BT2020_MATRIX = 9  # of ITU-T H.273, whose numbers FFmpeg's are


class Display:
    """Shows the pictures of one video stream.

    Args:
        path: of the file, for messages.
        aspect: width of a stored pixel over its height; None or 1 for square ones.
        png_profile: of pictures in PNG, their colour profile, empty for none; None for those of any other codec.

    Attributes:
        notes: what was done to the pictures shown so far, one line each, in order.
    """

    def __init__(self, path: Path, aspect: Fraction | None, png_profile: bytes | None = None) -> None:
        self.path, self.aspect, self.png_profile = path, aspect or Fraction(1), png_profile
        self._notes: dict[str, None] = {}
        # One for all: a picture's own scaler has a context and threads of its own.
        self._scaler = VideoReformatter()

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def sides(self, picture: VideoFrame) -> Size:
        """(height, width) of a picture as it is shown."""
        height, width = self._square((picture.height, picture.width))
        a, b, _, _ = self._turn(picture)
        return (width, height) if abs(b) > abs(a) else (height, width)

    def __call__(self, picture: VideoFrame) -> Frame:
        """The picture as uint8 RGB (H, W, 3) in the colours of BT.709, of square pixels, upright and opaque.

        Raises:
            InputError: its colours are stored in a way that FFmpeg's scaler does not convert.
        """
        rgb = self._colours(picture)
        alpha = _alpha(picture)
        if alpha is not None and alpha.min() < 255:
            self._note(OVER_WHITE)
            rgb = over_white(rgb, alpha)
        stored = rgb.shape[0], rgb.shape[1]
        if (square := self._square(stored)) != stored:
            shape = f"{stored[1]}x{stored[0]} of pixels {self.aspect.numerator}:{self.aspect.denominator}"
            self._note(f"{shape} shown as {square[1]}x{square[0]} of square ones")
            rgb = fit(rgb, square, "stretch")[0]
        return np.ascontiguousarray(_upright(rgb, self._turn(picture)))

    def alters(self, picture: VideoFrame) -> str:
        """What a reader would miss that only decodes a picture and converts its colour matrix; empty for nothing."""
        primaries, transfer, turn = int(picture.color_primaries), int(picture.color_trc), self._turn(picture)
        said = colour_notes(primaries, transfer)
        found = {
            "is interlaced": picture.interlaced_frame,
            f"is shown turned by {picture.rotation} degrees or mirrored": turn not in (UPRIGHT, UPSIDE_DOWN),
            "has pixels that are not square": self.aspect != 1,
            "has transparent places": _may_be_transparent(picture),
            f"is not in the colours of BT.709: {'; '.join(said)}": converts(primaries, transfer),
        }
        return next((text for text, true in found.items() if true), "")

    def deinterlaced(self, pictures: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Pass pictures on; interlaced ones are made whole by FFmpeg's bwdif from them and both neighbours."""
        graph: Graph | None = None
        before: VideoFrame | None = None
        waiting: list[VideoFrame] = []  # those that the filter keeps until it has seen the next one

        def done(graph: Graph) -> Iterator[VideoFrame]:
            while waiting:
                try:
                    made = graph.vpull()
                except (BlockingIOError, EOFError):
                    return
                of = waiting.pop(0)
                made.pts, made.time_base = of.pts, of.time_base
                if of is not before:
                    yield made

        for picture in pictures:
            if graph is None and not picture.interlaced_frame:
                yield picture
                before = picture
                continue
            if graph is None:
                graph = _bwdif(picture)
                self._note("interlaced: deinterlaced by bwdif, one frame of each two fields")
                if before is not None:
                    graph.vpush(before)
                    waiting.append(before)
            graph.vpush(picture)
            waiting.append(picture)
            yield from done(graph)
        if graph is not None:
            graph.vpush(None)
            yield from done(graph)

    def _note(self, text: str) -> None:
        self._notes.setdefault(text)

    def _square(self, stored: Size) -> Size:
        """Sides with square pixels: the one that is too short grows, so that no pixel is lost; even, for codecs."""
        (height, width), aspect = stored, self.aspect
        if aspect > 1:
            return height, max(2, 2 * round(width * aspect / 2))
        if aspect < 1:
            return max(2, 2 * round(height / aspect / 2)), width
        return stored

    def _colours(self, picture: VideoFrame) -> AnyFrame:
        primaries, transfer = int(picture.color_primaries), int(picture.color_trc)
        dolby = self._side_data(picture, Type.DOVI_METADATA) or self._side_data(picture, Type.DOVI_RPU_BUFFER)
        if dolby and (transfer, primaries) == (UNSPECIFIED, UNSPECIFIED):
            raise InputError(
                f"{self.path}: is in Dolby Vision's own colours (profile 5), which nothing here shows rightly; "
                "expected HLG, HDR10 or SDR: export it so from the phone or the editor"
            )
        # Untagged files are taken as players take them.
        matrix = None
        if picture.colorspace == UNSPECIFIED:
            matrix = BT2020_MATRIX if primaries == 9 else 1 if picture.height >= 720 else 5
        deep = converts(primaries, transfer)
        try:
            rgb = self._scaler.reformat(
                picture,
                format="rgb48le" if deep else "rgb24",
                src_colorspace=matrix,
                interpolation=ACCURATE_SCALING,
            ).to_ndarray()
        except (FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{self.path}: FFmpeg's scaler cannot convert {picture.format.name} with colour matrix "
                f"{int(picture.colorspace)} of H.273 ({reason}); expected BT.601, BT.709, BT.2020 or RGB: convert the "
                "file first"
            ) from error
        for note in colour_notes(primaries, transfer):
            self._note(note)
        if deep:
            return to_bt709(rgb, primaries, transfer)
        if profile := self._side_data(picture, Type.ICC_PROFILE):
            rgb, said = by_profile(rgb, profile)
            for note in said:
                self._note(note)
        return rgb

    def _turn(self, picture: VideoFrame) -> tuple[int, int, int, int]:
        """(a, b, c, d) of the display matrix: a point (x, y) is shown at (ax + cy, bx + dy)."""
        if self.png_profile is not None:  # of which mirrors stay untold
            turned = np.deg2rad(picture.rotation)
            cosine, sine = (round(0x10000 * float(part)) for part in (np.cos(turned), np.sin(turned)))
            return cosine, -sine, sine, cosine
        if matrix := self._side_data(picture, Type.DISPLAYMATRIX):
            a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
            return a, b, c, d
        return UPRIGHT

    def _side_data(self, picture: VideoFrame, kind: Type) -> bytes:
        """What comes with a picture; empty where nothing of the kind does."""
        # PyAV 18 frees metadata of side data twice, which ends the process; FFmpeg gives some to PNG's profiles alone.
        if self.png_profile is not None:
            return self.png_profile if kind == Type.ICC_PROFILE else b""
        # Not `picture.side_data`: it and the picture then hold each other until the garbage collector comes by. (The
        # stub of this class has no argument, and names for what is in it.)
        for data in SideDataContainer(picture):  # pyright: ignore[reportCallIssue]
            if isinstance(data, SideData) and data.type == kind:
                return bytes(data)
        return b""


def _alpha(picture: VideoFrame) -> UInt8[np.ndarray, "h w"] | None:
    """Opacity of each pixel, 0 to 255; None for a format without."""
    if not _may_be_transparent(picture):
        return None
    return picture.reformat(format="rgba").to_ndarray()[..., 3]


def _may_be_transparent(picture: VideoFrame) -> bool:
    return picture.format.has_palette or any(component.is_alpha for component in picture.format.components)


UPRIGHT = (0x10000, 0, 0, 0x10000)  # the display matrix, in 16.16 fixed point, that does nothing
UPSIDE_DOWN = (-0x10000, 0, 0, -0x10000)


def _upright(rgb: AnyFrame, turn: tuple[int, int, int, int]) -> AnyFrame:
    """A picture turned, or mirrored as front cameras do, by the nearest quarter of its display matrix."""
    a, b, c, d = turn
    if abs(b) > abs(a):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _bwdif(like: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=like.width,
        height=like.height,
        format=like.format,
        time_base=like.time_base or Fraction(1, 1000),
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph
