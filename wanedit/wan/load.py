"""A Wan folder, known by name or path, and the modules that it holds."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from wanedit.errors import MissingWeightsError
from wanedit.files import Json
from wanedit.wan.catalog import (
    SHOWABLE,
    TEXT_ENCODER_HASH,
    TINY,
    VAE_HASHES,
    KnownModel,
    Sampling,
    Showable,
    find_known,
    locate,
    locate_lora,
    recognise,
    sampling_in,
)
from wanedit.wan.checkpoint import DtypeOf, Part, difference, layout_hash, module_shapes, sha256
from wanedit.wan.condition import (
    ImageEncoder,
    TextEncoder,
    image_part,
    load_image_encoder,
    load_text_encoder,
    text_part,
)
from wanedit.wan.config import TRANSFORMER_LOW, VAE, ChosenLora, LatentSpace, WanConfig, checked
from wanedit.wan.distilled import Distilled, find_distilled
from wanedit.wan.formats.layouts import Source, open_source, require_fitting_vae, transformer_sizes
from wanedit.wan.formats.lora import Lora
from wanedit.wan.packed import packable
from wanedit.wan.transformer import Experts, WanTransformer
from wanedit.wan.vae import OFFICIAL, WanVAE, build_vae, latent_space

TRAIN_TIMESTEPS = 1000.0
# Bytes of weights that take a disk several seconds to read: whoever waits is told why.
SLOW_TO_HASH = 4e9

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

    source: Source
    config: WanConfig
    sampling: Sampling
    known: KnownModel | None
    loras: tuple[Lora, ...] = ()
    distilled: Distilled | None = None

    @property
    def path(self) -> Path:
        """The folder or file that it was opened by."""
        return self.source.path

    @property
    def name(self) -> str:
        return self.known.name if self.known else self.path.name

    @property
    def about(self) -> str:
        """What whoever uses it must know of it at once; "" for nothing."""
        return f"{self.known.name} is {self.known.about}" if self.known and self.known.about else ""

    @property
    def latent_space(self) -> LatentSpace:
        """What its VAE makes of pixels. Raises MissingWeightsError where there is none."""
        return latent_space(read_vae_config(self.source))

    @property
    def experts(self) -> int:
        """Of how many transformers it is made."""
        return len(self.source.transformers)

    def handovers(self, boundary_timestep: float | None) -> tuple[float, ...]:
        """The timesteps of `phases` but the last: falling, where another network takes over."""
        return tuple(bottom for _, bottom in phases(self, boundary_timestep)[:-1])

    @property
    def notes(self) -> list[str]:
        """What whoever uses it must know of its LoRAs, and of settings that its files' names decided."""
        told = [note for lora in self.loras for note in lora.notes]
        return told if self.distilled is None else [*told, self.distilled.note(self.sampling)]

    @property
    def reads_images(self) -> bool:
        """Whether it has condition channels, or is shown a first frame in place."""
        return self.config.reads_images

    @property
    def reads_appended(self) -> bool:
        """Whether it has condition channels, which tell of any slot."""
        return bool(self.config.condition_channels)

    @property
    def reads_video(self) -> bool:
        """Whether it reads a video and a mask of where to change it."""
        return self.config.model_type == "vace"

    @property
    def shows(self) -> Showable:
        """Which frames it can be shown."""
        return self.known.shows if self.known else SHOWABLE[self.config.model_type]

    def showable(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """Those of `frames` that its condition channels were trained to show."""
        return self.shows.among(frames, num_frames)

    def held(self, asked: float | Sequence[float] | None) -> tuple[float, ...]:
        """How firmly its transformers hold a frame in the middle of a clip. Raises InputError as `Showable.held`."""
        return self.shows.held(asked, len(self.source.transformers))


def default_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 on an accelerator, as the official code computes; float32 on a CPU, where it is faster."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def text_dtype(source: Source, device: torch.device | str) -> torch.dtype:
    """Of the text encoder: as `default_dtype`, but bfloat16 on a CPU, too, where it is UMT5-XXL.

    So the official code runs it anywhere (`wan/configs/shared_config.py`, t5_dtype); in float32 it would be 23 GB.
    """
    large = text_part(source).num_weights() > 1e9
    return torch.bfloat16 if large else default_dtype(device)


def compute_kind() -> str:
    """Accelerator and number format: a run resumed on another would mix pixels of two kinds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"{device} {default_dtype(device)}"


def open_wan(
    source: str | Path,
    parts: Mapping[str, str | Path] | None = None,
    loras: Sequence[ChosenLora] = (),
    lora_partial: bool = False,
    distilled: str = "auto",
) -> WanFolder:
    """Find a model by folder, file or known name and read its sizes. Loads no weight.

    A known name other than "tiny" is looked for in the current folder, in its folder `models` and in $WANEDIT_MODELS.

    Args:
        parts: files or folders of single parts, by the names in `wanedit.wan.config.PARTS`.
        loras: that are merged into its transformers as they are loaded.
        lora_partial: leave out, with a note, what of a LoRA has no place in the model.
        distilled: whose settings it is sampled with, see `find_distilled`.

    Raises:
        MissingWeightsError: no such folder; the message says how to download the model. Or it holds no Wan. A LoRA is
            none, or does not fit.
        InputError: the name is neither a folder nor known, or a config has an unknown key.
    """
    found = open_source(locate(str(source)), parts)
    config = transformer_sizes(found)
    named = find_known(str(source))
    known = (
        named
        if named is not None and named.config == config
        else recognise(config, found.path.resolve(), len(found.transformers))
    )
    folder = WanFolder(found, config, sampling_in(found.path, known), known)
    if loras:
        bare = {part.name: part.weights().shapes for part in transformer_parts(folder)}
        fitted = (Lora.fitted(one, locate_lora(one.path), bare, lora_partial) for one in loras)
        folder = replace(folder, loras=tuple(fitted))
    files = [file for part in transformer_parts(folder) for file in part.files()]
    files += [lora.files[0] for lora in folder.loras if lora.chosen.strength]
    faster = find_distilled(distilled, [found.path, *files])
    if faster is None:
        return folder
    several = len(found.transformers) > 1
    return replace(folder, distilled=faster, sampling=faster.over(folder.sampling, several))


def transformer_dtype(dtype: torch.dtype) -> DtypeOf:
    """Which parameters are kept in `dtype`, and which in float32 whatever it is."""
    return lambda name: torch.float32 if any(part in name for part in _FLOAT32_PARTS) else dtype


def transformer_parts(folder: WanFolder) -> list[Part]:
    """The transformer, or the two experts of Wan 2.2, high noise first, each with every LoRA that is for it."""
    source = folder.source
    return [
        Part(name, source, lambda: WanTransformer(folder.config), loras=folder.loras)
        for name in source.transformers
    ]


def phases(folder: WanFolder, boundary_timestep: float | None = None) -> list[tuple[Part, float]]:
    """What answers along a sample, from the highest noise: each transformer with the LoRAs that are merged there, and
    the timestep that it answers down to, 0 of the last.

    Args:
        boundary_timestep: where the low-noise expert takes over; None for the model's own.
    """
    high, *rest = transformer_parts(folder)
    boundary = TRAIN_TIMESTEPS * folder.sampling.boundary if boundary_timestep is None else boundary_timestep
    later = {TRAIN_TIMESTEPS * lora.chosen.below for lora in folder.loras if lora.chosen.strength}
    edges = sorted({edge for edge in later if edge < TRAIN_TIMESTEPS} | ({boundary} if rest else set()))
    found: list[tuple[Part, float]] = []
    for bottom, top in zip([0.0, *edges], [*edges, math.inf], strict=True):
        whole = rest[0] if rest and top <= boundary else high
        merged = (
            lora
            for lora in folder.loras
            if lora.chosen.strength
            and lora.changes.get(whole.name)
            and (lora.chosen.below == 1 or top <= TRAIN_TIMESTEPS * lora.chosen.below)
        )
        part = replace(whole, loras=tuple(merged))
        # Two stretches that the same answers are one.
        if found and (found[-1][0].name, found[-1][0].loras) == (part.name, part.loras):
            continue
        found.append((part, bottom))
    return found[::-1]


def packed_parts(folder: WanFolder) -> list[str]:
    """The transformers of which some matrix is small in its file, see `wanedit.wan.packed`."""
    return [
        part.name
        for part, _ in phases(folder)
        if any(entry.packed and packable(name, entry.shape) for name, entry in part.weights().entries.items())
    ]


def vae_part(source: Source) -> Part:
    """The VAE of a model."""
    return Part(VAE, source, lambda: build_vae(read_vae_config(source)))


def all_parts(folder: WanFolder) -> list[Part]:
    """Every module of a model; nothing is read yet."""
    encoders = [image_part(folder.source)] if folder.config.image_tokens else []
    return [*transformer_parts(folder), vae_part(folder.source), text_part(folder.source), *encoders]


def _lora_label(k: int, lora: Lora) -> str:
    below = f" below {lora.chosen.below!r}" if lora.chosen.below < 1 else ""
    return f"LoRA {k} x {lora.chosen.strength!r} {lora.chosen.expert}".rstrip() + below


def deciding_files(folder: WanFolder) -> dict[str, Path]:
    """Every file that decides what the model computes, by its path in the folder, or by its part and name.

    Raises:
        MissingWeightsError: a part is absent.
    """
    parts, tokenizer = all_parts(folder), folder.source.tokenizer()
    found = [(part.name, folder.source.config(part.name)[1]) for part in parts]
    found += [(part.name, file) for part in parts for file in part.files()]
    found += [("tokenizer", file) for file in sorted(tokenizer.glob("*.json"))]
    # Of strength 0 a LoRA decides nothing.
    found += [
        (_lora_label(k, lora), file)
        for k, lora in enumerate(folder.loras)
        if lora.chosen.strength
        for file in lora.files
    ]
    return {
        str(file.relative_to(folder.path))
        if file.is_relative_to(folder.path) and not part.startswith("LoRA ")
        else f"{part}/{file.name}": file
        for part, file in found
        if file.is_file()
    }


def load_transformer(
    source: str | Path | WanFolder,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    boundary_timestep: float | None = None,
    weights: str = "full",
) -> WanTransformer | Experts:
    """`load_transformer(dir)(latents, timestep, text, image_tokens, condition, frame_ids)` is the velocity.

    Args:
        boundary_timestep: where the low-noise expert takes over; None for the model's own.
        weights: in memory: full, file, int8 or fp8, as `checkpoint.fill` takes them.

    Raises:
        MissingWeightsError: the weights are absent or are not what config.json says.
    """
    folder = source if isinstance(source, WanFolder) else open_wan(source)
    dtype_of = transformer_dtype(dtype or default_dtype(device))
    found = phases(folder, boundary_timestep)
    models = [cast(WanTransformer, part.load(dtype_of, device, weights)) for part, _ in found]
    if len(models) == 1:
        return models[0]
    low_from = sum(part.name != TRANSFORMER_LOW for part, _ in found)
    return Experts(*models, boundaries=[edge for _, edge in found[:-1]], low_from=low_from)


def read_vae_config(source: Source) -> Json:
    """Constructor arguments and latent statistics: the model's own over the published ones of as many latent channels.

    Raises:
        MissingWeightsError: no published VAE has so many, or there is no VAE that would tell.
    """
    said, path = source.config(VAE)
    channels = said.get("z_dim") or vae_part(source).weights().shapes.get("conv2.weight", (16,))[0]
    if channels not in OFFICIAL:
        raise MissingWeightsError(
            f"{path}: a VAE of {channels!r} latent channels; expected one of {', '.join(map(str, OFFICIAL))}"
        )
    return OFFICIAL[channels] | checked(said, path, OFFICIAL[channels])


def load_vae(source: str | Path | WanFolder, device: torch.device | str = "cpu") -> WanVAE:
    """The VAE of a folder or known model, in float32 whatever the device, as the official code runs it.

    Raises:
        MissingWeightsError: the weights are absent or do not fit.
    """
    found = source.source if isinstance(source, WanFolder) else open_source(locate(str(source)))
    model, config = vae_part(found).load(lambda _: torch.float32, device), read_vae_config(found)
    return WanVAE(model, config).to(device)


def hash_files(folder: WanFolder, say: Callable[[str], None]) -> dict[str, str]:
    """SHA-256 of every file that decides what the model computes, by its path in the folder.

    Args:
        say: told once if that takes long.
    """
    files = deciding_files(folder)
    size = sum(file.stat().st_size for file in files.values())
    if size > SLOW_TO_HASH:
        say(f"hashing {size / 1e9:.0f} GB of weights; this is remembered until the files change")
    return {name: sha256(file) for name, file in files.items()}


def require_parts(folder: WanFolder) -> None:
    """See that every part is there, and fits, before the first is loaded, which takes minutes on a full-size model.

    Raises:
        MissingWeightsError: a part is absent, or its names or shapes are not what they must be.
    """
    ships = folder.source == open_source(locate(TINY.name))  # with the code that reads it
    try:
        require_fitting_vae(folder.source, folder.config)
        for part in all_parts(folder):
            if part.files() and not ships and (problem := misfit(part)):
                raise MissingWeightsError(f"{part.files()[0]}: {problem}")
        folder.source.tokenizer()
    except MissingWeightsError as error:
        known = folder.known
        advice = (
            f"\nGet what is missing by\n  {known.download(folder.path)}"
            if known and not known.bundled
            else ""
        )
        raise MissingWeightsError(f"{error}{advice}") from None


def misfit(part: Part) -> str | None:
    """What is wrong with the names and shapes of a part, from headers alone; None for nothing."""
    shapes = part.weights().shapes
    # Two parts have published sizes, known by hash: their modules, whose import takes seconds, are not built.
    if layout_hash(shapes) in (TEXT_ENCODER_HASH, *VAE_HASHES.values()):
        return None
    return difference(module_shapes(part.module()), shapes, part.unread)


@dataclass(frozen=True)
class Wan:
    """Every module of one model, loaded."""

    folder: WanFolder
    transformer: WanTransformer | Experts
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
    dtype_of_text = dtype or text_dtype(folder.source, device)
    return Wan(
        folder,
        load_transformer(folder, device, dtype),
        load_vae(folder, device),
        load_text_encoder(folder.source, folder.config.text_len, dtype_of_text, device),
        load_image_encoder(folder.source, torch.float32, device) if folder.config.image_tokens else None,
    )
