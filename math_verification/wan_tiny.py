"""wan-tiny as a `VideoModel`, and one of the project's own clips as an edit of it.

Only what two claims need: one clip, no joint sequence. The editor of the package has an adapter of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, View, at_slots
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity
from wanedit.lit.velocity import GuidedVelocity
from wanedit.rng import noise
from wanedit.sprites import caption, frame_times, render, sample_scene
from wanedit.timeline import slot
from wanedit.wan import Wan, load_wan
from wanedit.wan.condition import build_condition
from wanedit.wan.config import IMAGE_TOKENS

SIZE, FRAMES, KEYFRAMES = (64, 64), 17, (8,)


@dataclass
class TinyModel:
    """A loaded Wan model that is asked for velocities of one clip at a time, float32.

    Attributes:
        wan: the model.
        evaluations: forward passes so far.
    """

    wan: Wan
    evaluations: int = 0
    _texts: dict[str, Tensor] = field(default_factory=dict)

    def velocity(self, view: View, slots: int) -> Velocity:
        """The guided velocity, shown the images of `view` at its first or last frame."""
        if view.appended is not None or view.frame_ids is not None:
            raise InputError("this adapter knows no joint sequence; expected a view without appended slots")
        frames = 4 * (slots - 1) + 1
        condition = build_condition(view.images, frames, self.wan.vae.encode)
        guided = GuidedVelocity(
            self.wan.transformer,
            (slots, condition.shape[3], condition.shape[4]),
            self._text(view.prompt),
            self._text(self.wan.folder.sampling.negative_prompt),
            self._image_tokens(view.images, frames),
            condition,
            view.guidance_scale,
        )

        def velocity(z: Tensor, step: Step) -> Tensor:
            self.evaluations += 1 if view.guidance_scale == 1.0 else 2
            return guided(z, step)

        return velocity

    def _text(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            self._texts[prompt] = self.wan.text_encoder([prompt])
        return self._texts[prompt]

    def _image_tokens(self, images: Mapping[int, Tensor], frames: int) -> Tensor | None:
        if self.wan.image_encoder is None:
            return None
        empty = torch.zeros(1, IMAGE_TOKENS, self.wan.folder.config.image_dim)
        ends = [self.wan.image_encoder(images[i][None]) if i in images else empty for i in (0, frames - 1)]
        return torch.cat(ends, dim=1)

    def encode(self, video: Float[Tensor, "b 3 t height width"]) -> Float[Tensor, "b c s h w"]:
        """Pixels to normalised latents."""
        return self.wan.vae.encode(video)

    def decode(self, latents: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b 3 t height width"]:
        """Normalised latents to pixels."""
        return self.wan.vae.decode(latents)


@cache
def load() -> TinyModel:
    """The bundled model, once per process."""
    wan = load_wan("tiny")
    for part in (wan.transformer, wan.vae, wan.text_encoder, wan.image_encoder):
        if part is not None:
            part.requires_grad_(False)
    return TinyModel(wan)


def still_edit(model: TinyModel, seed: int = 0) -> Edit:
    """A clip of 64x64x17 whose middle keyframe is edited into itself."""
    scene = sample_scene(seed, "test")
    video = render(scene, frame_times(FRAMES), SIZE).video[None]
    source = model.encode(video)
    view = View(caption(scene), images={0: video[0, :, 0], FRAMES - 1: video[0, :, -1]})
    slots = tuple(slot(frame) for frame in KEYFRAMES)
    start = noise(tuple(source.shape), seed, "math_verification")
    return Edit(source, at_slots(source, slots), slots, start, view, view, video)
