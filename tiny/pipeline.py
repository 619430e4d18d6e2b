"""The whole training of wan-tiny, stage by stage; every finished stage is on disk and a second run skips it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tiny import assets
from tiny.curves import write_curves
from tiny.data import footage, leaf_images, require_picture, sprite_clips
from tiny.flow import TRANSFORMER_CONFIG, BatchStream, TinyWan, train_flow, zero_image_values
from tiny.latent_cache import kept_statistics, latent_sets, stamp
from tiny.latents import Encoder, LatentSet, normalised_encoder, token_ids
from tiny.plan import SMALL_FRAMES, SMALL_SIZE, TrainTiny, keep_plan
from tiny.storage import save
from tiny.tokenizer import train_tokenizer
from tiny.vae import build_vae, train_vae_stage
from wanedit.errors import InputError
from wanedit.sprites.scene import caption, sample_scene
from wanedit.wan.catalog import NEGATIVE_FLF2V, NEGATIVE_PROMPT
from wanedit.wan.text import TOKENIZER

TEXT_LEN = TRANSFORMER_CONFIG["text_len"]


def train_tiny(plan: TrainTiny) -> None:
    """Run every stage that is not finished in `plan.out`, then write `plan.assets`, loss curves included.

    `plan.assets` stays as it was until all stages are done. On a GPU float32 products are rounded to TF32, for this
    whole process.

    Raises:
        InputError: see `check_inputs` and `keep_plan`; nothing is trained or written then.
    """
    check_inputs(plan)
    keep_plan(plan)
    if encoding_device(plan.accelerator).type == "cuda":
        torch.set_float32_matmul_precision("high")
    model = plan.out / "model"
    vae = _vae(plan)
    statistics = kept_statistics(vae, plan.out, encoding_device(plan.accelerator))
    assets.write_vae(vae, *statistics, model)
    assets.write_networks(_networks(plan, vae, statistics, _tokenizer(plan, model)), model)
    write_curves(_logs(plan), model)
    assets.publish(model, plan.assets)


def check_inputs(plan: TrainTiny) -> None:
    """See that all that the plan names is there.

    Raises:
        InputError: no CUDA device for `gpu`, footage that is missing or cannot be read, a file that `tokenizer` or
            `start` lacks.
    """
    if plan.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InputError(
            f"accelerator: got {plan.accelerator}, but no CUDA device is here; expected cpu or auto"
        )
    missing = [str(path) for path in plan.footage if not path.is_file()]
    if missing:
        raise InputError(f"footage: got {', '.join(missing)}; expected existing files")
    for path in plan.footage:
        require_picture(path)
    if plan.tokenizer is not None and not (plan.tokenizer / "tokenizer.json").is_file():
        raise InputError(
            f"tokenizer: {plan.tokenizer} lacks tokenizer.json; expected the folder of a tokenizer"
        )
    if plan.start is not None:
        assets.check_start(plan.start)


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
    """The VAE after its last stage; stages before a finished one are not asked for."""
    torch.manual_seed(plan.seed)
    vae = build_vae()
    if plan.start is not None:
        assets.read_vae(vae, plan.start)
    done = [plan.out / f"vae{index}.pt" for index in range(len(plan.vae))]
    finished = max((index for index, path in enumerate(done) if path.exists()), default=-1)
    if finished >= 0:
        vae.load_state_dict(torch.load(done[finished], map_location="cpu"))
    remaining = range(finished + 1, len(done))
    pools = _pools(plan) if remaining else []
    for index in remaining:
        vae = train_vae_stage(
            vae.requires_grad_(True).train(),
            pools,
            plan.crop_weights(),
            plan.out / f"vae{index}",
            seed=plan.seed + index,
            recoloured=(2, 3),
            accelerator=plan.accelerator,
            compiled=plan.compiled,
            **vars(plan.vae[index]),
        )
        save(vae.state_dict(), done[index])
    return vae.eval().requires_grad_(False)


def _pools(plan: TrainTiny) -> list:
    """What the VAE sees, in the order of `pool_weights`."""
    pools: list = [
        sprite_clips(range(plan.small_clips), SMALL_FRAMES, SMALL_SIZE),
        sprite_clips(range(10_000, 10_000 + plan.large_clips), plan.large_frames, 128),
        leaf_images(plan.leaves, 96, plan.seed),
    ]
    return [*pools, footage(plan.footage)] if plan.footage else pools


def _tokenizer(plan: TrainTiny, model: Path):
    """The tokenizer in `model`: a copy of the one that the plan names, or a new one."""
    from transformers import AutoTokenizer

    path = model / TOKENIZER
    if not path.exists():
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        source = plan.tokenizer or (plan.start and plan.start / TOKENIZER)
        if source:
            shutil.copytree(source, part)
        else:
            train_tokenizer([caption(sample_scene(seed)) for seed in range(2000)], part)
        part.rename(path)
    return AutoTokenizer.from_pretrained(str(path))


def _networks(
    plan: TrainTiny, vae: nn.Module, statistics: tuple[list[float], list[float]], tokenizer
) -> TinyWan:
    """The averaged networks of the flow stage, from plan.out/flow.pt when it is finished."""
    torch.manual_seed(plan.seed)
    net, path = TinyWan(), plan.out / "flow.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, map_location="cpu"))
        return net
    if plan.start is not None:
        assets.read_networks(net, plan.start)
        zero_image_values(net.transformer)
    device = encoding_device(plan.accelerator)
    encode = normalised_encoder(vae, *statistics, plan.compiled, device)
    sets = [
        part
        for bucket in plan.flow.buckets
        for part in latent_sets(
            bucket, plan.out, stamp(bucket, vae, statistics, tokenizer), encode, tokenizer, TEXT_LEN
        )
    ]
    empty = grey_conditions(normalised_encoder(vae, *statistics, device=device), sets)
    net = _train_flow(plan, net, sets, empty, dropped_ids(tokenizer, TEXT_LEN))
    save(net.state_dict(), path)
    return net


def _train_flow(
    plan: TrainTiny,
    net: TinyWan,
    sets: Sequence[LatentSet],
    empty: Mapping[tuple[int, ...], Tensor],
    drop_ids: Tensor,
) -> TinyWan:
    stage = plan.flow
    batches = [batch for bucket in stage.buckets for batch in bucket.batches]
    weights = [weight for bucket in stage.buckets for weight in bucket.weights]
    return train_flow(
        net,
        BatchStream(sets, weights, batches, plan.seed),
        drop_ids,
        empty,
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
    """What stands for 'no prompt' in training, (4, text_len): the empty prompt and the negative prompts in use."""
    return token_ids(tokenizer, ["", "", NEGATIVE_PROMPT, NEGATIVE_FLF2V], text_len)


@torch.no_grad()
def grey_conditions(encode: Encoder, sets: Sequence[LatentSet]) -> dict[tuple[int, ...], Tensor]:
    """For every latent grid the latents (1, 16, S, h, w) of a clip of zeros: the condition when nothing is known."""
    grids = {tuple(part.latents.shape[2:]) for part in sets}
    return {
        grid: encode(torch.zeros(1, 3, 4 * (grid[0] - 1) + 1, 8 * grid[1], 8 * grid[2])) for grid in grids
    }
