"""The training on a GPU, its small form on the CPU: every stage runs, and what it leaves is a model."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tiny import assets, gpu
from tiny.flow import TinyWan
from tiny.vae import build_vae


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", ["tiny.gpu"])
    assert gpu.main() == 2
    assert "no CUDA device is here" in capsys.readouterr().err


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    rates = [gpu.rate(done, 0.2) for done in (0.0, 0.02, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.02, 1.0, 1.0, 0.5, 0.0])


class Steps(gpu.Clock):
    """Two steps a stage, however long they take."""

    @property
    def spent(self) -> float:
        return 0.0

    def shares(self, until: float) -> Iterator[float]:
        return iter((0.0, 0.5))


@pytest.mark.slow
def test_every_stage_runs(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "Clock", Steps)
    kinds = {"small": (64, 9, 2, (9,), 2), "large": (64, 9, 2, (5,), 2), "still": (64, 1, 2, (1,), 2)}
    monkeypatch.setattr(gpu, "KINDS", kinds)
    monkeypatch.setattr(gpu, "ROUND", tuple(kinds))
    monkeypatch.setattr(gpu, "BUCKETS", {(64, 9): (2, 0.5), (64, 5): (2, 0.2), (64, 1): (2, 0.3)})
    monkeypatch.setattr(gpu, "CHECKED", 1)
    monkeypatch.setattr(gpu, "STATISTICS_CLIPS", 2)
    monkeypatch.setattr(gpu.os, "cpu_count", lambda: 2)
    gpu.train(tmp_path, 90.0, gpu.SHIPPED, [], batch=1, files=3)
    vae, net = build_vae(), TinyWan()
    assets.read_vae(vae, tmp_path / "model")
    assets.read_networks(net, tmp_path / "model")
    stages = {line.split(",")[1] for line in (tmp_path / "log.csv").read_text().splitlines()}
    assert stages == {"VAE", "latents", "transformer"}
    before = TinyWan()
    assets.read_networks(before, gpu.SHIPPED)
    moved = net.transformer.head.head.weight - before.transformer.head.head.weight
    assert 0 < float(moved.abs().max()) < 0.1
    assert torch.isfinite(moved).all()
