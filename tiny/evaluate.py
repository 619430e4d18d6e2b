"""Samples of a loaded model in batches, whatever frames are known: both keyframes, the first one, or none.

It uses the project's own solvers, schedule, guidance and noise. `FLF2VChain` does the same for one segment at a time;
a test compares the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.flow.guidance import classifier_free
from wanedit.flow.path import Step, schedule
from wanedit.flow.solvers import Velocity, get_solver
from wanedit.rng import noise
from wanedit.wan.condition import frame_mask
from wanedit.wan.config import IMAGE_TOKENS
from wanedit.wan.load import Wan

Known = Mapping[int, Float[Tensor, "B 3 H W"]]

# Latents of four clips of 64x64x17. The VAE takes a quarter less time per clip in groups of this size than in groups
# of sixteen, whose activations no longer fit the processor's caches.
_PART = 4 * 5 * 8 * 8


@dataclass(frozen=True)
class SamplerSettings:
    """How clips are sampled; the defaults are those of wan-tiny's sampling.json and of `wanedit generate`."""

    steps: int = 12
    shift: float = 3.0
    guidance: float = 1.0
    solver: str = "unipc"
    seed: int = 0


@torch.no_grad()
def reconstruct(wan: Wan, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """Encode and decode; pixels in [-1, 1]."""
    return decode(wan, encode(wan, video))


@torch.no_grad()
def encode(wan: Wan, video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 16 S h w"]:
    """`wan.vae.encode`, a few clips at a time."""
    # 8 x 8 pixels of about four frames make one latent.
    return _by_parts(wan.vae.encode, video, _PART * 4 * 64)


@torch.no_grad()
def decode(wan: Wan, latents: Float[Tensor, "B 16 S h w"]) -> Float[Tensor, "B 3 T H W"]:
    """`wan.vae.decode`, a few clips at a time."""
    return _by_parts(wan.vae.decode, latents, _PART)


def _by_parts(run: Callable[[Tensor], Tensor], x: Tensor, most: int) -> Tensor:
    """`run` on at most `most` positions (frames x height x width) at once, but on two clips at least."""
    clips = max(2, most // x[0, 0].numel())
    return torch.cat([run(part) for part in x.split(clips)])


def cross_fade(video: Float[Tensor, "B 3 T H W"]) -> Float[Tensor, "B 3 T H W"]:
    """The trivial baseline: first and last frame mixed in proportion to time."""
    mix = torch.linspace(0, 1, video.shape[2]).view(1, 1, -1, 1, 1)
    return torch.lerp(video[:, :, :1], video[:, :, -1:], mix)


@torch.no_grad()
def sample(
    wan: Wan,
    known: Known,
    prompts: Sequence[str],
    num_frames: int,
    size: tuple[int, int],
    settings: SamplerSettings,
    keys: Sequence[int],
    image_tokens: bool = True,
) -> Float[Tensor, "B 16 S h w"]:
    """Latents of one clip per prompt; `wan.vae.decode` makes pixels of them.

    Args:
        known: frame index -> pixels in [-1, 1]; {} for text alone, {0: first, T - 1: last} for FLF2V.
        prompts: one per clip.
        num_frames: T = 4n + 1.
        size: (height, width) in pixels.
        keys: one number per clip, which with `settings.seed` names its noise: a clip's noise does not depend on
            the batch that it is in.
        image_tokens: False: the keyframes' tokens are zeros, and only the condition's latents show them.
    """
    condition = _condition(wan, known, len(prompts), num_frames, size)
    tokens = _image_tokens(wan, known if image_tokens else {}, len(prompts), num_frames)
    velocity = _velocity(wan, prompts, tokens, condition, settings.guidance)
    start = torch.stack([noise((16, *condition.shape[2:]), settings.seed, "evaluate", key) for key in keys])
    levels = schedule(settings.steps, settings.shift, settings.solver)
    return get_solver(settings.solver)(velocity, start, levels)


def _condition(
    wan: Wan, known: Known, batch: int, num_frames: int, size: tuple[int, int]
) -> Float[Tensor, "B 20 S h w"]:
    """As `build_condition`, for a batch and for no known frame too: the mask is 0 and the clip grey."""
    # Nothing known: all clips have one condition, so one is encoded.
    video = torch.zeros(batch if known else 1, 3, num_frames, *size)
    for frame, images in known.items():
        video[:, :, frame] = images
    latents = encode(wan, video)
    mask = frame_mask(set(known), num_frames, *latents.shape[3:])
    return torch.cat([mask.expand(len(latents), -1, -1, -1, -1), latents], dim=1).expand(
        batch, -1, -1, -1, -1
    )


def _image_tokens(wan: Wan, known: Known, batch: int, num_frames: int) -> Tensor | None:
    """257 tokens of the first frame, then of the last; zeros for one that is unknown, as in training."""
    if wan.image_encoder is None:
        return None
    parts = [wan.image_encoder(known[i]) if i in known else None for i in (0, num_frames - 1)]
    empty = torch.zeros(batch, IMAGE_TOKENS, wan.folder.config.image_dim)
    return torch.cat([empty if part is None else part for part in parts], dim=1)


def _texts(wan: Wan, prompts: Sequence[str]) -> Float[Tensor, "B text_len dim"]:
    # One by one, as everywhere else: the tokenizer pads a batch to its longest prompt.
    rows = [wan.text_encoder([prompt])[0] for prompt in prompts]
    length = wan.folder.config.text_len
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in rows])


def _velocity(
    wan: Wan, prompts: Sequence[str], tokens: Tensor | None, condition: Tensor, guidance: float
) -> Velocity:
    """The model's velocity for a batch; under guidance one pass evaluates both prompts of every clip."""
    model: Any = wan.transformer
    slots, height, width = condition.shape[2:]
    text = _texts(wan, prompts)
    twice = guidance != 1.0
    if twice:
        negative = _texts(wan, [wan.folder.sampling.negative_prompt]).expand_as(text)
        text, condition = torch.cat([text, negative]), torch.cat([condition, condition])
        tokens = None if tokens is None else torch.cat([tokens, tokens])
    context = model.prepare((slots, height, width), text, tokens, condition)

    def velocity(x: Tensor, step: Step) -> Tensor:
        rows = torch.cat([x, x]) if twice else x
        v = model.velocity(rows, torch.full((len(rows),), step.timestep), context)
        return classifier_free(v[: len(x)], v[len(x) :], guidance) if twice else v

    return velocity
