"""Colours of wide gamuts and HDR, named by the code points of ITU-T H.273, as those of an SDR screen (BT.709)."""

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

UNSPECIFIED = 2
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
_LINEAR, _SRGB, _PQ, _HLG = 8, 13, 16, 18
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
_LINEAR_BELOW = 0.0031308  # of light in sRGB (IEC 61966-2-1)


def converts(primaries: int, transfer: int) -> bool:
    """Whether `to_bt709` is needed: false for what screens show as they show BT.709."""
    return primaries in _WIDE or transfer in _HDR or transfer == _LINEAR


def is_known(primaries: int, transfer: int) -> bool:
    """Whether the code points are any whose light is known, or near enough to be taken as BT.709's."""
    return primaries in {1, UNSPECIFIED, *_WIDE, *_NEAR} and transfer in {*_SDR, *_HDR, *_ODD, _LINEAR}


def colour_notes(primaries: int, transfer: int) -> list[str]:
    """What is done to such colours, one line each; none for BT.709's."""
    colours = _WIDE[primaries][0] if primaries in _WIDE else "BT.709"
    notes = []
    if transfer in _HDR:
        notes.append(
            f"HDR ({_HDR[transfer]}, {colours}) brought to SDR (BT.709): white of {WHITE:g} cd/m2 is white, highlights "
            f"up to {PEAK:g} are compressed below it"
        )
    elif converts(primaries, transfer):
        light = "linear light of " if transfer == _LINEAR else ""
        notes.append(f"colours converted from {light}{colours} to BT.709")
    if name := _NEAR.get(primaries):
        notes.append(f"primaries of {name} are taken as BT.709's, as players do")
    if name := _ODD.get(transfer):
        notes.append(f"its {name} curve is taken as BT.709's")
    return notes


def to_bt709(
    levels: UInt16[np.ndarray, "h w 3"], primaries: int, transfer: int
) -> UInt8[np.ndarray, "h w 3"]:
    """R'G'B' of any primaries and curve, 0 to 65535, as R'G'B' for an SDR screen (BT.709, BT.1886).

    What has sRGB's curve keeps it, and linear light, as renderers save it, gets it.

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
    light = np.clip(light, 0, 1)
    level = cv2.pow(light, 1 / GAMMA)
    if transfer in (_SRGB, _LINEAR):
        level = np.where(light > _LINEAR_BELOW, 1.055 * level - 0.055, 12.92 * light)
    return np.rint(255 * level).astype(np.uint8)


@cache
def _light(transfer: int) -> Float32[np.ndarray, "65536"]:
    """Light of each 16-bit level; 1 is SDR white."""
    signal = np.arange(65536) / 65535
    match transfer:
        case 8:
            light = signal
        case 13:
            light = np.where(
                signal > 12.92 * _LINEAR_BELOW, ((signal + 0.055) / 1.055) ** 2.4, signal / 12.92
            )
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
