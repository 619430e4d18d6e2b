"""Samples between two keyframes, measured: at 64x64x17, without image tokens, larger, longer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tiny.evaluate import cross_fade
from tiny.evaluate_run import ASKED, LONG, SHORT, Evaluation, groups, per_clip, spread
from tiny.scorecard import Row
from wanedit.sprites.sets import Clip, linear, unseen_pair, videos
from wanedit.sprites.truth import psnr, traces


@dataclass(frozen=True)
class Figures:
    """What was measured of some clips between their keyframes.

    Attributes:
        clips: the clips, in the order of the values.
        inner, fade, ends: per clip, PSNR in dB of the inner frames, of a cross-fade's, of the keyframes; (clips,).
        centre, missing: per sprite that can be followed, its `Trace`; (sprites,).
        sprites: number of sprites in all.
    """

    clips: Sequence[Clip]
    inner: np.ndarray
    fade: np.ndarray
    ends: np.ndarray
    centre: np.ndarray
    missing: np.ndarray
    sprites: int

    @property
    def followed(self) -> str:
        """How many sprites the centre error is measured of, in words."""
        return f"{len(self.centre)} of {self.sprites} sprites"


@torch.no_grad()
def flf_figures(e: Evaluation, clips: Sequence[Clip], size: int, image_tokens: bool = True) -> Figures:
    """Sample every clip from its first and last frame at size x size pixels and compare with the truth."""
    quality, paths = [], []
    inner, ends = slice(1, -1), [0, -1]
    for group in groups(clips, size):
        video = videos(group, size)
        made, mixed = e.between(group, video, image_tokens), cross_fade(video)
        for truth, ours, fade in zip(video, made, mixed, strict=True):
            pairs = ((ours[:, inner], truth[:, inner]), (fade[:, inner], truth[:, inner]))
            quality.append([*(psnr(a, b) for a, b in pairs), psnr(ours[:, ends], truth[:, ends])])
        paths += [path for found in per_clip(traces, group, made, video) for path in found]
    between, faded, edges = np.array(quality).T
    centre, missing = (np.array([getattr(path, name) for path in paths]) for name in ("error", "missing"))
    sprites = sum(len(clip.scene.sprites) for clip in clips)
    return Figures(clips, between, faded, edges, centre, missing, sprites)


def small_figures(e: Evaluation) -> Figures:
    """FLF2V at 64x64x17 on straight lines: what several parts of the table are measured against."""
    return flf_figures(e, e.draw(e.clips, linear), 64)


def flf_rows(e: Evaluation, small: Figures) -> list[Row]:
    """FLF2V at 64x64x17 on straight lines, and on its shape-colour pairs that training never shows."""
    count, unseen = len(small.inner), np.array([unseen_pair(clip.scene) for clip in small.clips])
    name = "FLF2V 64x64x17 (straight lines, still camera), inner frames"
    rows = [
        Row(name, float(small.inner.mean()), "dB", 22, count=count),
        _gain(small, 5),
        Row("  first and last frame", float(small.ends.mean()), "dB", 27, count=count),
        *_sprite_rows(small, 2),
    ]
    name = "  inner frames, with a shape-colour pair that training never shows"
    if not unseen.any():
        return [*rows, Row(name, None, "dB", note="there is none")]
    return [*rows, Row(name, float(small.inner[unseen].mean()), "dB", count=int(unseen.sum()))]


def _gain(found: Figures, bar: float | None = None) -> Row:
    gain = float((found.inner - found.fade).mean())
    return Row("  above a cross-fade of the keyframes", gain, "dB", bar, count=len(found.inner))


def _sprite_rows(found: Figures, bar: float | None = None) -> list[Row]:
    name, count = "  sprite centre error over the inner frames, median", len(found.centre)
    if not count:
        return [Row(name, None, "px", bar, False, note=found.followed)]
    return [
        Row(name, float(np.median(found.centre)), "px", bar, False, count, found.followed),
        Row("  frames in which a sprite is not found", float(found.missing.mean()), "%", note=found.followed),
    ]


def all_rows(e: Evaluation) -> list[Row]:
    """FLF2V at 64x64x17 on the whole distribution; informs, without a bar."""
    found = flf_figures(e, e.draw(e.few), 64)
    name = "FLF2V 64x64x17 (all scenes), inner frames"
    return [Row(name, float(found.inner.mean()), "dB", count=len(found.inner)), _gain(found)]


def blind_rows(e: Evaluation, small: Figures) -> list[Row]:
    """The first of the straight lines again with the image tokens zeroed: what those tokens give."""
    found = flf_figures(e, small.clips[: e.few], 64, image_tokens=False)
    given, count = small.inner[: e.few] - found.inner, len(found.inner)
    name = "FLF2V 64x64x17 with the image tokens zeroed, inner frames"
    return [
        Row(name, float(found.inner.mean()), "dB", count=count),
        Row("  what the image tokens give", float(given.mean()), "dB", count=count, note=spread(given)),
    ]


def large_rows(e: Evaluation, small: Figures) -> list[Row]:
    """FLF2V at 128x128x17: within 2 dB."""
    return _larger(e, small, 128, SHORT, 2)


def long_rows(e: Evaluation, small: Figures) -> list[Row]:
    """FLF2V at 96x96x33, a size and length of its own: within 3 dB."""
    return _larger(e, small, 96, LONG, 3)


def _larger(e: Evaluation, small: Figures, size: int, frames: int, slack: float) -> list[Row]:
    """Figures at another size, and how far they lie from those of the same scenes at 64x64x17."""
    found = flf_figures(e, e.draw(e.large_clips, linear, frames), size)
    title, count = f"FLF2V {size}x{size}x{frames}", len(found.inner)
    return [
        Row(f"{title}, inner frames", float(found.inner.mean()), "dB", count=count),
        _against(found.inner, small.inner, slack),
        _gain(found),
        *_sprite_rows(found),
        Row(f"{title}, first and last frame", float(found.ends.mean()), "dB", count=count),
        _against(found.ends, small.ends, slack),
    ]


def _against(values: np.ndarray, small: np.ndarray, slack: float) -> Row:
    difference = values - small[: len(values)]
    parts = [f"{len(values)} of the {ASKED} asked for"] if len(values) < ASKED else []
    note = "; ".join([*parts, *filter(None, [spread(difference)])])
    name = "  against the same scenes at 64x64x17"
    return Row(name, float(difference.mean()), "dB", -slack, count=len(values), note=note)
