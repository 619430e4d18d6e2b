"""What a GPU alone can show: bfloat16 against the golden velocities, forwards of published sizes, the official VAE.

    python -m benchmarks.gpu --seconds 400 --out gpu.jsonl
    python -m benchmarks.gpu --small                    # the same path on small sizes, anywhere

Weights are random: times and memory are those of real ones. Each figure is a line of JSON, written as it is measured:
a run that is cut short leaves what it found.
"""

import argparse
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.step_time import inputs, random_transformer
from tests.wan import golden
from wanedit.files import Json
from wanedit.runtime.cost import forward_flops
from wanedit.wan.load import default_dtype, transformer_dtype
from wanedit.wan.vae import OFFICIAL, WanVAE, build_vae, latent_space

# Dense bfloat16 products in TFLOP/s, by NVIDIA's data sheets.
PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "4090": 165.0}
FRAMES, SIZES = 81, {"480p": (480, 832), "720p": (720, 1280)}
SMALL = 5, {"64x64": (64, 64)}
MODELS = "Wan2.1-T2V-1.3B", "Wan2.1-FLF2V-14B-720P"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measured(run: Callable[[], object], repeats: int = 1) -> Json:
    """Seconds of a call, the device's work included: the median of `repeats` after one; and GiB allocated at most."""
    times = []
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    most = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else 0.0
    return {"seconds": statistics.median(times[1:]), "GiB": most}


def precision() -> Iterator[Json]:
    """Velocities against those of the official code on small random weights, relative."""
    for path in golden.files("dit_"):
        file = golden.read(path)
        names = ("latents", "timestep", "text", "image_tokens", "condition")
        given = [None if (x := file.input(name)) is None else x.to(DEVICE) for name in names]
        with tempfile.TemporaryDirectory() as folder:
            model = golden.transformer(path, Path(folder)).to(DEVICE)
        for dtype in (torch.float32, torch.bfloat16):
            dtype_of = transformer_dtype(dtype)
            for name, parameter in model.named_parameters():
                parameter.data = parameter.data.to(dtype_of(name))
            error = golden.relative_error(model(*given).cpu(), file.output("velocity"))
            yield {"what": "velocity", "of": path.stem, "dtype": str(dtype), "error": error}


def forwards(name: str, small: bool) -> Iterator[Json]:
    """One velocity of a model of these sizes for one clip, at each size of frame."""
    model = random_transformer(name, DEVICE, default_dtype(DEVICE))
    frames, sizes = SMALL if small else (FRAMES, SIZES)
    space = latent_space(OFFICIAL[model.config.out_dim])
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else ""
    peak = next((value for name, value in PEAK.items() if name in card), None)
    for label, size in sizes.items():
        grid = space.grid(frames, size)
        given = inputs(model.config, grid, DEVICE)
        context = model.prepare(grid, given["text"], given["image_tokens"], given["condition"])
        x, at = torch.randn(1, space.channels, *grid, device=DEVICE), torch.tensor([500.0], device=DEVICE)
        tokens = grid[0] * grid[1] * grid[2] // 4
        found = measured(lambda: model.velocity(x, at, context))  # noqa: B023
        rate = forward_flops(model.config, tokens) / found["seconds"] / 1e12
        share = None if peak is None else rate / peak
        yield {
            "what": "forward",
            "of": name,
            "size": label,
            "tokens": tokens,
            **found,
            "TFLOP/s": rate,
            "share": share,
        }
    del model
    gc.collect()
    torch.cuda.empty_cache()


def codes(small: bool) -> Iterator[Json]:
    """Encoding and decoding of one clip by a VAE of the official sizes."""
    frames, sizes = SMALL if small else (FRAMES, SIZES)
    label, size = next(iter(sizes.items()))
    with DEVICE:
        vae = WanVAE(build_vae(OFFICIAL[16]), OFFICIAL[16]).to(DEVICE, default_dtype(DEVICE)).eval()
    video = torch.zeros(1, 3, frames, *size, device=DEVICE, dtype=default_dtype(DEVICE))
    latents = vae.encode(video)
    yield {"what": "VAE encode", "size": label, **measured(lambda: vae.encode(video))}
    yield {"what": "VAE decode", "size": label, **measured(lambda: vae.decode(latents))}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=400.0, help="no new figure is begun after these")
    parser.add_argument("--out", type=Path, help="receives the lines, too")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    models = ("tiny",) if options.small else MODELS
    parts = [precision(), *(forwards(name, options.small) for name in models), codes(options.small)]
    for found in itertools.chain.from_iterable(parts):
        line = json.dumps({key: round(v, 7) if isinstance(v, float) else v for key, v in found.items()})
        print(line, flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(line + "\n")
        if time.monotonic() - began > options.seconds:
            print("time is up")
            break


if __name__ == "__main__":
    main()
