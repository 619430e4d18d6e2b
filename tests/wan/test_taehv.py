"""TAEHV from its published layout: against the sequence that it is trained as, frame by frame; and what is refused."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from wanedit.errors import MissingWeightsError
from wanedit.wan.config import LatentSpace
from wanedit.wan.taehv import NAMES, STAGES, TinyDecoder, find_taehv, shapes

WIDTHS = (12, 8, 6, 5)


class Block(nn.Module):
    """Sees its input, and that of the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = ((2 * width, width), (width, width), (width, width))
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in sizes]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


class Grow(nn.Module):
    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times, self.conv = times, nn.Conv2d(width, width * times, 1, bias=False)


class Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class Published(nn.Module):
    """The sequence whose places name the tensors: 23 modules."""

    def __init__(self, channels: int, patch: int) -> None:
        super().__init__()
        a, b, c, d = WIDTHS
        layers: list[nn.Module] = [Clamp(), nn.Conv2d(channels, a, 3, padding=1), nn.ReLU()]
        for (into, out), times in zip(((a, b), (b, c), (c, d)), (1, 2, 2), strict=True):
            layers += [*(Block(into) for _ in range(3)), nn.Upsample(scale_factor=2), Grow(into, times)]
            layers.append(nn.Conv2d(into, out, 3, padding=1, bias=False))
        layers += [nn.ReLU(), nn.Conv2d(d, 3 * patch * patch, 3, padding=1)]
        self.decoder = nn.Sequential(*layers)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3))

    def frames(self, x: Tensor, memory: dict[int, Tensor], place: int = 0) -> list[Tensor]:
        """What comes of one frame at a place, and what every block has seen before."""
        for k in range(place, len(self.decoder)):
            layer = self.decoder[k]
            if isinstance(layer, Block):
                before = memory.get(k, torch.zeros_like(x))
                memory[k] = x
                x = F.relu(layer.conv(torch.cat([x, before], 1)) + x)
            elif isinstance(layer, Grow):
                made = layer.conv(x).chunk(layer.times, 1)
                return [frame for one in made for frame in self.frames(one, memory, k + 1)]
            else:
                x = layer(x)
        return [x]


def written(
    folder: Path, channels: int = 16, patch: int = 1, changed: dict[str, Tensor] | None = None
) -> tuple[Path, Published]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Published(channels, patch).requires_grad_(False)
    tensors = {**model.state_dict(), **(changed or {})}
    file = folder / f"{NAMES[channels]}.safetensors"
    save_file({name: one.contiguous() for name, one in tensors.items()}, file)
    return file, model


@pytest.mark.parametrize(("channels", "stride"), [(16, 8), (48, 16)])
def test_a_clip_is_what_the_published_sequence_makes_frame_by_frame(
    tmp_path: Path, channels: int, stride: int
) -> None:
    file, model = written(tmp_path, channels, stride // 8)
    latents = torch.randn(channels, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    memory: dict[int, Tensor] = {}
    made = [frame for k in range(3) for frame in model.frames(latents[None, :, k], memory)]
    expected = torch.cat([F.pixel_shuffle(one, stride // 8) for one in made[3:]]).clamp(0, 1)
    found = TinyDecoder(file, LatentSpace(channels, stride)).decode(latents)
    assert found.shape == (3, 9, 4 * stride, 6 * stride)
    assert torch.allclose(found, 2 * expected.transpose(0, 1) - 1, atol=1e-5)
    assert {
        n: tuple(one.shape) for n, one in model.state_dict().items() if n.startswith("decoder.")
    } == shapes(channels, WIDTHS, stride // 8)


def test_a_layer_that_grows_further_is_cut_to_its_last_frames(tmp_path: Path) -> None:
    grow = f"decoder.{STAGES[0][1]}.conv.weight"
    plain, model = written(tmp_path)
    latents = torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = TinyDecoder(plain, LatentSpace()).decode(latents)
    own = model.state_dict()[grow]
    wider, _ = written(tmp_path, changed={grow: torch.cat([torch.full_like(own, 9.0), own])})
    assert torch.equal(TinyDecoder(wider, LatentSpace()).decode(latents), expected)


def test_it_is_found_beside_a_model_by_its_name_and_another_file_is_refused(tmp_path: Path) -> None:
    assert find_taehv(tmp_path, LatentSpace()) is None
    (tmp_path / "vae_approx").mkdir()
    file, _ = written(tmp_path / "vae_approx")
    assert find_taehv(tmp_path, LatentSpace()) == file
    assert find_taehv(tmp_path / "diffusion_models" / "one.safetensors", LatentSpace()) == file
    assert find_taehv(tmp_path, LatentSpace(48, 16)) is None
    with pytest.raises(
        MissingWeightsError, match=r"misshapen: decoder\.1\.weight is .*48 channels \(taew2_2\)"
    ):
        TinyDecoder(file, LatentSpace(48, 16))
    save_file({"decoder.1.weight": torch.zeros(2, 16, 3, 3)}, file)
    with pytest.raises(MissingWeightsError, match=r"decoder\.22\.weight is absent; expected TAEHV's decoder"):
        TinyDecoder(file, LatentSpace())
    file.write_bytes(b"no tensors")
    with pytest.raises(MissingWeightsError, match=r"taew2_1.safetensors"):
        TinyDecoder(file, LatentSpace())


def test_a_file_of_single_numbers_is_none(tmp_path: Path) -> None:
    tensors = {name: torch.tensor(0.0) for name in shapes(16, WIDTHS, 1)}
    save_file(tensors, tmp_path / "taew2_1.safetensors")
    with pytest.raises(MissingWeightsError, match="expected TAEHV's decoder of latents of 16 channels"):
        TinyDecoder(tmp_path / "taew2_1.safetensors", LatentSpace())
