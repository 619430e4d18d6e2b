"""LoRAs of every trainer's spelling, merged into the weights as they are read, as peft and diffusers merge them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.wan import converted, folders, small
from tests.wan.golden import relative_error
from wanedit import EditConfig, MultiKeyframePipeline, WanVideoEditorPipeline
from wanedit.cli import main, read_line
from wanedit.errors import InputError, MissingWeightsError
from wanedit.runtime.record import recorded
from wanedit.wan import load_transformer, open_wan
from wanedit.wan.config import TRANSFORMER, ChosenLora
from wanedit.wan.formats.lora import Lora
from wanedit.wan.formats.numbers import Weights
from wanedit.wan.load import WanFolder, hash_files, transformer_parts
from wanedit.wan.transformer import Experts

RANK, ALPHA = 3, 6.0
LAYERS = [
    f"blocks.{block}.{layer}"
    for block in range(2)
    for layer in ("self_attn.q", "self_attn.o", "cross_attn.k", "cross_attn.v_img", "ffn.0", "ffn.2")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.write_folder(tmp_path_factory.mktemp("model") / "small")


def weights(folder: WanFolder, part: int = 0) -> dict[str, Tensor]:
    return dict(transformer_parts(folder)[part].weights().read(lambda *_: False))


def factors(shapes: dict[str, tuple[int, ...]], layers=LAYERS) -> dict[str, tuple[Tensor, Tensor]]:
    """Random B and A for layers of a model."""
    generator = torch.Generator().manual_seed(5)
    made = {}
    for layer in layers:
        rows, columns = shapes[f"{layer}.weight"]
        made[layer] = (
            torch.randn(rows, RANK, generator=generator),
            torch.randn(RANK, columns, generator=generator),
        )
    return made


def diffusers_name(layer: str) -> str:
    for old, new in (
        ("self_attn", "attn1"),
        ("cross_attn", "attn2"),
        (r"_img$", "_img_"),
        (r"\.([kv])_img_$", r".add_\1_proj"),
        (r"\.([qkv])$", r".to_\1"),
        (r"\.o$", ".to_out.0"),
        (r"ffn\.0$", "ffn.net.0.proj"),
        (r"ffn\.2$", "ffn.net.2"),
    ):
        layer = re.sub(old, new, layer)
    return layer


def flat(layer: str) -> str:
    return layer.replace(".", "_")


# How a file calls a layer, by what stands before it.
PREFIXES = {
    "none": lambda n: n,
    "none, diffusers": diffusers_name,
    "diffusion_model.": lambda n: f"diffusion_model.{n}",
    "model.diffusion_model.": lambda n: f"model.diffusion_model.{n}",
    "base_model.model.": lambda n: f"base_model.model.{n}",
    "lora_unet_": lambda n: f"lora_unet_{flat(n)}",
    "lora_unet__": lambda n: f"lora_unet__{flat(n)}",
    "lora_transformer_": lambda n: f"lora_transformer_{flat(diffusers_name(n))}",
    "transformer.": lambda n: f"transformer.{diffusers_name(n)}",
    "transformer_2.": lambda n: f"transformer_2.{diffusers_name(n)}",
    "processors": lambda n: re.sub(r"\.(to_|add_)", r".processor.\1", diffusers_name(n)),
}
# The endings of its two factors.
SUFFIXES = [
    (".lora_down.weight", ".lora_up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_A", ".lora_B"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
]
COMFY, PEFT = SUFFIXES[:2]
SPELLINGS = {
    "ComfyUI": ("diffusion_model.", COMFY),
    "kohya": ("lora_unet_", COMFY),
    "diffusers": ("transformer.", PEFT),
    "low noise": ("transformer_2.", PEFT),
}


def write(
    path: Path, found: dict[str, tuple[Tensor, Tensor]], spelling: str = "ComfyUI", alpha: bool = True
) -> Path:
    prefix, (down, up) = SPELLINGS[spelling]
    called, tensors = PREFIXES[prefix], {}
    for layer, (b, a) in found.items():
        tensors |= {called(layer) + down: a, called(layer) + up: b}
        if alpha:
            tensors[called(layer) + ".alpha"] = torch.tensor(ALPHA)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def opened(model: Path, *loras: object, partial: bool = False) -> WanFolder:
    return open_wan(model, loras=[ChosenLora.of(one) for one in loras], lora_partial=partial)


def changed(
    base: dict[str, Tensor], found: dict[str, tuple[Tensor, Tensor]], scale: float
) -> dict[str, Tensor]:
    added = {f"{layer}.weight": scale * (b @ a) for layer, (b, a) in found.items()}
    return {name: tensor.float() + added.get(name, torch.zeros(())) for name, tensor in base.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    errors = {name: relative_error(found[name].float(), tensor) for name, tensor in expected.items()}
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] < bound, (worst, errors[worst])


# What a file holds beside factors, and an alpha for some: its ending -> the layer, and the weight that it changes.
EXTRAS = {
    ".diff": ("blocks.0.self_attn.norm_q", "blocks.0.self_attn.norm_q.weight"),
    ".diff_b": ("blocks.0.cross_attn.k", "blocks.0.cross_attn.k.bias"),
    ".diff_m": ("blocks.1", "blocks.1.modulation"),
    ".set_weight": ("blocks.1.cross_attn.q", "blocks.1.cross_attn.q.weight"),
}


@pytest.fixture(scope="module")
def bare(model: Path) -> tuple[Weights, dict[str, Tensor]]:
    found = transformer_parts(open_wan(model))[0].weights()
    return found, {name: tensor.double() for name, tensor in found.read(lambda *_: False)}


@pytest.mark.parametrize("suffix", SUFFIXES, ids=lambda suffix: suffix[0])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_prefix_suffix_and_extra_is_what_it_is_by_hand(
    bare: tuple[Weights, dict[str, Tensor]], tmp_path: Path, prefix: str, suffix: tuple[str, str]
) -> None:
    """In float64: W + 0.8 (alpha / rank) B A, + 0.8 of a difference, 0.8 of the way to a new value."""
    (found, base), called, strength = bare, PREFIXES[prefix], 0.8
    tensors, expected = {}, {}
    for k, (layer, (b, a)) in enumerate(factors(found.shapes).items()):
        scale = 1.0
        if k % 2:
            tensors[called(layer) + ".alpha"], scale = torch.tensor(ALPHA), ALPHA / RANK
        tensors |= {called(layer) + suffix[0]: a, called(layer) + suffix[1]: b}
        expected[f"{layer}.weight"] = base[f"{layer}.weight"] + strength * scale * (b.double() @ a.double())
    generator = torch.Generator().manual_seed(3)
    for extra, (layer, weight) in EXTRAS.items():
        given = tensors[called(layer) + extra] = torch.randn(found.shapes[weight], generator=generator)
        change = given.double() - (base[weight] if extra == ".set_weight" else 0)
        expected[weight] = base[weight] + strength * change
    path = converted.save(tensors, tmp_path / "style.safetensors")
    lora = Lora.fitted(ChosenLora(path, strength), path, {TRANSFORMER: found.shapes})
    entries = lora.onto(TRANSFORMER, found.entries)
    changed = {name: entry for name, entry in entries.items() if entry is not found.entries[name]}
    merged = dict(Weights(found.files, changed).read(lambda *_: False))
    assert_near({name: tensor.double() for name, tensor in merged.items()}, expected, 3e-7)


def test_several_loras_add_up_and_the_loaded_module_has_them(model: Path, tmp_path: Path) -> None:
    base = weights(open_wan(model))
    found = factors({name: tuple(t.shape) for name, t in base.items()})
    path = write(tmp_path / "style.safetensors", found)
    other = write(tmp_path / "other.safetensors", {layer: found[layer] for layer in LAYERS[:2]}, "kohya")
    folder = opened(model, f"{path}:0.5", [str(other), -0.25])
    expected = changed(
        changed(base, found, 0.5 * 2), {layer: found[layer] for layer in LAYERS[:2]}, -0.25 * 2
    )
    assert_near(dict(load_transformer(folder, dtype=torch.float32).state_dict()), expected)


def test_whole_differences_of_weights_biases_and_modulations_are_added(model: Path, tmp_path: Path) -> None:
    base = weights(open_wan(model))
    names = {
        "blocks.0.self_attn.norm_q.diff": "blocks.0.self_attn.norm_q.weight",
        "patch_embedding.diff": "patch_embedding.weight",
        "blocks.1.ffn.0.diff_b": "blocks.1.ffn.0.bias",
        "blocks.1.diff_m": "blocks.1.modulation",
        "head.modulation.diff": "head.modulation",
        "img_emb.emb_pos.diff": "img_emb.emb_pos",
        "lora_unet_blocks_0_cross_attn_o.diff_b": "blocks.0.cross_attn.o.bias",
    }
    generator = torch.Generator().manual_seed(2)
    added = {key: torch.randn(base[name].shape, generator=generator) for key, name in names.items()}
    replaced = torch.randn(base["head.head.weight"].shape, generator=generator)
    path = tmp_path / "full.safetensors"
    prefixed = {key if key.startswith("lora") else f"diffusion_model.{key}": t for key, t in added.items()}
    save_file(prefixed | {"diffusion_model.head.head.set_weight": replaced}, path)
    expected = dict(base)
    for key, name in names.items():
        expected[name] = base[name].float() + 0.5 * added[key]
    assert_near(
        weights(opened(model, (path, 0.5))),
        expected | {"head.head.weight": (base["head.head.weight"].float() + replaced) / 2},
    )
    assert torch.allclose(weights(opened(model, path))["head.head.weight"], replaced)


def test_the_patch_embedding_of_a_convolution_is_factored(model: Path, tmp_path: Path) -> None:
    base = weights(open_wan(model))
    shape = base["patch_embedding.weight"].shape
    down, up = torch.randn(RANK, *shape[1:]), torch.randn(shape[0], RANK, 1, 1, 1)
    path = tmp_path / "patch.safetensors"
    save_file(
        {
            "diffusion_model.patch_embedding.lora_down.weight": down,
            "diffusion_model.patch_embedding.lora_up.weight": up,
        },
        path,
    )
    conv = torch.nn.functional.conv3d(down.transpose(0, 1), up.flip(2)).transpose(0, 1)
    found = weights(opened(model, path))["patch_embedding.weight"]
    assert torch.allclose(found, base["patch_embedding.weight"] + conv, atol=1e-5)


def test_strength_0_leaves_every_weight_the_view_that_it_was(model: Path, tmp_path: Path) -> None:
    folder = open_wan(model)
    found = factors(transformer_parts(folder)[0].weights().shapes)
    path = write(tmp_path / "style.safetensors", found)
    with_lora = opened(model, (path, 0))
    (part,) = transformer_parts(with_lora)
    assert all(entry.make is None for entry in part.weights().entries.values())
    base = weights(folder)
    assert all(torch.equal(tensor, base[name]) for name, tensor in weights(with_lora).items())
    assert hash_files(with_lora, print) == hash_files(folder, print)
    assert hash_files(opened(model, (path, 0.5)), print) != hash_files(opened(model, (path, 0.6)), print)


def test_a_lora_is_merged_into_weights_that_were_dequantised(tmp_path: Path) -> None:
    root = converted.comfy_folders(tmp_path / "models", converted.fp8_scaled_new)
    base = weights(open_wan(root))
    found = factors({name: tuple(t.shape) for name, t in base.items()})
    path = write(tmp_path / "style.safetensors", found)
    assert_near(weights(opened(root, path)), changed(base, found, ALPHA / RANK))


def test_each_expert_takes_its_own(tmp_path: Path) -> None:
    model = folders.write_experts(tmp_path / "pair")
    high, low = (weights(open_wan(model), part) for part in (0, 1))
    layers = [layer for layer in LAYERS if "img" not in layer]
    found = factors({name: tuple(t.shape) for name, t in high.items()}, layers)
    path = write(tmp_path / "style_high_noise.safetensors", found)
    folder = opened(model, f"{path}:1:high")
    assert_near(weights(folder), changed(high, found, 2))
    assert_near(weights(folder, 1), low, 1e-12)
    assert not folder.loras[0].notes
    both = opened(model, path)
    assert_near(weights(both, 1), changed(low, found, 2))
    assert "goes onto both experts, and its name says high" in both.loras[0].notes[0]
    loaded = load_transformer(opened(model, f"{path}:1:low"), dtype=torch.float32)
    assert isinstance(loaded, Experts)
    assert_near(dict(loaded.experts[-1].state_dict()), changed(low, found, 2))

    a = load_file(write(tmp_path / "a.safetensors", found, "diffusers"))
    b = load_file(
        write(tmp_path / "b.safetensors", {layer: found[layer] for layer in layers[:1]}, "low noise")
    )
    save_file(a | b, tmp_path / "two.safetensors")
    folder = opened(model, tmp_path / "two.safetensors")
    assert_near(weights(folder), changed(high, found, 2))
    assert_near(weights(folder, 1), changed(low, {layer: found[layer] for layer in layers[:1]}, 2))


def test_what_has_no_place_is_listed_and_refused_unless_partial_is_said(model: Path, tmp_path: Path) -> None:
    base = weights(open_wan(model))
    found = factors({name: tuple(t.shape) for name, t in base.items()})
    path = write(tmp_path / "style.safetensors", found)
    strange = {
        "diffusion_model.blocks.7.self_attn.q.lora_up.weight": torch.zeros(44, RANK),
        "diffusion_model.blocks.7.self_attn.q.lora_down.weight": torch.zeros(RANK, 44),
        "diffusion_model.blocks.0.self_attn.q.dora_scale": torch.zeros(44),
    }
    save_file(load_file(path) | strange, path)
    with pytest.raises(
        MissingWeightsError, match=r"3 of 39 tensors have no place .*dora_scale.*--lora_partial"
    ):
        opened(model, path)
    folder = opened(model, path, partial=True)
    assert "3 of 39 tensors have no place" in folder.loras[0].notes[0]
    assert_near(weights(folder), changed(base, found, 2))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"blocks.0.self_attn.q.weight": (44, 44)}, "is the transformer of a Wan; expected a LoRA"),
        (
            {
                "double_blocks.0.img_attn.lora_A.weight": (2, 9),
                "double_blocks.0.img_attn.lora_B.weight": (9, 2),
            },
            "is a LoRA for another model: none of its 2 tensors",
        ),
        (
            {
                "blocks.29.self_attn.q.lora_A.weight": (2, 1536),
                "blocks.29.self_attn.q.lora_B.weight": (1536, 2),
            },
            "is a LoRA for a Wan of 30 blocks of 1536; this model has 2 of 44",
        ),
        ({"blocks.0.self_attn.q.lora_B.weight": (44, 2)}, "none of its 1 tensors has a place"),
    ],
)
def test_another_file_is_called_what_it_is(model: Path, tmp_path: Path, tensors: dict, message: str) -> None:
    path = converted.save({n: torch.zeros(s) for n, s in tensors.items()}, tmp_path / "file.safetensors")
    with pytest.raises(MissingWeightsError, match=message):
        opened(model, path, partial=True)


def test_a_lora_is_named_by_file_strength_and_expert() -> None:
    assert ChosenLora.of("a b.safetensors") == ChosenLora(Path("a b.safetensors"))
    assert ChosenLora.of("C:\\x.safetensors:.5:low") == ChosenLora(Path("C:\\x.safetensors"), 0.5, "low")
    assert ChosenLora.of("x:high") == ChosenLora(Path("x"), 1.0, "high")
    assert ChosenLora.of(["x", -2, "high"]) == ChosenLora(Path("x"), -2.0, "high")
    for strength in (0.1, 1e-7, 1 / 3, -12345.678):
        one = ChosenLora(Path("x"), strength)
        assert ChosenLora.of(str(one)) == one
    for wrong in ("", [], ["x", "much"], ["x", float("nan")], ["x", 1, "middle"], 3, ["x", 1, "low", 2]):
        with pytest.raises(InputError, match="lora"):
            ChosenLora.of(wrong)


def test_an_expert_of_a_model_of_one_transformer_is_refused(model: Path, tmp_path: Path) -> None:
    found = factors(transformer_parts(open_wan(model))[0].weights().shapes)
    with pytest.raises(InputError, match="has one transformer; expected no high"):
        opened(model, f"{write(tmp_path / 'style.safetensors', found)}:1:high")


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"alpha_pattern": {"ffn.0": 1}}, {"lora_bias": True}]
)
def test_a_folder_of_peft_gives_what_peft_merges(model: Path, tmp_path: Path, options: dict) -> None:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=RANK, lora_alpha=5, target_modules=["q", "o", "ffn.0"], init_lora_weights=False, **options
    )
    wrapped = get_peft_model(load_transformer(model, dtype=torch.float32), settings)  # pyright: ignore
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name and name.endswith("bias"):
                parameter.normal_()
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    expected = wrapped.merge_and_unload().state_dict()
    for place in (tmp_path / "adapter", tmp_path / "adapter" / "adapter_model.safetensors"):
        folder = opened(model, place)
        assert_near(weights(folder), {name: tensor.float() for name, tensor in expected.items()})
    assert any("adapter_config.json" in name for name in hash_files(folder, print))


@pytest.mark.parametrize("spelling", ["ComfyUI", "kohya", "diffusers", "diffusers with its metadata"])
def test_a_file_gives_what_diffusers_fuses(model: Path, tmp_path: Path, spelling: str) -> None:
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    theirs = converted.diffusers_transformer(small.config())
    official = weights(open_wan(model))
    theirs.load_state_dict(converted.diffusers_names({n: t.clone() for n, t in official.items()}))
    # Its kohya reader wants every layer, and an alpha for each; its own files have alphas in the metadata alone.
    every = [
        f"blocks.{block}.{layer}"
        for block in range(2)
        for layer in (
            *(f"self_attn.{x}" for x in "qkvo"),
            *(f"cross_attn.{x}" for x in ("q", "k", "v", "o", "k_img", "v_img")),
            "ffn.0",
            "ffn.2",
        )
    ]
    found = factors({name: tuple(t.shape) for name, t in official.items()}, every)
    path = tmp_path / "style.safetensors"
    if spelling == "diffusers with its metadata":
        write(path, found, "diffusers", alpha=False)
        told = {"transformer.r": RANK, "transformer.lora_alpha": 7, "transformer.target_modules": []}
        told["transformer.target_modules"] = [diffusers_name(layer) for layer in every]
        save_file(load_file(path), path, {"format": "pt", "lora_adapter_metadata": json.dumps(told)})
    else:
        write(path, found, spelling, alpha=spelling != "diffusers")
    pipeline = WanPipeline(None, None, None, None, transformer=theirs)  # pyright: ignore
    pipeline.load_lora_weights(str(path))
    pipeline.fuse_lora(lora_scale=0.7)
    pipeline.unload_lora_weights()
    fused = converted.save(
        dict(theirs.state_dict()), tmp_path / "fused" / "diffusion_pytorch_model.safetensors"
    )
    shutil.copy(model / "config.json", fused.with_suffix(".json"))
    expected = weights(open_wan(model, {"transformer": fused}))
    assert (expected["blocks.0.ffn.0.weight"] - official["blocks.0.ffn.0.weight"]).norm() > 0.1
    assert_near(
        weights(opened(model, (path, 0.7))), {name: tensor.float() for name, tensor in expected.items()}
    )


def test_a_lora_names_the_results_of_a_run_and_its_record(tmp_path: Path) -> None:
    shapes = transformer_parts(open_wan("tiny"))[0].weights().shapes
    found = factors(shapes, ["blocks.0.self_attn.q"])
    path = write(tmp_path / "style.safetensors", found)
    demo = Path("examples/multi_keyframe_demo")
    keyframes = [(str(demo / "start.png"), 0.0), (str(demo / "rise.png"), 0.5)]

    def digest(**settings: Any) -> str:
        plan = MultiKeyframePipeline(size="64*64", base_seed=1, **settings).plan(keyframes)
        return plan.tasks[0].digest

    names = [digest(loras=[(path, strength)]) for strength in (0.8, 0.5)]
    assert len({digest(), *names}) == 3
    assert digest(lora=f"{path}:0.8") == digest(lora=[f"{path}:0.8"]) == names[0]
    assert digest(loras=[(path, 0)]) == digest()
    config = WanVideoEditorPipeline(loras=[(path, 0.8)]).config
    assert recorded(config)["lora"] == [f"{path}:0.8"]
    assert recorded(EditConfig(**recorded(config)))["lora"] == [f"{path}:0.8"]


def test_a_file_of_settings_names_loras_and_parts_from_where_it_stands(tmp_path: Path, capsys) -> None:
    found = factors(transformer_parts(open_wan("tiny"))[0].weights().shapes, ["blocks.0.self_attn.q"])
    write(tmp_path / "style.safetensors", found)
    shutil.copy(open_wan("tiny").path / "Wan2.1_VAE.safetensors", tmp_path / "vae.safetensors")
    shutil.copy(open_wan("tiny").path / "vae_config.json", tmp_path / "vae.json")
    config = tmp_path / "settings.yaml"
    config.write_text("lora: [style.safetensors:0.5]\nvae: vae.safetensors\n")
    demo = Path("examples/multi_keyframe_demo")
    words = ["--keyframes", f"{demo / 'start.png'}:0.0,{demo / 'rise.png'}:0.5", "--size", "64*64"]
    assert main(["generate", "--config", str(config), *words, "--dry_run"]) == 0
    assert "style.safetensors x 0.5: rank 3, 1 tensors of the transformer" in capsys.readouterr().out
    for below in ("style.safetensors:0.5:0.9", "[[style.safetensors, 0.5, '', 0.9]]"):
        config.write_text(f"lora: {below}\n")
        assert main(["generate", "--config", str(config), *words, "--dry_run"]) == 0
        assert "style.safetensors x 0.5 below noise level 0.9: rank 3" in capsys.readouterr().out
    config.write_text("lora: null\nsize: 64*64\n")
    assert main(["generate", "--config", str(config), *words, "--dry_run"]) == 2
    assert "lora is None; expected FILE" in capsys.readouterr().err
    config.write_text("lora: elsewhere.safetensors\n")
    assert main(["generate", "--config", str(config), *words, "--dry_run"]) == 3
    assert "LoRA elsewhere.safetensors: there is no such file" in capsys.readouterr().err


def test_the_flag_is_repeated_or_gives_a_list() -> None:
    def taken(*words: str) -> object:
        parsed = read_line(["generate", *words], ["lora", "size"], ["lora"]).words
        return [yaml.safe_load(w.partition("=")[2]) for w in parsed if w.startswith("--lora")]

    assert taken("--lora", "a:0.5", "--size=8*8", "--lora=b:1:high") == [["a:0.5", "b:1:high"]]
    assert taken("--loras", '[a, ["b", 0.5]]', "--loras", "c") == [["a", ["b", 0.5], "c"]]
    assert taken("--lora", "--size=8*8") == [None]
