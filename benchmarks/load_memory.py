"""Peak host memory of loading a transformer, against the size of what is loaded. The bar is 1.15.

    python benchmarks/load_memory.py

Writes a synthetic checkpoint in the official layout, several shards and an index, to a temporary folder. Loads it
by `wanedit.wan.load_transformer` in a process of its own, once as it is stored and once converted, and reads every
weight, since a mapped weight takes no memory before it is used.

ratio = (peak resident memory - resident memory after the imports) / bytes of the loaded module's weights.

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

    from wanedit.wan.load import load_transformer

    _ = torch.ones(64, 64, dtype=torch.bfloat16) @ torch.ones(64, 64, dtype=torch.bfloat16)
    own_before, file_before, before = memory("RssAnon", "RssFile", "VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts VmHWM, the kernel's own peak, anew
    start = time.perf_counter()
    with Peaks() as peaks:
        model = load_transformer(folder, dtype=getattr(torch, dtype_name))
        loaded = time.perf_counter() - start
        for parameter in model.parameters():
            _ = parameter.view(-1)[:: 4096 // parameter.element_size()].sum()  # one number of every page
    (peak,) = memory("VmHWM")
    size = sum(p.nbytes for p in model.parameters())
    own, file = peaks.own - own_before, peaks.file - file_before
    return {"size": size, "peak": peak - before, "own": own, "file": file, "seconds": loaded}


def report(dim: int, layers: int, shards: int, root: str | None) -> float:
    """Print one row per case; returns the worst ratio."""
    print(
        "| stored | wanted | shards | checkpoint GB | module GB | peak GB | own GB | file GB | seconds | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for stored in dict.fromkeys(stored for stored, _ in CASES):
        with tempfile.TemporaryDirectory(dir=root) as folder:
            total = write_checkpoint(Path(folder), dim, layers, stored, shards)
            for wanted in [wanted for s, wanted in CASES if s == stored]:
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
    parser.add_argument("--folder", help="where the temporary checkpoint goes; needs about 5 GB")
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return 0
    worst = report(options.dim, options.layers, options.shards, options.folder)
    print(f"\nworst ratio {worst:.3f}; the bar is {BAR}")
    return int(worst > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
