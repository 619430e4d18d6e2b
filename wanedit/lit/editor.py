"""FlowMatchingEditor: edit one clip a predict_step, with any method, which asks a WanVideoModel; OutsideEditor: with a
model that is no Wan."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.caching import CachedModel, StepCache
from wanedit.flow.editing import Edit, Method, View
from wanedit.flow.guiding import Guide
from wanedit.lit.edit_clip import EditSettings, OnEditStep, edit_clip, make_edit, shown_frames
from wanedit.lit.model import OutsideModel, require_readable
from wanedit.lit.networks import WanModule, picture_key
from wanedit.lit.tasks import Answers, EditedClip, EditTask, Kept, Watch, asked, hold_edges
from wanedit.lit.velocity import CLASSIFIER_FREE, GuidedVelocity
from wanedit.timeline import STRIDE
from wanedit.video import from_uint8
from wanedit.wan.condition import Condition, known_frames, told_of_latents
from wanedit.wan.config import IMAGE_TOKENS
from wanedit.wan.load import WanFolder


class FlowMatchingEditor(WanModule[EditTask]):
    """Edits clips with one Wan model and one method, under any Trainer or without one.

    Args:
        folder: an opened model of any kind; what it cannot be shown is left out of its condition.
        method: an editing method of `wanedit.flow.methods`.
        settings: of the sampler.
        on_step: called with (clip index, step, metrics) at every step.
        watch: shown where the model heads for at every step, see `edit_clip`.
        kept: what the network's answers about a clip go through, as `Kept`.

    Examples:
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
        watch: Watch | None = None,
        kept: Kept = asked,
    ) -> None:
        super().__init__(folder, settings)
        own = getattr(method, "solver", settings.solver)
        if replace(settings, solver=own).schedule != settings.schedule:
            raise InputError(
                f"the method's solver is {own} and the schedule's {settings.solver}; expected one"
            )
        self.method = method
        self.settings = settings
        self.on_step = on_step or (lambda index, step, metrics: None)
        self.watch, self.kept = watch, kept
        self.schedule = settings.schedule

    def texts(self, task: EditTask) -> set[str]:
        return {task.prompt, task.source_prompt, task.negative_prompt}

    def pictures(self, task: EditTask) -> list[Tensor]:
        edited = hold_edges(from_uint8(task.keyframes), task.latent_space)
        source = hold_edges(from_uint8(task.frames[list(task.keyframe_indices)]), task.latent_space)
        return [*edited.unbind(1), *source.unbind(1)]

    def predict_step(self, batch: EditTask, batch_idx: int = 0, dataloader_idx: int = 0) -> EditedClip:
        """Edit one clip.

        Raises:
            NumericalError, ResourceError: see `working_on`.
        """
        with self.working_on(f"clip {batch.index}", batch, "Lower size or num_frames"):
            device = self.ready(batch).vae.mean.device
            shown = shown_frames(self.folder, self.settings, batch)
            with self.kept(batch.digest) as answers:
                model = self.video_model(batch, answers)
                made = edit_clip(
                    model, self.method, batch, self.settings, shown, device, self.on_step, self.watch
                )
            return replace(made, off_sdpa=self.off_sdpa)

    def video_model(self, task: EditTask, answers: Answers = lambda ask: ask()) -> "WanVideoModel":
        """The model as methods ask it about a task; `answers` as of `GuidedVelocity`."""
        settings = self.settings
        return WanVideoModel(
            self,
            task.sampled_size,
            task.negative_prompt,
            settings.middle_strength,
            settings.cache,
            settings.guide,
            answers,
        )

    def problem(self, task: EditTask, device: torch.device) -> Edit:
        """The task as the method sees it; see `make_edit`."""
        model = self.video_model(task)
        shown = shown_frames(self.folder, self.settings, task)
        return make_edit(model, task, self.settings, shown, device)


class WanVideoModel:
    """Velocities and codec for clips of one size.

    Args:
        module: with VAE and transformer loaded, and every prompt and picture encoded that views may name.
        size: (height, width) in pixels, multiples of a token's side.
        negative_prompt: of guidance.
        middle_strength: as in `ChainSettings`.
        cache: of every velocity, each with a past of its own.
        guide: how every velocity is guided.
        answers: all that the network says goes through it.
    """

    def __init__(
        self,
        module: WanModule,
        size: tuple[int, int],
        negative_prompt: str,
        middle_strength: float | Sequence[float] | None = None,
        cache: StepCache | None = None,
        guide: Guide = CLASSIFIER_FREE,
        answers: Answers = lambda ask: ask(),
    ) -> None:
        self.module = module
        self.middle_strength = middle_strength
        self.cache = cache
        self.guide, self.answers = guide, answers
        self.size = size
        self.negative_prompt = negative_prompt
        self.config = module.folder.config
        self._given: list[GuidedVelocity] = []

    @property
    def evaluations(self) -> int:
        """Forward passes of the transformer so far."""
        return sum(velocity.evaluations for velocity in self._given)

    def encode(self, video: Float[Tensor, "b 3 t height width"]) -> Float[Tensor, "b c s h w"]:
        """Normalised latents."""
        return self.module.encode(video)

    def decode(self, latents: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b 3 t height width"]:
        """Pixels in [-1, 1]."""
        return self.module.decode(latents)

    def velocity(self, view: View, slots: int) -> GuidedVelocity:
        """See `VideoModel.velocity`; the batch is one clip.

        Raises:
            InputError: a prompt or picture that was not encoded beforehand, or pictures for a model without condition.
        """
        num_frames = STRIDE * (slots - view.joint - 1) + 1
        require_readable(self.module.folder, view)
        transformer, vae = self.module.loaded()
        device = vae.mean.device
        condition = self.condition(view, num_frames) if self.config.condition_channels else None
        first = self.module.encode_first(view.images)
        tokens = self._tokens(view, num_frames)
        grid = (slots, *self.module.folder.latent_space.grid(1, self.size)[1:])
        scale, low = view.guidance_scale, view.guidance_scale_low
        words = self._words(view.prompt).to(device)
        reads = self.guide.reads_negative([scale, scale if low is None else low])
        negative = self._words(self.negative_prompt).to(device) if reads else words
        ids = None if view.frame_ids is None else torch.tensor(view.frame_ids, device=device)
        self.module.bring(device)
        given = GuidedVelocity(
            transformer,
            grid,
            words,
            negative,
            None if tokens is None else tokens.to(device),
            condition,
            scale,
            ids,
            first,
            low,
            self.cache,
            guide=self.guide,
            answers=self.answers,
        )
        self._given.append(given)
        return given

    def _words(self, prompt: str) -> Tensor:
        if prompt not in self.module.encodings.text:
            raise InputError(f"prompt {prompt[:60]!r} was not encoded; expected one of the task's own")
        return self.module.encodings.text[prompt]

    def condition(self, view: View, num_frames: int) -> Condition:
        """What the model is told of the view's frames, see `known_frames`, and of its joint slots."""
        made = None if view.video is None or view.mask is None else (view.video, view.mask)
        middle = self.module.folder.held(self.middle_strength)
        clip = known_frames(self.config, view.images, num_frames, self.encode, self.size, middle, made)
        if not view.joint:
            return clip
        # Slots of one frame, unknown or known whole.
        single = known_frames(self.config, {}, 1, self.encode, self.size)
        assert isinstance(single, Tensor), "of no frame the experts are told the same"
        single = single.expand(-1, -1, view.joint, -1, -1)
        if view.appended is not None:
            single = told_of_latents(self.config, view.appended.to(single), single)
        both = clip if isinstance(clip, tuple) else (clip, clip)
        high, low = (torch.cat([one, single], dim=2) for one in both)
        return (high, low) if isinstance(clip, tuple) else high

    def _tokens(self, view: View, num_frames: int) -> Tensor | None:
        """257 tokens of each frame that the model looks at; zeros for one that is not shown."""
        if not self.config.image_tokens:
            return None
        looked_at = (0, num_frames - 1)[: self.config.num_images]
        return torch.cat([self._picture(view.images.get(frame)) for frame in looked_at], dim=1)

    def _picture(self, image: Tensor | None) -> Tensor:
        if image is None:
            return torch.zeros(1, IMAGE_TOKENS, self.config.image_dim)
        key = picture_key(image)
        if key not in self.module.encodings.pictures:
            raise InputError("a picture of the view was not encoded; expected frames of the task")
        return self.module.encodings.pictures[key]


class OutsideEditor(LightningModule):
    """Edits clips with one video model that is no Wan and one method.

    Args:
        model: by name, not yet made.
        method, settings, on_step, watch: as for `FlowMatchingEditor`.
    """

    def __init__(
        self,
        model: OutsideModel,
        method: Method,
        settings: EditSettings,
        on_step: OnEditStep | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__()
        self.opened, self.method, self.settings = model, method, settings
        self.on_step, self.watch = on_step, watch

    def predict_step(self, batch: EditTask, batch_idx: int = 0, dataloader_idx: int = 0) -> EditedClip:
        """Edit one clip with a model of its own, which counts that clip's evaluations."""
        shown, cache = shown_frames(self.opened, self.settings, batch), self.settings.cache
        with torch.inference_mode(False), torch.no_grad():
            model = self.opened.made() if cache is None else CachedModel(self.opened.made(), cache)
            return edit_clip(
                model, self.method, batch, self.settings, shown, self.device, self.on_step, self.watch
            )

    def transfer_batch_to_device(
        self, batch: EditTask, device: torch.device, dataloader_idx: int
    ) -> EditTask:
        """Leave the task on the CPU."""
        return batch
