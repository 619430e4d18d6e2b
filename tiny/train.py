"""Train wan-tiny, stage by stage: `python -m tiny.train --config tiny/cpu.yaml --footage '[clip.mp4]'`.

Every finished stage is on disk and a second start skips it; one that was stopped goes on from its last checkpoint when
it is started again with the same `out` and the same settings. Exit code 0 when `assets` holds the trained model; 2,
and one line that says why, for settings or files that cannot be used.
"""

if __name__ == "__main__":
    from wanedit.interrupts import watch

    watch()  # before torch is imported, which takes seconds

import shutil
import sys
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tiny import assets
from tiny.data import footage, leaf_images, require_footage, sprite_clips
from tiny.fit import write_curves
from tiny.flow import TRANSFORMER_CONFIG, BatchStream, TinyWan, train_flow, zero_image_values
from tiny.latents import (
    Statistics,
    grey_conditions,
    kept_statistics,
    latent_sets,
    normalised_encoder,
    stamp,
    token_ids,
)
from tiny.plan import SMALL_FRAMES, SMALL_SIZE, TrainTiny, keep_plan
from tiny.vae import build_vae, train_vae_stage
from wanedit.errors import InputError, WaneditError
from wanedit.files import atomic_path
from wanedit.interrupts import Interrupted, run
from wanedit.sprites.scene import caption, sample_scene
from wanedit.wan.catalog import NEGATIVE_FLF2V, NEGATIVE_PROMPT
from wanedit.wan.formats.layouts import OFFICIAL_TOKENIZER

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
    device, model = encoding_device(plan.accelerator), plan.out / "model"
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    vae = trained_vae(plan)
    statistics = kept_statistics(vae, plan.out, device)
    assets.write_vae(vae, *statistics, model)
    assets.write_networks(trained_networks(plan, vae, statistics, kept_tokenizer(plan, model)), model)
    logs = {
        f"VAE, {index + 1}: {stage.num_frames} frames": (plan.out / f"vae{index}", "psnr")
        for index, stage in enumerate(plan.vae)
    }
    write_curves(logs | {"transformer": (plan.out / "flow", "loss")}, model)
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
    require_footage(plan.footage)
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


def trained_vae(plan: TrainTiny) -> nn.Module:
    """The VAE after its last stage; stages before a finished one are not asked for."""
    torch.manual_seed(plan.seed)
    vae = build_vae()
    if plan.start is not None:
        assets.read_vae(vae, plan.start)
    done = [plan.out / f"vae{index}.pt" for index in range(len(plan.vae))]
    finished = max((index for index, path in enumerate(done) if path.exists()), default=-1)
    if finished >= 0:
        vae.load_state_dict(torch.load(done[finished], map_location="cpu", weights_only=True))
    remaining = range(finished + 1, len(done))
    pools: list[Tensor | list[Tensor]] = []
    if remaining:
        # In the order of `pool_weights`.
        pools = [
            sprite_clips(range(plan.small_clips), SMALL_FRAMES, SMALL_SIZE),
            sprite_clips(range(10_000, 10_000 + plan.large_clips), plan.large_frames, 128),
            leaf_images(plan.leaves, 96, plan.seed),
            *([footage(plan.footage)] if plan.footage else []),
        ]
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
        with atomic_path(done[index]) as part:
            torch.save(vae.state_dict(), part)
    return vae.eval().requires_grad_(False)


def kept_tokenizer(plan: TrainTiny, model: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in `model`: a copy of the one that the plan names, or a new one."""
    path = model / OFFICIAL_TOKENIZER
    if not path.exists():
        part = path.with_name(path.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        source = plan.tokenizer or (plan.start and plan.start / OFFICIAL_TOKENIZER)
        if source:
            shutil.copytree(source, part)
        else:
            assets.train_tokenizer([caption(sample_scene(seed)) for seed in range(2000)], part)
        part.rename(path)
    return AutoTokenizer.from_pretrained(str(path))


def trained_networks(
    plan: TrainTiny, vae: nn.Module, statistics: Statistics, tokenizer: PreTrainedTokenizerFast
) -> TinyWan:
    """The averaged networks of the flow stage, from plan.out/flow.pt when it is finished."""
    torch.manual_seed(plan.seed)
    net, path, stage = TinyWan(), plan.out / "flow.pt", plan.flow
    if path.exists():
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return net
    if plan.start is not None:
        assets.read_networks(net, plan.start)
        zero_image_values(net.transformer)
    device = encoding_device(plan.accelerator)
    encode = normalised_encoder(vae, *statistics, plan.compiled, device)
    sets = []
    for bucket in stage.buckets:
        key = stamp(bucket, vae, statistics, tokenizer)
        sets += latent_sets(bucket, plan.out, key, encode, tokenizer, TEXT_LEN)
    batches = [batch for bucket in stage.buckets for batch in bucket.batches]
    weights = [weight for bucket in stage.buckets for weight in bucket.weights]
    net = train_flow(
        net,
        BatchStream(sets, weights, batches, plan.seed),
        dropped_ids(tokenizer, TEXT_LEN),
        grey_conditions(normalised_encoder(vae, *statistics, device=device), sets),
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
    with atomic_path(path) as part:
        torch.save(net.state_dict(), part)
    return net


def dropped_ids(tokenizer: PreTrainedTokenizerFast, text_len: int) -> Tensor:
    """What stands for 'no prompt' in training, (4, text_len): the empty prompt and the negative prompts in use."""
    return token_ids(tokenizer, ["", "", NEGATIVE_PROMPT, NEGATIVE_FLF2V], text_len)


def read_plan(arguments: list[str] | None) -> TrainTiny:
    """The settings of a command line: every field of TrainTiny, and --config for a YAML file of them.

    Raises:
        InputError: a value that no training can have.
    """
    flags = ArgumentParser(prog="python -m tiny.train", description=__doc__)
    flags.add_class_arguments(TrainTiny)
    flags.add_argument("--config", action="config")
    settings = vars(flags.instantiate(flags.parse_args(arguments)))
    return TrainTiny(**{name: value for name, value in settings.items() if name != "config"})


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or that of the failure."""
    try:
        train_tiny(read_plan(arguments))
    except WaneditError as error:
        print(f"tiny.train: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as reason:
        print(
            f"tiny.train: {reason}: stopped; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return reason.exit_code
    return 0


if __name__ == "__main__":
    run(main)
