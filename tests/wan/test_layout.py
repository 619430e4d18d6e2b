"""Proof of layout without weights: every known model hashes to what diffsynth publishes."""

import contextlib
from pathlib import Path

import pytest
import torch

from tests.wan.converted import diffusers_names, diffusers_transformer
from wanedit.errors import MissingWeightsError
from wanedit.wan.catalog import KNOWN_MODELS, find_known, locate, recognise
from wanedit.wan.layout import check_known
from wanedit.wan.transformer import WanTransformer

PUBLISHED = [model for model in KNOWN_MODELS if not model.bundled]


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_known_models_hash_to_the_published_layout(model) -> None:
    from diffsynth.configs.model_configs import MODEL_CONFIGS

    published = {entry["model_hash"] for entry in MODEL_CONFIGS}
    checks = check_known(model)
    assert len(checks) == 3 + bool(model.config.image_tokens)
    for check in checks:
        assert check.ok, check
        assert check.layout in published or check.published is None, check


@pytest.mark.parametrize(
    "model", [m for m in PUBLISHED if m.config.model_type != "vace"], ids=lambda model: model.name
)
def test_known_models_have_the_names_and_shapes_of_diffusers(model) -> None:
    """Where no hash is published, too; a vace: test_vace.py."""
    with torch.device("meta"):
        ours, theirs = (
            WanTransformer(model.config).state_dict(),
            diffusers_transformer(model.config).state_dict(),
        )
    named = diffusers_names(ours)
    assert {n: t.shape for n, t in named.items()} == {n: t.shape for n, t in theirs.items()}


def test_published_sizes_agree_with_diffsynths() -> None:
    """The same hash stands there beside constructor arguments; ours must be those."""
    from diffsynth.configs.model_configs import MODEL_CONFIGS

    arguments: dict[str, dict] = {}
    for entry in MODEL_CONFIGS:  # a vace is two models there
        arguments.setdefault(entry["model_hash"], {}).update(entry.get("extra_kwargs", {}))
    for model in PUBLISHED:
        if model.transformer_hash is None:
            continue
        theirs = arguments[model.transformer_hash]
        for name in (
            "dim",
            "ffn_dim",
            "num_heads",
            "num_layers",
            "in_dim",
            "out_dim",
            "freq_dim",
            "text_dim",
            "eps",
        ):
            assert getattr(model.config, name) == theirs[name], (model.name, name)


def test_names_and_aliases_are_unique() -> None:
    named = [
        (name, model) for model in KNOWN_MODELS for name in (model.name, model.repository, *model.aliases)
    ]
    assert len({name.lower() for name, _ in named}) == len(named)
    assert all(find_known(name.upper()) is model for name, model in named)
    for name in ("WAN-1.3B", "WAN-14B"):  # the original's editor, which shows keyframes at any frame
        known = find_known(name)
        assert known is not None
        assert known.name == f"Wan2.1-Fun-{name.removeprefix('WAN-')}-InP"
    assert find_known("nothing") is None


@pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.name)
def test_a_folder_is_recognised_by_its_sizes_and_name(model) -> None:
    assert recognise(model.config, Path("/models") / model.name, model.experts) is model
    snapshot = Path(f"/cache/models--Wan-AI--{model.name}/snapshots/0a1b2c")
    assert recognise(model.config, snapshot, model.experts) is model
    for alias in model.aliases:
        assert recognise(model.config, Path("/models") / alias, model.experts) is model
    same = [m for m in KNOWN_MODELS if (m.config, m.experts) == (model.config, model.experts)]
    assert recognise(model.config, Path("/weights"), model.experts) is (model if len(same) == 1 else None)


@pytest.mark.parametrize("model", KNOWN_MODELS, ids=lambda model: model.name)
def test_every_name_that_is_listed_resolves_or_says_what_to_download(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANEDIT_MODELS", "COMFYUI", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (model.name, model.repository, *model.aliases):
        if model.bundled:
            assert name == model.repository or locate(name).is_dir()
            continue
        with pytest.raises(MissingWeightsError) as told:
            locate(name)
        assert f"wanedit models download {model.name} --to models/{model.name}" in str(told.value)
        (tmp_path / "models" / model.name).mkdir(parents=True, exist_ok=True)
        assert locate(name) == Path.cwd() / "models" / model.name
        (tmp_path / "models" / model.name).rmdir()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("wan2.1_fun_inp_1.3B_bf16", "Wan2.1-Fun-1.3B-InP"),
        ("wan2.1_fun_v1.1_1.3B_inp_bf16", "Wan2.1-Fun-V1.1-1.3B-InP"),
        ("wan2.2_fun_inpaint_high_noise_14B_fp8_scaled", "Wan2.2-Fun-A14B-InP"),
        ("wan2.2_fun_inpaint_5B_bf16", "Wan2.2-Fun-5B-InP"),
        ("wan2.2_ti2v_5B_fp16", "Wan2.2-TI2V-5B"),
        ("wan2.2_i2v_high_noise_14B_fp16", "Wan2.2-I2V-A14B"),
    ],
)
def test_a_file_of_comfyui_is_the_one_model_whose_name_it_says(
    file: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYUI", str(tmp_path))
    path = tmp_path / "models" / "diffusion_models" / f"{file}.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()
    found = []
    for model in KNOWN_MODELS:
        with contextlib.suppress(MissingWeightsError):
            found += [model.name] if locate(model.name) == path else []
    assert found == [name]
