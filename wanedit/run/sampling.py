"""Sampling the segments that a run still lacks, on this rank, through Lightning."""

import hashlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from wanedit.errors import ResourceError
from wanedit.lit.chain import FLF2VChain, OnStep
from wanedit.lit.data import SegmentDataModule
from wanedit.lit.tasks import SampledSegment, SegmentTask
from wanedit.lit.writer import SegmentWriter
from wanedit.run.directory import RunDirectory, append_event
from wanedit.run.launch import World, choose_devices, reclaim_signals, threads
from wanedit.run.manifest import Entry, Manifest, file_sha256, segment_file
from wanedit.run.plan import Plan
from wanedit.video import write_lossless
from wanedit.video.atomic import atomic_path


def sample(
    plan: Plan, todo: list[SegmentTask], directory: RunDirectory, world: World, on_step: OnStep
) -> None:
    """Sample this rank's share of `todo`; each segment is on disk and in the journal when its step ends.

    Raises:
        NumericalError, ResourceError, MissingWeightsError: see FLF2VChain.
    """
    _silence()
    accelerator, devices = choose_devices(plan.config, world)
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=world.nodes,
        strategy=_strategy(world),
        callbacks=[_KeepSignals(), SegmentWriter(_saver(plan, directory, world.rank))],
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    chain = FLF2VChain(plan.folder, plan.settings, on_step)
    with threads(plan.config.cpu_threads or 1):
        trainer.predict(chain, SegmentDataModule(todo), return_predictions=False)


class _KeepSignals(Callback):
    """Lightning's SIGTERM handler waits for all ranks; ours unwinds at once."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reclaim_signals()


def _strategy(world: World):
    if not world.under_torchrun:
        return "auto"
    from lightning.pytorch.strategies import DDPStrategy

    return DDPStrategy(process_group_backend="gloo")


def _silence() -> None:
    # Lightning's advice is for training: worker counts, unused GPUs, its own products.
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*(LeafSpec|does not have many workers).*")


def _saver(plan: Plan, directory: RunDirectory, rank: int) -> Callable[[SampledSegment], None]:
    manifest = Manifest(directory)

    def save(segment: SampledSegment) -> None:
        task = segment.task
        name = segment_file(task.index, task.digest)
        try:
            if plan.config.save_latents:
                save_latents(directory, name, segment)
            write_lossless(directory.segments / name, segment.frames, plan.timeline.fps)
            entry = Entry(
                task.index,
                name,
                file_sha256(directory.segments / name),
                len(segment.frames),
                hashlib.sha256(segment.latents.numpy().tobytes()).hexdigest(),
                round(segment.seconds, 3),
                rank,
            )
            manifest.record(task.digest, entry)
        except ResourceError as error:
            raise ResourceError(
                f"segment {task.index}: {error}. Finished segments stay; make room and run again"
            ) from None
        _log(plan, directory, segment, rank)

    return save


def save_latents(directory: RunDirectory, name: str, segment: SampledSegment) -> None:
    """Keep a segment's normalised latents beside its video, as safetensors."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = latents_path(directory, name)
    with atomic_path(path) as partial:
        try:
            save_file({"latents": segment.latents.contiguous()}, str(partial))
        except SafetensorError as error:
            # The library knows no errno: a file that cannot be written here is a disk that is full.
            raise ResourceError(f"{path}: not written, {error}") from None


def latents_path(directory: RunDirectory, name: str) -> Path:
    """Where the latents of a segment's file are kept."""
    return (directory.segments / name).with_suffix(".safetensors")


def _log(plan: Plan, directory: RunDirectory, segment: SampledSegment, rank: int) -> None:
    steps = plan.settings.num_inference_steps
    line = {
        "event": "segment",
        "segment": segment.task.index,
        "rank": rank,
        "frames": len(segment.frames),
        "tokens": segment.task.tokens,
        "steps": steps,
        "seconds": round(segment.seconds, 3),
        "latent_rms": round(float(segment.latents.square().mean().sqrt()), 5),
    }
    append_event(directory.metrics, line)
