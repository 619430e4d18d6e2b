"""What is asked of wan-tiny, measured: every function here gives the rows of one part of the table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wanedit.lit.training.common import psnr
from wanedit.lit.training.data import footage, to_float
from wanedit.lit.training.evaluate import Known, SamplerSettings, cross_fade, reconstruct, sample
from wanedit.lit.training.evaluate_sets import (
    Clip,
    any_scene,
    batches,
    first_clips,
    linear,
    single_linear,
    single_plain,
    videos,
)
from wanedit.lit.training.evaluate_sprites import NOT_FOUND, centre_errors, drift, is_named, looked_at
from wanedit.lit.training.scorecard import Row
from wanedit.timeline import slots
from wanedit.wan.load import Wan

SHORT, LONG = 17, 33
# Frames of a text-only sample that are looked at end here.
SEEN = 9


@dataclass
class Evaluation:
    """A loaded model, how it is sampled, and how many clips are spent.

    Attributes:
        clips: of 64x64x17, for every row.
        large_clips: of 128x128x17 and of 96x96x33.
        text_guidance: of text-only samples; the others take `settings.guidance`.
        paths: real clips and pictures for the VAE.
    """

    wan: Wan
    settings: SamplerSettings
    clips: int = 256
    large_clips: int = 24
    text_guidance: float = 4.0
    paths: Sequence[Path] = ()
    # FLF2V at 64x64 is measured once and read by three parts of the table.
    figures: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def few(self) -> int:
        """Clips for rows without a bar."""
        return max(1, self.clips // 4)

    def between(self, group: Sequence[Clip], video: Tensor) -> Tensor:
        """FLF2V samples (B, 3, T, H, W) between the first and the last frame of each clip."""
        known = {0: video[:, :, 0], video.shape[2] - 1: video[:, :, -1]}
        return self.wan.vae.decode(self._latents(group, known, video.shape[-1], self.settings.guidance))

    def onwards(self, group: Sequence[Clip], video: Tensor) -> Tensor:
        """Samples (B, 3, T, H, W) from the first frame of each clip and its prompt."""
        known = {0: video[:, :, 0]}
        return self.wan.vae.decode(self._latents(group, known, video.shape[-1], self.settings.guidance))

    def from_text(self, group: Sequence[Clip], frames: int = SEEN) -> Tensor:
        """The first frames (B, 3, frames, 64, 64) of samples from the prompts alone."""
        # The VAE is causal: the first frames need the first latents only.
        return self.wan.vae.decode(self._latents(group, {}, 64, self.text_guidance)[:, :, : slots(frames)])

    @torch.no_grad()
    def _latents(self, group: Sequence[Clip], known: Known, size: int, guidance: float) -> Tensor:
        settings = replace(self.settings, guidance=guidance)
        prompts, keys = [clip.prompt for clip in group], [clip.seed for clip in group]
        return sample(self.wan, known, prompts, group[0].num_frames, (size, size), settings, keys)


def _groups(clips: Sequence[Clip], size: int) -> Iterator[Sequence[Clip]]:
    return batches(clips, size * size * clips[0].num_frames)


@torch.no_grad()
def vae_rows(e: Evaluation) -> list[Row]:
    """Encoding and decoding of drawn clips."""
    clips = first_clips(e.clips, SHORT)
    values = []
    for group in _groups(clips, 64):
        video = videos(group, 64)
        values += [psnr(a, b) for a, b in zip(reconstruct(e.wan, video), video, strict=True)]
    return [Row("VAE, sprites 64x64x17", float(np.mean(values)), "dB", 30, count=len(values))]


@torch.no_grad()
def footage_rows(e: Evaluation) -> list[Row]:
    """Encoding and decoding of real clips and pictures at 128x128; one row per file, then their mean."""
    name = "VAE, real clips and photos 128x128"
    if not e.paths:
        return [Row(name, None, "dB", 24, note="give --footage")]
    rows = []
    for path in e.paths:
        video = to_float(middle_crop(footage([path], (128,))[0])[None])
        value = psnr(reconstruct(e.wan, video), video)
        rows.append(Row(f"VAE, {path.name}, {video.shape[2]} frames", value, "dB", count=1))
    mean = float(np.mean([row.value for row in rows]))
    return [*rows, Row(name, mean, "dB", 24, count=len(rows))]


def middle_crop(clip: Tensor, side: int = 128, most: int = SHORT) -> Tensor:
    """The middle 4n + 1 <= `most` frames and side x side pixels of (3, T, H, W)."""
    frames = min(most, (clip.shape[1] - 1) // 4 * 4 + 1)
    lengths = (frames, side, side)
    starts = [(have - want) // 2 for have, want in zip(clip.shape[1:], lengths, strict=True)]
    at = [slice(start, start + want) for start, want in zip(starts, lengths, strict=True)]
    return clip[:, at[0], at[1], at[2]]


@torch.no_grad()
def flf_figures(e: Evaluation, clips: Sequence[Clip], size: int) -> dict[str, np.ndarray]:
    """Per clip: PSNR of the inner frames, of a cross-fade's, of the keyframes; per sprite: error of its centre."""
    found: dict[str, list[float]] = {"inner": [], "fade": [], "ends": [], "centre": []}
    inner, ends = slice(1, -1), [0, -1]
    for group in _groups(clips, size):
        video = videos(group, size)
        made, faded = e.between(group, video), cross_fade(video)
        for clip, truth, ours, fade in zip(group, video, made, faded, strict=True):
            found["inner"].append(psnr(ours[:, inner], truth[:, inner]))
            found["fade"].append(psnr(fade[:, inner], truth[:, inner]))
            found["ends"].append(psnr(ours[:, ends], truth[:, ends]))
            found["centre"] += centre_errors(clip, ours, truth)
    return {name: np.array(values) for name, values in found.items()}


def _small(e: Evaluation) -> dict[str, np.ndarray]:
    if not e.figures:
        e.figures = flf_figures(e, first_clips(e.clips, SHORT, linear), 64)
    return e.figures


def flf_rows(e: Evaluation) -> list[Row]:
    """FLF2V at 64x64x17 on linear motion."""
    found = _small(e)
    count, sprites = len(found["inner"]), found["centre"]
    gain = float((found["inner"] - found["fade"]).mean())
    return [
        Row("FLF2V 64x64x17 linear, inner frames", float(found["inner"].mean()), "dB", 22, count=count),
        Row("  above a cross-fade of the keyframes", gain, "dB", 5, count=count),
        Row("  first and last frame", float(found["ends"].mean()), "dB", 27, count=count),
        Row(
            "  sprite centre error, median",
            float(np.median(sprites)),
            "px",
            2,
            False,
            len(sprites),
            "sprites",
        ),
        Row(
            "  sprites not found",
            float((sprites == NOT_FOUND).mean()),
            "%",
            count=len(sprites),
            note="sprites",
        ),
    ]


def all_rows(e: Evaluation) -> list[Row]:
    """FLF2V at 64x64x17 on the whole test distribution; informs, without a bar."""
    found = flf_figures(e, first_clips(e.few, SHORT, any_scene), 64)
    gain, count = found["inner"] - found["fade"], len(found["inner"])
    return [
        Row("FLF2V 64x64x17 all motions, inner frames", float(found["inner"].mean()), "dB", count=count),
        Row("  above a cross-fade of the keyframes", float(gain.mean()), "dB", count=count),
    ]


def _larger(e: Evaluation, size: int, frames: int, slack: float) -> list[Row]:
    """Figures at another size, and how far they lie from those of the same scenes at 64x64x17."""
    found = flf_figures(e, first_clips(e.large_clips, frames, linear), size)
    title, rows = f"FLF2V {size}x{size}x{frames}", []
    for key, name in (("inner", "inner frames"), ("ends", "first and last frame")):
        value = float(found[key].mean())
        against = value - float(_small(e)[key][: e.large_clips].mean())
        count = len(found[key])
        rows += [
            Row(f"{title}, {name}", value, "dB", count=count),
            Row("  against the same scenes at 64x64x17", against, "dB", -slack, count=count),
        ]
    return rows


def large_rows(e: Evaluation) -> list[Row]:
    """FLF2V at 128x128x17: within 2 dB."""
    return _larger(e, 128, SHORT, 2)


def long_rows(e: Evaluation) -> list[Row]:
    """FLF2V at 96x96x33, a size and length of its own: within 3 dB."""
    return _larger(e, 96, LONG, 3)


@torch.no_grad()
def first_rows(e: Evaluation) -> list[Row]:
    """First frame only: what stands in it must still stand in the last one."""
    found = []
    for group in _groups(first_clips(e.clips, SHORT, single_linear), 64):
        video = videos(group, 64)
        made = e.onwards(group, video)
        found += [drift(clip, ours, truth) for clip, ours, truth in zip(group, made, video, strict=True)]
    count = len(found)
    mean = {name: float(np.mean([getattr(one, name) for one in found])) for name in vars(found[0])}
    return [
        Row(
            "first frame only: sprite colour, given to last frame", mean["colour"], "RGB", 0.08, False, count
        ),
        Row("  shape in the last frame", mean["shape"], "%", count=count),
        Row("  sprite gone from the last frame", mean["lost"], "%", count=count),
        Row("  background beside the sprite", mean["background"], "dB", count=count),
    ]


@torch.no_grad()
def text_rows(e: Evaluation) -> list[Row]:
    """Text only: the colour and the shape that the prompt names; and how often the instrument itself is right."""
    clips = first_clips(e.clips, SHORT, single_plain)
    some = clips[: e.few]
    drawn, truth = _named(clips, e.from_text), _named(clips, lambda group: videos(group, 64))
    rebuilt = _named(some, lambda group: reconstruct(e.wan, videos(group, 64)[:, :, :SEEN]))
    return [
        replace(_share("text only: colour and shape as named", drawn), bar=0.85),
        _share("  instrument on truth", truth),
        _share("  instrument on VAE reconstructions", rebuilt),
        _share("  samples whose scene it reads there", drawn[: e.few][rebuilt.all(1)]),
    ]


def _named(clips: Sequence[Clip], make: Callable[[Sequence[Clip]], Tensor]) -> np.ndarray:
    """(clips, 2) of truth values: colour and shape as named."""
    return np.array(
        [
            is_named(clip, looked_at(ours))
            for group in _groups(clips, 64)
            for clip, ours in zip(group, make(group), strict=True)
        ]
    )


def _share(name: str, right: np.ndarray) -> Row:
    if not len(right):
        return Row(name, None, "%", note="there is none")
    colour, shape = 100 * right.mean(0)
    note = f"colour {colour:.1f} %, shape {shape:.1f} %"
    return Row(name, float(right.all(1).mean()), "%", count=len(right), note=note)


ROWS: dict[str, Callable[[Evaluation], list[Row]]] = {
    "vae": vae_rows,
    "footage": footage_rows,
    "flf2v": flf_rows,
    "first": first_rows,
    "text": text_rows,
    "all": all_rows,
    "large": large_rows,
    "long": long_rows,
}
