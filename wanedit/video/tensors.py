"""The one bridge between frames of files and a model's clips; what reads and checks files imports no torch."""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from wanedit.errors import NumericalError
from wanedit.video.arrays import AnyFrame, Frames, require_frame
from wanedit.video.images import from_pillow, load_image

# What programs pass as a picture: in memory (H, W, 3) uint8, or the path of a file.
Picture = Image.Image | np.ndarray | Tensor | str | os.PathLike[str]


def to_uint8(video: Float[Tensor, "3 t h w"]) -> Frames:
    """A model's clip in [-1, 1] as frames for a file.

    Values are clamped to [-1, 1], as the official Wan writer does, and rounded to the nearest level. (The
    official writer truncates, which darkens by half a level and does not give `from_uint8` back.)

    Raises:
        NumericalError: a value is NaN or infinite; cast to uint8 it would be a silent black.
    """
    require_finite(video)
    levels = (video.detach().float().clamp(-1, 1) + 1) * 127.5
    return levels.round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()


def from_uint8(frames: Frames) -> Float[Tensor, "3 t h w"]:
    """Frames of a file as float32 in [-1, 1]; exact inverse of `to_uint8`."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)
    return (video.float() / 127.5 - 1).contiguous()


def require_finite(video: Float[Tensor, "3 t h w"]) -> None:
    """Raise NumericalError for a clip with a value that is NaN or infinite."""
    bad = ~torch.isfinite(video)
    if bad.any():
        frame = int(bad.any(dim=(0, 2, 3)).nonzero()[0])
        raise NumericalError(
            f"{int(bad.sum())} of {video.numel()} pixel values are NaN or infinite, first in frame {frame}; "
            "written as 8 bits they would be black"
        )


def pixels_of(picture: Picture, what: str) -> AnyFrame:
    """A picture as uint8 RGB (H, W, 3), whatever it comes as; warnings say what was done to it, each once.

    Raises:
        InputError: a file that is no picture, or an array of another kind; `what` names it.
    """
    if isinstance(picture, str | os.PathLike | Image.Image):
        pillow = isinstance(picture, Image.Image)
        loaded = from_pillow(picture, what) if pillow else load_image(Path(picture))
        for note in loaded.notes:
            warnings.warn(note, stacklevel=3)
        return loaded.pixels
    return require_frame(picture.cpu().numpy() if isinstance(picture, Tensor) else picture, what)
