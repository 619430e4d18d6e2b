"""The folder of one run: where its files are, and that one living run at a time owns it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from wanedit.errors import InputError, ResourceError
from wanedit.video.atomic import PARTIAL_SUFFIX, atomic_path


class RunDirectory:
    """Paths of a run. Nothing is created before `prepare`.

    Args:
        root: the run's folder.
        final: the finished video inside it.
    """

    def __init__(self, root: Path, final: Path) -> None:
        self.root = root
        self.lock_descriptor = -1
        self.final = final
        self.segments = root / "segments"
        self.progress = self.segments / "progress.json"
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.jsonl"
        self.contact_sheet = root / "contact_sheet.png"
        self.junctions = root / "junctions.png"
        self.folders = (root, self.segments)

    def prepare(self) -> None:
        """Create the folders and drop what a killed run left half-written.

        Raises:
            InputError: the folder cannot be created or written to.
        """
        for folder in self.folders:
            _create(folder)
            for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
                partial.unlink(missing_ok=True)

    def inside(self, name: str) -> Path:
        """A path in the segments folder for a name that was read from a file.

        Raises:
            InputError: the name is a path, which could lead out of the folder.
        """
        if Path(name).name != name or name in ("", ".", ".."):
            raise InputError(
                f"{self.progress} names the file {name!r}; expected a plain name inside {self.segments}"
            )
        return self.segments / name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Own the folder until the block ends or the process dies, whichever comes first.

        A child that inherits `lock_descriptor` owns it too, until it ends.

        Raises:
            InputError: the folder cannot be created or written to.
            ResourceError: another living run owns it; the message says which.
        """
        _create(self.root)
        with _opened(self.root / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise ResourceError(
                    f"{self.root} is in use by {owner}; wait for it, or choose another output"
                ) from None
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            self.lock_descriptor = file.fileno()
            yield


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output {folder}: {os.strerror(error.errno or 0)}") from None


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a+")
    except OSError as error:
        raise InputError(f"output {path.parent}: {os.strerror(error.errno or 0)}") from None


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")
