"""Optical flow and retiming on tensors, for the methods that work on pixels: flow/ knows no files and no OpenCV."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from wanedit.flow.methods.warp import backward_warp
from wanedit.lit.tasks import Pictures
from wanedit.video import from_uint8, retime, to_uint8
from wanedit.video.motion import dis_flow
from wanedit.video.restoring import Restoration, Restored
from wanedit.video.tensors import require_finite


def flow_between(
    a: Float[Tensor, "b 3 height width"], b: Float[Tensor, "b 3 height width"]
) -> Float[Tensor, "b 2 height width"]:
    """DIS optical flow in pixels, x then y: what `a` shows at (x, y), `b` shows at (x, y) + flow."""
    pairs = zip(to_uint8(a.transpose(0, 1)), to_uint8(b.transpose(0, 1)), strict=True)
    flows = np.stack([dis_flow(first, second) for first, second in pairs])
    return torch.from_numpy(flows).movedim(-1, 1).to(a)


def retime_clip(
    video: Float[Tensor, "b 3 m height width"], count: int
) -> Float[Tensor, "b 3 n height width"]:
    """`count` frames at even positions, those between frames moved along the motion; see `video.retime`."""
    clips = [from_uint8(retime(to_uint8(clip), count, "optical_flow")) for clip in video]
    return torch.stack(clips).to(video)


def carried(
    keyframe: Float[Tensor, "3 height width"],
    video: Float[Tensor, "3 t height width"],
    index: int,
    frame: int,
) -> Float[Tensor, "3 height width"]:
    """The edited frame `index` as it would look at `frame`, moved by the source's optical flow between the two."""
    if frame == index:
        return keyframe
    flow = flow_between(video[None, :, frame], video[None, :, index])
    return backward_warp(keyframe[None], flow)[0]


def restored(
    video: Float[Tensor, "3 t height width"],
    coded: Float[Tensor, "3 t height width"],
    pictures: Pictures,
    indices: tuple[int, ...],
    kind: Restored,
) -> UInt8[np.ndarray, "n _ _ 3"]:
    """As many frames as `pictures` has, of their size: see `Restoration`.

    Args:
        video: the decoded edit; frames held beyond the source's last one are let go.
        coded: the source, encoded and decoded.
    """
    source = np.asarray(pictures.frames)
    edited, own = _Levels(video[:, : len(source)]), _Levels(coded[:, : len(source)])
    return Restoration(edited, own, source, pictures.keyframes, indices, kind).frames()


class _Levels:
    """A clip's frames (H, W, 3) as levels 0 … 255, not rounded; one at a time, since all would be a second clip.

    Raises:
        NumericalError: a value is NaN or infinite.
    """

    def __init__(self, video: Float[Tensor, "3 t height width"]) -> None:
        require_finite(video)
        self.video = video

    def __getitem__(self, t: int) -> Float32[np.ndarray, "height width 3"]:
        frame = (self.video[:, t].float().cpu() + 1) * 127.5
        return np.ascontiguousarray(frame.movedim(0, -1).numpy())
