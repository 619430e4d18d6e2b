"""The encoders are gone from memory once used, measured on one that is large enough to see."""

import gc
import json
import shutil
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from wanedit.lit.chain import FLF2VChain
from wanedit.lit.networks import encode_pictures, encode_texts
from wanedit.lit.tasks import ChainSettings, SegmentTask
from wanedit.wan.condition import OFFICIAL_TEXT, build_text_encoder, text_part
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
    source = open_wan(path).source
    (file,) = text_part(source).files()
    config = OFFICIAL_TEXT | source.config("text encoder")[0] | {"dim_ffn": 32768, "num_layers": 4}
    (path / "text_encoder_config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = build_text_encoder(config)
    # Stored in bfloat16, so that loading to float32 makes a copy in memory and not a view of the file.
    tensors = {name: torch.zeros(t.shape, dtype=torch.bfloat16) for name, t in model.state_dict().items()}
    save_file(tensors, file)
    return sum(4 * tensor.numel() for tensor in tensors.values())


def test_encoders_leave_no_memory_behind(tmp_path: Path) -> None:
    size = _folder_with_a_large_encoder(tmp_path / "large")
    cpu, task = torch.device("cpu"), _task()

    def encode(path: Path | str) -> tuple[dict, dict]:
        folder = open_wan(path)
        text = encode_texts(folder, [task.prompt, task.negative_prompt], cpu, torch.float32)
        return text, encode_pictures(folder, task.keyframes(), 2, cpu)

    # A first round pays for imports and allocator arenas; only the second is measured.
    encode("tiny")
    before = _resident()
    text, pictures = encode(tmp_path / "large")
    left = _resident() - before
    assert set(text) == {"a red circle", "blurred"}
    # Both keyframes are the same picture, which is encoded once.
    assert [tokens.shape[1] for tokens in pictures.values()] == [257]
    assert size > 150e6
    assert left < 0.1 * size, f"{left / 1e6:.0f} of {size / 1e6:.0f} MB stayed"


def test_negative_prompts_are_not_encoded_without_guidance() -> None:
    for scale, prompts in ((1.0, {"a red circle"}), (2.0, {"a red circle", "blurred"})):
        assert FLF2VChain(open_wan("tiny"), ChainSettings(2, 3.0, scale)).texts(_task()) == prompts
