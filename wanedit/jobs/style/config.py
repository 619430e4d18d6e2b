"""StyleConfig: everything a styling run can be told, and the checks that read no file."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from wanedit.errors import InputError
from wanedit.runtime.settings import (
    AnyRate,
    Count,
    Everyday,
    FileName,
    Index,
    PlainValues,
    Positive,
    Registered,
    check_modules,
    check_settings,
    field_hints,
    own_names,
    require_folder,
)
from wanedit.stylists.gemini.settings import GeminiSettings
from wanedit.stylists.palette.looks import PaletteSettings, check_palette
from wanedit.timeline import rate_of

MAX_RETRIES = 20


@dataclass(frozen=True, kw_only=True)
class Styling(PlainValues):
    """How keyframes are chosen and restyled: what `wanedit style` and an edit that styles share.

    Attributes:
        stylist: palette (offline, no key), gemini (key from GOOGLE_API_KEY or GEMINI_API_KEY alone), the name of an
            installed one, or package.module:Class.
        stylist_options: what a stylist from outside is made with, such as {"strength": 0.7}; of palette and gemini they
            win over the sections below.
        palette: of the palette stylist.
        gemini: of the gemini stylist.
        indices: which frames, "0,20" or a list, counted from `start`, taken in ascending order; null to choose them.
        target_fps: keyframes a second of the source, where they are chosen.
        max_frames: keyframes at most, where they are chosen.
        scene_cuts: look for cuts, so that every scene gets a keyframe and none stands beside a cut; reads all frames.
        retries: further attempts at a keyframe that the stylist rejects.
        concurrency: keyframes in the works at one time.
        on_reject: what to do with a keyframe rejected in every attempt: error; keep the best attempt and say so.
    """

    stylist: Annotated[str, Registered("wanedit.stylists:STYLISTS"), Everyday("how")] = "palette"
    stylist_options: dict[str, Any] = field(default_factory=dict)
    palette: PaletteSettings = field(default_factory=PaletteSettings)
    gemini: GeminiSettings = field(default_factory=GeminiSettings)
    indices: str | Sequence[int] | None = None
    target_fps: Positive = 1.0
    max_frames: Count = 10
    scene_cuts: bool = True
    retries: Annotated[int, Ge(0), Le(MAX_RETRIES)] = 2
    concurrency: Count = 4
    on_reject: Literal["error", "keep"] = "error"


@dataclass(frozen=True)
class StyleSource(PlainValues):
    """The style.

    Attributes:
        image: a picture that has it; a relative path is looked up in the current folder, then beside the config file.
        description: words for it. The palette stylist knows watercolour, noir, sunset, ink, neon, autumn, pastel,
            comic, sepia, winter and oil; gemini reads free text.
    """

    image: Annotated[FileName | None, Everyday("what goes in")] = None
    description: Annotated[str, Everyday("what goes in")] = ""


@dataclass(frozen=True, kw_only=True)
class StyleConfig(Styling):
    """One styling run.

    Attributes:
        job: whose settings these are; a record says it, and no other job takes it.
        video: the source, a video file or a folder of images.
        style: what the keyframes shall look like.
        start: the first frame of the source, as for `wanedit edit`: all frame numbers count from it.
        num_frames: how many frames of the source; null for all to the end.
        fps: frames a second of a folder of images, a number or "30000/1001"; null for 16.
        decoder: pyav, or decord (an extra).
        module_folders: where the module of a stylist `package.module:Name` is looked for after the current folder; a
            run records the one that it found its own in.
        force_regenerate: ask for everything anew, whatever the cache holds.
        output: the run's folder, which `wanedit edit --keyframes` reads.
    """

    job: Literal["style"] = "style"
    video: str | os.PathLike[str] = ""
    style: StyleSource = field(default_factory=StyleSource)
    start: Index = 0
    num_frames: Count | None = None
    fps: AnyRate = None
    decoder: Literal["pyav", "decord"] = "pyav"
    module_folders: list[str] = field(default_factory=list)
    force_regenerate: bool = False
    output: Annotated[str | os.PathLike[str], Everyday("what comes out")] = "outputs/style"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return require_folder(self.output)


_PARTS: dict[str, type] = {
    name: kind
    for name, kind in field_hints(StyleConfig).items()
    if isinstance(kind, type) and is_dataclass(kind)
}


def style_config(values: Mapping[str, object]) -> StyleConfig:
    """A configuration from plain values, its parts as mappings.

    Raises:
        InputError: an unknown name.
    """
    return StyleConfig(**parts_of(values))


def parts_of(values: Mapping[str, object]) -> dict[str, Any]:
    """Plain values with the mappings among them that are parts of a configuration as what they are.

    Raises:
        InputError: an unknown name in a part.
    """
    parts = {}
    for name, kind in _PARTS.items():
        given = values.get(name)
        if isinstance(given, Mapping):
            parts[name] = kind(**own_names(kind, given, f"{name}."))
    return {**values, **parts}


def check_style(config: StyleConfig) -> None:
    """Refuse values that make no sense.

    Raises:
        InputError: naming the field, what was got and what was expected.
    """
    check_modules(config)
    check_settings(config)
    if not config.video:
        raise InputError("video is empty; expected a video file or a folder of images")
    if config.fps is not None:
        rate_of(config.fps)
    if not config.output or "\0" in os.fspath(config.output):
        raise InputError("output is empty or holds a zero byte; expected a folder")
    if config.style.image is None and not config.style.description.strip():
        raise InputError("no style; expected --style.image PICTURE, --style.description WORDS, or both")
    check_palette(config.palette)
    config.gemini.check()
    parse_indices(config.indices)


def parse_indices(value: str | Sequence[int] | None) -> list[int] | None:
    """ "0,20" or [0, 20] as numbers; None for None.

    Raises:
        InputError: an entry is no whole number, or there is none.
    """
    if value is None:
        return None
    entries = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    if entries in ([], [""]):
        raise InputError("indices are empty; expected frame numbers such as 0,20, or null to choose them")
    try:
        if any(isinstance(entry, bool | float) for entry in entries):
            raise ValueError
        return [int(entry) for entry in entries]
    except (TypeError, ValueError):
        raise InputError(f"indices are {value!r}; expected frame numbers such as 0,20") from None


def resolved(config: StyleConfig, video: Path, image: Path | None, indices: Sequence[int]) -> StyleConfig:
    """The same run, whatever the current folder: paths absolute, frames chosen."""
    source = replace(config.style, image=None if image is None else str(image.absolute()))
    return replace(config, video=str(video.absolute()), style=source, indices=list(indices))
