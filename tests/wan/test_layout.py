"""Proof of layout without weights: every known model hashes to what diffsynth publishes."""

from pathlib import Path

import pytest

from wanedit.wan.catalog import KNOWN_MODELS, find_known, recognise
from wanedit.wan.layout import check_known

PUBLISHED = [model for model in KNOWN_MODELS if not model.bundled]


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.name)
def test_known_models_hash_to_the_published_layout(model) -> None:
    from diffsynth.configs.model_configs import MODEL_CONFIGS

    published = {entry["model_hash"] for entry in MODEL_CONFIGS}
    checks = check_known(model)
    assert len(checks) == 3 + bool(model.config.image_tokens)
    for check in checks:
        assert check.ok, check
        assert check.layout in published, check


def test_published_sizes_agree_with_diffsynths() -> None:
    """The same hash stands there beside constructor arguments; ours must be those."""
    from diffsynth.configs.model_configs import MODEL_CONFIGS

    arguments: dict[str, dict] = {}
    for entry in MODEL_CONFIGS:  # a vace is two models there
        arguments.setdefault(entry["model_hash"], {}).update(entry.get("extra_kwargs", {}))
    for model in PUBLISHED:
        assert model.transformer_hash is not None
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
    assert recognise(model.config, Path("/models") / model.name) is model
    snapshot = Path(f"/cache/models--Wan-AI--{model.name}/snapshots/0a1b2c")
    assert recognise(model.config, snapshot) is model
    for alias in model.aliases:
        assert recognise(model.config, Path("/models") / alias) is model
    alone = len([other for other in KNOWN_MODELS if other.config == model.config]) == 1
    assert recognise(model.config, Path("/weights")) is (model if alone else None)
