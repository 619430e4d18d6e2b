"""Edits of Gaussian clips, and small models whose answers are known, for tests of methods and controllers."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from math_verification.closed_form import GaussianVideo
from wanedit.errors import InputError
from wanedit.flow.editing import Edit, View
from wanedit.flow.path import Step, classifier_free

SLOTS = 5
SHAPE = (2, 3, SLOTS, 2, 2)  # a batch of two, so that a method that mixes clips is seen
MEANS = {
    "a cat": torch.linspace(-1, 1, SLOTS, dtype=torch.float64),
    "a dog": torch.linspace(2, 0.5, SLOTS, dtype=torch.float64) ** 2,
}


def smooth(slots: int = SLOTS) -> Tensor:
    """A covariance of slots that falls off with their distance."""
    places = torch.arange(slots, dtype=torch.float64)
    return 0.8 * torch.exp(-((places[:, None] - places).abs()) / 2) + 0.05 * torch.eye(
        slots, dtype=torch.float64
    )


class GuidedGaussian(GaussianVideo):
    """Under guidance the unconditional pass is one with an empty prompt, whose mean is zero."""

    def velocity(self, view: View, slots: int) -> Callable[[Tensor, Step], Tensor]:
        conditional = super().velocity(view, slots)
        if view.guidance_scale == 1.0:
            return conditional
        empty = super().velocity(replace(view, prompt=""), slots)
        return lambda z, step: classifier_free(conditional(z, step), empty(z, step), view.guidance_scale)


def gaussian() -> GuidedGaussian:
    return GuidedGaussian(smooth(), dict(MEANS))


def power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values**exponent @ vectors.T


def across(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix of slots times (B, C, S, H, W)."""
    return torch.einsum("st,bcthw->bcshw", matrix, x)


def column(values: Tensor) -> Tensor:
    """One number a slot, shaped to be added to (B, C, S, H, W)."""
    return values[None, None, :, None, None]


def variance(sigma: float, slots: int = SLOTS) -> Tensor:
    """V, the covariance of z."""
    return (1 - sigma) ** 2 * smooth(slots) + sigma**2 * torch.eye(slots, dtype=torch.float64)


def carried(x: Tensor, mean: Tensor, start: float, end: float) -> Tensor:
    """Where the flow of this mean takes x from noise level `start` to `end`: (x - m) / sqrt(V) stays."""
    ratio = power(variance(end), 0.5) @ power(variance(start), -0.5)
    return column((1 - end) * mean) + across(ratio, x - column((1 - start) * mean))


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def problem(slots: tuple[int, ...] = (0, 3), identity: bool = False, guidance: float = 1.0) -> Edit:
    """A source about the mean of "a cat"; the edit asks for "a dog", or changes nothing."""
    source = column(MEANS["a cat"]) + across(power(smooth(), 0.5), draw(*SHAPE))
    edited = source[:, :, list(slots)]
    if not identity:
        edited = edited + 1 + draw(*edited.shape, seed=1) / 3
    prompt = "a cat" if identity else "a dog"
    reference = View("a cat", guidance)
    return Edit(source, edited, slots, draw(*SHAPE, seed=2), View(prompt, guidance), reference)


def refuses(made: Any, said: str, **fields: Any) -> None:
    """`made` with other settings is refused; past its type annotations, which only tests enforce."""
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    with pytest.raises(InputError, match=said):
        made.__post_init__()


def largest(x: Tensor) -> float:
    return float(x.abs().max())


@dataclass
class Mixing:
    """A nonlinear model that reads `frame_ids` and `appended`: slots mix by the distance of their ids.

    `views` keeps what it was shown.
    """

    views: list[View] = field(default_factory=list)
    evaluations: int = 0

    def velocity(self, view: View, slots: int) -> Callable[[Tensor, Step], Tensor]:
        self.views.append(view)
        ids = torch.tensor(view.frame_ids or range(slots), dtype=torch.float64)
        assert len(ids) == slots
        mixing = torch.softmax(-((ids[:, None] - ids) ** 2) / 2, dim=1)
        shift = 0.3 * (sum(map(ord, view.prompt)) % 5)

        def velocity(z: Tensor, step: Step) -> Tensor:
            self.evaluations += 1
            known = torch.zeros_like(z)
            if view.appended is not None:
                known[:, :, -view.appended.shape[2] :] = view.appended
            seen = across(mixing.to(z), torch.tanh(z + shift) + known)
            return (z - 0.7 * seen - 0.3 * known) / step.sigma

        return velocity

    def encode(self, video: Tensor) -> Tensor:
        return video

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@dataclass
class Ramp:
    """An image-to-video model of straight ramps, VAE stride 4: from the first image to the last, or onwards by `drift`.

    Latent slot s holds the value of frame 4 s, decoding interpolates between slots.
    """

    drift: float = 0.0
    views: list[View] = field(default_factory=list)
    evaluations: int = 0

    def velocity(self, view: View, slots: int) -> Callable[[Tensor, Step], Tensor]:
        self.views.append(view)
        frames = torch.arange(slots, dtype=torch.float64)[:, None, None] * 4
        end = 4 * (slots - 1)
        assert set(view.images) in ({0}, {0, end})
        first = view.images[0][:, None]
        slope = (view.images[end][:, None] - first) / end if end in view.images and end else self.drift
        clean = (first + slope * frames)[None]

        def velocity(z: Tensor, step: Step) -> Tensor:
            assert z.shape[2] == slots
            self.evaluations += 1
            return (z - clean) / step.sigma

        return velocity

    def encode(self, video: Tensor) -> Tensor:
        return video[:, :, ::4]

    def decode(self, latents: Tensor) -> Tensor:
        frames = [f / 4 for f in range(4 * (latents.shape[2] - 1) + 1)]
        low = [math.floor(f) for f in frames]
        high = [math.ceil(f) for f in frames]
        share = torch.tensor([f - s for f, s in zip(frames, low, strict=True)], dtype=latents.dtype)[
            :, None, None
        ]
        return latents[:, :, low] * (1 - share) + latents[:, :, high] * share


def pixel_edit(frames: tuple[int, ...], total: int, size: tuple[int, int] = (4, 6)) -> Edit:
    """One clip of `total` frames (4n+1) with keyframes at these frames; latents of 3 channels, every fourth frame."""
    video = draw(1, 3, total, *size)
    keyframes = draw(1, 3, len(frames), *size, seed=5)
    source = video[:, :, ::4]
    slots = tuple(-(-frame // 4) for frame in frames)
    noise = draw(*source.shape, seed=6)
    return Edit(source, keyframes, slots, noise, View("a dog"), View("a cat"), video, keyframes, frames)
