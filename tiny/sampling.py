"""A model that is being measured, and its samples in batches, whatever frames are known: both keyframes, one, or none.

It uses the project's own solvers, schedule, guidance and noise. `FLF2VChain` does the same for one segment at a time;
a test compares the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.flow.path import schedule
from wanedit.flow.solvers import SOLVERS
from wanedit.lit.velocity import GuidedVelocity
from wanedit.rng import noise
from wanedit.sprites.sets import Clip, Rule, any_scene, first_clips
from wanedit.timeline import slots
from wanedit.wan.condition import frame_mask
from wanedit.wan.config import IMAGE_TOKENS
from wanedit.wan.load import Wan

Known = Mapping[int, Float[Tensor, "B 3 H W"]]
SHORT, LONG = 17, 33
# Frames of a text-only sample that are looked at end here.
SEEN = 9
# Clips that were asked for of every row with a bar.
ASKED = 256

# Latents of four clips of 64x64x17. The VAE takes a quarter less time per clip in groups of this size than in groups
# of sixteen, whose activations no longer fit the processor's caches.
PART = 4 * 5 * 8 * 8


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
    return _by_parts(wan.vae.encode, video, PART * 4 * 64)


@torch.no_grad()
def decode(wan: Wan, latents: Float[Tensor, "B 16 S h w"]) -> Float[Tensor, "B 3 T H W"]:
    """`wan.vae.decode`, a few clips at a time."""
    return _by_parts(wan.vae.decode, latents, PART)


def _by_parts(run: Callable[[Tensor], Tensor], x: Tensor, most: int) -> Tensor:
    """`run` on at most `most` positions (frames x height x width) at once, but on two clips at least."""
    clips = max(2, most // x[0, 0].numel())
    return torch.cat([run(part) for part in x.split(clips)])


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
    height, width = size
    # A condition as `build_condition` makes it, for a batch and for no known frame too: the mask is 0 and the clip
    # grey. Nothing known: all clips have one condition, so one is encoded.
    video = torch.zeros(len(prompts) if known else 1, 3, num_frames, height, width)
    for frame, images in known.items():
        video[:, :, frame] = images
    latents = encode(wan, video)
    mask = frame_mask(set(known), num_frames, *latents.shape[3:]).expand(len(latents), -1, -1, -1, -1)
    condition = torch.cat([mask, latents], dim=1).expand(len(prompts), -1, -1, -1, -1)
    tokens = None
    if wan.image_encoder is not None:
        # 257 of the first frame, then of the last; zeros for one that is unknown, as in training.
        empty = torch.zeros(len(prompts), IMAGE_TOKENS, wan.folder.config.image_dim)
        shown = known if image_tokens else {}
        parts = [wan.image_encoder(shown[i]) if i in shown else empty for i in (0, num_frames - 1)]
        tokens = torch.cat(parts, dim=1)
    # One by one, so that a clip's features do not depend on the batch that it is in.
    text = torch.cat([wan.text_encoder([prompt]) for prompt in prompts])
    negative = wan.text_encoder([wan.folder.sampling.negative_prompt])
    grid = (latents.shape[2], latents.shape[3], latents.shape[4])
    velocity = GuidedVelocity(wan.transformer, grid, text, negative, tokens, condition, settings.guidance)
    start = torch.stack([noise((16, *condition.shape[2:]), settings.seed, "evaluate", key) for key in keys])
    levels = schedule(settings.steps, settings.shift, settings.solver)
    return SOLVERS[settings.solver](velocity, start, levels)


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
