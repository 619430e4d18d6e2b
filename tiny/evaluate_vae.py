"""What the VAE alone loses: of drawn clips, and of real clips and pictures that no training read."""

import itertools
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tiny.data import footage
from tiny.evaluate import reconstruct
from tiny.evaluate_run import SHORT, Evaluation, groups
from tiny.scorecard import Row
from wanedit.sprites.sets import to_float, videos
from wanedit.sprites.truth import psnr

SIDE = 128


@torch.no_grad()
def vae_rows(e: Evaluation) -> list[Row]:
    """Encoding and decoding of drawn clips."""
    values = []
    for group in groups(e.draw(e.clips), 64):
        video = videos(group, 64)
        values += [psnr(a, b) for a, b in zip(reconstruct(e.wan, video), video, strict=True)]
    return [Row("VAE, sprites 64x64x17", float(np.mean(values)), "dB", 30, count=len(values))]


@torch.no_grad()
def footage_rows(e: Evaluation) -> list[Row]:
    """Encoding and decoding of real clips and pictures at 128x128; one row per file, then their mean."""
    rows = []
    for path in e.paths:
        video = to_float(middle_crop(pixels(path))[None])
        value = psnr(reconstruct(e.wan, video), video)
        rows.append(Row(f"VAE, {path.name}, {video.shape[2]} frames", value, "dB", count=1))
    name = "VAE, real clips and photos 128x128" + (", held out" if e.held_out else "")
    if not rows:
        return [Row(name, None, "dB", 24, note="no file given")]
    mean = float(np.mean([row.value for row in rows]))
    return [*rows, Row(name, mean, "dB", 24, count=len(rows), note="mean over the files")]


def pixels(path: Path) -> UInt8[Tensor, "3 T H W"]:
    """The first frames of a clip or picture, its short side 128 pixels: scaled, unless they are 128x128 already."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if (stream.width, stream.height) != (SIDE, SIDE):
            return footage([path], (SIDE,))[0]
        # As many as `footage` reads.
        decoded = itertools.islice(container.decode(stream), 160)
        frames = [frame.to_ndarray(format="rgb24") for frame in decoded]
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)


def middle_crop(clip: Tensor, side: int = SIDE, most: int = SHORT) -> Tensor:
    """The middle 4n + 1 <= `most` frames and side x side pixels of (3, T, H, W)."""
    frames = min(most, (clip.shape[1] - 1) // 4 * 4 + 1)
    lengths = (frames, side, side)
    starts = [(have - want) // 2 for have, want in zip(clip.shape[1:], lengths, strict=True)]
    at = [slice(start, start + want) for start, want in zip(starts, lengths, strict=True)]
    return clip[:, at[0], at[1], at[2]]
