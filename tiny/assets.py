"""wan-tiny in the official directory layout: written file by file by rename, published whole, read back."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tiny.flow import IMAGE_CONFIG, TEXT_CONFIG, TRANSFORMER_CONFIG, TinyWan
from tiny.storage import by_rename, write_json
from tiny.vae import VAE_CONFIG
from wanedit.errors import InputError
from wanedit.wan.text import TOKENIZER

# What wan-tiny is sampled with by default; see the model card.
SAMPLING = {
    "num_inference_steps": 12,
    "shift": 3.0,
    "guidance_scale": 1.0,
    "fps": 16.0,
    "max_frames": 33,
    "size": "128*128",
    "full_size": False,
}

_VAE = "Wan2.1_VAE.safetensors"
_TRANSFORMER = "diffusion_pytorch_model.safetensors"
_TEXT = "models_t5_umt5-xxl-enc.safetensors"
_IMAGE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.safetensors"


def write_weights(
    module: nn.Module, path: Path, dtype: torch.dtype = torch.float16, prefix: str = ""
) -> None:
    """Write a module's tensors by rename; `prefix` is put before every name."""
    tensors = {prefix + name: _half(value, dtype) for name, value in module.state_dict().items()}
    by_rename(path, lambda part: save_file(tensors, part, metadata={"format": "pt"}))


def write_vae(vae: nn.Module, mean: Sequence[float], std: Sequence[float], folder: Path) -> None:
    """The VAE and its config with the statistics of its latents."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(vae, folder / _VAE)
    write_json(
        VAE_CONFIG | {"latents_mean": list(mean), "latents_std": list(std)}, folder / "vae_config.json"
    )


def write_networks(net: TinyWan, folder: Path) -> None:
    """Transformer, text encoder and image encoder with their configs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(net.transformer, folder / _TRANSFORMER)
    write_weights(net.text, folder / _TEXT)
    write_weights(net.image, folder / _IMAGE, prefix="visual.")
    write_json(TRANSFORMER_CONFIG, folder / "config.json")
    write_json(TEXT_CONFIG, folder / "text_encoder_config.json")
    write_json(IMAGE_CONFIG, folder / "image_encoder_config.json")
    write_json(SAMPLING, folder / "sampling.json")


def publish(source: Path, folder: Path) -> None:
    """Copy every file below `source` into `folder`: all under other names first, then all renamed.

    A failed or killed copy therefore leaves `folder` as it was; other files in it stay.
    """
    renames = []
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix != ".part":
            target = folder / path.relative_to(source)
            part = target.with_name(target.name + ".part")
            part.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part)
            part.chmod(0o644)
            renames.append((part, target))
    for part, target in renames:
        part.replace(target)


def check_start(folder: Path) -> None:
    """See that a folder can be trained further.

    Raises:
        InputError: a weight file or the tokenizer is missing.
    """
    needed = (_VAE, _TRANSFORMER, _TEXT, _IMAGE, f"{TOKENIZER}/tokenizer.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise InputError(f"start: {folder} lacks {', '.join(missing)}; expected a folder of wan-tiny")


def read_vae(vae: nn.Module, folder: Path) -> None:
    """Load what write_vae wrote, as float32."""
    vae.load_state_dict(_floats(folder / _VAE))


def read_networks(net: TinyWan, folder: Path) -> None:
    """Load what write_networks wrote, as float32."""
    net.transformer.load_state_dict(_floats(folder / _TRANSFORMER))
    net.text.load_state_dict(_floats(folder / _TEXT))
    net.image.load_state_dict(_floats(folder / _IMAGE, "visual."))


def _floats(path: Path, prefix: str = "") -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.float() for name, value in load_file(path).items()}


def _half(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to("cpu", dtype).contiguous()
