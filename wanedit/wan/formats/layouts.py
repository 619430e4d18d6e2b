"""Layouts: where the parts of a model lie, in an official or a diffusers folder, or in single files as for ComfyUI.

A `Source` answers for each part with its files and with what is said of its sizes, in official words. Files that were
chosen by name come before whatever a layout would find.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from wanedit.errors import MissingWeightsError
from wanedit.files import Json, at_home, reading
from wanedit.wan.catalog import twin
from wanedit.wan.config import (
    IMAGE,
    PARTS,
    SUFFIXES,
    TEXT,
    TOKENIZER,
    TRANSFORMER,
    TRANSFORMER_LOW,
    VAE,
    WanConfig,
    read_model_json,
)
from wanedit.wan.formats.names import officially, parts_in, what_it_is
from wanedit.wan.formats.numbers import Weights
from wanedit.wan.formats.tensors import metadata, read_file

OFFICIAL_TOKENIZER = Path("google", "umt5-xxl")
EXPERTS = {TRANSFORMER: "high_noise_model", TRANSFORMER_LOW: "low_noise_model"}
STEMS = {
    TRANSFORMER: "diffusion_pytorch_model",
    VAE: "Wan2.1_VAE",
    TEXT: "models_t5_umt5-xxl-enc",
    IMAGE: "models_clip_open-clip-xlm-roberta-large-vit-huge-14",
}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Source(ABC):
    """Where the parts of one model are. Nothing but names and headers is read.

    Attributes:
        path: the folder or file that the user named.
        chosen: part -> the file or folder that is taken for it, whatever the layout has.
        layout: what messages call it.
    """

    path: Path
    chosen: Mapping[str, Path] = field(default_factory=dict)
    layout: ClassVar[str]

    def files(self, part: str) -> list[Path]:
        """The files of a part.

        Raises:
            MissingWeightsError: there are none, some are missing, or several could be meant.
        """
        return _shards(self.chosen[part], part) if part in self.chosen else self.found(part)

    def config(self, part: str) -> tuple[Json, Path]:
        """What is said of a part's sizes, in official words, {} for nothing; and the file that says it, or could.

        Raises:
            MissingWeightsError: the file cannot be read.
        """
        place = self.chosen.get(part)
        if place is None:
            path = self.config_file(part)
        else:
            path = place.with_suffix(".json") if place.is_file() else place / "config.json"
            own, theirs = self.config_file(part), path.with_name("config.json")
            if not path.is_file() and own.parent == path.parent:  # one of several in the model's folder
                path = own
            if not path.is_file() and theirs.is_file() and _TELLS.get(part, "") in read_model_json(theirs):
                path = theirs  # a file out of a diffusers folder
        if not path.is_file():
            return {}, path
        values = read_model_json(path)
        with reading(path, "the sizes of a part of Wan", MissingWeightsError):
            return _in_official_words(values), path

    @property
    def transformers(self) -> tuple[str, ...]:
        """The one transformer, or the two experts of Wan 2.2, high noise first."""
        if TRANSFORMER_LOW in self.chosen or (TRANSFORMER not in self.chosen and self.has_experts):
            return TRANSFORMER, TRANSFORMER_LOW
        return (TRANSFORMER,)

    def tokenizer(self) -> Path:
        """The tokenizer's folder, or the text encoder's file that holds it as `spiece_model`.

        Raises:
            MissingWeightsError: one of its files is absent.
        """
        path = self.chosen.get(TOKENIZER) or self.tokenizer_place
        missing = [name for name in TOKENIZER_FILES if not (path / name).is_file()]
        if missing and not path.is_file():
            raise MissingWeightsError(f"{path} lacks {', '.join(missing)}; expected the UMT5 tokenizer")
        return path

    @abstractmethod
    def found(self, part: str) -> list[Path]:
        """As `files`, of this layout."""

    @abstractmethod
    def config_file(self, part: str) -> Path:
        """Where this layout says a part's sizes."""

    @property
    @abstractmethod
    def has_experts(self) -> bool:
        """Whether this layout has two transformers."""

    @property
    @abstractmethod
    def tokenizer_place(self) -> Path:
        """Where this layout has the tokenizer."""


class OfficialFolder(Source):
    """As Wan-AI and VideoX-Fun publish; a part under another file name, as LightX2V has them, is known by content."""

    layout = "official folder"

    def found(self, part: str) -> list[Path]:
        folder = self._folder(part)
        stem = STEMS.get(part, STEMS[TRANSFORMER])
        if not any(folder.glob(f"{stem}*")) and (others := holding([folder], part)):
            return only(others, part)
        return find_weights(folder, stem)

    def config_file(self, part: str) -> Path:
        named = {VAE: "vae_config.json", TEXT: "text_encoder_config.json", IMAGE: "image_encoder_config.json"}
        return self._folder(part) / named.get(part, "config.json")

    def _folder(self, part: str) -> Path:
        return self.path / EXPERTS[part] if part in EXPERTS and self.has_experts else self.path

    @property
    def has_experts(self) -> bool:
        return (self.path / EXPERTS[TRANSFORMER]).is_dir()

    @property
    def tokenizer_place(self) -> Path:
        return self.path / OFFICIAL_TOKENIZER


class DiffusersFolder(Source):
    """As `DiffusionPipeline.save_pretrained` writes it: model_index.json and a folder for each part."""

    layout = "diffusers folder"

    def found(self, part: str) -> list[Path]:
        folder = self.config_file(part).parent
        if not folder.is_dir():
            raise MissingWeightsError(f"{self.path} has no folder {folder.name}; expected the {part} there")
        return find_weights(folder, "diffusion_pytorch_model" if part not in (TEXT, IMAGE) else "model")

    def config_file(self, part: str) -> Path:
        folders = {
            TRANSFORMER: "transformer",
            TRANSFORMER_LOW: "transformer_2",
            VAE: "vae",
            TEXT: "text_encoder",
        }
        return self.path / folders.get(part, "image_encoder") / "config.json"

    @property
    def has_experts(self) -> bool:
        return (self.path / "transformer_2").is_dir()

    @property
    def tokenizer_place(self) -> Path:
        return self.path / "tokenizer"


class SingleFiles(Source):
    """A transformer's file, or a folder of files: the others lie in the folders that ComfyUI has for them, or beside.

    `NAME.json` beside `NAME.safetensors` says sizes that are not the published ones.
    """

    layout = "single files"
    kinds: ClassVar = {
        TRANSFORMER: ("diffusion_models", "unet", "checkpoints"),
        VAE: ("vae", "checkpoints"),
        TEXT: ("text_encoders", "clip", "checkpoints"),
        IMAGE: ("clip_vision",),
    }

    def found(self, part: str) -> list[Path]:
        if part in (TRANSFORMER, TRANSFORMER_LOW):
            experts = self._experts()
            return experts[0 if part == TRANSFORMER else 1] if experts else only(self._transformers(), part)
        here = [self.path] if self.path.is_file() else []
        folders = [self._root / name for name in self.kinds[part] if (self._root / name).is_dir()]
        return only(holding([*here, *(folders or [self._root])], part), part)

    def config_file(self, part: str) -> Path:
        try:
            return self.found(part)[0].with_suffix(".json")
        except MissingWeightsError:  # which `files` tells
            return self._root / f"{part}.json"

    def _transformers(self) -> list[list[Path]]:
        if self.path.is_file():
            other = twin(self.path)
            return holding([self.path, *([other] if other else [])], TRANSFORMER)
        folders = [self._root / name for name in self.kinds[TRANSFORMER] if (self._root / name).is_dir()]
        return holding(folders or [self._root], TRANSFORMER)

    def _experts(self) -> list[list[Path]] | None:
        files = self._transformers()
        pair = [
            [one for one in files if re.search(word, one[0].stem, re.IGNORECASE)] for word in ("high", "low")
        ]
        return [pair[0][0], pair[1][0]] if len(files) == 2 and [len(one) for one in pair] == [1, 1] else None

    @property
    def has_experts(self) -> bool:
        return self._experts() is not None

    @property
    def _root(self) -> Path:
        if not self.path.is_file():
            return self.path
        inside = self.path.parent
        return inside.parent if inside.name in self.kinds[TRANSFORMER] else inside

    @property
    def tokenizer_place(self) -> Path:
        for folder in (self._root / OFFICIAL_TOKENIZER, self._root / "tokenizer"):
            if folder.is_dir():
                return folder
        return self.found(TEXT)[0]


def open_source(path: Path, chosen: Mapping[str, str | Path] | None = None) -> Source:
    """Which layout a folder or file has.

    Args:
        chosen: part, as a key of `wanedit.wan.config.PARTS`, -> file or folder.

    Raises:
        MissingWeightsError: the file is no part of a Wan, or a chosen one is not there.
    """
    parts = {PARTS[name]: at_home(place) for name, place in (chosen or {}).items()}
    for part, place in parts.items():
        if not place.exists():
            raise MissingWeightsError(f"{part} {place}: there is no such file or folder")
    if path.is_file():
        if TRANSFORMER not in parts and TRANSFORMER not in parts_in(names_in(path)):
            kind = metadata(path).get("general.architecture") if not parts_in(names_in(path)) else None
            what = f"a GGUF of the architecture {kind!r}" if kind else what_it_is(names_in(path))
            raise MissingWeightsError(f"{path} is {what}; expected the transformer of a Wan")
        return SingleFiles(path, parts)
    if (path / "model_index.json").is_file():
        return DiffusersFolder(path, parts)
    folders = {name for names in SingleFiles.kinds.values() for name in names}
    official = ("config.json", *(f"{stem}*" for stem in STEMS.values()), *EXPERTS.values())
    bare = not any(any(path.glob(pattern)) for pattern in official)
    if bare and (any((path / name).is_dir() for name in folders) or any(_weights(path))):
        return SingleFiles(path, parts)
    return OfficialFolder(path, parts)


def weights_of(source: Source, part: str) -> Weights:
    """The tensors of a part under official names, none read yet.

    Raises:
        MissingWeightsError: no such files, or they hold something else.
    """
    found = Weights.of(source.files(part))
    kind = TRANSFORMER if part == TRANSFORMER_LOW else part
    return Weights(found.files, officially(found.entries, kind, str(found.files[0])))


def transformer_sizes(source: Source) -> WanConfig:
    """The sizes of a model's transformer, as its config says, or its tensors.

    Raises:
        MissingWeightsError: its files are no transformer of a Wan.
        InputError: the config has an unknown key or a wrong value.
    """
    weights = weights_of(source, TRANSFORMER)
    said, path = source.config(TRANSFORMER)
    with reading(weights.files[0], "the transformer of a Wan", MissingWeightsError):
        sizes = WanConfig.sizes_of(weights.shapes)
    if not said and sizes["dim"] % WanConfig.HEAD_DIM:
        raise MissingWeightsError(f"{path} does not exist; expected it beside the weights, to say num_heads")
    # What tensors say is sure; the config of a model may still say what it was made from.
    sure = {"image_tokens"}
    if said.get("model_type") == "t2v" or sizes["model_type"] in ("vace", "ti2v"):
        sure.add("model_type")
    return WanConfig.from_dict(sizes | said | {name: sizes[name] for name in sure}, str(path))


def require_fitting_vae(source: Source, config: WanConfig) -> None:
    """See that transformer and VAE speak of the same latents.

    Raises:
        MissingWeightsError: they have another number of channels.
    """
    try:
        channels = weights_of(source, VAE).shapes.get("conv2.weight", (config.out_dim,))[0]
    except MissingWeightsError:
        return  # which `load.require_parts` tells, with what to do about it
    if channels != config.out_dim:
        raise MissingWeightsError(
            f"{source.path}: the transformer has {config.out_dim} latent channels and the VAE {channels}; expected "
            "the VAE of the same model: Wan 2.2 TI2V-5B has one of 48, all others share one of 16"
        )


def holding(places: Iterable[Path], part: str) -> list[list[Path]]:
    """The files, or groups of shards, among files and folders that hold a part."""
    part = TRANSFORMER if part == TRANSFORMER_LOW else part
    files = [file for place in places for file in ([place] if place.is_file() else _weights(place))]
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(
            re.sub(r"-\d{5}-of-\d{5}$", "", str(file.with_suffix(""))) + file.suffix, []
        ).append(file)
    return [
        group
        for group in groups.values()
        if part in parts_in(frozenset().union(*(names_in(file) for file in group)))
    ]


def only(groups: list[list[Path]], part: str) -> list[Path]:
    """The one group of files.

    Raises:
        MissingWeightsError: there is none, or there are several.
    """
    flag = "--" + next(name for name, kind in PARTS.items() if kind == part)
    if not groups:
        raise MissingWeightsError(f"no file holds the {part}; name one by {flag} FILE")
    if len(groups) > 1:
        names = ", ".join(group[0].name for group in groups)
        raise MissingWeightsError(f"{len(groups)} files hold a {part}: {names}; choose one by {flag} FILE")
    return groups[0]


def _weights(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix in SUFFIXES and file.is_file())


def names_in(path: Path) -> frozenset[str]:
    """Names of a file's tensors, remembered until it changes."""
    status = path.stat()
    return _names_in(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _names_in(path: Path, size: int, changed: int) -> frozenset[str]:
    return frozenset(read_file(path))


def _shards(place: Path, part: str) -> list[Path]:
    """Of a chosen file or folder."""
    if place.is_file():
        sharded = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})", place.stem)
        if sharded:
            return find_weights(place.parent, sharded[1])
        return [place]
    return only(holding([place], part), part)


def find_weights(folder: Path, stem: str) -> list[Path]:
    """Files of one part: `stem*.safetensors` (one, or the shards of an index), else `stem*.pth`.

    Raises:
        MissingWeightsError: nothing matches, several files without an index, or a shard is absent.
    """
    indices = sorted(folder.glob(f"{stem}*.safetensors.index.json"))
    if len(indices) > 1:
        names = ", ".join(index.name for index in indices)
        raise MissingWeightsError(f"{folder} holds {names}; expected one index")
    if indices:
        weight_map = read_model_json(indices[0]).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise MissingWeightsError(f"{indices[0]} has no weight_map")
        # Names come from a file: only the name itself counts, never a path out of the folder.
        names = sorted({Path(str(name)).name for name in weight_map.values()})
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise MissingWeightsError(
                f"{folder} lacks {len(missing)} of {len(names)} shards: {', '.join(missing)}"
            )
        return [folder / name for name in names]
    for suffix in (".safetensors", ".pth"):
        files = sorted(folder.glob(f"{stem}*{suffix}"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise MissingWeightsError(
                f"{folder} holds {names} and no index; expected one file, or an index.json"
            )
        if files:
            return files
    raise MissingWeightsError(f"{folder} has no {stem}*.safetensors and no {stem}*.pth")


# Keys that a config.json of diffusers or transformers has of one part alone.
_TELLS = {TRANSFORMER: "attention_head_dim", VAE: "base_dim", TEXT: "d_model", IMAGE: "num_hidden_layers"}


def _in_official_words(values: Json) -> Json:
    """A config.json of diffusers or transformers in the words of the official ones; any other as it is.

    Source: diffusers, `transformer_wan.py` and `autoencoder_kl_wan.py`; transformers, `configuration_umt5.py` and
    `configuration_clip.py`.
    """
    if _TELLS[TRANSFORMER] in values:
        model_type = "t2v" if values["in_channels"] == values["out_channels"] else "i2v"
        if values.get("pos_embed_seq_len"):
            model_type = "flf2v"
        if values.get("vace_layers"):
            model_type = "vace"
        sizes = {
            "model_type": model_type,
            "dim": values["num_attention_heads"] * values["attention_head_dim"],
            "num_heads": values["num_attention_heads"],
            "in_dim": values["in_channels"],
            "out_dim": values["out_channels"],
            "image_dim": values.get("image_dim"),
            "vace_in_dim": values.get("vace_in_channels"),
        }
        names = (
            "num_layers",
            "vace_layers",
            "ffn_dim",
            "freq_dim",
            "text_dim",
            "text_len",
            "eps",
            "patch_size",
        )
        same = {n: values.get(n) for n in names}
    elif _TELLS[VAE] in values:
        own = values["base_dim"] if values.get("is_residual") else None
        sizes = {"dim": values["base_dim"], "dec_dim": values.get("decoder_base_dim") or own}
        names = ("z_dim", "dim_mult", "num_res_blocks", "attn_scales", "temperal_downsample")
        same = {n: values.get(n) for n in (*names, "dropout", "latents_mean", "latents_std")}
    elif _TELLS[TEXT] in values:
        sizes = {
            "vocab": values["vocab_size"],
            "dim": values["d_model"],
            "dim_attn": values["d_kv"] * values["num_heads"],
            "dim_ffn": values["d_ff"],
            "num_buckets": values["relative_attention_num_buckets"],
        }
        same = {n: values.get(n) for n in ("num_heads", "num_layers")}
    elif _TELLS[IMAGE] in values:
        sizes = {
            "dim": values["hidden_size"],
            "mlp_ratio": values["intermediate_size"] / values["hidden_size"],
            "num_heads": values["num_attention_heads"],
            "num_layers": values["num_hidden_layers"],
            "out_dim": values.get("projection_dim"),
        }
        same = {n: values.get(n) for n in ("image_size", "patch_size")}
    else:
        return values
    return {name: value for name, value in (sizes | same).items() if value is not None}
