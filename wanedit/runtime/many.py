"""One command for many videos: what is read from its list or its folder, and what a job must offer so that each of them
is a run of its own in a pool."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from wanedit.errors import InputError
from wanedit.files import Json, at_home, read_yaml, system_errors
from wanedit.runtime.inputs import RECORDS
from wanedit.runtime.settings import canonical

LISTS = (".yaml", ".yml", ".json")
# What stands in the folder of all beside the one of each.
TAKEN = ("runs", "slurm", "config.yaml", "metrics.jsonl", "runs.csv")
# Of files that are taken for films in a folder of many.
FILMS = (
    ".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".mxf", ".y4m", ".ivf",
    ".ogv", ".wmv", ".flv", ".3gp",
)  # fmt: skip


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


def listed(
    source: object,
    kind: Kind,
    folders: Sequence[Path] = (),
    output: object = None,
    tell: Callable[[str], None] = lambda note: None,
) -> tuple[list[Json], list[Path]] | None:
    """The settings of each of many, `name` among them, over those of the command, and the folders where relative paths
    of theirs are looked up; None for a source that is one video.

    Args:
        source: a .yaml or .json file with a list of settings; or a folder that holds no picture of its own, but films,
            folders of pictures or, for a job that takes them, runs.
        folders: those of the command.
        output: where theirs goes, which is none of them; it may lie in their folder.
        tell: told what of a folder is left out.

    Raises:
        InputError: a list that is none, a folder that holds nothing of these, or films and pictures; two of one name;
            or an output that is the folder itself.
        ResourceError: a folder may not be read.
    """
    if not isinstance(source, str) or not source or "\0" in source:
        return None
    given = at_home(source)
    # os.path, because a name that is too long for a file is not there, which pathlib raises instead.
    places = (one for one in (given, *(folder / given for folder in folders)) if os.path.exists(one))
    path = next(places, None)
    if path is None:
        return None
    if path.suffix.lower() in LISTS and path.is_file():
        entries = _entries(path)
    elif path.is_dir():
        apart = at_home(output).resolve() if isinstance(output, str) and "\0" not in output else None
        with system_errors(path):
            entries = _inside(path, kind, apart, tell)
    else:
        return None
    if entries is None:
        return None
    names = [entry["name"] for entry in entries]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise InputError(f"{path} has {twice!r} twice; expected a list with a `name` of its own for each")
    # The current folder too, for a process that is started elsewhere.
    return entries, [*(folder.absolute() for folder in (*folders, path.parent)), Path.cwd()]


def _entries(path: Path) -> list[Json]:
    expected = "a list of settings, such as `- {video: a.mp4, prompt: words}` for each video"
    values = read_yaml(path, expected)
    if not isinstance(values, list) or not values or not all(map(_is_settings, values)):
        hint = f". Settings of one are given by --config {path}" if isinstance(values, dict) else ""
        raise InputError(f"{path}: holds no list of settings; expected {expected}{hint}")
    entries = []
    for place, one in enumerate(values):
        try:
            entry = canonical(one)
        except InputError as error:
            raise InputError(f"{path}: entry {place + 1}: {error}") from None
        what = next((entry[name] for name in ("video", "run") if entry.get(name)), None)
        if not isinstance(what, str):
            raise InputError(f"{path}: entry {place + 1} has no video; expected one, or a run")
        name = _stem(Path(what)) if entry.get("name") is None else entry["name"]
        entries.append(entry | {"name": checked_name(name, path)})
    return entries


def _is_settings(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _stem(path: Path) -> str:
    return path.stem if path.suffix.lower() in FILMS else path.name


def checked_name(name: object, path: Path) -> str:
    """That of one of many, of which its folder has the name. Raises InputError, naming the list, where none can."""
    if not isinstance(name, str) or name in ("", *TAKEN) or Path(name).name != name or name.startswith("."):
        raise InputError(
            f"{path}: the name {name!r} is no folder's beside {', '.join(TAKEN)}; expected another `name`"
        )
    return name


def _inside(folder: Path, kind: Kind, apart: Path | None, tell: Callable[[str], None]) -> list[Json] | None:
    from wanedit.video.images import suffixes

    hidden = {apart.name} if apart is not None and apart.parent == folder.resolve() else set[str]()
    shown = sorted(
        one for one in folder.absolute().iterdir() if not one.name.startswith(".") and one.name not in hidden
    )
    pictures = [one.name for one in shown if one.is_file() and one.suffix.lower() in suffixes()]
    films = [one.name for one in shown if one.is_file() and one.suffix.lower() in FILMS]
    if pictures and films:
        raise InputError(
            f"video: {folder} holds pictures ({_some(pictures)}), as of one video, and films ({_some(films)}); "
            "expected one of both"
        )
    if pictures:
        return None
    entries: list[Json] = []
    for one in shown:
        if one.is_dir() and any((one / record).is_file() for record in RECORDS):
            entries += [{"run": str(one), "name": checked_name(one.name, folder)}] if kind.RUNS else []
        elif one.is_dir():
            if any(picture.suffix.lower() in suffixes() for picture in one.iterdir()):
                entries.append({"video": str(one), "name": checked_name(one.name, folder)})
        elif one.suffix.lower() in FILMS:
            entries.append({"video": str(one), "name": checked_name(one.stem, folder)})
    kinds = "films, folders of pictures or runs" if kind.RUNS else "films or folders of pictures"
    if not entries:
        held = f"none but {_some([one.name for one in shown])}" if shown else "nothing"
        raise InputError(f"video: {folder} holds {held}; expected the pictures of one video, or {kinds}")
    if apart is not None and apart.is_dir() and apart.samefile(folder):
        raise InputError(f"output {apart} is also the folder of the videos; expected another output")
    taken = {Path(entry.get("video") or entry["run"]).name for entry in entries}
    if left := [one.name for one in shown if one.name not in {*taken, *TAKEN}]:
        tell(f"left out of {folder}, since they are no {kinds}: {_some(left)}")
    return entries


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def its_own(setting: str, given: object, name: str, folders: Sequence[Path]) -> object:
    """What is given for all, of which the one of a name has its own where that is a folder of such.

    Raises:
        InputError: the folder has some, and none of this name.
    """
    if not isinstance(given, str) or not given or "\0" in given:
        return given
    path = at_home(given)
    places = (one for one in (path, *(folder / path for folder in folders)) if os.path.isdir(one))
    if (place := next(places, None)) is None:
        return given
    with system_errors(place):
        own = [one for one in sorted(place.iterdir()) if name in (one.name, one.stem)]
    if len(own) == 1:
        return str(own[0].absolute())
    has = "several of the name" if own else "none of the name"
    raise InputError(
        f"{setting}: {place} has {has} {name!r}; expected one file or folder of that name for each video"
    )
