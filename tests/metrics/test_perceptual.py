"""LPIPS on a small fabricated trunk: the loading path, and its distance against the formula."""

import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from wanedit.errors import InputError, MissingWeightsError
from wanedit.files import file_sha256
from wanedit.metrics.networks import Lpips, visible_difference
from wanedit.metrics.weights import ALEXNET, HubFile, require
from wanedit.video.arrays import FrameSequence


def trunk_file(hub: Path, state: dict) -> HubFile:
    """A trunk whose name carries the hash of its own content."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    path = hub / "checkpoints" / "trunk.pth"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(buffer.getvalue())
    named = path.with_name(f"alexnet-owt-{file_sha256(path)[:8]}.pth")
    path.rename(named)
    return HubFile(named.name, "https://example.org/trunk", 10)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


@pytest.fixture
def features() -> nn.Sequential:
    torch.manual_seed(0)
    return alexnet(weights=None).features


def state(features: nn.Sequential) -> dict:
    return {f"features.{name}": value for name, value in features.state_dict().items()}


@pytest.fixture
def frames() -> tuple[np.ndarray, np.ndarray]:
    a = np.random.default_rng(0).integers(0, 256, (10, 64, 72, 3), dtype=np.uint8)
    return a, np.roll(a, 3, axis=2)


def test_distance_is_the_papers_formula(hub: Path, features: nn.Sequential, frames) -> None:
    """d = sum over layers of the mean over places of w . (f_a / |f_a| - f_b / |f_b|)^2, equation 1."""
    a, b = frames
    lpips = Lpips.load("alex", trunk_file(hub, state(features)))
    heads = {k: lpips.network.state_dict()[f"lin{k}.model.1.weight"] for k in range(5)}
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def layers(frame: np.ndarray) -> list[torch.Tensor]:
        x = (torch.from_numpy(frame).float() / 127.5 - 1 - shift) / scale
        x, found = x.permute(2, 0, 1)[None], []
        for k, layer in enumerate(features.children()):
            x = layer(x)
            if k in (1, 4, 7, 9, 11):
                found.append(x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-8))
        return found

    def distance(p: np.ndarray, q: np.ndarray) -> float:
        pairs = zip(layers(p), layers(q), strict=True)
        return float(sum((heads[k] * (x - y).square()).sum(1).mean() for k, (x, y) in enumerate(pairs)))

    with torch.no_grad():
        expected = [distance(p, q) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(lpips.distances(a, b), expected, rtol=1e-3)
    assert (lpips.distances(a, a) == 0).all()


def test_the_authors_package_gives_what_torchmetrics_gives(
    hub: Path, features: nn.Sequential, frames
) -> None:
    """Whose heads and code measured before."""
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    a, b = frames
    lpips = Lpips.load("alex", trunk_file(hub, state(features)))
    other = _NoTrainLpips(pretrained=True, net="alex", pnet_rand=True)
    other.net.load_state_dict(lpips.network.net.state_dict())  # pyright: ignore
    pair = [torch.from_numpy(v).movedim(-1, 1).float() / 127.5 - 1 for v in (a, b)]
    with torch.no_grad():
        expected = other(*pair).ravel()
    np.testing.assert_allclose(lpips.distances(a, b), expected, rtol=1e-5)


def test_a_missing_trunk_says_where_it_belongs(hub: Path) -> None:
    with pytest.raises(MissingWeightsError) as error:
        Lpips.load()
    text = str(error.value)
    assert str(hub / "checkpoints" / "alexnet-owt-7be5be79.pth") in text
    assert ALEXNET.address in text
    assert "233 MB" in text


def test_a_random_file_under_the_right_name_is_refused(hub: Path, features: nn.Sequential) -> None:
    path = hub / "checkpoints" / ALEXNET.name
    path.parent.mkdir()
    torch.save(state(features), path)
    with pytest.raises(InputError, match="its name says 7be5be79…: it is not the published file"):
        Lpips.load()


def test_a_name_without_a_hash_is_refused(hub: Path) -> None:
    with pytest.raises(InputError, match="carries no hash"):
        require(HubFile("alexnet.pth", "https://example.org", 1))


def test_a_trunk_of_another_network_is_refused(hub: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no features.0.weight; expected the weights of torchvision's trunk"
    ):
        Lpips.load("alex", trunk_file(hub, {"conv.weight": torch.zeros(3)}))


def test_frames_that_do_not_fit(hub: Path, features: nn.Sequential, frames) -> None:
    lpips = Lpips.load("alex", trunk_file(hub, state(features)))
    with pytest.raises(InputError, match="expected one shape"):
        lpips.distances(frames[0], frames[1][:, :, :40])
    with pytest.raises(InputError, match="at least 32 pixels"):
        lpips.distances(frames[0][:, :20], frames[1][:, :20])


def test_lpips_in_a_mask_is_the_upsampled_map_over_it(hub: Path, features: nn.Sequential, frames) -> None:
    """Each layer's map brought to the frame's size by bilinear interpolation, summed, averaged over the mask."""
    a, b = (video[:2] for video in frames)
    lpips = Lpips.load("alex", trunk_file(hub, state(features)))
    heads = {k: lpips.network.state_dict()[f"lin{k}.model.1.weight"] for k in range(5)}
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def layers(video: np.ndarray) -> list[torch.Tensor]:
        x = ((torch.from_numpy(video).float() / 127.5 - 1 - shift) / scale).permute(0, 3, 1, 2)
        found = []
        for k, layer in enumerate(features.children()):
            x = layer(x)
            if k in (1, 4, 7, 9, 11):
                found.append(x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-8))
        return found

    with torch.no_grad():
        maps = sum(
            nn.functional.interpolate(
                (heads[k] * (x - y).square()).sum(1, keepdim=True), a.shape[1:3], mode="bilinear"
            )
            for k, (x, y) in enumerate(zip(layers(a), layers(b), strict=True))
        )
    assert isinstance(maps, torch.Tensor)
    mask = np.zeros(a.shape[:3], dtype=bool)
    mask[0, 10:30, 5:40] = True
    found = lpips.distances(a, b, mask)
    np.testing.assert_allclose(found[0], maps[0, 0].numpy()[mask[0]].mean(), rtol=1e-3)
    assert np.isnan(found[1])
    # The network that gives one number a frame is as it was.
    assert lpips.distances(a, b).shape == (2,)


def test_a_mask_keeps_its_place(hub: Path, features: nn.Sequential) -> None:
    a = np.random.default_rng(0).integers(0, 256, (1, 96, 192, 3), dtype=np.uint8)
    b, mask = a.copy(), np.zeros(a.shape[:3], dtype=bool)
    b[:, :, 144:] = 255 - b[:, :, 144:]
    mask[:, :, :96] = True
    lpips = Lpips.load("alex", trunk_file(hub, state(features)))
    assert lpips.distances(a, b, ~mask)[0] > 5 * lpips.distances(a, b, mask)[0]
    with pytest.raises(InputError, match="mask is"):
        lpips.distances(a, b, mask[:, :40])


def test_a_difference_is_the_more_visible_the_larger_it_is_and_none_gives_10() -> None:
    if importlib.util.find_spec("pycvvdp") is None:
        pytest.skip("ColorVideoVDP is an extra")
    rng = np.random.default_rng(0)
    soft = np.kron(rng.integers(60, 200, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    reference = np.stack([np.roll(soft, t, axis=1) for t in range(6)])
    reads = [0, 0]

    def opened(clip: np.ndarray, which: int) -> FrameSequence:
        def read(start: int, stop: int) -> Iterator[np.ndarray]:
            for frame in clip[start:stop]:
                reads[which] += 1
                yield frame

        return FrameSequence(clip.shape, read)

    jods = []
    for deviation in (0, 3, 12, 40):
        noisy = reference + rng.normal(0, deviation or 1e-9, reference.shape)
        video = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        reads[:] = [0, 0]
        jods.append(visible_difference(opened(video, 0), opened(reference, 1), 16))
        assert reads == [6, 6], "each frame is read once"
    assert jods[0] == 10
    assert jods == sorted(jods, reverse=True)
    assert jods[-1] < 9
    # What blinks faster is seen less.
    blinking = reference.copy()
    blinking[::2] += 4
    slow, fast = (visible_difference(blinking, reference, fps) for fps in (8, 120))
    assert slow < fast
    assert not any("pycvvdp" in folder for folder in sys.path)


def test_colorvideovdp_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    clip = np.zeros((2, 32, 32, 3), np.uint8)
    with pytest.raises(InputError, match=r"pip install 'wanedit\[cvvdp\]'"):
        visible_difference(clip, clip, 16)
    with pytest.raises(InputError, match="expected one shape"):
        visible_difference(clip, clip[:1], 16)
