"""wan-tiny as other publishers would have it: written by their own code where they have some, by hand elsewhere."""

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wanedit.wan import open_wan
from wanedit.wan.config import WanConfig
from wanedit.wan.load import all_parts
from wanedit.wan.transformer import WanTransformer

Tensors = dict[str, Tensor]

TINY = Path(open_wan("tiny").path)
TRANSFORMER, VAE, TEXT, IMAGE = (load_file(part.files()[0]) for part in all_parts(open_wan("tiny")))


def sizes(name: str) -> dict:
    return json.loads((TINY / name).read_text())


def transformers_t5(official: Tensors) -> Tensors:
    """Under the names of transformers' UMT5EncoderModel, the shared table twice as it keeps it."""
    renamed = {}
    for name, tensor in official.items():
        for old, new in (
            (r"^token_embedding", "shared"),
            (r"^norm\.", "encoder.final_layer_norm."),
            (r"\.attn\.", ".layer.0.SelfAttention."),
            (r"\.pos_embedding\.embedding\.", ".layer.0.SelfAttention.relative_attention_bias."),
            (r"\.norm1\.", ".layer.0.layer_norm."),
            (r"\.norm2\.", ".layer.1.layer_norm."),
            (r"\.ffn\.gate\.0\.", ".layer.1.DenseReluDense.wi_0."),
            (r"\.ffn\.fc1\.", ".layer.1.DenseReluDense.wi_1."),
            (r"\.ffn\.fc2\.", ".layer.1.DenseReluDense.wo."),
            (r"^blocks\.", "encoder.block."),
        ):
            name = re.sub(old, new, name)
        renamed[name] = tensor
    return renamed


def llama_t5(official: Tensors) -> Tensors:
    renamed = {}
    for name, tensor in official.items():
        for old, new in (
            (r"^token_embedding", "token_embd"),
            (r"^norm\.", "enc.output_norm."),
            (r"\.attn\.([qkvo])", r".attn_\1"),
            (r"\.pos_embedding\.embedding", ".attn_rel_b"),
            (r"\.norm1", ".attn_norm"),
            (r"\.norm2", ".ffn_norm"),
            (r"\.ffn\.gate\.0", ".ffn_gate"),
            (r"\.ffn\.fc1", ".ffn_up"),
            (r"\.ffn\.fc2", ".ffn_down"),
            (r"^blocks\.", "enc.blk."),
        ):
            name = re.sub(old, new, name)
        renamed[name] = tensor
    return renamed


def transformers_clip(official: Tensors, projected: bool) -> Tensors:
    """Under the names of transformers' CLIPVisionModel(WithProjection)."""
    renamed = {}
    for name, tensor in official.items():
        name = name.removeprefix("visual.")
        if name.startswith(("textual.", "log_scale")):
            continue
        for old, new in (
            (r"^cls_embedding", "embeddings.class_embedding"),
            (r"^pos_embedding", "embeddings.position_embedding.weight"),
            (r"^patch_embedding", "embeddings.patch_embedding"),
            (r"^pre_norm", "pre_layrnorm"),
            (r"^post_norm", "post_layernorm"),
            (r"^transformer\.", "encoder.layers."),
            (r"\.norm([12])", r".layer_norm\1"),
            (r"\.attn\.proj", ".self_attn.out_proj"),
            (r"\.mlp\.0", ".mlp.fc1"),
            (r"\.mlp\.2", ".mlp.fc2"),
        ):
            name = re.sub(old, new, name)
        if ".attn.to_qkv." in name:
            for letter, share in zip("qkv", tensor.chunk(3), strict=True):
                renamed["vision_model." + name.replace("attn.to_qkv", f"self_attn.{letter}_proj")] = share
        elif name == "head":
            if projected:
                renamed["visual_projection.weight"] = tensor.T
        else:
            shape = {
                "embeddings.class_embedding": (-1,),
                "embeddings.position_embedding.weight": tensor.shape[1:],
            }
            renamed["vision_model." + name] = tensor.reshape(shape.get(name, tensor.shape))
    return renamed


def save(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    return path


def write_json(path: Path, values: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def diffusers_transformer(config: WanConfig):
    """diffusers' class of these sizes, uninitialised, on whatever device is current."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_dim,
        out_channels=config.out_dim,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.num_layers,
        image_dim=config.image_dim if config.image_tokens else None,
        added_kv_proj_dim=config.dim if config.image_tokens else None,
        pos_embed_seq_len=514 if config.model_type == "flf2v" else None,
    )


def diffusers_names(official: Tensors) -> Tensors:
    """A transformer's weights under the names of diffusers, by its own conversion."""
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    rest = dict(official)
    position = rest.pop("img_emb.emb_pos", None)  # which its conversion forgets
    named = convert_wan_transformer_to_diffusers(rest)
    return named if position is None else named | {"condition_embedder.image_embedder.pos_embed": position}


def diffusers_folder(folder: Path, model: WanTransformer | None = None) -> Path:
    """As diffusers' own classes save it, weights out of its own conversion of official files: wan-tiny, or another
    transformer beside wan-tiny's other parts.
    """
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    config, vae = model.config if model else open_wan("tiny").config, sizes("vae_config.json")
    transformer = diffusers_transformer(config)
    transformer.load_state_dict(diffusers_names(model.state_dict() if model else TRANSFORMER))
    transformer.save_pretrained(folder / "transformer")
    coder = AutoencoderKLWan(base_dim=vae["dim"], **{k: v for k, v in vae.items() if k not in ("dim",)})
    coder.load_state_dict(convert_wan_vae_to_diffusers(dict(VAE)))
    coder.save_pretrained(folder / "vae")
    own = folder / "transformer" / "config.json"
    write_json(own, json.loads(own.read_text()) | {"text_len": config.text_len})
    encoders_of_transformers(folder)
    shutil.copytree(TINY / "google" / "umt5-xxl", folder / "tokenizer")
    index = {
        "_class_name": "WanPipeline" if config.model_type == "t2v" else "WanImageToVideoPipeline",
        "_diffusers_version": "0.42.1",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    write_json(folder / "scheduler" / "scheduler_config.json", {"shift": 3.0})
    if config.image_tokens:
        index["image_encoder"] = ["transformers", "CLIPVisionModel"]
        index["image_processor"] = ["transformers", "CLIPImageProcessor"]
        write_json(
            folder / "image_processor" / "preprocessor_config.json",
            {"image_processor_type": "CLIPImageProcessor"},
        )
    write_json(folder / "model_index.json", index)
    return folder


def encoders_of_transformers(folder: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    text, image = sizes("text_encoder_config.json"), sizes("image_encoder_config.json")
    t5 = UMT5EncoderModel(
        UMT5Config(
            vocab_size=text["vocab"],
            d_model=text["dim"],
            d_kv=text["dim_attn"] // text["num_heads"],
            d_ff=text["dim_ffn"],
            num_layers=text["num_layers"],
            num_heads=text["num_heads"],
            relative_attention_num_buckets=text["num_buckets"],
        )
    )
    t5.load_state_dict(
        transformers_t5(TEXT) | {"encoder.embed_tokens.weight": TEXT["token_embedding.weight"]}
    )
    t5.save_pretrained(folder / "text_encoder")
    clip = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=image["dim"],
            intermediate_size=image["dim"] * image["mlp_ratio"],
            num_hidden_layers=image["num_layers"],
            num_attention_heads=image["num_heads"],
            image_size=image["image_size"],
            patch_size=image["patch_size"],
            projection_dim=image["out_dim"],
            hidden_act="gelu",
        )
    )
    prefix = (
        "" if not any(name.startswith("vision_model.") for name in clip.state_dict()) else "vision_model."
    )
    named = transformers_clip(IMAGE, projected=False)
    clip.load_state_dict(
        {prefix + n.removeprefix("vision_model."): t for n, t in named.items()}, strict=False
    )
    clip.save_pretrained(folder / "image_encoder")


def comfy_folders(
    root: Path, transformer: Callable[[Tensors], tuple[Tensors, dict[str, str] | None]] | None = None
) -> Path:
    """Single files in ComfyUI's folders; the sizes that are not the published ones beside them."""
    named, metadata = transformer(TRANSFORMER) if transformer else (TRANSFORMER, None)
    prefixed = {f"model.diffusion_model.{name}": tensor for name, tensor in named.items()}
    save(prefixed, root / "diffusion_models" / "tiny.safetensors", metadata)
    write_json(root / "diffusion_models" / "tiny.json", sizes("config.json"))
    save(VAE, root / "vae" / "tiny_vae.safetensors")
    write_json(root / "vae" / "tiny_vae.json", sizes("vae_config.json"))
    save(transformers_t5(TEXT), root / "text_encoders" / "umt5.safetensors")
    write_json(root / "text_encoders" / "umt5.json", sizes("text_encoder_config.json"))
    save(transformers_clip(IMAGE, projected=True), root / "clip_vision" / "clip.safetensors")
    write_json(root / "clip_vision" / "clip.json", sizes("image_encoder_config.json"))
    shutil.copytree(TINY / "google", root / "google")
    return root


def matrices(tensors: Tensors) -> Iterable[str]:
    """The weights that publishers quantise: the blocks' matrices."""
    return [
        n for n, t in tensors.items() if n.startswith("blocks.") and n.endswith(".weight") and t.dim() == 2
    ]


def fp8_plain(tensors: Tensors) -> tuple[Tensors, None]:
    return {
        n: t.to(torch.float8_e4m3fn) if n in set(matrices(tensors)) else t for n, t in tensors.items()
    }, None


def fp8_scaled_old(tensors: Tensors) -> tuple[Tensors, None]:
    """`scaled_fp8` and a `scale_weight` for every layer."""
    made = dict(tensors) | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for name in matrices(tensors):
        scale = tensors[name].float().abs().max().clamp_min(1e-12) / 448
        made[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix(".weight")
        made |= {f"{layer}.scale_weight": scale, f"{layer}.scale_input": torch.ones(())}
    return made, None


def fp8_scaled_new(tensors: Tensors) -> tuple[Tensors, None]:
    """`weight_scale` and the format of every layer as JSON in bytes."""
    made = dict(tensors)
    said = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    for name in matrices(tensors):
        scale = tensors[name].float().abs().max().clamp_min(1e-12) / 448
        made[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
        layer = name.removesuffix(".weight")
        made |= {f"{layer}.weight_scale": scale, f"{layer}.comfy_quant": said.clone()}
    return made, None


def fp8_rows(tensors: Tensors) -> tuple[Tensors, None]:
    """As LightX2V: a scale for every output channel."""
    made = dict(tensors)
    for name in matrices(tensors):
        scale = tensors[name].float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 448
        made[name] = (tensors[name].float() / scale).to(torch.float8_e4m3fn)
        made[name.removesuffix(".weight") + ".weight_scale"] = scale
    return made, None


def int8_rows(tensors: Tensors) -> tuple[Tensors, dict[str, str]]:
    """int8 with a scale for every row, the format in the file's metadata."""
    made, layers = dict(tensors), {}
    for name in matrices(tensors):
        scale = tensors[name].float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        made[name] = (tensors[name].float() / scale).round().to(torch.int8)
        layer = name.removesuffix(".weight")
        made[f"{layer}.weight_scale"] = scale
        layers[f"model.diffusion_model.{layer}"] = {"format": "int8_tensorwise"}
    return made, {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def k_quants(rows: np.ndarray, kind: str) -> np.ndarray:
    """Blocks of 256 numbers as llama.cpp's Q4_K, Q5_K and Q6_K have them, each rounded to the nearest level.

    The `gguf` package reads these and cannot write them. Layouts: `gguf/quants.py`, `dequantize_blocks`.

    Args:
        rows: float32 (n, 256 k).
    """
    blocks = rows.reshape(-1, 256).astype(np.float32)
    if kind == "Q6_K":
        parts = blocks.reshape(-1, 16, 16)
        wanted = np.abs(parts).max(-1) / 31
        d = np.maximum(wanted.max(-1, keepdims=True) / 127, 1e-7).astype(np.float16)
        scales = np.rint(wanted / d.astype(np.float32)).astype(np.int8)
        step = np.maximum(d.astype(np.float32) * scales, 1e-12)[..., None]
        q = (np.clip(np.rint(parts / step), -32, 31) + 32).astype(np.uint8)
        low, high = (q & 15).reshape(-1, 2, 2, 64), (q >> 4).reshape(-1, 2, 4, 32)
        ql = (low[:, :, 0] | low[:, :, 1] << 4).reshape(-1, 128)
        qh = np.bitwise_or.reduce(high << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2).reshape(-1, 64)
        made = np.hstack([ql, qh, scales.view(np.uint8), d.view(np.uint8)])
    else:
        levels = 15 if kind == "Q4_K" else 31
        parts = blocks.reshape(-1, 8, 32)
        least = np.maximum(-parts.min(-1), 0)
        wanted = np.stack([(parts.max(-1) + least) / levels, least], axis=1)
        d = np.maximum(wanted.max(-1, keepdims=True) / 63, 1e-7).astype(np.float16)
        six = np.rint(wanted / d.astype(np.float32)).astype(np.uint8)
        step, offset = np.moveaxis(d.astype(np.float32) * six, 1, 0)[..., None]
        q = np.clip(np.rint((parts + offset) / np.maximum(step, 1e-12)), 0, levels).astype(np.uint8)
        first, second = six[..., :4], six[..., 4:]
        scales = np.concatenate(
            [first | (second >> 4) << 6, (second[:, :1] & 15) | (second[:, 1:] & 15) << 4], axis=1
        )
        pairs = (q & 15).reshape(-1, 4, 2, 32)
        qs = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
        fifth = np.bitwise_or.reduce((q >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1)
        made = np.hstack(
            [d.reshape(-1, 2).view(np.uint8), scales.reshape(-1, 12), *([fifth] if levels == 31 else []), qs]
        )
    return made.reshape(*rows.shape[:-1], -1)


def gguf_file(tensors: Tensors, path: Path, kind: str, architecture: str = "wan") -> Path:
    """As the `gguf` package writes it; what a block format cannot hold stays float32.

    A row of a K format has whole blocks of 256 numbers: of wan-tiny those of the second feed-forward matrix.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    path.parent.mkdir(parents=True, exist_ok=True)
    writer, wanted = GGUFWriter(path, architecture), GGMLQuantizationType[kind]
    quantised = set(matrices(tensors)) or {n for n, t in tensors.items() if t.dim() == 2}
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        if values.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{name}", list(values.shape))
            values = values.reshape(values.shape[0], -1)
        if name in quantised and kind.endswith("_K") and values.shape[-1] % 256 == 0:
            writer.add_tensor(name, k_quants(values, kind), raw_dtype=wanted)
        elif name in quantised and kind != "F32" and not kind.endswith("_K"):
            writer.add_tensor(name, quantize(values, wanted), raw_dtype=wanted)
        else:
            writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
