"""Encoded clips on disk, in chunks whose names say what decided them, so that none is ever taken for another."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import torch
from torch import nn

from tiny.data import sprite_clips
from tiny.latents import CONDITIONS, Encoder, LatentSet, encode_clips, latent_statistics
from tiny.plan import Bucket
from tiny.storage import write_json

# Clips per file: what a kill loses at most.
CHUNK = 200
STATISTICS_CLIPS = 64


def weights_hash(module: nn.Module) -> str:
    """sha256 of all names and tensors of a network."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def kept_statistics(vae: nn.Module, out: Path, device: torch.device | str) -> tuple[list[float], list[float]]:
    """`latent_statistics` of this VAE on 64 training clips 64x64x17, from out/statistics.json when they are there.

    Kept, because another number of threads may change their last digits, and with them every latent.
    """
    path, key = out / "statistics.json", weights_hash(vae)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if kept.get("vae") != key:
        mean, std = latent_statistics(vae, sprite_clips(range(STATISTICS_CLIPS), 17, 64), device)
        kept = {"vae": key, "mean": mean, "std": std}
        write_json(kept, path)
    return kept["mean"], kept["std"]


def stamp(bucket: Bucket, vae: nn.Module, statistics: tuple[list[float], list[float]], tokenizer) -> str:
    """Twelve digits that change with anything that the latents of a bucket depend on.

    Args:
        tokenizer: a fast tokenizer of transformers.
    """
    parts = {
        "vae": weights_hash(vae),
        "statistics": statistics,
        "bucket": [bucket.size, bucket.lengths, bucket.clips, bucket.first_seed],
        "conditions": CONDITIONS,
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def latent_sets(
    bucket: Bucket, folder: Path, key: str, encode: Encoder, tokenizer, text_len: int
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
    return [_joined([LatentSet.load(path) for path in paths]) for paths in zip(*chunks, strict=True)]


def _joined(parts: list[LatentSet]) -> LatentSet:
    names = [field.name for field in fields(LatentSet)]
    return LatentSet(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
