"""Training of the small Wan VAE: frames first, then clips, in stages that share weights."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiny.data import CropStream
from tiny.fit import Budget, WeightAverage, fit
from tiny.muon import Muon, split_parameters
from wanedit.wan.vae import OFFICIAL, decode_latents, encode_moments, start_temporal_convolutions

# Wan's own VAE, a sixth as wide.
VAE_CONFIG = {name: size for name, size in OFFICIAL[16].items() if not name.startswith("latents_")} | {
    "dim": 16
}


def build_vae(config: dict = VAE_CONFIG) -> nn.Module:
    """A new VAE whose temporal convolutions start as 'every frame alike'."""
    from diffsynth.models.wan_video_vae import VideoVAE_

    vae = VideoVAE_(**config)
    start_temporal_convolutions(vae)
    return vae


class VaeTraining(L.LightningModule):
    """L1 + 2 MSE + kl_weight * KL on crops. `net` is the VAE."""

    def __init__(
        self, net: nn.Module, learning_rate: float, kl_weight: float = 2e-4, compiled: bool = True
    ) -> None:
        super().__init__()
        self.net, self.learning_rate, self.kl_weight = net, learning_rate, kl_weight
        self.losses: Callable = torch.compile(self._losses) if compiled else self._losses

    def _losses(self, video: Float[Tensor, "B 3 T H W"], noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = encode_moments(self.net, video)
        error = decode_latents(self.net, mean + noise * torch.exp(0.5 * log_variance)) - video
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return error.abs().mean(), error.square().mean(), kl

    def training_step(self, video: Float[Tensor, "B 3 T H W"], batch_idx: int) -> Tensor:
        batch, _, frames, height, width = video.shape
        noise = torch.randn(batch, 16, (frames - 1) // 4 + 1, height // 8, width // 8, device=video.device)
        absolute, square, kl = self.losses(video, noise)
        self.log_dict({"l1": absolute, "mse": square, "kl": kl, "psnr": 10 * torch.log10(4 / square)})
        return absolute + 2 * square + self.kl_weight * kl

    def configure_optimizers(self) -> torch.optim.Optimizer:
        net: Any = self.net
        matrices, others = split_parameters(net, (net.encoder.conv1.weight, net.decoder.head[-1].weight))
        return Muon(matrices, others, lr=self.learning_rate)


def train_vae_stage(
    net: nn.Module,
    pools: Sequence,
    weights: Sequence[float],
    out: Path,
    *,
    num_frames: int,
    batch: int,
    crop: int,
    max_steps: int,
    minutes: float,
    learning_rate: float,
    seed: int,
    recoloured: Sequence[int] = (),
    callbacks: Sequence[L.Callback] = (),
    accelerator: str = "auto",
    compiled: bool = True,
    every_n_train_steps: int = 100,
) -> nn.Module:
    """One stage; returns the averaged weights' network. See `fit` for `out` and how a stopped stage goes on."""
    average = WeightAverage(net, 0.999)
    fit(
        VaeTraining(net, learning_rate, compiled=compiled),
        CropStream(pools, weights, num_frames, crop, seed, recoloured),
        out,
        budget=Budget(max_steps, minutes, learning_rate),
        average=average,
        seed=seed,
        accelerator=accelerator,
        log_every=25,
        every_n_train_steps=every_n_train_steps,
        batch_size=batch,
        callbacks=callbacks,
    )
    return average.average
