"""Files as bytes: one exists only if it is complete, and is known by its SHA-256, as settings are."""

import errno
import hashlib
import json
import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, ResourceError

# An object of a JSON or YAML file; whoever takes it checks its entries.
Json = dict[str, Any]
PARTIAL_SUFFIX = ".partial"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}


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
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success sync it and rename it to `path`.

    On any exception the temporary file is removed and `path` is what it was before. A process that is killed
    leaves `.<name>.<pid>.partial`, never a wrong `path`.

    Raises:
        InputError: the folder does not exist, or may not be written, or `path` is a folder.
        ResourceError: the disk is full, over quota, or over the file size limit.
    """
    target = Path(os.path.abspath(path))
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist")
    if target.is_dir():
        raise InputError(f"{target} is a folder, expected the name of a file to write")
    # A hidden name in the same folder: a rename within one file system is the only one that is atomic.
    partial = target.with_name(f".{target.name[:60]}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, target)
        if os.name != "nt":  # Windows cannot open a folder, and commits renames by itself
            _sync(target.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(
                f"{target}: not written, {os.strerror(error.errno)}; nothing half-written is left"
            ) from error
        if error.errno in _REFUSED:
            raise InputError(f"{target}: cannot be written, {os.strerror(error.errno)}") from error
        raise
    finally:
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
