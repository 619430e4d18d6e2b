"""The sizes of a Wan transformer, as its `config.json` gives them."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import Json, read_json
from wanedit.registry import Registry
from wanedit.timeline import slots

PATCH_SIZE = (1, 2, 2)
MASK_CHANNELS = 4
IMAGE_TOKENS = 257  # class token + 16 x 16 patches of a 224 x 224 image
# Endings of files of weights.
SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".bin", ".gguf")
# The parts of a model, by what chooses a file for each on the command line and in Python.
PARTS = {
    "transformer": "transformer",
    "transformer_low": "low-noise transformer",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "image_encoder": "image encoder",
    "tokenizer": "tokenizer",
}
TRANSFORMER, TRANSFORMER_LOW, VAE, TEXT, IMAGE, TOKENIZER = PARTS.values()
# "FILE:0.8:high:0.985": what follows the file is a strength, an expert, or both, and after a strength a noise level.
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
_LORA = re.compile(
    rf"(?P<file>.+?)(?::(?P<strength>[-+]?{_NUMBER}))?(?::(?P<expert>high|low))?"
    rf"(?(strength)(?::(?P<below>{_NUMBER}))?)",
    re.DOTALL,
)
# Back ends of attention, which are functions; here, since settings name them and torch takes seconds to import.
ATTENTIONS: Registry[Any] = Registry(
    "attention", "wanedit.wan.attention", base="wanedit.wan.attention:Attention"
)
MODEL_TYPES = ("t2v", "i2v", "flf2v", "ti2v", "vace")

# Keys that official files carry and that decide no size here; of VideoX-Fun's the sizes of what the next table has off.
_IGNORED_KEYS = {
    "_class_name",
    "_diffusers_version",
    "cross_attn_type",
    "in_channels",
    "hidden_size",
    "in_dim_control_adapter",
    "downscale_factor_control_adapter",
    "in_dim_ref_conv",
}
# Keys that change nothing as long as they have these values; no model with others is built here.
_NEUTRAL = {
    "patch_size": PATCH_SIZE,
    "window_size": (-1, -1),
    "add_control_adapter": False,
    "add_ref_conv": False,
}

_SIZES = (
    "dim",
    "ffn_dim",
    "num_heads",
    "num_layers",
    "in_dim",
    "out_dim",
    "freq_dim",
    "text_len",
    "text_dim",
    "image_dim",
)


@dataclass(frozen=True)
class ChosenLora:
    """A LoRA as it is asked for.

    Attributes:
        path: its file, or its name in a folder of LoRAs.
        strength: what its difference is multiplied by; may be negative.
        expert: "high" or "low" for one expert of Wan 2.2, "" for every transformer.
        below: the noise level that it is merged below; above it the model is asked without it.
    """

    path: Path
    strength: float = 1.0
    expert: str = ""
    below: float = 1.0

    @classmethod
    def of(cls, given: object) -> "ChosenLora":
        """Of "FILE[:strength[:high|low][:below]]", or of [FILE, strength, "high" or "low" or "", below], of which the
        first alone must be.

        Raises:
            InputError: neither.
        """
        if isinstance(given, os.PathLike):
            return cls(Path(given))
        parts = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
        if len(parts) == 1 and (found := _LORA.fullmatch(str(parts[0]))):
            parts = [found["file"], float(found["strength"] or 1), found["expert"] or ""]
            parts += [float(found["below"])] if found["below"] else []
        path, strength, expert, below = (*parts, *(None, 1.0, "", 1.0)[len(parts) :])[:4]
        if (
            not path
            or not isinstance(path, str | os.PathLike)
            or len(parts) > 4
            or expert not in ("", "high", "low")
        ):
            raise InputError(
                f"lora is {given!r}; expected FILE, FILE:strength, FILE:strength:high (or low) or "
                "FILE:strength:high:0.985 (merged below that noise level), or a list of these"
            )
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
            raise InputError(f"lora {path} has strength {strength!r}; expected a number such as 0.8")
        if isinstance(below, bool) or not isinstance(below, int | float) or not 0 < below <= 1:
            raise InputError(f"lora {path} is merged below {below!r}; expected a noise level in (0, 1]")
        return cls(Path(path), float(strength), expert, float(below))

    def __str__(self) -> str:
        """As `of` reads it."""
        parts = [str(self.path), repr(self.strength), self.expert]
        return ":".join(part for part in parts if part) + (f":{self.below!r}" if self.below < 1 else "")


@dataclass(frozen=True)
class LatentSpace:
    """What a VAE makes of pixels; of time, every one of Wan's makes a slot of four frames, see `wanedit.timeline`.

    Attributes:
        channels: of latents.
        stride: pixels along height, and along width, for one latent.
    """

    channels: int = 16
    stride: int = 8

    @property
    def token_side(self) -> int:
        """Side of a token in pixels."""
        return self.stride * PATCH_SIZE[1]

    def sampled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that a model works on for pictures of `size`: the next multiples of a token's side."""
        height, width = (-(-side // self.token_side) * self.token_side for side in size)
        return height, width

    def grid(self, num_frames: int, size: tuple[int, int]) -> tuple[int, int, int]:
        """Latent sizes (S, h, w) of 4n+1 frames at the `sampled_size` of (height, width) `size`."""
        height, width = self.sampled_size(size)
        return slots(num_frames), height // self.stride, width // self.stride

    def tile(self, pixels: int) -> int:
        """Latents along the side of a VAE's tile of so many pixels.

        Raises:
            InputError: the stride does not divide them, or they are too few for tiles to overlap.
        """
        if pixels % self.stride or pixels < 4 * self.stride:
            raise InputError(
                f"tile is {pixels} pixels; expected a multiple of {self.stride}, at least {4 * self.stride}"
            )
        return pixels // self.stride


# Of all but TI2V-5B and what is made from it.
WAN_21_LATENTS = LatentSpace()


@dataclass(frozen=True)
class WanConfig:
    """Sizes of the transformer; the names are the official ones (Wan 2.1, `wan/modules/model.py`).

    `image_dim` is the width of the image tokens. Official files leave it and `text_dim` out because their
    encoders have one size; `image_tokens` says whether cross-attention reads image tokens at all: the
    experts of Wan 2.2 call themselves "i2v" and do not. `out_dim` is the number of latent channels.

    A "vace" is a t2v that is given hints in the blocks `vace_layers`, by blocks beside them that read `vace_in_dim`
    channels.
    """

    model_type: str
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    out_dim: int = WAN_21_LATENTS.channels
    freq_dim: int = 256
    text_len: int = 512
    text_dim: int = 4096
    image_dim: int = 1280
    eps: float = 1e-6
    qk_norm: bool = True
    cross_attn_norm: bool = True
    image_tokens: bool | None = None
    vace_layers: tuple[int, ...] = ()
    vace_in_dim: int = 0

    HEAD_DIM: ClassVar[int] = 128

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise InputError(f"model_type is {self.model_type!r}; expected one of {', '.join(MODEL_TYPES)}")
        for name in _SIZES:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name} is {value!r}; expected a positive integer")
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise InputError(
                f"dim {self.dim} over num_heads {self.num_heads} gives a head of size "
                f"{self.dim / self.num_heads:g}; expected an even integer"
            )
        if not (_is_like(self.eps, 1e-6) and self.eps >= 0):
            raise InputError(f"eps is {self.eps!r}; expected a number, zero or more")
        if not (self.qk_norm and self.cross_attn_norm):
            raise InputError("qk_norm and cross_attn_norm must be true: every published Wan has both")
        if self.image_tokens is None:
            object.__setattr__(self, "image_tokens", self.model_type in ("i2v", "flf2v"))
        layers, channels = self.vace_layers, self.vace_in_dim
        # The first hint block alone takes the channels in: it belongs to the first block.
        inside = {0, *(block for block in layers if type(block) is int and 0 <= block < self.num_layers)}
        rising = list(layers) == sorted(inside) and channels > 0
        if not (rising if self.model_type == "vace" else layers == () and channels == 0):
            raise InputError(
                f"model_type {self.model_type} has vace_layers {list(layers)} and vace_in_dim {channels}; expected, of "
                f"vace alone, blocks from 0 to {self.num_layers - 1} that rise from 0, and the channels of their input"
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def condition_channels(self) -> int:
        """Channels of the known frames, beside the latents: 4 of mask and those of a latent, or none. Of a vace, whose
        hint blocks read them, those of two latents and of a mask of pixels."""
        return self.vace_in_dim or self.in_dim - self.out_dim

    @property
    def first_in_place(self) -> bool:
        """Whether it is shown a first frame in the latents: clean in slot 0, whose tokens are told timestep 0.

        TI2V-5B is, and what is made from it (Wan 2.2, `wan/textimage2video.py`).
        """
        return self.model_type == "ti2v"

    @property
    def reads_images(self) -> bool:
        """Whether keyframes can be shown to it: by condition channels, or a first frame in place."""
        return bool(self.condition_channels) or self.first_in_place

    def require_images(self, name: str) -> None:
        """Raise InputError for a model that keyframes cannot be shown."""
        if not self.reads_images:
            raise InputError(
                f"{name} reads no images ({self.model_type}); expected a model that keyframes can be shown: "
                "`wanedit models` says what each is shown"
            )

    @property
    def num_images(self) -> int:
        """Images whose tokens cross-attention reads: 2 for flf2v, 1 for i2v, 0 for t2v and Wan 2.2."""
        if not self.image_tokens:
            return 0
        return 2 if self.model_type == "flf2v" else 1

    @classmethod
    def sizes_of(cls, shapes: Mapping[str, tuple[int, ...]]) -> Json:
        """What the tensors of a transformer say of it; heads are taken to be as wide as the published models' are."""
        dim = shapes["head.modulation"][-1]
        in_dim, out_dim = (
            shapes["patch_embedding.weight"][1],
            shapes["head.head.weight"][0] // math.prod(PATCH_SIZE),
        )
        tokens = "img_emb.proj.0.weight" in shapes
        num_layers, hints = (
            len({name.split(".")[1] for name in shapes if name.startswith(f"{kind}.")})
            for kind in ("blocks", "vace_blocks")
        )
        kinds = {
            "vace": hints > 0,
            # Of the published models those, and only those, made from TI2V-5B.
            "ti2v": out_dim != LatentSpace.channels,
            "flf2v": "img_emb.emb_pos" in shapes,
            "i2v": in_dim > out_dim,
            "t2v": True,
        }
        vace: Json = {}
        if hints:
            # The published ones lie evenly; `vace_layers` of a config wins.
            vace["vace_layers"] = tuple(range(0, num_layers, -(-num_layers // hints)))[:hints]
            vace["vace_in_dim"] = shapes["vace_patch_embedding.weight"][1]
        return {
            "model_type": next(kind for kind, told in kinds.items() if told),
            "dim": dim,
            "num_heads": dim // cls.HEAD_DIM,
            "ffn_dim": shapes["blocks.0.ffn.0.weight"][0],
            "num_layers": num_layers,
            "in_dim": in_dim,
            "out_dim": out_dim,
            "freq_dim": shapes["time_embedding.0.weight"][1],
            "text_dim": shapes["text_embedding.0.weight"][1],
            "image_tokens": tokens,
            **vace,
        } | ({"image_dim": shapes["img_emb.proj.0.weight"][0]} if tokens else {})

    @classmethod
    def from_dict(cls, values: Json, source: str = "config") -> "WanConfig":
        """Read the official keys.

        Raises:
            InputError: a key is unknown, one is missing, or one has a value that asks for what is not built here.
        """
        for name, neutral in _NEUTRAL.items():
            value = values.get(name, neutral)
            value = tuple(value) if isinstance(value, list) else value
            if value != neutral or type(value) is not type(neutral):
                kind = "; a Fun-Control or Fun-Camera takes no keyframes" if name.startswith("add_") else ""
                raise InputError(f"{source}: {name} is {value!r}; expected {neutral!r}{kind}")
        for name, standard in ("vace_layers", [0]), ("vace_in_dim", 0):
            if name in values and not _is_like(values[name], standard):
                raise InputError(
                    f"{source}: {name} is {values[name]!r}; expected a value such as {standard!r}"
                )
        values = values | {"vace_layers": tuple(values.get("vace_layers", ()))}
        known = {field.name: field for field in fields(cls)}
        unknown = sorted(set(values) - set(known) - _IGNORED_KEYS - set(_NEUTRAL))
        if unknown:
            raise InputError(f"{source}: unknown keys {unknown}; expected a Wan 2.1 config.json")
        required = ("model_type", "dim", "ffn_dim", "num_heads", "num_layers", "in_dim")
        missing = [name for name in required if name not in values]
        if missing:
            raise InputError(f"{source}: missing keys {missing}")
        return cls(**{name: value for name, value in values.items() if name in known})


def read_model_json(path: Path) -> Json:
    """The object of a JSON file that belongs to a model; raises MissingWeightsError for anything else."""
    return read_json(path, "a JSON object, beside the weights", MissingWeightsError)


def read_overrides(path: Path, standard: Json) -> Json:
    """The values of a JSON file that need not exist; {} where it does not. Raises as `checked`."""
    return checked(read_model_json(path) if path.exists() else {}, path, standard)


def checked(values: Json, path: Path, standard: Json) -> Json:
    """The values of a file.

    Args:
        standard: what they may replace, each by one of its kind: a number by a number, a list by one of such elements.

    Raises:
        InputError: one has a key that is not among those, or is of another kind.
    """
    unknown = sorted(set(values) - set(standard))
    if unknown:
        raise InputError(f"{path}: unknown keys {unknown}; expected some of {', '.join(standard)}")
    for name, value in values.items():
        if not _is_like(value, standard[name]):
            raise InputError(f"{path}: {name} is {value!r}; expected a value such as {standard[name]!r}")
    return values


def _is_like(value: object, standard: object) -> bool:
    if isinstance(standard, list | tuple):
        like = standard[0] if standard else 0.0
        return isinstance(value, list | tuple) and all(_is_like(one, like) for one in value)
    if isinstance(standard, float) or (standard is None and value is not None):
        return type(value) in (int, float) and math.isfinite(value)  # pyright: ignore[reportArgumentType]
    return type(value) is type(standard)
