"""The models that wanedit knows: their sizes, where they are published, and the settings they were made for.

Layout hashes are diffsynth's (`diffsynth/configs/model_configs.py`, 2.1.12): md5 over names and shapes.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import at_home
from wanedit.wan.config import SUFFIXES, WanConfig, read_overrides

# `wan/configs/shared_config.py`, `wan_i2v_14B.py` and `__init__.py` of Wan 2.1.
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，"
    "残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，"
    "三条腿，背景人很多，倒着走"
)
NEGATIVE_I2V = "镜头晃动，" + NEGATIVE_PROMPT
NEGATIVE_FLF2V = "镜头切换，" + NEGATIVE_I2V

TEXT_ENCODER_HASH = "9c8818c2cbea55eca56c7b447df170da"
IMAGE_ENCODER_HASH = "5941c53e207d62f20f9025686193c40b"
# By latent channels.
VAE_HASHES = {16: "ccc42284ea13e1ad04693284c7a09be6", 48: "e1de6c02cdac79f8b739f4d3698cd216"}

SAMPLING = "sampling.json"

# What a name has behind it of a repository in diffusers' layout; publishers write it both ways.
DIFFUSERS = ("-Diffusers", "-diffusers")

MODELS_VARIABLE, COMFYUI_VARIABLE = "WANEDIT_MODELS", "COMFYUI"


@dataclass(frozen=True)
class Sampling:
    """Settings that a model was made for; a folder's own `sampling.json` overrides them."""

    num_inference_steps: int = 50
    shift: float = 5.0
    guidance_scale: float = 5.0
    fps: float = 16.0
    max_frames: int = 81
    negative_prompt: str = NEGATIVE_PROMPT
    size: str = "1280*720"
    full_size: bool = True
    """Whether the segment lengths that full-size models handle badly deserve a warning."""
    solver: str = "unipc"
    noise_levels: tuple[float, ...] = ()
    """Sigmas in the place of even ones that the shift moves."""
    guidance_scale_low: float | None = None
    """Guidance once the first of several experts has handed over; None for the same."""
    boundary: float = 0.9
    """The noise level that the high-noise expert of two answers down to (Wan 2.2, `wan/configs`)."""
    boundary_step_index: int | None = None
    """In its place, how many steps that expert takes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_levels", tuple(self.noise_levels))  # a list in JSON
        for name in ("num_inference_steps", "shift", "fps", "max_frames"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected a positive number")


@dataclass(frozen=True)
class Showable:
    """Which frames of a clip a model can be shown, and how firmly.

    Attributes:
        frames: "none", "first", "ends" (the first and the last) or "any".
        middle: what its mask says of a frame that is neither at the start nor at the end: 1 holds it as firmly as
            these, less more softly, 0 leaves it out; one number, or one for each expert, high noise first.
    """

    frames: Literal["none", "first", "ends", "any"]
    middle: tuple[float, ...] = (1.0,)

    def among(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """Those of `frames` that it can be shown in a clip of so many."""
        shown = {"none": (), "first": (0,), "ends": (0, num_frames - 1)}
        return tuple(frame for frame in frames if self.frames == "any" or frame in shown[self.frames])

    def held(self, asked: float | Sequence[float] | None, experts: int) -> tuple[float, ...]:
        """`middle`, or what is asked for in its place.

        Raises:
            InputError: numbers for more or fewer transformers than there are.
        """
        if asked is None:
            return self.middle[:experts]
        given = tuple(asked) if isinstance(asked, Sequence) else (asked,)
        if len(given) not in (1, experts):
            raise InputError(
                f"middle_strength is {list(given)}; expected one number or, for each of {experts} transformers, one"
            )
        return given


# Of a model that no entry says more of.
SHOWABLE = {
    "t2v": Showable("none"),
    "i2v": Showable("first"),
    "flf2v": Showable("ends"),
    "ti2v": Showable("first"),
    "vace": Showable("any"),
}
ANY_FRAME = Showable("any")
# For messages.
SHOWN = {
    "none": "no frame",
    "first": "the first frame alone",
    "ends": "the first and the last frame alone",
    "any": "any frames",
}


@dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes:
        repository: where it is published: owner/name on the Hugging Face hub.
        transformer_hash: None where none is published; of two experts, of either.
        aliases: further names. "WAN-1.3B" and "WAN-14B" are those of the original's editor. The inpainting models are
            meant, which do both jobs: they can be shown any keyframe, the text-only models of these sizes none.
        about: what whoever uses it must know of it at once; "" for nothing.
        showable: None for what models of its type can be shown.
        experts: of how many transformers it is made.
    """

    name: str
    config: WanConfig
    sampling: Sampling
    repository: str
    transformer_hash: str | None
    aliases: tuple[str, ...] = field(default=())
    bundled: bool = False
    about: str = ""
    showable: Showable | None = None
    experts: int = 1

    @property
    def shows(self) -> Showable:
        """Which frames it can be shown."""
        return self.showable or SHOWABLE[self.config.model_type]

    def download(self, folder: Path) -> str:
        """The command line that brings its files into a folder."""
        return f"wanedit models download {self.name} --to {shlex.quote(str(folder))}"


def _config(model_type: str, dim: int, ffn_dim: int, heads: int, layers: int, **other) -> WanConfig:
    in_dim = 16 if model_type in ("t2v", "vace") else 36
    return WanConfig(model_type, dim, ffn_dim, heads, layers, in_dim, **other)


def _14b(model_type: str, **other) -> WanConfig:
    return _config(model_type, 5120, 13824, 40, 40, **other)


def _1_3b(model_type: str, **other) -> WanConfig:
    return _config(model_type, 1536, 8960, 12, 30, **other)


def _5b(in_dim: int) -> WanConfig:
    return WanConfig("ti2v", 3072, 14336, 24, 30, in_dim, out_dim=48)


TINY = KnownModel(
    "wan-tiny",
    WanConfig("flf2v", 192, 768, 6, 8, 36, text_len=64, text_dim=128, image_dim=128),
    Sampling(negative_prompt="", full_size=False),
    "wanedit itself",
    None,
    ("tiny",),
    bundled=True,
    about="a test model of drawn shapes, 21 MB: it shows that everything works here, not what Wan can do. A published "
    "model takes its place by its name (--model NAME; `wanedit models` lists them)",
    showable=ANY_FRAME,
)

KNOWN_MODELS = (
    TINY,
    KnownModel(
        "Wan2.1-FLF2V-14B-720P",
        _14b("flf2v"),
        Sampling(shift=16.0, negative_prompt=NEGATIVE_FLF2V),
        "Wan-AI/Wan2.1-FLF2V-14B-720P",
        "3ef3b1f8e1dab83d5b71fd7b617f859f",
        ("FLF2V-14B",),
    ),
    KnownModel(
        "Wan2.1-I2V-14B-480P",
        _14b("i2v"),
        Sampling(num_inference_steps=40, shift=3.0, negative_prompt=NEGATIVE_I2V, size="832*480"),
        "Wan-AI/Wan2.1-I2V-14B-480P",
        "6bfcfb3b342cb286ce886889d519a77e",
    ),
    KnownModel(
        "Wan2.1-I2V-14B-720P",
        _14b("i2v"),
        Sampling(num_inference_steps=40, negative_prompt=NEGATIVE_I2V),
        "Wan-AI/Wan2.1-I2V-14B-720P",
        "6bfcfb3b342cb286ce886889d519a77e",
    ),
    KnownModel(
        "Wan2.1-T2V-1.3B",
        _1_3b("t2v"),
        Sampling(shift=8.0, guidance_scale=6.0, size="832*480"),
        "Wan-AI/Wan2.1-T2V-1.3B",
        "9269f8db9040a9d860eaca435be61814",
    ),
    KnownModel(
        "Wan2.1-T2V-14B",
        _14b("t2v"),
        Sampling(),
        "Wan-AI/Wan2.1-T2V-14B",
        "aafcfd9672c3a2456dc46e1cb6e52c70",
    ),
    KnownModel(
        "Wan2.1-Fun-1.3B-InP",
        _1_3b("i2v"),
        Sampling(num_inference_steps=50, shift=5.0, guidance_scale=6.0, size="832*480"),
        "alibaba-pai/Wan2.1-Fun-1.3B-InP",
        "6d6ccde6845b95ad9114ab993d917893",
        ("WAN-1.3B", "Fun-1.3B", "1.3B"),
        showable=ANY_FRAME,
    ),
    KnownModel(
        "Wan2.1-Fun-14B-InP",
        _14b("i2v"),
        Sampling(num_inference_steps=50, shift=5.0, guidance_scale=6.0),
        "alibaba-pai/Wan2.1-Fun-14B-InP",
        "6bfcfb3b342cb286ce886889d519a77e",
        ("WAN-14B", "Fun-14B", "14B"),
        showable=ANY_FRAME,
    ),
    # `vace/models/wan/configs` and `wan_vace.py` of VACE; hints at every second and at every fifth block.
    KnownModel(
        "Wan2.1-VACE-1.3B",
        _1_3b("vace", vace_layers=tuple(range(0, 30, 2)), vace_in_dim=96),
        Sampling(shift=16.0, size="832*480"),
        "Wan-AI/Wan2.1-VACE-1.3B",
        "a61453409b67cd3246cf0c3bebad47ba",
        ("VACE-1.3B",),
    ),
    KnownModel(
        "Wan2.1-VACE-14B",
        _14b("vace", vace_layers=tuple(range(0, 40, 5)), vace_in_dim=96),
        Sampling(shift=16.0),
        "Wan-AI/Wan2.1-VACE-14B",
        "7a513e1f257a861512b1afd387a8ecd9",
        ("VACE-14B",),
    ),
    # Retrained, sizes and settings as they were (VideoX-Fun, `examples/wan2.1_fun`).
    KnownModel(
        "Wan2.1-Fun-V1.1-1.3B-InP",
        _1_3b("i2v"),
        Sampling(guidance_scale=6.0, size="832*480"),
        "alibaba-pai/Wan2.1-Fun-V1.1-1.3B-InP",
        "6d6ccde6845b95ad9114ab993d917893",
        showable=ANY_FRAME,
    ),
    KnownModel(
        "Wan2.1-Fun-V1.1-14B-InP",
        _14b("i2v"),
        Sampling(guidance_scale=6.0),
        "alibaba-pai/Wan2.1-Fun-V1.1-14B-InP",
        "6bfcfb3b342cb286ce886889d519a77e",
        showable=ANY_FRAME,
    ),
    # Wan 2.2, `wan/configs/wan_t2v_A14B.py`.
    KnownModel(
        "Wan2.2-T2V-A14B",
        _14b("t2v"),
        Sampling(
            num_inference_steps=40, shift=12.0, guidance_scale=4.0, guidance_scale_low=3.0, boundary=0.875
        ),
        "Wan-AI/Wan2.2-T2V-A14B",
        "aafcfd9672c3a2456dc46e1cb6e52c70",
        experts=2,
    ),
    KnownModel(
        "Wan2.2-I2V-A14B",
        _14b("i2v", image_tokens=False),
        Sampling(num_inference_steps=40, guidance_scale=3.5),
        "Wan-AI/Wan2.2-I2V-A14B",
        "5b013604280dd715f8457c6ed6d6a626",
        # Practice of its users (ComfyUI-Wan22FMLF): 0.6 to 0.8 and 0 to 0.2, without which the middle flashes.
        showable=Showable("any", middle=(0.7, 0.2)),
        experts=2,
    ),
    # VideoX-Fun, `examples/wan2.2_fun/predict_i2v.py` and `predict_i2v_5b.py`, `config/wan2.2`.
    KnownModel(
        "Wan2.2-Fun-A14B-InP",
        _14b("i2v", image_tokens=False),
        Sampling(guidance_scale=6.0, size="832*480"),
        "alibaba-pai/Wan2.2-Fun-A14B-InP",
        "5b013604280dd715f8457c6ed6d6a626",
        showable=ANY_FRAME,
        experts=2,
    ),
    # Wan 2.2, `wan/configs/wan_ti2v_5B.py` and `__init__.py`.
    KnownModel(
        "Wan2.2-TI2V-5B",
        _5b(48),
        Sampling(fps=24.0, max_frames=121, size="1280*704"),
        "Wan-AI/Wan2.2-TI2V-5B",
        "1f5ab7703c6fc803fdded85ff040c316",
        ("TI2V-5B",),
    ),
    KnownModel(
        "Wan2.2-Fun-5B-InP",
        _5b(100),
        Sampling(guidance_scale=6.0, fps=24.0, max_frames=121, size="1280*704"),
        "alibaba-pai/Wan2.2-Fun-5B-InP",
        None,
        showable=ANY_FRAME,
    ),
)


def find_known(name: str) -> KnownModel | None:
    """The model of this name, alias or hub id, letter case aside."""
    wanted = name.lower()
    for model in KNOWN_MODELS:
        if wanted in (known.lower() for known in (model.name, model.repository, *model.aliases)):
            return model
    return None


def fitting(config: WanConfig, experts: int) -> list[KnownModel]:
    """The known models of exactly these sizes: I2V-14B at 480P and at 720P and Fun-14B-InP are one layout.

    Of as many transformers, if there are any: T2V-14B is one of the size of T2V-A14B's two.
    """
    models = [model for model in KNOWN_MODELS if model.config == config]
    return [model for model in models if model.experts == experts] or models


def recognise(config: WanConfig, path: Path, experts: int = 1) -> KnownModel | None:
    """The one known model of these sizes or, of several, the one that a part of the path names.

    A hub's cache names the model in a parent folder (`models--Wan-AI--Wan2.1-I2V-14B-720P/snapshots/…`); an alias must
    be a folder's whole name. None when nothing fits, or several do and no name decides.
    """
    models, parts = fitting(config, experts), [part.lower() for part in path.parts]
    if len(models) > 1:
        models = [
            model
            for model in models
            if any(model.name.lower() in part for part in parts)
            or any(alias.lower() in parts for alias in model.aliases)
        ]
    return models[0] if len(models) == 1 else None


def sampling_in(path: Path, known: KnownModel | None) -> Sampling:
    """The settings that a folder's model was made for: its own sampling.json over those of the known model."""
    if not (path / SAMPLING).is_file() and known is not None and known.bundled:
        path = locate(known.name)  # wan-tiny in another format
    own = read_overrides(path / SAMPLING, asdict(Sampling()))
    return replace(known.sampling if known else Sampling(), **own)


def model_roots() -> list[Path]:
    """The folders that models and LoRAs are looked for in; the last is ComfyUI's."""
    extra = os.environ.get(MODELS_VARIABLE, "").split(os.pathsep)
    comfy = at_home(os.environ.get(COMFYUI_VARIABLE) or "~/ComfyUI") / "models"
    return [Path.cwd(), Path.cwd() / "models", *(at_home(root) for root in extra if root), comfy]


def locate_lora(path: Path) -> Path:
    """A LoRA's file or folder: as it is said, else in the folder `loras` of where models are; as said if nowhere."""
    places = [at_home(path), *(root / "loras" / path for root in model_roots())]
    return next((place for place in places if place.exists()), path)


def _cached(repository: str) -> Path | None:
    """The snapshot of a repository in the hub's cache, or of its twin in diffusers' layout."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for name in (repository, *(repository + ending for ending in DIFFUSERS)):
        # Not there, or a part of it alone, which a download completes; or a path that is no name.
        with contextlib.suppress(LocalEntryNotFoundError, HFValidationError):
            return Path(snapshot_download(name, local_files_only=True))
    return None


def _single_file(known: "KnownModel", roots: list[Path]) -> Path | None:
    """The one file in ComfyUI's folders whose name says all that the model's name says, of two experts the first.

    Raises:
        MissingWeightsError: several do.
    """

    def words(name: str) -> set[str]:
        # LightX2V writes "i2v_A14b".
        said = re.sub(r"(?<=[-_])a14b", "14b", name.lower()).replace("inpaint", "inp")
        return set(re.split(r"[-_]", said))

    # Whose names say more than this one's: a file that says that too is theirs.
    closer = [words(other.name) for other in KNOWN_MODELS if words(known.name) < words(other.name)]

    # Two roots may be one folder, in which the command is given.
    folders = dict.fromkeys(
        (root / name).resolve() for root in roots for name in ("diffusion_models", "unet")
    )
    files = [
        file
        for folder in folders
        for file in sorted(folder.glob("**/*.*"))
        if file.suffix in (".safetensors", ".gguf")
        and words(known.name) <= words(file.stem)
        and not any(more <= words(file.stem) for more in closer)
    ]
    files = [file for file in files if twin(file) is None or "high" in file.stem.lower()]
    if len(files) > 1:
        names = ", ".join(map(str, files))
        raise MissingWeightsError(f"{known.name} may be {names}; choose one by --model FILE")
    return files[0] if files else None


def twin(file: Path) -> Path | None:
    """The other expert's file: "high" in the one's name is "low" in the other's."""
    other = re.sub(
        r"(?i)(?<![a-z])(high|low)(?![a-z])",
        lambda found: {"high": "low", "low": "high"}.get(found[0], found[0]),
        file.stem,
    )
    path = file.with_stem(other)
    return path if path != file and path.is_file() else None


def require_weights(path: Path) -> None:
    """See by names alone that a folder holds weights, as deep as any layout has them.

    Raises:
        MissingWeightsError: it holds no file that could be any.
    """
    files = (file for pattern in ("*", "*/*") for file in path.glob(pattern))
    if path.is_dir() and not any(set(file.suffixes).intersection(SUFFIXES) for file in files):
        raise MissingWeightsError(
            f"{path} has no diffusion_pytorch_model*.safetensors and no diffusion_pytorch_model*.pth, nor any other "
            f"file of weights ({', '.join(SUFFIXES)})"
        )


def locate(source: str) -> Path:
    """The folder of a known name or of a repository in the hub's cache, or the folder or file of a path ("./name" of a
    known name).

    Raises:
        MissingWeightsError: a known model that is not on this machine, or a path without a folder; the message says
            which folders were looked for and how to download it.
        InputError: neither a folder nor a known name.
    """
    path, known = at_home(source), find_known(source)
    if known is not None and known.bundled:
        return Path(__file__).parent.parent / "assets" / "wan-tiny"
    if known is not None:
        *roots, comfy = model_roots()
        names = (known.name, known.repository, *known.aliases)
        for place in (root / f"{name}{end}" for root in roots for end in ("", *DIFFUSERS) for name in names):
            if place.is_dir():
                return place
        if found := _cached(known.repository) or _single_file(known, [*roots, comfy]):
            return found
        looked, target = [*(root / known.name for root in roots), comfy], Path("models") / known.name
    else:
        # A name too long for any file is no folder; there, pathlib raises.
        with contextlib.suppress(OSError):
            if source and (path.is_dir() or path.is_file()):
                return path
        if path.parent == Path() or len(source) > 200:
            name = source if len(source) < 200 else f"{source[:200]}…"
            raise InputError(
                f"model {name!r} is neither a file, a folder nor a known model; `wanedit models` lists them"
            )
        if source.count("/") == 1 and (found := _cached(source)):
            return found
        known, looked, target = find_known(path.name), [path.absolute()], path
    missing = f"no folder {' or '.join(map(str, looked))}"
    if known is None:
        raise MissingWeightsError(
            f"model {source}: {missing}; expected the folder or file of a checkpoint, a name of `wanedit models`, or a "
            "repository of the hub, as owner/name, that `wanedit models download` has fetched"
        )
    raise MissingWeightsError(
        f"{known.name} is not on this machine: {missing}. Download it:\n"
        f"  {known.download(target)}\n"
        f"or name its folder, or set {MODELS_VARIABLE} to the folder that holds it"
    )
