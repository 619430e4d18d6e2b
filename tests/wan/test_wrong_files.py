"""Ten files that people take for a model: each is called what it is at plan time, at once."""

import json
import resource
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.wan import converted, folders
from wanedit.errors import MissingWeightsError
from wanedit.wan.formats.tensors import read_file

BOARD = "examples/multi_keyframe_demo"
KEYFRAMES = f"{BOARD}/start.png:0.0,{BOARD}/rise.png:0.5"
# Of a whole process; importing torch alone takes two.
SECONDS = 3.0
Made = tuple[list[str], str]


def lora(place: Path) -> Made:
    names = {
        f"diffusion_model.blocks.0.self_attn.q.lora_{x}.weight": torch.zeros(4, 4) for x in ("up", "down")
    }
    return [
        "--model",
        str(converted.save(names, place / "style.safetensors")),
    ], "is a LoRA: give it as --lora FILE"


def stranger(name: str, what: str) -> Callable[[Path], Made]:
    def made(place: Path) -> Made:
        return ["--model", str(converted.save({name: torch.zeros(2, 2)}, place / "other.safetensors"))], what

    return made


def text_only(place: Path) -> Made:
    return [
        "--model",
        str(folders.write_folder(place / "t2v", "t2v")),
    ], "reads no images (t2v); expected a model that keyframes"


def wrong_vae(place: Path) -> Made:
    tensors = dict(converted.TRANSFORMER)
    # As Fun-5B-InP: 48 latent channels, as many of the keyframes, and 4 of mask.
    for name, axis, size in (
        ("patch_embedding.weight", 1, 100),
        ("head.head.weight", 0, 192),
        ("head.head.bias", 0, 192),
    ):
        sizes = list(tensors[name].shape)
        sizes[axis] = size
        tensors[name] = torch.zeros(sizes)
    root = converted.comfy_folders(place / "models", lambda _: (tensors, None))
    config = {"in_dim": 100, "out_dim": 48}
    path = root / "diffusion_models" / "tiny.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return ["--model", str(root)], "48 latent channels and the VAE 16"


def vae_as_transformer(place: Path) -> Made:
    vae = converted.save(converted.VAE, place / "vae.safetensors")
    return ["--transformer", str(vae)], "is the VAE of a Wan; expected the transformer of a Wan"


def truncated(place: Path) -> Made:
    root = converted.comfy_folders(place / "models")
    path = root / "diffusion_models" / "tiny.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    return ["--model", str(path)], "bytes are there"


def shard_missing(place: Path) -> Made:
    root = folders.write_folder(place / "model")
    stem = "diffusion_pytorch_model"
    (root / f"{stem}.safetensors").rename(root / f"{stem}-00001-of-00002.safetensors")
    shards = {"a": f"{stem}-00001-of-00002.safetensors", "b": f"{stem}-00002-of-00002.safetensors"}
    (root / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return ["--model", str(root)], "lacks 1 of 2 shards"


def other_gguf(place: Path) -> Made:
    path = converted.gguf_file(
        {"blk.0.attn_q.weight": torch.zeros(32, 32)}, place / "model.gguf", "F32", "llama"
    )
    return ["--model", str(path)], "a GGUF of the architecture 'llama'"


WRONG = {
    "LoRA": lora,
    "text-only": text_only,
    "LTX": stranger("transformer_blocks.0.attn1.to_q.weight", "a model of another family (LTX"),
    "Hunyuan": stranger("double_blocks.0.img_attn.qkv.weight", "a model of the Hunyuan or Flux family"),
    "SD": stranger("model.diffusion_model.input_blocks.0.0.weight", "a Stable Diffusion model"),
    "TI2V and VAE 2.1": wrong_vae,
    "VAE as transformer": vae_as_transformer,
    "truncated": truncated,
    "shard missing": shard_missing,
    "GGUF of llama": other_gguf,
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_told_at_plan_time_and_soon(kind: str, tmp_path: Path) -> None:
    words, what = WRONG[kind](tmp_path)
    command = [sys.executable, "-m", "wanedit", "generate", "--keyframes", KEYFRAMES, "--dry_run", *words]
    before = processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = processor_seconds() - before
    print(f"{kind}: {seconds:.2f} s of processor, {done.stderr.strip()}")
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.startswith("wanedit: ")
    assert what in done.stderr
    assert seconds < SECONDS


def processor_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def packed(path: Path) -> str:
    """A pickle of 100 MB in 100 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100_000_000))
    return "is compressed; expected what torch.save writes"


def named_often(path: Path) -> str:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps(dict.fromkeys(map(str, range(50_001)), empty)).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return "names 50001 tensors; expected those of a model, 50000 at most"


def counted_often(path: Path) -> str:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1_000_000, 0) + bytes(100))
    return "names 1000000 tensors"


@pytest.mark.parametrize(
    ("name", "write"), [("a.pth", packed), ("a.safetensors", named_often), ("a.gguf", counted_often)]
)
def test_a_small_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, name: str, write: Callable[[Path], str]
) -> None:
    said, start = write(tmp_path / name), time.process_time()
    tracemalloc.start()
    with pytest.raises(MissingWeightsError, match=said):
        read_file(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
    assert time.process_time() - start < 5
