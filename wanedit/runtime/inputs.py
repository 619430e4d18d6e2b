"""What settings name outside of themselves: files, found beside the config file too, and keyframes in every form."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import SupportsFloat

from wanedit.errors import InputError
from wanedit.runtime.settings import VIDEO_SUFFIXES
from wanedit.timeline import Keyframe

KeyframesLike = str | os.PathLike[str] | Sequence[object]
KEYFRAMES_JSON = "keyframes.json"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

# One entry of "a.png:0.0,b.png:3.0": the shortest text up to a colon, a number, and a comma or the end, so
# that colons, commas and spaces in a path are harmless.
_ENTRY = re.compile(
    r"(?P<path>.+?):(?P<number>[-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf))\s*(?:,\s*|$)", re.DOTALL
)


@dataclass(frozen=True)
class EditedFrame:
    """An edited picture of one frame of the source."""

    path: Path
    index: int


def find_path(
    name: str | os.PathLike[str], folders: Sequence[Path] = (), *, what: str, folder: bool = False
) -> Path:
    """The file of a name: as it stands, from the current folder, else beside a config file.

    Args:
        name: `~` is the home folder.
        folders: those of the config files; only a relative name is looked up there.
        what: names it in messages, such as "video".
        folder: whether it may be a folder as well.

    Raises:
        InputError: there is none; the message says where it was looked for.
    """
    path = Path(name).expanduser()
    places = list(dict.fromkeys([path, *(() if path.is_absolute() else (place / path for place in folders))]))
    # os.path, because a name that is too long for a file is not there, which pathlib raises instead.
    for place in places:
        if os.path.isfile(place) or (folder and os.path.exists(place)):
            return place
    for place in places:
        if os.path.isdir(place):
            raise InputError(f"{what}: {place.absolute()} is a folder; expected a picture")
    looked = " or ".join(str(place.absolute()) for place in places)
    raise InputError(f"{what}: no file {'or folder ' if folder else ''}{looked}")


def run_folder(path: Path) -> Path:
    """The folder of a run that is named by it or by its finished video. Raises InputError for anything else."""
    path = path.expanduser()
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        beside = path.with_suffix(".wanedit")
        path = beside if beside.is_dir() else path.parent
    if not path.is_dir():
        raise InputError(f"run: no folder {path.absolute()}; expected the folder of a run")
    return path


def parse_keyframes(
    value: KeyframesLike,
    folders: Sequence[Path] = (),
    fps: float = 16.0,
    spacing: float = 5.0,
    tell: Callable[[str], None] = lambda note: None,
) -> list[Keyframe]:
    """Keyframes in time: "a.png:0.0,b.png:3.0", pairs [path, seconds], mappings of path and seconds, time or timestamp.

    Args:
        value: as above; or a folder, see `_timed_images`.
        folders: where to look for a relative path after the current folder.
        fps: of the video that is made, for frame numbers.
        spacing: seconds between images whose names say no time.
        tell: told where the times of a folder come from.

    Raises:
        InputError: an entry is not a path and a number, or its file does not exist.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and (folder := _folder(value, folders)) is not None:
        pairs = _timed_images(folder, fps, spacing, tell)
    elif isinstance(value, str):
        pairs, rest = _split(value)
        if rest:
            raise InputError(
                f'keyframes: {rest!r} is no folder and no "a.png:0.0,b.png:3.0" of files and seconds'
            )
    else:
        pairs = [_pair(entry, k, "seconds", "time", "timestamp") for k, entry in enumerate(value)]
    timed = [(path, _seconds(seconds, k)) for k, (path, seconds) in enumerate(pairs)]
    return [
        Keyframe(find_path(path, folders, what=f"keyframe {k}"), seconds)
        for k, (path, seconds) in enumerate(timed)
    ]


def parse_edited(
    value: KeyframesLike, folders: Sequence[Path] = (), start: int | None = None
) -> list[EditedFrame]:
    """Keyframes by frame: "a.png:0,b.png:20", pairs [path, frame], mappings of the two, or a folder.

    Args:
        value: as above; of a folder its keyframes.json, as `wanedit style` writes it, else images named by their frame.
        folders: where to look for a relative path after the current folder.
        start: the frame of the source that frame numbers count from; None for not known.

    Raises:
        InputError: an entry is not a path and a frame number, its file does not exist, or a folder's keyframes.json
            counts from another frame.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        pairs = [_pair(entry, k, "frame") for k, entry in enumerate(value)]
    elif (folder := _folder(value, folders)) is not None:
        pairs = _of_folder(folder, start)
    else:
        pairs, rest = _split(value)
        if rest:
            raise InputError(
                f'keyframes: {rest!r} is no folder and no "a.png:0,b.png:20" of files and frame numbers'
            )
    if not pairs:
        raise InputError('no keyframes; expected a folder of edited frames or "a.png:0,b.png:20"')
    framed = [(path, _frame(frame, k)) for k, (path, frame) in enumerate(pairs)]
    return [
        EditedFrame(find_path(path, folders, what=f"keyframe {k}"), frame)
        for k, (path, frame) in enumerate(framed)
    ]


def _split(text: str) -> tuple[list[tuple[str, object]], str]:
    """The entries of "a.png:0.0,b.png:3.0", and what is left where it cannot be read."""
    pairs: list[tuple[str, object]] = []
    text = text.strip()
    while match := _ENTRY.match(text):
        pairs.append((match["path"].strip(), match["number"]))
        text = text[match.end() :]
    return pairs, text


def _pair(entry: object, index: int, *names: str) -> tuple[str, object]:
    """Path and number of a list's entry; of a mapping, the number goes by one of `names`."""
    if isinstance(entry, Keyframe | EditedFrame):
        return str(entry.path), entry.seconds if isinstance(entry, Keyframe) else entry.index
    if isinstance(entry, dict) and set(entry) in ({"path", name} for name in names):
        return str(entry["path"]), next(value for name, value in entry.items() if name != "path")
    if isinstance(entry, list | tuple) and len(entry) == 2:
        return str(entry[0]), entry[1]
    raise InputError(f"keyframe {index} is {entry!r}; expected [path, {names[0]}]")


def _seconds(value: object, index: int) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | SupportsFloat):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"keyframe {index}: time is {value!r}; expected seconds") from None


def _frame(value: object, index: int) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, str | SupportsFloat):
            raise TypeError
        if float(value) != int(float(value)):
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"keyframe {index}: frame is {value!r}; expected a whole number") from None


def _folder(text: str, folders: Sequence[Path]) -> Path | None:
    # "" is the current folder to pathlib, and nothing at all to whoever wrote it.
    if not text.strip():
        return None
    path = Path(text).expanduser()
    places = [path, *(() if path.is_absolute() else (place / path for place in folders))]
    return next((place for place in places if os.path.isdir(place)), None)


def _timed_images(
    folder: Path, fps: float, spacing: float, tell: Callable[[str], None]
) -> list[tuple[str, object]]:
    """The images of a folder and their seconds: by its keyframes.json, else by their names.

    1.5.png and 3s.png are in seconds, 0024.png in frames, as `wanedit edit` reads it. Names that say neither, or count
    one by one as cameras and ffmpeg number pictures, stand `spacing` apart.
    """
    if (folder / KEYFRAMES_JSON).is_file():
        pairs = _of_folder(folder, None)
        rate = json.loads((folder / KEYFRAMES_JSON).read_text(encoding="utf-8")).get("fps") or fps
        tell(f"{folder.name}: times are the frames of its {KEYFRAMES_JSON} at {rate:g} fps")
        return [(path, _frame(frame, k) / rate) for k, (path, frame) in enumerate(pairs)]
    # Picture 10 after picture 9: text and numbers alternate, so that like is compared with like.
    paths = sorted(
        _images(folder),
        key=lambda path: [
            int(part) if k % 2 else part for k, part in enumerate(re.split(r"(\d+)", path.stem))
        ],
    )
    names = [path.stem for path in paths]
    if all(re.fullmatch(r"\d+(\.\d+)?s|\d+\.\d+", name) for name in names):
        seconds = [float(name.removesuffix("s")) for name in names]
        tell(f"{folder.name}: the names of its images are seconds")
    elif all(map(str.isdecimal, names)) and not _counts(sorted(map(int, names))):
        seconds = [int(name) / fps for name in names]
        tell(
            f"{folder.name}: the names of its images are frames at {fps:g} fps (1.5.png or 3s.png would be seconds)"
        )
    else:
        seconds = [k * spacing for k in range(len(paths))]
        tell(
            f"{folder.name}: the names of its {len(paths)} images say no times; they follow each other {spacing:g} s "
            "apart (1.5.png or 3s.png would be at these seconds, 0024.png at this frame)"
        )
    order = sorted(range(len(paths)), key=seconds.__getitem__)
    return [(str(paths[k]), seconds[k]) for k in order]


def _images(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]


def _counts(numbers: Sequence[int]) -> bool:
    """Whether numbers go up by one."""
    return len(numbers) > 1 and all(b - a == 1 for a, b in pairwise(numbers))


def _of_folder(folder: Path, start: int | None) -> list[tuple[str, object]]:
    record = folder / KEYFRAMES_JSON
    if not record.is_file():
        images = sorted(_images(folder))
        unnamed = [p.name for p in images if not p.stem.isdecimal()]
        if unnamed:
            raise InputError(
                f"{folder} has no {KEYFRAMES_JSON} and an image {unnamed[0]}; expected names that are frame numbers, "
                "such as 0020.png"
            )
        return [(str(p.absolute()), int(p.stem)) for p in sorted(images, key=lambda p: int(p.stem))]
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        pairs = [(str(entry["file"]), entry["frame"]) for entry in values["keyframes"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f'{record}: {error!r}; expected {{"keyframes": [{{"file": "0000.png", "frame": 0}}]}}'
        ) from None
    # A folder is passed on between people: what it names must not reach other files of the machine.
    outside = [name for name, _ in pairs if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise InputError(f"{record} names {outside[0]!r}; expected files inside {record.parent}")
    made = values.get("start")
    if start is not None and made not in (None, start):
        raise InputError(f"{record}: keyframes were made with --start {made}; expected the same, not {start}")
    return [(str((record.parent / name).absolute()), frame) for name, frame in pairs]
