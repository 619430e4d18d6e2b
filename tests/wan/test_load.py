"""Folders and known names into modules, and what is said when a part is missing."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.wan import folders, small
from tests.wan.golden import relative_error
from wanedit.errors import InputError, MissingWeightsError
from wanedit.flow.path import Step
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan import load_transformer, load_vae, load_wan, open_wan
from wanedit.wan.catalog import locate
from wanedit.wan.condition import count_tokens, load_image_encoder, load_text_encoder
from wanedit.wan.formats.layouts import open_source
from wanedit.wan.layout import check_folder
from wanedit.wan.load import text_dtype
from wanedit.wan.transformer import Experts, WanTransformer

# Weights out of a file lie elsewhere in memory, and the last bit of a sum may depend on where.
CLOSE = 2e-6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.write_folder(tmp_path_factory.mktemp("models") / "Own-FLF2V")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """One to break."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("weights", "device", "dtype"),
    [
        (5_680_910_336, "cpu", torch.bfloat16),
        (9_000_000, "cpu", torch.float32),
        (9_000_000, "cuda", torch.bfloat16),
    ],
)
def test_umt5_xxl_is_bfloat16_on_every_device(
    monkeypatch: pytest.MonkeyPatch, weights: int, device: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(
        "wanedit.wan.load.text_part", lambda source: SimpleNamespace(num_weights=lambda: weights)
    )
    assert text_dtype(open_wan("tiny").source, device) == dtype


def test_a_whole_folder_loads_and_runs(whole: Path) -> None:
    wan = load_wan(whole)
    assert wan.folder.name == "Own-FLF2V"
    assert wan.image_encoder is not None
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    tokens = wan.image_encoder(images).flatten(0, 1)[None]
    text = wan.text_encoder(["a red ball"])
    latents = wan.vae.encode(images[:1, :, None].expand(-1, -1, 13, -1, -1))
    condition = torch.cat([torch.ones(1, 4, 4, 4, 6), latents], dim=1)
    velocity = wan.transformer(latents, torch.tensor([500.0]), text, tokens, condition)
    assert velocity.shape == latents.shape
    assert velocity.isfinite().all()
    assert wan.vae.decode(latents).shape == (1, 3, 13, 32, 48)


def test_weights_arrive_as_written(whole: Path) -> None:
    model = load_transformer(whole)
    values = small.inputs(small.transformer())
    written = small.transformer()
    weights = model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in written.state_dict().items())
    assert relative_error(model(**values), written(**values)) < CLOSE
    assert not any(p.is_meta for part in (model, load_vae(whole)) for p in part.parameters())


def test_bfloat16_keeps_the_sensitive_parts_in_float32(whole: Path) -> None:
    """Time embedding, norms, modulation and head: what the official code keeps out of its autocast."""
    model = load_transformer(whole, dtype=torch.bfloat16)
    kept = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    rest = {name for name, p in model.named_parameters()} - kept
    assert all(model.get_parameter(name).dtype == torch.bfloat16 for name in rest)
    for part in ("time_embedding.0.weight", "time_projection.1.bias", "head.head.weight", "head.modulation"):
        assert part in kept
    for part in ("modulation", "norm3.weight", "self_attn.norm_q.weight", "cross_attn.norm_k_img.weight"):
        assert f"blocks.1.{part}" in kept
    assert {"patch_embedding.weight", "blocks.0.self_attn.q.weight", "text_embedding.0.weight"} <= rest
    assert sum(model.get_parameter(name).numel() for name in rest) > sum(
        model.get_parameter(name).numel() for name in kept if "time_" not in name
    )

    values = small.inputs(small.transformer())
    velocity = model(**values)
    assert velocity.dtype == torch.float32
    assert 1e-6 < relative_error(velocity, small.transformer()(**values)) < 0.02


PARTS = {
    "config.json": r"config.json does not exist",
    "diffusion_pytorch_model.safetensors": r"has no diffusion_pytorch_model\*",
    "Wan2.1_VAE.pth": r"has no Wan2.1_VAE\*",
    "models_t5_umt5-xxl-enc-bf16.pth": r"has no models_t5_umt5-xxl-enc\*",
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth": r"has no models_clip_open-clip",
    "google/umt5-xxl/tokenizer_config.json": "umt5-xxl lacks tokenizer_config.json",
    "google/umt5-xxl/tokenizer.json": "umt5-xxl lacks tokenizer.json",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_before_any_is_loaded(
    copy: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / part).unlink()

    def filled(*_args, **_kwargs):
        raise AssertionError("loaded")

    monkeypatch.setattr("wanedit.wan.checkpoint.fill", filled)
    with pytest.raises(MissingWeightsError, match=PARTS[part]):
        load_wan(copy)


@pytest.mark.parametrize("part", [name for name in PARTS if name != "config.json"])
def test_a_check_of_the_folder_finds_it_too(copy: Path, part: str) -> None:
    assert all(check.ok for check in check_folder(copy))
    (copy / part).unlink()
    problems = [check.problem or "" for check in check_folder(copy)]
    assert [bool(re.search(PARTS[part], problem)) for problem in problems].count(True) == 1


def test_a_config_that_lies_is_caught(copy: Path) -> None:
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(values | {"num_layers": 3}))
    with pytest.raises(MissingWeightsError, match=r"missing: blocks.2.cross_attn"):
        load_transformer(copy)
    (copy / "config.json").write_text(json.dumps(values | {"ffn_dim": 65}))
    with pytest.raises(
        MissingWeightsError, match=r"misshapen: blocks.0.ffn.0.bias is \(64,\), expected \(65,\)"
    ):
        load_transformer(copy)
    (copy / "config.json").write_text(json.dumps(values | {"dmi": 3}))
    with pytest.raises(InputError, match=r"config.json: unknown keys \['dmi'\]"):
        load_transformer(copy)


@pytest.mark.parametrize(
    "name", ["sampling.json", "vae_config.json", "text_encoder_config.json", "image_encoder_config.json"]
)
def test_an_unknown_key_of_any_config_is_named(copy: Path, name: str) -> None:
    path = copy / name
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | {"shfit": 3.0}))
    with pytest.raises(InputError, match=rf"{name}: unknown keys \['shfit'\]; expected some of"):
        load_wan(copy)


def test_a_folder_has_its_own_sampling(copy: Path) -> None:
    (copy / "sampling.json").write_text(json.dumps({"shift": 3.0}))
    assert open_wan(copy).sampling.shift == 3.0
    assert open_wan(copy).sampling.num_inference_steps == 50


def test_experts_switch_at_timestep_900(tmp_path: Path) -> None:
    folder = folders.write_experts(tmp_path / "experts")
    pair = load_transformer(folder)
    assert isinstance(pair, Experts)
    high, low = (small.transformer("i2v", seed, image_tokens=False) for seed in (0, 1))
    values = small.inputs(high)
    for timestep, expert in ((999.0, high), (900.0, high), (899.9, low), (3.0, low)):
        values["timestep"] = torch.tensor([timestep])
        assert relative_error(pair(**values), expert(**values)) < CLOSE
    assert load_wan(folder).image_encoder is None
    assert [c.part for c in check_folder(folder) if c.ok][:2] == ["transformer", "low-noise transformer"]


def test_experts_under_guidance(tmp_path: Path) -> None:
    pair = load_transformer(folders.write_experts(tmp_path / "experts"))
    low = small.transformer("i2v", 1, image_tokens=False)
    values = small.inputs(low)
    rest = (None, values["condition"])
    guided = GuidedVelocity(pair, small.GRID, values["text"], -values["text"], *rest, 2.0)
    t = torch.tensor([500.0])
    conditional = low(values["latents"], t, values["text"], *rest)
    unconditional = low(values["latents"], t, -values["text"], *rest)
    expected = unconditional + 2 * (conditional - unconditional)
    assert relative_error(guided(values["latents"], Step(0, 0.5, 0.4, 500.0)), expected) < 1e-5


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = folders.write_experts(tmp_path / "experts")
    shutil.rmtree(folder / "low_noise_model")
    with pytest.raises(MissingWeightsError, match="low_noise_model has no diffusion_pytorch_model"):
        load_wan(folder)


def test_a_known_name_that_is_absent_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANEDIT_MODELS", "/nowhere")
    for name in ("Wan2.1-FLF2V-14B-720P", "Wan-AI/Wan2.1-FLF2V-14B-720P", "flf2v-14b"):
        with pytest.raises(MissingWeightsError) as caught:
            open_wan(name)
        message = str(caught.value)
        for folder in (Path.cwd(), Path.cwd() / "models", Path("/nowhere")):
            assert f"{folder / 'Wan2.1-FLF2V-14B-720P'}" in message
        assert "wanedit models download Wan2.1-FLF2V-14B-720P --to models/Wan2.1-FLF2V-14B-720P" in message
    with pytest.raises(InputError, match="'Wan9' is neither a file, a folder nor a known model"):
        open_wan("Wan9")


def test_known_names_are_looked_for_in_wanedit_models(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "second" / "Wan2.1-FLF2V-14B-720P")
    monkeypatch.setenv("WANEDIT_MODELS", f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert open_wan("FLF2V-14B").path == tmp_path / "second" / "Wan2.1-FLF2V-14B-720P"
    assert isinstance(load_transformer("wan-ai/wan2.1-flf2v-14b-720p"), WanTransformer)
    shutil.copytree(whole, tmp_path / "models" / "WAN-14B")
    monkeypatch.chdir(tmp_path)
    for name in ("WAN-14B", "14B", "alibaba-pai/Wan2.1-Fun-14B-InP"):
        assert locate(name) == tmp_path / "models" / "WAN-14B"


def test_a_path_without_a_folder_says_how_to_fill_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingWeightsError) as caught:
        open_wan(Path("models/WAN-1.3B"))
    message = str(caught.value)
    assert f"no folder {tmp_path / 'models' / 'WAN-1.3B'}" in message
    assert "wanedit models download Wan2.1-Fun-1.3B-InP --to models/WAN-1.3B" in message
    with pytest.raises(
        MissingWeightsError, match=r"no folder .*weights/mine; expected the folder or file of a che"
    ):
        open_wan("weights/mine")


@pytest.mark.parametrize("name", ["tiny", "wan-tiny", "TINY"])
def test_the_bundled_model_is_always_there(name: str) -> None:
    folder = open_wan(name)
    assert folder.known is not None
    assert folder.known.bundled
    assert not folder.sampling.full_size
    assert all(check.ok for check in check_folder(name))


def test_prompts_end_in_zeros(whole: Path) -> None:
    source = open_source(whole)
    encoder = load_text_encoder(source, 10, torch.float32)
    prompts = ["a red ball", "a very small blue square on green moves to the left and back again"]
    both, counts = encoder(prompts), count_tokens(source, prompts)
    assert both.shape == (2, 10, folders.TEXT["dim"])
    assert counts[0] < 10 < counts[1]
    assert both[0, counts[0] - 1].any()
    assert not both[0, counts[0] :].any()
    for row, prompt in enumerate(prompts):
        assert relative_error(both[row], encoder([prompt])[0]) < 1e-5
    assert (
        relative_error(encoder(["a  red\nball "])[0], both[0]) < 1e-5
    )  # white space is cleaned, as officially


def test_images_give_257_tokens_whatever_their_size(whole: Path) -> None:
    encoder = load_image_encoder(open_source(whole), torch.float32)
    images = torch.rand(2, 3, 40, 64) * 2 - 1
    tokens = encoder(images)
    assert tokens.shape == (2, 257, folders.IMAGE["dim"])
    assert relative_error(tokens[1:], encoder(images[1:])) < 1e-5
    side = torch.nn.functional.interpolate(images, size=(224, 224), mode="bicubic", align_corners=False)
    assert relative_error(encoder(side), tokens) < CLOSE
