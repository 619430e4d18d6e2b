"""FlowMatchingEditor: edit one clip a predict_step, with any method."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, Metrics, VideoModel, View, at_slots
from wanedit.flow.path import Step, schedule
from wanedit.flow.windows import Windowed
from wanedit.lit.edit_task import EditedClip, EditTask
from wanedit.lit.model import WanVideoModel, showable
from wanedit.lit.networks import WanModule
from wanedit.lit.pixels import carried, flow_between, restored, retime_clip
from wanedit.rng import derive_seed, noise
from wanedit.timeline import slot
from wanedit.video import cut_back, from_uint8, hold_last, to_uint8
from wanedit.video.restoring import Restore
from wanedit.wan.load import WanFolder
from wanedit.wan.vae import STRIDE_TIME

# Share of a window that neighbours have in common.
OVERLAP = 1 / 3
KeyframeEncoding = Literal["single", "group", "warped", "anchored"]
OnEditStep = Callable[[int, Step, Metrics], None]


@dataclass(frozen=True)
class EditSettings:
    """How every clip of a run is sampled.

    Attributes:
        solver: whose schedule is visited; the methods that correct a velocity take Euler steps on it.
        guidance_scale, source_guidance_scale: of the target's and the source's views.
        keyframe_encoding: how a keyframe becomes the latent of its slot. "single": as a video of one frame, which has
            the statistics of slot 0. "group": held for the slot's four frames and one before. "warped": moved to each
            of those five frames by the source's optical flow. "anchored": the source's latent, and what the warped
            edit differs by from the source's frame warped alike: a keyframe without an edit is the source's latent.
        restore: what a decoded edit gets back in pixels, see `wanedit.video.restoring`. "source": what the VAE lost of
            the source. "residual": that, and what the edit misses at its keyframes, carried along the source's motion.
            "keyframes": the keyframes themselves wherever that motion can be followed. "none": nothing.
        condition_keyframes: fill the condition channels with the keyframes that the model can be shown.
        window: slots of overlapping windows that a longer clip is seen through; None for the whole clip at once.
        offload_model, t5_cpu, tile: as in generation.
    """

    num_inference_steps: int
    shift: float
    guidance_scale: float
    source_guidance_scale: float
    solver: str = "euler"
    keyframe_encoding: KeyframeEncoding = "anchored"
    restore: Restore = "none"
    condition_keyframes: bool = True
    window: int | None = None
    offload_model: bool = True
    t5_cpu: bool = False
    tile: int | None = None


class FlowMatchingEditor(WanModule[EditTask]):
    """Edits clips with one Wan model and one method, under any Trainer or without one.

    Args:
        folder: an opened model of any kind; what it cannot be shown is left out of its condition.
        method: an editing method of `wanedit.flow.methods`.
        settings: of the sampler.
        on_step: called with (clip index, step, metrics) at every step.

    Example:
        >>> settings = EditSettings(
        ...     num_inference_steps=2, shift=3.0, guidance_scale=1.0, source_guidance_scale=1.0
        ... )
        >>> editor = FlowMatchingEditor(open_wan("tiny"), ResidualCorrectedFlow(), settings)
        >>> task = EditTask(
        ...     index=0, frames=frames, keyframes=keyframes, keyframe_indices=(0, 8), prompt="a blue square",
        ...     source_prompt="a red square", negative_prompt="", seed=3, digest="",
        ... )
        >>> [clip] = Trainer(enable_progress_bar=False).predict(editor, datamodule=TaskDataModule([task]))
        >>> clip.frames.shape, len(clip.steps)
        ((9, 32, 32, 3), 2)
    """

    def __init__(
        self,
        folder: WanFolder,
        method: Method,
        settings: EditSettings,
        on_step: OnEditStep | None = None,
    ) -> None:
        super().__init__(folder, settings.offload_model, settings.t5_cpu, settings.tile)
        own, steps, shift = (
            getattr(method, "solver", settings.solver),
            settings.num_inference_steps,
            settings.shift,
        )
        if schedule(steps, shift, own) != schedule(steps, shift, settings.solver):
            raise InputError(
                f"the method's solver is {own} and the schedule's {settings.solver}; expected one"
            )
        self.method = method
        self.settings = settings
        self.on_step = on_step or (lambda index, step, metrics: None)
        self.schedule = schedule(settings.num_inference_steps, settings.shift, settings.solver)

    def texts(self, task: EditTask) -> set[str]:
        return {task.prompt, task.source_prompt, task.negative_prompt}

    def pictures(self, task: EditTask) -> list[Tensor]:
        edited = from_uint8(task.keyframes)
        source = from_uint8(task.frames[list(task.keyframe_indices)])
        return [*edited.unbind(1), *source.unbind(1)]

    def predict_step(self, batch: EditTask, batch_idx: int = 0, dataloader_idx: int = 0) -> EditedClip:
        """Edit one clip.

        Raises:
            NumericalError, ResourceError: see `working_on`.
        """
        with self.working_on(f"clip {batch.index}", batch, "Lower size or num_frames"):
            return self.edit(batch)

    @torch.no_grad()
    def edit(self, task: EditTask) -> EditedClip:
        """Encode, run the method, decode, and cut what was held beyond the source's last frame."""
        _, vae = self.ready(task)
        started = time.perf_counter()
        model = self._model(task)
        steps: list[Metrics] = []

        def observe(step: Step, metrics: Metrics) -> None:
            steps.append(step_record(step, metrics))
            self.on_step(task.index, step, metrics)

        problem = self.problem(task, vae.mean.device)
        result = self._seeded(task)(model, problem, self.schedule, observe)
        frames = self._frames(result, problem, task)
        latents = None if result.latents is None else result.latents[0].float().cpu()
        seconds = time.perf_counter() - started
        return EditedClip(
            task.index, task.digest, task.tokens, latents, frames, seconds, model.evaluations, tuple(steps)
        )

    def _frames(self, result: Edited, problem: Edit, task: EditTask) -> UInt8[np.ndarray, "t height width 3"]:
        """The edited clip as frames: decoded, restored, and without what was held beyond the source's last frame."""
        kind, count = self.settings.restore, len(task.frames)
        if result.pixels is None:
            assert result.latents is not None, "a method returns latents or pixels"
            video = self.decode(result.latents)[0]
            if kind != "none":
                coded = self.decode(problem.source)[0]
                return restored(video, coded, task.pictures, task.keyframe_indices, kind)
        else:
            video = result.pixels[0]
        frames = to_uint8(video)
        return frames if len(frames) == count else cut_back(frames, count)

    def _model(self, task: EditTask) -> VideoModel:
        model = WanVideoModel(self, task.size, task.negative_prompt)
        window = self.settings.window
        return model if window is None else Windowed(model, window, max(1, round(window * OVERLAP)))

    def _seeded(self, task: EditTask) -> Any:
        """The method; one that draws noise of its own draws it by clip, as the coupled noise is."""
        method: Any = self.method
        if not hasattr(method, "seed"):
            return method
        return replace(method, seed=derive_seed(task.seed, "method", method.seed, task.index))

    def problem(self, task: EditTask, device: torch.device) -> Edit:
        """The task as methods see it: latents, coupled noise, and a view of either clip."""
        # 4n+1 frames, the last one held; `edit` cuts what it decodes back to the source's count.
        video = from_uint8(hold_last(task.frames)).to(device)
        keyframes = from_uint8(task.keyframes).to(device)
        indices = task.keyframe_indices
        shown = shown_frames(self.folder, self.settings, task)
        targets = {i: keyframes[:, k] for k, i in enumerate(indices) if i in shown}
        sources = {i: video[:, i] for i in shown}
        settings = self.settings
        latents = self.encode(video[None])
        return Edit(
            latents,
            self._edited(keyframes, video, indices, latents),
            task.slots,
            noise((1, 16, *task.grid), task.seed, "edit", task.index).to(device),
            View(task.prompt, settings.guidance_scale, targets),
            View(task.source_prompt, settings.source_guidance_scale, sources),
            video[None],
            keyframes[None],
            indices,
            flow=flow_between,
            retime=retime_clip,
        )

    def _edited(
        self, keyframes: Tensor, video: Tensor, indices: tuple[int, ...], latents: Tensor
    ) -> Float[Tensor, "1 16 k h w"]:
        """x_e of the kind that the settings ask for; `latents` are the source's."""
        edited = self.encode_keyframes(keyframes, video, indices)
        if self.settings.keyframe_encoding != "anchored":
            return edited
        unedited = self.encode_keyframes(video[:, list(indices)], video, indices)
        return at_slots(latents, tuple(slot(index) for index in indices)) + edited - unedited

    def encode_keyframes(self, keyframes: Tensor, video: Tensor, indices: tuple[int, ...]) -> Tensor:
        """x_e (1, 16, K, H/8, W/8): keyframes (3, K, H, W) one by one, never stacked through the causal VAE.

        Args:
            video: the source (3, T, H, W), whose motion the kinds "warped" and "anchored" follow.
            indices: the frames of the keyframes.
        """
        clips = [self._slot_clip(keyframes[:, k], video, index)[None] for k, index in enumerate(indices)]
        return torch.cat([self.encode(clip)[:, :, -1:] for clip in clips], dim=2)

    def _slot_clip(self, keyframe: Tensor, video: Tensor, index: int) -> Tensor:
        """What is encoded for one keyframe (3, H, W): 1 frame, or 5 of which the last 4 are those of its slot."""
        kind, last = self.settings.keyframe_encoding, STRIDE_TIME * slot(index)
        if kind == "single" or last == 0:
            return keyframe[:, None]
        if kind == "group":
            return keyframe[:, None].expand(-1, 1 + STRIDE_TIME, -1, -1)
        frames = range(last - STRIDE_TIME, last + 1)
        return torch.stack([carried(keyframe, video, index, frame) for frame in frames], dim=1)


def step_record(step: Step, metrics: Metrics) -> Metrics:
    """What is kept of one step."""
    return {"step": step.index, "sigma": step.sigma, "h": step.h, **metrics}


def shown_frames(folder: WanFolder, settings: EditSettings, task: EditTask) -> tuple[int, ...]:
    """The frames of the keyframes that the task's views show the model."""
    if not settings.condition_keyframes:
        return ()
    return showable(folder, task.keyframe_indices, task.sampled_frames)
