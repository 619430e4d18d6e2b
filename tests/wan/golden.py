"""Golden files as model folders in the official layout, so that they are read by wanedit's own loader."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from wanedit.wan import load_transformer, load_vae
from wanedit.wan.transformer import WanTransformer
from wanedit.wan.vae import WanVAE

FOLDER = Path(os.environ.get("WANEDIT_GOLDEN", Path(__file__).parent.parent / "golden"))
WEIGHTS = "weights."


@dataclass(frozen=True)
class Golden:
    """One file: its tensors by name, floats in float32, and its metadata."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def input(self, name: str) -> Tensor | None:
        return self.tensors.get(f"inputs.{name}")

    def output(self, name: str) -> Tensor:
        return self.tensors[f"outputs.{name}"]


def files(prefix: str, folder: Path = FOLDER) -> list[Path]:
    """Golden files whose name begins with `prefix`."""
    return sorted(folder.glob(f"{prefix}*.safetensors"))


def read(path: Path) -> Golden:
    """Everything but the weights."""
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if not name.startswith(WEIGHTS)]  # noqa: SIM118
        return Golden(path, {name: file.get_tensor(name).float() for name in names}, file.metadata() or {})


def _write_weights(path: Path, target: Path) -> None:
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(WEIGHTS)]  # noqa: SIM118
        save_file({name.removeprefix(WEIGHTS): file.get_tensor(name) for name in names}, target)


def transformer(path: Path, folder: Path) -> WanTransformer:
    """The transformer of a golden file, through a folder written to `folder`."""
    _write_weights(path, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(read(path).metadata["config"])
    model = load_transformer(folder, dtype=torch.float32)
    assert isinstance(model, WanTransformer)
    return model


def vae(path: Path, folder: Path) -> WanVAE:
    """The VAE of a golden file, through a folder written to `folder`."""
    _write_weights(path, folder / "Wan2.1_VAE.safetensors")
    (folder / "vae_config.json").write_text(json.dumps(json.loads(read(path).metadata["config"])))
    return load_vae(folder)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """|got - expected| / |expected|, Euclidean, in float64."""
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def absolute_error(got: Tensor, expected: Tensor) -> float:
    """The largest difference of any element."""
    return float((got.double() - expected.double()).abs().max())
