"""An edit as every method sees it: latents, shared noise, and a model that is asked for velocities.

A method is called as `method(model, edit, schedule, observe)`; the model is an argument, so that Wan, another
image-to-video model and a closed form of the tests all serve.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.path import Schedule, Step
from wanedit.flow.solvers import Velocity
from wanedit.timeline import slot

Metrics = dict[str, float]
OnStep = Callable[[Step, Metrics], None]
# Two frames a, b (B, 3, H, W) in [-1, 1] -> (B, 2, H, W): what a shows at (x, y), b shows at (x + flow_0, y + flow_1).
Flow = Callable[[Tensor, Tensor], Tensor]
# A clip (B, 3, M, H, W) in [-1, 1] and N: the clip in N frames, the first and the last kept.
Retime = Callable[[Tensor, int], Tensor]


def blend(video: Float[Tensor, "b 3 m height width"], count: int) -> Float[Tensor, "b 3 n height width"]:
    """`count` >= 2 frames at positions i (M - 1) / (count - 1), neighbours mixed linearly between them."""
    last, steps = video.shape[2] - 1, count - 1
    left = [i * last // steps for i in range(count)]
    share = video.new_tensor([i * last % steps / steps for i in range(count)])[:, None, None]
    right = [min(i + 1, last) for i in left]
    return video[:, :, left] * (1 - share) + video[:, :, right] * share


@dataclass(frozen=True, eq=False)
class View:
    """What a model is told beside x and sigma.

    Attributes:
        prompt: the caption of the clip.
        guidance_scale: of classifier-free guidance; at 1.0 the unconditional pass is skipped.
        images: frame index -> pixels (3, H, W) in [-1, 1] that the clip is known to show; a model that cannot be
            shown one of them says so.
        frame_ids: the temporal position of every slot, in slots; 0 … S-1 by default.
        joint: K, how many slots of single frames are appended to the clip in one sequence.
        appended: what those K slots are known to hold; None if the model is told nothing of it.
        video: pixels that the clip is made from, for a model that reads a video; grey (0) where nothing is known.
        mask: where it is changed (1), and where kept (0); likewise. `images` stand over both.
        guidance_scale_low: guidance once the first of several experts has handed over; None for the same.
    """

    prompt: str
    guidance_scale: float = 1.0
    images: Mapping[int, Float[Tensor, "3 height width"]] = field(default_factory=dict)
    frame_ids: tuple[float, ...] | None = None
    joint: int = 0
    appended: Float[Tensor, "b c k h w"] | None = None
    video: Float[Tensor, "3 t height width"] | None = None
    mask: Float[Tensor, "t height width"] | None = None
    guidance_scale_low: float | None = None

    def guided(self, guidance_scale: float | None) -> "View":
        """The same under another guidance at all noise levels; None changes nothing."""
        if guidance_scale is None:
            return self
        return replace(self, guidance_scale=guidance_scale, guidance_scale_low=None)


@runtime_checkable
class VideoModel(Protocol):
    """All that a method needs of an image-to-video model."""

    def velocity(self, view: View, slots: int) -> Velocity:
        """A velocity for clips of `slots` latent slots, all that does not depend on the step computed once.

        Raises:
            InputError: the model cannot be shown these images, or was not given this prompt beforehand.
        """
        ...

    def encode(self, video: Float[Tensor, "b 3 t height width"]) -> Float[Tensor, "b c s h w"]:
        """Pixels in [-1, 1], T = 4n+1, to normalised latents."""
        ...

    def decode(self, latents: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b 3 t height width"]:
        """Normalised latents to pixels in [-1, 1]."""
        ...

    @property
    def evaluations(self) -> int:
        """Forward passes of the network so far, both passes of a guided velocity counted, for each clip."""
        ...


class Around:
    """Base of a `VideoModel` made of another one, of which it changes the velocity alone."""

    def __init__(self, model: VideoModel) -> None:
        self.model = model

    @property
    def evaluations(self) -> int:
        """Those of the model that is asked."""
        return self.model.evaluations

    def encode(self, video: Float[Tensor, "b 3 t height width"]) -> Float[Tensor, "b c s h w"]:
        """As that model does."""
        return self.model.encode(video)

    def decode(self, latents: Float[Tensor, "b c s h w"]) -> Float[Tensor, "b 3 t height width"]:
        """As that model does."""
        return self.model.decode(latents)


@dataclass(frozen=True, eq=False)
class Edit:
    """A source clip, its edited keyframes, and the noise that both share.

    Attributes:
        source: latents x_s.
        edited: latents x_e, each keyframe encoded alone or held for its slot; never stacked.
        slots: the latent slots of the keyframes, strictly increasing.
        noise: eps, of the source's shape. The edited keyframes have the noise of their slots: coupled noise.
        target: what the model is told of the edited clip.
        reference: what it is told of the source clip.
        video: source pixels in [-1, 1].
        keyframes: edited pixels.
        frames: the frames of the keyframes, `slot(frames[j]) == slots[j]`.
        flow: optical flow between frames, for methods that work on pixels.
        retime: a clip in another number of frames, likewise.

    Raises:
        InputError: shapes that do not belong together, slots that repeat, fall or lie outside the clip.
    """

    source: Float[Tensor, "b c s h w"]
    edited: Float[Tensor, "b c k h w"]
    slots: tuple[int, ...]
    noise: Float[Tensor, "b c s h w"]
    target: View
    reference: View
    video: Float[Tensor, "b 3 t height width"] | None = None
    keyframes: Float[Tensor, "b 3 k height width"] | None = None
    frames: tuple[int, ...] = ()
    flow: Flow | None = None
    retime: Retime = blend

    def __post_init__(self) -> None:
        if not self.slots or list(self.slots) != sorted(set(self.slots)):
            raise InputError(
                f"keyframe slots are {list(self.slots)}; expected one or more, strictly increasing"
            )
        total = self.source.shape[2]
        if self.slots[0] < 0 or self.slots[-1] >= total:
            raise InputError(f"keyframe slots are {list(self.slots)}; expected 0 … {total - 1}")
        expected = (*self.source.shape[:2], len(self.slots), *self.source.shape[3:])
        if tuple(self.edited.shape) != expected:
            raise InputError(f"edited latents are {tuple(self.edited.shape)}; expected {expected}")
        if self.noise.shape != self.source.shape:
            raise InputError(
                f"noise is {tuple(self.noise.shape)}; expected the source's {tuple(self.source.shape)}"
            )
        if self.frames and tuple(map(slot, self.frames)) != self.slots:
            raise InputError(
                f"keyframe frames {list(self.frames)} lie in slots {list(map(slot, self.frames))}; "
                f"expected {list(self.slots)}"
            )
        if self.keyframes is not None and self.keyframes.shape[2] != len(self.slots):
            raise InputError(f"{self.keyframes.shape[2]} edited frames for {len(self.slots)} slots")

    @property
    def num_slots(self) -> int:
        """S, the latent slots of the clip."""
        return self.source.shape[2]

    @property
    def edited_noise(self) -> Float[Tensor, "b c k h w"]:
        """eps_e, the noise of the keyframes' slots."""
        return at_slots(self.noise, self.slots)

    @property
    def scale(self) -> float:
        """The RMS of x_e, which relative norms are relative to."""
        return rms(self.edited)


@dataclass(frozen=True, eq=False)
class Edited:
    """What a method made: latents to be decoded, or pixels where it never had latents."""

    latents: Float[Tensor, "b c s h w"] | None = None
    pixels: Float[Tensor, "b 3 t height width"] | None = None


# What a method may leave unread: the model altogether; the view of the source clip; the latents of the keyframes; the
# pictures that the views show, where a method shows others or none.
Part = Literal["model", "reference", "edited", "images"]


class Method(ABC):
    """One way to edit: a frozen dataclass of its own settings, which says what it leaves unread.

    A field `seed` is given the run's seed, another for each clip. A field `guidance_scale` or `source_guidance_scale`
    that is not None stands in the place of the views' own, and a field `solver` decides whose schedule is visited.

    Attributes:
        makes_pixels: the result is decoded already, and of pixels of its own: nothing restores it.
        restored_by: how a decoded result is restored unless the user says otherwise (`wanedit.video.restoring`).
    """

    makes_pixels: ClassVar[bool] = False
    restored_by: ClassVar[str] = "none"

    @abstractmethod
    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        """Edit; `observe` sees every step.

        Raises:
            InputError: an edit that this method cannot take, before the model is asked for anything.
        """

    @property
    def ignores(self) -> frozenset[Part]:
        """What decides nothing here. It is left out of the name that results are kept under: what is wrongly
        named would give a stale result, so nothing is ignored unless a method says so, and the plan tries it out."""
        return frozenset()

    def decides(self, levels: Schedule) -> dict[str, object]:
        """What, beside its fields or in their place, is part of the name that results are kept under: JSON values.

        Args:
            levels: the whole schedule, of which the method may visit a part.
        """
        return {}

    def guidance(self, target: float, source: float) -> tuple[float, float | None]:
        """The guidance of the target's and the source's velocity under views of these; None: it is never asked."""
        own, own_source = getattr(self, "guidance_scale", None), getattr(self, "source_guidance_scale", None)
        asked = None if "reference" in self.ignores else source if own_source is None else own_source
        return target if own is None else own, asked

    def doubts(self, levels: Schedule, guidance: tuple[float, float | None]) -> list[str]:
        """What will run on this schedule, and at this `guidance`, but perhaps not as meant."""
        return []


def at_slots(x: Float[Tensor, "b c s h w"], slots: tuple[int, ...]) -> Float[Tensor, "b c k h w"]:
    """x[K], the slots of the keyframes."""
    return x[:, :, list(slots)]


def into_slots(
    part: Float[Tensor, "b c k h w"], slots: tuple[int, ...], num_slots: int
) -> Float[Tensor, "b c s h w"]:
    """The adjoint of `at_slots`: `part` at its slots, zeros elsewhere."""
    out = part.new_zeros(*part.shape[:2], num_slots, *part.shape[3:])
    out[:, :, list(slots)] = part
    return out


def rms(x: Tensor) -> float:
    """Root mean square per element."""
    return float(x.double().square().mean().sqrt())


def inner(a: Tensor, b: Tensor) -> Float[Tensor, "b 1 1 1 1"]:
    """<a, b> of every clip of a batch, shaped to multiply it."""
    return torch.einsum("bcshw,bcshw->b", a, b)[:, None, None, None, None]
