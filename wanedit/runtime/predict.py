"""Making what a run still lacks, on this rank, through Lightning."""

import hashlib
import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wanedit.errors import HandedOver
from wanedit.files import Json, atomic_path, file_sha256, reading
from wanedit.interrupts import reclaim_signals
from wanedit.lit.tasks import Answers, DecodedPiece, EditedClip, SampledSegment, TaskStream, Work
from wanedit.progress import counted
from wanedit.runtime.claims import LostError
from wanedit.runtime.directory import Entry, RunDirectory, segment_file
from wanedit.runtime.launch import World, choose_devices, threads
from wanedit.runtime.settings import SampledSettings
from wanedit.video import write_lossless
from wanedit.video.arrays import AnyFrame

# Seconds between two times that velocities of a segment or an edit are written: what a killed process loses.
EVERY = 20.0
# Makes tasks with a module, and gives each prediction to `save`: (module, tasks, save, config).
Elsewhere = Callable[[Any, Iterable[Work], Callable[[Any], None], SampledSettings], None]
_elsewhere: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)


@contextmanager
def making(elsewhere: Elsewhere) -> Iterator[None]:
    """Have what is predicted inside the block made elsewhere, and kept here."""
    before = _elsewhere.set(elsewhere)
    try:
        yield
    finally:
        _elsewhere.reset(before)


def predict(
    module: nn.Module,
    tasks: Sequence[Work] | TaskStream,
    save: Callable[[Any], None],
    config: SampledSettings,
    world: World,
    together: bool = False,
) -> None:
    """Run tasks through Lightning, or where `making` says; `save` gets each prediction when its step ends.

    Args:
        module: a LightningModule.
        tasks: those that this rank gets out of a stream; of others its share.
        together: all ranks work at every task.
    """

    def saved(prediction: object) -> None:
        with suppress(LostError):
            save(prediction)

    if (elsewhere := _elsewhere.get()) is not None:
        elsewhere(module, iter(tasks), saved, config)
        return
    # Imported here, for it takes longer than all that a plan or a finished run does.
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.strategies import DDPStrategy

    from wanedit.lit.data import TaskDataModule, TaskWriter

    class KeepSignals(Callback):
        """Lightning's SIGTERM handler waits for all ranks; ours unwinds at once."""

        def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            reclaim_signals()

    # Lightning's advice is for training: worker counts, unused GPUs, its own products.
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=r".*(LeafSpec|does not have many workers).*")
    accelerator, devices = choose_devices(config, world)
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=world.nodes,
        strategy=DDPStrategy(process_group_backend="gloo") if world.under_torchrun else "auto",
        callbacks=[KeepSignals(), TaskWriter(saved)],
        # Tasks are pulled, or shared by their cost; Lightning's sampler would share them by number.
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    # The signature names no Lightning, whose import comes late.
    assert isinstance(module, LightningModule)
    with threads(config.cpu_threads or 1):
        # Each is saved when its step ends: all of a run's frames at once would fill the memory.
        trainer.predict(module, TaskDataModule(tasks, together), return_predictions=False)


def paced(made: SampledSegment | EditedClip, replayed: int = 0) -> Json:
    """How fast a task was made, over all passes of the network but those that were replayed, and what it took, for its
    line in the metrics."""
    tokens = made.tokens * (made.evaluations - replayed)
    return {
        "tokens_per_second": round(tokens / max(made.seconds, 1e-9), 1),
        "peak_memory": made.peak_memory,
    }


def write_piece(
    directory: RunDirectory, name: str, piece: DecodedPiece | EditedClip, fps: Fraction, rank: int
) -> Entry:
    """Write the frames of one task without loss; returns its entry for the journal. Raises LostError as `fence`."""
    path = directory.segments / name

    def frames() -> Iterator[AnyFrame]:
        yield from counted(piece.frames, "writing the frames", "frames")
        directory.queue.fence(piece.digest)

    write_lossless(path, frames(), fps)
    latents = "" if piece.latents is None else _sha256(piece.latents)
    seconds = round(piece.seconds, 3)
    return Entry(piece.index, name, file_sha256(path), len(piece.frames), latents, seconds, rank)


def write_latents(
    directory: RunDirectory, name: str, segment: SampledSegment, frames: int, rank: int
) -> Entry:
    """Write the latents of one segment, which decode to so many frames; returns its entry for the journal. Raises
    LostError as `fence`."""
    path = directory.segments / name
    save_latents(path, segment.latents, lambda: directory.queue.fence(segment.digest))
    sha256, seconds = file_sha256(path), round(segment.seconds, 3)
    return Entry(segment.index, path.name, sha256, frames, _sha256(segment.latents), seconds, rank)


def save_latents(path: Path, latents: Tensor, fence: Callable[[], None] = lambda: None) -> None:
    """Keep normalised latents as safetensors; `fence` is called before they get their name."""
    from safetensors.torch import save

    with atomic_path(path) as partial:
        # Not by the library, whose errors do not say what the system refused.
        partial.write_bytes(save({"latents": latents.contiguous()}))
        fence()


def load_latents(path: Path) -> Tensor:
    """What `save_latents` kept.

    Raises:
        InputError: the file is gone, or holds something else.
    """
    from safetensors.torch import load

    with reading(path, "latents as wanedit keeps them; delete it and run again: they are made anew"):
        return load(path.read_bytes())["latents"]


class Velocities:
    """What the network answered about a task that is not made yet, in the order in which it was asked, each in a file
    of its own: all that it takes, whatever a solver, a cache or a method remembers of earlier steps, to come to where
    the task was stopped without asking again.

    Args:
        digest: of the task.
        every: seconds between two times that answers are written, so that what is made sooner leaves no file; None for
            `EVERY`.

    Attributes:
        replayed: samples that were answered from files. replaying: whether the last answer was.
    """

    def __init__(self, directory: RunDirectory, digest: str, every: float | None = None) -> None:
        self.folder, self.queue = directory.segments, directory.queue
        self.digest, self.every = digest, EVERY if every is None else every
        self.replayed, self.replaying = 0, False

    @contextmanager
    def answering(self) -> Iterator[Answers]:
        """What the network's answers go through while the task is made."""
        self.replayed, self.replaying = 0, False
        numbers, there = itertools.count(), {*self.kept()}
        new, wrote = dict[int, Tensor](), time.monotonic()

        def write() -> None:
            nonlocal wrote
            wrote = time.monotonic()
            with suppress(LostError):  # which the task itself will come upon
                for number in [*new]:
                    # One that is not finite ends the task, which may be asked for again.
                    if bool((velocity := new.pop(number)).isfinite().all()):
                        self.write(number, velocity)

        def answer(ask: Callable[[], Tensor]) -> Tensor:
            number = next(numbers)
            self.replaying = (path := self.path(number)) in there
            if self.replaying:
                self.replayed += len(kept := load_latents(path))
                return kept
            velocity = ask()
            # A derivative's is no tensor of its own; it is asked for again.
            if not torch._C._functorch.is_functorch_wrapped_tensor(velocity):  # pyright: ignore[reportAttributeAccessIssue]
                new[number] = velocity.to("cpu", copy=True)
            if time.monotonic() - wrote >= self.every:
                write()
            return velocity

        try:
            yield answer
        except (KeyboardInterrupt, SystemExit, HandedOver):
            write()
            raise

    def path(self, evaluation: int) -> Path:
        """Where one is kept."""
        return self.folder / segment_file(evaluation, self.digest, ".safetensors").replace(
            "segment", "velocity"
        )

    def write(self, evaluation: int, velocity: Tensor) -> None:
        """Keep one. Raises LostError as `fence`."""
        save_latents(self.path(evaluation), velocity, lambda: self.queue.fence(self.digest))

    def kept(self) -> list[Path]:
        """The files that are there."""
        return list(self.folder.glob(f"velocity_*_{self.digest[:12]}.safetensors"))


def drop_velocities(directory: RunDirectory, digests: Iterable[str]) -> None:
    """Remove those of tasks, once what they lead to is there."""
    names = {name[:12] for name in digests}
    for path in directory.segments.glob("velocity_*.safetensors"):
        if path.stem.rpartition("_")[2] in names:
            path.unlink(missing_ok=True)


def _sha256(latents: Tensor) -> str:
    return hashlib.sha256(latents.numpy().tobytes()).hexdigest()
