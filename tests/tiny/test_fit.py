"""A stage that is stopped in the middle goes on from its checkpoint: steps, time, log, and new batches and noise."""

import csv
from itertools import islice
from typing import Any

import lightning.pytorch as L
import pytest
import torch

from tiny.data import CropStream, sprite_clips
from tiny.fit import Budget, read_log, saved_step, start_seed, write_curves
from tiny.flow import BatchStream, TinyWan, train_flow
from tiny.latents import LatentSet
from tiny.vae import VAE_CONFIG, build_vae, train_vae_stage

SMALL = VAE_CONFIG | {"dim": 8}


class Watch(L.Callback):
    """Notes every step's number and batch and the time spent; fails after step `fails_at`."""

    def __init__(self, fails_at=None):
        self.fails_at, self.steps, self.batches = fails_at, [], []

    def on_train_start(self, trainer: Any, pl_module: L.LightningModule) -> None:
        self.budget = next(callback for callback in trainer.callbacks if isinstance(callback, Budget))
        self.spent_at_start = self.budget.spent

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(trainer.global_step)
        self.batches.append(batch)
        if trainer.global_step == self.fails_at:
            raise RuntimeError("stopped")


def logged_steps(path):
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def vae_stage(out, watch, steps=60):
    torch.manual_seed(0)
    return train_vae_stage(
        build_vae(SMALL),
        [sprite_clips(range(4), 1, 32)],
        [1.0],
        out,
        num_frames=1,
        crop=16,
        batch=2,
        max_steps=steps,
        minutes=5,
        learning_rate=1e-3,
        seed=3,
        callbacks=[watch],
        accelerator="cpu",
        compiled=False,
        every_n_train_steps=5,
    )


def test_a_stopped_stage_of_the_vae_goes_on_from_its_checkpoint(tmp_path):
    first = Watch(fails_at=33)
    with pytest.raises(RuntimeError, match="stopped"):
        vae_stage(tmp_path, first)
    assert saved_step(tmp_path / "last.ckpt") == 30
    state = torch.load(tmp_path / "last.ckpt", weights_only=False)["callbacks"]["Budget"]
    again = Watch()
    vae_stage(tmp_path, again)
    assert again.steps == list(range(31, 61))
    assert again.spent_at_start == state["spent"] > 0
    assert again.budget.spent > again.spent_at_start
    assert not any(torch.equal(batch, first.batches[0]) for batch in again.batches[:1])
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["last.ckpt"]
    assert logged_steps(tmp_path / "metrics.0.csv") == [24]
    assert logged_steps(tmp_path / "metrics.csv") == [49, 59]
    write_curves({"VAE": (tmp_path, "psnr")}, tmp_path)
    assert len((tmp_path / "training.csv").read_text().splitlines()) == 4


def flow_stage(out, watch):
    torch.manual_seed(0)
    part = LatentSet(
        latents=torch.randn(6, 16, 2, 4, 4),
        known=torch.randn(6, 16, 2, 4, 4),
        frames=torch.ones(6, 5, dtype=torch.bool),
        ids=torch.randint(2, 1500, (6, 64)),
        keyframes=torch.zeros(6, 3, 2, 32, 32, dtype=torch.uint8),
    )
    return train_flow(
        TinyWan(),
        BatchStream([part], [1.0], [2], seed=3),
        torch.ones(4, 64, dtype=torch.long),
        {(2, 4, 4): torch.zeros(1, 16, 2, 4, 4)},
        out,
        max_steps=12,
        minutes=5,
        learning_rate=1e-3,
        seed=3,
        image_from=0.9,
        callbacks=[watch],
        accelerator="cpu",
        compiled=False,
        every_n_train_steps=4,
    )


def test_a_stopped_flow_stage_goes_on_from_its_checkpoint(tmp_path):
    with pytest.raises(RuntimeError, match="stopped"):
        flow_stage(tmp_path, Watch(fails_at=11))
    again = Watch()
    flow_stage(tmp_path, again)
    assert again.steps == [9, 10, 11, 12]
    assert again.spent_at_start > 0
    assert logged_steps(tmp_path / "metrics.0.csv") == [9]
    assert saved_step(tmp_path / "last.ckpt") == 12


def test_streams_and_noise_follow_the_seed_and_the_first_step():
    stream = CropStream([sprite_clips(range(3), 5, 48)], [1.0], 5, 32, seed=1)
    start, again, resumed = (
        list(islice(part, 4)) for part in (stream, stream.starting(0), stream.starting(25))
    )
    assert all(torch.equal(a, b) for a, b in zip(start, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(start, resumed, strict=True))
    assert start_seed(3, 0) == 3
    assert len({start_seed(seed, step) for seed in range(3) for step in (0, 25, 50)}) == 9


def test_time_counts_from_step_to_step_and_not_before_the_first(monkeypatch):
    clock = iter([100.0, 107.0, 109.0, 500.0, 501.0])
    monkeypatch.setattr("tiny.fit.time.monotonic", lambda: next(clock))
    budget, module = Budget(10, 1.0, 1e-3), L.LightningModule()
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    for steps in (3, 2):
        budget.on_train_start(trainer, module)
        for _ in range(steps):
            budget.on_train_batch_end(trainer, module, None, None, 0)
    assert budget.spent == pytest.approx(7 + 2 + 1)


def test_the_parts_of_a_log_follow_their_numbers(tmp_path):
    values = {"metrics.csv": 12, "metrics.10.csv": 11, "metrics.9.csv": 10}
    for name, value in values.items():
        (tmp_path / name).write_text(f"step,loss\n{value - 9},{value}\n5,{value}\n")
    steps, losses = read_log(tmp_path, "loss", 200)
    assert list(zip(steps, losses, strict=True)) == [(1, 10), (2, 11), (3, 12), (5, 12)]
