"""Files as bytes: one exists only if it is complete, and is known by its SHA-256, as settings are."""

import errno
import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, ResourceError

# An object of a JSON or YAML file; whoever takes it checks its entries.
Json = dict[str, Any]
PARTIAL_SUFFIX = ".partial"

# What to do about what the system refuses, by errno; anything else is a disk or a network that fails.
_MAKE_ROOM = "make room and run again; what is finished stays"
_ALLOW = "allow it, or choose another output"
_ALLOW_MORE = "allow more at a time (ulimit -n) and run again; what is finished stays"
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ALLOW),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _ALLOW_MORE),
}
# Of a name that cannot be that of a file, whatever the disk.
WRONG_NAME = {errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}


class OnDisk(os.PathLike[str]):
    """Base of results that are used as the path of what they made: `open(result)`, `Path(result)`, `print(result)`.

    Made into a dataclass with `repr=False`, or pixels and hashes would fill the screen.
    """

    @abstractmethod
    def __fspath__(self) -> str:
        """What a person opens first."""

    def __str__(self) -> str:
        return os.fspath(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({os.fspath(self)!r})"


@contextmanager
def system_errors(path: Path | None = None) -> Iterator[None]:
    """Tell what the system refuses inside the block as an error of ours: which file, why, and what to do.

    Every job is such a block, or is decorated with one; so are places that know the file better than its OSError.

    Args:
        path: the file that is written in the block, for errors that name none or its temporary one.

    Raises:
        InputError: a name that cannot be one there.
        ResourceError: anything else, from a full disk to one that fails.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # whoever read our output left, see cli.main
    except OSError as error:
        if error.errno is None:
            raise  # not from the system: a library's own
        named = None if error.filename is None else str(error.filename)
        if named is None or named.endswith(PARTIAL_SUFFIX):
            named = path or named or "a file"
        why = os.strerror(error.errno)
        if error.errno in WRONG_NAME:
            raise InputError(f"{named}: {why}; choose another path") from error
        advice = _ADVICE.get(error.errno, "see what is wrong there and run again; what is finished stays")
        raise ResourceError(f"{named}: {why}; {advice}") from error


def is_refused(error: Exception) -> bool:
    """Whether a file could not be opened for another reason than what it holds.

    EIO is no such reason: FFmpeg says it of damaged files, too. Who reads one again meets the disk's own.
    """
    return isinstance(error, OSError) and error.errno in _ADVICE


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A file that is gone after the block, if it is there; that it cannot be removed hides no error of the block."""
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success sync it and rename it to `path`.

    On any exception before the rename the temporary file is removed and `path` is what it was before. A process that is
    killed leaves `.<name>.<pid>.partial`, never a wrong `path`.

    Raises:
        InputError: the folder does not exist, or `path` is a folder.
        ResourceError: as `system_errors`.
    """
    target = Path(os.path.abspath(path))
    # A hidden name in the same folder: a rename within one file system is the only one that is atomic.
    partial = target.with_name(f".{target.name[:60]}.{os.getpid()}{PARTIAL_SUFFIX}")
    with system_errors(target), temporary(partial):
        if not target.parent.is_dir():
            raise InputError(f"{target}: the folder {target.parent} does not exist")
        if target.is_dir():
            raise InputError(f"{target} is a folder, expected the name of a file to write")
        yield partial
        _sync(partial)
        os.replace(partial, target)
        if os.name != "nt":  # Windows cannot open a folder, and commits renames by itself
            _sync(target.parent)


def drop_partials(folder: Path) -> None:
    """Remove what writers that were killed left half-written in a folder: what others call partial is theirs."""
    for partial in folder.glob(f".*.[0-9]*{PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace a text file; raises as `atomic_path`."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_line(path: Path, line: str, synced: bool = False) -> None:
    """Add a line to a text file, in one write: those of several processes are not mixed.

    A line that a kill or a full disk left without its end is ended first, never continued.

    Args:
        synced: return once it is on disk.

    Raises:
        InputError, ResourceError: as `system_errors`.
    """
    with system_errors(path), path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
        ended = file.read(1) in (b"", b"\n")
        file.write((b"" if ended else b"\n") + line.encode() + b"\n")
        if synced:
            file.flush()
            os.fsync(file.fileno())


def texts(value: object) -> Iterator[str]:
    """All texts among plain values, however deep."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(values: Mapping[str, object]) -> str:
    """SHA-256 of a JSON object, whatever the order of its names.

    Raises:
        ValueError, TypeError: a number that is not finite, or a value that JSON does not have.
    """
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A file's name that is no UTF-8 reaches Python as lone surrogates, which a strict encoder refuses.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
