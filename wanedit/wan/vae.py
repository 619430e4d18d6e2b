"""The Wan video VAEs behind a two-method interface: normalised latents in and out, tiles on request.

There are two: diffsynth's `VideoVAE_` of 16 channels, a latent for 8x8 pixels, and for TI2V-5B its `VideoVAE38_` of
48, a latent for 16x16, which works on patches of 2x2 pixels and has shortcuts around its resamplings. Their `encode`
and `decode` walk a clip in chunks with a feature cache. Written out, that loop is a causal network with two
exceptions: the first frame passes each temporal resampling untouched, and temporal upsampling does not see it. Saying
so directly, as `encode_moments` and `decode_latents` do, gives the same tensors (a test compares them) two to four
times faster, can be trained, lets torch.compile fuse the network (again four times), and runs one frame with two-
dimensional convolutions. It needs memory for every frame at once.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.progress import counted, counting
from wanedit.timeline import STRIDE
from wanedit.wan.config import LatentSpace

# Per-channel statistics of the official latents (Wan 2.1, `wan/modules/vae.py`, `WanVAE.__init__`).
OFFICIAL_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
OFFICIAL_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip

# The same of TI2V-5B's (Wan 2.2, `wan/modules/vae2_2.py`, `Wan2_2_VAE.__init__`).
OFFICIAL_48_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip
OFFICIAL_48_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip

# Constructor arguments and statistics of the published VAEs, by latent channels (`_video_vae` of the two files).
OFFICIAL: dict[int, Json] = {
    16: {
        "dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
        "temperal_downsample": [False, True, True], "dropout": 0.0,
        "latents_mean": OFFICIAL_MEAN, "latents_std": OFFICIAL_STD,
    },
    48: {
        "dim": 160, "z_dim": 48, "dec_dim": 256, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
        "temperal_downsample": [False, True, True], "dropout": 0.0,
        "latents_mean": OFFICIAL_48_MEAN, "latents_std": OFFICIAL_48_STD,
    },
}  # fmt: skip

# A frame is decoded from all slots before it, with weights that fall off: behind so many of them wan-tiny's frames are
# those of the whole sequence to 1e-4 of the range -1 … 1 (behind 8 to 1.5e-4); a test measures it.
WARM_UP = 10

# Clips whose largest activation, frames x height x width x the VAE's width, has no more elements are coded whole:
# faster, at about six such tensors of memory (1.5 GiB in float32). The official VAE, 96 wide, so codes up to 81 frames
# of 88x96.
WHOLE_UP_TO = 2**26
# How many of those are held while a whole clip is decoded, how many of a chunk's with its caches; and bytes besides.
WHOLE_HELD, CHUNK_HELD, DECODING_FIXED = 6.0, 13.7, 40_000_000


def build_vae(config: Json) -> nn.Module:
    """The bare network, uninitialised, on whatever device is current: of 2.2's kind where it has a `dec_dim`."""
    from diffsynth.models.wan_video_vae import VideoVAE38_, VideoVAE_

    sizes = {name: value for name, value in config.items() if not name.startswith("latents_")}
    return (VideoVAE38_ if "dec_dim" in config else VideoVAE_)(**sizes)


def latent_space(config: Json) -> LatentSpace:
    """What a VAE of these sizes makes of pixels: all levels but the last halve, and 2.2's kind begins with patches."""
    return LatentSpace(
        config["z_dim"], 2 ** (len(config["dim_mult"]) - 1) * (2 if "dec_dim" in config else 1)
    )


def width(config: Json) -> int:
    """Numbers for each pixel in the widest activation of a VAE of these sizes."""
    # 2.2's decoder comes to full size, which are patches of 2x2 pixels, before its last level narrows it.
    return config["dec_dim"] * config["dim_mult"][1] // 4 if "dec_dim" in config else config["dim"]


def decoding_bytes(config: Json, frames: int, size: tuple[int, int]) -> int:
    """Memory that decoding a clip of (height, width) takes beyond the weights, in float32.

    Two copies of the clip, something fixed, and several times the widest activation: of the whole clip, or of the four
    frames of a chunk, beside which stand the caches of all layers. Within 15 % of what processes grew by that did
    nothing else: VAEs of three widths, 64 to 384 pixels, 9 to 33 frames (`tests/runtime/test_cost.py`).
    """
    clip, chunk = frames * math.prod(size), STRIDE * math.prod(size)
    channels = width(config)
    held = WHOLE_HELD * clip if clip * channels <= WHOLE_UP_TO else CHUNK_HELD * chunk
    return DECODING_FIXED + int(4 * (2 * 3 * clip + channels * held))


class WanVAE(nn.Module):
    """One of diffsynth's with the latent normalisation of the checkpoint.

    Args:
        model: as `build_vae` makes it.
        config: that it is made of, with `latents_mean` and `latents_std`, a number for each channel, subtracted from
            and divided out of the encoder's mean.
    """

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, config: Json) -> None:
        super().__init__()
        self.model = model
        self.latent_space, self.width = latent_space(config), width(config)
        self._decode_whole = decode_latents
        # Statistics, not weights: in no checkpoint, and real numbers even where modules are built on the meta device.
        self.register_buffer("mean", torch.tensor(config["latents_mean"], device="cpu"), persistent=False)
        self.register_buffer("std", torch.tensor(config["latents_std"], device="cpu"), persistent=False)

    def compile_decoding(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Have the decoding of whole clips compiled as it is first called, by a graph that leaves lengths open, and
        another for single frames. What the compiler cannot do raises there."""
        # On a CPU convolutions are done otherwise below some sizes, and each of these has a graph of its own.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        self._decode_whole = torch.compile(decode_latents, fullgraph=True, dynamic=True, backend=backend)

    def _encode(self, video: Tensor) -> Tensor:
        if self._fits_whole(*video.shape[2:]):
            return (encode_moments(self.model, video)[0] - _channels(self.mean)) / _channels(self.std)
        return self._in_chunks(
            self.model.encode, video, self.model.encoder, "encoding", video.shape[2] // STRIDE + 1
        )

    def _decode(self, latents: Tensor) -> Tensor:
        slots, stride = latents.shape[2], self.latent_space.stride
        if self._fits_whole(STRIDE * (slots - 1) + 1, latents.shape[3] * stride, latents.shape[4] * stride):
            video = self._decode_whole(self.model, latents * _channels(self.std) + _channels(self.mean))
        else:
            video = self._in_chunks(self.model.decode, latents, self.model.decoder, "decoding", slots)
        return video.clamp(-1, 1)

    def _fits_whole(self, frames: int, height: int, width: int) -> bool:
        return frames * height * width * self.width <= WHOLE_UP_TO

    def _in_chunks(
        self, method: Callable[..., Tensor], x: Tensor, network: nn.Module, label: str, slots: int
    ) -> Tensor:
        with counting(label, "slots", slots) as advance:
            # The network is called once for every slot.
            hook = network.register_forward_hook(lambda *_: advance())
            try:
                return method(x, [self.mean, 1.0 / self.std])
            finally:
                hook.remove()
                # The caches of a 720p clip hold gigabytes, and diffsynth itself drops them only at its next call.
                self.model.clear_cache()

    def encode(
        self, video: Float[Tensor, "b 3 t height width"], tile: int | None = None
    ) -> Float[Tensor, "b channels s h w"]:
        """Encode pixels in [-1, 1] to normalised latents (the posterior's mean).

        Args:
            video: T = 4n+1 frames, height and width multiples of the stride, 8 or 16.
            tile: side of overlapping square tiles in pixels, a multiple of it; whole frames when None.

        Raises:
            InputError: a size that the strides do not divide.
        """
        stride, (frames, height, width) = self.latent_space.stride, video.shape[2:]
        if (frames - 1) % STRIDE or height % stride or width % stride:
            raise InputError(
                f"video is {frames} frames of {width}x{height}; expected 4n+1 frames and multiples of {stride} pixels"
            )
        if tile is None:
            return self._encode(video)
        self.latent_space.tile(tile)
        return _tiled(self._encode, video, tile, stride, 1 / stride, "encoding")

    def decode(
        self, latents: Float[Tensor, "b channels s h w"], tile: int | None = None
    ) -> Float[Tensor, "b 3 t height width"]:
        """Decode normalised latents to pixels clamped to [-1, 1]; T = 4 (S - 1) + 1 frames.

        Args:
            latents: normalised.
            tile: side of overlapping square tiles in pixels, a multiple of the stride; whole frames when None.
        """
        if tile is None:
            return self._decode(latents)
        return _tiled(
            self._decode,
            latents,
            self.latent_space.tile(tile),
            1,
            float(self.latent_space.stride),
            "decoding",
        )


def _channels(statistics: Tensor) -> Tensor:
    return statistics.view(1, -1, 1, 1, 1)


def _starts(size: int, side: int, unit: int) -> list[int]:
    """Starts of tiles of `side` that cover `size`, overlapping by at least a quarter, on multiples of `unit`."""
    if size <= side:
        return [0]
    stride = side * 3 // 4 // unit * unit
    return [*range(0, size - side, stride), size - side]


def _ramp(start: int, stop: int, size: int, overlap: int, like: Tensor) -> Tensor:
    """Weights along one axis: a linear rise over the overlap at each end that is not the border."""
    position = torch.arange(stop - start, device=like.device, dtype=like.dtype) + 0.5
    weight = torch.ones_like(position)
    if start > 0:
        weight = weight.minimum(position / overlap)
    if stop < size:
        weight = weight.minimum((stop - start - position) / overlap)
    return weight


def _tiled(
    run: Callable[[Tensor], Tensor], x: Tensor, side: int, unit: int, scale: float, label: str
) -> Tensor:
    """Run `run` on overlapping tiles of `x` and blend; `scale` is output pixels per input pixel."""
    height, width = x.shape[3:]
    out_height, out_width = round(height * scale), round(width * scale)
    total = weights = None
    places = list(itertools.product(_starts(height, side, unit), _starts(width, side, unit)))
    for row, column in counted(places, label, "tiles"):
        part = run(x[..., row : row + side, column : column + side])
        top, left = round(row * scale), round(column * scale)
        bottom, right = top + part.shape[3], left + part.shape[4]
        overlap = max(1, round(side * scale) // 4)
        mask = (
            _ramp(top, bottom, out_height, overlap, part)[:, None]
            * _ramp(left, right, out_width, overlap, part)[None]
        )
        if total is None or weights is None:
            total = part.new_zeros(*part.shape[:3], out_height, out_width)
            weights = part.new_zeros(out_height, out_width)
        total[..., top:bottom, left:right] += part * mask
        weights[top:bottom, left:right] += mask
    if total is None or weights is None:
        raise InputError("nothing to tile")
    return total / weights


def encode_moments(vae: Any, video: Float[Tensor, "B 3 T H W"]) -> tuple[Tensor, Tensor]:
    """Mean and log variance of the latents (B, channels, S, h, w) each, not normalised; T = 4n + 1."""
    encoder = vae.encoder
    side = math.isqrt(encoder.conv1.in_channels // video.shape[1])
    patches = rearrange(video, "b c t (h p) (w q) -> b (c q p) t h w", p=side, q=side)
    layers = [encoder.conv1, *encoder.downsamples, *encoder.middle, *encoder.head, vae.conv1]
    mean, log_variance = _run(layers, patches).chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode_latents(vae: Any, latents: Float[Tensor, "B channels S h w"]) -> Float[Tensor, "B 3 T H W"]:
    """Video of latents that are not normalised; T = 4 (S - 1) + 1."""
    decoder = vae.decoder
    layers = [vae.conv2, decoder.conv1, *decoder.middle, *decoder.upsamples, *decoder.head]
    patches = _run(layers, latents)
    side = math.isqrt(patches.shape[1] // 3)
    return rearrange(patches, "b (c q p) t h w -> b c t (h p) (w q)", p=side, q=side)


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
        elif kind in ("Resample", "Resample38"):
            x = _resample(layer, x)
        elif kind == "Down_ResidualBlock":
            # Around it: neighbouring pixels averaged, before the first frame a zero as in the cached loop.
            x = _run(layer.downsamples, x) + layer.avg_shortcut(x)
        elif kind == "Up_ResidualBlock":
            # Around it: pixels repeated; the first frame stands for one, not for two.
            shortcut = 0 if layer.avg_shortcut is None else layer.avg_shortcut(x, first_chunk=True)
            x = _run(layer.upsamples, x) + shortcut
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
        conv = layer.time_conv
        pairs = F.conv3d(F.pad(x[:, :, 1:], (0, 0, 0, 0, 2, 0)), conv.weight, conv.bias)
        pairs = pairs.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
        x = torch.cat([x[:, :, :1], pairs], dim=2)
    batch, frames = x.shape[0], x.shape[2]
    x = layer.resample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, frames)).transpose(1, 2)
    if layer.mode == "downsample3d" and frames > 1:
        conv = layer.time_conv
        x = torch.cat([x[:, :, :1], F.conv3d(x, conv.weight, conv.bias, stride=(2, 1, 1))], dim=2)
    return x
