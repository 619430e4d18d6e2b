"""Peak host memory of loading a transformer, against the size of what is loaded. The bar is 1.15.

    python benchmarks/load_memory.py             number formats of safetensors, several shards and an index
    python benchmarks/load_memory.py --formats   fp8, GGUF, a file of PyTorch, a LoRA merged

Writes a synthetic checkpoint to a temporary folder. Loads it by `wanedit.wan.load_transformer` in a process of its own,
as it is stored or converted, and reads every weight, since a mapped weight takes no memory before it is used.

ratio = (peak resident memory - resident memory before) / bytes of the loaded module's weights. Before, wan-tiny is
loaded once, so that libraries are imported and count for no part.

Resident memory counts pages of the mapped file, which the system takes back at need, like pages of the process
itself; both peaks are printed apart too ("file" and "own").
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BAR = 1.15
GB = 1e9
FORMATS = (
    ".pth",
    "fp8, scaled",
    "GGUF Q8_0",
    "GGUF Q4_K",
    "bfloat16 with a LoRA",
    "fp8, scaled, with a LoRA",
)
LORA = "lora.safetensors"
CASES = (("bfloat16", "bfloat16"), ("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "float32"))


def write_checkpoint(folder: Path, dim: int, layers: int, dtype_name: str, shards: int) -> int:
    """Random weights in the layout of Wan 2.1 t2v; returns the bytes of all shards."""
    import torch
    from safetensors.torch import save_file

    from wanedit.wan.config import WanConfig
    from wanedit.wan.transformer import WanTransformer

    sizes = {
        "model_type": "t2v",
        "dim": dim,
        "ffn_dim": 4 * dim,
        "num_heads": dim // 128,
        "num_layers": layers,
    }
    (folder / "config.json").write_text(json.dumps(sizes | {"in_dim": 16}))
    with torch.device("meta"):
        shapes = {
            name: p.shape for name, p in WanTransformer(WanConfig(**sizes, in_dim=16)).state_dict().items()
        }
    stem, total, index = "diffusion_pytorch_model", 0, {}
    some = torch.randn(1 << 20).to(getattr(torch, dtype_name))
    for k in range(shards):
        file = f"{stem}-{k + 1:05d}-of-{shards:05d}.safetensors"
        names = list(shapes)[k * len(shapes) // shards : (k + 1) * len(shapes) // shards]
        tensors = {}
        for name in names:
            count = shapes[name].numel()
            tensors[name] = some.repeat(-(-count // len(some)))[:count].reshape(shapes[name]).contiguous()
        save_file(tensors, folder / file)
        index |= dict.fromkeys(names, file)
        total += (folder / file).stat().st_size
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return total


def write_format(folder: Path, dim: int, layers: int, kind: str) -> int:
    """The same weights as one file of another format; returns its bytes."""
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file

    total = write_checkpoint(folder, dim, layers, "bfloat16", 1)
    (plain,) = folder.glob("*.safetensors")
    tensors = load_file(plain)
    matrices = [n for n, t in tensors.items() if n.startswith("blocks.") and t.dim() == 2]
    if "LoRA" in kind:
        factors = {}
        for name in matrices:
            rows, columns = tensors[name].shape
            layer = name.removesuffix(".weight")
            factors[f"{layer}.lora_A.weight"] = torch.randn(32, columns).bfloat16()
            factors[f"{layer}.lora_B.weight"] = torch.randn(rows, 32).bfloat16()
        save_file(factors, folder / LORA)
    if kind.startswith("bfloat16"):
        return total
    (folder / "diffusion_pytorch_model.safetensors.index.json").unlink()
    plain.unlink()
    path = folder / "diffusion_pytorch_model.safetensors"
    if kind == ".pth":
        path = path.with_suffix(".pth")
        torch.save(tensors, path)
    elif kind.startswith("fp8"):
        for name in matrices:
            tensors[name] = tensors[name].to(torch.float8_e4m3fn)
            tensors[name.removesuffix(".weight") + ".scale_weight"] = torch.ones(())
        save_file(tensors, path)
    else:
        from gguf import GGMLQuantizationType, GGUFWriter
        from gguf.constants import GGML_QUANT_SIZES

        path = path.with_suffix(".gguf")
        wanted = GGMLQuantizationType[kind.removeprefix("GGUF ")]
        block, size = GGML_QUANT_SIZES[wanted]
        writer = GGUFWriter(path, "wan")
        for name, tensor in tensors.items():
            if name in matrices:  # what the blocks say does not matter here
                rows, columns = tensor.shape
                writer.add_tensor(name, np.zeros((rows, columns // block * size), np.uint8), raw_dtype=wanted)
            else:
                if tensor.dim() > 4:
                    writer.add_array(f"comfy.gguf.orig_shape.{name}", list(tensor.shape))
                    tensor = tensor.flatten(1)
                writer.add_tensor(name, tensor.float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (folder / "config.json").rename(path.with_suffix(".json"))
    return path.stat().st_size


def memory(*keys: str) -> list[int]:
    """Bytes of these lines of /proc/self/status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [1024 * int(lines[key].split()[0]) for key in keys]


class Peaks:
    """The largest own and file-backed resident memory, sampled every few milliseconds."""

    def __init__(self) -> None:
        self.own = self.file = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self) -> None:
        while not self._stop.wait(0.003):
            own, file = memory("RssAnon", "RssFile")
            self.own, self.file = max(self.own, own), max(self.file, file)

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()


def measure(folder: str, dtype_name: str) -> dict[str, float]:
    """Load and read all weights in this process."""
    import torch

    from wanedit.wan import load_transformer, open_wan
    from wanedit.wan.config import ChosenLora

    file, lora = next(Path(folder).glob("*.gguf"), Path(folder)), Path(folder, LORA)
    _ = torch.ones(64, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
    load_transformer("tiny")
    own_before, file_before, before = memory("RssAnon", "RssFile", "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM, the kernel's own peak, anew
    start = time.perf_counter()
    with Peaks() as peaks:
        opened = open_wan(file, loras=[ChosenLora(lora)] if lora.exists() else [])
        model = load_transformer(opened, dtype=getattr(torch, dtype_name))
        loaded = time.perf_counter() - start
        for parameter in model.parameters():
            _ = parameter.view(-1)[:: 4096 // parameter.element_size()].sum()  # one number of every page
    (peak,) = memory("VmHWM")
    size = sum(p.nbytes for p in model.parameters())
    own, file = peaks.own - own_before, peaks.file - file_before
    return {"size": size, "peak": peak - before, "own": own, "file": file, "seconds": loaded}


def report(dim: int, layers: int, shards: int, root: str | None, formats: bool) -> float:
    """Print one row per case; returns the worst ratio."""
    cases = tuple((kind, "bfloat16") for kind in FORMATS) if formats else CASES
    print(
        "| stored | wanted | shards | checkpoint GB | module GB | peak GB | own GB | file GB | seconds | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for stored in dict.fromkeys(stored for stored, _ in cases):
        with tempfile.TemporaryDirectory(dir=root) as folder:
            if formats:
                total = write_format(Path(folder), dim, layers, stored)
            else:
                total = write_checkpoint(Path(folder), dim, layers, stored, shards)
            for wanted in [wanted for s, wanted in cases if s == stored]:
                command = [sys.executable, __file__, "--measure", folder, wanted]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                m = json.loads(done.stdout.splitlines()[-1])
                ratio = m["peak"] / m["size"]
                worst = max(worst, ratio)
                sizes = [f"{size / GB:.2f}" for size in (total, m["size"], m["peak"], m["own"], m["file"])]
                row = [stored, wanted, str(shards), *sizes, f"{m['seconds']:.1f}", f"{ratio:.3f}"]
                print(f"| {' | '.join(row)} |", flush=True)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--dim", type=int, default=2048, help="width; a multiple of 128")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--formats", action="store_true", help="other files than safetensors in shards")
    parser.add_argument("--folder", help="where the temporary checkpoint goes; needs about 5 GB")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return 0
    worst = report(options.dim, options.layers, options.shards, options.folder, options.formats)
    print(f"\nworst ratio {worst:.3f}; the bar is {BAR}")
    return int(worst > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
