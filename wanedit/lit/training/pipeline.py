"""The whole training of wan-tiny, stage by stage; every finished stage is on disk and a second run skips it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.lit.training import assets
from wanedit.lit.training.curves import write_curves
from wanedit.lit.training.data import footage, leaf_images, sprite_clips
from wanedit.lit.training.flow import BatchStream, TinyWan, train_flow
from wanedit.lit.training.latents import (
    Encoder,
    LatentSet,
    encode_clips,
    latent_statistics,
    normalised_encoder,
    token_ids,
)
from wanedit.lit.training.tokenizer import train_tokenizer
from wanedit.lit.training.vae import build_vae, train_vae_stage
from wanedit.sprites.caption import caption
from wanedit.sprites.scene import sample_scene
from wanedit.wan.catalog import NEGATIVE_FLF2V, NEGATIVE_PROMPT
from wanedit.wan.text import TOKENIZER


@dataclass(frozen=True)
class VaeStage:
    """One stage of the VAE: clips of `num_frames` cut to crop x crop pixels."""

    num_frames: int
    crop: int
    batch: int
    max_steps: int
    minutes: float
    learning_rate: float


@dataclass(frozen=True)
class Bucket:
    """Clips of one size for the transformer, cut to each of `lengths` (increasing), and their share of the batches.

    A length of 1 makes stills, drawn from text alone: they teach the words at a fraction of a clip's cost.
    """

    size: int
    lengths: tuple[int, ...]
    clips: int
    batches: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class FlowStage:
    """The transformer's stage; `image_from` is the part of the budget after which image tokens take part."""

    max_steps: int
    minutes: float
    learning_rate: float
    shift: float
    image_from: float
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True)
class TrainTiny:
    """All that decides a training.

    `footage` are optional video and image files for the VAE. `start` is a folder of wan-tiny whose weights are trained
    further instead of new ones. `compiled` costs minutes at the start of each stage and makes the VAE four times as
    fast.
    """

    out: Path
    vae: tuple[VaeStage, ...]
    flow: FlowStage
    assets: Path
    footage: tuple[Path, ...] = ()
    start: Path | None = None
    small_clips: int = 1500
    large_clips: int = 300
    leaves: int = 400
    seed: int = 0
    accelerator: str = "auto"
    compiled: bool = True
    pool_weights: tuple[float, ...] = field(default=(0.48, 0.15, 0.12, 0.25))


def train_tiny(plan: TrainTiny) -> None:
    """Run every stage that is not finished in `plan.out`, then write `plan.assets`, loss curves included.

    Raises InputError when a file of footage does not exist.
    """
    missing = [str(path) for path in plan.footage if not path.is_file()]
    if missing:
        raise InputError(f"footage: got {', '.join(missing)}, expected existing files")
    if plan.start is not None:
        assets.check_start(plan.start)
    plan.out.mkdir(parents=True, exist_ok=True)
    vae = _vae(plan)
    mean, std = latent_statistics(vae, sprite_clips(range(64), 17, 64))
    assets.write_vae(vae, mean, std, plan.assets)
    tokenizer = _tokenizer(plan.assets)
    device = encoding_device(plan.accelerator)
    encode = normalised_encoder(vae, mean, std, plan.compiled, device)
    sets = [
        part
        for index in range(len(plan.flow.buckets))
        for part in latent_sets(plan, index, encode, tokenizer)
    ]
    net = _flow(plan, sets, normalised_encoder(vae, mean, std, device=device), tokenizer)
    assets.write_networks(net, plan.assets)
    write_curves(_logs(plan), plan.assets)


def encoding_device(accelerator: str) -> torch.device:
    """Where clips are encoded: on the GPU that Lightning's `accelerator` would take, else on the CPU."""
    wanted = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def _logs(plan: TrainTiny) -> dict[str, tuple[Path, str]]:
    stages = {
        f"VAE, {index + 1}: {stage.num_frames} frames": (plan.out / f"vae{index}", "psnr")
        for index, stage in enumerate(plan.vae)
    }
    return stages | {"transformer": (plan.out / "flow", "loss")}


def _vae(plan: TrainTiny) -> nn.Module:
    torch.manual_seed(plan.seed)
    vae = build_vae()
    if plan.start is not None:
        assets.read_vae(vae, plan.start)
    done = [plan.out / f"vae{index}.pt" for index in range(len(plan.vae))]
    pools = None if done[-1].exists() else _pools(plan)
    for index, (stage, path) in enumerate(zip(plan.vae, done, strict=True)):
        if not path.exists():
            vae.requires_grad_(True).train()
            vae = train_vae_stage(
                vae,
                pools or [],
                plan.pool_weights if plan.footage else plan.pool_weights[:3],
                plan.out / f"vae{index}",
                seed=plan.seed + index,
                recoloured=(2, 3),
                accelerator=plan.accelerator,
                compiled=plan.compiled,
                **vars(stage),
            )
            torch.save(vae.state_dict(), path)
        vae.load_state_dict(torch.load(path, map_location="cpu"))
    return vae.eval().requires_grad_(False)


def _pools(plan: TrainTiny) -> list:
    pools: list = [
        sprite_clips(range(plan.small_clips), 17, 64),
        sprite_clips(range(100_000, 100_000 + plan.large_clips), 17, 128),
        leaf_images(plan.leaves, 64, plan.seed),
    ]
    return [*pools, footage(plan.footage)] if plan.footage else pools


def _tokenizer(folder: Path):
    from transformers import AutoTokenizer

    path = folder / TOKENIZER
    if not (path / "tokenizer.json").exists():
        train_tokenizer([caption(sample_scene(seed)) for seed in range(2000)], path)
    return AutoTokenizer.from_pretrained(str(path))


def latent_sets(plan: TrainTiny, index: int, encode: Encoder, tokenizer) -> list[LatentSet]:
    """The encoded clips of one bucket, from disk when they are there."""
    bucket = plan.flow.buckets[index]
    paths = [plan.out / f"latents_{bucket.size}_{length}_{bucket.clips}.pt" for length in bucket.lengths]
    if not all(path.exists() for path in paths):
        first = 1_000_000 * (1 + index)
        seeds = range(first, first + bucket.clips)
        parts = encode_clips(encode, seeds, bucket.lengths, bucket.size, tokenizer, 64)
        for part, path in zip(parts, paths, strict=True):
            part.save(path)
    return [LatentSet.load(path) for path in paths]


def _flow(plan: TrainTiny, sets: Sequence[LatentSet], encode: Encoder, tokenizer) -> TinyWan:
    stage = plan.flow
    torch.manual_seed(plan.seed)
    net = TinyWan()
    if plan.start is not None:
        assets.read_networks(net, plan.start)
    batches = [batch for bucket in stage.buckets for batch in bucket.batches]
    weights = [bucket.weight / len(bucket.lengths) for bucket in stage.buckets for _ in bucket.lengths]
    return train_flow(
        net,
        BatchStream(sets, weights, batches, plan.seed),
        dropped_ids(tokenizer, 64),
        grey_conditions(encode, sets),
        plan.out / "flow",
        max_steps=stage.max_steps,
        minutes=stage.minutes,
        learning_rate=stage.learning_rate,
        shift=stage.shift,
        image_from=stage.image_from,
        seed=plan.seed,
        accelerator=plan.accelerator,
        compiled=plan.compiled,
    )


def dropped_ids(tokenizer, text_len: int) -> Tensor:
    """What stands for 'no prompt' in training: the empty prompt and the negative prompts that users send."""
    return token_ids(tokenizer, ["", "", NEGATIVE_PROMPT, NEGATIVE_FLF2V], text_len)


@torch.no_grad()
def grey_conditions(encode: Encoder, sets: Sequence[LatentSet]) -> dict[tuple[int, ...], Tensor]:
    """For every latent grid the latents (1, 16, S, h, w) of a clip of zeros: the condition when nothing is known."""
    grids = {tuple(part.latents.shape[2:]) for part in sets}
    return {
        grid: encode(torch.zeros(1, 3, 4 * (grid[0] - 1) + 1, 8 * grid[1], 8 * grid[2])) for grid in grids
    }
