"""The Wan video VAE behind a two-method interface: normalised latents in and out, tiles on request."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.wan.whole_clip import decode_latents, encode_moments

STRIDE_TIME, STRIDE_SPACE = 4, 8

# Per-channel statistics of the official latents (Wan 2.1, `wan/modules/vae.py`, `WanVAE.__init__`).
OFFICIAL_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
OFFICIAL_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip

# Clips whose largest activation, frames x height x width x the VAE's width, has no more elements are coded whole:
# faster, at about six such tensors of memory (1.5 GiB in float32). The official VAE, 96 wide, so codes up to 81 frames
# of 88x96.
WHOLE_UP_TO = 2**26

Tile = tuple[slice, slice]


class WanVAE(nn.Module):
    """diffsynth's `VideoVAE_` with the latent normalisation of the checkpoint.

    Args:
        model: a `VideoVAE_` of any width.
        mean, std: 16 numbers each, subtracted from and divided out of the encoder's mean.
    """

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: Sequence[float] = OFFICIAL_MEAN, std: Sequence[float] = OFFICIAL_STD
    ) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean, device="cpu"), persistent=False)
        self.register_buffer("std", torch.tensor(std, device="cpu"), persistent=False)

    def _encode(self, video: Tensor) -> Tensor:
        if self._fits_whole(*video.shape[2:]):
            return (encode_moments(self.model, video)[0] - _channels(self.mean)) / _channels(self.std)
        return self._in_chunks(self.model.encode, video)

    def _decode(self, latents: Tensor) -> Tensor:
        slots, height, width = latents.shape[2:]
        if self._fits_whole(STRIDE_TIME * (slots - 1) + 1, height * STRIDE_SPACE, width * STRIDE_SPACE):
            video = decode_latents(self.model, latents * _channels(self.std) + _channels(self.mean))
        else:
            video = self._in_chunks(self.model.decode, latents)
        return video.clamp(-1, 1)

    def _fits_whole(self, frames: int, height: int, width: int) -> bool:
        return frames * height * width * self.model.dim <= WHOLE_UP_TO

    def _in_chunks(self, method: Callable[..., Tensor], x: Tensor) -> Tensor:
        # The causal caches of a 720p clip hold gigabytes, and VideoVAE_ itself drops them only at its next call.
        try:
            return method(x, [self.mean, 1.0 / self.std])
        finally:
            self.model.clear_cache()

    def encode(
        self, video: Float[Tensor, "b 3 t height width"], tile: int | None = None
    ) -> Float[Tensor, "b 16 s h w"]:
        """Encode pixels in [-1, 1] to normalised latents (the posterior's mean).

        Args:
            video: T = 4n+1 frames, height and width multiples of 8.
            tile: side of overlapping square tiles in pixels, a multiple of 8; whole frames when None.

        Raises:
            InputError: a size that the strides (4, 8, 8) do not divide.
        """
        frames, height, width = video.shape[2:]
        if (frames - 1) % STRIDE_TIME or height % STRIDE_SPACE or width % STRIDE_SPACE:
            raise InputError(
                f"video is {frames} frames of {width}x{height}; expected 4n+1 frames and multiples of 8 pixels"
            )
        if tile is None:
            return self._encode(video)
        return _tiled(self._encode, video, _tile_side(tile) * STRIDE_SPACE, STRIDE_SPACE, 1 / STRIDE_SPACE)

    def decode(
        self, latents: Float[Tensor, "b 16 s h w"], tile: int | None = None
    ) -> Float[Tensor, "b 3 t height width"]:
        """Decode normalised latents to pixels clamped to [-1, 1]; T = 4 (S - 1) + 1 frames.

        Args:
            latents: normalised.
            tile: side of overlapping square tiles in pixels, a multiple of 8; whole frames when None.
        """
        if tile is None:
            return self._decode(latents)
        return _tiled(self._decode, latents, _tile_side(tile), 1, float(STRIDE_SPACE))


def _channels(statistics: Tensor) -> Tensor:
    return statistics.view(1, -1, 1, 1, 1)


def _tile_side(pixels: int) -> int:
    if pixels % STRIDE_SPACE or pixels < 4 * STRIDE_SPACE:
        raise InputError(f"tile is {pixels} pixels; expected a multiple of 8, at least 32")
    return pixels // STRIDE_SPACE


def _starts(size: int, side: int, unit: int) -> list[int]:
    """Starts of tiles of `side` that cover `size`, overlapping by at least a quarter, on multiples of `unit`."""
    if size <= side:
        return [0]
    stride = side * 3 // 4 // unit * unit
    return [*range(0, size - side, stride), size - side]


def _tiles(height: int, width: int, side: int, unit: int) -> Iterator[Tile]:
    for top in _starts(height, side, unit):
        for left in _starts(width, side, unit):
            yield slice(top, min(top + side, height)), slice(left, min(left + side, width))


def _ramp(start: int, stop: int, size: int, overlap: int, like: Tensor) -> Tensor:
    """Weights along one axis: a linear rise over the overlap at each end that is not the border."""
    position = torch.arange(stop - start, device=like.device, dtype=like.dtype) + 0.5
    weight = torch.ones_like(position)
    if start > 0:
        weight = weight.minimum(position / overlap)
    if stop < size:
        weight = weight.minimum((stop - start - position) / overlap)
    return weight


def _tiled(run: Callable[[Tensor], Tensor], x: Tensor, side: int, unit: int, scale: float) -> Tensor:
    """Run `run` on overlapping tiles of `x` and blend; `scale` is output pixels per input pixel."""
    height, width = x.shape[3:]
    out_height, out_width = round(height * scale), round(width * scale)
    total = weights = None
    for rows, columns in _tiles(height, width, side, unit):
        part = run(x[..., rows, columns])
        top, left = round(rows.start * scale), round(columns.start * scale)
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
