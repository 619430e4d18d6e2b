"""The encoders are gone from memory once used, measured on one that is large enough to see."""

import gc
import json
import shutil
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from wanedit.lit.encode import encode_tasks
from wanedit.lit.tasks import SegmentTask
from wanedit.wan.condition import build_text_encoder, read_text_config, text_part
from wanedit.wan.load import open_wan


def _resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def _task() -> SegmentTask:
    image = torch.rand(3, 32, 32) * 2 - 1
    return SegmentTask(0, 5, image, image, "a red circle", "blurred", 0, "d")


def _folder_with_a_large_encoder(path: Path) -> int:
    """wan-tiny with a text encoder of about 200 MB in its place; returns its size in bytes."""
    shutil.copytree(open_wan("tiny").path, path)
    for old in path.glob(f"{text_part(path).stem}*.safetensors"):
        old.unlink()
    config = read_text_config(path) | {"dim_ffn": 32768, "num_layers": 4}
    (path / "text_encoder_config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = build_text_encoder(config)
    # Stored in bfloat16, so that loading to float32 makes a copy in memory and not a view of the file.
    tensors = {name: torch.zeros(t.shape, dtype=torch.bfloat16) for name, t in model.state_dict().items()}
    save_file(tensors, path / f"{text_part(path).stem}.safetensors")
    return sum(4 * tensor.numel() for tensor in tensors.values())


def test_encoders_leave_no_memory_behind(tmp_path: Path) -> None:
    size = _folder_with_a_large_encoder(tmp_path / "large")
    cpu = torch.device("cpu")
    # A first round pays for imports and allocator arenas; only the second is measured.
    encode_tasks(open_wan("tiny"), [_task()], 5.0, cpu, cpu, torch.float32)
    before = _resident()
    encodings = encode_tasks(open_wan(tmp_path / "large"), [_task()], 5.0, cpu, cpu, torch.float32)
    left = _resident() - before
    assert set(encodings.text) == {"a red circle", "blurred"}
    assert encodings.image_tokens[0].shape[1] == 2 * 257
    assert size > 150e6
    assert left < 0.1 * size, f"{left / 1e6:.0f} of {size / 1e6:.0f} MB stayed"


def test_negative_prompts_are_not_encoded_without_guidance() -> None:
    cpu = torch.device("cpu")
    encodings = encode_tasks(open_wan("tiny"), [_task()], 1.0, cpu, cpu, torch.float32)
    assert set(encodings.text) == {"a red circle"}
