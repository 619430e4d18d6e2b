"""Measures what wan-tiny can do on drawn clips that training never saw, and draws sheets to look at."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from wanedit.lit.training.common import psnr
from wanedit.lit.training.data import clip_duration, sprite_clips, to_bytes, to_float
from wanedit.lit.training.flow import shifted_sigma
from wanedit.sprites.caption import caption
from wanedit.sprites.scene import sample_scene
from wanedit.wan.condition import build_condition
from wanedit.wan.load import Wan


def reconstruct(wan: Wan, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Encode and decode."""
    with torch.no_grad():
        return wan.vae.decode(wan.vae.encode(video))


@torch.no_grad()
def interpolate(
    wan: Wan,
    video: Float[Tensor, "B 3 T H W"],
    prompts: Sequence[str],
    steps: int,
    shift: float,
    guidance: float,
    seed: int,
) -> Float[Tensor, "B 3 T H W"]:
    """FLF2V samples between the first and the last frame of each clip, by Euler steps."""
    condition = torch.cat(
        [
            build_condition({0: clip[:, 0], clip.shape[1] - 1: clip[:, -1]}, clip.shape[1], wan.vae.encode)
            for clip in video
        ]
    )
    assert wan.image_encoder is not None
    tokens = torch.cat([wan.image_encoder(video[:, :, 0]), wan.image_encoder(video[:, :, -1])], dim=1)
    negative = [wan.folder.sampling.negative_prompt] * len(prompts)
    texts = (
        [wan.text_encoder([prompt]) for prompt in prompts],
        [wan.text_encoder([prompt]) for prompt in negative],
    )
    positive, without = (
        torch.cat([_padded(text, wan.folder.config.text_len) for text in part]) for part in texts
    )
    grid = (condition.shape[2], condition.shape[3], condition.shape[4])
    transformer: Any = wan.transformer
    contexts = [transformer.prepare(grid, text, tokens, condition) for text in (positive, without)]
    x = torch.randn(len(video), 16, *grid, generator=torch.Generator().manual_seed(seed))
    sigmas = shifted_sigma(torch.linspace(1, 0, steps + 1), shift)
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        time = (1000 * sigma).expand(len(video))
        velocity = transformer.velocity(x, time, contexts[0])
        if guidance != 1:
            other = transformer.velocity(x, time, contexts[1])
            velocity = other + guidance * (velocity - other)
        x = x - (sigma - following) * velocity
    return wan.vae.decode(x)


def _padded(text: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(text, (0, 0, 0, length - text.shape[1]))


def cross_fade(video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """The trivial baseline: first and last frame mixed in proportion to time."""
    mix = torch.linspace(0, 1, video.shape[2]).view(1, 1, -1, 1, 1)
    return torch.lerp(video[:, :, :1], video[:, :, -1:], mix)


def drawn_clips(count: int, num_frames: int, size: int, split: str = "test") -> tuple[Tensor, list[str]]:
    """Clips (B, 3, T, H, W) in [-1, 1] and their captions."""
    video = to_float(sprite_clips(range(count), num_frames, size, split))
    scenes = [sample_scene(seed, split, clip_duration(num_frames, seed)) for seed in range(count)]
    return video, [caption(scene) for scene in scenes]


def measure(
    wan: Wan, count: int, num_frames: int, size: int, steps: int, shift: float, guidance: float
) -> dict[str, float]:
    """Mean PSNR in dB over `count` test clips: of the VAE, of the sample's inner and end frames, of a cross-fade."""
    rows = []
    for start in range(0, count, 4):
        clips, captions = drawn_clips(min(start + 4, count), num_frames, size)
        video, prompts = clips[start:], captions[start:]
        rebuilt, faded = reconstruct(wan, video), cross_fade(video)
        sample = interpolate(wan, video, prompts, steps, shift, guidance, seed=start)
        for i in range(len(video)):
            inner, ends = slice(1, -1), [0, -1]
            rows.append(
                {
                    "vae": psnr(rebuilt[i], video[i]),
                    "inner": psnr(sample[i][:, inner], video[i][:, inner]),
                    "cross_fade": psnr(faded[i][:, inner], video[i][:, inner]),
                    "keyframes": psnr(sample[i][:, ends], video[i][:, ends]),
                }
            )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def sheet(rows: Sequence[Float[Tensor, "3 T H W"]], path: Path, columns: int = 6) -> None:
    """One picture: a row per clip, `columns` frames of each at equal distances."""
    lines = []
    for clip in rows:
        picks = np.linspace(0, clip.shape[1] - 1, min(columns, clip.shape[1])).round().astype(int)
        lines.append(torch.cat([clip[:, int(pick)] for pick in picks], dim=2))
    pixels = to_bytes(torch.cat(lines, dim=1)).permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, optimize=True)
