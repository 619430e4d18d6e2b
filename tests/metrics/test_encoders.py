"""CLIP, DINO and RAFT from small fabricated files: where they are looked for, what is refused, what comes out."""

import hashlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import nn
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from wanedit.errors import InputError, MissingWeightsError
from wanedit.metrics.functional.motion import follow
from wanedit.metrics.networks import CLIP_MOMENTS, ClipImages, Dino, Raft, _cut, _whole, raft_large
from wanedit.metrics.weights import CLIP, DINO_B8, RAFT_LARGE, HubFile, HubModel

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def publish(cache: Path, network: nn.Module, state: dict[str, torch.Tensor] | None = None) -> HubModel:
    """Put a model into the cache as the hub does: a blob named by its hash, and a link to it."""
    root = cache / "models--own--tiny"
    snapshot, blobs = root / "snapshots" / "abc", root / "blobs"
    for folder in (snapshot, blobs, root / "refs"):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text(network.config.to_json_string())  # pyright: ignore
    content = save({k: v.contiguous() for k, v in (state or network.state_dict()).items()}, {"format": "pt"})
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(blob)
    return HubModel("own/tiny", 1)


@pytest.fixture
def clip_model() -> CLIPModel:
    """Both towers, of which only one is wanted."""
    torch.manual_seed(0)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return CLIPModel(
        CLIPConfig(
            text_config=text | {"vocab_size": 20, "projection_dim": 12},
            vision_config=TINY | {"projection_dim": 12},
            projection_dim=12,
        )
    ).eval()


@pytest.fixture
def dino_model() -> ViTModel:
    torch.manual_seed(1)
    return ViTModel(ViTConfig(**TINY), add_pooling_layer=False).eval()


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)


def normalised(frames: np.ndarray) -> torch.Tensor:
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in CLIP_MOMENTS)
    return (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / deviation


def test_clip_gives_the_projected_class_token(cache: Path, clip_model: CLIPModel, frames: np.ndarray) -> None:
    """Frames of the network's own size, so that nothing is resampled."""
    found = ClipImages.load(publish(cache, clip_model)).embed(frames)
    with torch.no_grad():
        tokens = clip_model.vision_model(pixel_values=normalised(frames)).pooler_output
        expected = clip_model.visual_projection(tokens)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dino_gives_the_class_token_and_keys(cache: Path, dino_model: ViTModel, frames: np.ndarray) -> None:
    dino = Dino.load(publish(cache, dino_model))
    assert dino.embed(frames).shape == (10, 16)
    # The last layer's keys, from the input of that layer by hand.
    inputs: list[torch.Tensor] = []
    layer = [m for name, m in dino.network.named_modules() if name.endswith("layernorm_before")][-1]
    handle = layer.register_forward_hook(lambda module, given, made: inputs.append(made))
    found = dino.keys(frames[0])
    handle.remove()
    state = dino_model.state_dict()
    names = [name for name in state if name.split(".")[-2] in ("key", "k_proj")]
    weight, bias = (state[[n for n in names if n.endswith(kind)][-1]] for kind in ("weight", "bias"))
    assert found.shape == (17, 16)
    np.testing.assert_allclose(found, (inputs[0][0] @ weight.T + bias).detach(), atol=1e-5)


def test_pictures_of_any_shape_are_brought_to_the_networks_size() -> None:
    wide = np.zeros((3, 50, 90, 3), np.uint8)
    assert [tuple(batch.shape) for batch in _cut(wide, 37, 32, CLIP_MOMENTS)] == [(3, 3, 32, 32)]
    assert _whole(wide[0], 32, 8).shape == (1, 3, 32, 56)
    assert _whole(np.zeros((20, 200, 3), np.uint8), 32, 8).shape[-1] <= 72


@pytest.mark.parametrize(("load", "model"), [(ClipImages.load, CLIP), (Dino.for_structure, DINO_B8)])
def test_a_missing_model_says_where_it_belongs(cache: Path, load, model: HubModel) -> None:
    with pytest.raises(MissingWeightsError) as error:
        load()
    text = str(error.value)
    assert str(cache / f"models--{model.repo.replace('/', '--')}") in text
    assert f"https://huggingface.co/{model.repo} ({model.megabytes} MB)" in text


def test_weights_that_are_not_what_the_cache_says(cache: Path, dino_model: ViTModel) -> None:
    model = publish(cache, dino_model)
    (blob,) = (cache / "models--own--tiny" / "blobs").iterdir()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(InputError, match="it is not the published file"):
        Dino.load(model)


def test_a_file_without_a_hash_is_refused(cache: Path, dino_model: ViTModel) -> None:
    model = publish(cache, dino_model)
    link = cache / "models--own--tiny" / "snapshots" / "abc" / "model.safetensors"
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    with pytest.raises(InputError, match="is no link to a file named by its SHA-256"):
        Dino.load(model)


def test_no_tensor_is_made_up(cache: Path, dino_model: ViTModel) -> None:
    """transformers would fill what is missing with random numbers and only warn."""
    state = dino_model.state_dict()
    del state["layernorm.weight"]
    with pytest.raises(InputError, match=r"has no layernorm\.weight; expected the weights of ViTModel"):
        Dino.load(publish(cache, dino_model, state))


def test_tensors_of_another_size_are_refused(cache: Path, dino_model: ViTModel) -> None:
    state = dino_model.state_dict() | {"layernorm.weight": torch.zeros(5)}
    with pytest.raises(InputError, match=r"holds tensors of other sizes than its config\.json says"):
        Dino.load(publish(cache, dino_model, state))


class Shifts(nn.Module):
    """A flow network whose flow is its two parameters everywhere, given twice as RAFT's iterations are."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        assert first.shape == second.shape
        assert not any(side % 8 for side in first.shape[-2:])
        assert min(first.shape[-2:]) >= 128
        assert first.abs().max() <= 1
        flow = self.shift[None, :, None, None].expand(1, 2, *first.shape[-2:])
        return [torch.zeros_like(flow), flow]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def shift_file(hub: Path, state: dict[str, torch.Tensor]) -> HubFile:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    name = f"shifts-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    (hub / name).write_bytes(buffer.getvalue())
    return HubFile(name, "https://example.org/shifts", 1)


@pytest.mark.parametrize("size", [(72, 96), (128, 200), (150, 133)])
def test_rafts_flow_is_in_the_frames_own_pixels(hub: Path, size: tuple[int, int]) -> None:
    raft = Raft.load(shift_file(hub, {"shift": torch.tensor([3.0, -2.0])}), Shifts)
    flow = raft(np.zeros((*size, 3), np.uint8), np.zeros((*size, 3), np.uint8))
    scale = max(1.0, 128 / min(size))
    assert flow.shape == (*size, 2)
    np.testing.assert_allclose(flow, np.broadcast_to([3 / scale, -2 / scale], flow.shape), rtol=0.01)


def test_the_measures_of_motion_take_raft_in_place_of_dis(hub: Path, clip: np.ndarray) -> None:
    """The clip moves 1.5 px a frame; in the enlarged frames of RAFT that is 128 / 72 times as much."""
    right = Raft.load(shift_file(hub, {"shift": torch.tensor([-1.5 * 128 / 72, 0.0])}), Shifts)
    still = Raft.load(shift_file(hub, {"shift": torch.zeros(2)}), Shifts)
    forward = right(clip[0], clip[1])
    moved = cv2.remap(clip[1], *grid(forward), cv2.INTER_LINEAR).astype(float)
    assert np.abs(moved - clip[0])[8:-8, 8:-8].mean() < 3
    dis = np.mean([step.moved_back[0] for step in follow(clip[:3])])
    frozen = np.mean([step.moved_back[0] for step in follow(clip[:3], still)])
    assert frozen > 3 * dis


def grid(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return x + flow[..., 0], y + flow[..., 1]


def test_raft_is_never_of_random_weights(hub: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"raft_large_C_T_SKHT_V2-ff5fadd5\.pth \(20 MB\)"):
        Raft.load()
    torch.save(Shifts().state_dict(), hub / RAFT_LARGE.name)
    with pytest.raises(InputError, match="its name says ff5fadd5…: it is not the published file"):
        Raft.load()
    with pytest.raises(InputError, match="holds other tensors than its architecture"):
        Raft.load(shift_file(hub, {"other": torch.zeros(2)}), Shifts)


def test_torchvisions_architecture_takes_any_frame() -> None:
    """Only its shape: the weights here are random and no value of it is looked at."""
    flow = Raft(raft_large().eval())(np.zeros((40, 56, 3), np.uint8), np.zeros((40, 56, 3), np.uint8))
    assert flow.shape == (40, 56, 2)
