"""What a run's folder holds that the run, as it was last started, has no use for."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wanedit.errors import InputError
from wanedit.runtime.directory import SEGMENT_FILE, Manifest, RunDirectory
from wanedit.runtime.events import read_events
from wanedit.runtime.outputs import is_own
from wanedit.runtime.workers import ERROR_FILE, LOG_FILE


@dataclass(frozen=True)
class Leftover:
    """A file that may go.

    Attributes:
        why: of earlier settings; in no journal; half-written; a picture of what was stopped; of workers that failed.
        size: bytes.
    """

    path: Path
    why: str
    size: int


def leftovers(directory: RunDirectory, digests: Iterable[str]) -> list[Leftover]:
    """The files of a run's folder that wanedit wrote and that a run of these segments does not need.

    Args:
        digests: of the segments of the run, or of its one edit; of a segment that was sampled several times that of
            take 0 stands for all.

    Raises:
        InputError: the journal cannot be read.
    """
    journal, needed = Manifest(directory).read(), set(digests)
    known = {entry.file: name in needed or entry.original in needed for name, entry in journal.items()}
    # What a stopped run goes on from is in no journal.
    started = {name[:12] for name in needed if name not in journal}
    found: list[tuple[Path, str]] = []
    for path in sorted(directory.segments.glob("*")):
        # Latents that have no entry of their own lie beside their frames.
        name = path.name if path.name in known else path.with_suffix(".mkv").name
        begun = path.name.startswith("velocity") and path.stem.split("_")[-1] in started
        if SEGMENT_FILE.fullmatch(path.name) and not known.get(name) and not begun:
            found.append((path, "of earlier settings" if name in known else "in no journal"))
    found += [(path, "half-written") for path in directory.half_written()]
    found += [(path, "of what was stopped") for path in directory.unfinished()]
    of_workers = (directory.root / name for name in (ERROR_FILE, LOG_FILE))
    found += [(path, "of workers that failed") for path in of_workers if path.is_file() and is_own(path)]
    there = list[Leftover]()
    for path, why in found:
        # A run that is at work renames and drops its own meanwhile.
        with suppress(FileNotFoundError):
            if path.is_file():
                there.append(Leftover(path, why, path.stat().st_size))
    return there


def last_started(directory: RunDirectory) -> list[str]:
    """The digests of the segments, or of the edit, that the folder's last run was started for.

    Raises:
        InputError: nothing says so.
    """
    for event in reversed(read_events(directory.metrics)):
        if event.get("event") == "start":
            # Runs of before latents were kept say their segments alone, which is all that they have.
            named = event.get("keeps") or event.get("segments", [event.get("edit")])
            if isinstance(named, list) and named and all(isinstance(name, str) for name in named):
                return named
            break
    raise InputError(
        f"{directory.metrics} does not say which segments the run has, as those of earlier versions do not; run the "
        "same command again, which samples nothing anew"
    )


def remove(directory: RunDirectory, found: Sequence[Leftover]) -> None:
    """Take segments out of the journal, then files from the disk; what is stopped between finds them in no journal."""
    gone = {leftover.path.name for leftover in found}
    journal = Manifest(directory)
    journal.forget({name for name, entry in journal.read().items() if entry.file in gone})
    for leftover in found:
        leftover.path.unlink(missing_ok=True)


def told(directory: RunDirectory, digests: Iterable[str]) -> list[str]:
    """A line for the end of a run; none where nothing could go."""
    found = leftovers(directory, digests)
    if not found:
        return []
    size = sum(leftover.size for leftover in found)
    return [
        f"{directory.root} holds {len(found)} files that this run does not need, {size / 1e6:.1f} MB: wanedit clean "
        "lists and removes them"
    ]
