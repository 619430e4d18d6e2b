"""The clips of an experiment as data: what each is drawn or read from, and nothing of its pixels yet."""

from dataclasses import dataclass, field, fields, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from wanedit.errors import InputError
from wanedit.runtime.settings import check_values, parse_size
from wanedit.sprites import Scene, sample_edit, sample_scene
from wanedit.sprites.edits import EDITS

FPS = 16


@dataclass(frozen=True)
class Item:
    """One clip.

    Attributes:
        name: as tables call it.
        group: clips of one group are not independent: a bootstrap draws groups.
        spec: all that decides it, as JSON values.
    """

    name: str
    group: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class EditedSprites:
    """Scenes of the sprite renderer under edits whose truth is drawn, for `edit`.

    Attributes:
        scenes: the first so many of the split that allow all `edits`.
        spacing: every so many frames of the truth is a keyframe, the first frame always; or, in `keyframes`, their
            frames themselves.
    """

    split: str = "validation"
    scenes: int = 4
    edits: list[str] = field(default_factory=lambda: ["recolour", "style", "background"])
    num_frames: int = 33
    size: str = "64*64"
    spacing: int = 16
    keyframes: list[int] | None = None

    def items(self) -> list[Item]:
        """One for each scene and edit."""
        parse_size(self.size)
        fixed = {"num_frames": self.num_frames, "size": self.size, "split": self.split}
        indices = self.keyframes or list(range(0, self.num_frames, self.spacing))
        for index in indices:
            if type(index) is not int or not 0 <= index < self.num_frames:
                raise InputError(f"data: keyframe {index!r}; expected frames from 0 to {self.num_frames - 1}")
        if unknown := [kind for kind in self.edits if kind not in EDITS]:
            raise InputError(f"data: unknown edit {unknown[0]!r}; expected some of {', '.join(EDITS)}")
        fixed |= {"kind": "edited_sprites", "keyframes": indices}
        return [
            Item(f"{seed}/{edit}", str(seed), fixed | {"seed": seed, "edit": edit})
            for seed in islice(filter(self._allows, count()), self.scenes)
            for edit in self.edits
        ]

    def _allows(self, seed: int) -> bool:
        scene = drawn_scene(seed, self.split, self.num_frames)
        try:
            return all(sample_edit(scene, seed, (kind,)) for kind in self.edits)
        except InputError:
            return False


@dataclass(frozen=True)
class SpriteChains:
    """Scenes of the sprite renderer as chains of keyframes, for `generate`.

    Attributes:
        segments: of each chain; all have `segment_frames` frames, both ends included.
    """

    split: str = "test"
    scenes: int = 4
    segments: int = 3
    segment_frames: int = 17
    size: str = "64*64"

    def items(self) -> list[Item]:
        """One for each scene."""
        parse_size(self.size)
        indices = [k * (self.segment_frames - 1) for k in range(self.segments + 1)]
        fixed = {"kind": "sprite_chains", "split": self.split, "size": self.size, "keyframes": indices}
        fixed |= {"num_frames": indices[-1] + 1}
        return [Item(str(seed), str(seed), fixed | {"seed": seed}) for seed in range(self.scenes)]


@dataclass(frozen=True)
class Clips:
    """Files: for `edit` each with video, keyframes, prompt, source_prompt and perhaps the truth as reference; for
    `generate` with keyframes and prompt. Paths count from the experiment's folder.

    Attributes:
        clips: name -> settings of the command, and `reference`.
    """

    clips: dict[str, Any] = field(default_factory=dict)
    folder: str = "."

    def items(self) -> list[Item]:
        """One for each entry."""
        if not self.clips:
            raise InputError("data: clips is empty; expected a mapping from names to settings")
        for name, settings in self.clips.items():
            _check_clip(str(name), settings)
        return [
            Item(name, name, {"kind": "clips", "folder": self.folder, "settings": settings})
            for name, settings in self.clips.items()
        ]


def _check_clip(name: str, settings: Any) -> None:
    if not isinstance(settings, dict):
        raise InputError(f"data: clip {name} is {settings!r}; expected a mapping of settings")
    for key in ("video", "reference"):
        if not isinstance(settings.get(key), str | None):
            raise InputError(f"data: clip {name}: {key} is {settings[key]!r}; expected a path")
    keyframes = settings.get("keyframes")
    pairs = keyframes if isinstance(keyframes, list) else []
    if not pairs or not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise InputError(
            f"data: clip {name}: keyframes are {keyframes!r}; expected pairs [path, frame or seconds]"
        )


KINDS: dict[str, type] = {
    "edited_sprites": EditedSprites,
    "sprite_chains": SpriteChains,
    "clips": Clips,
}


def make_items(data: dict[str, Any], folder: Path) -> list[Item]:
    """The clips that `data` asks for.

    Raises:
        InputError: an unknown kind or setting, or a value of another type.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"data: kind is {kind!r}; expected one of {', '.join(KINDS)}")
    made: Any = KINDS[kind]
    given = {name: value for name, value in data.items() if name != "kind"}
    known = [f.name for f in fields(made) if f.name != "folder"]
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"data: unknown setting {unknown[0]!r}; expected some of {', '.join(known)}")
    check_values(made, given)
    for name, value in given.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"data: {name} is {value}; expected at least 1")
    source = made(**given)
    return (replace(source, folder=str(folder.absolute())) if made is Clips else source).items()


def drawn_scene(seed: int, split: str, num_frames: int) -> Scene:
    """The scene of a seed, timed to so many frames."""
    return sample_scene(seed, split, num_frames / FPS)
