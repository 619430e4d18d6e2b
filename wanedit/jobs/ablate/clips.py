"""The clips of an experiment: as data, of which each is drawn or read, and as the files that the commands read."""

import os
import shutil
import uuid
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache
from itertools import count, cycle, islice, pairwise
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np

from wanedit.errors import InputError
from wanedit.files import digest, file_sha256
from wanedit.jobs.ablate.grid import Settings
from wanedit.runtime.settings import canonical, check_values, parse_size
from wanedit.sprites import (
    Scene,
    apply_edit,
    caption,
    frame_times,
    render,
    sample_edit,
    sample_scene,
)
from wanedit.sprites.edits import EDITS
from wanedit.sprites.sets import Clip, moves_through
from wanedit.video import read_frames, to_uint8, write_lossless, write_png
from wanedit.video.arrays import Frames

FPS = 16
# Raised when a change to the renderer or to this file changes what is drawn for the same spec.
DRAWN = 1
SOURCE, TRUTH = "source.mkv", "truth.mkv"


class Drawn(TypedDict):
    """All that decides a clip of the sprite renderer."""

    kind: Literal["edited_sprites", "sprite_chains"]
    split: str
    size: str
    num_frames: int
    keyframes: list[int]
    seed: int
    edit: NotRequired[str]


class Files(TypedDict):
    """All that decides a clip of files, beside what they contain."""

    kind: Literal["clips"]
    folder: str
    settings: Settings


@dataclass(frozen=True)
class Item:
    """One clip.

    Attributes:
        name: as tables call it.
        group: clips of one group are not independent: a bootstrap draws groups.
        spec: all that decides it.
    """

    name: str
    group: str
    spec: Drawn | Files


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
        indices = self.keyframes or list(range(0, self.num_frames, self.spacing))
        for index in indices:
            if type(index) is not int or not 0 <= index < self.num_frames:
                raise InputError(f"data: keyframe {index!r}; expected frames from 0 to {self.num_frames - 1}")
        if unknown := [kind for kind in self.edits if kind not in EDITS]:
            raise InputError(f"data: unknown edit {unknown[0]!r}; expected some of {', '.join(EDITS)}")

        def allows(seed: int) -> bool:
            scene = drawn_scene(seed, self.split, self.num_frames)
            try:
                return all(sample_edit(scene, seed, (kind,)) for kind in self.edits)
            except InputError:
                return False

        return [
            Item(
                f"{seed}/{edit}",
                str(seed),
                Drawn(
                    kind="edited_sprites",
                    split=self.split,
                    size=self.size,
                    num_frames=self.num_frames,
                    keyframes=indices,
                    seed=seed,
                    edit=edit,
                ),
            )
            for seed in islice(filter(allows, count()), self.scenes)
            for edit in self.edits
        ]


@dataclass(frozen=True)
class SpriteChains:
    """Scenes of the sprite renderer as chains of keyframes, for `generate`.

    Attributes:
        scenes: the first so many of the split, or of those that `through` lets pass.
        segments: of each chain; all have `segment_frames` frames, both ends included.
        keyframes: in their place, the frames of the keyframes of one chain or of several, which scenes take in turn.
        through: only scenes whose sprites all move at so many px of 64 a frame, or faster, in full sight and without a
            bounce, within four frames of every inner keyframe.
    """

    split: str = "test"
    scenes: int = 4
    segments: int = 3
    segment_frames: int = 17
    size: str = "64*64"
    keyframes: list[list[int]] | None = None
    through: float | None = None

    def items(self) -> list[Item]:
        """One for each scene."""
        parse_size(self.size)
        even = [k * (self.segment_frames - 1) for k in range(self.segments + 1)]
        chains = [even] if self.keyframes is None else self.keyframes
        for frames in chains:
            rising = frames[:1] == [0] and all(
                type(a) is type(b) is int and a < b for a, b in pairwise(frames)
            )
            if not rising or len(frames) < 2:
                raise InputError(
                    f"data: keyframes are {frames}; expected rising frames from 0 on, two or more"
                )
        return [
            Item(
                str(seed) if self.keyframes is None else f"{seed}/{'-'.join(map(str, frames))}",
                str(seed),
                Drawn(
                    kind="sprite_chains",
                    split=self.split,
                    size=self.size,
                    num_frames=frames[-1] + 1,
                    keyframes=frames,
                    seed=seed,
                ),
            )
            for seed, frames in zip(self._seeds(chains), cycle(chains), strict=False)
        ]

    def _seeds(self, chains: list[list[int]]) -> list[int]:
        if self.through is None:
            return list(range(self.scenes))
        return passing(self.split, self.scenes, self.through, tuple(map(tuple, chains)))


@cache
def passing(split: str, count: int, speed: float, chains: tuple[tuple[int, ...], ...]) -> list[int]:
    """Seeds of the first scenes of a split that go through the inner keyframes of the chains, which they take in turn.

    Raises:
        InputError: too few of the first 100,000 do.
    """
    found: list[int] = []
    for seed in range(100_000):
        frames = chains[len(found) % len(chains)]
        scene = drawn_scene(seed, split, frames[-1] + 1)
        if all(moves_through(scene, frame / FPS, 4 / FPS, speed * FPS) for frame in frames[1:-1]):
            found.append(seed)
        if len(found) == count:
            return found
    raise InputError(f"data: {len(found)} scenes pass through {speed}; expected {count}: ask for less")


@dataclass(frozen=True)
class Clips:
    """Files: for `edit` each with video, keyframes, prompt, source_prompt and perhaps the truth as reference; for
    `generate` with keyframes and prompt. Paths count from the experiment's folder.

    Attributes:
        clips: name -> settings of the command, and `reference`.
    """

    clips: dict[str, object] = field(default_factory=dict)
    folder: str = "."

    def items(self) -> list[Item]:
        """One for each entry."""
        if not self.clips:
            raise InputError("data: clips is empty; expected a mapping from names to settings")
        found = []
        for name, settings in self.clips.items():
            if not isinstance(settings, dict):
                raise InputError(f"data: clip {name} is {settings!r}; expected a mapping of settings")
            for key in ("video", "reference"):
                if not isinstance(settings.get(key), str | None):
                    raise InputError(f"data: clip {name}: {key} is {settings[key]!r}; expected a path")
            keyframes = settings.get("keyframes")
            pairs = keyframes if isinstance(keyframes, list) else []
            if not pairs or not all(
                isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
            ):
                raise InputError(
                    f"data: clip {name}: keyframes are {keyframes!r}; expected pairs [path, frame or seconds]"
                )
            spec = Files(kind="clips", folder=self.folder, settings=canonical(settings))
            found.append(Item(name, name, spec))
        return found


KINDS: dict[str, type[EditedSprites | SpriteChains | Clips]] = {
    "edited_sprites": EditedSprites,
    "sprite_chains": SpriteChains,
    "clips": Clips,
}


def make_items(data: Settings, folder: Path) -> list[Item]:
    """The clips that `data` asks for.

    Raises:
        InputError: an unknown kind or setting, or a value of another type.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"data: kind is {kind!r}; expected one of {', '.join(KINDS)}")
    made = KINDS[kind]
    given = {name: value for name, value in data.items() if name != "kind"}
    known = [f.name for f in fields(made) if f.name != "folder"]
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"data: unknown setting {unknown[0]!r}; expected some of {', '.join(known)}")
    check_values(made, given)
    for name, value in given.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"data: {name} is {value}; expected at least 1")
    source = made(**given)
    return (replace(source, folder=str(folder.absolute())) if isinstance(source, Clips) else source).items()


def drawn_scene(seed: int, split: str, num_frames: int) -> Scene:
    """The scene of a seed, timed to so many frames."""
    return sample_scene(seed, split, num_frames / FPS)


@dataclass(frozen=True, eq=False)
class Material:
    """What a run works on.

    Attributes:
        settings: of the command: its inputs and prompts.
        truth: uint8 (T, H, W, 3), what the result should be; None where nobody knows.
        scene: of the truth, where its sprites can be followed: drawn in style plain.
    """

    settings: Settings
    truth: Frames | None
    scene: Clip | None = None


def prepare(item: Item, folder: Path) -> Material:
    """The files of an item; sprites are drawn once and kept by the hash of what decides them.

    Args:
        folder: where drawn clips are kept.

    Raises:
        InputError: a file of a clip is not there.
    """
    spec = item.spec
    if spec["kind"] == "clips":
        # Here alone, for it decodes videos.
        from wanedit.video.source import read_source

        beside, settings = Path(spec["folder"]), dict(spec["settings"])
        reference = settings.pop("reference", None)
        if "video" in settings:
            settings["video"] = str(_there(beside / settings["video"]))
        settings["keyframes"] = [[str(_there(beside / path)), at] for path, at in settings["keyframes"]]
        truth = None if reference is None else np.asarray(read_source(_there(beside / reference)).frames)
        return Material(settings, truth)
    home = folder / digest({"drawn": DRAWN, **spec})[:16]
    scene = drawn_scene(spec["seed"], spec["split"], spec["num_frames"])
    edited = None
    if "edit" in spec:
        edited = apply_edit(scene, sample_edit(scene, spec["seed"], (spec["edit"],)))
    if not home.is_dir():
        # Two processes may draw the same clip: whoever is later finds the folder there and drops its own.
        partial = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}")
        partial.mkdir(parents=True)
        try:
            truth = _drawn(edited.scene if edited else scene, spec, edited.style if edited else "plain")
            write_lossless(partial / TRUTH, truth, Fraction(FPS))
            for index in spec["keyframes"]:
                write_png(partial / f"{index:04d}.png", truth[index])
            if edited is not None:
                write_lossless(partial / SOURCE, _drawn(scene, spec), Fraction(FPS))
            os.rename(partial, home)
        except OSError:
            if not home.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    pictures = {index: str((home / f"{index:04d}.png").absolute()) for index in spec["keyframes"]}
    if edited is None:
        keyframes = [[path, index / FPS] for index, path in pictures.items()]
        settings = {"keyframes": keyframes, "prompt": caption(scene), "size": spec["size"], "fps": float(FPS)}
    else:
        settings = {
            "video": str((home / SOURCE).absolute()),
            "keyframes": [[path, index] for index, path in pictures.items()],
            "prompt": edited.caption,
            "source_prompt": caption(scene),
        }
    shown = edited.scene if edited else scene
    plain = edited is None or edited.style == "plain"
    clip = Clip(spec["seed"], shown, spec["num_frames"]) if plain else None
    return Material(settings, read_frames(home / TRUTH), clip)


def _drawn(scene: Scene, spec: Drawn, style: str = "plain") -> Frames:
    size = parse_size(spec["size"])
    return to_uint8(render(scene, frame_times(spec["num_frames"], FPS), size, style).video)


def fingerprint(item: Item) -> dict[str, object]:
    """All that decides the pixels of an item: of files their contents, of a folder those of its files by name."""
    if item.spec["kind"] != "clips":
        return {"drawn": DRAWN, **item.spec}
    given, folder = item.spec["settings"], Path(item.spec["folder"])
    named = [given[name] for name in ("video", "reference") if given.get(name) is not None]
    paths = [_there(folder / name) for name in [*named, *(path for path, _ in given["keyframes"])]]
    contents = [
        [file_sha256(path)]
        if path.is_file()
        else [[each.name, file_sha256(each)] for each in sorted(path.iterdir()) if each.is_file()]
        for path in paths
    ]
    return {**given, "files": contents}


def _there(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"data: no file or folder {path.absolute()}")
    return path.absolute()
