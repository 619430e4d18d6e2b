"""Shared by both trainings: a schedule that knows the clock and an average of the weights."""

import copy
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn


def cosine(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to `floor`; progress in [0, 1]."""
    if progress < warmup:
        return max(progress / warmup, 0.02)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def csv_logger(folder: Path) -> CSVLogger:
    """Writes folder/metrics.csv. That of an interrupted run, which CSVLogger would replace, becomes metrics.N.csv."""
    old = folder / "metrics.csv"
    if old.exists():
        old.rename(folder / f"metrics.{len(list(folder.glob('metrics.*.csv')))}.csv")
    # Every row goes to disk at once, so that a kill leaves no hole before the last checkpoint.
    return CSVLogger(folder, name="", version="", flush_logs_every_n_steps=1)


class Budget(L.Callback):
    """Ends training at `max_steps` or after `minutes`, whichever is first, and sets the learning rate from how far
    along it is. A machine shared with others then still ends at a small learning rate.

    `spent` are seconds from the end of one step to the end of the next, loading and saving included; the first step
    after a start, which compiles, is free. It survives a resume.
    """

    def __init__(self, max_steps: int, minutes: float, learning_rate: float) -> None:
        self.max_steps, self.minutes, self.learning_rate = max_steps, minutes, learning_rate
        self.spent = 0.0
        self.ended: float | None = None

    def progress(self, step: int) -> float:
        """Fraction of the budget used, in [0, 1]."""
        return min(1.0, max(step / self.max_steps, self.spent / (60 * self.minutes)))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.ended = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * cosine(self.progress(trainer.global_step))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.spent += 0.0 if self.ended is None else now - self.ended
        self.ended = now
        if self.progress(trainer.global_step) >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict) -> None:
        self.spent = state_dict["spent"]


class WeightAverage(L.Callback):
    """Exponential moving average of `module.net`, kept in `self.average`; slower as training goes on."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.average = copy.deepcopy(net).eval().requires_grad_(False)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.average.to(pl_module.device)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.average.cpu()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        keep = min(self.decay, (1 + step) / (10 + step))
        net: Any = pl_module.net
        for ours, theirs in zip(self.average.parameters(), net.parameters(), strict=True):
            ours.lerp_(theirs.detach(), 1 - keep)

    def state_dict(self) -> dict:
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict) -> None:
        self.average.load_state_dict(state_dict)
