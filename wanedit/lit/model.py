"""A loaded Wan as the `VideoModel` that editing methods ask for velocities."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import View
from wanedit.lit.networks import WanModule, picture_key
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan.condition import build_condition
from wanedit.wan.config import IMAGE_TOKENS, MASK_CHANNELS
from wanedit.wan.load import WanFolder
from wanedit.wan.vae import STRIDE_SPACE, STRIDE_TIME


def showable(folder: WanFolder, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
    """Those of `frames` that a model's condition channels were trained to show.

    Any for the inpainting models and wan-tiny; the first for I2V; the first and the last for FLF2V; none for T2V.
    """
    if not folder.config.condition_channels:
        return ()
    if folder.known is not None and (folder.known.bundled or "InP" in folder.known.name):
        return tuple(frames)
    ends = (0, num_frames - 1) if folder.config.model_type == "flf2v" else (0,)
    return tuple(frame for frame in frames if frame in ends)


def require_readable(folder: WanFolder, view: View) -> None:
    """Refuse a view with images for a model without condition channels.

    Raises:
        InputError: naming the model.
    """
    if (view.images or view.appended is not None) and not folder.config.condition_channels:
        raise InputError(
            f"{folder.name} reads no images ({folder.config.model_type}); expected a view without any: a method that "
            "shows the model none"
        )


class WanVideoModel:
    """Velocities and codec for clips of one size.

    Args:
        module: with VAE and transformer loaded, and every prompt and picture encoded that views may name.
        size: (height, width) in pixels, multiples of 16.
        negative_prompt: of guidance.
    """

    def __init__(self, module: WanModule, size: tuple[int, int], negative_prompt: str) -> None:
        self.module = module
        self.size = size
        self.negative_prompt = negative_prompt
        self.config = module.folder.config
        self._given: list[GuidedVelocity] = []

    @property
    def evaluations(self) -> int:
        """Forward passes of the transformer so far."""
        return sum(velocity.evaluations for velocity in self._given)

    def encode(self, video: Float[Tensor, "b 3 t height width"]) -> Float[Tensor, "b c s h w"]:
        """Normalised latents."""
        return self.module.encode(video)

    def decode(self, latents: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b 3 t height width"]:
        """Pixels in [-1, 1]."""
        return self.module.decode(latents)

    def velocity(self, view: View, slots: int) -> GuidedVelocity:
        """See `VideoModel.velocity`; the batch is one clip.

        Raises:
            InputError: a prompt or picture that was not encoded beforehand, or pictures for a model without condition.
        """
        num_frames = STRIDE_TIME * (slots - view.joint - 1) + 1
        require_readable(self.module.folder, view)
        transformer, vae = self.module.loaded()
        device = vae.mean.device
        condition = self._condition(view, num_frames) if self.config.condition_channels else None
        tokens = self._tokens(view, num_frames)
        grid = (slots, self.size[0] // STRIDE_SPACE, self.size[1] // STRIDE_SPACE)
        scale, words = view.guidance_scale, self._words(view.prompt).to(device)
        negative = words if scale == 1.0 else self._words(self.negative_prompt).to(device)
        ids = None if view.frame_ids is None else torch.tensor(view.frame_ids, device=device)
        self.module.bring(device)
        given = GuidedVelocity(
            transformer,
            grid,
            words,
            negative,
            None if tokens is None else tokens.to(device),
            condition,
            scale,
            ids,
        )
        self._given.append(given)
        return given

    def _words(self, prompt: str) -> Tensor:
        if prompt not in self.module.encodings.text:
            raise InputError(f"prompt {prompt[:60]!r} was not encoded; expected one of the task's own")
        return self.module.encodings.text[prompt]

    def _condition(self, view: View, num_frames: int) -> Float[Tensor, "1 20 s h w"]:
        clip = build_condition(view.images, num_frames, self.encode, self.size)
        if not view.joint:
            return clip
        if view.appended is None:
            single = build_condition({}, 1, self.encode, self.size).expand(-1, -1, view.joint, -1, -1)
        else:
            latents = view.appended.to(clip)
            # A slot of one frame is known in all of its mask channels, as slot 0 is.
            single = torch.cat([torch.ones_like(latents[:, :MASK_CHANNELS]), latents], dim=1)
        return torch.cat([clip, single], dim=2)

    def _tokens(self, view: View, num_frames: int) -> Tensor | None:
        """257 tokens of each frame that the model looks at; zeros for one that is not shown."""
        if not self.config.image_tokens:
            return None
        looked_at = (0, num_frames - 1)[: self.config.num_images]
        return torch.cat([self._picture(view.images.get(frame)) for frame in looked_at], dim=1)

    def _picture(self, image: Tensor | None) -> Tensor:
        if image is None:
            return torch.zeros(1, IMAGE_TOKENS, self.config.image_dim)
        key = picture_key(image)
        if key not in self.module.encodings.pictures:
            raise InputError("a picture of the view was not encoded; expected frames of the task")
        return self.module.encodings.pictures[key]
