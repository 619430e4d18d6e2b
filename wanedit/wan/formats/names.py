"""Names: whatever a file calls a tensor of Wan, here it gets the official name; and names tell what a file is.

A `Naming` is one publisher's way to name one part. A further one is an entry of `NAMINGS` and nothing else.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wanedit.errors import MissingWeightsError
from wanedit.wan.config import IMAGE, TEXT, TRANSFORMER, VAE
from wanedit.wan.formats.numbers import Entry, joined, some

if TYPE_CHECKING:
    from torch import Tensor

# A pattern and what it becomes, one after another over a whole name. "#k" at a result's end says that the tensor is
# the k-th piece of the official one, along its first axis; an empty result that no Wan reads it.
Rules = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Naming:
    """How one publisher names one part.

    Attributes:
        part, publisher: "transformer", "diffusers".
        tell: matches a name that only this part has, and only under this naming.
        rules: of a file's names, given all of them.
        reshape: official name -> what gives the tensor its official shape.
        prefixes: that stand before the names where a file holds more than this part.
    """

    part: str
    publisher: str
    tell: str
    rules: Callable[[Collection[str]], Rules] = lambda names: ()
    reshape: "Mapping[str, Callable[[Tensor], Tensor]]" = field(default_factory=dict)
    prefixes: tuple[str, ...] = ("",)


def _diffusers_transformer(_: Collection[str]) -> Rules:
    """Official names: Wan 2.1, `wan/modules/model.py`; the others: diffusers, `transformer_wan.py`."""
    yield r"^condition_embedder\.time_embedder\.linear_1", "time_embedding.0"
    yield r"^condition_embedder\.time_embedder\.linear_2", "time_embedding.2"
    yield r"^condition_embedder\.text_embedder\.linear_1", "text_embedding.0"
    yield r"^condition_embedder\.text_embedder\.linear_2", "text_embedding.2"
    yield r"^condition_embedder\.time_proj\.", "time_projection.1."
    yield r"^condition_embedder\.image_embedder\.norm1", "img_emb.proj.0"
    yield r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj", "img_emb.proj.1"
    yield r"^condition_embedder\.image_embedder\.ff\.net\.2", "img_emb.proj.3"
    yield r"^condition_embedder\.image_embedder\.norm2", "img_emb.proj.4"
    yield r"^condition_embedder\.image_embedder\.pos_embed$", "img_emb.emb_pos"
    yield r"^scale_shift_table$", "head.modulation"
    yield r"^proj_out\.", "head.head."
    yield r"\.scale_shift_table$", ".modulation"
    yield r"\.attn1\.", ".self_attn."
    yield r"\.attn2\.", ".cross_attn."
    yield r"_attn\.to_([qkv])\.", r"_attn.\1."
    yield r"_attn\.to_out\.0\.", "_attn.o."
    yield r"_attn\.add_([kv])_proj\.", r"_attn.\1_img."
    yield r"_attn\.norm_added_k\.", "_attn.norm_k_img."
    yield r"\.ffn\.net\.0\.proj\.", ".ffn.0."
    yield r"\.ffn\.net\.2\.", ".ffn.2."
    # The norm before cross-attention is the third officially and the second there; the other two have no weights.
    yield r"^(\w*blocks\.\d+)\.norm2\.", r"\1.norm3."
    yield r"^(vace_blocks\.\d+)\.proj_in\.", r"\1.before_proj."
    yield r"^(vace_blocks\.\d+)\.proj_out\.", r"\1.after_proj."


def _diffusers_vae(names: Collection[str]) -> Rules:
    """Official names: Wan 2.1, `wan/modules/vae.py`; the others: diffusers, `autoencoder_kl_wan.py`."""
    yield r"^quant_conv\.", "conv1."
    yield r"^post_quant_conv\.", "conv2."
    yield r"coder\.conv_in\.", "coder.conv1."
    yield r"coder\.norm_out\.", "coder.head.0."
    yield r"coder\.conv_out\.", "coder.head.2."
    yield r"\.mid_block\.resnets\.0\.", ".middle.0."
    yield r"\.mid_block\.attentions\.0\.", ".middle.1."
    yield r"\.mid_block\.resnets\.1\.", ".middle.2."
    # Officially, a stage's blocks and its resampling are one list: the VAE's own, flat, or in 2.2 one for each stage.
    stages = {
        int(found[1])
        for name in names
        if (found := re.match(r"decoder\.up_blocks\.0\.resnets\.(\d+)\.", name))
    }
    if any(".upsampler." in name for name in names):
        yield r"^encoder\.down_blocks\.(\d+)\.resnets\.", r"encoder.downsamples.\1.downsamples."
        yield (
            r"^encoder\.down_blocks\.(\d+)\.downsampler\.",
            rf"encoder.downsamples.\1.downsamples.{len(stages) - 1}.",
        )
        yield r"^decoder\.up_blocks\.(\d+)\.resnets\.", r"decoder.upsamples.\1.upsamples."
        yield r"^decoder\.up_blocks\.(\d+)\.upsampler\.", rf"decoder.upsamples.\1.upsamples.{len(stages)}."
    for stage in {
        int(found[1]) for name in names if (found := re.match(r"decoder\.up_blocks\.(\d+)\.", name))
    }:
        first = stage * (len(stages) + 1)
        for block in stages:
            yield rf"^decoder\.up_blocks\.{stage}\.resnets\.{block}\.", f"decoder.upsamples.{first + block}."
        yield rf"^decoder\.up_blocks\.{stage}\.upsamplers\.0\.", f"decoder.upsamples.{first + len(stages)}."
    yield r"^encoder\.down_blocks\.", "encoder.downsamples."
    yield r"\.(\d+)\.norm1\.", r".\1.residual.0."
    yield r"\.(\d+)\.conv1\.", r".\1.residual.2."
    yield r"\.(\d+)\.norm2\.", r".\1.residual.3."
    yield r"\.(\d+)\.conv2\.", r".\1.residual.6."
    yield r"\.conv_shortcut\.", ".shortcut."


def _t5(names: Collection[str]) -> Rules:
    """Official names: Wan 2.1, `wan/modules/t5.py`; the others: transformers, `modeling_umt5.py`."""
    if any(name.startswith("shared.") for name in names):
        yield r"^encoder\.embed_tokens\.weight$", ""  # the same table once more
    yield r"^(shared|encoder\.embed_tokens)\.", "token_embedding."
    yield r"^(spiece_model|decoder\..*|lm_head\..*)$", ""
    yield r"^encoder\.final_layer_norm\.", "norm."
    yield r"^encoder\.block\.", "blocks."
    yield r"\.layer\.0\.SelfAttention\.relative_attention_bias\.", ".pos_embedding.embedding."
    yield r"\.layer\.0\.SelfAttention\.", ".attn."
    yield r"\.layer\.0\.layer_norm\.", ".norm1."
    yield r"\.layer\.1\.layer_norm\.", ".norm2."
    yield r"\.layer\.1\.DenseReluDense\.wi_0\.", ".ffn.gate.0."
    yield r"\.layer\.1\.DenseReluDense\.wi_1\.", ".ffn.fc1."
    yield r"\.layer\.1\.DenseReluDense\.wo\.", ".ffn.fc2."


def _gguf_t5(_: Collection[str]) -> Rules:
    """The others: llama.cpp, `gguf/constants.py`, architecture t5encoder."""
    yield r"^token_embd\.", "token_embedding."
    yield r"^enc\.output_norm\.", "norm."
    yield r"^enc\.blk\.", "blocks."
    yield r"^(dec\..*|output\..*)$", ""
    yield r"\.attn_rel_b\.", ".pos_embedding.embedding."
    yield r"\.attn_([qkvo])\.", r".attn.\1."
    yield r"\.attn_norm\.", ".norm1."
    yield r"\.ffn_norm\.", ".norm2."
    yield r"\.ffn_gate\.", ".ffn.gate.0."
    yield r"\.ffn_up\.", ".ffn.fc1."
    yield r"\.ffn_down\.", ".ffn.fc2."


def _official_clip(_: Collection[str]) -> Rules:
    """The file holds both halves of CLIP; Wan reads the vision half."""
    yield r"^(textual\..*|log_scale)$", ""
    yield r"^visual\.", ""


def _clip_vision(_: Collection[str]) -> Rules:
    """Official names: Wan 2.1, `wan/modules/clip.py`; the others: transformers, `modeling_clip.py`."""
    yield r"^vision_model\.", ""
    yield r"^(embeddings\.position_ids|text_model\..*|text_projection\..*|logit_scale)$", ""
    yield r"^embeddings\.class_embedding$", "cls_embedding"
    yield r"^embeddings\.position_embedding\.weight$", "pos_embedding"
    yield r"^embeddings\.patch_embedding\.", "patch_embedding."
    yield r"^pre_layrnorm\.", "pre_norm."
    yield r"^post_layernorm\.", "post_norm."
    yield r"^visual_projection\.weight$", "head"
    yield r"^encoder\.layers\.", "transformer."
    for k, letter in enumerate("qkv"):
        yield rf"\.self_attn\.{letter}_proj\.(weight|bias)$", rf".attn.to_qkv.\1#{k}"
    yield r"\.self_attn\.out_proj\.", ".attn.proj."
    yield r"\.layer_norm([12])\.", r".norm\1."
    yield r"\.mlp\.fc1\.", ".mlp.0."
    yield r"\.mlp\.fc2\.", ".mlp.2."


_WITHIN = ("", "model.diffusion_model.", "diffusion_model.")

NAMINGS = (
    Naming(TRANSFORMER, "official", r"blocks\.0\.self_attn\.q\.weight", prefixes=_WITHIN),
    Naming(
        TRANSFORMER, "diffusers", r"blocks\.0\.attn1\.to_q\.weight", _diffusers_transformer, prefixes=_WITHIN
    ),
    Naming(
        VAE,
        "official",
        r"decoder\.middle\.0\.residual\.0\.gamma",
        prefixes=("", "vae.", "first_stage_model."),
    ),
    Naming(VAE, "diffusers", r"decoder\.mid_block\.resnets\.0\.norm1\.gamma", _diffusers_vae),
    Naming(TEXT, "official", r"blocks\.0\.ffn\.gate\.0\.weight"),
    Naming(
        TEXT,
        "transformers",
        r"encoder\.block\.0\.layer\.0\.SelfAttention\.q\.weight",
        _t5,
        prefixes=("", "text_encoders.umt5xxl.transformer."),
    ),
    Naming(TEXT, "llama.cpp", r"enc\.blk\.0\.attn_q\.weight", _gguf_t5),
    Naming(IMAGE, "official", r"visual\.transformer\.0\.attn\.to_qkv\.weight", _official_clip),
    Naming(
        IMAGE,
        "transformers",
        r"(vision_model\.)?encoder\.layers\.0\.self_attn\.q_proj\.weight",
        _clip_vision,
        {
            "cls_embedding": lambda tensor: tensor.reshape(1, 1, -1),
            "pos_embedding": lambda tensor: tensor[None],
            "head": lambda tensor: tensor.T,
        },
    ),
)

LORA = r"lora_(A|B|up|down)|\.lora\.|_lora\.|lora_linear_layer|\.diff(_b|_m)?$"
# What people take for a Wan model, by a pattern of its names: what it is, and what to do.
STRANGERS = (
    (r"^(.*\.)?(double_blocks|single_blocks)\.", "a model of the Hunyuan or Flux family"),
    (
        r"^(.*\.)?transformer_blocks\.",
        "a model of another family (LTX, CogVideoX, Mochi, Qwen and others are named so)",
    ),
    (r"^(.*\.)?(input_blocks|down_blocks\.0\.attentions)\.", "a Stable Diffusion model"),
    (r"^(.*\.)?model\.layers\.0\.self_attn\.q_proj", "a language model"),
    (r"^(.*\.)?control_blocks|controlnet", "a ControlNet"),
    (r"taesd|^(encoder|decoder)\.layers\.0\.|^decoder\.\d+\.", "a small preview VAE"),
)


def naming_of(names: Collection[str], part: str | None = None) -> tuple[Naming, str] | None:
    """The naming, and the prefix, under which a file holds a part (or any part); None where it holds none."""
    for naming in NAMINGS:
        if part in (None, naming.part):
            for prefix in sorted(naming.prefixes, key=len, reverse=True):
                pattern = re.compile(re.escape(prefix) + naming.tell)
                if any(pattern.fullmatch(name) for name in names):
                    return naming, prefix
    return None


def parts_in(names: Collection[str]) -> list[str]:
    """Every part that a file holds."""
    return [part for part in dict.fromkeys(n.part for n in NAMINGS) if naming_of(names, part) is not None]


def is_lora(names: Collection[str]) -> bool:
    """Whether a file is a LoRA, of whatever model."""
    return any(re.search(LORA, name) for name in names)


def what_it_is(names: Collection[str]) -> str:
    """What a file is that was taken for another: a part of Wan, a known stranger, or its first names."""
    if parts := parts_in(names):
        return f"the {' and the '.join(parts)} of a Wan"
    stranger = next((w for pattern, w in STRANGERS if any(re.search(pattern, name) for name in names)), None)
    if is_lora(names):
        return f"a LoRA for {stranger}" if stranger else "a LoRA: give it as --lora FILE beside a model"
    if stranger:
        return stranger
    return f"no part of a Wan (it holds {some(sorted(names), 2)})" if names else "empty"


def officially_named(name: str, part: str) -> str:
    """The official name of one tensor that is called as any publisher does, underscores for dots as in kohya's LoRAs,
    or not; one that none knows stays what it is.
    """
    for naming in NAMINGS:
        rules = ((pattern.replace(r"\.", "[._]"), result) for pattern, result in naming.rules((name,)))
        if naming.part == part and (found := _renamed(name, rules)) != name:
            return found
    return name


def _renamed(name: str, rules: Rules) -> str:
    for pattern, result in rules:
        name = re.sub(pattern, result, name)
    return name


def officially(entries: Mapping[str, Entry], part: str, said: str) -> dict[str, Entry]:
    """The entries of one part under official names.

    Args:
        entries: of all tensors of its files.
        said: what a message calls the files.

    Raises:
        MissingWeightsError: they are no such part, or two of them become one name.
    """
    found = naming_of(entries, part)
    if found is None:
        raise MissingWeightsError(f"{said} is {what_it_is(entries)}; expected the {part} of a Wan")
    naming, prefix = found
    # In a file of several parts, what lies under another one's roof is the other one's.
    roofs = {p.split(".")[0] + "." for naming in NAMINGS for p in naming.prefixes if p} if prefix else set()
    others = tuple(roofs - {prefix.split(".")[0] + "."})
    inside = {
        name.removeprefix(prefix): entry
        for name, entry in entries.items()
        if name.startswith(prefix) or not name.startswith(others)
    }
    rules = list(naming.rules(inside))
    pieces: dict[str, dict[int, tuple[str, Entry]]] = {}
    for name, entry in inside.items():
        official, _, piece = _renamed(name, rules).partition("#")
        if not official:
            continue
        taken = pieces.setdefault(official, {})
        if int(piece or 0) in taken:
            raise MissingWeightsError(f"{said}: {taken[int(piece or 0)][0]} and {name} are both {official}")
        taken[int(piece or 0)] = name, entry
    made = {}
    for official, shares in pieces.items():
        own = [shares[k][1] for k in sorted(shares)]
        entry = own[0] if len(own) == 1 else joined(own)
        if change := naming.reshape.get(official):
            import torch

            shape = tuple(change(torch.empty(entry.shape, device="meta")).shape)
            entry = entry.then(shape, change)
        made[official] = entry
    return made
