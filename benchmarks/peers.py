"""The race: wanedit, diffusers and diffsynth on equal random weights and equal inputs, each eager and compiled.

    python -m benchmarks.peers --out peers.jsonl --only small          # minutes: what tests and a loaded machine allow
    python -m benchmarks.peers --out peers.jsonl                       # all rows; on a quiet machine
    python -m benchmarks.peers --out peers.jsonl --only "vae decode 256."  # one, by its name and a full stop
    python -m benchmarks.peers --list                                  # the names
    python -m benchmarks.peers --out peers.jsonl --table               # the tables of what is there

Each row is a line of JSON, written when it is measured; rows that the file has are not measured again, so a race that
is cut short goes on by the same command. All contenders of a row run in turn, each round beginning with another one;
the ratio is taken round by round, the faster peer's seconds over wanedit's, so that what slows the machine down for a
while slows down all. Outputs are compared to wanedit's first: a race of different functions is none.

A guided step is what each library's own pipeline does at each step: wanedit asks for both prompts in one batch or
apart, its context prepared once a sample; diffusers and diffsynth run two whole forwards. Weights are float32 on a CPU,
else bfloat16, in each library's own way.
"""

import argparse
import contextlib
import functools
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.step_time import STEP, inputs
from wanedit.files import Json
from wanedit.flow.path import classifier_free, schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.lit import velocity as guided
from wanedit.wan import blocks
from wanedit.wan.condition import OFFICIAL_TEXT, TextEncoder, build_text_encoder
from wanedit.wan.config import WanConfig
from wanedit.wan.formats.numbers import trim
from wanedit.wan.load import default_dtype, transformer_dtype
from wanedit.wan.transformer import WanTransformer
from wanedit.wan.vae import OFFICIAL, WanVAE, build_vae

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SCALE, STEPS = 5.0, 20
# Width -> heads, feed-forward, blocks: wan-tiny's, four blocks of the 1.3B, one of the 14B.
SIZES = {192: (6, 768, 8), 1536: (12, 8960, 4), 5120: (40, 13824, 1)}
# Tokens -> latent grid.
GRIDS = {48: (3, 8, 8), 320: (5, 16, 16), 1920: (8, 30, 32), 8000: (20, 40, 40)}
SIDES, FRAMES = (64, 256, 480), 9
# Tokens of a prompt, of the 512 that Wan pads it to: a sentence, the official negative prompt, as many as are read.
PROMPTS, TEXT_LEN = (40, 126, 512), 512
SMALL = (
    "transformer 192 48",
    "transformer 192 320",
    "vae encode 64",
    "vae decode 64",
    "sample 192 320",
    "without",
)
# Runs once, and gives what it computed.
Contender = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the race: what its contenders are is made when it is run, and gone afterwards.

    Attributes:
        name: of the row; one that begins with a word of `--only` is run.
        contenders: label -> what it runs; "wanedit" is the first, "wanedit without …" are no peers.
    """

    name: str
    make: Callable[[], dict[str, Contender]]


def random_weights(module: nn.Module, dtype_of: Callable[[str], torch.dtype]) -> nn.Module:
    """Weights of a size that keeps activations near one, on the device; norms near one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else parameter.numel()
        values = torch.randn(parameter.shape, generator=generator)
        plain = (parameter.ndim < 2 and name.endswith("weight")) or "gamma" in name
        parameter.data = ((1 + 0.1 * values) if plain else values * fan**-0.5).to(DEVICE, dtype_of(name))
    return module.to(DEVICE).eval().requires_grad_(False)


def config_of(width: int) -> WanConfig:
    """An image-to-video model, since of a first-last-frame one diffsynth reads the image tokens otherwise."""
    heads, ffn, layers = SIZES[width]
    return WanConfig("i2v", dim=width, ffn_dim=ffn, num_heads=heads, num_layers=layers, in_dim=36, out_dim=16)


class Ours:
    """wanedit's transformer and its guided steps."""

    def __init__(self, width: int, dtype: torch.dtype | None = None) -> None:
        self.config = config_of(width)
        dtype = dtype or default_dtype(DEVICE)
        self.model: Any = random_weights(WanTransformer(self.config), transformer_dtype(dtype))

    def velocity(self, given: Json, grid: tuple[int, int, int], scale: float) -> guided.GuidedVelocity:
        """Prepared for one sample."""
        return guided.GuidedVelocity(self.model, grid, **given, guidance_scale=scale)


def diffusers_forward(ours: Ours) -> tuple[nn.Module, Callable[..., Tensor]]:
    """diffusers' transformer with the same weights, and a pass of it."""
    from tests.wan.converted import diffusers_names, diffusers_transformer

    theirs: Any = diffusers_transformer(ours.config)
    theirs.load_state_dict(diffusers_names(ours.model.state_dict()))
    kept = tuple(theirs._keep_in_fp32_modules)
    for name, parameter in theirs.named_parameters():
        in_float32 = any(word in name for word in kept)
        parameter.data = parameter.to(DEVICE, torch.float32 if in_float32 else default_dtype(DEVICE))
    theirs = theirs.to(DEVICE).eval().requires_grad_(False)

    def forward(x: Tensor, timestep: Tensor, text: Tensor, given: Json) -> Tensor:
        both = torch.cat([x, given["condition"]], dim=1)
        return theirs(both, timestep, text, given["image_tokens"], return_dict=False)[0]

    return theirs, forward


def diffsynth_forward(ours: Ours) -> tuple[nn.Module, Callable[..., Tensor]]:
    """diffsynth's transformer with the same weights, and a pass of it by its own pipeline's function."""
    from diffsynth.models.wan_video_dit import WanModel
    from diffsynth.pipelines.wan_video import model_fn_wan_video

    own = ours.config
    names = ("dim", "in_dim", "ffn_dim", "out_dim", "text_dim", "freq_dim", "eps", "num_heads", "num_layers")
    sizes = {name: getattr(own, name) for name in names}
    theirs = WanModel(**sizes, patch_size=(1, 2, 2), has_image_input=True)
    theirs.load_state_dict(ours.model.state_dict())
    theirs = theirs.to(DEVICE, default_dtype(DEVICE)).eval().requires_grad_(False)

    def forward(x: Tensor, timestep: Tensor, text: Tensor, given: Json) -> Tensor:
        return model_fn_wan_video(
            theirs,
            latents=x,
            timestep=timestep,
            context=text,
            clip_feature=given["image_tokens"],
            y=given["condition"],
        )

    return theirs, forward


PEERS = {"diffusers": diffusers_forward, "diffsynth": diffsynth_forward}


def peer_step(forward: Callable[..., Tensor], given: Json, scale: float, x: Tensor, step: Any) -> Tensor:
    """A step as the peers' pipelines make it: a whole pass for each prompt."""
    timestep = torch.full((1,), step.timestep, device=x.device)
    conditional = forward(x, timestep, given["text"], given)
    if scale == 1.0:
        return conditional
    return classifier_free(conditional, forward(x, timestep, given["negative_text"], given), scale)


def transformer_row(width: int, tokens: int, scale: float, compiled: bool, steps: int = 1) -> Row:
    """One velocity, or with several steps a whole sample by Euler, what is prepared for it included."""
    kind = "sample" if steps > 1 else "transformer"
    what = "" if steps > 1 else " pass" if scale == 1.0 else " guided"

    def make() -> dict[str, Contender]:
        ours, grid, levels = Ours(width), GRIDS[tokens], schedule(steps, 3.0, "euler")
        given = dict(inputs(ours.config, grid, DEVICE))
        cast = {name: t.to(default_dtype(DEVICE)) for name, t in given.items() if isinstance(t, Tensor)}
        x = torch.randn(1, 16, *grid, device=DEVICE)
        if compiled:
            ours.model.compile_blocks()
        prepared = ours.velocity(given, grid, scale) if steps == 1 else None

        def own() -> Tensor:
            if prepared is not None:
                return prepared(x, STEP)
            return SOLVERS["euler"](ours.velocity(given, grid, scale), x, levels)

        made: dict[str, Contender] = {"wanedit": own}
        for name, build in PEERS.items():
            model, forward = build(ours)
            if compiled:
                for block in model.blocks:  # pyright: ignore[reportGeneralTypeIssues]
                    block.compile(dynamic=True)
            velocity = functools.partial(peer_step, forward, cast, scale)
            if steps == 1:
                made[name] = lambda velocity=velocity: velocity(x, STEP).float()
            else:
                made[name] = lambda velocity=velocity: SOLVERS["euler"](
                    lambda x, step: velocity(x.to(default_dtype(DEVICE)), step).float(), x, levels
                )
        return made

    return Row(f"{kind} {width} {tokens}{what}{' compiled' * compiled}", make)


def vae_row(side: int, encodes: bool, compiled: bool) -> Row:
    """The official VAE's size, a clip of 9 frames."""

    def make() -> dict[str, Contender]:
        from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        config = OFFICIAL[16]
        model: Any = random_weights(build_vae(config), lambda name: torch.float32)
        ours = WanVAE(model, config).to(DEVICE)
        theirs: Any = AutoencoderKLWan()
        theirs.load_state_dict(convert_wan_vae_to_diffusers(dict(model.state_dict())))
        theirs = theirs.to(DEVICE).eval().requires_grad_(False)
        video = torch.randn(1, 3, FRAMES, side, side, device=DEVICE).tanh()
        latents = torch.randn(1, 16, (FRAMES - 1) // 4 + 1, side // 8, side // 8, device=DEVICE)
        mean, std = (one.view(1, -1, 1, 1, 1) for one in (ours.mean, ours.std))
        scale = [ours.mean, 1.0 / ours.std]
        if compiled:
            ours.compile_decoding()
            theirs.decoder.compile(dynamic=True)
        if encodes:
            return {
                "wanedit": lambda: ours.encode(video),
                "diffusers": lambda: (theirs.encode(video, return_dict=False)[0].mode() - mean) / std,
                "diffsynth": lambda: model.encode(video, scale),
            }
        return {
            "wanedit": lambda: ours.decode(latents),
            "diffusers": lambda: theirs.decode(latents * std + mean, return_dict=False)[0].clamp(-1, 1),
            "diffsynth": lambda: model.decode(latents, scale).clamp(-1, 1),
        }

    return Row(f"vae {'encode' if encodes else 'decode'} {side}{' compiled' * compiled}", make)


def text_row(tokens: int, compiled: bool) -> Row:
    """One prompt through two of the 24 blocks of UMT5-XXL, of its width, with a small vocabulary."""

    def make() -> dict[str, Contender]:
        from diffsynth.models.wan_video_text_encoder import WanTextEncoder
        from transformers import UMT5Config, UMT5EncoderModel

        from tests.wan.converted import transformers_t5

        said: Json = OFFICIAL_TEXT | {"vocab": 1024, "num_layers": 2}
        model: Any = random_weights(build_text_encoder(said), lambda name: default_dtype(DEVICE))
        with torch.device("meta"):
            of_diffsynth = WanTextEncoder(**said)
        of_diffsynth.load_state_dict(model.state_dict(), assign=True)
        of_diffsynth.eval()
        config = UMT5Config(
            vocab_size=said["vocab"], d_model=said["dim"], d_kv=said["dim_attn"] // said["num_heads"],
            d_ff=said["dim_ffn"], num_layers=said["num_layers"], num_heads=said["num_heads"],
            relative_attention_num_buckets=said["num_buckets"],
        )  # fmt: skip
        with torch.device("meta"):
            of_diffusers: Any = UMT5EncoderModel(config)
        weights = transformers_t5(model.state_dict())
        table = {"encoder.embed_tokens.weight": weights["shared.weight"]}
        of_diffusers.load_state_dict(weights | table, assign=True)
        of_diffusers.eval().requires_grad_(False)
        ids = torch.zeros(1, TEXT_LEN, dtype=torch.long, device=DEVICE)
        ids[:, :tokens] = torch.arange(2, 2 + tokens, device=DEVICE)
        mask = (ids > 0).long()
        ours = TextEncoder(model, lambda prompts, **_: (ids, mask))
        if compiled:
            for one in (model, of_diffusers, of_diffsynth):
                one.compile(dynamic=True)
        # As their pipelines do: over all 512, and what fills the prompt up is zero afterwards.
        return {
            "wanedit": lambda: ours([""]),
            "diffusers": lambda: of_diffusers(ids, mask).last_hidden_state * mask[..., None],
            "diffsynth": lambda: of_diffsynth(ids, mask) * mask[..., None],
        }

    return Row(f"text {tokens}{' compiled' * compiled}", make)


def complex_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on complex numbers in float64, as the official code and diffsynth have it."""
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    turned = pairs * torch.complex(cos.double(), sin.double())[:, None]
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def ablation_row(width: int, tokens: int) -> Row:
    """A guided step with each of what makes it fast switched off in turn."""

    def make() -> dict[str, Contender]:
        ours, grid = Ours(width), GRIDS[tokens]
        given: Json = dict(inputs(ours.config, grid, DEVICE))
        x = torch.randn(1, 16, *grid, device=DEVICE)
        prepared = ours.velocity(given, grid, SCALE)
        with mock.patch.object(guided, "BATCHED_UP_TO", 0):
            apart = ours.velocity(given, grid, SCALE)
        model: WanTransformer = ours.model

        def without_rope() -> Tensor:
            with mock.patch.object(blocks, "rotate", complex_rotate):
                return prepared(x, STEP)

        def without_share() -> Tensor:
            # What the condition adds to the patches is a convolution of its own at every step.
            [context] = prepared.contexts.values()
            model.embed_condition(given["condition"])
            return prepared(x, STEP) if context.condition is not None else x

        return {
            "wanedit": lambda: prepared(x, STEP),
            "wanedit without the context computed once": lambda: ours.velocity(given, grid, SCALE)(x, STEP),
            "wanedit without the condition's share computed once": without_share,
            "wanedit without both prompts in one batch": lambda: apart(x, STEP),
            "wanedit without RoPE in float32": without_rope,
        }

    return Row(f"without {width} {tokens}", make)


def casts_row(width: int, tokens: int) -> Row:
    """A guided step in bfloat16, where queries and keys are rounded once, after their rotation; and rounded before it,
    too, and turned in float32 from there. In float32 there is nothing to cast."""

    def make() -> dict[str, Contender]:
        ours, grid = Ours(width, torch.bfloat16), GRIDS[tokens]
        given: Json = dict(inputs(ours.config, grid, DEVICE))
        x = torch.randn(1, 16, *grid, device=DEVICE)
        prepared, late = ours.velocity(given, grid, SCALE), blocks.rotate

        def early(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
            return late(x.to(torch.bfloat16).float(), cos, sin).to(torch.bfloat16)

        def without() -> Tensor:
            with mock.patch.object(blocks, "rotate", early):
                return prepared(x, STEP)

        return {"wanedit": lambda: prepared(x, STEP), "wanedit without late casts": without}

    return Row(f"without casts {width} {tokens}", make)


def rows() -> Iterator[Row]:
    """All of them, the quick ones first."""
    for compiled in (False, True):
        for width in SIZES:
            for tokens in GRIDS:
                for scale in (1.0, SCALE):
                    yield transformer_row(width, tokens, scale, compiled)
        for side in SIDES:
            yield vae_row(side, True, compiled) if not compiled else vae_row(side, False, True)
        for side in SIDES if not compiled else ():
            yield vae_row(side, False, False)
        for tokens in PROMPTS:
            yield text_row(tokens, compiled)
        for tokens in (48, 320):
            yield transformer_row(192, tokens, SCALE, compiled, STEPS)
    for width, tokens in ((192, 48), (192, 320), (1536, 1920)):
        yield ablation_row(width, tokens)
        yield casts_row(width, tokens)


def memory_rows() -> Iterator[Row]:
    """Of which the peak is measured: a stage each."""
    yield transformer_row(1536, 1920, SCALE, False)
    yield vae_row(256, True, False)
    yield vae_row(256, False, False)


def profile_rows() -> Iterator[Row]:
    """Of which it is told where their time goes: a row that meets its bar, and those where little can be saved."""
    for width, tokens in ((192, 48), (192, 1920), (1536, 1920), (192, 8000)):
        yield transformer_row(width, tokens, SCALE, False)


@torch.no_grad()
def peaks(row: Row) -> Json:
    """Bytes that each contender takes at most beside the weights of all: on a card as its allocator counts them, else
    as the process grows, the second time that it runs."""
    contenders, found, failed = row.make(), {}, {}
    for name, run in contenders.items():
        try:
            run()
            gc.collect()
            trim()
            found[name] = _most_while(run)
        except Exception as error:  # as in a race
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    return {"bytes": found, "failed": failed}


def _most_while(run: Contender) -> int:
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    status = Path("/proc/self/status")
    # Linux's way to forget the highest so far.
    Path("/proc/self/clear_refs").write_text("5")
    before = _kilobytes(status, "VmRSS")
    run()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


@torch.no_grad()
def race(row: Row, rounds: int) -> Json:
    """Seconds of every contender, round by round, after one run each that warms up and is compared."""
    contenders = row.make()
    expected, differences, failed = contenders["wanedit"](), {}, {}
    for name in [name for name in contenders if name != "wanedit"]:
        try:
            found = contenders[name]()
        except Exception as error:  # a peer that cannot run is told, and the others race
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
            del contenders[name]
            continue
        differences[name] = float((found.float() - expected.float()).norm() / expected.float().norm())
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            contenders[name]()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {"seconds": seconds, "differences": differences, "failed": failed}


# What an operation of torch counts as in a profile, by the beginning of its name; all else is "rest".
SHARES = {
    "products": ("addmm", "mm", "bmm", "baddbmm", "linear", "mkldnn_linear"),
    "attention": ("_scaled_dot_product", "_flash_attention", "_efficient_attention"),
    "convolutions": ("mkldnn_convolution", "thnn_conv", "slow_conv", "cudnn_convolution", "convolution"),
}


@torch.no_grad()
def profiled(row: Row) -> Json:
    """Seconds that each contender spends in products, attention, convolutions and the rest, the second time it runs."""
    spent = {}
    for name, run in row.make().items():
        run()
        with torch.profiler.profile() as profile:
            run()
        kinds = dict.fromkeys((*SHARES, "rest"), 0.0)
        # What a device does is counted in the operation that asked for it, not once more by the name of its kernel.
        for event in (event for event in profile.key_averages() if event.device_type.name == "CPU"):
            plain = event.key.removeprefix("aten::")
            kind = next((kind for kind, names in SHARES.items() if plain.startswith(names)), "rest")
            kinds[kind] += 1e-6 * (
                event.self_device_time_total if DEVICE.type == "cuda" else event.self_cpu_time_total
            )
        spent[name] = kinds
    return {"spent": spent}


def started(words: list[str], repeats: int) -> list[float]:
    """Seconds that a process takes from its start to its end, with an empty folder as FOLDER each time."""
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            here = [folder if word == "FOLDER" else word for word in words]
            subprocess.run([sys.executable, *here], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return times


def whole_processes(rounds: int) -> Iterator[tuple[str, Callable[[], Json]]]:
    """Start-up, scaling over ranks, and the peak memory of each: processes of their own."""
    imports = {"wanedit": "wanedit", "diffusers": "diffusers", "diffsynth": "diffsynth.pipelines.wan_video"}
    yield (
        "start import",
        lambda: {
            "seconds": {name: started(["-c", f"import {what}"], rounds) for name, what in imports.items()}
        },
    )
    yield "start help", lambda: {"seconds": {"wanedit": started(["-m", "wanedit", "--help"], rounds)}}
    demo = Path(__file__).parent.parent / "examples" / "multi_keyframe_demo"
    names = ("start", "rise", "turn", "start", "rise", "turn", "start")
    film = ",".join(f"{demo / name}.png:{k}" for k, name in enumerate(names))

    def generate(*more: str) -> list[str]:
        fixed = ["--prompt", "a star", "--size", "128*128", "--fps", "16", "--quiet", "--cpu_threads", "1"]
        return ["-m", "wanedit", "generate", "--keyframes", film, *fixed, "--output", "FOLDER", *more]

    yield (
        "start first step",
        lambda: {"seconds": {"wanedit": started(generate("--num_inference_steps", "1"), min(rounds, 3))}},
    )
    for ranks in (1, 2):
        words = ("--num_inference_steps", "60", "--num_gpus", str(ranks))
        yield (
            f"ranks {ranks}",
            lambda words=words: {"seconds": {"wanedit": started(generate(*words), min(rounds, 3))}},
        )


def measured(options: argparse.Namespace) -> None:
    """Run what the file lacks."""
    there = {line["row"] for line in lines_of(options.out)}
    wanted = SMALL if options.only == "small" else (options.only,) if options.only else ("",)
    machine = f"{DEVICE}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    jobs: list[tuple[str, Callable[[], Json]]] = [
        (row.name, functools.partial(race, row, options.rounds)) for row in rows()
    ]
    jobs += [(f"memory {row.name}", functools.partial(peaks, row)) for row in memory_rows()]
    jobs += [(f"profile {row.name}", functools.partial(profiled, row)) for row in profile_rows()]
    for name, job in [*jobs, *whole_processes(options.rounds)]:
        chosen = f"{name}.".startswith(wanted) and not (options.only == "small" and name.endswith("compiled"))
        if options.list:
            print(name)
            continue
        if name in there or not chosen or (options.no_compile and name.endswith("compiled")):
            continue
        line = {"row": name, "machine": machine, **job()}
        # A line that was cut short stays one of its own.
        cut = bool(before := options.out.read_text() if options.out.exists() else "") and before[-1] != "\n"
        with options.out.open("a") as file:
            file.write("\n" * cut + json.dumps(line) + "\n")
        print(told(line), flush=True)
        gc.collect()


def lines_of(path: Path) -> list[Json]:
    """The lines of a file that were written whole."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def told(line: Json) -> str:
    """A row of the table: medians and least of each; by how much wanedit is ahead of the faster peer, and that round by
    round; how far outputs are apart."""
    failed = "; ".join(f"{name}: {why}" for name, why in line.get("failed", {}).items())
    if "spent" in line:
        cells = [
            f"{name} " + ", ".join(f"{1e3 * seconds:.0f} {kind}" for kind, seconds in kinds.items())
            for name, kinds in line["spent"].items()
        ]
        return f"| {line['row']} | {'; '.join(cells)} | | |"
    if "bytes" in line:
        cells = [f"{name} {1e-6 * size:.0f} MB" for name, size in line["bytes"].items()]
        return f"| {line['row']} | {'; '.join(cells)} | | {failed} |"
    seconds = line["seconds"]
    cells = [
        f"{name} {1e3 * statistics.median(times):.1f} ({1e3 * min(times):.1f})"
        for name, times in seconds.items()
    ]
    peers = [name for name in seconds if not name.startswith("wanedit")]
    ratio = ""
    if peers:
        faster = min(peers, key=lambda name: statistics.median(seconds[name]))
        by_round = sorted(p / o for p, o in zip(seconds[faster], seconds["wanedit"], strict=True))
        low, high = by_round[len(by_round) // 4], by_round[-1 - len(by_round) // 4]
        ratio = f"{statistics.median(by_round):.2f} ({low:.2f} … {high:.2f}) of {faster}"
    apart = ", ".join(f"{name} {value:.1e}" for name, value in line.get("differences", {}).items())
    return f"| {line['row']} | {'; '.join(cells)} | {ratio} | {apart}{' ' + failed if failed else ''} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"), help="receives a line of JSON a row")
    parser.add_argument(
        "--only",
        default="",
        help='rows whose name begins so, such as "vae"; one, as "vae encode 64."; or small',
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names of all rows, and measure nothing"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no_compile", action="store_true", help="leave out compiled rows")
    parser.add_argument("--table", action="store_true", help="print what the file has, and measure nothing")
    options = parser.parse_args()
    if options.list:
        measured(options)
        return 0
    print(
        "| row | median (least) ms | ahead of the faster peer (quartiles) | relative difference of outputs |"
    )
    print("|---|---|---|---|")
    if options.table:
        for line in lines_of(options.out):
            print(told(line))
        return 0
    measured(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
