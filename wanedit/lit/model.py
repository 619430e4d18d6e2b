"""Models that an edit may ask, before they are loaded, and a loaded Wan as the `VideoModel` that methods ask."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import VideoModel, View
from wanedit.lit import VIDEO_MODELS, comes_from_outside
from wanedit.lit.networks import WanModule, picture_key
from wanedit.lit.velocity import GuidedVelocity
from wanedit.outside import named_error
from wanedit.wan.catalog import Sampling
from wanedit.wan.condition import build_condition
from wanedit.wan.config import IMAGE_TOKENS, MASK_CHANNELS
from wanedit.wan.load import WanFolder, open_wan, require_parts
from wanedit.wan.vae import STRIDE_SPACE, STRIDE_TIME


@runtime_checkable
class OpenModel(Protocol):
    """What is known of a model before anything of it is loaded: a `WanFolder` or an `OutsideModel`."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """What whoever uses it must know of it at once; "" for nothing."""
        ...

    @property
    def sampling(self) -> Sampling: ...

    @property
    def reads_images(self) -> bool:
        """Whether a view may show it any picture."""
        ...

    def showable(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """Those of `frames` that it was trained to be shown in a clip of so many."""
        ...


@dataclass(frozen=True)
class OutsideModel:
    """A video model that is no Wan, by its name.

    Attributes:
        name: `package.module:Class`, or of an entry point in the group `wanedit.models`.
        make: makes it; called without arguments. What it makes may have a `sampling`, with its own settings, and a
            `fingerprint`, text that changes when its weights do.
    """

    name: str
    make: Callable[[], VideoModel]

    @property
    def sampling(self) -> Sampling:
        """What it says of itself; else settings that suit most, and no negative prompt.

        Raises:
            InputError: that is no `Sampling`.
        """
        own = getattr(self.make, "sampling", None) or Sampling(negative_prompt="", full_size=False)
        if not isinstance(own, Sampling):
            raise InputError(f"model {self.name} has sampling {own!r}; expected wanedit.wan.catalog.Sampling")
        return own

    def made(self) -> VideoModel:
        """The model.

        Raises:
            InputError: it cannot be made, or lacks what a model is asked for.
        """
        with named_error(f"model {self.name}"):
            model = self.make()
        if lacking := [name for name in MEMBERS if not hasattr(model, name)]:
            raise InputError(
                f"model {self.name} is a {type(model).__name__} without {', '.join(lacking)}; expected a "
                f"wanedit.flow.editing.VideoModel, with {', '.join(MEMBERS)}"
            )
        return model

    @property
    def about(self) -> str:
        return ""

    @property
    def reads_images(self) -> bool:
        return True

    def showable(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """All: it refuses by itself what it cannot be shown."""
        return tuple(frames)


class MakesModel(Protocol):
    """What a name of a video model leads to: its class, or whatever makes one when called."""

    def __call__(self) -> VideoModel: ...


# What a model from outside is asked for; a class that lacks one is refused before it is made.
MEMBERS = ("velocity", "encode", "decode", "evaluations")


def open_model(source: str) -> WanFolder | OutsideModel:
    """A model by folder, by known name, or from outside by `package.module:Class` or an entry point.

    Raises:
        InputError: none of them.
        MissingWeightsError: a known model that is not on this machine, or one that lacks a part.
    """
    if comes_from_outside(source):
        VIDEO_MODELS.renew(source)
        make = VIDEO_MODELS[source]
        methods = {name: getattr(make, name, None) for name in ("velocity", "encode", "decode")}
        if isinstance(make, type) and (
            lacking := [name for name, own in methods.items() if not callable(own)]
        ):
            raise InputError(
                f"model {source} is a class without {', '.join(lacking)}; expected a wanedit.flow.editing.VideoModel, "
                f"with {', '.join(MEMBERS)}"
            )
        return OutsideModel(source, make)
    folder = open_wan(source)
    require_parts(folder)
    return folder


def require_wan(model: WanFolder | OutsideModel) -> WanFolder:
    """The model where generation can sample with it. Raises InputError for one from outside."""
    if isinstance(model, OutsideModel):
        raise InputError(
            f"model {model.name} is no Wan, and generation samples with Wan alone; expected a known model or "
            "its folder, or an edit, which takes any"
        )
    return model


def hash_code(model: OutsideModel) -> dict[str, str]:
    """What decides what a model from outside computes, as `hash_files` of a Wan: its code, and what it says itself.

    Raises:
        InputError: it has no file.
    """
    said = getattr(model.make, "fingerprint", "")
    return {model.name: VIDEO_MODELS.code(model.name), **({"fingerprint": str(said)} if said else {})}


def require_readable(model: OpenModel, view: View) -> None:
    """Refuse a view with images for a model without condition channels.

    Raises:
        InputError: naming the model.
    """
    if (view.images or view.appended is not None) and not model.reads_images:
        raise InputError(
            f"{model.name} reads no images; expected a view without any: a method that shows the model none"
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
