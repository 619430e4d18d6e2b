"""The family beyond Wan 2.1: TI2V-5B, what is made from it, and the experts of Wan 2.2, against diffusers' classes."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.runs import run_cli
from tests.wan import small
from tests.wan.converted import diffusers_names, diffusers_transformer
from tests.wan.folders import write_experts
from tests.wan.golden import absolute_error, relative_error
from wanedit.wan.catalog import find_known
from wanedit.wan.load import load_transformer, load_vae
from wanedit.wan.transformer import Experts, WanTransformer
from wanedit.wan.vae import OFFICIAL, build_vae, latent_space

GRID = (3, 4, 6)


def diffusers_twin(model: WanTransformer):
    """diffusers' transformer of the same weights."""
    twin = diffusers_transformer(model.config)
    twin.load_state_dict(diffusers_names(model.state_dict()))
    return twin.eval().requires_grad_(False)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("model_type", "in_dim", "out_dim"),
    [("ti2v", 48, 48), ("ti2v", 100, 48), ("t2v", 16, 16), ("i2v", 36, 16)],
    ids=["TI2V-5B", "Fun-5B-InP", "T2V-A14B", "Fun-A14B-InP"],
)
@pytest.mark.parametrize("clean", [False, True], ids=["one timestep", "slot 0 clean"])
def test_the_velocity_is_that_of_diffusers(model_type: str, in_dim: int, out_dim: int, clean: bool) -> None:
    model = small.transformer(model_type, in_dim=in_dim, out_dim=out_dim, image_tokens=False, text_len=10)
    latents, known = draw(2, out_dim, *GRID), draw(2, in_dim - out_dim, *GRID, seed=1)
    text, timestep = draw(2, 10, model.config.text_dim, seed=2), torch.tensor([812.5, 300.0])
    if clean:
        timestep = timestep[:, None] * torch.tensor([0.0, 1.0, 1.0])
        tokens = timestep.repeat_interleave(GRID[1] * GRID[2] // 4, dim=1)
    else:
        tokens = timestep
    with torch.no_grad():
        velocity = model(latents, timestep, text, condition=known if in_dim > out_dim else None)
        twin = diffusers_twin(model)
        expected = twin(torch.cat([latents, known], dim=1), tokens, text, return_dict=False)[0]
    assert relative_error(velocity, expected) < 1e-5


@pytest.mark.parametrize(("model_type", "images"), [("i2v", 1), ("flf2v", 2)])
def test_the_velocity_of_a_model_that_looks_at_images_is_that_of_diffusers(
    model_type: str, images: int
) -> None:
    model = small.transformer(model_type, text_len=512)  # diffusers counts the images' tokens from there
    latents, known, text = draw(2, 16, *GRID), draw(2, 20, *GRID, seed=1), draw(2, 512, 12, seed=2)
    timestep, seen = torch.tensor([812.5, 300.0]), draw(2, images, 257, 14, seed=3)
    with torch.no_grad():
        velocity = model(latents, timestep, text, seen.flatten(1, 2), known)
        expected = diffusers_twin(model)(
            torch.cat([latents, known], dim=1), timestep, text, seen.flatten(0, 1), return_dict=False
        )[0]
    assert relative_error(velocity, expected) < 1e-5


def diffusers_vae(**sizes):
    """diffusers' VAE of Wan 2.2 with the sizes of its published config.json, or others."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    published = OFFICIAL[48]
    sizes = {"base_dim": published["dim"], "decoder_base_dim": published["dec_dim"]} | sizes
    return AutoencoderKLWan(
        z_dim=48, latents_mean=published["latents_mean"], latents_std=published["latents_std"], is_residual=True,
        in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16, **sizes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def vaes(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """diffusers' of random weights, and ours, loaded from the folder that it saved."""
    folder = tmp_path_factory.mktemp("5B-Diffusers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = (
            diffusers_vae(base_dim=4, decoder_base_dim=6, dim_mult=[1, 2, 4, 4]).eval().requires_grad_(False)
        )
        for parameter in theirs.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter) + (parameter.dim() < 5))
    theirs.save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline"}))
    return theirs, load_vae(folder)


def normalised(vae, latents: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(getattr(vae.config, name)).view(1, -1, 1, 1, 1)
        for name in ("latents_mean", "latents_std")
    )
    return (latents - mean) / std


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in chunks"])
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_the_vae_of_48_channels_is_that_of_diffusers(
    vaes: tuple, whole: bool, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = vaes
    monkeypatch.setattr("wanedit.wan.vae.WHOLE_UP_TO", 2**40 if whole else 0)
    video = draw(2, 3, frames, 64, 32).clamp(-1, 1)
    with torch.no_grad():
        latents = ours.encode(video)
        expected = normalised(theirs, theirs.encode(video).latent_dist.mode())
        assert latents.shape == (2, 48, (frames - 1) // 4 + 1, 4, 2)
        assert relative_error(latents, expected) < 1e-5
        noise = draw(*latents.shape, seed=1)
        mean, std = (x.view(1, -1, 1, 1, 1) for x in (ours.mean, ours.std))
        pixels = theirs.decode(noise * std + mean).sample
        assert pixels.std() > 0.1
        assert absolute_error(ours.decode(noise), pixels) < 1e-5


def test_the_vae_of_48_channels_has_diffusers_shapes_at_its_published_size() -> None:
    with torch.device("meta"):
        ours, theirs = build_vae(OFFICIAL[48]).state_dict(), diffusers_vae().state_dict()
    assert latent_space(OFFICIAL[48]).stride == 16
    assert sorted(tuple(t.shape) for t in ours.values()) == sorted(tuple(t.shape) for t in theirs.values())


def test_the_experts_of_t2v_a14b_edit_each_with_its_guidance(tmp_path: Path) -> None:
    known = find_known("Wan2.2-T2V-A14B")
    assert known is not None
    own = known.sampling
    assert (own.boundary, own.guidance_scale, own.guidance_scale_low, own.shift) == (0.875, 4.0, 3.0, 12.0)
    folder = write_experts(tmp_path / "small", "t2v")
    said = {
        name: getattr(own, name) for name in ("boundary", "guidance_scale", "guidance_scale_low", "shift")
    }
    (folder / "sampling.json").write_text(json.dumps(said))
    pair = load_transformer(folder)
    assert isinstance(pair, Experts)
    assert pair.boundaries == (875.0,)

    example = Path("examples/edit_a_video").absolute()
    command = [
        "edit",
        str(example / "source.mp4"),
        "--keyframes",
        f"{example / 'board.jpg'}:0",
        "--num_frames",
        "5",
    ]
    command += [
        "--prompt",
        "a wooden board",
        "--size",
        "64*64",
        "--num_inference_steps",
        "3",
        "--restore",
        "none",
    ]
    command += ["--ckpt_dir", str(folder), "--output", str(tmp_path / "made")]
    told = " ".join(run_cli(*command, "--dry_run").out.split())
    assert "guidance 4, then 3" in told
    assert "cannot be shown the keyframes at [0]; they act by the method alone" in told
    assert run_cli(*command).code == 0
