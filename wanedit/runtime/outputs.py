"""What a command may write over: what wanedit itself wrote, and nothing that the command reads."""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from wanedit import __version__
from wanedit.errors import InputError
from wanedit.files import WRONG_NAME, at_home, is_there, read_json, reading, system_errors
from wanedit.video.formats import FORMATS, own_names

MADE_WITH = "wanedit"
_FRAMES = "wanedit_frames"
REPORT_NAME = "report.html"
# What our text files begin with, or hold in their head.
RECORD_MARK = "# Recorded by wanedit: the resolved configuration of this folder's run.\n"
_PAGE_MARK = '<meta name="generator" content="wanedit'
LOG_MARK = "# Written by wanedit: what the processes of this folder's run said.\n"
_MARKS = {".yaml": RECORD_MARK, ".html": _PAGE_MARK, ".htm": _PAGE_MARK, ".log": LOG_MARK}


def check_outputs(written: Iterable[Path], inputs: Iterable[Path] = (), recorded: bool = False) -> None:
    """See that files can be written and that none of another origin and no input would be replaced, before anything is
    made.

    Args:
        written: all files that the command will write, there already or not.
        inputs: all that it reads.
        recorded: whether a record beside the files says that wanedit wrote them. Of films the metadata counts alone:
            they are what people put in each other's place.

    Raises:
        InputError: naming the file.
    """
    written = list(written)
    for path in written:
        require_writable(path)
    require_apart(written, inputs)
    for path in filter(is_there, written):
        if path.is_dir():
            raise InputError(f"output {path} is a folder; expected the name of a file to write")
        vouched = recorded and path.suffix.lower() not in FORMATS
        # A link would be replaced, not followed, and a pipe is empty: wanedit makes neither.
        ours = not path.is_symlink() and path.is_file() and (vouched or is_own(path))
        # What another worker of the run has put elsewhere meanwhile is nobody's.
        if not ours and is_there(path):
            raise InputError(
                f"output {path} was not written by wanedit and would be replaced; choose another output, or move it "
                "away"
            )


def require_writable(path: Path) -> None:
    """Raise as `system_errors` where no file of this name, or none of its missing folders, could be made. Leaves no
    trace."""
    whole = path.absolute()
    if not whole.name:
        raise InputError(f"output {path} is a folder; expected the name of a file to write")
    place = next(folder for folder in whole.parents if os.path.lexists(folder))
    missing = whole.relative_to(place).parts
    with system_errors():
        try:
            # Tried, since permissions tell neither of /proc nor of a disk that may only be read.
            with TemporaryFile(dir=place):
                pass
            for part in missing:
                with suppress(FileNotFoundError):
                    os.lstat(place / part)  # raises for a name that is too long there
        except OSError as error:
            error.filename = place / missing[0]  # not the one that was tried
            if error.errno not in WRONG_NAME:
                raise
            raise InputError(
                f"output {error.filename} cannot be written: {error.strerror}; choose another output"
            ) from None


def require_apart(written: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise InputError where a file to be written is one that is read, under whatever name."""
    used = {_identity(path) for path in inputs} - {None}
    for path in written:
        if _identity(path) in used:
            raise InputError(f"output {path} is also an input; expected another output")


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for every name of one file; None where there is none, as of one that its writer has just renamed."""
    try:
        found = path.stat()
    except ValueError:  # for a zero byte, which is in no name
        return None
    except OSError as error:
        if error.errno not in WRONG_NAME:
            raise
        return None
    return found.st_dev, found.st_ino


def page_file(output: str | Path) -> Path:
    """Where a page is written. Raises InputError for another ending than .html, and as `check_outputs`."""
    path = at_home(output)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"output is {path.name!r}; expected the name of an .html file")
    check_outputs([path])
    return path


def film_metadata(frames: int) -> dict[str, str]:
    """What a film of so many frames says of itself, by which `is_own` knows it."""
    return {"comment": "made with wanedit", "wanedit_version": __version__, _FRAMES: str(frames)}


def is_own(path: Path) -> bool:
    """Whether a file says itself that wanedit wrote it; an empty one has nothing to lose, nor has one that is gone."""
    ending = path.suffix.lower()
    with suppress(InputError), reading(path, "a file of wanedit's"):
        if path.stat().st_size == 0:
            return True
        if ending in FORMATS:
            return _film_is_own(path)
        if ending == ".png":
            from wanedit.video.encode import png_is_own

            return png_is_own(path)
        if mark := _MARKS.get(ending):
            with path.open("rb") as file:
                return mark.encode() in file.read(4096)
        if ending == ".json":
            values = read_json(path, "a record of wanedit")
            # A list of versions that somebody keeps names wanedit too, and nothing but texts.
            return _names_version(values) and any(isinstance(part, dict | list) for part in values.values())
        if ending == ".jsonl":
            with path.open(encoding="utf-8") as file:
                return _names_version(json.loads(file.readline()))
    return not is_there(path)


def _names_version(values: object) -> bool:
    """Whether a JSON value is an object that says which version of wanedit wrote it."""
    return isinstance(values, dict) and bool(re.match(r"\d+\.\d", str(values.get(MADE_WITH))))


def _film_is_own(path: Path) -> bool:
    import av

    with path.open("rb") as file:
        file.read(1)  # what the disk refuses tells nothing of who wrote the file
    # An absolute path, since 'a:b.mp4' would be read as protocol 'a'.
    with av.open(str(path.absolute()), container_options={"protocol_whitelist": "file"}) as film:
        names = own_names(dict(film.metadata))
    if not (any(name.startswith(MADE_WITH) for name in names) or MADE_WITH in names.get("comment", "")):
        return False
    # What another program cuts out of a film of ours keeps the words.
    from wanedit.video.decode import index_of

    return _FRAMES not in names or names[_FRAMES] == str(index_of(path).frames)
