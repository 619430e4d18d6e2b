"""What a run's folder has on record, read without a model and without its inputs; whole or not."""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from wanedit.errors import InputError
from wanedit.files import reading, texts
from wanedit.runtime.directory import Entry, Manifest, RunDirectory
from wanedit.runtime.events import Event, parse_events, recorded_steps
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.privacy import Discreet
from wanedit.runtime.record import read_settings, recorded_job
from wanedit.runtime.settings import FINAL_NAME, canonical
from wanedit.video import probe
from wanedit.video.decode import VideoInfo
from wanedit.video.formats import FORMATS


def mapping(value: object) -> dict[str, Any]:
    """A recorded object; empty for anything else that a damaged record holds in its place."""
    return value if isinstance(value, dict) else {}


def listing(value: object) -> list[Any]:
    """The same of a recorded list."""
    return value if isinstance(value, list) else []


@dataclass(frozen=True, eq=False)
class Record:
    """One run as its folder tells it.

    Attributes:
        job: which made it, "generate" or "edit".
        config: config.yaml, former names of settings by their present ones.
        events: the lines of metrics.jsonl.
        entries: complete segments by digest.
        video: the finished file; None where there is none yet.
        notes: what is amiss, for the reader of the report.
    """

    root: Path
    job: str
    config: dict[str, Any]
    events: list[Event]
    entries: dict[str, Entry]
    video: Path | None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    @property
    def kind(self) -> str:
        """What the run is, for a person."""
        return "generation" if self.job == "generate" else self.job

    @cached_property
    def start(self) -> Event:
        """The last start; empty where none is on record."""
        return next((event for event in reversed(self.events) if event.get("event") == "start"), {})

    @cached_property
    def info(self) -> VideoInfo | None:
        """What the finished file is."""
        return None if self.video is None else probe(self.video)

    @cached_property
    def edit(self) -> tuple[Event, tuple[Event, ...]]:
        """Of the edit that stands in the folder, the settings of its method and its steps."""
        return recorded_steps(self.events, self.edit_digest)

    @property
    def edit_digest(self) -> object:
        """The hash of the edit that stands in the folder, which a later start may have left as it is; None for none."""
        metadata = self.info.metadata if self.info else {}
        return metadata.get("wanedit_edit") or self.start.get("edit")

    @cached_property
    def reached(self) -> Event:
        """How far the edit that stands in the folder reached; empty where that is not on record."""
        digest = self.start.get("edit")
        ends = (e for e in reversed(self.events) if e.get("event") == "reached" and e.get("digest") == digest)
        return next(ends, {})

    @cached_property
    def chain(self) -> list[object]:
        """The digests of all segments of the finished video, or else of the last start, in order."""
        metadata = self.info.metadata if self.info else {}
        listed = metadata.get("wanedit_segments")
        try:
            with reading(self.root, "the digests of segments"):
                named = json.loads(listed) if listed else self.start.get("segments", [self.edit_digest])
        except InputError:
            named = []
        return listing(named)

    @cached_property
    def digests(self) -> list[str]:
        """Those of `chain` that are complete, in order."""
        known = [name for name in self.chain if isinstance(name, str) and name in self.entries]
        # An unfinished run has no video that says which; then all that is there.
        return known or sorted(self.entries, key=lambda name: self.entries[name].index)

    @cached_property
    def discreet(self) -> Discreet:
        """Takes the folders of this run and of its inputs out of texts."""
        folders = [Path.home(), Path.cwd(), self.root, self.root.resolve()]
        for text in texts(self.config):
            if "\n" not in text and text.startswith(("/", "~")):
                folders += [Path(text), Path(text).parent]
        return Discreet([*folders, *(parent for folder in folders[1:] for parent in folder.parents)])


def read_record(path: Path) -> Record:
    """Read a run's folder, or that which belongs to a finished video.

    Raises:
        InputError: it is no run of wanedit.
    """
    root = run_folder(path)
    values, notes = read_settings(root / "config.yaml"), list[str]()
    if "keyframes" not in values:
        raise InputError(
            f"run: {root / 'config.yaml'} holds no settings of a run; expected a record of wanedit"
        )
    config = canonical(values)
    try:
        lines = list(parse_events((root / "metrics.jsonl").read_bytes()))
    except FileNotFoundError:
        lines = []
        notes.append("there is no metrics.jsonl: steps, model files and times are not known")
    events = [event for event in lines if event is not None]
    if len(events) < len(lines):  # a kill may tear the last one
        notes.append(f"metrics.jsonl: {len(lines) - len(events)} of {len(lines)} lines cannot be read")
    try:
        entries = Manifest(RunDirectory(root, root / FINAL_NAME)).read()
    except InputError as error:
        entries = {}
        notes.append(str(error))
    video = _video(root, str(config.get("output") or ""))
    if video is None:
        notes.append("the run is not complete: it has no finished video yet")
    return Record(root, recorded_job(config), config, events, entries, video, notes)


def _video(root: Path, recorded: str) -> Path | None:
    # The folder may have been moved: what lies in it counts before what its record says.
    output, places = Path(recorded), [root / FINAL_NAME]
    if root.suffix == ".wanedit":
        places += [*(root.parent / f"{root.stem}{ending}" for ending in FORMATS), output]
    elif output.suffix.lower() in FORMATS:
        places.append(output)
    for place in places:
        with suppress(InputError):
            if place.is_file() and probe(place).frames:
                return place
    return None
