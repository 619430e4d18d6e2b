"""The parts of wan-tiny's scorecard: what is asked, measured on clips and pictures that no training read.

Samples come from an `Evaluation`; what is measured of them from `wanedit.sprites.truth`, as in `wanedit evaluate`.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from tiny.data import footage
from tiny.sampling import ASKED, LONG, SEEN, SHORT, Evaluation, reconstruct
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.tasks import ChainSettings, SegmentTask
from wanedit.runtime.launch import threads
from wanedit.sprites.sets import (
    Clip,
    batches,
    linear,
    single,
    single_linear,
    single_plain,
    to_float,
    unseen_pair,
    videos,
)
from wanedit.sprites.truth import drift, is_named, looked_at, psnr, traces

T = TypeVar("T")
# Pixels on a side of real clips and pictures.
SIDE = 128
# (side in pixels, frames, seconds asked for, runs before the clock, runs)
SEGMENTS = ((64, 17, 5.0, 1, 3), (128, 33, 40.0, 0, 2))
THREADS = 2


@dataclass(frozen=True)
class Row:
    """One quantity.

    Attributes:
        value: None: not measured, and `note` says why.
        bar: what is asked; None for a figure that only informs.
        at_least: the bar is a lower bound; else an upper one.
        count: clips, pictures or sprites that the value is a mean of; 0 where that means nothing.
    """

    name: str
    value: float | None
    unit: str = ""
    bar: float | None = None
    at_least: bool = True
    count: int = 0
    note: str = ""

    @property
    def verdict(self) -> str:
        """pass, MISS, or nothing where there is no bar or no value."""
        if self.value is None:
            return "not measured"
        if self.bar is None:
            return ""
        # NaN passes no bar.
        return "pass" if (self.value >= self.bar if self.at_least else self.value <= self.bar) else "MISS"


def groups(clips: Sequence[Clip], size: int) -> Iterator[Sequence[Clip]]:
    """Batches of clips of size x size pixels that fit 1 GB."""
    return batches(clips, size * size * clips[0].num_frames)


def per_clip(measure: Callable[..., T], *values: Iterable[Any]) -> list[T]:
    """`measure` of the first value of each, of the second, and so on: clips side by side, one thread for each.

    The instruments work on tensors too small for two threads to share.
    """
    most = torch.get_num_threads()
    with ThreadPoolExecutor(most, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(torch.no_grad()(measure), *values))


def spread(differences: np.ndarray) -> str:
    """The standard error of the mean of paired differences in dB (n,), in words; nothing for fewer than two."""
    if len(differences) < 2:
        return ""
    return f"+- {float(differences.std(ddof=1)) / len(differences) ** 0.5:.2f} dB standard error"


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
        made = e.between(group, video, image_tokens)
        # The trivial baseline: first and last frame mixed in proportion to time.
        mix = torch.linspace(0, 1, video.shape[2]).view(1, 1, -1, 1, 1)
        mixed = torch.lerp(video[:, :, :1], video[:, :, -1:], mix)
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


def larger_rows(e: Evaluation, small: Figures, size: int, frames: int, slack: float) -> list[Row]:
    """FLF2V at another size and length: within `slack` dB of the same scenes at 64x64x17."""
    found = flf_figures(e, e.draw(e.large_clips, linear, frames), size)
    title, count = f"FLF2V {size}x{size}x{frames}", len(found.inner)

    def against(values: np.ndarray, small: np.ndarray) -> Row:
        difference = values - small[:count]
        parts = [f"{count} of the {ASKED} asked for"] if count < ASKED else []
        note = "; ".join([*parts, *filter(None, [spread(difference)])])
        name = "  against the same scenes at 64x64x17"
        return Row(name, float(difference.mean()), "dB", -slack, count=count, note=note)

    return [
        Row(f"{title}, inner frames", float(found.inner.mean()), "dB", count=count),
        against(found.inner, small.inner),
        _gain(found),
        *_sprite_rows(found),
        Row(f"{title}, first and last frame", float(found.ends.mean()), "dB", count=count),
        against(found.ends, small.ends),
    ]


@torch.no_grad()
def first_rows(e: Evaluation) -> list[Row]:
    """First frame only: what stands in it must still stand in the last one."""
    found = []
    for group in groups(e.draw(e.clips, single_linear), 64):
        video = videos(group, 64)
        made = e.onwards(group, video)
        found += per_clip(drift, group, made, video)
    count, colours = len(found), np.array([one.colour for one in found])
    mean = {name: float(np.mean([getattr(one, name) for one in found])) for name in vars(found[0])}
    name = "first frame only (one sprite, straight line, still camera): colour change, mean over channels"
    note = f"90th percentile {np.quantile(colours, 0.9):.3f}"
    return [
        Row(name, mean["colour"], "RGB", 0.08, False, count, note),
        Row("  shape in the last frame", mean["shape"], "%", count=count),
        Row("  sprite gone from the last frame", mean["lost"], "%", count=count),
        Row("  background beside the sprite", mean["background"], "dB", count=count),
    ]


@torch.no_grad()
def text_rows(e: Evaluation) -> list[Row]:
    """Text only: the colour and the shape that the prompt names; and how often the instrument itself is right."""
    clips, any_single = e.draw(e.clips, single_plain), e.draw(e.few, single)
    some, unseen = clips[: e.few], np.array([unseen_pair(clip.scene) for clip in clips])

    def whole(group: Sequence[Clip]) -> Tensor:
        return videos(group, 64)

    drawn, truth = _named(clips, e.from_text), _named(some, whole)
    rebuilt = _named(some, lambda group: reconstruct(e.wan, whole(group)[:, :, :SEEN]))
    title = f"text only, guidance {e.text_guidance:g}"
    name = f"{title} (one plain sprite, still camera): as named"
    return [
        replace(_share(name, drawn), bar=0.85),
        _share("  of shape-colour pairs that training never shows", drawn[unseen]),
        _share("  instrument on truth", truth),
        _share("  instrument on VAE reconstructions", rebuilt),
        _share("  samples whose scene it reads there", drawn[: e.few][rebuilt[:, 0]]),
        # Any texture, motion and camera, which the instrument reads less well.
        _share(f"{title} (one sprite, all scenes): as named", _named(any_single, e.from_text)),
        _share("  instrument on truth", _named(any_single, whole)),
    ]


def _named(clips: Sequence[Clip], make: Callable[[Sequence[Clip]], Tensor]) -> np.ndarray:
    """(clips, 3) of truth values: both as named, the colour, the shape."""

    def seen(clip: Clip, ours: Tensor) -> tuple[bool, bool, bool]:
        return is_named(clip, looked_at(ours))

    return np.array([found for group in groups(clips, 64) for found in per_clip(seen, group, make(group))])


def _share(name: str, right: np.ndarray) -> Row:
    if not len(right):
        return Row(name, None, "%", note="there is none")
    both, colour, shape = right.mean(0)
    note = f"colour {100 * colour:.1f} %, shape {100 * shape:.1f} %, each in 2 of 3 frames"
    return Row(name, float(both), "%", count=len(right), note=note)


def size_rows(e: Evaluation) -> list[Row]:
    """All weight files together; 1 MB is a million bytes."""
    files = [path for path in e.wan.folder.path.rglob("*.safetensors") if path.is_file()]
    total = sum(path.stat().st_size for path in files) / 1e6
    return [Row("all weight files", total, "MB", 40, at_least=False, note=f"{len(files)} files")]


def speed_rows(e: Evaluation) -> list[Row]:
    """Seconds of `FLF2VChain.predict_step`, model loaded: keyframes to latents, 20 guided steps, latents to frames."""
    settings, rows = ChainSettings(20, e.settings.shift, e.text_guidance, e.settings.solver), []
    negative = e.wan.folder.sampling.negative_prompt
    for size, frames, most, unmeasured, runs in SEGMENTS:
        clip = e.draw(1, linear, frames)[0]
        video = clip.video(size)
        task = SegmentTask(0, frames, video[:, 0], video[:, -1], clip.prompt, negative, e.settings.seed, "")
        chain, taken = FLF2VChain(e.wan.folder, settings), []
        with threads(THREADS):
            chain.load([task])
            for _ in range(unmeasured + runs):
                start = time.perf_counter()
                chain.predict_step(task)
                taken.append(time.perf_counter() - start)
        name = f"one segment {size}x{size}x{frames}, 20 guided steps"
        note = f"wall time, median of {runs} runs, {THREADS} threads"
        rows.append(Row(name, float(np.median(taken[unmeasured:])), "s", most, at_least=False, note=note))
    return rows


def total_row(seconds: float, whole: bool) -> Row:
    """How long the table itself took; asked of the whole table only."""
    note = f"wall time, model loaded, {torch.get_num_threads()} threads"
    return Row("this table", seconds / 60, "min", 10 if whole else None, at_least=False, note=note)


@dataclass(frozen=True)
class Part:
    """One part of the table.

    Attributes:
        rows: of an `Evaluation`; of it and the `Figures` at 64x64x17 where `small` is True.
    """

    name: str
    rows: Callable[..., list[Row]]
    small: bool = False


PARTS = (
    Part("vae", vae_rows),
    Part("footage", footage_rows),
    Part("flf2v", flf_rows, small=True),
    Part("first", first_rows),
    Part("text", text_rows),
    Part("all", all_rows),
    Part("blind", blind_rows, small=True),
    Part("large", partial(larger_rows, size=128, frames=SHORT, slack=2), small=True),
    Part("long", partial(larger_rows, size=96, frames=LONG, slack=3), small=True),
    Part("size", size_rows),
    Part("speed", speed_rows),
)
