"""What settings name outside of themselves: files, found beside the config file too, and keyframes in every form."""

import os
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex

from wanedit.errors import InputError
from wanedit.files import WRONG_NAME, Json, at_home, read_json, reading, system_errors
from wanedit.runtime.settings import FINAL_NAME, MODEL_FIELDS
from wanedit.runtime.settingsfile import read_lines, told_where
from wanedit.timeline import Keyframe
from wanedit.video.formats import FORMATS
from wanedit.wan.catalog import find_known
from wanedit.wan.config import ChosenLora

if TYPE_CHECKING:
    from wanedit.video.source import OpenedSource

KeyframesLike = str | os.PathLike[str] | Sequence[object]
KEYFRAMES_JSON = "keyframes.json"
_LISTED = '{"keyframes": [{"file": "0000.png", "frame": 0}]}'
# One of them stands in the folder of every run that began.
RECORDS = ("metrics.jsonl", "segments/progress.json")

# Where an entry of "a.png:0.0,b.png:3.0" may end: a colon, a number, and a comma or the end.
_NUMBER = re.compile(r":(?P<number>[-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?|nan|inf))\s*(?:,\s*|$)")

# Characters, as Linux has it.
LONGEST_PATH = 4096


@dataclass(frozen=True)
class EditedFrame:
    """An edited picture of one frame of the source.

    note: how its place was found, where that was not by the frame's number; None where it was.
    """

    path: Path
    index: int
    note: str | None = None


@dataclass(frozen=True)
class _Entry:
    """What one keyframe was given as: its number is seconds or a frame, or is None told by its form."""

    path: str
    number: object
    timed: bool | None = None
    note: str | None = None


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
        ResourceError: a folder may not be entered.
    """
    path = at_home(name)
    places = list(dict.fromkeys([path, *(() if path.is_absolute() else (place / path for place in folders))]))
    # os.path, because a name that is too long for a file is not there, which pathlib raises instead.
    for place in places:
        if os.path.isfile(place) or (folder and os.path.exists(place)):
            return place
    for place in places:
        if os.path.isdir(place):
            raise InputError(f"{what}: {place.absolute()} is a folder; expected a picture")
    for place in places:
        try:
            os.stat(place)
        except OSError as error:
            if (
                error.errno not in WRONG_NAME
            ):  # as of a folder on the way that may not be entered: it is there perhaps
                with system_errors(place):
                    raise
        except ValueError:  # a zero byte, which is in no name
            pass
    looked = " or ".join(dict.fromkeys(str(place.absolute()) for place in places))
    raise InputError(f"{what}: no file {'or folder ' if folder else ''}{looked}")


def with_model(values: Json, folders: Sequence[Path], absolute: bool = False) -> Json:
    """Settings whose model, its parts and LoRAs are where they are found: as they stand or, where nothing is, in the
    first of the folders that has them. A known name stays one.

    Args:
        absolute: as they are found from any other folder, too.

    Raises:
        InputError: what is no LoRA.
    """

    def found(path: str | Path) -> Path:
        places = [at_home(path), *(folder / path for folder in folders)]
        place = next((place for place in places if os.path.exists(place)), None)
        if place is None:  # a name, or a class
            return Path(path)
        return place.absolute() if absolute else place

    placed = dict(values)
    for name in values.keys() & MODEL_FIELDS:
        if (given := values[name]) and isinstance(given, str) and find_known(given) is None:
            placed[name] = str(found(given))
    if "lora" in values:
        given = values["lora"] if isinstance(values["lora"], list) else [values["lora"]]
        placed["lora"] = [str(replace(one, path=found(one.path))) for one in map(ChosenLora.of, given)]
    return placed


def run_folder(path: Path) -> Path:
    """The folder of a run that is named by it or by its finished video.

    Raises:
        InputError: anything else; a video that is not a run's own and a folder of settings alone are none.
    """
    path = at_home(path)
    if path.suffix.lower() in FORMATS and path.is_file():
        beside = path.with_suffix(".wanedit")
        if not beside.is_dir() and path.name != FINAL_NAME:
            raise InputError(
                f"run: {path} is no film of a run, which has its records in {beside.name} beside it; expected the "
                "folder of a run or its film"
            )
        path = beside if beside.is_dir() else path.parent
    if not path.is_dir():
        raise InputError(f"run: no folder {path.absolute()}; expected the folder of a run")
    if not any((path / name).is_file() for name in RECORDS):
        held = "settings, but no run" if (path / "config.yaml").is_file() else "no run"
        raise InputError(
            f"run: {path} holds {held}: neither {' nor '.join(RECORDS)}; expected a run's folder"
        )
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
        entries = _timed_images(folder, fps, spacing, tell)
    elif isinstance(value, str):
        entries, rest = _split(value, folders)
        if rest:
            raise InputError(
                f'keyframes: {rest!r} is no folder and no "a.png:0.0,b.png:3.0" of files and seconds'
            )
    else:
        entries = [_entry(given, k, *_TIMES) for k, given in enumerate(value)]
    timed = [(entry.path, _seconds(entry.number, k)) for k, entry in enumerate(entries)]
    return [
        Keyframe(find_path(path, folders, what=f"keyframe {k}"), seconds)
        for k, (path, seconds) in enumerate(timed)
    ]


def parse_edited(
    value: KeyframesLike,
    folders: Sequence[Path] = (),
    start: int | None = None,
    source: "Callable[[], OpenedSource] | None" = None,
    first_number: int | None = None,
) -> list[EditedFrame]:
    """Keyframes by frame or time: "a.png:0,b.png:20", "a.png:0.0,b.png:1.25", pairs, mappings, or a folder.

    A number with a decimal point is seconds, as it is for `parse_keyframes`, any other a frame. Of a mapping the name
    tells: frame, or seconds, time or timestamp.

    Args:
        value: as above; of a folder its keyframes.json, as `wanedit style` writes it; else images that are named as
            those of a source that is a folder too, or by the number of their frame.
        folders: where to look for a relative path after the current folder.
        start: the frame of the source that frame numbers count from; None for not known.
        source: opens the stretch that keyframes are of; called only where times or names must be looked up in it.
        first_number: the number of the source's first frame in names of images: 0, or 1 as FFmpeg counts; None where
            that is not known.

    Raises:
        InputError: an entry is not a path and a frame, its file does not exist, a time lies outside of the source, a
            folder's keyframes.json counts from another frame, or its numbers may count from 0 or 1.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        entries = [_entry(given, k, "frame", *_TIMES) for k, given in enumerate(value)]
    elif (folder := _folder(value, folders)) is not None:
        entries = _of_folder(folder, start, source, first_number)
        if not entries:
            raise InputError(
                f"keyframes: {folder} holds no keyframes; expected edited frames, or another folder"
            )
    else:
        entries, rest = _split(value, folders)
        if rest:
            raise InputError(
                f'keyframes: {rest!r} is no folder and no "a.png:0,b.png:20" of files and frame numbers'
            )
    if not entries:
        raise InputError('no keyframes; expected a folder of edited frames or "a.png:0,b.png:20"')
    found = []
    for k, entry in enumerate(entries):
        timed = _has_point(entry.number) if entry.timed is None else entry.timed
        if timed:
            index, note = _frame_at(_seconds(entry.number, k), k, entry.path, source)
        else:
            index, note = _frame(entry.number, k), entry.note
        found.append((entry.path, index, note))
    return [
        EditedFrame(find_path(path, folders, what=f"keyframe {k}"), index, note)
        for k, (path, index, note) in enumerate(found)
    ]


_TIMES = ("seconds", "time", "timestamp")


def _split(text: str, folders: Sequence[Path]) -> tuple[list[_Entry], str]:
    """The entries of "a.png:0.0,b.png:3.0", and what is left where it cannot be read.

    A path may hold colons and commas: of the places where an entry may end, the first one behind a file that is there.
    """
    entries: list[_Entry] = []
    text = text.strip()
    at, missing = 0, False
    while first := next(ends := _ends(text, at), None):
        # Once a file is missing, which is the error to come, nothing more is looked for.
        there = (end for end in chain([first], ends) if _is_file(text[at : end.start()].strip(), folders))
        end = first if missing else next(there, None)
        missing, end = end is None or missing, end or first
        entries.append(_Entry(text[at : end.start()].strip(), end["number"]))
        at = end.end()
    return entries, text[at:]


def _ends(text: str, start: int) -> Iterator[re.Match[str]]:
    """Where the entry that begins at `start` may end: behind a path, none of which is longer than `LONGEST_PATH`."""
    for end in _NUMBER.finditer(text, start):
        if end.start() - start > LONGEST_PATH:
            return
        if text[start : end.start()].strip():
            yield end


def _is_file(name: str, folders: Sequence[Path]) -> bool:
    try:
        find_path(name, folders, what="")
    except InputError:
        return False
    return True


def _entry(given: object, index: int, *names: str) -> _Entry:
    """One of a list; of a mapping, the number goes by one of `names`."""
    if isinstance(given, Keyframe):
        return _Entry(str(given.path), given.seconds, timed=True)
    if isinstance(given, EditedFrame):
        return _Entry(str(given.path), given.index, timed=False, note=given.note)
    if isinstance(given, dict) and set(given) in ({"path", name} for name in names):
        name = next(name for name in given if name != "path")
        return _Entry(str(given["path"]), given[name], timed=name in _TIMES)
    if isinstance(given, list | tuple) and len(given) == 2:
        if not isinstance(given[0], str | os.PathLike):
            what = "None" if given[0] is None else f"of {type(given[0]).__name__}"
            raise InputError(
                f"keyframe {index} is {what}; expected the path of a picture: save it to a file first"
            )
        return _Entry(str(given[0]), given[1])
    raise InputError(
        f"keyframe {index} is {given!r}; expected the path of a picture and its {names[0]}, "
        f'such as ["a.png", {0.0 if names == _TIMES else 0}]'
    )


def _has_point(number: object) -> bool:
    """Whether a number is written as one that need not be whole."""
    if isinstance(number, str):
        return not number.strip().lstrip("+-").isdecimal()
    return isinstance(number, SupportsFloat) and not isinstance(number, SupportsIndex)


def _seconds(value: object, index: int) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | SupportsFloat):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"keyframe {index}: time is {value!r}; expected seconds") from None


def _frame_at(
    seconds: float, index: int, path: str, source: "Callable[[], OpenedSource] | None"
) -> tuple[int, str | None]:
    """The frame of a source that is nearest to a time, and a note that says so."""
    if source is None:
        raise InputError(
            f"keyframe {index} is at {seconds:g}, which with its decimal point is seconds ({path}); expected a frame "
            "number"
        )
    times = source().times
    if not times[0] <= seconds <= times[-1]:
        raise InputError(
            f"keyframe {index} is at {seconds:g} s ({path}); the source lasts {times[-1]:g} s. A number without a "
            "decimal point is a frame"
        )
    last = len(times) - 2  # behind it stands the end
    after = bisect_left(times, seconds, 0, last)
    frame = min((max(after - 1, 0), after), key=lambda i: abs(times[i] - seconds))
    exact = abs(times[frame] - seconds) < 1e-3
    return frame, None if exact else f"{seconds:g} s is nearest to frame {frame}, at {times[frame]:.4g} s"


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
    path = at_home(text)
    places = [path, *(() if path.is_absolute() else (place / path for place in folders))]
    return next((place for place in places if os.path.isdir(place)), None)


def _timed_images(folder: Path, fps: float, spacing: float, tell: Callable[[str], None]) -> list[_Entry]:
    """The images of a folder and their seconds: by its keyframes.json, else by their names.

    1.5.png and 3s.png are in seconds, 0024.png in frames, as `wanedit edit` reads it. Names that say neither, or count
    one by one as cameras and ffmpeg number pictures, stand `spacing` apart.
    """
    if (folder / KEYFRAMES_JSON).is_file():
        entries = _of_folder(folder)
        record = read_json(folder / KEYFRAMES_JSON, _LISTED)
        if all("seconds" in row for row in record["keyframes"]):  # frames of a video may be unevenly spaced
            tell(f"{folder.name}: times are those of its {KEYFRAMES_JSON}")
            rows = zip(entries, record["keyframes"], strict=True)
            return [_Entry(entry.path, row["seconds"]) for entry, row in rows]
        rate = record.get("fps") or fps
        if type(rate) not in (int, float) or not 0 < rate <= sys.float_info.max:  # JSON has integers beyond
            raise InputError(f"{folder / KEYFRAMES_JSON}: fps is {rate!r}; expected a positive number")
        tell(f"{folder.name}: times are the frames of its {KEYFRAMES_JSON} at {rate:g} fps")
        return [_Entry(entry.path, _frame(entry.number, k) / rate) for k, entry in enumerate(entries)]
    # Picture 10 after picture 9: text and numbers alternate, so that like is compared with like.
    paths = sorted(
        _images(folder),
        key=lambda path: [
            int(part) if k % 2 else part for k, part in enumerate(re.split(r"(\d+)", path.stem))
        ],
    )
    names = [path.stem for path in paths]
    if not paths:
        raise InputError(
            f"keyframes: {folder} holds no pictures and no {KEYFRAMES_JSON}; expected at least two pictures"
        )
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
            f"apart, by name: {', '.join(path.name for path in paths)} (1.5.png or 3s.png would be at "
            "these seconds, 0024.png at this frame)"
        )
    order = sorted(range(len(paths)), key=seconds.__getitem__)
    return [_Entry(str(paths[k]), seconds[k]) for k in order]


def _images(folder: Path) -> list[Path]:
    from wanedit.video.images import suffixes  # brings NumPy, which help does without

    known = suffixes()
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in known and p.name[0] != ".")


def _counts(numbers: Sequence[int]) -> bool:
    """Whether numbers go up by one."""
    return len(numbers) > 1 and all(b - a == 1 for a, b in pairwise(numbers))


def _of_folder(
    folder: Path,
    start: int | None = None,
    source: "Callable[[], OpenedSource] | None" = None,
    first_number: int | None = None,
) -> list[_Entry]:
    record = folder / KEYFRAMES_JSON
    if not record.is_file():
        images = _images(folder)
        clip = None if source is None else source()
        if clip is not None and clip.path.is_dir():
            return _by_name(folder, images, clip)
        return _by_number(folder, images, first_number)
    values = read_json(record, _LISTED)
    with reading(record, _LISTED):
        entries = [(str(entry["file"]), entry["frame"]) for entry in values["keyframes"]]
    try:
        for k, (_, frame) in enumerate(entries):
            _frame(frame, k)
    except InputError as error:
        told = InputError(f"{record}: {error}")
        # The line joins the error where the file can be read as YAML too, which JSON with tabs cannot.
        with suppress(InputError), told_where([read_lines(record)]):
            raise told from None
        raise told from None
    # A folder is passed on between people: what it names must not reach other files of the machine.
    outside = [name for name, _ in entries if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise InputError(f"{record} names {outside[0]!r}; expected files inside {record.parent}")
    made = values.get("start")
    if start is not None and made not in (None, start):
        raise InputError(f"{record}: keyframes were made with --start {made}; expected the same, not {start}")
    return [_Entry(str((record.parent / name).absolute()), frame, timed=False) for name, frame in entries]


def _by_name(folder: Path, images: Sequence[Path], clip: "OpenedSource") -> list[_Entry]:
    """Keyframes of a source that is a folder of images too: each belongs to the image of its name."""
    from wanedit.video.images import list_images

    frames = {image.stem: number for number, image in enumerate(list_images(clip.path))}
    strangers = [image.name for image in images if image.stem not in frames]
    if strangers:
        raise InputError(
            f"{folder}: {strangers[0]} has the name of no image in {clip.path}, whose frames these keyframes are of; "
            'expected the same names, or pairs "a.png:0,b.png:20"'
        )
    placed = sorted((frames[image.stem] - clip.start, image) for image in images)
    return [
        _Entry(str(image.absolute()), frame, timed=False, note=f"taken as frame {frame}, by its name")
        for frame, image in placed
    ]


def _by_number(folder: Path, images: Sequence[Path], first_number: int | None) -> list[_Entry]:
    unnamed = [p.name for p in images if not p.stem.isdecimal()]
    if unnamed:
        raise InputError(
            f"{folder} has no {KEYFRAMES_JSON} and an image {unnamed[0]}; expected names that are frame numbers, "
            "such as 0020.png"
        )
    numbered = sorted((int(image.stem), image) for image in images)
    first = numbered[0][0] if numbered else 0
    if first == 1 and first_number is None:
        raise InputError(
            f"{folder} begins with {numbered[0][1].name}: the first frame, as FFmpeg numbers them, or the second? Say "
            "which with first_number, 1 or 0"
        )
    if first < (first_number or 0):
        raise InputError(f"{folder}: {numbered[0][1].name} comes before first_number, {first_number}")
    entries = []
    for number, image in numbered:
        frame = number - (first_number or 0)
        # Without the first picture nothing tells from where the names count.
        unsure = first > 0 and first_number is None
        note = (
            f"taken as frame {frame}, counted from 0 (first_number 1 counts as FFmpeg does)"
            if unsure
            else None
        )
        entries.append(_Entry(str(image.absolute()), frame, timed=False, note=note))
    return entries
