"""FLF2VChain samples a chain of first-last-frame segments, SequenceDecoder decodes it; one a predict_step."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from wanedit.errors import HandedOver
from wanedit.flow.caching import StepCache
from wanedit.flow.path import Step, clean_estimate, interpolate
from wanedit.flow.relay import penalty
from wanedit.flow.solvers import SOLVERS, Observer, Velocity
from wanedit.lit.networks import Task, WanModule, Worker, picture_key, release
from wanedit.lit.tasks import (
    Answers,
    Bridge,
    ChainSettings,
    CoDenoising,
    DecodedPiece,
    DecodeTask,
    Kept,
    OnStep,
    SampledSegment,
    SegmentTask,
    Watch,
    asked,
    hold_edges,
    picture_of,
)
from wanedit.lit.velocity import GuidedVelocity
from wanedit.rng import noise
from wanedit.timeline import STRIDE
from wanedit.video import to_uint8
from wanedit.wan.condition import Condition, known_frames
from wanedit.wan.load import WanFolder, load_vae
from wanedit.wan.vae import WARM_UP, WanVAE


class Shown(NamedTuple):
    """What a model is shown of a clip, encoded.

    Attributes:
        condition: as `known_frames` gives it; None for a model without.
        first: what slot 0 is known to hold, for a model that is shown it in place.
    """

    condition: Condition | None
    first: Tensor | None

    def to(self, device: torch.device | str) -> "Shown":
        """On another device."""
        condition, first = self
        if isinstance(condition, tuple):
            condition = condition[0].to(device), condition[1].to(device)
        elif condition is not None:
            condition = condition.to(device)
        return Shown(condition, None if first is None else first.to(device))


class ChainModule(WanModule[Task]):
    """What asks one Wan model for velocities of segments and bridges.

    Args:
        folder: an opened model that takes a condition (flf2v, an inpainting i2v, or a vace).
        settings: of the sampler.
        on_step: called with (segment index, step index) after every step.
        watch: shown every step's clean estimate, as `Watch`.
        kept: what the network's answers about a task go through, as `Kept`.
    """

    def __init__(
        self,
        folder: WanFolder,
        settings: ChainSettings,
        on_step: OnStep | None = None,
        watch: Watch | None = None,
        kept: Kept = asked,
    ) -> None:
        super().__init__(folder, settings)
        folder.config.require_images(folder.name)
        self.settings = settings
        self.on_step = on_step or (lambda segment, step: None)
        self.watch, self.kept = watch, kept
        self.schedule = settings.schedule
        self.solve = SOLVERS[settings.solver]

    def seen(self, task: SegmentTask | CoDenoising, references: int = 0) -> Observer:
        """What a solver tells of each step of a task, whose first slots may be references."""

        def observe(step: Step, x: Tensor, v: Tensor) -> None:
            if self.watch is not None:
                self.watch(task.digest, step, clean_estimate(x, v, step.sigma)[:, :, references:])
            self.on_step(task.index, step.index)

        return observe

    def told(self, task: SegmentTask) -> set[str]:
        """The prompts of a segment or bridge."""
        told = {one.prompt for one in task.told} or {task.prompt}
        return told | {task.negative_prompt} if self.settings.reads_negative else told

    def looked_at(self, task: SegmentTask) -> list[Tensor]:
        """The pictures of a segment or bridge that the model looks at."""
        # A first-last model reads both keyframes; an inpainting one (Fun-InP) reads the first and sees the last
        # through its condition channels.
        return task.keyframes()[: self.folder.config.num_images]

    def references(self, task: SegmentTask) -> list[Tensor]:
        """Pictures (3, sampled_height, sampled_width) that are no frames."""
        return [hold_edges(picture_of(one), task.latent_space) for one in task.references]

    def shown(self, task: SegmentTask, ends: Mapping[int, Tensor] | None = None) -> Shown:
        """Encode the keyframes of a segment or bridge, which may take the transformer off the device.

        Args:
            ends: further known frames, of the sampled size.
        """
        _, vae = self.loaded()
        device, space, condition = vae.mean.device, task.latent_space, None
        known = {frame: hold_edges(picture, space).to(device) for frame, picture in task.known().items()}
        known = {**(ends or {}), **known}
        if self.folder.config.condition_channels:
            condition = known_frames(
                self.folder.config,
                known,
                task.sampled_frames,
                self.encode,
                space.sampled_size(task.size),
                self.folder.held(self.settings.middle_strength),
                references=[picture.to(device) for picture in self.references(task)],
            )
        return Shown(condition, self.encode_first(known))

    def velocity(
        self,
        task: SegmentTask,
        shown: Shown,
        cache: StepCache | None = None,
        answers: Answers = lambda ask: ask(),
    ) -> GuidedVelocity:
        """The model under guidance, told and shown what a segment or bridge says."""
        transformer, vae = self.loaded()
        device, settings = vae.mean.device, self.settings
        told = [self.encodings.text[one] for one in [one.prompt for one in task.told] or [task.prompt]]
        text = torch.cat(told, dim=1).to(device)
        negative = self.encodings.text[task.negative_prompt].to(device) if settings.reads_negative else text
        along = None
        if task.told:
            # Pictures that are no frames are told everything.
            along = pad(penalty(task.told, task.slots), (0, 0, len(task.references), 0)).to(device)
        pictures = [self.encodings.pictures[picture_key(image)] for image in self.looked_at(task)]
        condition, first = shown.to(device)
        return GuidedVelocity(
            transformer,
            task.grid,
            text,
            negative,
            torch.cat(pictures, dim=1).to(device) if pictures else None,
            condition,
            settings.guidance_scale,
            first=first,
            guidance_scale_low=settings.guidance_scale_low,
            cache=cache,
            prompts=self.crew.prompts,
            guide=settings.guide,
            penalty=along,
            answers=answers,
        )


class FLF2VChain(ChainModule[SegmentTask]):
    """Samples segments between keyframes with one Wan model, under any Trainer or without one.

    Args:
        folder: an opened model that takes a condition (flf2v, an inpainting i2v, or a vace).
        settings: of the sampler.
        on_step: called with (segment index, step index) after every step.
        watch: shown every step's clean estimate.
        kept: as of `ChainModule`.
        decodes: give each segment's frames too, decoded by itself; else the latents alone.

    Examples:
        >>> chain = FLF2VChain(open_wan("tiny"), ChainSettings(num_inference_steps=2, shift=3.0, guidance_scale=2.0))
        >>> tasks = [SegmentTask(index=0, sampled_frames=9, first=first, last=last, prompt="a red ball")]
        >>> [segment] = Trainer(enable_progress_bar=False).predict(chain, datamodule=TaskDataModule(tasks))
        >>> segment.latents.shape, segment.frames.shape
        (torch.Size([16, 3, 4, 4]), (9, 32, 32, 3))
    """

    def __init__(
        self,
        folder: WanFolder,
        settings: ChainSettings,
        on_step: OnStep | None = None,
        decodes: bool = True,
        watch: Watch | None = None,
        kept: Kept = asked,
    ) -> None:
        super().__init__(folder, settings, on_step, watch, kept)
        self.decodes = decodes

    def texts(self, task: SegmentTask) -> set[str]:
        return self.told(task)

    def pictures(self, task: SegmentTask) -> list[Tensor]:
        return self.looked_at(task)

    def predict_step(
        self, batch: SegmentTask, batch_idx: int = 0, dataloader_idx: int = 0
    ) -> SampledSegment | None:
        """Sample one segment from noise that the task alone decides, and decode it if asked; None where `on_step`
        hands it over.

        Raises:
            NumericalError, ResourceError: see `working_on`.
        """
        task, started = batch, time.perf_counter()
        with self.working_on(task.name, task, "Finished segments stay; lower size or fps"):
            try:
                latents, evaluations = self.sample(task)
            except HandedOver:
                return None
            height, width = task.size
            whole = self.decodes and task.bridge is None
            frames = to_uint8(self.decode(latents)[0, :, :, :height, :width]) if whole else None
        seconds = time.perf_counter() - started
        made, off = latents[0].float().cpu(), self.off_sdpa
        return SampledSegment(task.index, task.digest, task.tokens, made, frames, seconds, evaluations, off)

    def load(self, tasks: Sequence[SegmentTask], device: torch.device | str = "cpu") -> None:
        """As of `WanModule`; nothing for tasks that no network is needed for."""
        super().load([task for task in tasks if self.decodes or len(task.levels(self.schedule))], device)

    def sample(self, task: SegmentTask) -> tuple[Float[Tensor, "1 channels s h w"], int]:
        """The latents of a segment, or of a bridge those of its zone; and the passes of the network that they took."""
        levels, bridge, references = task.levels(self.schedule), task.bridge, len(task.references)
        if task.begun is not None and not len(levels):
            return task.begun.latents.read()[None, :, references:], 0
        device = self.ready(task).vae.mean.device
        shape = (1, task.latent_space.channels, *task.grid)
        window, ends = None, None
        if bridge is not None:
            window, ends = self.window(bridge, device)
            subjects = [self.encode(one[None, :, None]) for one in self.references(task)]
            window = torch.cat([*subjects, window], dim=2)
        shown = self.shown(task, ends)
        self.bring(device)
        with self.kept(task.digest) as answers:
            velocity = model = self.velocity(task, shown, self.settings.cache, answers)
            if bridge is not None and window is not None:
                x = interpolate(
                    window, noise(shape, task.seed, "bridge", task.index).to(device), levels.sigmas[0]
                )
                before = references - bridge.window[0]
                velocity = held(velocity, window, [before + slot for slot in bridge.zone])
            elif task.begun is not None:
                x = task.begun.latents.read()[None].to(device)
            else:
                x = levels.start * noise(shape, task.seed, "segment", task.index).to(device)
            latents = self.solve(velocity, x, levels, self.seen(task, references))
        latents = latents[:, :, references:]
        if bridge is None:
            return latents, model.evaluations
        zone = [slot - bridge.window[0] for slot in bridge.zone]
        return latents[:, :, zone[0] : zone[-1] + 1], model.evaluations

    def window(self, bridge: Bridge, device: torch.device) -> tuple[Tensor, dict[int, Tensor]]:
        """Latents (1, channels, S, h, w) of a bridge's window, and the frames at those of its ends that are inside of a
        segment: where they are no keyframes, the model is shown what was sampled."""
        both, (start, stop) = bridge.latents.read()[None].to(device), bridge.window
        anchor, ends = both[:, :, :1], dict[int, Tensor]()
        if start > 0 or stop < both.shape[2]:
            low = max(0, start - WARM_UP)
            frames = self.decode(both[:, :, low:stop])[0]
            if stop < both.shape[2]:
                ends[STRIDE * (stop - 1 - start)] = frames[:, -1]
            if start > 0:
                ends[0] = frames[:, STRIDE * (start - low)]
                anchor = self.encode(ends[0][None, :, None])
        return torch.cat([anchor, both[:, :, start + 1 : stop]], dim=2), ends


def held(velocity: Velocity, known: Tensor, free: Sequence[int]) -> Velocity:
    """`velocity` in the slots `free`; all others go straight to what is known, whose noised latents they so hold at
    every step of any solver: v = (x - x_0) / sigma, as at the first slot of a `GuidedVelocity`."""

    def partly(x: Tensor, step: Step) -> Tensor:
        v = (x - known) / step.sigma
        v[:, :, free] = velocity(x, step)[:, :, free]
        return v

    return partly


class SequenceDecoder(Worker[DecodeTask]):
    """Decodes stretches of a sequence of latents, each with what goes before it, under any Trainer or without one.

    Args:
        folder: an opened model, of which the VAE alone is loaded.
        tile: side of VAE tiles in pixels; None for whole frames.
        compile: have the decoding of whole clips compiled.
    """

    def __init__(self, folder: WanFolder, tile: int | None = None, compile: bool = False) -> None:
        super().__init__()
        self.folder, self.tile, self.compile_decoding = folder, tile, compile
        # In a list, so that it is no submodule, whose weights Lightning would send from rank to rank.
        self.loaded: list[WanVAE] = []

    def setup(self, stage: str) -> None:
        """Nothing yet: a rank without a task loads nothing."""

    def predict_step(self, batch: DecodeTask, batch_idx: int = 0, dataloader_idx: int = 0) -> DecodedPiece:
        """Decode one stretch.

        Raises:
            InputError: latents that cannot be read.
            NumericalError, ResourceError: see `working_on`.
        """
        with self.working_on(batch.name, batch, "Decoded segments stay; lower size"):
            if not self.loaded:
                self.loaded = [load_vae(self.folder, self.device)]
                if self.compile_decoding:
                    self.loaded[0].compile_decoding()
            started, latents = time.perf_counter(), batch.latents.read()[None].to(self.device)
            height, width = batch.size
            video = self.loaded[0].decode(latents, self.tile)
            frames = to_uint8(video[0, :, -batch.frames :, :height, :width])
        return DecodedPiece(batch.index, batch.digest, frames, time.perf_counter() - started)

    def teardown(self, stage: str) -> None:
        """Let go of the weights."""
        self.loaded = []
        release(self.device)
