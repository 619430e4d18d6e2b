"""A training that an earlier version began goes on: its files are in the layout that `wanedit.lit.training` wrote.

The layouts are written out here as plain values, so that a change of names in the code shows as a failure.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.tiny.test_fit import SMALL, Watch, vae_stage
from tiny.fit import WeightAverage, saved_step
from tiny.latents import LatentSet, stamp
from tiny.muon import split_parameters
from tiny.plan import Bucket, FlowStage, TrainTiny, VaeStage, keep_plan
from tiny.vae import build_vae


def checkpoint(net: Any, average: Any, step: int) -> dict[str, Any]:
    """What Lightning 2.6.6 saved of a stage of the VAE after `step` steps."""

    def done(*names: str) -> dict[str, dict[str, int]]:
        return {when: dict.fromkeys(names, step) for when in ("total", "current")}

    matrices, others = split_parameters(net, (net.encoder.conv1.weight, net.decoder.head[-1].weight))
    order = list(range(len(matrices) + len(others)))
    state: dict[int, dict[str, Any]] = {
        i: {"momentum": torch.full_like(p, 0.01)} for i, p in enumerate(matrices)
    }
    for i, p in enumerate(others, len(matrices)):
        state[i] = {"step": step, "mean": torch.zeros_like(p), "square": torch.full_like(p, 0.01)}
    group = {"lr": 1e-4, "momentum": 0.95, "betas": (0.9, 0.99), "weight_decay": 1e-4}
    return {
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"net.{name}": value for name, value in net.state_dict().items()},
        "loops": {
            "fit_loop": {
                "state_dict": {},
                "epoch_loop.state_dict": {"_batches_that_stepped": step - 1},
                "epoch_loop.batch_progress": done("ready", "completed", "started", "processed")
                | {"is_last_batch": False},
                "epoch_loop.scheduler_progress": {
                    when: {"ready": 0, "completed": 0} for when in ("total", "current")
                },
                "epoch_loop.automatic_optimization.state_dict": {},
                "epoch_loop.automatic_optimization.optim_progress": {
                    "optimizer": {
                        "step": done("ready", "completed"),
                        "zero_grad": done("ready", "completed", "started"),
                    }
                },
                "epoch_progress": {
                    when: {"ready": 1, "completed": 0, "started": 1, "processed": 0}
                    for when in ("total", "current")
                },
            }
        },
        "callbacks": {"Budget": {"spent": 7.5}, "WeightAverage": average.state_dict()},
        "optimizer_states": [
            {
                "state": state,
                "param_groups": [
                    {"muon": True, **group, "params": order[: len(matrices)]},
                    {"muon": False, **group, "params": order[len(matrices) :]},
                ],
            }
        ],
        "lr_schedulers": [],
    }


def filled(value: float) -> nn.Module:
    net: Any = build_vae(SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


class Started(Watch):
    """Also notes the weights, their average and the optimizer's state at the start."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        average: Any = next(c for c in trainer.callbacks if isinstance(c, WeightAverage)).average
        self.weight, self.averaged = (float(net.conv2.bias.detach()[0]) for net in (pl_module.net, average))
        state = trainer.optimizers[0].state
        self.momentum = float(state[pl_module.net.conv1.weight]["momentum"].flatten()[0])
        self.adam_steps = state[pl_module.net.conv2.bias]["step"]


def test_a_stage_of_the_vae_goes_on_from_its_checkpoint(tmp_path):
    torch.save(checkpoint(filled(0.02), filled(0.03), 10), tmp_path / "last.ckpt")
    assert saved_step(tmp_path / "last.ckpt") == 10
    watch = Started()
    vae_stage(tmp_path, watch, steps=12)
    assert watch.steps == [11, 12]
    assert watch.spent_at_start == 7.5
    assert (watch.weight, watch.averaged) == pytest.approx((0.02, 0.03))
    assert watch.momentum == pytest.approx(0.01)
    assert watch.adam_steps == 10
    # And what is written now holds nothing but tensors and plain values either.
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 12


def test_encoded_clips_are_found_and_read(tmp_path, tokenizer):
    bucket = Bucket(32, (1, 5), clips=3, first_seed=9, batches=(2, 2), weights=(0.3, 0.7))
    vae = nn.Linear(2, 2)
    nn.init.ones_(vae.weight)
    nn.init.zeros_(vae.bias)
    # Part of the files' names: another one, and every clip is encoded again, as since other frames of clips are shown.
    assert stamp(bucket, vae, ([0.0], [1.0]), tokenizer) == "1787cb7f3ad3"
    values = {
        "latents": torch.ones(2, 16, 2, 4, 4, dtype=torch.float16),
        "known": torch.ones(2, 16, 2, 4, 4, dtype=torch.float16),
        "frames": torch.ones(2, 5, dtype=torch.bool),
        "ids": torch.ones(2, 64, dtype=torch.long),
        "keyframes": torch.zeros(2, 3, 2, 32, 32, dtype=torch.uint8),
    }
    torch.save(values, tmp_path / "latents.pt")
    found = LatentSet.load(tmp_path / "latents.pt")
    assert found.latents.dtype == found.known.dtype == torch.float32
    assert torch.equal(found.frames, values["frames"])


def test_its_plan_is_recognised(tmp_path):
    stage = {"max_steps": 2, "minutes": 5, "learning_rate": 0.001}
    bucket = {"size": 32, "lengths": [1, 5], "clips": 3, "first_seed": 9, "batches": [2, 2]}
    kept = {
        "out": "runs/train_tiny",
        "vae": [{"num_frames": 1, "crop": 16, "batch": 2, **stage}],
        "flow": {
            **stage,
            "shift": 3.0,
            "image_from": 0.5,
            "buckets": [{**bucket, "weights": [0.3, 0.7], "encode_batch": 4}],
        },
        "assets": "wanedit/assets/wan-tiny",
        "footage": [],
        "start": None,
        "tokenizer": None,
        "small_clips": 1200,
        "large_clips": 250,
        "large_frames": 9,
        "leaves": 400,
        "seed": 0,
        "accelerator": "cpu",
        "compiled": True,
        "pool_weights": [0.5, 0.17, 0.1, 0.23],
    }
    (tmp_path / "plan.json").write_text(json.dumps(kept))
    keep_plan(
        TrainTiny(
            out=tmp_path,
            vae=(VaeStage(1, 16, 2, 2, 5, 1e-3),),
            flow=FlowStage(2, 5, 1e-3, 3.0, 0.5, (Bucket(32, (1, 5), 3, 9, (2, 2), (0.3, 0.7)),)),
            assets=Path("elsewhere"),
        )
    )
    assert json.loads((tmp_path / "plan.json").read_text()) == kept
