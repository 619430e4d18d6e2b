"""FlowMatchingEditor: edit one clip a predict_step, with any method; OutsideEditor: with a model that is no Wan."""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Method
from wanedit.flow.path import schedule
from wanedit.lit.edit_clip import EditSettings, OnEditStep, edit_clip, make_edit
from wanedit.lit.model import OpenModel, OutsideModel, WanVideoModel
from wanedit.lit.networks import WanModule
from wanedit.lit.tasks import EditedClip, EditTask, hold_edges
from wanedit.video import from_uint8
from wanedit.wan.load import WanFolder


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
        edited = hold_edges(from_uint8(task.keyframes))
        source = hold_edges(from_uint8(task.frames[list(task.keyframe_indices)]))
        return [*edited.unbind(1), *source.unbind(1)]

    def predict_step(self, batch: EditTask, batch_idx: int = 0, dataloader_idx: int = 0) -> EditedClip:
        """Edit one clip.

        Raises:
            NumericalError, ResourceError: see `working_on`.
        """
        with self.working_on(f"clip {batch.index}", batch, "Lower size or num_frames"):
            device = self.ready(batch).vae.mean.device
            model = WanVideoModel(self, batch.sampled_size, batch.negative_prompt)
            shown = shown_frames(self.folder, self.settings, batch)
            return edit_clip(model, self.method, batch, self.settings, shown, device, self.on_step)

    def problem(self, task: EditTask, device: torch.device) -> Edit:
        """The task as the method sees it; see `make_edit`."""
        model = WanVideoModel(self, task.sampled_size, task.negative_prompt)
        shown = shown_frames(self.folder, self.settings, task)
        return make_edit(model, task, self.settings, shown, device)


class OutsideEditor(LightningModule):
    """Edits clips with one video model that is no Wan and one method.

    Args:
        model: by name, not yet made.
        method, settings, on_step: as for `FlowMatchingEditor`.
    """

    def __init__(
        self,
        model: OutsideModel,
        method: Method,
        settings: EditSettings,
        on_step: OnEditStep | None = None,
    ) -> None:
        super().__init__()
        self.opened, self.method, self.settings, self.on_step = model, method, settings, on_step

    def predict_step(self, batch: EditTask, batch_idx: int = 0, dataloader_idx: int = 0) -> EditedClip:
        """Edit one clip with a model of its own, which counts that clip's evaluations."""
        shown = shown_frames(self.opened, self.settings, batch)
        with torch.inference_mode(False), torch.no_grad():
            return edit_clip(
                self.opened.made(), self.method, batch, self.settings, shown, self.device, self.on_step
            )

    def transfer_batch_to_device(
        self, batch: EditTask, device: torch.device, dataloader_idx: int
    ) -> EditTask:
        """Leave the task on the CPU."""
        return batch


def shown_frames(model: OpenModel, settings: EditSettings, task: EditTask) -> tuple[int, ...]:
    """The frames of the keyframes that the task's views show the model."""
    return model.showable(task.keyframe_indices, task.sampled_frames) if settings.condition_keyframes else ()
