"""The only code that knows files of pixels: images, video files, and what is done to frames in between.

Two forms of a clip, and one module (`arrays`) that turns one into the other:

- on files, and in every function here unless it says otherwise: uint8 numpy arrays `(T, H, W, 3)`, RGB;
- beside a model: float32 tensors `(3, T, H, W)` in [-1, 1].

Names are loaded on first use, so importing this package pulls in neither PyAV nor OpenCV.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanedit.video.arrays import from_uint8, to_uint8
    from wanedit.video.atomic import atomic_path
    from wanedit.video.colour import AffineLab, correct_segment, fit_affine
    from wanedit.video.decode import VideoInfo, iter_frames, probe, read_frames
    from wanedit.video.encode import write_lossless, write_mp4, write_png
    from wanedit.video.folder import list_images
    from wanedit.video.images import FitRecord, LoadedImage, fit, load_image
    from wanedit.video.retiming import retime
    from wanedit.video.sheets import contact_sheet, junction_sheet
    from wanedit.video.smoothing import smooth, smooth_stream
    from wanedit.video.source import SourceClip, cut_back, hold_last, read_source
    from wanedit.video.stitching import Piece, stitch

_HOME = {
    "from_uint8": "arrays",
    "to_uint8": "arrays",
    "atomic_path": "atomic",
    "AffineLab": "colour",
    "correct_segment": "colour",
    "fit_affine": "colour",
    "VideoInfo": "decode",
    "iter_frames": "decode",
    "probe": "decode",
    "read_frames": "decode",
    "write_lossless": "encode",
    "write_mp4": "encode",
    "write_png": "encode",
    "list_images": "folder",
    "FitRecord": "images",
    "LoadedImage": "images",
    "fit": "images",
    "load_image": "images",
    "retime": "retiming",
    "contact_sheet": "sheets",
    "junction_sheet": "sheets",
    "smooth": "smoothing",
    "smooth_stream": "smoothing",
    "SourceClip": "source",
    "cut_back": "source",
    "hold_last": "source",
    "read_source": "source",
    "Piece": "stitching",
    "stitch": "stitching",
}

__all__ = [  # noqa: RUF022  (in the order of the table above)
    "from_uint8",
    "to_uint8",
    "atomic_path",
    "AffineLab",
    "correct_segment",
    "fit_affine",
    "VideoInfo",
    "iter_frames",
    "probe",
    "read_frames",
    "write_lossless",
    "write_mp4",
    "write_png",
    "list_images",
    "FitRecord",
    "LoadedImage",
    "fit",
    "load_image",
    "retime",
    "contact_sheet",
    "junction_sheet",
    "smooth",
    "smooth_stream",
    "SourceClip",
    "cut_back",
    "hold_last",
    "read_source",
    "Piece",
    "stitch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
