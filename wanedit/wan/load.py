"""A Wan folder, known by name or path, and the modules that it holds."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from wanedit.errors import MissingWeightsError
from wanedit.files import Json
from wanedit.wan.catalog import KnownModel, Sampling, find_known, locate, recognise, sampling_in
from wanedit.wan.checkpoint import DtypeOf, Part, find_weights, read_shapes, sha256
from wanedit.wan.condition import (
    IMAGE_CONFIG,
    TEXT_CONFIG,
    TOKENIZER,
    ImageEncoder,
    TextEncoder,
    find_tokenizer,
    image_part,
    load_image_encoder,
    load_text_encoder,
    text_part,
)
from wanedit.wan.config import WanConfig, read_json, read_overrides
from wanedit.wan.transformer import ExpertPair, WanTransformer
from wanedit.wan.vae import OFFICIAL_MEAN, OFFICIAL_STD, WanVAE

TRANSFORMER_STEM = "diffusion_pytorch_model"
VAE_CONFIG = "vae_config.json"
EXPERTS = ("high_noise_model", "low_noise_model")
# Bytes of weights that take a disk several seconds to read: whoever waits is told why.
SLOW_TO_HASH = 4e9

# `wan/modules/vae.py`, `_video_vae`.
OFFICIAL_VAE: Json = {
    "dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}

# Parts that the official code keeps out of its bfloat16 autocast.
_FLOAT32_PARTS = (
    "time_embedding.",
    "time_projection.",
    "modulation",
    "norm",
    "head.",
    "emb_pos",
    "img_emb.proj.0.",
    "img_emb.proj.4.",
)


@dataclass(frozen=True)
class WanFolder:
    """A model on disk, opened but not loaded."""

    path: Path
    config: WanConfig
    sampling: Sampling
    known: KnownModel | None

    @property
    def name(self) -> str:
        return self.known.name if self.known else self.path.name

    @property
    def about(self) -> str:
        """What whoever uses it must know of it at once; "" for nothing."""
        return f"{self.known.name} is {self.known.about}" if self.known and self.known.about else ""

    @property
    def reads_images(self) -> bool:
        """Whether it has condition channels."""
        return bool(self.config.condition_channels)

    def showable(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """Those of `frames` that its condition channels were trained to show.

        Any for the inpainting models and wan-tiny; the first for I2V; the first and the last for FLF2V; none for T2V.
        """
        if not self.reads_images:
            return ()
        if self.known is not None and (self.known.bundled or "InP" in self.known.name):
            return tuple(frames)
        ends = (0, num_frames - 1) if self.config.model_type == "flf2v" else (0,)
        return tuple(frame for frame in frames if frame in ends)

    @property
    def transformer_folders(self) -> tuple[Path, ...]:
        """One folder, or the two experts of Wan 2.2, high noise first."""
        experts = tuple(self.path / name for name in EXPERTS)
        return experts if experts[0].is_dir() else (self.path,)


def default_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on an accelerator, as the official code computes; float32 on a CPU, where it is faster."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def compute_kind() -> str:
    """Accelerator and number format: a run resumed on another would mix pixels of two kinds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"{device} {default_dtype(device)}"


def open_wan(source: str | Path) -> WanFolder:
    """Find a model by folder or known name and read its sizes. Loads no weight.

    A known name other than "tiny" is looked for in the current folder, in its folder `models` and in $WANEDIT_MODELS.

    Raises:
        MissingWeightsError: no such folder; the message says how to download the model.
        InputError: the name is neither a folder nor known.
    """
    path = locate(str(source))
    transformer = path / EXPERTS[0] if (path / EXPERTS[0]).is_dir() else path
    values = read_json(transformer / "config.json")
    shapes = read_shapes(find_weights(transformer, TRANSFORMER_STEM))
    config = WanConfig.from_dict(
        values | {"image_tokens": any(name.startswith("img_emb.") for name in shapes)},
        str(transformer / "config.json"),
    )
    named = find_known(str(source))
    known = named if named is not None and named.config == config else recognise(config, path.resolve())
    return WanFolder(path, config, sampling_in(path, known), known)


def transformer_dtype(dtype: torch.dtype) -> DtypeOf:
    """Which parameters are kept in `dtype`, and which in float32 whatever it is."""
    return lambda name: torch.float32 if any(part in name for part in _FLOAT32_PARTS) else dtype


def transformer_parts(folder: WanFolder) -> list[Part]:
    """The transformer, or the two experts of Wan 2.2, named as their folders are."""
    paths = folder.transformer_folders
    names = ["transformer"] if len(paths) == 1 else [path.name for path in paths]
    return [
        Part(name, path, TRANSFORMER_STEM, lambda: WanTransformer(folder.config))
        for name, path in zip(names, paths, strict=True)
    ]


def vae_part(path: Path) -> Part:
    """The VAE of a folder."""
    return Part("VAE", path, "Wan2.1_VAE", lambda: build_vae(read_vae_config(path)))


def all_parts(folder: WanFolder) -> list[Part]:
    """Every module of a model; nothing is read yet."""
    encoders = [image_part(folder.path)] if folder.config.image_tokens else []
    return [*transformer_parts(folder), vae_part(folder.path), text_part(folder.path), *encoders]


def deciding_files(folder: WanFolder) -> list[Path]:
    """Every file that decides what the model computes.

    Raises:
        MissingWeightsError: a part is absent.
    """
    configs = [path / "config.json" for path in folder.transformer_folders]
    configs += [folder.path / name for name in (VAE_CONFIG, TEXT_CONFIG, IMAGE_CONFIG)]
    weights = [file for part in all_parts(folder) for file in part.files()]
    files = [*configs, *weights, *sorted((folder.path / TOKENIZER).glob("*.json"))]
    return [file for file in files if file.is_file()]


def load_transformer(
    source: str | Path | WanFolder, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> WanTransformer | ExpertPair:
    """`load_transformer(dir)(latents, timestep, text, image_tokens, condition, frame_ids)` is the velocity.

    Raises:
        MissingWeightsError: the weights are absent or are not what config.json says.
    """
    folder = source if isinstance(source, WanFolder) else open_wan(source)
    dtype_of = transformer_dtype(dtype or default_dtype(device))
    models = [cast(WanTransformer, part.load(dtype_of, device)) for part in transformer_parts(folder)]
    return models[0] if len(models) == 1 else ExpertPair(*models)


def read_vae_config(path: Path) -> Json:
    """Constructor arguments and latent statistics: the folder's own, or the official ones."""
    official = OFFICIAL_VAE | {"latents_mean": OFFICIAL_MEAN, "latents_std": OFFICIAL_STD}
    return official | read_overrides(path / VAE_CONFIG, official)


def build_vae(config: Json) -> nn.Module:
    """The bare `VideoVAE_`, uninitialised, on whatever device is current."""
    from diffsynth.models.wan_video_vae import VideoVAE_

    sizes = {name: value for name, value in config.items() if not name.startswith("latents_")}
    return VideoVAE_(**sizes)


def load_vae(source: str | Path | WanFolder, device: torch.device | str = "cpu") -> WanVAE:
    """The VAE of a folder or known model, in float32 whatever the device, as the official code runs it.

    Raises:
        MissingWeightsError: the weights are absent or do not fit.
    """
    path = source.path if isinstance(source, WanFolder) else locate(str(source))
    model, config = vae_part(path).load(lambda _: torch.float32, device), read_vae_config(path)
    return WanVAE(model, config["latents_mean"], config["latents_std"]).to(device)


def hash_files(folder: WanFolder, say: Callable[[str], None]) -> dict[str, str]:
    """SHA-256 of every file that decides what the model computes, by its path in the folder.

    Args:
        say: told once if that takes long.
    """
    files = deciding_files(folder)
    size = sum(file.stat().st_size for file in files)
    if size > SLOW_TO_HASH:
        say(f"hashing {size / 1e9:.0f} GB of weights; this is remembered until the files change")
    return {str(file.relative_to(folder.path)): sha256(file) for file in files}


def require_parts(folder: WanFolder) -> None:
    """See that every part is there before the first is loaded, which takes minutes on a full-size model.

    Raises:
        MissingWeightsError: a part is absent.
    """
    try:
        for part in all_parts(folder):
            part.files()
        find_tokenizer(folder.path)
    except MissingWeightsError as error:
        known = folder.known
        advice = (
            f"\nGet what is missing by\n  {known.download(folder.path)}"
            if known and not known.bundled
            else ""
        )
        raise MissingWeightsError(f"{error}{advice}") from None


@dataclass(frozen=True)
class Wan:
    """Every module of one model, loaded."""

    folder: WanFolder
    transformer: WanTransformer | ExpertPair
    vae: WanVAE
    text_encoder: TextEncoder
    image_encoder: ImageEncoder | None


def load_wan(source: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Wan:
    """Load all parts of a model by folder or known name.

    Raises:
        MissingWeightsError: a part is absent or does not fit.
        InputError: the name is neither a folder nor known.
    """
    folder = open_wan(source)
    require_parts(folder)
    dtype = dtype or default_dtype(device)
    return Wan(
        folder,
        load_transformer(folder, device, dtype),
        load_vae(folder, device),
        load_text_encoder(folder.path, folder.config.text_len, dtype, device),
        load_image_encoder(folder.path, torch.float32, device) if folder.config.image_tokens else None,
    )
