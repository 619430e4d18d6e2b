"""The parts that training rests on: the VAE over whole clips, the schedule, the crops."""

import itertools

import pytest
import torch

from tiny.data import CropStream, sprite_clips
from tiny.fit import cosine
from tiny.flow import masks
from tiny.latents import CONDITIONS, encode_clips, known_frames, normalised_encoder
from tiny.vae import VAE_CONFIG, build_vae
from wanedit.sprites.sets import to_bytes, to_float
from wanedit.sprites.truth import psnr
from wanedit.wan.condition import build_condition
from wanedit.wan.vae import decode_latents, encode_moments


@pytest.mark.parametrize("num_frames", [1, 5, 9])
def test_whole_clip_vae_equals_the_cached_loop(num_frames):
    from diffsynth.models.wan_video_vae import VideoVAE_

    torch.manual_seed(0)
    vae = VideoVAE_(**VAE_CONFIG | {"dim": 8}).eval().requires_grad_(False)
    video, plain = torch.randn(1, 3, num_frames, 16, 24), [torch.zeros(16), torch.ones(16)]
    latents = vae.encode(video, plain)
    assert torch.allclose(encode_moments(vae, video)[0], latents, atol=1e-5)
    assert torch.allclose(decode_latents(vae, latents), vae.decode(latents, plain), atol=1e-4)


def test_a_new_vae_treats_every_fourth_frame_as_a_single_one():
    vae = build_vae(VAE_CONFIG | {"dim": 8}).eval().requires_grad_(False)
    video = torch.randn(1, 3, 9, 16, 16)
    together = encode_moments(vae, video)[0]
    alone = torch.cat([encode_moments(vae, video[:, :, i : i + 1])[0] for i in (0, 4, 8)], dim=2)
    assert torch.allclose(together, alone, atol=1e-5)


def test_crops_are_seeded_and_in_range():
    clips = sprite_clips(range(3), 9, 48)
    first, again = (list(itertools.islice(CropStream([clips], [1.0], 5, 32, 1), 4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (3, 5, 32, 32)
    assert first[0].abs().max() <= 1


def test_bytes_and_decibels():
    video = torch.linspace(-1, 1, 256).expand(3, 2, 4, 256)
    assert torch.allclose(to_float(to_bytes(video)), video, atol=0.5 / 127.5 + 1e-6)
    assert psnr(video, video + 0.02) == pytest.approx(40, abs=1e-3)
    assert cosine(0.02) == pytest.approx(1)
    assert cosine(1.0) == pytest.approx(0.02)


def test_what_is_known_follows_the_seed_and_the_stated_shares():
    shown = [tuple(known_frames(seed, 17)) for seed in range(2000)]
    assert shown == [tuple(known_frames(seed, 17)) for seed in range(2000)]
    several = [frames for frames in shown if len(frames) > 2]
    assert shown.count((0, 16)) / 2000 == pytest.approx(CONDITIONS["first and last"], abs=0.03)
    assert shown.count((0,)) / 2000 == pytest.approx(CONDITIONS["first"], abs=0.03)
    assert len(several) / 2000 == pytest.approx(CONDITIONS["several"], abs=0.03)
    assert all(
        frames[0] == 0 and frames[-1] == 16 and frames == tuple(sorted(set(frames))) for frames in several
    )
    assert known_frames(3, 1) == []


def test_encoded_clips_hold_the_condition_that_inference_builds(tokenizer):
    torch.manual_seed(0)
    vae = build_vae(VAE_CONFIG | {"dim": 8}).eval().requires_grad_(False)
    encode = normalised_encoder(vae, [0.0] * 16, [1.0] * 16)
    seeds = range(6)
    short, long = encode_clips(encode, seeds, [5, 9], 32, tokenizer, 64, batch=3)
    clips = to_float(sprite_clips(seeds, 9, 32))
    assert torch.allclose(long.latents, encode(clips), atol=1e-5)
    assert torch.equal(short.latents, long.latents[:, :, :2])
    for part, length in ((short, 5), (long, 9)):
        condition = torch.cat([masks(part.frames, 4, 4), part.known], dim=1)
        for row, seed in enumerate(seeds):
            known = {frame: clips[row, :, frame] for frame in known_frames(seed, length)}
            assert torch.allclose(condition[row : row + 1], build_condition(known, length, encode), atol=1e-5)
