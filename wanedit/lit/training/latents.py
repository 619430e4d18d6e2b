"""Clips as the transformer's training sees them: latents, condition latents, token ids, both keyframes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from wanedit.lit.training.data import clip_duration, sprite_clips, to_float
from wanedit.lit.training.sequence_vae import encode_moments
from wanedit.sprites.caption import caption
from wanedit.sprites.scene import sample_scene

Encoder = Callable[[Tensor], Tensor]


@dataclass
class LatentSet:
    """Encoded clips of one size and length. `known` is encode([first, zeros, last]); both are normalised."""

    latents: Float[Tensor, "N 16 S h w"]
    known: Float[Tensor, "N 16 S h w"]
    ids: Int[Tensor, "N text_len"]
    keyframes: UInt8[Tensor, "N 3 2 H W"]

    def save(self, path: Path) -> None:
        """Write to a temporary name and rename, so that a reader never sees half a file."""
        torch.save(self.__dict__, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    @classmethod
    def load(cls, path: Path) -> "LatentSet":
        return cls(**torch.load(path))


def latent_statistics(vae: nn.Module, clips: UInt8[Tensor, "N 3 T H W"]) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the latents of clips."""
    with torch.no_grad():
        latents = torch.cat([encode_moments(vae, to_float(part))[0] for part in clips.split(8)])
    dims = (0, 2, 3, 4)
    return latents.mean(dims).tolist(), latents.std(dims).tolist()


@torch.no_grad()
def encode_clips(
    encode: Encoder,
    seeds: Sequence[int],
    lengths: Sequence[int],
    size: int,
    tokenizer,
    text_len: int,
    split: str = "train",
    batch: int = 4,
) -> list[LatentSet]:
    """Draw, caption and encode one clip per seed; one set per length in `lengths` (increasing).

    The VAE is causal, so the latents of a shorter clip are the first of the longest one; only its condition is new.
    """
    whole, keyframes = [], [[] for _ in lengths]
    known: list[list[Tensor]] = [[] for _ in lengths]
    for start in range(0, len(seeds), batch):
        clips = sprite_clips(seeds[start : start + batch], lengths[-1], size, split)
        video = to_float(clips)
        whole.append(encode(video))
        for i, length in enumerate(lengths):
            ends = [0, length - 1]
            masked = torch.zeros_like(video[:, :, :length])
            masked[:, :, ends] = video[:, :, ends]
            known[i].append(encode(masked))
            keyframes[i].append(clips[:, :, ends])
    captions = [caption(sample_scene(seed, split, clip_duration(lengths[-1], seed))) for seed in seeds]
    ids, latents = token_ids(tokenizer, captions, text_len), torch.cat(whole)
    return [
        LatentSet(
            latents[:, :, : (length - 1) // 4 + 1].clone(), torch.cat(known[i]), ids, torch.cat(keyframes[i])
        )
        for i, length in enumerate(lengths)
    ]


def normalised_encoder(
    vae: nn.Module, mean: Sequence[float], std: Sequence[float], compiled: bool = False
) -> Encoder:
    """Video to normalised latents; compiled once per shape where asked, which pays from about a hundred clips."""
    middle, scale = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (mean, std))

    def encode(video: Tensor) -> Tensor:
        return (encode_moments(vae, video)[0] - middle) / scale

    return torch.compile(encode, dynamic=False) if compiled else encode


def token_ids(tokenizer, texts: Sequence[str], text_len: int) -> Int[Tensor, "N text_len"]:
    """Ids padded with 0 to text_len, end mark included."""
    settings = {"padding": "max_length", "truncation": True, "max_length": text_len, "return_tensors": "pt"}
    return tokenizer(list(texts), **settings).input_ids
