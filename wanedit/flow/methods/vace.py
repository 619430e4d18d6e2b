"""Masked video-to-video: a model that was trained for it is given the keyframes, the source, and where to change it."""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Flow, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.methods.warp import backward_warp
from wanedit.flow.path import Schedule
from wanedit.flow.sampling import num_frames, pictures, watching
from wanedit.flow.solvers import SOLVERS
from wanedit.registry import Registered

Source = Literal["region", "luminance", "video", "none"]


@METHODS.register("vace")
@dataclass(frozen=True)
class MaskedVideo(Method):
    """VACE (arXiv 2503.07598): sampled from noise by a model that reads a video and a mask of where to change it.

    The edited keyframes are kept whole, at their frames. Of the source, the frames between them are given as `source`
    says. No velocity is corrected: what is kept, and how well, is the model's own skill.

    Attributes:
        source: "region": kept wherever the edit leaves it, grey elsewhere: inpainting. The place of the edit is where a
            keyframe differs from its source frame, carried to the other frames by the source's optical flow from the
            keyframe before and the one after. "luminance": its grey values, everywhere to be changed: colourising.
            "video": the same in colour, for which VACE was not trained. "none": not at all.
        threshold: a difference of a pixel, in the range -1 to 1, from which on it counts as edited.
        grow: pixels by which the region is widened on every side.
        guidance_scale: instead of the target view's own.
        solver: a name of `wanedit.flow.solvers`; its schedule is visited.
    """

    restored_by: ClassVar[str] = "source"

    source: Source = "region"
    threshold: float = 0.1
    grow: int = 8
    guidance_scale: float | None = None
    solver: Annotated[str, Registered("wanedit.flow:SOLVERS")] = "unipc"

    def __post_init__(self) -> None:
        SOLVERS[self.solver]  # a name that is none is refused before the run
        if self.source not in get_args(Source):
            raise InputError(f"source is {self.source!r}; expected one of {', '.join(get_args(Source))}")
        if not 0 < self.threshold < 2 or self.grow < 0:
            raise InputError(
                f"threshold is {self.threshold:g} and grow {self.grow}; expected one between 0 and 2, and pixels"
            )

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"reference", "edited", "images"})

    def doubts(self, levels: Schedule, guidance: tuple[float, float | None]) -> list[str]:
        told = {
            "video": "source video: VACE was trained on grey, depth, pose or flow as what is to be changed, not on a "
            "video in colour; it may come back as it was",
            "luminance": "source luminance: of the source's colours nothing is seen; they come from the keyframes",
            "none": "source none: between the keyframes nothing of the source is seen",
        }
        return [told[self.source]] if self.source in told else []

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        shown = pictures(edit)
        if edit.video is None:
            raise InputError("an edit without pixels; expected the video of its source")
        video, mask = edit.video[0], edit.video.new_ones(num_frames(edit), *edit.video.shape[3:])
        if self.source == "region":
            mask = self.region(edit)
            video = video * (1 - mask)
        elif self.source == "luminance":
            # ITU-R BT.601, as OpenCV's grey, which VACE's own annotator takes.
            weights = video.new_tensor([0.299, 0.587, 0.114])
            video = torch.einsum("c,cthw->thw", weights, video).expand_as(video)
        elif self.source == "none":
            video = torch.zeros_like(video)
        view = replace(edit.target, images=shown, video=video, mask=mask).guided(self.guidance_scale)
        velocity = model.velocity(view, edit.num_slots)
        return Edited(latents=SOLVERS[self.solver](velocity, edit.noise, schedule, watching(edit, observe)))

    def region(self, edit: Edit) -> Float[Tensor, "t height width"]:
        """1 where a frame is to be made anew, 0 where the source is kept."""
        video, keyframes = edit.video, edit.keyframes
        if video is None or keyframes is None or edit.flow is None:
            raise InputError(
                "an edit without pixels or optical flow; expected both of the source and its keyframes"
            )
        off = (keyframes - video[:, :, list(edit.frames)]).abs().amax(dim=1, keepdim=True)
        edited = (off > self.threshold).to(video)
        masks = []
        for t in range(video.shape[2]):
            before = [k for k, frame in enumerate(edit.frames) if frame <= t][-1:]
            after = [k for k, frame in enumerate(edit.frames) if frame >= t][:1]
            seen = [
                self._carried(edited[:, :, k], video, edit.frames[k], t, edit.flow) for k in before + after
            ]
            masks.append(torch.stack(seen).amax(dim=0)[0, 0])
        return F.max_pool2d(torch.stack(masks)[:, None], 2 * self.grow + 1, 1, self.grow)[:, 0]

    def _carried(
        self, edited: Float[Tensor, "1 1 h w"], video: Tensor, index: int, frame: int, flow: Flow
    ) -> Float[Tensor, "1 1 h w"]:
        """The edited place of frame `index`, at another frame."""
        if frame == index:
            return edited
        return (backward_warp(edited, flow(video[:, :, frame], video[:, :, index])) > 0).to(edited)
