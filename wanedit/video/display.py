"""A decoded picture as a screen shows it: the one door through which the pictures of every video come.

A file says more of its pictures than their pixels: how its colours are meant, the shape of a pixel, which way is up,
what is transparent. All of it is looked at here and put into pixels, and what was done is kept as a note.
"""

import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from av import VideoFrame
from av.error import FFmpegError
from av.filter import Graph
from av.sidedata.sidedata import SideData, SideDataContainer, Type
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import Float32, Float64, UInt8, UInt16

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame
from wanedit.video.images import OVER_WHITE, Size, by_profile, fit, over_white

# Exact colour; swscale's fast path is off by -0.9 levels in red and blue and by -1.4 in green.
ACCURATE_SCALING = int(
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

# What follows are code points of ITU-T H.273, which FFmpeg's numbers are.
UNSPECIFIED = 2
BT2020_MATRIX = 9
# Those whose red, green and blue are converted: x, y of each and of white (H.273, table 2).
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
_WIDE = {
    4: ("NTSC 1953", (0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    8: ("film", (0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ("BT.2020", (0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ("DCI P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ("Display P3", (0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
_BT709 = ("BT.709", (0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
# Of standard definition, near BT.709's. Files are tagged with them whether their colours were converted or not, and
# browsers and editors take them as BT.709's.
_NEAR = {5: "PAL (BT.470 B/G)", 6: "NTSC (SMPTE 170M)", 7: "SMPTE 240M", 10: "SMPTE 428", 22: "EBU 3213"}
_LINEAR, _PQ, _HLG = 8, 16, 18
_HDR = {_PQ: "PQ", _HLG: "HLG"}
# Curves that screens undo as they undo BT.709's; and those which they should not, but which nobody undoes otherwise.
_SDR = {1, 2, 4, 6, 7, 11, 12, 13, 14, 15}
_ODD = {5: "gamma 2.8", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE 428"}

WHITE = (
    203.0  # cd/m2 of a white sheet of paper in HDR (ITU-R BT.2408, table 1), which becomes the white of SDR
)
PEAK = 1000.0  # cd/m2 of the brightest highlight that is kept apart; HLG's own, and usual for PQ
KNEE = 0.7  # of white, in light: what is darker stays as it is, what is brighter shares the rest up to white
GAMMA = 2.4  # of a screen for SDR (ITU-R BT.1886)


class Display:
    """Shows the pictures of one video stream.

    Args:
        path: of the file, for messages.
        aspect: width of a stored pixel over its height; None or 1 for square ones.

    Attributes:
        notes: what was done to the pictures shown so far, one line each, in order.
    """

    def __init__(self, path: Path, aspect: Fraction | None) -> None:
        self.path, self.aspect = path, aspect or Fraction(1)
        self._notes: dict[str, None] = {}
        # One for all: a picture's own scaler has a context and threads of its own.
        self._scaler = VideoReformatter()

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def sides(self, picture: VideoFrame) -> Size:
        """(height, width) of a picture as it is shown."""
        height, width = self._square((picture.height, picture.width))
        a, b, _, _ = _turn(picture)
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
        return np.ascontiguousarray(_upright(rgb, _turn(picture)))

    def alters(self, picture: VideoFrame) -> str:
        """What a reader would miss that only decodes a picture and converts its colour matrix; empty for nothing."""
        primaries, transfer, turn = int(picture.color_primaries), int(picture.color_trc), _turn(picture)
        found = {
            "is interlaced": picture.interlaced_frame,
            f"is shown turned by {picture.rotation} degrees or mirrored": turn not in (UPRIGHT, UPSIDE_DOWN),
            "has pixels that are not square": self.aspect != 1,
            "has transparent places": _may_be_transparent(picture),
            f"is not in the colours of BT.709: {_said(primaries, transfer)}": _converts(primaries, transfer),
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
        dolby = _side_data(picture, Type.DOVI_METADATA) or _side_data(picture, Type.DOVI_RPU_BUFFER)
        if dolby and (transfer, primaries) == (UNSPECIFIED, UNSPECIFIED):
            raise InputError(
                f"{self.path}: is in Dolby Vision's own colours (profile 5), which nothing here shows rightly; "
                "expected HLG, HDR10 or SDR: export it so from the phone or the editor"
            )
        # Untagged files are taken as players take them.
        matrix = None
        if picture.colorspace == UNSPECIFIED:
            matrix = BT2020_MATRIX if primaries == 9 else 1 if picture.height >= 720 else 5
        converts = _converts(primaries, transfer)
        try:
            rgb = self._scaler.reformat(
                picture,
                format="rgb48le" if converts else "rgb24",
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
        if converts:
            self._note(_said(primaries, transfer))
            return to_bt709(rgb, primaries, transfer)
        if name := _NEAR.get(primaries):
            self._note(f"primaries of {name} are taken as BT.709's, as players do")
        if name := _ODD.get(transfer):
            self._note(f"its {name} curve is taken as BT.709's")
        if profile := _side_data(picture, Type.ICC_PROFILE):
            rgb, said = by_profile(rgb, profile)
            for note in said:
                self._note(note)
        return rgb


def _converts(primaries: int, transfer: int) -> bool:
    return primaries in _WIDE or transfer in _HDR or transfer == _LINEAR


def _said(primaries: int, transfer: int) -> str:
    colours = _WIDE[primaries][0] if primaries in _WIDE else "BT.709"
    if transfer in _HDR:
        return (
            f"HDR ({_HDR[transfer]}, {colours}) brought to SDR (BT.709): white of {WHITE:g} cd/m2 is white, highlights "
            f"up to {PEAK:g} are compressed below it"
        )
    light = "linear light of " if transfer == _LINEAR else ""
    return f"colours converted from {light}{colours} to BT.709"


def to_bt709(
    levels: UInt16[np.ndarray, "h w 3"], primaries: int, transfer: int
) -> UInt8[np.ndarray, "h w 3"]:
    """R'G'B' of any primaries and curve, 0 to 65535, as R'G'B' for an SDR screen (BT.709, BT.1886).

    Through light, in which 1 is SDR white: colours are mixed there (ITU-R BT.2087), and of HDR the highlights above
    `KNEE` compressed by the hyperbola that begins there with slope 1 and reaches 1 at `PEAK`, all three channels by the
    factor of the largest, so that hues stay. What lies outside of BT.709 is clipped.

    Args:
        primaries, transfer: code points of ITU-T H.273; of an unknown transfer, BT.1886.
    """
    light = _light(transfer)[levels]
    if primaries in _WIDE:
        light = cv2.transform(light, _to_709(primaries))
    if transfer in _HDR:
        top = np.maximum(light.max(axis=-1, keepdims=True), KNEE)
        span = (PEAK / WHITE - KNEE) / (1 - KNEE)
        over = (top - KNEE) / (1 - KNEE)
        light *= (KNEE + (1 - KNEE) * over / (1 + over * (1 - 1 / span))) / top
    return np.rint(255 * cv2.pow(np.clip(light, 0, 1), 1 / GAMMA)).astype(np.uint8)


@cache
def _light(transfer: int) -> Float32[np.ndarray, "65536"]:
    """Light of each 16-bit level; 1 is SDR white."""
    signal = np.arange(65536) / 65535
    match transfer:
        case 8:
            light = signal
        case 16:
            # ITU-R BT.2100, table 4, EOTF
            m1, m2 = 2610 / 16384, 2523 / 4096 * 128
            c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
            root = signal ** (1 / m2)
            light = 10_000 / WHITE * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
        case 18:
            # ITU-R BT.2100, table 5, inverse OETF
            a = 0.17883277
            b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
            scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
            # The gamma of 1.2 for a screen of 1000 cd/m2, on each channel as SDR's own rendering and FFmpeg's zscale
            # have it. BT.2100 takes it of luminance, for HDR screens: here that would pale the colours.
            light = 1000 / WHITE * scene**1.2
        case _:
            light = signal**GAMMA
    return light.astype(np.float32)


@cache
def _to_709(primaries: int) -> Float64[np.ndarray, "3 3"]:
    """Linear RGB of these primaries to linear BT.709, white to white (Bradford)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

    def xyz(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    def to_xyz(space: tuple) -> np.ndarray:
        _, *colours, white = space
        columns = np.stack([xyz(*colour) for colour in colours], axis=1)
        return columns * np.linalg.solve(columns, xyz(*white))

    there, here = _WIDE[primaries], _BT709
    gains = (bradford @ xyz(*here[-1])) / (bradford @ xyz(*there[-1]))
    adapt = np.linalg.solve(bradford, gains[:, None] * bradford)
    return np.linalg.solve(to_xyz(here), adapt @ to_xyz(there))


def _side_data(picture: VideoFrame, kind: Type) -> bytes:
    """What comes with a picture; empty where nothing of the kind does."""
    # Not `picture.side_data`: it and the picture then hold each other until the garbage collector comes by. (The stub
    # of this class has no argument, and names for what is in it.)
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


def _turn(picture: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: a point (x, y) is shown at (ax + cy, bx + dy)."""
    if matrix := _side_data(picture, Type.DISPLAYMATRIX):
        a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
        return a, b, c, d
    return UPRIGHT


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
