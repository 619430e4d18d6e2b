"""segments/progress.json: which segments are complete, by the hash of all that decides their pixels."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wanedit.errors import InputError
from wanedit.files import file_sha256
from wanedit.runtime.directory import RunDirectory, write_text

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A complete segment.

    Attributes:
        file: name inside the segments folder.
        file_sha256: of that file; a segment whose file is another is sampled again.
        latents_sha256: of the float32 bytes of the latents; equal for equal inputs on any number of ranks.
        seconds: wall time of sampling and decoding.
    """

    index: int
    file: str
    file_sha256: str
    frames: int
    latents_sha256: str
    seconds: float
    rank: int


def segment_file(index: int, name: str) -> str:
    """File name of a segment: its place in the chain, and enough of its hash to tell versions apart."""
    return f"segment_{index:03d}_{name[:12]}.mkv"


class Manifest:
    """The journal of a run, safe under several ranks: read, changed and replaced under a lock."""

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    def read(self) -> dict[str, Entry]:
        """Complete segments by digest.

        Raises:
            InputError: the file is no journal of this version.
        """
        path = self.directory.progress
        if not path.exists():
            return {}
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["version"] != VERSION:
                raise ValueError(f"version {values['version']}")
            entries = {name: Entry(**entry) for name, entry in values["segments"].items()}
            if not all(isinstance(entry.file, str) for entry in entries.values()):
                raise ValueError("a file name is not text")
            return entries
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is no journal of wanedit ({error}); move it away to start afresh"
            ) from None

    def record(self, name: str, entry: Entry) -> None:
        """Add one complete segment. Its file must already be in place."""
        with self._locked():
            entries = self.read() | {name: entry}
            self._write(entries)

    def forget(self, names: set[str]) -> None:
        """Take segments out of the journal, so that they are sampled anew."""
        if not names:
            return
        with self._locked():
            self._write({name: entry for name, entry in self.read().items() if name not in names})

    def complete(self, names: list[str], with_latents: bool = False) -> set[str]:
        """Those of `names` whose file is there, byte for byte as journalled, and its latents if asked."""
        entries, found = self.read(), set()
        for name in names:
            entry = entries.get(name)
            if entry is None:
                continue
            path = self.directory.inside(entry.file)
            # A method of pixels has no latents to keep.
            lacking = with_latents and entry.latents_sha256 != ""
            if lacking and not path.with_suffix(".safetensors").is_file():
                continue
            if path.is_file() and file_sha256(path) == entry.file_sha256:
                found.add(name)
        return found

    def path(self, name: str) -> Path:
        """The file of a complete segment."""
        return self.directory.inside(self.read()[name].file)

    def _write(self, entries: dict[str, Entry]) -> None:
        values = {"version": VERSION, "segments": {name: asdict(entry) for name, entry in entries.items()}}
        write_text(self.directory.progress, json.dumps(values, indent=1) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.directory.segments / ".progress.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
