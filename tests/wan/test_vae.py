"""The VAE's own layer: normalisation, sizes, tiles. (Its network: test_golden.py.)"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.runs import Heard
from tests.wan import golden
from wanedit.errors import InputError
from wanedit.rng import noise
from wanedit.sprites.sets import first_clips
from wanedit.wan import load_vae
from wanedit.wan.vae import OFFICIAL, WARM_UP, WanVAE


class Pointwise(nn.Module):
    """A VAE without a receptive field: tiles of it must blend to exactly the untiled result."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []
        self.encoder = self.decoder = nn.Identity()

    def clear_cache(self) -> None: ...

    def encode(self, video: Tensor, scale: list[Tensor]) -> Tensor:
        self.sizes.append(tuple(video.shape[3:]))
        latents = F.avg_pool3d(video[:, :, ::4], (1, 8, 8)).repeat(1, 6, 1, 1, 1)[:, :16]
        mean, inverse_std = (x.view(1, 16, 1, 1, 1) for x in scale)
        return (latents - mean) * inverse_std

    def decode(self, latents: Tensor, scale: list[Tensor]) -> Tensor:
        self.sizes.append(tuple(latents.shape[3:]))
        frames = 4 * (latents.shape[2] - 1) + 1
        mean, inverse_std = (x.view(1, 16, 1, 1, 1) for x in scale)
        pixels = (latents / inverse_std + mean)[:, :3].repeat_interleave(4, 2)[:, :, -frames:]
        return pixels.repeat_interleave(8, 3).repeat_interleave(8, 4)


# Too wide to be coded whole.
WIDE = OFFICIAL[16] | {"dim": 2**30}


@pytest.fixture
def pointwise() -> WanVAE:
    own = {"latents_mean": [0.1 * i for i in range(16)], "latents_std": [1 + 0.1 * i for i in range(16)]}
    return WanVAE(Pointwise(), WIDE | own)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


SIZES = [(32, 32), (64, 96), (72, 200), (136, 40), (104, 24)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("tile", [32, 40, 64, 128])
def test_tiles_cover_everything_and_blend_without_a_trace(
    pointwise: WanVAE, height: int, width: int, tile: int
) -> None:
    """At sizes that are no multiple of the tile too, in a batch, and no run sees more than a tile."""
    video = draw(2, 3, 5, height, width)
    latents = pointwise.encode(video)
    assert torch.allclose(pointwise.encode(video, tile), latents, atol=1e-6)
    assert torch.allclose(pointwise.decode(latents, tile), pointwise.decode(latents), atol=1e-6)
    encoded, decoded = pointwise.model.sizes[1], pointwise.model.sizes[-2]
    assert max(encoded) <= tile
    assert max(decoded) <= tile // 8


def test_tiles_overlap(pointwise: WanVAE, heard: Heard) -> None:
    pointwise.encode(draw(1, 3, 1, 64, 64), tile=32)
    assert heard[0] == ["encoding", "tiles", 9, 9]
    assert len(pointwise.model.sizes) > 4  # a bare tiling of 64 x 64 by 32


class Numbered(Pointwise):
    """Every run returns a level of its own, the worst disagreement that tiles can have."""

    def decode(self, latents: Tensor, scale: list[Tensor]) -> Tensor:
        return torch.full_like(super().decode(latents, scale), 0.1 * len(self.sizes))


def test_tiles_that_disagree_leave_no_seam() -> None:
    """Three tiles, 0.1 apart, meet in ramps of 16 pixels, not in edges."""
    row = WanVAE(Numbered(), WIDE).decode(draw(1, 16, 1, 8, 20), tile=64)[0, 0, 0, 0]
    assert (float(row[0]), float(row[-1])) == pytest.approx((0.1, 0.3))
    assert row.diff().abs().max() < 0.1 / 16 + 1e-6
    assert row.diff().min() >= -1e-6


@pytest.mark.parametrize("tile", [0, 24, 36, -64])
def test_a_bad_tile_is_refused(pointwise: WanVAE, tile: int) -> None:
    for run, x in ((pointwise.encode, draw(1, 3, 1, 64, 64)), (pointwise.decode, draw(1, 16, 1, 8, 8))):
        with pytest.raises(InputError, match=f"tile is {tile} pixels; expected a multiple of 8, at least 32"):
            run(x, tile)


@pytest.mark.parametrize("shape", [(4, 32, 32), (6, 32, 32), (5, 36, 32), (5, 32, 20)])
def test_encode_refuses_sizes_that_do_not_divide(pointwise: WanVAE, shape: tuple[int, int, int]) -> None:
    frames, height, width = shape
    with pytest.raises(InputError, match=f"video is {frames} frames of {width}x{height}; expected 4n[+]1"):
        pointwise.encode(draw(1, 3, *shape))


def test_decode_clamps(pointwise: WanVAE) -> None:
    assert pointwise.decode(100 * draw(1, 16, 2, 4, 4)).abs().max() == 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> WanVAE:
    return golden.vae(golden.files("vae")[0], tmp_path_factory.mktemp("vae"))


def test_a_batch_of_two_is_two_of_one(small: WanVAE) -> None:
    video = draw(2, 3, 5, 32, 32).clamp(-1, 1)
    latents = small.encode(video)
    assert latents.shape == (2, 16, 2, 4, 4)
    assert golden.absolute_error(latents[1:], small.encode(video[1:])) < 1e-5
    pixels = small.decode(latents)
    assert pixels.shape == video.shape
    assert golden.absolute_error(pixels[1:], small.decode(latents[1:])) < 1e-5


def test_a_call_leaves_no_trace_in_the_next(small: WanVAE) -> None:
    """The causal convolutions keep features of earlier frames while they run; none may survive."""
    video = draw(1, 3, 5, 32, 32).clamp(-1, 1)
    before = small.encode(video)
    small.decode(small.encode(-draw(1, 3, 9, 32, 32)))
    assert golden.absolute_error(small.encode(video), before) < 1e-5


def test_whole_and_in_chunks_are_the_same(
    small: WanVAE, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    """Small clips are coded at once, large ones by diffsynth's cached loop."""
    video = draw(1, 3, 9, 32, 40).clamp(-1, 1)
    latents = small.encode(video)
    pixels = small.decode(latents)
    monkeypatch.setattr("wanedit.wan.vae.WHOLE_UP_TO", 0)
    assert heard == []
    assert golden.absolute_error(small.encode(video), latents) < 1e-5
    assert golden.absolute_error(small.decode(latents), pixels) < 1e-5
    assert heard == [["encoding", "slots", 3, 3], ["decoding", "slots", 3, 3]]
    assert not small.model.encoder._forward_hooks


def test_later_frames_do_not_change_earlier_slots(small: WanVAE) -> None:
    video = draw(1, 3, 9, 32, 32).clamp(-1, 1)
    assert golden.absolute_error(small.encode(video[:, :, :5]), small.encode(video)[:, :, :2]) < 1e-5


def test_real_tiles_come_close_to_the_whole() -> None:
    """Middle attention sees a whole frame, so tiles differ from it: a little, and without a seam."""
    vae = load_vae("tiny")
    y, x = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    video = torch.stack([x, y, (3 * x * y).sin()])[None, :, None]
    latents = vae.encode(video)
    tiled_latents = vae.encode(video, tile=64)
    assert golden.relative_error(tiled_latents, latents) < 0.15
    whole, tiled = vae.decode(latents), vae.decode(latents, tile=64)
    difference = (whole - tiled).abs()
    assert difference.mean() < 0.02
    assert (tiled.diff(dim=4) - whole.diff(dim=4)).abs().max() < 0.25


def test_no_cache_outlives_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanedit.wan.vae.WHOLE_UP_TO", 0)
    vae = load_vae("tiny")
    with torch.no_grad():
        vae.decode(vae.encode(torch.zeros(1, 3, 5, 32, 32)))
    caches = [*vae.model._feat_map, *vae.model._enc_feat_map]
    assert caches
    assert not any(isinstance(cache, Tensor) for cache in caches)


def test_frames_behind_a_warm_up_are_those_of_the_whole_sequence() -> None:
    vae, (clip,) = load_vae("tiny"), first_clips(1, 61)
    latents = vae.encode(clip.video(32)[None])
    # As a sampler leaves them, not quite those of any clip.
    latents += 0.05 * noise(latents.shape, 0, "off")
    whole, slot = vae.decode(latents), 13
    behind = vae.decode(latents[:, :, slot - WARM_UP :])
    off = (whole[:, :, 4 * slot - 3 :] - behind[:, :, 4 * WARM_UP - 3 :]).abs().amax((0, 1, 3, 4))
    assert off.max() < 1e-4
    # And none of it would be missed.
    short = vae.decode(latents[:, :, slot - WARM_UP // 2 :])
    assert (whole[:, :, 4 * slot - 3] - short[:, :, 4 * (WARM_UP // 2) - 3]).abs().max() > 1e-4
