"""A disk that fails: calls to the file system are counted, in process, and any of them can be made to fail.

What a job calls under Python goes through `os`, `fcntl`, `io.open` and `av.open`, which are replaced while a `Disk` is
in use. What FFmpeg itself writes does not: for that `room` has the kernel refuse bytes beyond a limit.

EINTR is not among the faults: Python calls again by itself, and no program sees it (PEP 475).
"""

import builtins
import errno
import fcntl
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import av
from av.error import err_check


class Call(NamedTuple):
    """What was asked of the file system, and of which file."""

    name: str
    path: str


@dataclass(frozen=True)
class Fault:
    """What goes wrong: an errno, for which calls, and what fails after the first one.

    Attributes:
        lasting: whether all such calls that follow fail, too; those to the same file do so whenever `sticks`.
    """

    number: int
    calls: frozenset[str]
    lasting: bool = False
    sticks: bool = False


CHANGES = frozenset({"create", "write", "truncate", "rename", "mkdir"})
REMOVES = frozenset({"unlink", "rmdir"})
READS = frozenset({"open", "scandir", "stat"})
FAULTS = {
    "full": Fault(errno.ENOSPC, CHANGES | {"fsync"}, lasting=True),
    "broken": Fault(errno.EIO, CHANGES | REMOVES | READS | {"fsync", "lock"}, sticks=True),
    "refused": Fault(errno.EACCES, (CHANGES | REMOVES | READS) - {"write", "truncate"}, sticks=True),
    # Cleaning up fails, too.
    "read-only": Fault(errno.EROFS, CHANGES | REMOVES, lasting=True),
    "too many open": Fault(errno.EMFILE, frozenset({"create", "open", "scandir"})),
}
# Name of a call -> the functions of `os` that make it.
OF_OS = {
    "write": ["write"],
    "fsync": ["fsync"],
    "rename": ["rename", "replace"],
    "unlink": ["unlink", "remove"],
    "rmdir": ["rmdir"],
    "mkdir": ["mkdir"],
    "truncate": ["truncate", "ftruncate"],
    "scandir": ["scandir", "listdir"],
    "stat": ["stat", "lstat"],
}


class Disk:
    """Counts the calls below some folders while it is in use, as a context manager.

    Args:
        folders: whose files are meant.
        fault, at: which call fails, counted from 0, and how; None to count only.
    """

    def __init__(self, *folders: Path, fault: Fault | None = None, at: int = 0) -> None:
        self.roots = tuple(f"{folder}{os.sep}" for folder in folders)
        self.fault, self.at = fault, at
        self.calls: list[Call] = []
        self.failed: list[Call] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Disk":
        replace = lambda place, name, to: self._stack.enter_context(mock.patch.object(place, name, to))  # noqa: E731
        for call, names in OF_OS.items():
            for name in names:
                replace(os, name, self._counted(call, getattr(os, name)))
        replace(os, "open", self._os_open(os.open))
        replace(fcntl, "flock", self._counted("lock", fcntl.flock))
        for place in (io, builtins):
            replace(place, "open", partial(self._open, io.open))
        replace(av, "open", self._av_open(av.open))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def meet(self, name: str, file: object, raiser: Callable[[int, str], object] | None = None) -> None:
        """Count a call, and raise where it is to fail."""
        # A descriptor's own path; what it raises names no file, as with the real calls.
        file = file.fileno() if isinstance(file, io.IOBase) else file
        known = not isinstance(file, int)
        try:
            path = os.path.abspath(os.fsdecode(file)) if known else os.readlink(f"/proc/self/fd/{file}")  # pyright: ignore[reportArgumentType]
        except OSError:
            return
        if not f"{path}{os.sep}".startswith(self.roots):
            return
        index, call, fault = len(self.calls), Call(name, path), self.fault
        self.calls.append(call)
        if fault is None or name not in fault.calls or index < self.at:
            return
        if index == self.at or fault.lasting or (fault.sticks and path == self.failed[0].path):
            self.failed.append(call)
            if raiser is not None:
                raiser(fault.number, path)
            raise OSError(fault.number, os.strerror(fault.number), *([path] if known else []))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def counted(file: Any = ".", *arguments: Any, **named: Any) -> Any:
            # A name beside a folder's descriptor, as shutil.rmtree has it.
            folder = named.get("dir_fd")
            inside = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
            self.meet(name, file if folder is None else os.path.join(inside, os.fsdecode(file)))
            return function(file, *arguments, **named)

        return counted

    def _os_open(self, function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def opened(file: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if named.get("dir_fd") is None:
                self.meet("create" if flags & (os.O_WRONLY | os.O_RDWR) else "open", file)
            return function(file, flags, *arguments, **named)

        return opened

    def _open(
        self,
        function: Callable[..., Any],
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        *rest: Any,
        **named: Any,
    ) -> Any:
        """`open`, whose file is written by calls of its own. What the buffer holds is written when it is full, when it
        is flushed, and when the file is closed."""
        changes = set(mode) & set("wax+")
        self.meet("create" if changes else "open", file)
        if not changes or isinstance(file, int):
            return function(file, mode, buffering, *rest, **named)
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""), named.pop("opener", None))
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        names = ("encoding", "errors", "newline")
        return io.TextIOWrapper(buffer, **(dict(zip(names, rest, strict=False)) | named))

    def _av_open(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def opened(file: Any, mode: str | None = None, *arguments: Any, **named: Any) -> Any:
            if isinstance(file, str | os.PathLike):
                self.meet("create" if mode == "w" else "open", file, lambda n, path: err_check(-n, path))
            return function(file, mode, *arguments, **named)

        return opened


class _Raw(io.FileIO):
    def __init__(self, disk: Disk, file: Any, mode: str, opener: Any) -> None:
        super().__init__(file, mode, opener=opener)
        self.disk = disk

    def write(self, data: Any, /) -> int:
        try:
            self.disk.meet("write", self.fileno())
        except OSError:
            super().write(data[: len(data) // 2])  # as much as went before
            raise
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        self.disk.meet("truncate", self.fileno())
        return super().truncate(size)


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes: beyond it every write fails with EFBIG, in whatever library."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
