"""FLF2VChain: sample a chain of first-last-frame segments, one segment a predict_step."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from wanedit.errors import InputError, NumericalError, ResourceError
from wanedit.flow.path import Step, schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.lit.encode import Encodings, encode_tasks
from wanedit.lit.networks import WanModule
from wanedit.lit.tasks import SampledSegment, SegmentTask
from wanedit.lit.velocity import GuidedVelocity
from wanedit.rng import noise
from wanedit.video import to_uint8
from wanedit.wan.condition import build_condition
from wanedit.wan.load import WanFolder, default_dtype
from wanedit.wan.transformer import ExpertPair, WanTransformer

OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class ChainSettings:
    """How every segment of a run is sampled.

    Attributes:
        offload_model: on an accelerator, the transformer is in host memory while the VAE works, and of two
            experts only the one that answers is on the device.
        t5_cpu: the text encoder runs on the CPU.
        tile: side of VAE tiles in pixels; None for whole frames.
    """

    num_inference_steps: int
    shift: float
    guidance_scale: float
    solver: str = "unipc"
    offload_model: bool = True
    t5_cpu: bool = False
    tile: int | None = None


class FLF2VChain(WanModule):
    """Samples segments between keyframes with one Wan model.

    Weights are loaded when prediction starts: first the encoders, which are used on all of this rank's
    segments and dropped, then VAE and transformer.

    Args:
        folder: an opened model that takes a condition (flf2v, or an inpainting i2v).
        settings: of the sampler.
        on_step: called with (segment index, step index) after every step.
    """

    def __init__(self, folder: WanFolder, settings: ChainSettings, on_step: OnStep | None = None) -> None:
        super().__init__(folder, settings.offload_model, settings.tile)
        if not folder.config.condition_channels:
            raise InputError(
                f"{folder.name} reads no images ({folder.config.model_type}); expected a flf2v or i2v model"
            )
        self.settings = settings
        self.on_step = on_step or (lambda segment, step: None)
        self.schedule = schedule(settings.num_inference_steps, settings.shift, settings.solver)
        self.solve = SOLVERS[settings.solver]
        self.encodings = Encodings({}, {})

    def load(self, tasks: list[SegmentTask], device: torch.device | str = "cpu") -> None:
        """Encode `tasks` and load what sampling them needs; nothing is loaded for no task."""
        device = torch.device(device)
        if not tasks:
            return
        text_device = torch.device("cpu") if self.settings.t5_cpu else device
        self.encodings = encode_tasks(
            self.folder, tasks, self.settings.guidance_scale, device, text_device, default_dtype(device)
        )
        self.load_networks(device)

    def on_predict_start(self) -> None:
        loaders = self.trainer.predict_dataloaders
        self.load(list(loaders), self.device)  # pyright: ignore[reportArgumentType]

    def predict_step(self, batch: SegmentTask, batch_idx: int = 0) -> SampledSegment:
        """Sample and decode one segment.

        Raises:
            NumericalError: a velocity or the decoded video is not finite; names segment, rank and step.
            ResourceError: out of memory; names the settings that lower it.
        """
        started = time.perf_counter()
        try:
            latents = self.sample(batch)
            frames = to_uint8(self.decode(latents)[0])
        except NumericalError as error:
            raise NumericalError(f"segment {batch.index}, rank {self._rank()}: {error}") from None
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"out of memory in segment {batch.index} ({batch.tokens} tokens): {str(error).splitlines()[0]} "
                "Finished segments stay; lower size or fps, or set offload_model, t5_cpu or tile"
            ) from None
        return SampledSegment(batch, latents[0].float().cpu(), frames, time.perf_counter() - started)

    @torch.no_grad()
    def sample(self, task: SegmentTask) -> Tensor:
        """Latents (1, 16, S, H/8, W/8) of a segment, from noise that `task` alone decides."""
        transformer, vae = self.loaded()
        device = vae.mean.device
        known = {0: task.first.to(device), task.sampled_frames - 1: task.last.to(device)}
        condition = build_condition(known, task.sampled_frames, self.encode)
        self.bring(device)
        velocity = self._velocity(transformer, task, condition, device)
        start = noise((1, 16, *task.grid), task.seed, "segment", task.index).to(device)

        def observe(step: Step, x: Tensor, v: Tensor) -> None:
            self.on_step(task.index, step.index)

        return self.solve(velocity, start, self.schedule, observe)

    def _velocity(
        self,
        transformer: WanTransformer | ExpertPair,
        task: SegmentTask,
        condition: Tensor,
        device: torch.device,
    ) -> GuidedVelocity:
        scale = self.settings.guidance_scale
        text = self.encodings.text[task.prompt].to(device)
        negative = text if scale == 1.0 else self.encodings.text[task.negative_prompt].to(device)
        tokens = self.encodings.image_tokens.get(task.index)
        tokens = None if tokens is None else tokens.to(device)
        return GuidedVelocity(transformer, task.grid, text, negative, tokens, condition, scale)
