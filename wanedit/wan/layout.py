"""Proof of layout without weights: build a model on the meta device and compare names and shapes.

diffsynth publishes an md5 of the names and shapes in every official file. A model built here from a known
config must hash to it; a folder on disk must hold what its config says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from wanedit.errors import MissingWeightsError
from wanedit.wan import image, load, text
from wanedit.wan.catalog import IMAGE_ENCODER_HASH, TEXT_ENCODER_HASH, VAE_HASH, KnownModel
from wanedit.wan.checkpoint import Shapes, difference, find_weights, layout_hash, module_shapes, read_shapes
from wanedit.wan.transformer import WanTransformer


@dataclass(frozen=True)
class PartCheck:
    """One part of one model: what it hashes to, what is published, and what is wrong, if anything."""

    model: str
    part: str
    layout: str
    published: str | None
    problem: str | None = None
    num_bytes: int = 0

    @property
    def ok(self) -> bool:
        return self.problem is None


def _meta(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build()


def _text_half_shapes(dim: int = 1024, layers: int = 24, vocab: int = 250002, length: int = 514) -> Shapes:
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


def _clip_shapes() -> Shapes:
    """The official CLIP file: the published hash covers the half that Wan reads and the half that it does not."""
    visual = _meta(lambda: image.build_image_encoder(image.OFFICIAL))
    return module_shapes(visual, image.PREFIX) | _text_half_shapes() | {"log_scale": ()}


def check_known(model: KnownModel) -> list[PartCheck]:
    """Build every part of a published model on the meta device and compare its hash with the published one."""
    shapes_of = lambda build: module_shapes(_meta(build))  # noqa: E731
    parts = [
        ("transformer", shapes_of(lambda: WanTransformer(model.config)), model.transformer_hash),
        ("text encoder", shapes_of(lambda: text.build_text_encoder(text.OFFICIAL)), TEXT_ENCODER_HASH),
        ("VAE", shapes_of(lambda: load.build_vae(load.OFFICIAL_VAE)), VAE_HASH),
    ]
    if model.config.image_tokens:
        parts.append(("image encoder", _clip_shapes(), IMAGE_ENCODER_HASH))
    checks = []
    for part, shapes, published in parts:
        found = layout_hash(shapes)
        problem = None if found == published else f"layout hash is {found}; expected {published}"
        checks.append(PartCheck(model.name, part, found, published, problem))
    return checks


def check_folder(source: str | Path) -> list[PartCheck]:
    """Compare the files of a folder with what its own configs say, part by part, from headers alone.

    Raises:
        MissingWeightsError: config.json or the transformer's files cannot be read at all.
    """
    folder = load.open_wan(source)
    checks = [
        _check_files(
            folder.name,
            "transformer" if len(folder.transformer_folders) == 1 else path.name,
            path,
            load.TRANSFORMER_STEM,
            lambda: WanTransformer(folder.config),
        )
        for path in folder.transformer_folders
    ]
    vae, words = load.read_vae_config(folder.path), text.read_text_config(folder.path)
    checks += [
        _check_files(
            folder.name, "text encoder", folder.path, text.STEM, lambda: text.build_text_encoder(words)
        ),
        _check_files(folder.name, "VAE", folder.path, load.VAE_STEM, lambda: load.build_vae(vae)),
        _check_tokenizer(folder.name, folder.path),
    ]
    if folder.config.image_tokens:
        sizes = image.read_image_config(folder.path)
        build = lambda: image.build_image_encoder(sizes)  # noqa: E731
        checks.append(
            _check_files(
                folder.name, "image encoder", folder.path, image.STEM, build, image.PREFIX, image.UNUSED
            )
        )
    return checks


def _check_files(
    model: str,
    part: str,
    path: Path,
    stem: str,
    build: Callable[[], nn.Module],
    prefix: str = "",
    ignore: tuple[str, ...] = ("\0",),
) -> PartCheck:
    try:
        files = find_weights(path, stem)
        shapes = read_shapes(files)
    except MissingWeightsError as error:
        return PartCheck(model, part, "", None, str(error))
    relevant: Shapes = {name: shape for name, shape in shapes.items() if not name.startswith(ignore)}
    problem = difference(module_shapes(_meta(build), prefix), relevant)
    size = sum(file.stat().st_size for file in files)
    return PartCheck(model, part, layout_hash(shapes), None, problem, size)


def _check_tokenizer(model: str, path: Path) -> PartCheck:
    folder = path / text.TOKENIZER
    size = sum(file.stat().st_size for file in folder.glob("*")) if folder.is_dir() else 0
    try:
        text.find_tokenizer(path)
        problem = None
    except MissingWeightsError as error:
        problem = str(error)
    return PartCheck(model, "tokenizer", "", None, problem, size)
