"""Seconds per guided step: both passes in one batch or apart, eager or compiled.

    python benchmarks/step_time.py                                      # wan-tiny, as it ships
    python benchmarks/step_time.py --model FOLDER --size 832*480 --frames 81 --compile
    python benchmarks/step_time.py --model Wan2.1-Fun-1.3B-InP --random --size 832*480 --frames 81   # needs a GPU

`--random` takes the sizes of a known model and random weights: the time is the same and nothing is downloaded.
"""

import argparse
import statistics
import time
from typing import TypedDict

import torch
from torch import Tensor, nn

from wanedit.errors import WaneditError
from wanedit.flow.path import Step
from wanedit.lit import velocity as guided
from wanedit.wan.blocks import Block
from wanedit.wan.catalog import find_known
from wanedit.wan.config import IMAGE_TOKENS, WanConfig
from wanedit.wan.load import default_dtype, load_transformer, transformer_dtype
from wanedit.wan.transformer import WanTransformer
from wanedit.wan.vae import OFFICIAL, latent_space

STEP = Step(0, 0.5, 0.4, 500.0)


def random_transformer(name: str, device: torch.device, dtype: torch.dtype) -> WanTransformer:
    """A known model's sizes with random weights, each made on the device in its own dtype."""
    known = find_known(name)
    if known is None:
        raise SystemExit(f"{name!r} is not a known model; `wanedit models` lists them")
    with torch.device("meta"):
        model = WanTransformer(known.config)
    dtype_of = transformer_dtype(dtype)
    for path, parameter in list(model.named_parameters()):
        owner, _, leaf = path.rpartition(".")
        values = 0.02 * torch.randn(parameter.shape, dtype=dtype_of(path), device=device)
        setattr(model.get_submodule(owner), leaf, nn.Parameter(values, requires_grad=False))
    return model.eval()


class Inputs(TypedDict):
    """Context of one sample under guidance, in the names of `GuidedVelocity`."""

    text: Tensor
    negative_text: Tensor
    image_tokens: Tensor | None
    condition: Tensor | None


def inputs(config: WanConfig, grid: tuple[int, int, int], device: torch.device) -> Inputs:
    """Random ones."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device)

    tokens = config.num_images * IMAGE_TOKENS
    return {
        "text": draw(1, config.text_len, config.text_dim),
        "negative_text": draw(1, config.text_len, config.text_dim),
        "image_tokens": draw(1, tokens, config.image_dim) if tokens else None,
        "condition": draw(1, config.condition_channels, *grid) if config.condition_channels else None,
    }


def seconds_per_step(velocity: guided.GuidedVelocity, x: Tensor, steps: int) -> float:
    """The median of `steps` steps after two that warm up (and compile)."""
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        float(velocity(x, STEP).sum())  # reads the result, so the device has finished
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", default="tiny", help="folder or known name")
    parser.add_argument("--random", action="store_true", help="random weights at the known model's sizes")
    parser.add_argument("--size", default="128*128", help="width*height in pixels")
    parser.add_argument("--frames", type=int, default=33, help="4n+1")
    parser.add_argument("--steps", type=int, default=5, help="steps that are timed")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--compile", action="store_true", help="add rows under torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    dtype = default_dtype(device)
    width, height = (int(side) for side in options.size.split("*"))
    if options.random:
        model = random_transformer(options.model, device, dtype)
    else:
        model = load_transformer(options.model, device, dtype)
    space = latent_space(OFFICIAL[model.config.out_dim])
    grid = space.grid(options.frames, (height, width))
    context = inputs(model.config, grid, device)
    x = torch.randn(1, space.channels, *grid, device=device)

    where = f"{device}, {torch.get_num_threads()} threads"
    print(f"{options.model}, {options.size}, {options.frames} frames, {dtype}, {where}")
    print("| graph | guidance passes | seconds per step |\n|---|---|---|")
    for graph in ("eager", "compiled") if options.compile else ("eager",):
        if graph == "compiled":
            for block in (module for module in model.modules() if isinstance(module, Block)):
                block.compile()  # one graph serves all blocks
        for passes, limit in (("one batch", 1 << 62), ("two passes", 0)):
            guided.BATCHED_UP_TO = limit
            velocity = guided.GuidedVelocity(model, grid, **context, guidance_scale=options.guidance)
            with torch.no_grad():
                print(
                    f"| {graph} | {passes} | {seconds_per_step(velocity, x, options.steps):.4f} |", flush=True
                )
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except WaneditError as error:
        raise SystemExit(str(error)) from None
