"""Writing wan-tiny in the official directory layout. Every file is renamed into place, so the folder always loads."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wanedit.lit.training.flow import IMAGE_CONFIG, TEXT_CONFIG, TRANSFORMER_CONFIG, TinyWan
from wanedit.lit.training.vae import VAE_CONFIG

# What wan-tiny is sampled with by default; see the model card.
SAMPLING = {
    "num_inference_steps": 20,
    "shift": 3.0,
    "guidance_scale": 1.0,
    "fps": 16.0,
    "max_frames": 33,
    "size": "128*128",
    "full_size": False,
}


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object by rename."""
    _by_rename(path, lambda part: part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8"))


def write_weights(
    module: nn.Module, path: Path, dtype: torch.dtype = torch.float16, prefix: str = ""
) -> None:
    """Write a module's tensors by rename; `prefix` is put before every name."""
    tensors = {prefix + name: _half(value, dtype) for name, value in module.state_dict().items()}
    _by_rename(path, lambda part: save_file(tensors, part, metadata={"format": "pt"}))


def write_vae(vae: nn.Module, mean: Sequence[float], std: Sequence[float], folder: Path) -> None:
    """The VAE and its config with the statistics of its latents."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(vae, folder / "Wan2.1_VAE.safetensors")
    write_json(
        VAE_CONFIG | {"latents_mean": list(mean), "latents_std": list(std)}, folder / "vae_config.json"
    )


def write_networks(net: TinyWan, folder: Path) -> None:
    """Transformer, text encoder and image encoder with their configs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(net.transformer, folder / "diffusion_pytorch_model.safetensors")
    write_weights(net.text, folder / "models_t5_umt5-xxl-enc.safetensors")
    image = folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors"
    write_weights(net.image, image, prefix="visual.")
    write_json(TRANSFORMER_CONFIG, folder / "config.json")
    write_json(TEXT_CONFIG, folder / "text_encoder_config.json")
    write_json(IMAGE_CONFIG, folder / "image_encoder_config.json")
    write_json(SAMPLING, folder / "sampling.json")


def _half(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to("cpu", dtype).contiguous()


def _by_rename(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    part.chmod(0o644)
    part.replace(path)
