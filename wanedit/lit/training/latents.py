"""Clips as the transformer's training sees them: latents, condition latents, token ids, both keyframes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from wanedit.lit.training.data import clip_duration, sprite_clips, to_float
from wanedit.lit.training.sequence_vae import encode_moments
from wanedit.sprites.caption import caption
from wanedit.sprites.scene import sample_scene


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
def encode_clips(vae: nn.Module, mean: Sequence[float], std: Sequence[float], seeds: Sequence[int], num_frames: int, size: int, tokenizer, text_len: int, split: str = "train") -> LatentSet:
    """Draw, caption and encode one clip per seed."""
    middle, scale = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (mean, std))
    latents, known, keyframes = [], [], []
    for start in range(0, len(seeds), 16):
        clips = sprite_clips(seeds[start : start + 16], num_frames, size, split)
        video = to_float(clips)
        masked = torch.zeros_like(video)
        masked[:, :, [0, -1]] = video[:, :, [0, -1]]
        for source, out in ((video, latents), (masked, known)):
            out += [(encode_moments(vae, part)[0] - middle) / scale for part in source.split(4)]
        keyframes.append(clips[:, :, [0, -1]])
    captions = [caption(sample_scene(seed, split, clip_duration(num_frames, seed))) for seed in seeds]
    ids = token_ids(tokenizer, captions, text_len)
    return LatentSet(torch.cat(latents), torch.cat(known), ids, torch.cat(keyframes))


def token_ids(tokenizer, texts: Sequence[str], text_len: int) -> Int[Tensor, "N text_len"]:
    """Ids padded with 0 to text_len, end mark included."""
    settings = {"padding": "max_length", "truncation": True, "max_length": text_len, "return_tensors": "pt"}
    return tokenizer(list(texts), **settings).input_ids
