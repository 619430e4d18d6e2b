"""One stage under Lightning: ends with its budget, is saved on the way, and goes on where it was stopped."""

from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from tiny.common import Budget, WeightAverage, csv_logger
from tiny.data import SeededStream


def start_seed(seed: int, step: int) -> int:
    """Seed of the noise of a run that starts at `step`: `seed` itself at 0, another one after every resume."""
    return (seed + 1_000_003 * step) % 2**32


def saved_step(checkpoint: Path) -> int:
    """Steps done in a checkpoint; 0 when it does not exist."""
    if not checkpoint.exists():
        return 0
    return torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)["global_step"]


def fit(
    module: L.LightningModule,
    stream: SeededStream,
    out: Path,
    *,
    budget: Budget,
    average: WeightAverage,
    seed: int,
    accelerator: str,
    log_every: int,
    every_n_train_steps: int,
    batch_size: int | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> None:
    """Train `module` on `stream` until `budget` is spent, from out/last.ckpt when it is there.

    A resumed run draws other batches and other noise than the steps before it: both follow (seed, first step).

    Args:
        out: receives last.ckpt every `every_n_train_steps` and metrics.csv every `log_every` steps.
        batch_size: None when the stream yields whole batches.
    """
    last = out / "last.ckpt"
    step = saved_step(last)
    L.seed_everything(start_seed(seed, step), verbose=False)
    # Without a version counter a resumed run replaces last.ckpt; with it, it would write last-v1.ckpt beside it.
    saver = ModelCheckpoint(
        out,
        save_last=True,
        save_top_k=0,
        every_n_train_steps=every_n_train_steps,
        enable_version_counter=False,
    )
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=budget.max_steps,
        gradient_clip_val=1.0,
        callbacks=[budget, average, saver, *callbacks],
        logger=csv_logger(out),
        log_every_n_steps=log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(stream.starting(step), batch_size=batch_size)
    trainer.fit(module, loader, ckpt_path=last if step else None)
