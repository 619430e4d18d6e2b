"""Warp the nearest edited keyframe along the source's motion: the trivial method that needs no model."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule


def backward_warp(
    image: Float[Tensor, "b c height width"], flow: Float[Tensor, "b 2 height width"]
) -> Float[Tensor, "b c height width"]:
    """`image` read at (x + flow_0, y + flow_1), in pixels, bilinearly; beyond its border the border."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    where = flow + torch.stack([x, y]).to(flow)
    # grid_sample counts from -1 at the centre of the first pixel to 1 at the centre of the last.
    unit = where.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    grid = 2 * where.movedim(1, -1) / unit - 1
    return grid_sample(image, grid.to(image), mode="bilinear", padding_mode="border", align_corners=True)


@METHODS.register("warp")
@dataclass(frozen=True)
class WarpNearestKeyframe(Method):
    """Each frame is the edited keyframe nearest in time, the earlier of two as near, moved by the source's flow.

    What the keyframe does not show, because it was hidden or out of the picture there, is filled with what is near.
    """

    makes_pixels: ClassVar[bool] = True

    def decides(self, levels: Schedule) -> dict[str, object]:
        # Version 0.1 held, and hashed, the function that the edit hands it now.
        return {"flow": "flow_between"}

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"model", "reference", "edited", "images"})

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        video, keyframes = edit.video, edit.keyframes
        if video is None or keyframes is None or len(edit.frames) != len(edit.slots):
            raise InputError("an edit without pixels; expected video, keyframes and their frames")
        if edit.flow is None:
            raise InputError(
                "an edit without an optical flow; expected one between frames a and b of its video"
            )
        if edit.frames[-1] >= video.shape[2]:
            raise InputError(f"keyframes are at {list(edit.frames)}; expected 0 … {video.shape[2] - 1}")
        frames = []
        for t in range(video.shape[2]):
            k = min(range(len(edit.frames)), key=lambda k: abs(edit.frames[k] - t))
            at = edit.frames[k]
            picture = keyframes[:, :, k]
            if t != at:
                picture = backward_warp(picture, edit.flow(video[:, :, t], video[:, :, at]))
            frames.append(picture)
        return Edited(pixels=torch.stack(frames, dim=2))
