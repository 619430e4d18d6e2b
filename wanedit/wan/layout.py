"""Proof of layout without weights: build a model on the meta device and compare names and shapes.

diffsynth publishes an md5 of the names and shapes in every official file. A model built here from a known
config must hash to it; a folder on disk must hold what its config says.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from wanedit.errors import MissingWeightsError, WaneditError
from wanedit.wan import condition, load
from wanedit.wan.catalog import (
    IMAGE_ENCODER_HASH,
    KNOWN_MODELS,
    TEXT_ENCODER_HASH,
    VAE_HASHES,
    KnownModel,
    locate,
)
from wanedit.wan.checkpoint import Part, Shapes, layout_hash, module_shapes
from wanedit.wan.config import IMAGE, TEXT, TRANSFORMER, VAE, ChosenLora
from wanedit.wan.formats.layouts import holding, names_in, open_source
from wanedit.wan.formats.lora import Lora, LoraFile
from wanedit.wan.formats.names import is_lora
from wanedit.wan.formats.numbers import some, stored
from wanedit.wan.transformer import WanTransformer
from wanedit.wan.vae import OFFICIAL, build_vae


@dataclass(frozen=True)
class PartCheck:
    """One part of one model: what it hashes to, what is published, and what is wrong, if anything."""

    model: str
    part: str
    layout: str
    published: str | None
    problem: str | None = None
    num_bytes: int = 0
    files: str = ""
    numbers: str = ""
    format: str = ""

    @property
    def ok(self) -> bool:
        return self.problem is None


def check_known(model: KnownModel) -> list[PartCheck]:
    """Build every part of a published model on the meta device and compare its hash with the published one."""
    channels = model.config.out_dim
    parts = [
        ("transformer", _shapes(lambda: WanTransformer(model.config)), model.transformer_hash),
        (
            "text encoder",
            _shapes(lambda: condition.build_text_encoder(condition.OFFICIAL_TEXT)),
            TEXT_ENCODER_HASH,
        ),
        ("VAE", _shapes(lambda: build_vae(OFFICIAL[channels])), VAE_HASHES[channels]),
    ]
    if model.config.image_tokens:
        # The published hash covers the half of CLIP that Wan reads and the half that it does not.
        vision = _shapes(lambda: condition.build_image_encoder(condition.OFFICIAL_IMAGE))
        vision = {f"visual.{name}": shape for name, shape in vision.items()}
        parts.append(("image encoder", vision | clip_text_shapes() | {"log_scale": ()}, IMAGE_ENCODER_HASH))
    checks = []
    for part, shapes, published in parts:
        found = layout_hash(shapes)
        fits = published in (None, found)
        problem = None if fits else f"layout hash is {found}; expected {published}"
        checks.append(PartCheck(model.name, part, found, published, problem))
    return checks


def clip_text_shapes(dim: int = 1024, layers: int = 24, vocab: int = 250002, length: int = 514) -> Shapes:
    """Names and shapes of the XLM-RoBERTa-Large half of the CLIP file, which no Wan model reads.

    Listed, not built: diffsynth's class of that name resolves to the vision block of the same module.
    Source: Wan 2.1, `wan/modules/xlm_roberta.py` and `clip.py`, `XLMRobertaWithHead`.
    """
    shapes: Shapes = {
        "token_embedding.weight": (vocab, dim),
        "type_embedding.weight": (1, dim),
        "pos_embedding.weight": (length, dim),
        "head.0.weight": (dim, dim),
        "head.2.weight": (dim, dim),
    }
    vectors = ["norm"]
    for block in (f"blocks.{i}" for i in range(layers)):
        linears = {f"attn.{name}": (dim, dim) for name in "qkvo"}
        linears |= {"ffn.0": (4 * dim, dim), "ffn.2": (dim, 4 * dim)}
        for name, shape in linears.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        vectors += [f"{block}.norm1", f"{block}.norm2"]
    for name in vectors:
        shapes |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return {f"textual.{name}": shape for name, shape in shapes.items()}


def check_folder(source: str | Path) -> list[PartCheck]:
    """Compare the files of a folder with what its own configs say, part by part, from headers alone.

    Of a file or folder without a transformer every other part that it holds is compared.

    Raises:
        MissingWeightsError: config.json or the transformer's files cannot be read at all.
    """
    path = locate(str(source))
    try:
        folder = load.open_wan(source)
    except MissingWeightsError as error:
        if holding([path], TRANSFORMER) or not (checks := _lone_parts(path)):
            raise
        # A file is what it is; a folder may be meant as a model.
        lacking = PartCheck(path.name, TRANSFORMER, "", None, str(error))
        return [*checks, *([lacking] if path.is_dir() else [])]
    checks = [_check_files(folder.name, part) for part in load.all_parts(folder)]
    problem = None
    try:
        files = list(folder.source.tokenizer().glob("*"))
    except MissingWeightsError as error:
        problem, files = str(error), []
    size = sum(file.stat().st_size for file in files)
    return [*checks, PartCheck(folder.name, "tokenizer", "", None, problem, size)]


def _lone_parts(path: Path) -> list[PartCheck]:
    """Of what a file, or each file of a folder and of those in it, holds beside transformers; the folder's layout may
    say their sizes.
    """
    parts = {VAE: load.vae_part, TEXT: condition.text_part, IMAGE: condition.image_part}
    source = open_source(path if path.is_dir() else path.parent)
    places = [path, *sorted(inside for inside in path.glob("*") if inside.is_dir())]
    return [
        _check_files(group[0].stem, part(replace(source, chosen={name: group[0]})))
        for name, part in parts.items()
        for group in holding(places, name)
    ]


def _check_files(model: str, part: Part) -> PartCheck:
    try:
        files = part.files()
        layout = layout_hash({name: tensor.shape for name, tensor in stored(files).items()})
        problem = load.misfit(part)
    except WaneditError as error:
        return PartCheck(model, part.name, "", None, str(error))
    size, names = sum(file.stat().st_size for file in files), ", ".join(file.name for file in files[:2])
    names += f" … {len(files)} files" if len(files) > 2 else ""
    kinds = ", ".join(part.weights().kinds)
    return PartCheck(model, part.name, layout, None, problem, size, names, kinds, part.source.layout)


@dataclass(frozen=True)
class LoraCheck:
    """What a LoRA is, and whether it fits a model.

    Attributes:
        targets: of each kind of layer: its name, how many, their ranks and roles in the file, alpha over rank, one key,
            and, where a model was given, how many have a place there.
        about: what else there is to say, by headings.
        problem: why it cannot be merged whole into the model that was given.
    """

    targets: list[tuple[str, ...]]
    about: dict[str, str]
    problem: str | None


def check_lora(path: Path, model: str = "") -> LoraCheck | None:
    """What a LoRA holds, the known models that it fits, and what of it has no place in `model`; None for no LoRA.

    Raises:
        MissingWeightsError: the file, or the model, cannot be read.
    """
    try:
        file = LoraFile.read(path)
    except MissingWeightsError:
        if path.is_file() and is_lora(names_in(path)):
            raise
        return None
    problem, placed = None, set()
    if model:
        shapes = {part.name: part.weights().shapes for part in load.transformer_parts(load.open_wan(model))}
        try:
            changes = Lora.fitted(ChosenLora(path), path, shapes, partial=True).changes.values()
            placed = {key for part in changes for found in part.values() for one in found for key in one.keys}
        except MissingWeightsError as error:
            problem = str(error)
    kinds: dict[str, list[tuple[str, str]]] = {}
    for expert, layer in file.layers:
        kinds.setdefault(re.sub(r"^blocks[._]\d+[._]", "", layer), []).append((expert, layer))
    targets = []
    for kind, layers in kinds.items():
        roles = [file.layers[one] for one in layers]
        ranks = sorted({file.tensors[one["down"]].shape[0] for one in roles if "down" in one})
        scales = sorted(
            {file.scale(*layer) for layer, one in zip(layers, roles, strict=True) if "down" in one}
        )
        there = [placed.issuperset(key for role, key in one.items() if role != "alpha") for one in roles]
        targets.append(
            (
                kind,
                str(len(layers)),
                ", ".join(map(str, ranks)) or "-",
                ", ".join(f"{scale:g}" for scale in scales) or "-",
                ", ".join(sorted({role for one in roles for role in one})),
                next(iter(roles[0].values())),
                *([f"{sum(there)} of {len(there)}"] if model else []),
            )
        )
    unmatched = [*file.unknown] + [
        key
        for one in file.layers.values()
        for role, key in one.items()
        if role != "alpha" and key not in placed
    ]
    if model and unmatched and problem is None:
        problem = f"{len(unmatched)} tensors have no place in {model}: {some(sorted(unmatched), 20)}"
    fits = []
    for known in KNOWN_MODELS:
        shapes = _shapes(lambda known=known: WanTransformer(known.config))
        if not file.differences(shapes, {expert for expert, _ in file.layers})[1]:
            fits.append(known.name)
    about = {
        "file": f"{path} ({file.files[0].stat().st_size / 1e6:.1f} MB, {len(file.tensors)} tensors)",
        "made for": f"{file.sizes[1]} blocks of {file.sizes[0]}" if file.sizes else "unknown sizes",
        "fits": ", ".join(fits) or "no known model whole",
        **({"unknown": some(list(file.unknown), 20)} if file.unknown else {}),
    }
    return LoraCheck(targets, about, problem)


def _shapes(build: Callable[[], nn.Module]) -> Shapes:
    with torch.device("meta"):
        return module_shapes(build())
