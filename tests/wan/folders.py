"""Complete models of random weights in the official directory layout, small enough for a test."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import wanedit
from tests.wan import small
from wanedit.wan.condition import build_image_encoder, build_text_encoder
from wanedit.wan.transformer import WanTransformer
from wanedit.wan.vae import build_vae

BUNDLED = Path(wanedit.__file__).parent / "assets" / "wan-tiny"

VAE = {
    "dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_scales": [],
    "temperal_downsample": [False, True, True], "dropout": 0.0,
}  # fmt: skip
VAE_48 = VAE | {"z_dim": 48, "dec_dim": 4}
TEXT = {
    "vocab": 1536, "dim": 12, "dim_attn": 12, "dim_ffn": 16, "num_heads": 2, "num_layers": 1, "num_buckets": 8,
    "shared_pos": False, "dropout": 0.0,
}  # fmt: skip
IMAGE = {
    "image_size": 224, "patch_size": 14, "dim": 14, "mlp_ratio": 1, "out_dim": 4, "num_heads": 1, "num_layers": 2,
    "pool_type": "token", "pre_norm": True, "post_norm": False, "activation": "gelu",
}  # fmt: skip


def _json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values))


def write_transformer(folder: Path, model: WanTransformer, dtype: torch.dtype = torch.float32) -> None:
    """config.json with official keys alone, and one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    names = (
        "model_type",
        "dim",
        "ffn_dim",
        "num_heads",
        "num_layers",
        "in_dim",
        "out_dim",
        "freq_dim",
        "text_len",
    )
    names += ("text_dim", "image_dim", "eps", *(("vace_layers", "vace_in_dim") if config.vace_layers else ()))
    sizes = {name: getattr(config, name) for name in names}
    _json(folder / "config.json", {"_class_name": "WanModel", **sizes})
    tensors = {name: value.to(dtype) for name, value in model.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def _random(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def write_encoders(folder: Path, vae: dict = VAE) -> None:
    """VAE and text encoder as .pth, as published; the image encoder with a name of its unused text half."""
    _json(folder / "vae_config.json", vae)
    name = "Wan2.1_VAE.pth" if vae is VAE else "Wan2.2_VAE.pth"
    torch.save(_random(build_vae(vae)).state_dict(), folder / name)
    _json(folder / "text_encoder_config.json", TEXT)
    torch.save(
        _random(build_text_encoder(TEXT)).bfloat16().state_dict(), folder / "models_t5_umt5-xxl-enc-bf16.pth"
    )
    _json(folder / "image_encoder_config.json", IMAGE)
    visual = {f"visual.{k}": v for k, v in _random(build_image_encoder(IMAGE)).state_dict().items()}
    torch.save(
        visual | {"textual.head.0.weight": torch.zeros(2), "log_scale": torch.zeros(())},
        folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    )
    shutil.copytree(BUNDLED / "google", folder / "google")


def write_folder(folder: Path, model_type: str = "flf2v") -> Path:
    """A whole model; cross-attention heads must fit the encoders above."""
    write_transformer(folder, small.transformer(model_type))
    write_encoders(folder, VAE_48 if model_type == "ti2v" else VAE)
    return folder


def write_experts(folder: Path, model_type: str = "i2v") -> Path:
    """The layout of Wan 2.2: two transformers that read no image tokens, in two folders."""
    for seed, name in enumerate(("high_noise_model", "low_noise_model")):
        write_transformer(folder / name, small.transformer(model_type, seed, image_tokens=False))
    write_encoders(folder)
    return folder
