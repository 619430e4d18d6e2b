"""A model that is being measured, and the samples that every part of the table takes from it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tiny.evaluate import Known, SamplerSettings, decode, sample
from wanedit.sprites.sets import Clip, Rule, any_scene, batches, first_clips
from wanedit.timeline import slots
from wanedit.wan.load import Wan

T = TypeVar("T")
SHORT, LONG = 17, 33
# Frames of a text-only sample that are looked at end here.
SEEN = 9
# Clips that were asked for of every row with a bar.
ASKED = 256


@dataclass(frozen=True)
class Evaluation:
    """A loaded model, how it is sampled, and how many clips are spent.

    Attributes:
        clips: of 64x64x17, for every row with a bar.
        large_clips: of 128x128x17 and of 96x96x33; at most `clips`.
        text_guidance: of text-only samples; the others take `settings.guidance`.
        paths: real clips and pictures for the VAE.
        held_out: no training read `paths`.
        split: of the drawn scenes.
    """

    wan: Wan
    settings: SamplerSettings
    clips: int = ASKED
    large_clips: int = 16
    text_guidance: float = 4.0
    paths: Sequence[Path] = ()
    held_out: bool = False
    split: str = "test"

    @property
    def few(self) -> int:
        """Clips for rows without a bar."""
        return max(1, self.clips // 8)

    def draw(self, count: int, rule: Rule = any_scene, num_frames: int = SHORT) -> list[Clip]:
        """The first clips of the split that a rule lets through."""
        return first_clips(count, num_frames, rule, self.split)

    def between(self, group: Sequence[Clip], video: Tensor, image_tokens: bool = True) -> Tensor:
        """FLF2V samples (B, 3, T, H, W) between the first and the last frame of each clip."""
        known = {0: video[:, :, 0], video.shape[2] - 1: video[:, :, -1]}
        guidance = self.settings.guidance
        return decode(self.wan, self._latents(group, known, video.shape[-1], guidance, image_tokens))

    def onwards(self, group: Sequence[Clip], video: Tensor) -> Tensor:
        """Samples (B, 3, T, H, W) from the first frame of each clip and its prompt."""
        known = {0: video[:, :, 0]}
        return decode(self.wan, self._latents(group, known, video.shape[-1], self.settings.guidance))

    def from_text(self, group: Sequence[Clip], frames: int = SEEN) -> Tensor:
        """The first frames (B, 3, frames, 64, 64) of samples from the prompts alone."""
        # The VAE is causal: the first frames need the first latents only.
        return decode(self.wan, self._latents(group, {}, 64, self.text_guidance)[:, :, : slots(frames)])

    @torch.no_grad()
    def _latents(
        self, group: Sequence[Clip], known: Known, size: int, guidance: float, image_tokens: bool = True
    ) -> Tensor:
        settings = replace(self.settings, guidance=guidance)
        prompts, keys = [clip.prompt for clip in group], [clip.seed for clip in group]
        frames = group[0].num_frames
        return sample(self.wan, known, prompts, frames, (size, size), settings, keys, image_tokens)


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
