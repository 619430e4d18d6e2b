"""Clips as the transformer's training sees them: latents, what is known of the clip, token ids, both keyframes.

What is known varies by clip: the first and the last frame mostly, the first one alone, or both and some between.
Encoded clips are kept on disk in chunks whose names say what decided them, so that none is ever taken for another.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from tiny.data import sprite_clips
from tiny.plan import Bucket, write_json
from wanedit.files import atomic_path
from wanedit.sprites.scene import caption, sample_scene
from wanedit.sprites.sets import clip_duration, to_float
from wanedit.wan.vae import encode_moments

Encoder = Callable[[Tensor], Tensor]
# Mean and standard deviation of every latent channel.
Statistics = tuple[list[float], list[float]]

# Shares of the conditions that training sees; clips of which nothing is known are drawn in the training step.
CONDITIONS = {"first and last": 0.66, "first": 0.18, "several": 0.16}
# Of clips longer than this: they stand for windows of several keyframes, as edits, joins and packed windows show them.
SHORT = 17
LONG_CONDITIONS = {"first and last": 0.35, "first": 0.10, "several": 0.55}
# Clips per file: what a kill loses at most.
CHUNK = 200
STATISTICS_CLIPS = 64


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
        with atomic_path(path) as part:
            torch.save(values | {"latents": self.latents.half(), "known": self.known.half()}, part)

    @classmethod
    def load(cls, path: Path) -> "LatentSet":
        """What `save` wrote."""
        values = torch.load(path, map_location="cpu", weights_only=True)
        return cls(**values | {"latents": values["latents"].float(), "known": values["known"].float()})


def known_frames(seed: int, num_frames: int) -> list[int]:
    """The frames that training shows of one clip, by seed and in the shares of CONDITIONS or LONG_CONDITIONS; of a
    still none. Of long clips with several it is in most cases one near the middle.

    Drawn once for every (seed, num_frames): a clip that comes again shows the same frames, or, when it is one of those
    that the training step hides, nothing.
    """
    if num_frames == 1:
        return []
    rng = np.random.default_rng([13, seed, num_frames])
    shares = CONDITIONS if num_frames <= SHORT else LONG_CONDITIONS
    kind = rng.choice(list(shares), p=list(shares.values()))
    if kind == "first":
        return [0]
    inner: list[int] = []
    if kind == "several" and num_frames > SHORT and rng.random() < 0.6:
        inner = [num_frames // 2 + int(rng.integers(-4, 5))]
    elif kind == "several" and num_frames > 2:
        some = rng.choice(np.arange(1, num_frames - 1), size=rng.integers(1, 3), replace=False)
        inner = sorted(int(frame) for frame in some)
    return [0, *inner, num_frames - 1]


@torch.no_grad()
def encode_clips(
    encode: Encoder,
    seeds: Sequence[int],
    lengths: Sequence[int],
    size: int,
    tokenizer: PreTrainedTokenizerFast,
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


def token_ids(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], text_len: int
) -> Int[Tensor, "N text_len"]:
    """Ids padded with 0 to text_len, end mark included."""
    settings = {"padding": "max_length", "truncation": True, "max_length": text_len, "return_tensors": "pt"}
    return tokenizer(list(texts), **settings).input_ids


def weights_hash(module: nn.Module) -> str:
    """sha256 of all names and tensors of a network."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kept_statistics(vae: nn.Module, out: Path, device: torch.device | str) -> Statistics:
    """Mean and standard deviation of every latent channel of this VAE on 64 training clips 64x64x17.

    Kept in out/statistics.json, because another number of threads may change their last digits, and with them every
    latent. Encoded on `device`, by a copy.
    """
    path, key = out / "statistics.json", weights_hash(vae)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("vae") != key:
        clips, encoder = sprite_clips(range(STATISTICS_CLIPS), 17, 64), copy.deepcopy(vae).to(device)
        with torch.no_grad():
            parts = [encode_moments(encoder, to_float(part.to(device)))[0].cpu() for part in clips.split(8)]
        latents, dims = torch.cat(parts), (0, 2, 3, 4)
        kept = {"vae": key, "mean": latents.mean(dims).tolist(), "std": latents.std(dims).tolist()}
        write_json(kept, path)
    return kept["mean"], kept["std"]


def stamp(bucket: Bucket, vae: nn.Module, statistics: Statistics, tokenizer: PreTrainedTokenizerFast) -> str:
    """Twelve digits that change with anything that the latents of a bucket depend on."""
    # How it was last called is part of a tokenizer's text, and decides nothing here.
    words = copy.deepcopy(tokenizer.backend_tokenizer)
    words.no_padding()
    words.no_truncation()
    parts = {
        "vae": weights_hash(vae),
        "statistics": statistics,
        "bucket": [bucket.size, bucket.lengths, bucket.clips, bucket.first_seed],
        "conditions": [CONDITIONS, LONG_CONDITIONS],
        "tokenizer": words.to_str(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def latent_sets(
    bucket: Bucket, folder: Path, key: str, encode: Encoder, tokenizer: PreTrainedTokenizerFast, text_len: int
) -> list[LatentSet]:
    """The encoded clips of one bucket, one set per length; what is not in `folder` under `key` is encoded now."""
    seeds = range(bucket.first_seed, bucket.first_seed + bucket.clips)
    chunks: list[list[Path]] = []
    for start in range(0, len(seeds), CHUNK):
        names = [f"latents_{bucket.size}_{length}_{key}_{start:06d}.pt" for length in bucket.lengths]
        chunks.append([folder / name for name in names])
        if not all(path.exists() for path in chunks[-1]):
            parts = encode_clips(
                encode,
                seeds[start : start + CHUNK],
                bucket.lengths,
                bucket.size,
                tokenizer,
                text_len,
                batch=bucket.encode_batch,
            )
            for part, path in zip(parts, chunks[-1], strict=True):
                part.save(path)
    sets = []
    for paths in zip(*chunks, strict=True):
        parts = [LatentSet.load(path) for path in paths]
        names = [field.name for field in fields(LatentSet)]
        sets.append(LatentSet(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names}))
    return sets


@torch.no_grad()
def grey_conditions(encode: Encoder, sets: Sequence[LatentSet]) -> dict[tuple[int, ...], Tensor]:
    """For every latent grid the latents (1, 16, S, h, w) of a clip of zeros: the condition when nothing is known."""
    grids = {tuple(part.latents.shape[2:]) for part in sets}
    return {
        grid: encode(torch.zeros(1, 3, 4 * (grid[0] - 1) + 1, 8 * grid[1], 8 * grid[2])) for grid in grids
    }
