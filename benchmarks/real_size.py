"""Memory and seconds, part by part, of a model of published size on this machine's CPU. The bar is 24 GB.

    python -m benchmarks.real_size FOLDER

Writes Wan2.1-Fun-1.3B-InP with random weights in bfloat16 to FOLDER, 17 GB, unless it is there: published names, shapes
and files, so that all the same is read, converted and computed as with the real one. Then `wanedit generate` and
`wanedit edit` run through it at 128*128, 9 frames and 2 steps, each in a process of its own. What they show is noise.

Peak: the kernel's own (VmHWM) while a part is at work, and with it what stayed from before. It counts pages of mapped
files, which the system takes back at need; own: memory of the process alone, sampled every few milliseconds.
"""

import argparse
import functools
import json
import mmap
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.load_memory import GB, Peaks, memory

BAR = 24.0
MODEL = "Wan2.1-Fun-1.3B-InP"
BOARD = Path(__file__).parent.parent / "examples" / "multi_keyframe_demo"
COMMON = ["--size", "128*128", "--base_seed", "1", "--quiet"]


def write_model(folder: Path) -> None:
    """Every file of the published folder but its readme; the tokenizer is wan-tiny's."""
    import torch
    from safetensors.torch import save_file

    from wanedit.wan.catalog import TINY, find_known, locate
    from wanedit.wan.condition import OFFICIAL_IMAGE, OFFICIAL_TEXT, build_image_encoder, build_text_encoder
    from wanedit.wan.config import IMAGE, TEXT, TRANSFORMER, VAE
    from wanedit.wan.formats.layouts import OFFICIAL_TOKENIZER, STEMS
    from wanedit.wan.layout import clip_text_shapes
    from wanedit.wan.transformer import WanTransformer
    from wanedit.wan.vae import OFFICIAL, build_vae

    known = find_known(MODEL)
    assert known is not None
    with torch.device("meta"):
        shapes = {
            TRANSFORMER: WanTransformer(known.config).state_dict(),
            TEXT: build_text_encoder(OFFICIAL_TEXT).state_dict(),
            VAE: build_vae(OFFICIAL[16]).state_dict(),
            IMAGE: {
                f"visual.{name}": t for name, t in build_image_encoder(OFFICIAL_IMAGE).state_dict().items()
            }
            | {name: torch.empty(shape) for name, shape in clip_text_shapes().items()}
            | {"log_scale": torch.empty(())},
        }
    noise = torch.randn(1 << 22, generator=torch.Generator().manual_seed(0)).bfloat16()

    def fill(tensor: torch.Tensor, name: str) -> None:
        flat = tensor.view(-1)
        if tensor.dim() < 2 or "gamma" in name:  # a norm's gain is one, a bias nothing
            flat.fill_(0.0 if name.endswith("bias") else 1.0)
            return
        scaled = noise * tensor[0].numel() ** -0.5
        for at in range(0, len(flat), len(scaled)):
            flat[at : at + len(scaled)] = scaled[: len(flat) - at]

    folder.mkdir(parents=True)
    # A file of PyTorch is laid out at its size first and filled through its mapping: no part of it is ever in memory.
    torch.serialization.set_default_mmap_options(mmap.MAP_SHARED)
    for part, names in shapes.items():
        path = folder / (STEMS[part] + (".safetensors" if part == TRANSFORMER else ".pth"))
        tensors = {name: torch.empty(t.shape, dtype=torch.bfloat16) for name, t in names.items()}
        if part != TRANSFORMER:
            with torch.serialization.skip_data():
                torch.save(tensors, path)
            tensors = torch.load(path, mmap=True)
        for name, tensor in tensors.items():
            fill(tensor, name)
        if part == TRANSFORMER:
            save_file(tensors, path)
        print(f"{path.name}: {path.stat().st_size / GB:.2f} GB", flush=True)
    names = (
        "model_type",
        "dim",
        "ffn_dim",
        "num_heads",
        "num_layers",
        "in_dim",
        "out_dim",
        "freq_dim",
        "eps",
    )
    sizes = {name: getattr(known.config, name) for name in (*names, "text_len")}
    (folder / "config.json").write_text(json.dumps(sizes))
    shutil.copytree(locate(TINY.name) / OFFICIAL_TOKENIZER, folder / OFFICIAL_TOKENIZER)


def measured(command: list[str]) -> None:
    """Run one command of wanedit in this process and print a JSON object a part."""
    from wanedit.cli import main
    from wanedit.lit import networks
    from wanedit.wan.transformer import WanTransformer
    from wanedit.wan.vae import WanVAE

    parts: dict[str, dict[str, float]] = {}

    def watch(owner: object, name: str, part: str) -> None:
        inner: Callable = getattr(owner, name)

        @functools.wraps(inner)
        def outer(*args, **values):
            Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM anew
            start = time.perf_counter()
            with Peaks() as peaks:
                result = inner(*args, **values)
            seen = {
                "seconds": time.perf_counter() - start,
                "calls": 1.0,
                "peak": float(memory("VmHWM")[0]),
                "own": float(peaks.own),
            }
            before = parts.setdefault(part, dict.fromkeys(seen, 0.0))
            added = {key: before[key] + seen[key] for key in ("seconds", "calls")}
            parts[part] = added | {key: max(before[key], seen[key]) for key in ("peak", "own")}
            return result

        setattr(owner, name, outer)

    watch(networks, "encode_texts", "prompts: read and use the text encoder")
    watch(networks, "encode_pictures", "pictures: read and use the image encoder")
    watch(networks, "load_vae", "read the VAE")
    watch(networks, "load_transformer", "read the transformer")
    watch(WanVAE, "encode", "encode frames")
    watch(WanTransformer, "velocity", "a pass of the transformer")
    watch(WanVAE, "decode", "decode frames")
    start = time.perf_counter()
    with Peaks() as peaks:
        code = main(command)
    seconds = time.perf_counter() - start
    whole = max(part["peak"] for part in parts.values())
    parts["whole command"] = {"seconds": seconds, "calls": 1, "peak": whole, "own": float(peaks.own)}
    print(json.dumps(parts))
    raise SystemExit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path, help=f"where {MODEL} is written, 17 GB, or already is")
    parser.add_argument("--measure", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measured(options.measure)
    model = options.folder / MODEL
    if not (model / "config.json").is_file():
        write_model(model)
    start, rise = BOARD / "start.png", BOARD / "rise.png"
    code = 0
    with tempfile.TemporaryDirectory() as work:
        film = Path(work, "generated.mkv")
        commands = (
            [
                "generate",
                "--keyframes",
                f"{start}:0.0,{rise}:0.5",
                "--prompt",
                "a star",
                "--sample_steps",
                "2",
            ],
            [
                "edit",
                str(film),
                "--keyframes",
                f"{start}:0",
                "--prompt",
                "a ball",
                "--num_inference_steps",
                "2",
            ],
        )
        outputs = (film, Path(work, "edited.mkv"))
        for command, output in zip(commands, outputs, strict=True):
            words = [*command, *COMMON, "--model", str(model), "--output", str(output)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.real_size", str(options.folder), "--measure", *words],
                stdout=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                return done.returncode
            print(f"\n| wanedit {command[0]} | calls | seconds | peak GB | own GB |\n|---|---|---|---|---|")
            parts = json.loads(done.stdout.splitlines()[-1])
            for part, m in parts.items():
                row = f"{m['calls']:.0f} | {m['seconds']:.1f} | {m['peak'] / GB:.2f} | {m['own'] / GB:.2f}"
                print(f"| {part} | {row} |", flush=True)
            code |= parts["whole command"]["peak"] / GB > BAR
    return code


if __name__ == "__main__":
    raise SystemExit(main())
