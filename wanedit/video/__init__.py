"""The only code that knows files of pixels: images, video files, and what is done to frames in between.

Two forms of a clip, and one module (`tensors`) that turns one into the other:

- on files, and in every function here unless it says otherwise: uint8 numpy arrays `(T, H, W, 3)`, RGB;
- beside a model: float32 tensors `(3, T, H, W)` in [-1, 1].

Names are loaded on first use, so importing this package pulls in neither PyAV nor OpenCV.
"""

import importlib
from typing import TYPE_CHECKING

# ruff: noqa: F401  (what a type checker sees; the table below loads it)
if TYPE_CHECKING:
    from wanedit.video.colour import AffineLab, correct_segment, fit_affine
    from wanedit.video.decode import VideoInfo, iter_frames, probe, read_frames
    from wanedit.video.encode import write_lossless, write_png, write_video
    from wanedit.video.images import FitRecord, LoadedImage, fit, list_images, load_image
    from wanedit.video.motion import retime
    from wanedit.video.sheets import contact_sheet, junction_sheet
    from wanedit.video.source import SourceClip, cut_back, hold_last, read_source
    from wanedit.video.stitching import Piece, smooth, smooth_stream, stitch
    from wanedit.video.tensors import from_uint8, to_uint8

_NAMES = {
    "colour": ("AffineLab", "correct_segment", "fit_affine"),
    "decode": ("VideoInfo", "iter_frames", "probe", "read_frames"),
    "encode": ("write_lossless", "write_video", "write_png"),
    "images": ("FitRecord", "LoadedImage", "fit", "list_images", "load_image"),
    "motion": ("retime",),
    "sheets": ("contact_sheet", "junction_sheet"),
    "source": ("SourceClip", "cut_back", "hold_last", "read_source"),
    "stitching": ("Piece", "smooth", "smooth_stream", "stitch"),
    "tensors": ("from_uint8", "to_uint8"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__: list[str] = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
