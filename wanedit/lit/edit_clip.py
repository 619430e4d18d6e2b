"""One clip edited with any method and any video model: encoded, corrected, decoded, restored."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Around, Edit, Edited, Method, Metrics, VideoModel, View, at_slots
from wanedit.flow.path import Step, clean_estimate
from wanedit.flow.solvers import Velocity
from wanedit.flow.windows import Windowed, window_starts
from wanedit.lit.model import OpenModel
from wanedit.lit.pixels import carried, flow_between, restored, retime_clip
from wanedit.lit.tasks import EditedClip, EditTask, SamplerSettings, Watch, hold_edges
from wanedit.progress import counted
from wanedit.rng import derive_seed, noise
from wanedit.timeline import STRIDE, slot
from wanedit.video import cut_back, from_uint8, hold_last, to_uint8
from wanedit.video.restoring import Restore

# Share of a window that neighbours have in common.
OVERLAP = 1 / 3
KeyframeEncoding = Literal["single", "group", "warped", "anchored"]
OnEditStep = Callable[[int, Step, Metrics], None]


@dataclass(frozen=True)
class EditSettings(SamplerSettings):
    """How every clip of a run is sampled; the methods that correct a velocity take Euler steps whatever the solver.

    Attributes:
        guidance_scale, source_guidance_scale: of the target's and the source's views.
        keyframe_encoding: how a keyframe becomes the latent of its slot. "single": as a video of one frame, which has
            the statistics of slot 0. "group": held for the slot's four frames and one before. "warped": moved to each
            of those five frames by the source's optical flow. "anchored": the source's latent, and what the warped
            edit differs by from the source's frame warped alike: a keyframe without an edit is the source's latent.
        restore: what a decoded edit gets back in pixels, see `wanedit.video.restoring`. "source": what the VAE lost of
            the source. "residual": that, and what the edit misses at its keyframes, carried along the source's motion.
            "keyframes": the keyframes themselves wherever that motion can be followed. "fused": that in each frame's
            light, and the model's picture beside it so far as it is right. "none": nothing.
        condition_keyframes: fill the condition channels with the keyframes that the model can be shown.
        window: slots of overlapping windows that a longer clip is seen through; None for the whole clip at once.
    """

    source_guidance_scale: float
    keyframe_encoding: KeyframeEncoding = "anchored"
    restore: Restore = "none"
    condition_keyframes: bool = True
    window: int | None = None


def edit_clip(
    model: VideoModel,
    method: Method,
    task: EditTask,
    settings: EditSettings,
    shown: tuple[int, ...],
    device: torch.device,
    on_step: OnEditStep | None = None,
    watch: Watch | None = None,
) -> EditedClip:
    """Encode, run the method, decode, restore, and cut what was held beyond the source's last frame.

    Args:
        shown: the frames of the keyframes that both views show the model.
        device: of the pixels that the model is given.
        on_step: called with (clip index, step, metrics) at every step.
        watch: shown where the model heads for under the target's view at every step.
    """
    started = time.perf_counter()
    steps: list[Metrics] = []

    def observe(step: Step, metrics: Metrics) -> None:
        steps.append(step_record(step, metrics))
        if on_step is not None:
            on_step(task.index, step, metrics)

    edit = make_edit(model, task, settings, shown, device)
    asked = windowed(model, settings)
    if watch is not None:
        asked = Watched(asked, edit, partial(watch, task.digest))
    own: Any = method
    if "seed" in getattr(method, "__dataclass_fields__", ()):
        # A method that draws noise of its own draws it by clip, as the coupled noise is.
        method = replace(own, seed=derive_seed(task.seed, "method", own.seed, task.index))
    levels = replace(settings.schedule, seed=derive_seed(task.seed, "solver", task.index))
    made = require_result(method, method(asked, edit, levels, observe), edit)
    height, width = task.size  # what is decoded has the edges that `make_edit` held
    if made.pixels is not None:
        frames = to_uint8(made.pixels[0, :, :, :height, :width])
    else:
        assert made.latents is not None, "a method makes latents or pixels, see `require_result`"
        video = model.decode(made.latents)[0, :, :, :height, :width]
        if settings.restore == "none":
            frames = to_uint8(video)
        else:
            coded = model.decode(edit.source)[0, :, :, :height, :width]
            frames = restored(video, coded, task.pictures, task.keyframe_indices, settings.restore)
    return EditedClip(
        task.index,
        task.digest,
        pass_tokens(task, settings),
        None if made.latents is None else made.latents[0].float().cpu(),
        frames if len(frames) == len(task.frames) else cut_back(frames, len(task.frames)),
        time.perf_counter() - started,
        model.evaluations,
        tuple(steps),
    )


def require_result(method: Method, made: object, edit: Edit) -> Edited:
    """What a method returned, where it is what it says, of the edit's own size.

    Raises:
        InputError: no `Edited`; latents or pixels of another size; pixels without `makes_pixels`, or it without them.
    """
    name = type(method).__name__
    if not isinstance(made, Edited):
        raise InputError(
            f"{name} returns {type(made).__name__}; expected Edited(latents=…) or Edited(pixels=…)"
        )
    if made.latents is None and made.pixels is None:
        raise InputError(f"{name} returns neither latents nor pixels; expected one of them")
    if made.pixels is not None and not method.makes_pixels:
        raise InputError(
            f"{name} returns pixels without makes_pixels; expected `makes_pixels = True`, or latents"
        )
    if made.pixels is None and method.makes_pixels:
        raise InputError(f"{name} says makes_pixels and returns latents; expected pixels, or no makes_pixels")
    sizes = {"latents": (made.latents, edit.source), "pixels": (made.pixels, edit.video)}
    for what, (got, expected) in sizes.items():
        if got is not None and expected is not None and got.shape != expected.shape:
            raise InputError(
                f"{name} returns {what} of {tuple(got.shape)}; expected those of the source, {tuple(expected.shape)}"
            )
    return made


def shown_frames(model: OpenModel, settings: EditSettings, task: EditTask) -> tuple[int, ...]:
    """The frames of the keyframes that the task's views show the model."""
    return model.showable(task.keyframe_indices, task.sampled_frames) if settings.condition_keyframes else ()


def windowed(model: VideoModel, settings: EditSettings) -> VideoModel:
    """The model as a method asks it: through windows where the clip is longer than the model is good for."""
    return model if settings.window is None else Windowed(model, settings.window, _overlap(settings.window))


def _overlap(window: int) -> int:
    return max(1, round(window * OVERLAP))


def contexts(slots: int, settings: EditSettings, method: Method) -> int:
    """How many the model holds at once for a clip of so many slots: one for each window, of the edit and of the source
    where the method asks about it."""
    window = settings.window
    windows = 1 if window is None else len(window_starts(slots, window, _overlap(window)))
    return windows * (1 if "reference" in method.ignores else 2)


def pass_tokens(task: EditTask, settings: EditSettings) -> int:
    """Tokens of one pass of the network: of the clip, or of a window that it is seen through."""
    slots = task.grid[0]
    return task.tokens * min(slots, settings.window or slots) // slots


class Watched(Around):
    """A `VideoModel` whose velocity of the edited clip is looked at, once a step."""

    def __init__(self, model: VideoModel, edit: Edit, show: Callable[[Step, Tensor], None]) -> None:
        super().__init__(model)
        self.edit, self.show = edit, show

    def velocity(self, view: View, slots: int) -> Velocity:
        """The model's own."""
        velocity, seen, edit = self.model.velocity(view, slots), set[int](), self.edit
        # The source may have the same prompt, but other keyframes.
        of_source = {id(image) for image in edit.reference.images.values()}
        shown = {id(image) for image in view.images.values()}
        if view.prompt != edit.target.prompt or shown & of_source or slots - view.joint != edit.num_slots:
            return velocity

        def watched(x: Tensor, step: Step) -> Tensor:
            v = velocity(x, step)
            # The first time alone: what is asked again at a step may be a derivative.
            if step.index not in seen:
                seen.add(step.index)
                self.show(step, clean_estimate(x, v, step.sigma)[:, :, : edit.num_slots])
            return v

        return watched


def make_edit(
    model: VideoModel, task: EditTask, settings: EditSettings, shown: tuple[int, ...], device: torch.device
) -> Edit:
    """The task as methods see it: latents, coupled noise, and a view of either clip."""
    # 4n+1 frames of a size that the model has, the last ones held; `edit_clip` cuts what it decodes back.
    video = hold_edges(from_uint8(hold_last(task.frames)), task.latent_space).to(device)
    keyframes = hold_edges(from_uint8(task.keyframes), task.latent_space).to(device)
    indices = task.keyframe_indices
    latents = model.encode(video[None])
    edited = encode_keyframes(model, keyframes, video, indices, settings.keyframe_encoding)
    if settings.keyframe_encoding == "anchored":
        # The source's latent, and what the edit changes under that encoding: no edit, no change.
        unedited = encode_keyframes(model, video[:, list(indices)], video, indices, "anchored")
        edited = at_slots(latents, task.slots) + edited - unedited
    return Edit(
        source=latents,
        edited=edited,
        slots=task.slots,
        noise=noise(latents.shape, task.seed, "edit", task.index).to(latents.device),
        target=View(
            task.prompt,
            settings.guidance_scale,
            {i: keyframes[:, k] for k, i in enumerate(indices) if i in shown},
            guidance_scale_low=settings.guidance_scale_low,
        ),
        reference=View(
            task.source_prompt,
            settings.source_guidance_scale,
            {i: video[:, i] for i in shown},
            # Of a source that is guided otherwise, at all levels.
            guidance_scale_low=settings.guidance_scale_low
            if settings.source_guidance_scale == settings.guidance_scale
            else None,
        ),
        video=video[None],
        keyframes=keyframes[None],
        frames=indices,
        flow=flow_between,
        retime=retime_clip,
    )


def encode_keyframes(
    model: VideoModel,
    keyframes: Float[Tensor, "3 k height width"],
    video: Float[Tensor, "3 t height width"],
    indices: tuple[int, ...],
    encoding: KeyframeEncoding,
) -> Float[Tensor, "1 c k h w"]:
    """x_e: keyframes one by one, never stacked through the causal VAE, which would read motion into them.

    Args:
        video: the source, whose motion the encodings "warped" and "anchored" follow.
        indices: the frames of the keyframes.
    """
    encoded = []
    for k, index in enumerate(counted(indices, "encoding keyframes", "keyframes")):
        keyframe, last = keyframes[:, k], STRIDE * slot(index)
        if encoding == "single" or last == 0:
            clip = keyframe[:, None]
        elif encoding == "group":
            clip = keyframe[:, None].expand(-1, 1 + STRIDE, -1, -1)
        else:
            # The four frames of its slot, and one before them that the causal VAE sees.
            frames = range(last - STRIDE, last + 1)
            clip = torch.stack([carried(keyframe, video, index, frame) for frame in frames], dim=1)
        encoded.append(model.encode(clip[None])[:, :, -1:])
    return torch.cat(encoded, dim=2)


def step_record(step: Step, metrics: Metrics) -> Metrics:
    """What is kept of one step."""
    return {"step": step.index, "sigma": step.sigma, "h": step.h, **metrics}
