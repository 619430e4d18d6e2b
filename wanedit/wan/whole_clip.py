"""The Wan VAE over a whole clip at once: the same function as its chunked, cached loop, but trainable and compilable.

`VideoVAE_.encode` and `.decode` walk a clip in chunks with a feature cache. Written out, that loop is a causal
network with two exceptions: the first frame passes each temporal resampling untouched, and temporal upsampling does
not see it. Saying so directly gives the same tensors (a test compares them) two to four times faster, lets
torch.compile fuse the network (again four times), and runs one frame with two-dimensional convolutions. It needs
memory for every frame at once.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def encode_moments(vae: Any, video: Float[Tensor, "B 3 T H W"]) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the latents, each (B, 16, S, H/8, W/8), not normalised; T = 4n + 1."""
    encoder = vae.encoder
    layers = [encoder.conv1, *encoder.downsamples, *encoder.middle, *encoder.head, vae.conv1]
    mean, log_variance = _run(layers, video).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode_latents(vae: Any, latents: Float[Tensor, "B 16 S h w"]) -> Float[Tensor, "B 3 T H W"]:
    """Video of latents that are not normalised; T = 4 (S - 1) + 1."""
    decoder = vae.decoder
    layers = [vae.conv2, decoder.conv1, *decoder.middle, *decoder.upsamples, *decoder.head]
    return _run(layers, latents)


def start_temporal_convolutions(vae: nn.Module) -> None:
    """Make a new VAE treat every frame alike, so that what it learns on single frames holds for clips.

    All temporal taps but the last are zero; temporal downsampling keeps the last of each two frames, temporal
    upsampling repeats each frame.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size[0] == 3:
                module.weight[:, :, :-1] = 0
            if type(module).__name__ == "Resample" and hasattr(module, "time_conv"):
                conv: Any = module.time_conv
                weight = conv.weight
                identity = torch.eye(weight.shape[1]).repeat(weight.shape[0] // weight.shape[1], 1)
                weight[:, :, -1, 0, 0] = identity
                conv.bias.zero_()


def _run(layers: Iterable[Any], x: Tensor) -> Tensor:
    for layer in layers:
        kind = type(layer).__name__
        if kind == "CausalConv3d":
            x = _causal(layer, x)
        elif kind == "RMS_norm":
            x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-12) * layer.gamma.view(1, -1, 1, 1, 1)
        elif kind == "ResidualBlock":
            skip = x if isinstance(layer.shortcut, nn.Identity) else _causal(layer.shortcut, x)
            x = _run(layer.residual, x) + skip
        elif kind == "AttentionBlock":
            x = layer(x)
        elif kind == "Resample":
            x = _resample(layer, x)
        else:
            x = layer(x)
    return x


def _causal(conv: Any, x: Tensor) -> Tensor:
    space = conv._padding[0]
    if x.shape[2] == 1:
        # Earlier frames are zero padding, so only the last temporal tap counts.
        return F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, padding=space).unsqueeze(2)
    if conv.kernel_size[0] > 1:
        x = F.pad(x, (0, 0, 0, 0, conv.kernel_size[0] - 1, 0))
    return F.conv3d(x, conv.weight, conv.bias, padding=(0, space, space))


def _resample(layer: Any, x: Tensor) -> Tensor:
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        pairs = _causal_time(layer.time_conv, x[:, :, 1:])
        pairs = pairs.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        x = torch.cat([x[:, :, :1], pairs], dim=2)
    batch, frames = x.shape[0], x.shape[2]
    x = layer.resample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, frames)).transpose(1, 2)
    if layer.mode == "downsample3d" and frames > 1:
        conv = layer.time_conv
        x = torch.cat([x[:, :, :1], F.conv3d(x, conv.weight, conv.bias, stride=(2, 1, 1))], dim=2)
    return x


def _causal_time(conv: Any, x: Tensor) -> Tensor:
    return F.conv3d(F.pad(x, (0, 0, 0, 0, 2, 0)), conv.weight, conv.bias)
