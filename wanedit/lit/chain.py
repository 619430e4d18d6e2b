"""FLF2VChain: sample a chain of first-last-frame segments, one segment a predict_step."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from wanedit.errors import InputError, NumericalError, ResourceError
from wanedit.flow.path import Step, schedule
from wanedit.flow.solvers import get_solver
from wanedit.lit.encode import Encodings, encode_tasks, release
from wanedit.lit.tasks import SampledSegment, SegmentTask
from wanedit.lit.velocity import GuidedVelocity
from wanedit.rng import noise
from wanedit.video import to_uint8
from wanedit.wan.condition import build_condition
from wanedit.wan.experts import ExpertPair
from wanedit.wan.load import WanFolder, default_dtype, load_transformer, load_vae
from wanedit.wan.transformer import WanTransformer
from wanedit.wan.vae import WanVAE

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


class FLF2VChain(LightningModule):
    """Samples segments between keyframes with one Wan model.

    Weights are loaded when prediction starts: first the encoders, which are used on all of this rank's
    segments and dropped, then VAE and transformer.

    Args:
        folder: an opened model that takes a condition (flf2v, or an inpainting i2v).
        settings: of the sampler.
        on_step: called with (segment index, step index) after every step.
    """

    def __init__(self, folder: WanFolder, settings: ChainSettings, on_step: OnStep | None = None) -> None:
        super().__init__()
        if not folder.config.condition_channels:
            raise InputError(
                f"{folder.name} reads no images ({folder.config.model_type}); expected a flf2v or i2v model"
            )
        self.folder = folder
        self.settings = settings
        self.on_step = on_step or (lambda segment, step: None)
        self.schedule = schedule(settings.num_inference_steps, settings.shift, settings.solver)
        self.solve = get_solver(settings.solver)
        self.encodings = Encodings({}, {})
        self.transformer: WanTransformer | ExpertPair | None = None
        self.vae: WanVAE | None = None

    def load(self, tasks: list[SegmentTask], device: torch.device | str = "cpu") -> None:
        """Encode `tasks` and load what sampling them needs; nothing is loaded for no task."""
        device = torch.device(device)
        if not tasks:
            return
        text_device = torch.device("cpu") if self.settings.t5_cpu else device
        self.encodings = encode_tasks(
            self.folder, tasks, self.settings.guidance_scale, device, text_device, default_dtype(device)
        )
        self.vae = load_vae(self.folder, device)
        home = torch.device("cpu") if self._offloading(device) else device
        self.transformer = load_transformer(self.folder, home, default_dtype(device))

    def _offloading(self, device: torch.device) -> bool:
        return self.settings.offload_model and device.type != "cpu"

    def _bring(self, device: torch.device) -> None:
        """The transformer to the device, or only the expert that will answer."""
        if not self._offloading(device):
            return
        if isinstance(self.transformer, ExpertPair):
            self.transformer.swap_on(device)
        elif self.transformer is not None:
            self.transformer.to(device)

    def _send_away(self, device: torch.device) -> None:
        """Off the device, while the VAE works."""
        if self._offloading(device) and self.transformer is not None:
            self.transformer.to("cpu")
            release(device)

    def on_predict_end(self) -> None:
        """Let go of the weights here: Lightning would copy them to host memory to be tidy."""
        device = self.device
        self.transformer = self.vae = None
        release(torch.device(device))

    def on_predict_start(self) -> None:
        loaders = self.trainer.predict_dataloaders
        self.load(list(loaders), self.device)  # pyright: ignore[reportArgumentType]

    def transfer_batch_to_device(
        self, batch: SegmentTask, device: torch.device, dataloader_idx: int
    ) -> SegmentTask:
        """Leave the task on the CPU: `sample` moves what it needs, when it needs it."""
        return batch

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

    def _rank(self) -> int:
        return self.global_rank if self._trainer is not None else 0

    @torch.no_grad()
    def sample(self, task: SegmentTask) -> Tensor:
        """Latents (1, 16, S, H/8, W/8) of a segment, from noise that `task` alone decides."""
        if self.transformer is None or self.vae is None:
            raise RuntimeError("call load() before sample()")
        device = self.vae.mean.device
        condition = build_condition(
            {0: task.first.to(device), task.sampled_frames - 1: task.last.to(device)},
            task.sampled_frames,
            lambda video: self.vae.encode(video, self.settings.tile),  # pyright: ignore[reportOptionalMemberAccess]
        )
        self._bring(device)
        velocity = self._velocity(task, condition, device)
        start = noise((1, 16, *task.grid), task.seed, "segment", task.index).to(device)

        def observe(step: Step, x: Tensor, v: Tensor) -> None:
            self.on_step(task.index, step.index)

        return self.solve(velocity, start, self.schedule, observe)

    def _velocity(self, task: SegmentTask, condition: Tensor, device: torch.device) -> GuidedVelocity:
        assert self.transformer is not None
        scale = self.settings.guidance_scale
        text = self.encodings.text[task.prompt].to(device)
        negative = text if scale == 1.0 else self.encodings.text[task.negative_prompt].to(device)
        tokens = self.encodings.image_tokens.get(task.index)
        tokens = None if tokens is None else tokens.to(device)
        return GuidedVelocity(self.transformer, task.grid, text, negative, tokens, condition, scale)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (1, 3, T, H, W) in [-1, 1]; the transformer leaves the device meanwhile if offloading."""
        if self.transformer is None or self.vae is None:
            raise RuntimeError("call load() before decode()")
        self._send_away(latents.device)
        return self.vae.decode(latents, self.settings.tile)
