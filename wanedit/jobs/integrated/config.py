"""EditStyle: the style that `wanedit edit --style.image` makes its keyframes by, before it edits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from wanedit.errors import InputError
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.style.config import StyleConfig, StyleSource
from wanedit.stylists.gemini.settings import GeminiSettings
from wanedit.stylists.palette.looks import PaletteSettings

# Where in a run's folder the keyframes are made.
STYLED = "styled"
OF_THE_SOURCE = ("video", "start", "num_frames", "fps", "decoder")


@dataclass(frozen=True)
class EditStyle:
    """How the keyframes of an edit are made; with neither picture nor words they are given.

    Attributes:
        image: a picture that has the style.
        description: words for it.
        stylist: palette (offline, no key) or gemini (key from GOOGLE_API_KEY or GEMINI_API_KEY alone).
        palette: of the palette stylist.
        gemini: of the gemini stylist.
        indices: which frames, "0,20" or a list, taken in ascending order; null to choose them.
        target_fps: keyframes a second of the source, where they are chosen.
        max_frames: keyframes at most, where they are chosen.
        scene_cuts: look for cuts, so that every scene gets a keyframe.
        retries: further attempts at a keyframe that the stylist rejects.
        concurrency: keyframes in the works at one time.
        on_reject: what to do with a keyframe rejected in every attempt: error; keep the best attempt and say so.
    """

    image: str | None = None
    description: str = ""
    stylist: Literal["palette", "gemini"] = "palette"
    palette: PaletteSettings = field(default_factory=PaletteSettings)
    gemini: GeminiSettings = field(default_factory=GeminiSettings)
    indices: str | list[int] | None = None
    target_fps: float = 1.0
    max_frames: int = 10
    scene_cuts: bool = True
    retries: int = 2
    concurrency: int = 4
    on_reject: Literal["error", "keep"] = "error"

    @property
    def asked(self) -> bool:
        """Whether there is a style."""
        return self.image is not None or bool(self.description.strip())


def styling_of(style: EditStyle, config: EditConfig) -> StyleConfig:
    """The styling run inside the folder of an edit, of the same frames of the same source.

    Raises:
        InputError: the edit has keyframes already.
    """
    if config.keyframes:
        raise InputError("keyframes and a style are given; expected one of them")
    shared = set(StyleConfig.__dataclass_fields__)
    own = {name: getattr(style, name) for name in EditStyle.__dataclass_fields__ if name in shared}
    # Both count and decode the same frames of the same source.
    source = {name: getattr(config, name) for name in OF_THE_SOURCE}
    return StyleConfig(
        style=StyleSource(style.image, style.description),
        force_regenerate=config.force_regenerate,
        output=str(Path(config.folder) / STYLED),
        **own,
        **source,
    )
