"""One stage under Lightning: ends with its budget, is saved on the way, goes on where it was stopped, draws its curve.

A checkpoint holds tensors, numbers and strings only, so `weights_only=True` reads it. Callbacks stand in it under the
names of their classes, and weights under `net`: renamed, `Budget` or `WeightAverage` would start anew after a resume.
"""

import copy
import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tiny.data import SeededStream


def cosine(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to `floor`; progress in [0, 1]."""
    if progress < warmup:
        return max(progress / warmup, 0.02)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


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
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: object, batch_idx: int
    ) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * cosine(self.progress(trainer.global_step))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.spent += 0.0 if self.ended is None else now - self.ended
        self.ended = now
        if self.progress(trainer.global_step) >= 1:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, float]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
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
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        # The first steps count little: the average forgets them as fast as they are left behind.
        keep = min(self.decay, (1 + step) / (10 + step))
        net = cast(nn.Module, pl_module.net)
        for ours, theirs in zip(self.average.parameters(), net.parameters(), strict=True):
            ours.lerp_(theirs.detach(), 1 - keep)

    def state_dict(self) -> dict[str, Tensor]:
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        self.average.load_state_dict(state_dict)


def start_seed(seed: int, step: int) -> int:
    """Seed of the noise of a run that starts at `step`: `seed` itself at 0, another one after every resume."""
    return (seed + 1_000_003 * step) % 2**32


def saved_step(checkpoint: Path) -> int:
    """Steps done in a checkpoint; 0 when it does not exist."""
    if not checkpoint.exists():
        return 0
    return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"]


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
        out: receives last.ckpt every `every_n_train_steps` and metrics.csv every `log_every` steps. The metrics.csv of
            an interrupted run, which CSVLogger would replace, becomes metrics.N.csv.
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
    log = out / "metrics.csv"
    if log.exists():
        log.rename(out / f"metrics.{len(list(out.glob('metrics.*.csv')))}.csv")
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=budget.max_steps,
        gradient_clip_val=1.0,
        callbacks=[budget, average, saver, *callbacks],
        # Every row goes to disk at once, so that a kill leaves no hole before the last checkpoint.
        logger=CSVLogger(out, name="", version="", flush_logs_every_n_steps=1),
        log_every_n_steps=log_every,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(stream.starting(step), batch_size=batch_size)
    trainer.fit(module, loader, ckpt_path=last if step else None)


def write_curves(stages: Mapping[str, tuple[Path, str]], folder: Path, most: int = 200) -> None:
    """Gather one column of each stage's log, averaged to at most `most` points.

    Args:
        stages: stage -> (folder of its metrics*.csv, column).
        folder: receives training.csv and training.png.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(stages), figsize=(3.2 * len(stages), 2.6), layout="constrained")
    with (folder / "training.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "step", "quantity", "value"])
        for axis, (stage, (path, column)) in zip(np.atleast_1d(axes), stages.items(), strict=True):
            steps, values = read_log(path, column, most)
            writer.writerows([stage, int(s), column, f"{v:.5g}"] for s, v in zip(steps, values, strict=True))
            axis.plot(steps, values, linewidth=0.8, alpha=0.35, color="#0072B2")
            # The mean over a twelfth of the curve, moving: batches of several sizes make the raw values jump.
            width = max(1, len(values) // 12)
            trend = (np.convolve(series, np.ones(width) / width, "valid") for series in (steps, values))
            axis.plot(*trend, linewidth=1.6, color="#0072B2")
            axis.set(title=stage, xlabel="step", ylabel=column)
            axis.grid(alpha=0.3)
    figure.savefig(folder / "training.png", dpi=90)
    plt.close(figure)


def read_log(folder: Path, column: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of all parts of a log, in at most `most` means of neighbours.

    Parts follow their numbers, metrics.csv is the latest; of a step that was done twice the later value counts. A
    stage too short to log anything has none.
    """

    def part(path: Path) -> float:
        number = path.name.split(".")[1]
        return float(number) if number.isdigit() else math.inf

    found: dict[float, float] = {}
    for path in sorted(folder.glob("metrics*.csv"), key=part):
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            found |= {float(row["step"]): float(row[column]) for row in rows if row.get(column)}
    steps, values = np.array(sorted(found.items())).reshape(-1, 2).T
    width = max(1, len(steps) // most)
    kept = len(steps) // width * width
    return steps[:kept].reshape(-1, width).mean(1), values[:kept].reshape(-1, width).mean(1)
