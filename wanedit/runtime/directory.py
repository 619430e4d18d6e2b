"""The folder of one run: where its files are, which living run owns it, and which segments are complete."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from wanedit import __version__
from wanedit.errors import InputError, MissingWeightsError, ResourceError
from wanedit.files import (
    append_line,
    atomic_path,
    file_sha256,
    is_there,
    partials,
    read_json,
    reading,
    system_errors,
    write_text,
)
from wanedit.runtime.claims import DECIDING, LOOK, InUseError, Queue
from wanedit.runtime.events import append_event, read_events
from wanedit.runtime.outputs import MADE_WITH, check_outputs, is_own, require_apart, require_writable
from wanedit.runtime.settings import check_values

JOURNAL_VERSION = 1
Plan = TypeVar("Plan")


class RunDirectory:
    """Paths of a run. Nothing is created before `prepare`.

    Args:
        root: the run's folder.
        final: the finished video inside it.
    """

    def __init__(self, root: Path, final: Path) -> None:
        self.root = root
        self.final = final
        self.queue = Queue(root)
        self.segments = root / "segments"
        self.progress = self.segments / "progress.json"
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.jsonl"
        self.previews = root / "preview"
        self.contact_sheet = root / "contact_sheet.png"
        self.junctions = root / "junctions.png"
        self.folders = (root, self.segments)
        self.prepared = False

    @property
    def written(self) -> tuple[Path, ...]:
        """The files that a run writes under names of its own, there already or not."""
        return (self.final, self.contact_sheet, self.junctions, self.config, *self.tables)

    @property
    def tables(self) -> tuple[Path, ...]:
        """Those that cannot say who wrote them, for which a record vouches."""
        return (self.metrics, self.root / "metrics.csv", self.root / "tracking.json")

    @property
    def recorded(self) -> bool:
        """Whether an earlier run of wanedit left its record here."""
        return any(path.is_file() and is_own(path) for path in (self.config, self.metrics))

    def check(self, inputs: Sequence[Path]) -> None:
        """See that the run's files may be written. Raises InputError as `outputs.check_outputs`."""
        # A name that is too long is told in words, which what follows would not do.
        require_writable(self.config)
        require_apart(self.segments.glob("*"), inputs)
        # Pictures and films are what people retouch: no record vouches for them.
        check_outputs(self.tables, inputs, self.recorded)
        check_outputs([path for path in self.written if path not in self.tables], inputs)
        # Cut or graded by another program, a film may keep all that it says of itself.
        if self.final.exists() and self.film_sha256() not in (None, file_sha256(self.final)):
            raise InputError(
                f"output {self.final} was changed since wanedit wrote it and would be replaced; choose another output, "
                "or move it away"
            )
        if not self.recorded:
            # Segments are overwritten that are not as they were journalled, but only those of a run.
            journal = Manifest(self)
            known = {Path(entry.file).stem for entry in journal.read().values()}
            pieces = (path for path in self.segments.glob("*") if SEGMENT_FILE.fullmatch(path.name))
            check_outputs([*journal.tails(), *(path for path in pieces if path.stem not in known)])

    def wrote(self) -> None:
        """Put down which film the run came to."""
        append_event(
            self.metrics, {"event": "wrote", "file": self.final.name, "sha256": file_sha256(self.final)}
        )

    def film_sha256(self) -> str | None:
        """Of the film that the last run wrote; None where it came to none, or was of an earlier version."""
        found = None
        for event in read_events(self.metrics):
            if event.get("event") in ("start", "wrote"):
                found = event.get("sha256")
        return found

    def prepare(self) -> None:
        """Create the folders and drop what a killed run left half-written."""
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.prepared = True
        for partial in (*self.half_written(), *self.unfinished()):
            partial.unlink(missing_ok=True)

    def half_written(self) -> list[Path]:
        """What a killed run left; the lock sees that no living one writes it."""
        inside = [partial for folder in (*self.folders, self.previews) for partial in partials(folder)]
        # A film beside its folder stands among files of others.
        beside = [] if self.final.parent == self.root else partials(self.final.parent, self.final.name)
        return inside + beside

    def unfinished(self) -> list[Path]:
        """Pictures of what a killed run was at."""
        return [path for path in self.previews.glob("*.png") if PREVIEW_FILE.fullmatch(path.name)]

    def require_space(self, need: int) -> None:
        """Raises ResourceError where the disk has fewer than `need` bytes left."""
        free = shutil.disk_usage(self.root).free
        if free < need:
            raise ResourceError(
                f"{self.root}: {free / 1e6:.0f} MB free, about {need / 1e6:.0f} MB needed; make room, or choose "
                "another output"
            )

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
        """Own the folder until the block ends or the process dies, whichever comes first; be the first of its workers.

        Raises:
            InputError: the folder cannot be one.
            ResourceError: the folder cannot be created or written to, or another living process works in it
                (`claims.InUseError`); the message says which.
        """
        with system_errors(self.root):
            made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        does, self.queue.doing = self.queue.doing, DECIDING
        try:
            with self.queue.working():
                with system_errors(self.queue.folder):
                    self.queue.own_folder()
                self.queue.say(does)
                try:
                    yield
                except (OSError, InputError) as error:
                    # What no longer is there is no wrong name, as it would be told otherwise.
                    gone = [folder for folder in self.folders if self.prepared and not folder.is_dir()]
                    if not gone:
                        raise
                    raise ResourceError(
                        f"{gone[0]}: was removed while the run was at work; run again, which makes anew what is gone"
                    ) from error
        finally:
            self._remove_empty(made)

    def enter(
        self, stack: ExitStack, plan: Callable[[], Plan], another: Callable[[Plan], str]
    ) -> tuple[Plan, bool]:
        """Be the first worker of the folder, who decides, or one more of those who are at the same run.

        Args:
            stack: left when this one has done its work.
            plan: what is to be made here, also by what the others have put on record meanwhile.
            another: in what the run of those who are at work is another than the plan's, in words; "" for the same.

        Returns:
            The plan, and whether others have decided, whom this one now helps.

        Raises:
            InUseError: those who work in the folder are at another run. Besides as `lock`.
        """
        while True:
            planned = plan()
            at_work = [one for one in self.queue.others() if one is not None and one.doing != DECIDING]
            if at_work and not another(planned):
                if self.film_sha256() is not None:
                    # They are about to leave, or lost: the folder will be had alone.
                    time.sleep(LOOK)
                    continue
                self.queue.doing = "begins"
                stack.enter_context(self.queue.working())
                return planned, True
            self.queue.doing = DECIDING
            try:
                stack.enter_context(self.lock())
                return planned, False
            except InUseError as error:
                why = another(planned)
                if why and error.by.doing != DECIDING:
                    raise InUseError(f"{error}. {why}", error.by) from None
                time.sleep(LOOK)  # what it decides may be the same run

    def _remove_empty(self, made: list[Path]) -> None:
        """A run that was refused before it wrote anything leaves none of the folders that it made, its own first."""
        with suppress(OSError):
            if not made or any(not path.is_dir() for path in self.root.rglob("*")):
                return
            for folder in (*sorted(self.root.rglob("*"), reverse=True), *made):
                folder.rmdir()


@dataclass(frozen=True)
class Entry:
    """A complete segment: its latents, or its frames.

    Attributes:
        file: name inside the segments folder.
        file_sha256: of that file; a segment whose file is another is sampled again.
        latents_sha256: of the float32 bytes of the latents; equal for equal inputs on any number of ranks. "" for
            frames whose latents have an entry of their own, or that have none.
        seconds: wall time of sampling and decoding.
        take: 0, or which further one of its segment.
        original: the digest of take 0, by which all takes are known; "" for what has none.
    """

    index: int
    file: str
    file_sha256: str
    frames: int
    latents_sha256: str
    seconds: float
    rank: int
    take: int = 0
    original: str = ""


# As `segment_file` has it, and the latents beside it.
PREVIEW_FILE = re.compile(r"(segment|bridge|state)_\d{3,}_[0-9a-f]{12}\.png")
SEGMENT_FILE = re.compile(r"(segment|bridge|state|velocity)_\d{3,}_[0-9a-f]{12}\.(mkv|safetensors)")


def segment_file(index: int, name: str, ending: str = ".mkv") -> str:
    """File name of a segment: its place in the chain, and enough of its hash to tell versions apart."""
    return f"segment_{index:03d}_{name[:12]}{ending}"


class Manifest:
    """The journal of a run, segments/progress.json: which segments are complete, by the hash of all that decides their
    pixels.

    While a run is at work, each of its workers adds lines to a file of its own beside it, progress.<worker>.jsonl: no
    lock is needed, which network disks may not have. Whoever stitches, or goes on later, puts all into the journal.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        self.tail = directory.segments / f"progress.{directory.queue.own}.jsonl"

    def tails(self) -> list[Path]:
        """What workers left; of earlier versions it is one for all."""
        return sorted(self.directory.segments.glob("progress*.jsonl"))

    def read(self) -> dict[str, Entry]:
        """Complete segments by digest.

        Raises:
            InputError: the file is no journal of this version.
        """
        path, expected = self.directory.progress, "a journal of wanedit; move it away to start afresh"
        # First, since those that are put into the journal meanwhile are read from there.
        tails = {tail: read_events(tail) for tail in self.tails()}
        found: dict[str, Entry] = {}
        if is_there(path):
            values = read_json(path, expected)
            with reading(path, expected):
                if values["version"] != JOURNAL_VERSION:
                    raise ValueError(f"version {values['version']}")
                for entry in values["segments"].values():
                    check_values(Entry, entry, f"{path}: ")
                found = {name: Entry(**entry) for name, entry in values["segments"].items()}
        for tail, lines in tails.items():
            with reading(tail, expected):
                for line in lines:
                    check_values(Entry, line["segment"], f"{tail}: ")
                    found[line["digest"]] = Entry(**line["segment"])
        return found

    def record(self, name: str, entry: Entry) -> None:
        """Add one complete segment. Its file must already be in place."""
        line = {MADE_WITH: __version__, "digest": name, "segment": asdict(entry)}
        append_line(self.tail, json.dumps(line), synced=True)

    def take(self, other: "Manifest", names: Sequence[str]) -> None:
        """Have what another run's journal has complete of `names`, by a second name of the same files."""
        self.directory.segments.mkdir(parents=True, exist_ok=True)
        own, theirs = self.read(), other.read()
        for name in sorted(other.complete([name for name in names if name not in own and name in theirs])):
            source, file = other.directory.inside(theirs[name].file), self.directory.inside(theirs[name].file)
            with atomic_path(file) as partial:
                try:
                    os.link(source, partial)
                except OSError:  # a file system without links, or another one
                    shutil.copyfile(source, partial)
            self.record(name, theirs[name])

    def forget(self, names: set[str]) -> None:
        """Take segments out of the journal, so that they are made anew; for whoever has the folder alone."""
        self.settle(names)

    def settle(self, without: Collection[str] = ()) -> None:
        """Put what workers left into progress.json, where people look; when none of them is at work."""
        before, tails = self.read(), self.tails()
        if not tails and not before.keys() & set(without):
            return
        values = {
            "version": JOURNAL_VERSION,
            "segments": {name: asdict(entry) for name, entry in before.items() if name not in without},
        }
        write_text(self.directory.progress, json.dumps(values, indent=1) + "\n")
        for tail in tails:
            tail.unlink(missing_ok=True)

    def complete(self, names: list[str], with_latents: bool = False) -> set[str]:
        """Those of `names` whose file is there, byte for byte as journalled, and its latents if asked.

        Raises:
            InputError: a file is whole, but none that was journalled: somebody worked on it.
        """
        entries, found = self.read(), set()
        written = {entry.file_sha256 for entry in entries.values()}
        for name in names:
            entry = entries.get(name)
            if entry is None:
                continue
            path = self.directory.inside(entry.file)
            # A method of pixels has no latents to keep.
            lacking = with_latents and entry.latents_sha256 != ""
            if lacking and not path.with_suffix(".safetensors").is_file():
                continue
            if not path.is_file():
                continue
            # By content: a file that was cut short or written over has the same name.
            if (content := file_sha256(path)) == entry.file_sha256:
                found.add(name)
            elif content not in written and _is_whole(path):
                raise InputError(
                    f"{path} was changed since wanedit wrote it and would be replaced; move it away to have it made "
                    "again"
                )
        return found

    def path(self, name: str) -> Path:
        """The file of a complete segment."""
        return self.directory.inside(self.read()[name].file)


def _is_whole(path: Path) -> bool:
    """Whether all of a file can be read: FFV1 has checksums, so that a damaged film of ours cannot; of latents only the
    length is told from their head, and what is damaged otherwise is left for its owner to judge."""
    from wanedit.video import iter_frames
    from wanedit.wan.formats.tensors import read_file

    try:
        if path.suffix == ".safetensors":
            read_file(path)
            return True
        for _ in iter_frames(path):
            pass
    except (InputError, MissingWeightsError):
        return False
    return True
