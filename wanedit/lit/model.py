"""Models that an edit may ask, before they are loaded.

Without Lightning, whose import costs a plan more than the plan.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from wanedit.errors import InputError
from wanedit.flow.editing import VideoModel, View
from wanedit.lit import VIDEO_MODELS, comes_from_outside
from wanedit.outside import named_error
from wanedit.wan.catalog import KNOWN_MODELS, Sampling
from wanedit.wan.config import WAN_21_LATENTS, ChosenLora, LatentSpace
from wanedit.wan.load import WanFolder, hash_files, open_wan, require_parts


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
    def latent_space(self) -> LatentSpace:
        """What its codec makes of pixels."""
        ...

    @property
    def reads_images(self) -> bool:
        """Whether a view may show it any picture."""
        ...

    @property
    def reads_video(self) -> bool:
        """Whether a view may give it a video and a mask."""
        ...

    @property
    def reads_appended(self) -> bool:
        """Whether a view may say what its appended slots hold."""
        ...

    @property
    def experts(self) -> int:
        """Of how many transformers it is made, each for its own noise levels."""
        ...

    def handovers(self, boundary_timestep: float | None) -> tuple[float, ...]:
        """The falling timesteps at which another network takes over; none for one network at all noise levels."""
        ...

    def showable(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """Those of `frames` that it was trained to be shown in a clip of so many."""
        ...


@dataclass(frozen=True)
class OutsideModel:
    """A video model that is no Wan, by its name.

    Attributes:
        name: `package.module:Class`, or of an entry point in the group `wanedit.models`.
        make: makes it; called without arguments. What it makes may have a `sampling`, with its own settings, a
            `latent_space`, where that is not Wan 2.1's, and a `fingerprint`, text that changes when its weights do.
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
    def latent_space(self) -> LatentSpace:
        """What it says of itself; else that of Wan 2.1.

        Raises:
            InputError: that is no `LatentSpace`.
        """
        own = getattr(self.make, "latent_space", WAN_21_LATENTS)
        if not isinstance(own, LatentSpace):
            raise InputError(
                f"model {self.name} has latent_space {own!r}; expected wanedit.wan.config.LatentSpace"
            )
        return own

    @property
    def about(self) -> str:
        return ""

    @property
    def reads_images(self) -> bool:
        return True

    @property
    def reads_video(self) -> bool:
        """Whether it says so of itself."""
        return bool(getattr(self.make, "reads_video", False))

    @property
    def reads_appended(self) -> bool:
        return True

    @property
    def experts(self) -> int:
        return 1

    def handovers(self, boundary_timestep: float | None) -> tuple[float, ...]:
        return ()

    def showable(self, frames: Iterable[int], num_frames: int) -> tuple[int, ...]:
        """All: it refuses by itself what it cannot be shown."""
        return tuple(frames)


class MakesModel(Protocol):
    """What a name of a video model leads to: its class, or whatever makes one when called."""

    def __call__(self) -> VideoModel: ...


# What a model from outside is asked for; a class that lacks one is refused before it is made.
READ_VIDEO = [known.name for known in KNOWN_MODELS if known.config.model_type == "vace"]
MEMBERS = ("velocity", "encode", "decode", "evaluations")


def open_model(
    source: str,
    parts: Mapping[str, str] | None = None,
    loras: Sequence[ChosenLora] = (),
    lora_partial: bool = False,
    shows_images: bool = False,
    distilled: str = "auto",
) -> WanFolder | OutsideModel:
    """A model by folder, by known name, or from outside by `package.module:Class` or an entry point.

    Args:
        parts, loras, lora_partial, distilled: as of `open_wan`.
        shows_images: whether it has to read images: a text-only Wan is refused before its parts are compared.

    Raises:
        InputError: none of them, or single parts or LoRAs of one from outside.
        MissingWeightsError: a known model that is not on this machine, or one that lacks a part.
    """
    if comes_from_outside(source):
        if parts:
            raise InputError(f"model {source} is no Wan, and has no {', '.join(parts)} to choose")
        if loras:
            raise InputError(f"model {source} is no Wan; expected no lora, which is merged into a Wan")
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
    folder = open_wan(source, parts, loras, lora_partial, distilled)
    if shows_images:
        folder.config.require_images(folder.name)
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


def hash_model(
    model: WanFolder | OutsideModel, say: Callable[[str], None] = lambda text: None
) -> dict[str, str]:
    """SHA-256 of all that decides what a model computes, by name: `hash_code`, or `hash_files`."""
    return hash_code(model) if isinstance(model, OutsideModel) else hash_files(model, say)


def held_softly(strength: Sequence[float]) -> list[str]:
    """A note where keyframes in the middle of a clip are held less firmly than its ends."""
    if min(strength) == 1:
        return []
    said = ", ".join(f"{one:g}" for one in strength)
    experts = " (high, low noise)" if len(strength) > 1 else ""
    return [
        f"keyframes in the middle of a clip are held with strength {said}{experts}, softer than its ends, and may be "
        "met roughly: middle_strength"
    ]


def require_readable(model: OpenModel, view: View) -> None:
    """Refuse a view with images for a model without condition channels, and one with a video for one that reads none.

    Raises:
        InputError: naming the model.
    """
    if view.video is not None and not model.reads_video:
        raise InputError(
            f"{model.name} reads no video with a mask; expected a VACE ({', '.join(READ_VIDEO)})"
        )
    if (view.images or view.appended is not None) and not model.reads_images:
        raise InputError(
            f"{model.name} reads no images; expected a view without any: a method that shows the model none"
        )
    if view.appended is not None and not model.reads_appended:
        raise InputError(
            f"{model.name} has no channels that would tell it what an edit branch holds; expected edit_branch "
            "analytic, or show_keyframes false"
        )
