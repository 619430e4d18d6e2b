"""One command for many videos: what is read from its list or its folder, and what a job must offer so that each of them
is a run of its own in a pool."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from wanedit.errors import InputError
from wanedit.files import Json, at_home, read_yaml
from wanedit.runtime.inputs import RECORDS
from wanedit.runtime.settings import canonical

LISTS = (".yaml", ".yml", ".json")
# Of files that are taken for films in a folder of many.
FILMS = (
    ".mp4",
    ".mkv",
    ".mov",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mxf",
    ".y4m",
    ".ivf",
    ".ogv",
)


@dataclass(frozen=True)
class Found:
    """What a job found of one of many before anything is made.

    Attributes:
        inputs: all files and folders that it reads.
        decides: what decides its result besides them and its settings, as JSON has it.
        cost: how long it may take beside the others, in any unit.
    """

    inputs: Sequence[Path]
    decides: Mapping[str, Any]
    cost: float = 0.0


@runtime_checkable
class Kind(Protocol):
    """The module `wanedit.jobs.<job>.many`."""

    ENDING: str  # of the output of one: "" for a folder
    EACH: tuple[
        str, ...
    ]  # settings that may be a folder in which each video has a file or folder of its name
    RUNS: bool  # whether it also takes finished runs, by the setting `run`

    def find(self, values: Json, folders: Sequence[Path]) -> Found:
        """Refuse what can be refused before anything is made. Raises as the job."""
        ...

    def make(self, values: Json, folders: Sequence[Path], gpu: int | None) -> dict[str, float]:
        """Make one; returns the numbers of its line in the table. Raises as the job."""
        ...


def listed(source: object, kind: Kind, folders: Sequence[Path] = ()) -> tuple[list[Json], list[Path]] | None:
    """The settings of each of many, `name` among them, over those of the command, and the folders where relative paths
    of theirs are looked up; None for a source that is one video.

    Args:
        source: a .yaml or .json file with a list of settings; or a folder that holds no picture of its own, but films,
            folders of pictures or, for a job that takes them, runs.
        folders: those of the command.

    Raises:
        InputError: a list that is none, or two of one name.
    """
    if not isinstance(source, str) or not source or "\0" in source:
        return None
    given = at_home(source)
    path = next((one for one in (given, *(folder / given for folder in folders)) if one.exists()), given)
    if path.suffix.lower() in LISTS and path.is_file():
        entries = _entries(path)
    elif path.is_dir():
        entries = _inside(path, kind)
    else:
        return None
    if entries is None:
        return None
    names = [entry["name"] for entry in entries]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise InputError(f"{path} has {twice!r} twice; expected a `name` of its own for each")
    # The current folder too, for a process that is started elsewhere.
    return entries, [*(folder.absolute() for folder in (*folders, path.parent)), Path.cwd()]


def _entries(path: Path) -> list[Json]:
    expected = "a list of settings, one entry for each video"
    values = read_yaml(path, expected)
    if not isinstance(values, list) or not values or not all(isinstance(one, dict) for one in values):
        raise InputError(f"{path}: holds no list of settings; expected {expected}")
    entries = []
    for place, one in enumerate(values):
        entry = canonical(one)
        what = next((entry[name] for name in ("name", "video", "run") if entry.get(name)), None)
        if not isinstance(what, str):
            raise InputError(f"{path}: entry {place + 1} has no video; expected one, or a run")
        name = entry.get("name") or _stem(Path(what))
        entries.append(entry | {"name": _checked(name, path)})
    return entries


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() in FILMS else path.name


def _checked(name: object, path: Path) -> str:
    # It is that of a folder beside `runs`, where the outcomes stand.
    if not isinstance(name, str) or Path(name).name != name or name.startswith(".") or name == "runs":
        raise InputError(f"{path}: the name {name!r} is no folder's; expected another `name`")
    return name


def _inside(folder: Path, kind: Kind) -> list[Json] | None:
    from wanedit.video.images import suffixes

    shown = sorted(one for one in folder.absolute().iterdir() if not one.name.startswith("."))
    if any(one.is_file() and one.suffix.lower() in suffixes() - {".gif"} for one in shown):
        return None
    entries: list[Json] = []
    for one in shown:
        if one.is_dir() and any((one / record).is_file() for record in RECORDS):
            entries += [{"run": str(one), "name": _checked(one.name, folder)}] if kind.RUNS else []
        elif one.is_dir():
            if any(picture.suffix.lower() in suffixes() for picture in one.iterdir()):
                entries.append({"video": str(one), "name": _checked(one.name, folder)})
        elif one.suffix.lower() in FILMS:
            entries.append({"video": str(one), "name": _checked(one.stem, folder)})
    return entries or None


def its_own(setting: str, given: object, name: str, folders: Sequence[Path]) -> object:
    """What is given for all, of which the one of a name has its own where that is a folder of such.

    Raises:
        InputError: the folder has some, and none of this name.
    """
    if not isinstance(given, str) or not given or "\0" in given:
        return given
    path = at_home(given)
    places = (one for one in (path, *(folder / path for folder in folders)) if one.is_dir())
    if (place := next(places, None)) is None:
        return given
    own = [one for one in sorted(place.iterdir()) if name in (one.name, one.stem)]
    if len(own) == 1:
        return str(own[0].absolute())
    has = "several of the name" if own else "none of the name"
    raise InputError(
        f"{setting}: {place} has {has} {name!r}; expected one file or folder of that name for each video"
    )
