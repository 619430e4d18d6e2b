"""Optical flow and retiming on tensors, for the methods that work on pixels: flow/ knows no files and no OpenCV."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wanedit.flow.editing import Method
from wanedit.flow.methods import FLF2V, WarpNearestKeyframe
from wanedit.flow.methods.warp import backward_warp
from wanedit.video import from_uint8, retime, to_uint8
from wanedit.video.motion import dis_flow
from wanedit.video.restoring import Levels, restore_keyframes, restore_source


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
    source: UInt8[np.ndarray, "t height width 3"],
    keyframes: UInt8[np.ndarray, "k height width 3"],
    indices: Sequence[int],
    kind: Literal["source", "residual", "keyframes"],
) -> Float[Tensor, "3 t height width"]:
    """A decoded edit with what the codec lost of the source and, unless kind is "source", with its keyframes.

    Args:
        video: the decoded edit.
        coded: the source, encoded and decoded.
        source, keyframes: frames as they are in files.
        indices: of the keyframes.
        kind: see `EditSettings.restore`.
    """
    levels = restore_source(_levels(video), _levels(coded), source)
    if kind != "source":
        levels = restore_keyframes(levels, source, keyframes, indices, kind == "keyframes")
    return (torch.from_numpy(levels).movedim(-1, 0) / 127.5 - 1).to(video)


def _levels(video: Float[Tensor, "3 t height width"]) -> Levels:
    """0 … 255, not rounded."""
    return np.ascontiguousarray(((video.float().cpu() + 1) * 127.5).movedim(0, -1).numpy())


def pixel_defaults(kind: type[Method]) -> dict[str, object]:
    """What this package gives a method in place of functions on pixels."""
    return {FLF2V: {"retime": retime_clip}, WarpNearestKeyframe: {"flow": flow_between}}.get(kind, {})
