"""wan-tiny trained further in ten minutes of one GPU: `python -m tiny.gpu --out runs/gpu --seconds 570`.

The stages are those of `tiny.train` and end with the clock: processes draw clips while the VAE trains, what it has
drawn by then is encoded, the transformer takes the rest. Products are in bfloat16, sums and weights in float32. Nothing
is resumed: whoever is cut off starts again. Exit code 2 and a line where there is no GPU.

`--out` receives `model/`, the folder of wan-tiny, anew about every minute; and log.csv, what every stage came to.
"""

import argparse
import copy
import csv
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

import wanedit
from tiny import assets
from tiny.data import CropStream, footage, leaf_images, sprite_clips
from tiny.flow import TRANSFORMER_CONFIG, TinyWan, shifted_sigma, zero_image_values
from tiny.latents import STATISTICS_CLIPS, known_frames, token_ids
from tiny.muon import Muon, split_parameters
from tiny.vae import VaeTraining, build_vae
from wanedit.flow.path import schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.sprites.scene import Scene, caption, sample_scene
from wanedit.sprites.sets import any_scene, clip_duration, first_clips, linear, single_plain, to_float, videos
from wanedit.sprites.truth import psnr
from wanedit.wan import vae as whole_clip
from wanedit.wan.catalog import NEGATIVE_FLF2V, NEGATIVE_PROMPT
from wanedit.wan.formats.layouts import OFFICIAL_TOKENIZER
from wanedit.wan.vae import decode_latents, encode_moments

TEXT_LEN = TRANSFORMER_CONFIG["text_len"]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Shares of the time after which the VAE, and then encoding, end.
VAE_UNTIL, ENCODE_UNTIL = 0.27, 0.37
# Kinds of drawn clips: size, frames, clips a file, lengths that the transformer sees, clips encoded at once.
KINDS = {
    "small": (64, 17, 200, (9, 17), 100),
    "long": (64, 33, 100, (33,), 50),
    "large": (128, 17, 60, (9, 13, 17), 30),
    "still": (64, 1, 500, (1,), 500),
}
# In which the kinds are drawn.
ROUND = ("small", "large", "still", "long", "small", "large", "still", "small", "large", "long", "still")
# (size, frames) -> clips a step, share of the steps.
BUCKETS = {
    (64, 1): (1536, 0.15),
    (64, 9): (640, 0.08),
    (64, 17): (512, 0.36),
    (64, 33): (272, 0.13),
    (128, 9): (192, 0.06),
    (128, 13): (144, 0.06),
    (128, 17): (128, 0.16),
}
# Clips of the validation split that each stage is judged by.
CHECKED = 48
# A clip shown nothing, and one whose text is dropped.
TEXT_ONLY, NO_TEXT = 0.18, 0.1
SHIPPED = Path(wanedit.__file__).parent / "assets" / "wan-tiny"
Latents = dict[tuple[int, int], list[Tensor]]


class Clock:
    """Seconds since the start, and a log of what came of them."""

    def __init__(self, seconds: float, out: Path) -> None:
        self.seconds, self.path, self.began = seconds, out / "log.csv", time.monotonic()

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began

    def shares(self, until: float) -> Iterator[float]:
        """How much of the time from now to the share `until` of the whole is over, at every step, until it is."""
        start, stop = self.spent, until * self.seconds
        while (done := (self.spent - start) / max(1e-3, stop - start)) < 1:
            yield done

    def tell(self, stage: str, **values: float) -> None:
        """Print figures, and add them to the log."""
        print(f"[{self.spent:6.1f}] {stage}", *(f"{k} {v:.5g}" for k, v in values.items()), flush=True)
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                [round(self.spent, 1), stage, k, f"{v:.6g}"] for k, v in values.items()
            )


def rate(done: float, flat: float) -> float:
    """Factor of the learning rate: a short warm-up, constant, then a line to nothing from the share `flat` on."""
    return max(0.0, min(1.0, done / 0.02 + 0.02, (1 - done) / (1 - flat)))


def set_rate(optimizer: Muon, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, step: int, decay: float) -> None:
    """An exponential average of the weights, which forgets its first steps quickly."""
    keep = min(decay, (1 + step) / (10 + step))
    for mine, own in zip(average.parameters(), net.parameters(), strict=True):
        mine.lerp_(own, 1 - keep)


# Drawing


def draw(
    folder: Path, part: int, parts: int, files: int, stop: Any, kinds: Mapping, order: Sequence[str]
) -> None:
    """Draw clips of all kinds in turn, one file after another, until told to stop or `files` are there."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED / OFFICIAL_TOKENIZER))
    scenes = {
        kind: picked(10_000_000 * (index + 1) + 100_000_000 * part, kinds[kind][1])
        for index, kind in enumerate(kinds)
    }
    for number in range(files // parts):
        if stop.is_set():
            break
        kind = order[(number + part) % len(order)]
        size, frames, count = kinds[kind][:3]
        seeds, texts = zip(*itertools.islice(scenes[kind], count), strict=True)
        values = {
            "clips": sprite_clips(seeds, frames, size),
            "ids": token_ids(tokenizer, texts, TEXT_LEN),
            "seeds": torch.tensor(seeds),
        }
        path = folder / f"{kind}_{part:02d}_{number:04d}.pt"
        torch.save(values, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)


def picked(first: int, frames: int) -> Iterator[tuple[int, str]]:
    """Seeds from `first` on with their captions: of simple scenes, an eighth of all, and one in six of the others."""
    simple: Callable[[Scene], bool] = single_plain if frames == 1 else linear
    for seed in itertools.count(first):
        scene = sample_scene(seed, "train", clip_duration(frames, seed))
        if simple(scene) or np.random.default_rng([19, seed]).random() < 1 / 6:
            yield seed, caption(scene)


# VAE


def halved(function: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    """A convolution whose products are of `dtype`, float32 in and out: sums along the residuals stay exact."""

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Tensor:
        bias = None if bias is None else bias.to(dtype)
        return function(x.to(dtype), weight.to(dtype), bias, **settings).float()

    return run


class Halves:
    """torch.nn.functional with such convolutions."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.conv2d, self.conv3d = halved(F.conv2d, dtype), halved(F.conv3d, dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)


def halves(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Let `whole_clip` convolve so, on a GPU: a CPU is slower by it."""
    return patch.object(whole_clip, "F", Halves(dtype)) if DEVICE == "cuda" else nullcontext()


class HalvedConv2d(nn.Conv2d):
    """nn.Conv2d as `whole_clip` convolves at the time."""

    def forward(self, input: Tensor) -> Tensor:
        return whole_clip.F.conv2d(input, self.weight, self.bias, stride=self.stride, padding=self.padding)


def lay_out(vae: nn.Module) -> nn.Module:
    """Channels last, as GPUs convolve fastest, and two-dimensional convolutions that follow `Halves`."""
    for module in vae.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)
        elif type(module) is nn.Conv2d:
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
            module.__class__ = HalvedConv2d
    return vae


def channels_last(video: Tensor) -> Tensor:
    return video.contiguous(memory_format=torch.channels_last_3d)


@torch.no_grad()
def copied(vae: nn.Module, video: Tensor) -> float:
    """Mean PSNR of clips that the VAE copies."""
    values: list[float] = []
    for part in video.split(16):
        again = decode_latents(vae, encode_moments(vae, part.to(DEVICE))[0]).clamp(-1, 1).cpu()
        values += [psnr(a, b) for a, b in zip(again, part, strict=True)]
    return float(np.mean(values))


class Pools:
    """Small clips, large clips, leaf images and footage for CropStream; the first two grow as files come."""

    def __init__(self, folder: Path, footage_files: list[Path]) -> None:
        self.folder, self.seen = folder, set[Path]()
        given = [clip.to(DEVICE) for clip in footage(footage_files, (96, 128))] if footage_files else []
        leaves = list(leaf_images(100, 96, 20).to(DEVICE))
        self.pools: list[list[Tensor]] = [[], [], leaves, given]
        while not (self.pools[0] and self.pools[1]):
            time.sleep(0.2)
            self.refresh()

    def refresh(self, most: int = 30) -> None:
        """Take in files that are new."""
        for kind, pool in zip(("small", "large"), self.pools, strict=False):
            for path in sorted(set(self.folder.glob(f"{kind}_*.pt")) - self.seen)[:most]:
                self.seen.add(path)
                pool.extend(torch.load(path)["clips"].to(DEVICE))


def train_vae(clock: Clock, folder: Path, footage_files: list[Path], start: Path, batch: int) -> nn.Module:
    """Crops of 17x64x64 until VAE_UNTIL; the average of the weights, rounded as files have them."""
    vae = build_vae()
    assets.read_vae(vae, start)
    vae.to(DEVICE).train().requires_grad_(True)
    average = copy.deepcopy(vae).eval().requires_grad_(False)
    check = videos(first_clips(CHECKED, 17, any_scene, "validation"), 64)
    clock.tell("VAE", dB=copied(average, check))
    losses = VaeTraining(lay_out(vae), 0.0, compiled=False)._losses
    net: Any = vae
    optimizer = Muon(*split_parameters(vae, (net.encoder.conv1.weight, net.decoder.head[-1].weight)), lr=0.0)
    pools = Pools(folder, footage_files)
    shares = [0.58, 0.28, 0.06, 0.08][: 4 if pools.pools[3] else 3]
    stream = CropStream(pools.pools[: len(shares)], shares, KINDS["small"][1], 64, 20, (2, 3))
    crops = iter(DataLoader(stream, batch_size=batch))
    for step, done in enumerate(clock.shares(VAE_UNTIL), 1):
        set_rate(optimizer, 1e-3 * rate(done, 0.15))
        noise = torch.randn(batch, 16, (KINDS["small"][1] - 1) // 4 + 1, 8, 8, device=DEVICE)
        with halves(torch.bfloat16):
            absolute, square, kl = losses(channels_last(next(crops)), noise)
            (absolute + 3 * square + 2e-4 * kl).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        follow(average, vae, step, 0.998)
        if step % 300 == 0:
            pools.refresh()
            clock.tell("VAE", step=step, dB=copied(average, check))
    clock.tell("VAE", dB=copied(average, check))
    return average.half().float()


# Latents


@torch.no_grad()
def encode_all(clock: Clock, folder: Path, encode: Callable[[Tensor], Tensor]) -> Latents:
    """(size, frames) -> latents, what is known, which frames are, token ids; as many clips as the time allows."""
    files = {kind: sorted(folder.glob(f"{kind}_*.pt")) for kind in KINDS}
    # All kinds at once, so that none lacks when time is up.
    order = sorted((index / len(paths), path) for paths in files.values() for index, path in enumerate(paths))
    parts: dict[tuple[int, int], list[list[Tensor]]] = {}
    for _, path in order:
        if clock.spent > ENCODE_UNTIL * clock.seconds:
            break
        size, _, _, lengths, batch = KINDS[path.name.partition("_")[0]]
        values = torch.load(path)
        for clips, ids, seeds in zip(
            *(values[name].split(batch) for name in ("clips", "ids", "seeds")), strict=True
        ):
            video = to_float(clips.to(DEVICE))
            whole = encode(video).half()
            for length in lengths:
                shown = torch.zeros(len(clips), length, dtype=torch.bool)
                for row, seed in enumerate(seeds.tolist()):
                    shown[row, known_frames(seed, length)] = True
                shown = shown.to(DEVICE)
                known = encode(video[:, :, :length] * shown[:, None, :, None, None]).half()
                latents = whole[:, :, : (length - 1) // 4 + 1]
                parts.setdefault((size, length), []).append([latents, known, shown, ids.to(DEVICE)])
    sets = {key: [torch.cat(each) for each in zip(*found, strict=True)] for key, found in parts.items()}
    clock.tell("latents", **{f"{size}x{length}": len(part[0]) for (size, length), part in sets.items()})
    return sets


def masks(frames: Tensor, height: int, width: int) -> Tensor:
    """`frame_mask` of every row of (B, T) booleans, without a loop over rows."""
    filled = torch.cat([frames[:, :1].expand(-1, 4), frames[:, 1:]], dim=1).float()
    return filled.unflatten(1, (-1, 4)).transpose(1, 2)[..., None, None].expand(-1, -1, -1, height, width)


# Transformer


class Between:
    """What training is judged by: 48 clips 64x64x17 of the validation split between their keyframes."""

    def __init__(
        self, vae: nn.Module, statistics: tuple[Tensor, Tensor], encode: Callable, tokenizer: Any
    ) -> None:
        clips = first_clips(CHECKED, 17, linear, "validation")
        self.vae, self.video, (self.mean, self.std) = vae, videos(clips, 64), statistics
        shown = torch.zeros(len(clips), 17, dtype=torch.bool)
        shown[:, [0, -1]] = True
        with torch.no_grad():
            known = encode((self.video * shown[:, None, :, None, None]).to(DEVICE))
        self.condition = torch.cat([masks(shown.to(DEVICE), 8, 8), known], dim=1)
        self.ids = token_ids(tokenizer, [clip.prompt for clip in clips], TEXT_LEN).to(DEVICE)
        self.noise = torch.randn(known.shape, generator=torch.Generator().manual_seed(0))
        across = torch.linspace(0, 1, 17).view(1, 1, -1, 1, 1)
        self.fade = self._inner(self.video[:, :, :1].lerp(self.video[:, :, -1:], across))

    def _inner(self, video: Tensor) -> float:
        pairs = zip(video[:, :, 1:-1], self.video[:, :, 1:-1], strict=True)
        return float(np.mean([psnr(a, b) for a, b in pairs]))

    @torch.no_grad()
    def measure(self, net: TinyWan) -> dict[str, float]:
        """dB of the inner frames after 12 UniPC steps, and above a cross-fade."""
        context = net.context(net.features(self.ids), self.condition, None)

        def velocity(x: Tensor, step: Any) -> Tensor:
            at = torch.full((len(x),), step.timestep, device=DEVICE)
            return net.transformer.velocity(x.to(DEVICE), at, context).cpu()

        made = SOLVERS["unipc"](velocity, self.noise, schedule(12, 3.0, "unipc")).to(DEVICE)
        parts = (made * self.std + self.mean).split(16)
        inner = self._inner(torch.cat([decode_latents(self.vae, part).clamp(-1, 1).cpu() for part in parts]))
        return {"inner": inner, "gain": inner - self.fade}


def train_flow(
    clock: Clock,
    sets: Latents,
    encode: Callable[[Tensor], Tensor],
    check: Between,
    start: Path,
    keep: Callable,
) -> None:
    """Velocity matching until the time is up; `keep` is given the averaged networks about every minute and at the end.

    Image values start and stay zero: the image tokens, which show again what the condition's latents show, gave
    0.00 dB, and their encoder alone costs more than the rest.
    """
    torch.manual_seed(30)
    net = TinyWan()
    assets.read_networks(net, start)
    zero_image_values(net.transformer)
    net.to(DEVICE).train()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith("image.") and "img" not in name)
    average = copy.deepcopy(net).eval().requires_grad_(False)
    model = net.transformer
    matrices, others = split_parameters(net, [model.patch_embedding.weight, model.head.head.weight])
    optimizer = Muon(
        *([p for p in each if p.requires_grad] for each in (matrices, others)), lr=0.0, weight_decay=0.01
    )
    tokenizer = AutoTokenizer.from_pretrained(str(start / OFFICIAL_TOKENIZER))
    drop = token_ids(tokenizer, ["", "", NEGATIVE_PROMPT, NEGATIVE_FLF2V], TEXT_LEN).to(DEVICE)
    with torch.no_grad():
        grey = {(size, n): encode(torch.zeros(1, 3, n, size, size, device=DEVICE)) for size, n in sets}
    if DEVICE == "cuda":
        for block in model.block_list():
            block.compile(dynamic=False)

    def loss(key: tuple[int, int]) -> Tensor:
        count = BUCKETS[key][0]
        rows = torch.randint(len(sets[key][0]), (count,), device=DEVICE)
        clean, known, frames, ids = (part[rows] for part in sets[key])
        blind, silent = (torch.rand(count, device=DEVICE) < share for share in (TEXT_ONLY, NO_TEXT))
        ids = torch.where(silent[:, None], drop[torch.randint(len(drop), (count,), device=DEVICE)], ids)
        known = torch.where(blind.view(-1, 1, 1, 1, 1), grey[key], known.float())
        condition = torch.cat([masks(frames & ~blind[:, None], *known.shape[3:]), known], dim=1)
        # One stratified draw of sigma per batch: less variance than independent ones.
        u = (torch.arange(count, device=DEVICE) + torch.rand(count, device=DEVICE)) / count
        sigma = shifted_sigma(u.clamp(1e-3, 1), 3.0)[torch.randperm(count, device=DEVICE)]
        noise, at = torch.randn_like(clean, dtype=torch.float32), sigma.view(-1, 1, 1, 1, 1)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            context = net.context(net.features(ids), condition, None)
            velocity = model.velocity((1 - at) * clean + at * noise, 1000 * sigma, context)
        return (velocity.float() - (noise - clean)).square().mean()

    for key in sets:  # compiles, which takes the clock ten seconds each
        loss(key).backward()
    optimizer.zero_grad()
    rng, keys = np.random.default_rng(31), list(sets)
    weights = np.array([BUCKETS[key][1] for key in keys])
    told = clock.spent
    for step, done in enumerate(clock.shares(1 - 12 / clock.seconds), 1):
        set_rate(optimizer, 3e-3 * rate(done, 0.2))
        loss(keys[rng.choice(len(keys), p=weights / weights.sum())]).backward()
        nn.utils.clip_grad_norm_([p for p in net.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        follow(average, net, step, 0.9995)
        if clock.spent - told > 60:
            clock.tell("transformer", step=step, **check.measure(average))
            keep(average)
            told = clock.spent
    clock.tell("transformer", **check.measure(average))
    keep(average)


def train(
    out: Path, seconds: float, start: Path, footage_files: list[Path], batch: int = 32, files: int = 1000
) -> None:
    """Draw, train the VAE, encode, train the transformer; out/model is what came of it."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.recompile_limit = 64  # one graph of a block for each bucket
    folder, model = out / "clips", out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    clock, processes = Clock(seconds, out), max(1, (os.cpu_count() or 2) - 1)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    drawers = [
        context.Process(target=draw, args=[folder, part, processes, files, stop, KINDS, ROUND], daemon=True)
        for part in range(processes)
    ]
    for drawer in drawers:
        drawer.start()
    try:
        vae = train_vae(clock, folder, footage_files, start, batch)
        clips = videos(first_clips(STATISTICS_CLIPS, 17, any_scene, "train"), 64)
        with torch.no_grad():
            latents = torch.cat([encode_moments(vae, part.to(DEVICE))[0] for part in clips.split(16)])
        mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
        assets.write_vae(vae, mean.tolist(), std.tolist(), model)
        middle, scale = (values.view(1, -1, 1, 1, 1) for values in (mean, std))
        quick = lay_out(copy.deepcopy(vae))

        def encode(video: Tensor) -> Tensor:
            # float16 is 0.001 of a deviation off, bfloat16 eight times that.
            with halves(torch.float16):
                return (encode_moments(quick, channels_last(video))[0] - middle) / scale

        sets = encode_all(clock, folder, encode)
    finally:
        stop.set()
    tokenizer = AutoTokenizer.from_pretrained(str(start / OFFICIAL_TOKENIZER))
    check = Between(vae, (middle, scale), encode, tokenizer)
    train_flow(clock, sets, encode, check, start, lambda net: assets.write_networks(net, model))


def main() -> int:
    """Exit code: 0, or 2 without a GPU."""
    flags = argparse.ArgumentParser(prog="python -m tiny.gpu", description=str(__doc__).splitlines()[0])
    flags.add_argument("--out", type=Path, default=Path("runs/gpu"), help="receives model/ and log.csv")
    flags.add_argument("--seconds", type=float, default=570.0, help="all that it may take")
    flags.add_argument("--start", type=Path, default=SHIPPED, help="folder of wan-tiny that is trained on")
    flags.add_argument("--footage", type=Path, nargs="*", default=[], help="clips and photos for the VAE")
    given = flags.parse_args()
    if DEVICE == "cpu":
        print("tiny.gpu: no CUDA device is here; expected one (tiny.train works without)", file=sys.stderr)
        return 2
    train(given.out, given.seconds, given.start, given.footage)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
