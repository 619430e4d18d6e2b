"""The clips of an experiment: as data, of which each is drawn or read, and as the files that the commands read."""

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache
from itertools import count, cycle, islice, pairwise
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import numpy as np

from wanedit.errors import InputError
from wanedit.files import at_home, digest, file_sha256
from wanedit.jobs.ablate.footage import FIVE_TYPES, find_sequences, read_five, read_masks, recolour
from wanedit.jobs.ablate.grid import Settings
from wanedit.runtime.inputs import parse_edited
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
from wanedit.video.source import open_source, read_source

FPS = 16
# Raised when a change to the renderer or to this file changes what is drawn for the same spec.
DRAWN = 1
SOURCE, TRUTH, MASK = "source.mkv", "truth.mkv", "mask.mkv"
# Likewise of recoloured clips.
RECOLOURED = 1
# Settings of a clip of files that name one; all but the first are no setting of a command.
BESIDE = ("video", "reference", "mask")


class Drawn(TypedDict):
    """All that decides a clip of the sprite renderer."""

    kind: Literal["edited_sprites", "sprite_chains"]
    split: str
    size: str
    num_frames: int
    keyframes: list[int]
    seed: int
    edit: NotRequired[str]


class Recoloured(TypedDict):
    """All that decides a recoloured clip, beside what its files contain."""

    kind: Literal["davis"]
    folder: str
    name: str
    size: str
    num_frames: int
    keyframes: list[int]


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
    spec: Drawn | Recoloured | Files


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
    """Files: for `edit` each with video, keyframes, prompt, source_prompt and perhaps the truth as reference and a mask
    of what the edit may change; for `generate` with keyframes and prompt.

    Attributes:
        clips: name -> settings of the command, `reference` and `mask`.
        folder: from which their paths count; itself counts from the experiment's.
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
            for key in BESIDE:
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


@dataclass(frozen=True)
class Davis:
    """Real clips whose masked objects have other colours, for `edit`: keyframes are frames of the recoloured clip, the
    truth. See `footage` for the folders and the map of colours.

    Attributes:
        folder: of DAVIS, FiVE-Bench, or of clips and masks of your own; a path counts from the experiment's folder.
        sequences: names; null for those of the split that results are reported on, or all where none is named.
        num_frames: of each clip at most.
        size: "width*height" that each is brought to, the middle kept.
        spacing: every so many frames is a keyframe, the first frame always.
    """

    folder: str = "."
    sequences: list[str] | None = None
    num_frames: int = 33
    size: str = "832*480"
    spacing: int = 16

    def items(self) -> list[Item]:
        """One for each sequence."""
        parse_size(self.size)
        found = []
        for one in find_sequences(Path(self.folder), self.sequences):
            frames = min(self.num_frames, len(open_source(one.video).frames))
            spec = Recoloured(
                kind="davis",
                folder=self.folder,
                name=one.name,
                size=self.size,
                num_frames=frames,
                keyframes=list(range(0, frames, self.spacing)),
            )
            found.append(Item(one.name, one.name, spec))
        return found


@dataclass(frozen=True)
class Five:
    """FiVE-Bench's edits, for `edit`. Those of one type are a group, so that means are over types, as published ones;
    of one type alone, those of one video.

    Attributes:
        folder: the benchmark's; a path counts from the experiment's folder.
        keyframes: edited frames: in it a folder edit1/0001_bus for each edit, as `wanedit edit --keyframes` takes it.
        types: 1 and 2 replace an object, 3 colours, 4 changes materials, 5 adds, 6 removes.
        num_frames: of each clip at most; 41 is what Wan-Edit samples.
    """

    folder: str = "."
    keyframes: str = "keyframes"
    types: list[int] = field(default_factory=lambda: list(FIVE_TYPES))
    num_frames: int = 41

    def items(self) -> list[Item]:
        """One for each edit that has keyframes."""
        home, found = Path(self.folder), []
        for edit in read_five(home, self.types):
            pictures, clip = at_home(self.keyframes) / edit.name, open_source(edit.sequence.video)
            if not pictures.is_dir():
                raise InputError(
                    f"data: no keyframes in {pictures.absolute()}; expected the edited frames of {edit.name}: "
                    f"{edit.target_prompt}"
                )
            keyframes = parse_edited(str(pictures), start=0, source=lambda clip=clip: clip)
            settings: Settings = {
                "video": os.path.relpath(edit.sequence.video, home),
                "mask": os.path.relpath(edit.sequence.mask, home),
                "keyframes": [[os.path.relpath(one.path, home), one.index] for one in keyframes],
                "prompt": edit.target_prompt,
                "source_prompt": edit.source_prompt,
                "num_frames": min(self.num_frames, len(clip.frames)),
            }
            group = edit.sequence.name if len(self.types) == 1 else f"edit{edit.type}"
            found.append(Item(edit.name, group, Files(kind="clips", folder=self.folder, settings=settings)))
        return found


KINDS: dict[str, type[EditedSprites | SpriteChains | Clips | Davis | Five]] = {
    "edited_sprites": EditedSprites,
    "sprite_chains": SpriteChains,
    "clips": Clips,
    "davis": Davis,
    "five": Five,
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
    known = [f.name for f in fields(made)]
    if unknown := [name for name in given if name not in known]:
        raise InputError(f"data: unknown setting {unknown[0]!r}; expected some of {', '.join(known)}")
    check_values(made, given)
    for name, value in given.items():
        if isinstance(value, int) and value < 1:
            raise InputError(f"data: {name} is {value}; expected at least 1")
    source = made(**given)
    if not isinstance(source, EditedSprites | SpriteChains):
        source = replace(source, folder=str(folder.absolute() / at_home(source.folder)))
    if isinstance(source, Five):
        source = replace(source, keyframes=str(folder.absolute() / at_home(source.keyframes)))
    return source.items()


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
        mask: a file or folder of what the edit may change, see `footage.read_masks`; None where nobody says.
    """

    settings: Settings
    truth: Frames | None
    scene: Clip | None = None
    mask: Path | None = None


def prepare(item: Item, folder: Path) -> Material:
    """The files of an item; what is drawn is drawn once and kept by the hash of what decides it.

    Args:
        folder: where drawn clips are kept.

    Raises:
        InputError: a file of a clip is not there, or cannot be used.
    """
    spec = item.spec
    if spec["kind"] == "clips":
        beside, settings = Path(spec["folder"]), dict(spec["settings"])
        given = {name: settings.pop(name, None) for name in BESIDE}
        video, reference, mask = (None if name is None else _there(beside / name) for name in given.values())
        if video is not None:
            settings["video"] = str(video)
        settings["keyframes"] = [[str(_there(beside / path)), at] for path, at in settings["keyframes"]]
        truth = None if reference is None else np.asarray(read_source(reference).frames)
        return Material(settings, truth, mask=mask)
    home = folder / digest(fingerprint(item))[:16]
    pictures = {index: str((home / f"{index:04d}.png").absolute()) for index in spec["keyframes"]}
    inputs = {
        "video": str((home / SOURCE).absolute()),
        "keyframes": [[path, index] for index, path in pictures.items()],
    }
    if spec["kind"] == "davis":
        _draw_once(home, lambda partial: _recolour(spec, partial))
        # The frames alone say what changes, so that nothing depends on how somebody would word it.
        words = spec["name"].replace("-", " ").replace("_", " ")
        settings = inputs | {"prompt": words, "source_prompt": words, "size": spec["size"]}
        return Material(settings, read_frames(home / TRUTH), mask=home / MASK)
    scene = drawn_scene(spec["seed"], spec["split"], spec["num_frames"])
    edited = None
    if "edit" in spec:
        edited = apply_edit(scene, sample_edit(scene, spec["seed"], (spec["edit"],)))

    def draw(partial: Path) -> None:
        truth = _drawn(edited.scene if edited else scene, spec, edited.style if edited else "plain")
        _write(partial, truth, spec["keyframes"], None if edited is None else _drawn(scene, spec))

    _draw_once(home, draw)
    if edited is None:
        keyframes = [[path, index / FPS] for index, path in pictures.items()]
        settings = {"keyframes": keyframes, "prompt": caption(scene), "size": spec["size"], "fps": float(FPS)}
    else:
        settings = inputs | {"prompt": edited.caption, "source_prompt": caption(scene)}
    shown = edited.scene if edited else scene
    plain = edited is None or edited.style == "plain"
    clip = Clip(spec["seed"], shown, spec["num_frames"]) if plain else None
    return Material(settings, read_frames(home / TRUTH), clip)


def _draw_once(home: Path, draw: Callable[[Path], None]) -> None:
    """Draw a folder, unless it is there. Two processes may draw the same clip: whoever is later finds the folder there
    and drops its own.
    """
    if home.is_dir():
        return
    partial = home.with_name(f".{home.name}.{uuid.uuid4().hex[:8]}")
    partial.mkdir(parents=True)
    try:
        draw(partial)
        os.rename(partial, home)
    except OSError:
        if not home.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, truth: Frames, keyframes: list[int], source: Frames | None) -> None:
    write_lossless(folder / TRUTH, truth, Fraction(FPS))
    for index in keyframes:
        write_png(folder / f"{index:04d}.png", truth[index])
    if source is not None:
        write_lossless(folder / SOURCE, source, Fraction(FPS))


def _recolour(spec: Recoloured, folder: Path) -> None:
    (found,) = find_sequences(Path(spec["folder"]), [spec["name"]])
    size, count = parse_size(spec["size"]), spec["num_frames"]
    frames = np.asarray(open_source(found.video, num_frames=count, size=size).frames)
    masks = read_masks(found.mask, count, size)
    try:
        truth = recolour(frames, masks)
    except InputError as error:
        raise InputError(f"data: {found.name} of {found.mask}: {error}") from None
    _write(folder, truth, spec["keyframes"], frames)
    levels = np.where(masks, np.uint8(255), np.uint8(0))
    write_lossless(folder / MASK, np.repeat(levels[..., None], 3, axis=-1), Fraction(FPS))


def _drawn(scene: Scene, spec: Drawn, style: str = "plain") -> Frames:
    size = parse_size(spec["size"])
    return to_uint8(render(scene, frame_times(spec["num_frames"], FPS), size, style).video)


def fingerprint(item: Item) -> dict[str, object]:
    """All that decides the pixels of an item: of files their contents, of a folder those of its files by name."""
    spec = item.spec
    if spec["kind"] == "davis":
        (found,) = find_sequences(Path(spec["folder"]), [spec["name"]])
        decides = {name: value for name, value in spec.items() if name != "folder"}
        return {"recoloured": RECOLOURED, **decides, "files": list(map(_contents, (found.video, found.mask)))}
    if spec["kind"] != "clips":
        return {"drawn": DRAWN, **spec}
    given, folder = spec["settings"], Path(spec["folder"])
    named = [given[name] for name in BESIDE if given.get(name) is not None]
    paths = [_there(folder / name) for name in [*named, *(path for path, _ in given["keyframes"])]]
    return {**given, "files": list(map(_contents, paths))}


def _contents(path: Path) -> list[object]:
    if path.is_file():
        return [file_sha256(path)]
    return [[each.name, file_sha256(each)] for each in sorted(path.iterdir()) if each.is_file()]


def _there(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"data: no file or folder {path.absolute()}")
    return path.absolute()
