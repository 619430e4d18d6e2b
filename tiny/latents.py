"""Clips as the transformer's training sees them: latents, what is known of the clip, token ids, both keyframes.

What is known varies by clip: the first and the last frame mostly, the first one alone, or both and some between.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from tiny.data import sprite_clips
from tiny.storage import save
from wanedit.sprites.scene import caption, sample_scene
from wanedit.sprites.sets import clip_duration, to_float
from wanedit.wan.whole_clip import encode_moments

Encoder = Callable[[Tensor], Tensor]

# Shares of the conditions that training sees; clips of which nothing is known are drawn in the training step.
CONDITIONS = {"first and last": 0.70, "first": 0.18, "several": 0.12}


@dataclass
class LatentSet:
    """Encoded clips of one size and length.

    `known` are the normalised latents of a video that is grey but for the frames that `frames` marks. Latents are
    float16 on disk and float32 in memory.
    """

    latents: Float[Tensor, "N 16 S h w"]
    known: Float[Tensor, "N 16 S h w"]
    frames: Bool[Tensor, "N T"]
    ids: Int[Tensor, "N text_len"]
    keyframes: UInt8[Tensor, "N 3 2 H W"]

    def save(self, path: Path) -> None:
        """Write by rename, so that a reader never sees half a file."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        save(values | {"latents": self.latents.half(), "known": self.known.half()}, path)

    @classmethod
    def load(cls, path: Path) -> "LatentSet":
        """What `save` wrote."""
        values = torch.load(path, map_location="cpu")
        return cls(**values | {"latents": values["latents"].float(), "known": values["known"].float()})


def latent_statistics(
    vae: nn.Module, clips: UInt8[Tensor, "N 3 T H W"], device: torch.device | str = "cpu"
) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the latents of clips, by way of a copy of the VAE on `device`."""
    vae = copy.deepcopy(vae).to(device)
    with torch.no_grad():
        parts = [encode_moments(vae, to_float(part.to(device)))[0].cpu() for part in clips.split(8)]
    latents = torch.cat(parts)
    dims = (0, 2, 3, 4)
    return latents.mean(dims).tolist(), latents.std(dims).tolist()


def known_frames(seed: int, num_frames: int) -> list[int]:
    """The frames that training shows of one clip, by seed and in the shares of CONDITIONS; of a still none.

    Drawn once for every (seed, num_frames): a clip that comes again shows the same frames, or, when it is one of those
    that the training step hides, nothing.
    """
    if num_frames == 1:
        return []
    rng = np.random.default_rng([13, seed, num_frames])
    kind = rng.choice(list(CONDITIONS), p=list(CONDITIONS.values()))
    if kind == "first":
        return [0]
    inner: list[int] = []
    if kind == "several" and num_frames > 2:
        some = rng.choice(np.arange(1, num_frames - 1), size=rng.integers(1, 3), replace=False)
        inner = sorted(int(frame) for frame in some)
    return [0, *inner, num_frames - 1]


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
    whole: list[Tensor] = []
    known: list[list[Tensor]] = [[] for _ in lengths]
    keyframes: list[list[Tensor]] = [[] for _ in lengths]
    shown = [torch.zeros(len(seeds), length, dtype=torch.bool) for length in lengths]
    for start in range(0, len(seeds), batch):
        part = seeds[start : start + batch]
        clips = sprite_clips(part, lengths[-1], size, split)
        video = to_float(clips)
        whole.append(encode(video))
        for i, length in enumerate(lengths):
            frames = shown[i][start : start + len(part)]
            for row, seed in enumerate(part):
                frames[row, known_frames(seed, length)] = True
            known[i].append(encode(video[:, :, :length] * frames[:, None, :, None, None]))
            keyframes[i].append(clips[:, :, [0, length - 1]])
    captions = [caption(sample_scene(seed, split, clip_duration(lengths[-1], seed))) for seed in seeds]
    ids, latents = token_ids(tokenizer, captions, text_len), torch.cat(whole)
    return [
        LatentSet(
            latents[:, :, : (length - 1) // 4 + 1].clone(),
            torch.cat(known[i]),
            shown[i],
            ids,
            torch.cat(keyframes[i]),
        )
        for i, length in enumerate(lengths)
    ]


def normalised_encoder(
    vae: nn.Module,
    mean: Sequence[float],
    std: Sequence[float],
    compiled: bool = False,
    device: torch.device | str = "cpu",
) -> Encoder:
    """Video to normalised latents, both on the CPU, by way of `device`.

    Compiled once per shape where asked, which pays from about a hundred clips. The encoder has its own copy of `vae`.
    """
    vae = copy.deepcopy(vae).to(device)
    middle, scale = (torch.tensor(values, device=device).view(1, -1, 1, 1, 1) for values in (mean, std))

    def encode(video: Tensor) -> Tensor:
        return (encode_moments(vae, video)[0] - middle) / scale

    run = torch.compile(encode, dynamic=False) if compiled else encode
    return lambda video: run(video.to(device)).cpu()


def token_ids(tokenizer, texts: Sequence[str], text_len: int) -> Int[Tensor, "N text_len"]:
    """Ids padded with 0 to text_len, end mark included."""
    settings = {"padding": "max_length", "truncation": True, "max_length": text_len, "return_tensors": "pt"}
    return tokenizer(list(texts), **settings).input_ids
