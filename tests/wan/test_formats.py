"""Every format that people have on disk gives the weights, and the latents, of the official folder."""

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.wan import converted, small
from tests.wan.golden import relative_error
from wanedit import MultiKeyframePipeline
from wanedit.errors import MissingWeightsError
from wanedit.flow.path import schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.lit.velocity import GuidedVelocity
from wanedit.video import from_uint8
from wanedit.wan import load_transformer, load_wan, open_wan
from wanedit.wan.condition import MEAN, STD, build_condition, count_tokens, load_tokenizer
from wanedit.wan.formats.tensors import read_file
from wanedit.wan.load import all_parts, require_parts


def weights_of(folder) -> dict[str, dict[str, torch.Tensor]]:
    return {part.name: dict(part.weights().read(lambda *_: False)) for part in all_parts(folder)}


def official() -> dict[str, dict[str, torch.Tensor]]:
    return weights_of(open_wan("tiny"))


def differences(folder) -> dict[str, float]:
    """The relative error of all numbers together, part by part."""
    expected, found = official(), weights_of(folder)
    assert found.keys() == expected.keys()
    errors = {}
    for part, tensors in expected.items():
        unread = {"head", "post_norm.weight", "post_norm.bias"} if part == "image encoder" else set()
        assert tensors.keys() - unread <= found[part].keys() <= tensors.keys()
        pairs = [(found[part][name].float(), tensors[name].float()) for name in found[part]]
        errors[part] = float(
            torch.cat([(a - b).flatten() for a, b in pairs]).norm()
            / torch.cat([b.flatten() for _, b in pairs]).norm()
        )
    return errors


@pytest.fixture(scope="module")
def diffusers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted.diffusers_folder(tmp_path_factory.mktemp("diffusers") / "Tiny-Diffusers")


def latents(model: Path | str, folder: Path) -> torch.Tensor:
    """Of nine frames, as `wanedit generate` samples them."""
    demo = Path("examples/multi_keyframe_demo")
    run = MultiKeyframePipeline(
        model=model, size="64*64", sample_steps=2, base_seed=1, save_latents=True
    ).run(
        keyframes=[(str(demo / "start.png"), 0.0), (str(demo / "rise.png"), 0.5)],
        global_prompt="a yellow star",
        output_path=str(folder),
    )
    (file,) = Path(run.video).parent.rglob("*.safetensors")
    return load_file(file)["latents"]


@pytest.fixture(scope="module")
def official_latents(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    return latents("tiny", tmp_path_factory.mktemp("official") / "run")


def test_a_run_of_every_unrounded_format_has_the_same_latents(
    diffusers: Path, official_latents: torch.Tensor, tmp_path: Path
) -> None:
    comfy = converted.comfy_folders(tmp_path / "models")
    gguf = converted.comfy_folders(tmp_path / "gguf")
    (gguf / "diffusion_models" / "tiny.safetensors").unlink()
    converted.gguf_file(converted.TRANSFORMER, gguf / "diffusion_models" / "tiny.gguf", "F16")
    for number, place in enumerate((diffusers, comfy, comfy / "diffusion_models" / "tiny.safetensors", gguf)):
        found = latents(place, tmp_path / f"run{number}")
        assert relative_error(found, official_latents) < 1e-6, place


def test_a_diffusers_folder_is_the_same_model(diffusers: Path) -> None:
    folder = open_wan(diffusers)
    require_parts(folder)
    assert folder.source.layout == "diffusers folder"
    assert folder.config == open_wan("tiny").config
    assert max(differences(folder).values()) == 0


def test_the_libraries_load_the_folder_and_compute_what_we_do(diffusers: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import CLIPVisionModel, UMT5EncoderModel

    ours = load_wan(diffusers, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        vae = AutoencoderKLWan.from_pretrained(diffusers / "vae", torch_dtype=torch.float32)
        mean, std = (torch.tensor(vae.config[f"latents_{n}"])[:, None, None, None] for n in ("mean", "std"))
        video = draw(1, 3, 9, 32, 32).tanh()
        latents = ours.vae.encode(video)
        theirs = (vae.encode(video, return_dict=False)[0].mode() - mean) / std
        assert relative_error(latents, theirs) < 1e-5
        shown = vae.decode(latents * std + mean, return_dict=False)[0]
        assert relative_error(ours.vae.decode(latents).clamp(-1, 1), shown.clamp(-1, 1)) < 1e-5

        text_encoder = UMT5EncoderModel.from_pretrained(diffusers / "text_encoder", dtype=torch.float32)
        ids, mask = ours.text_encoder.tokenizer(["a yellow star"], return_mask=True, add_special_tokens=True)
        text = ours.text_encoder(["a yellow star"])
        theirs = text_encoder(ids, attention_mask=mask).last_hidden_state * mask[..., None]
        assert relative_error(text, theirs) < 1e-5

        assert ours.image_encoder is not None
        images = draw(2, 3, ours.image_encoder.side, ours.image_encoder.side).tanh()
        pixels = (images / 2 + 0.5 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        clip = CLIPVisionModel.from_pretrained(diffusers / "image_encoder", dtype=torch.float32)
        seen = ours.image_encoder(images)
        assert relative_error(seen, clip(pixels, output_hidden_states=True).hidden_states[-2]) < 1e-5

        transformer = WanTransformer3DModel.from_pretrained(
            diffusers / "transformer", torch_dtype=torch.float32
        )
        # diffusers takes 512 tokens of text for granted, of which wan-tiny has 64.
        wide = replace(ours.folder, config=replace(ours.folder.config, text_len=512))
        known, timestep, text = draw(1, 20, 3, 4, 4), torch.tensor([700.0]), draw(1, 512, 128)
        velocity = load_transformer(wide, dtype=torch.float32)(
            latents, timestep, text, seen.flatten(0, 1)[None], known
        )
        theirs = transformer(torch.cat([latents, known], 1), timestep, text, seen, return_dict=False)[0]
        assert relative_error(velocity, theirs) < 1e-5


@pytest.mark.parametrize("model_type", ["t2v", "i2v", "flf2v"])
def test_the_pipeline_of_diffusers_loads_the_folder_and_samples_what_we_do(
    model_type: str, tmp_path: Path
) -> None:
    """From a prompt and pictures to pixels, under guidance; at 224*224, where CLIP's two ways to resize agree."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    model = small.transformer(model_type, text_len=512, text_dim=128, image_dim=128)
    folder = converted.diffusers_folder(tmp_path / "model", model)
    generator = np.random.default_rng(0)
    pictures = [Image.fromarray(generator.integers(0, 256, (224, 224, 3), np.uint8)) for _ in range(2)]
    pictures = pictures[: {"t2v": 0, "i2v": 1, "flf2v": 2}[model_type]]
    start = torch.randn(1, 16, 2, 28, 28, generator=torch.Generator().manual_seed(1))

    pipeline: Any = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    kept = {}
    shown = pipeline(
        prompt="a yellow star", negative_prompt="blurred", height=224, width=224, num_frames=5, guidance_scale=2.0,
        num_inference_steps=2, latents=start, output_type="pt", return_dict=False,
        callback_on_step_end=lambda _pipeline, _step, _timestep, values: kept.update(values) or {},
        **dict(zip(("image", "last_image"), pictures, strict=False)),
    )[0]  # fmt: skip

    wan = load_wan(folder, dtype=torch.float32)
    known = {4 * k: from_uint8(np.array(picture)[None])[:, 0] for k, picture in enumerate(pictures)}
    condition = tokens = None
    if known:
        assert wan.image_encoder is not None
        condition = build_condition(known, 5, wan.vae.encode)
        tokens = wan.image_encoder(torch.stack([*known.values()])).flatten(0, 1)[None]
    text, negative = (wan.text_encoder([prompt]) for prompt in ("a yellow star", "blurred"))
    levels = [float(sigma) for sigma in pipeline.scheduler.sigmas[:-1]]
    with torch.no_grad():
        velocity = GuidedVelocity(wan.transformer, (2, 28, 28), text, negative, tokens, condition, 2.0)
        latents = SOLVERS["euler"](velocity, start, schedule(2, 3.0, "euler", levels), lambda *_: None)
        frames = wan.vae.decode(latents).transpose(1, 2) / 2 + 0.5
    errors = relative_error(latents, kept["latents"]), float((frames - shown).abs().max())
    print(f"{model_type}: latents {errors[0]:.1e} relative, pixels {errors[1]:.1e} absolute")
    assert max(errors) < 1e-5
    assert relative_error(latents, start) > 0.1


def test_comfyui_files_are_the_same_model(tmp_path: Path) -> None:
    root = converted.comfy_folders(tmp_path / "models")
    for place in (root, root / "diffusion_models" / "tiny.safetensors"):
        folder = open_wan(place)
        require_parts(folder)
        assert folder.config == open_wan("tiny").config
        assert max(differences(folder).values()) == 0


# How a format is written, and the largest relative error of the numbers that it rounds and of the latents of nine
# frames. docs/formats.md has the errors themselves; wan-tiny is float16, which F16 therefore gives back whole.
ROUNDED = {
    "fp8": (converted.fp8_plain, 0.04, 0.04),
    "fp8, a scale a layer": (converted.fp8_scaled_old, 0.04, 0.04),
    "fp8, scales of today": (converted.fp8_scaled_new, 0.04, 0.04),
    "fp8, a scale a row": (converted.fp8_rows, 0.04, 0.04),
    "int8, a scale a row": (converted.int8_rows, 0.015, 0.015),
    "GGUF BF16": ("BF16", 4e-3, 4e-3),
    "GGUF Q8_0": ("Q8_0", 0.01, 0.01),
    "GGUF Q6_K": ("Q6_K", 0.03, 0.03),
    "GGUF Q5_K": ("Q5_K", 0.06, 0.06),
    "GGUF Q4_K": ("Q4_K", 0.12, 0.12),
    "GGUF Q5_0": ("Q5_0", 0.08, 0.08),
    "GGUF Q4_0": ("Q4_0", 0.15, 0.15),
}
OFTEN = ("fp8, a scale a layer", "fp8, a scale a row", "int8, a scale a row", "GGUF Q8_0", "GGUF Q4_K")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in OFTEN else pytest.mark.slow) for kind in ROUNDED]
)
def test_a_rounded_format_comes_back_to_its_rounding(
    tmp_path: Path, kind: str, official_latents: torch.Tensor
) -> None:
    write, of_weights, of_latents = ROUNDED[kind]
    root = converted.comfy_folders(tmp_path / "models", None if isinstance(write, str) else write)
    if isinstance(write, str):
        (root / "diffusion_models" / "tiny.safetensors").unlink()
        converted.gguf_file(converted.TRANSFORMER, root / "diffusion_models" / "tiny.gguf", write)
    folder = open_wan(root)
    require_parts(folder)
    found, expected = weights_of(folder)["transformer"], official()["transformer"]
    pairs = [(found[n].float(), t.float()) for n, t in expected.items()]
    rounded = [(a, b) for a, b in pairs if not torch.equal(a, b)]
    error = float(
        torch.cat([(a - b).flatten() for a, b in rounded]).norm()
        / torch.cat([b.flatten() for _, b in rounded]).norm()
    )
    share = sum(b.numel() for _, b in rounded) / sum(b.numel() for _, b in pairs)
    error_of_latents = relative_error(latents(root, tmp_path / "run"), official_latents)
    print(f"| {kind} | {share:.0%} | {error:.2g} | {error_of_latents:.2g} |")
    assert of_weights / 10 < error < of_weights
    assert error_of_latents < of_latents


def test_gguf_of_llama_cpp_gives_the_text_encoder(tmp_path: Path) -> None:
    root = converted.comfy_folders(tmp_path / "models")
    (root / "text_encoders" / "umt5.safetensors").unlink()
    converted.gguf_file(
        converted.llama_t5(converted.TEXT), root / "text_encoders" / "umt5.gguf", "F32", "t5encoder"
    )
    folder = open_wan(root)
    require_parts(folder)
    assert max(differences(folder).values()) == 0


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_k_formats_are_what_the_gguf_package_reads(tmp_path: Path, kind: str) -> None:
    """Any bytes are blocks, apart from their scales: a half of NaN would be nothing to compare."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import dequantize

    drawn = np.random.default_rng(3).standard_normal((6, 512)).astype(np.float32)
    blocks = converted.k_quants(drawn, kind)
    expected = dequantize(blocks, GGMLQuantizationType[kind])
    writer = GGUFWriter(tmp_path / "one.gguf", "wan")
    writer.add_tensor("weight", blocks, raw_dtype=GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = read_file(tmp_path / "one.gguf")["weight"]
    assert (stored.shape, stored.kind) == ((6, 512), kind)
    assert np.array_equal(stored.read().numpy(), expected)


def official_folder(folder: Path) -> Path:
    """wan-tiny's own, without its transformer."""
    left_out = shutil.ignore_patterns("diffusion_pytorch_model*")
    return Path(shutil.copytree(open_wan("tiny").path, folder, ignore=left_out))


@pytest.mark.parametrize(
    ("roof", "wrapper"),
    [
        ("", "module."),
        ("state_dict", "_orig_mod."),
        ("model.state_dict", ""),
        ("module", "module._orig_mod."),
        ("ema", "model.diffusion_model."),
        ("generator", "_fsdp_wrapped_module."),
    ],
)
def test_a_trainers_file_is_the_same_model(tmp_path: Path, roof: str, wrapper: str) -> None:
    folder = official_folder(tmp_path / "trained")
    saved: dict = {f"{wrapper}{name}": tensor for name, tensor in converted.TRANSFORMER.items()}
    for name in reversed(roof.split(".") if roof else []):
        saved = {name: saved, "epoch": 3, "optimizer": {"lr": 1e-4}}
    torch.save(saved, folder / "diffusion_pytorch_model.pth")
    assert max(differences(open_wan(folder)).values()) == 0


def test_blocks_that_were_compiled_one_by_one_are_the_same_model(tmp_path: Path) -> None:
    names = {n: re.sub(r"^(blocks\.\d+)\.", r"\1._orig_mod.", n) for n in converted.TRANSFORMER}
    folder = official_folder(tmp_path / "trained")
    tensors = {names[n]: t for n, t in converted.TRANSFORMER.items()}
    converted.save(tensors, folder / "diffusion_pytorch_model.safetensors")
    assert max(differences(open_wan(folder)).values()) == 0


def test_a_trainers_file_of_two_models_is_not_chosen_from(tmp_path: Path) -> None:
    folder = official_folder(tmp_path / "trained")
    tensors = dict(converted.TRANSFORMER)
    torch.save({"generator": tensors, "generator_ema": tensors}, folder / "diffusion_pytorch_model.pth")
    with pytest.raises(
        MissingWeightsError, match="holds the weights of generator and generator_ema; expected those of one"
    ):
        open_wan(folder)
    torch.save({"step": 1, "weights": 2}, folder / "diffusion_pytorch_model.pth")
    with pytest.raises(
        MissingWeightsError, match=r"holds a dict \(step, weights\); expected .* under one of state_dict"
    ):
        open_wan(folder)


def test_lightx2v_files_are_found_by_what_they_hold(tmp_path: Path) -> None:
    """Its folders are official ones whose transformer and encoders have names of their own and a scale a row."""
    folder = official_folder(tmp_path / "lightx2v")
    scaled, _ = converted.fp8_rows(converted.TRANSFORMER)
    converted.save(scaled, folder / "wan2.1_flf2v_720p_scaled_fp8_e4m3_lightx2v_4step.safetensors")
    (folder / "models_t5_umt5-xxl-enc.safetensors").unlink()
    text = dict(converted.TEXT)
    for name in [n for n in text if re.search(r"attn\.[qkvo]|ffn", n)]:
        rows = text[name].float().abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 448
        text[name] = (text[name].float() / rows).to(torch.float8_e4m3fn)
        text[name.removesuffix("weight") + "weight_scale"] = rows
    torch.save(text, folder / "models_t5_umt5-xxl-enc-fp8.pth")
    opened = open_wan(folder)
    require_parts(opened)
    errors = differences(opened)
    assert 1e-3 < errors.pop("transformer") < 0.04
    assert 1e-3 < errors.pop("text encoder") < 0.04
    assert max(errors.values()) == 0
    kinds = {part.name: part.weights().kinds[0] for part in all_parts(opened)}
    assert kinds["transformer"] == "float8_e4m3fn, scaled"
    shutil.copy(folder / "models_t5_umt5-xxl-enc-fp8.pth", folder / "models_t5_umt5-xxl-enc-bf16.pth")
    with pytest.raises(MissingWeightsError, match=r"holds models_t5_\S+bf16.pth, models_t5_\S+fp8.pth"):
        require_parts(opened)
    require_parts(open_wan(folder, {"text_encoder": folder / "models_t5_umt5-xxl-enc-fp8.pth"}))


STRANGERS = {
    "blocks.0.self_attn.q.lora_A.weight": "a LoRA: give it as --lora FILE beside a model",
    "double_blocks.0.img_attn.qkv.weight": "a model of the Hunyuan or Flux family",
    "transformer_blocks.0.attn1.to_q.weight": "a model of another family",
    "model.diffusion_model.input_blocks.0.0.weight": "a Stable Diffusion model",
    "decoder.middle.0.residual.0.gamma": "the VAE of a Wan",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "the text encoder of a Wan",
    "weird": "no part of a Wan",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_file_of_something_else_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    path = converted.save({name: torch.zeros(2, 2)}, tmp_path / "file.safetensors")
    with pytest.raises(MissingWeightsError, match=f"{path} is {STRANGERS[name]}"):
        open_wan(path)


def test_two_candidates_are_never_chosen_between_by_chance(tmp_path: Path) -> None:
    root = converted.comfy_folders(tmp_path / "models")
    shutil.copy(root / "vae" / "tiny_vae.safetensors", root / "vae" / "other.safetensors")
    with pytest.raises(
        MissingWeightsError, match=r"2 files hold a VAE: other\S+, tiny_vae\S+; choose one by --vae"
    ):
        require_parts(open_wan(root))
    folder = open_wan(root, {"vae": root / "vae" / "tiny_vae.safetensors"})
    require_parts(folder)
    assert max(differences(folder).values()) == 0


def test_a_missing_part_and_a_missing_choice_are_named(tmp_path: Path) -> None:
    root = converted.comfy_folders(tmp_path / "models")
    (root / "clip_vision" / "clip.safetensors").unlink()
    with pytest.raises(
        MissingWeightsError, match="no file holds the image encoder; name one by --image_encoder FILE"
    ):
        require_parts(open_wan(root))
    with pytest.raises(MissingWeightsError, match="VAE nowhere: there is no such file or folder"):
        open_wan(root, {"vae": "nowhere"})


def test_a_scaled_format_of_tomorrow_is_named(tmp_path: Path) -> None:
    def nvfp4(tensors: converted.Tensors) -> tuple[converted.Tensors, None]:
        said = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
        return tensors | {"blocks.0.self_attn.q.comfy_quant": said}, None

    root = converted.comfy_folders(tmp_path / "models", nvfp4)
    with pytest.raises(MissingWeightsError, match=r"is stored as 'nvfp4'.*expected float8_e4m3fn"):
        open_wan(root)


def test_the_tokenizer_inside_of_a_text_encoder_is_that_of_transformers(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    from transformers import T5Tokenizer

    prompts = ["a yellow star rises", "  a\n blue   ball, rolling ", "", "雪 falls on 12 hills", "star " * 40]
    corpus = iter([*prompts, "a small red star rises over the hills", "balls of snow are rolling down"] * 20)
    made = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=corpus, model_writer=made, vocab_size=80, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    root = converted.comfy_folders(tmp_path / "models")
    shutil.rmtree(root / "google")
    inside = {"spiece_model": torch.tensor(list(made.getvalue()), dtype=torch.uint8)}
    converted.save(
        converted.transformers_t5(converted.TEXT) | inside, root / "text_encoders" / "umt5.safetensors"
    )
    source = open_wan(root).source
    tokenizer, size = load_tokenizer(source.tokenizer(), 16)

    pieces = SentencePieceProcessor(model_proto=made.getvalue())
    (tmp_path / "spiece.model").write_bytes(made.getvalue())
    theirs = T5Tokenizer.from_pretrained(str(tmp_path), extra_ids=0)
    assert size == pieces.vocab_size()
    ids, mask = tokenizer(prompts, return_mask=True, add_special_tokens=True)
    lines = [" ".join(prompt.split()) for prompt in prompts]
    expected = theirs(lines, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    assert torch.equal(ids, expected.input_ids)
    assert torch.equal(mask, expected.attention_mask)
    for row, line in zip(ids, lines, strict=True):
        own = [*pieces.encode(line)[:15], pieces.eos_id()]
        assert row.tolist() == own + [0] * (16 - len(own))
    assert count_tokens(source, prompts) == [len(pieces.encode(line)) + 1 for line in lines]
