"""VACE: hint blocks and their input against diffusers' own classes, names and sizes of both published models."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.wan import small
from tests.wan.converted import diffusers_names
from tests.wan.folders import write_transformer
from tests.wan.golden import relative_error
from wanedit.errors import InputError
from wanedit.wan import open_wan
from wanedit.wan.catalog import find_known
from wanedit.wan.checkpoint import module_shapes
from wanedit.wan.condition import build_hints
from wanedit.wan.config import WanConfig
from wanedit.wan.load import load_transformer, load_vae
from wanedit.wan.transformer import WanTransformer


def theirs(model: WanTransformer):
    """diffusers' class of these sizes, on the meta device where the model is."""
    from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel

    config = model.config
    with next(model.parameters()).device:
        return WanVACETransformer3DModel(
            num_attention_heads=config.num_heads,
            attention_head_dim=config.head_dim,
            text_dim=config.text_dim,
            freq_dim=config.freq_dim,
            ffn_dim=config.ffn_dim,
            num_layers=config.num_layers,
            vace_layers=list(config.vace_layers),
            vace_in_channels=config.vace_in_dim,
        )


def test_the_velocity_is_that_of_diffusers() -> None:
    model = small.transformer("vace", dim=48)
    values = small.inputs(model, batch=2)
    their_model = theirs(model)
    their_model.load_state_dict(diffusers_names(model.state_dict()))
    with torch.no_grad():
        # It does not pad the text.
        text = torch.nn.functional.pad(values["text"], (0, 0, 0, 3))
        expected = their_model(
            values["latents"], values["timestep"], text, control_hidden_states=values["condition"]
        ).sample
        assert relative_error(model(**values), expected) < 1e-5
        unconditioned = model(**values | {"condition": torch.zeros_like(values["condition"])})
        assert relative_error(unconditioned, expected) > 1e-3


@pytest.mark.parametrize("model", ["Wan2.1-VACE-1.3B", "Wan2.1-VACE-14B"])
def test_both_published_sizes_have_the_names_and_shapes_of_diffusers(model: str) -> None:
    known = find_known(model)
    assert known is not None
    with torch.device("meta"):
        ours = WanTransformer(known.config)
    expected = {name: tuple(tensor.shape) for name, tensor in theirs(ours).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in diffusers_names(ours.state_dict()).items()}
    assert found == expected
    assert WanConfig.from_dict(WanConfig.sizes_of(module_shapes(ours))) == known.config


class Pipeline:
    """diffusers' preparation of the input, with our VAE in the place of its own."""

    def __init__(self, encode, dtype: torch.dtype = torch.float32) -> None:
        from diffusers.pipelines.wan.pipeline_wan_vace import WanVACEPipeline

        self.vae = SimpleNamespace(
            dtype=dtype,
            config=SimpleNamespace(z_dim=16, latents_mean=[0.0] * 16, latents_std=[1.0] * 16),
            encode=lambda video: SimpleNamespace(latents=encode(video)),
        )
        self.transformer = SimpleNamespace(config=SimpleNamespace(patch_size=(1, 2, 2)))
        self.vae_scale_factor_temporal, self.vae_scale_factor_spatial = 4, 8
        self._execution_device = torch.device("cpu")
        self.of = WanVACEPipeline

    def __call__(self, video: Tensor, mask: Tensor, references: list[Tensor]) -> Tensor:
        latents = self.of.prepare_video_latents(self, video, mask, [references])  # pyright: ignore
        masks = self.of.prepare_masks(self, mask, [references])  # pyright: ignore
        return torch.cat([latents, masks], dim=1)


@pytest.mark.parametrize(("num_frames", "count"), [(1, 0), (9, 0), (5, 2), (17, 1)])
def test_hints_are_those_of_diffusers(num_frames: int, count: int) -> None:
    """Of a mask of areas and of shades, with and without reference pictures."""
    vae = load_vae("tiny")
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    video, mask = 2 * draw(1, 3, num_frames, 32, 48) - 1, draw(1, 1, num_frames, 32, 48)
    references = [2 * draw(3, 32, 48) - 1 for _ in range(count)]
    with torch.no_grad():
        found = build_hints(video, mask, vae.encode, references)
        expected = Pipeline(vae.encode)(video, mask.expand(-1, 3, -1, -1, -1), references)
    assert found.shape == (1, 96, count + (num_frames - 1) // 4 + 1, 4, 6)
    assert torch.equal(found, expected)


def test_a_folder_of_diffusers_and_the_official_one_are_one_model(tmp_path: Path) -> None:
    """As their class saves it; officially also where the config says t2v, as VACE's own code, or no layers."""
    model = small.transformer("vace", dim=48)
    official = tmp_path / "official"
    write_transformer(official, model)
    saved = theirs(model)
    saved.load_state_dict(diffusers_names(model.state_dict()))
    saved.save_pretrained(tmp_path / "diffusers" / "transformer")
    own = tmp_path / "diffusers" / "transformer" / "config.json"
    own.write_text(
        json.dumps(json.loads(own.read_text()) | {"text_len": model.config.text_len, "image_dim": 14})
    )
    (tmp_path / "diffusers" / "model_index.json").write_text('{"_class_name": "WanVACEPipeline"}')
    said = json.loads((official / "config.json").read_text())
    values = small.inputs(model)
    for change in ({}, {"model_type": "t2v"}, {"vace_layers": None}):
        words = {name: value for name, value in (said | change).items() if value is not None}
        (official / "config.json").write_text(json.dumps(words))
        for place in (official, tmp_path / "diffusers"):
            folder = open_wan(place)
            assert folder.config == model.config
            with torch.no_grad():
                assert torch.equal(load_transformer(folder)(**values), model(**values))


@pytest.mark.parametrize(
    "change",
    [
        {"vace_layers": [1, 2]},
        {"vace_layers": [0, 3]},
        {"vace_in_dim": 0},
        {"model_type": "t2v"},
    ],
)
def test_layers_that_no_vace_has_are_refused(change: dict) -> None:
    said = asdict(small.config("vace")) | {"vace_layers": [0, 2]} | change
    with pytest.raises(InputError, match="vace alone, blocks from 0 to 2 that rise from 0"):
        WanConfig.from_dict(said)


@pytest.mark.parametrize("change", [{"vace_layers": 3}, {"vace_layers": [0, "2"]}, {"vace_in_dim": "96"}])
def test_a_config_of_other_types_is_refused(change: dict) -> None:
    with pytest.raises(InputError, match=f"config: {next(iter(change))} is .*; expected a value such as"):
        WanConfig.from_dict(asdict(small.config("vace")) | {"vace_layers": [0, 2]} | change)
