"""What a run's folder has on record, read without a model and without its inputs; whole or not."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from wanedit.errors import InputError, WaneditError
from wanedit.report.privacy import Discreet
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.journal import Entry, Manifest
from wanedit.runtime.settings import FINAL_NAME, VIDEO_SUFFIXES
from wanedit.video import probe
from wanedit.video.decode import VideoInfo

Event = dict[str, Any]


def mapping(value: Any) -> dict[str, Any]:
    """A recorded object; empty for anything else that a damaged record holds in its place."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """The same of a recorded list."""
    return value if isinstance(value, list) else []


@dataclass(frozen=True, eq=False)
class Record:
    """One run as its folder tells it.

    Attributes:
        config: config.yaml as it stands.
        events: the lines of metrics.jsonl.
        entries: complete segments by digest.
        video: the finished file; None where there is none yet.
        notes: what is amiss, for the reader of the report.
    """

    root: Path
    kind: Literal["edit", "generation"]
    config: dict[str, Any]
    events: list[Event]
    entries: dict[str, Entry]
    video: Path | None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.root.resolve().name

    @cached_property
    def start(self) -> Event:
        """The last start; empty where none is on record."""
        return next((event for event in reversed(self.events) if event.get("event") == "start"), {})

    @cached_property
    def info(self) -> VideoInfo | None:
        """What the finished file is."""
        return None if self.video is None else probe(self.video)

    @cached_property
    def steps(self) -> list[Event]:
        """The steps of the edit that stands in the folder: a run that only wrote its video again has none."""
        found: list[Event] = []
        attempt: list[Event] = []
        digest, matches = self.start.get("edit"), False
        for event in [*self.events, {"event": "start"}]:
            if event.get("event") == "start":
                found = attempt or found
                attempt = []
                matches = event.get("edit") == digest
            elif event.get("event") == "step" and matches:
                attempt.append(event)
        return found

    @cached_property
    def digests(self) -> list[str]:
        """The digests of the segments that the finished video is made of, in order."""
        metadata = self.info.metadata if self.info else {}
        listed = metadata.get("wanedit_segments")
        named = json.loads(listed) if listed else [metadata.get("wanedit_edit") or self.start.get("edit")]
        known = [name for name in named if isinstance(name, str) and name in self.entries]
        # An unfinished run has no video that says which; then all that is there.
        return known or sorted(self.entries, key=lambda name: self.entries[name].index)

    @cached_property
    def discreet(self) -> Discreet:
        """Takes the folders of this run and of its inputs out of texts."""
        folders = [Path.home(), Path.cwd(), self.root, self.root.resolve()]
        for text in _texts(self.config):
            if "\n" not in text and text.startswith(("/", "~")):
                folders += [Path(text), Path(text).parent]
        return Discreet([*folders, *(parent for folder in folders[1:] for parent in folder.parents)])


def read_record(path: Path) -> Record:
    """Read a run's folder, or that which belongs to a finished video.

    Raises:
        InputError: it is no run of wanedit.
    """
    root = folder_of(path)
    config = _config(root)
    events, notes = _events(root / "metrics.jsonl")
    directory = RunDirectory(root, root / FINAL_NAME)
    try:
        entries = Manifest(directory).read()
    except InputError as error:
        entries, notes = {}, [*notes, str(error)]
    video = _video(root, config)
    if video is None:
        notes.append("the run is not complete: it has no finished video yet")
    kind = "edit" if "video" in config else "generation"
    return Record(root, kind, config, events, entries, video, notes)


def folder_of(path: Path) -> Path:
    """The folder of a run that is named by it or by its finished video. Raises InputError for anything else."""
    path = path.expanduser()
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        beside = path.with_suffix(".wanedit")
        path = beside if beside.is_dir() else path.parent
    if not path.is_dir():
        raise InputError(f"run: no folder {path.absolute()}; expected the folder of a run")
    return path


def _config(root: Path) -> dict[str, Any]:
    path = root / "config.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"run: {root} has no config.yaml that can be read ({reason}); expected a run"
        ) from None
    if not isinstance(values, dict) or "keyframes" not in values:
        raise InputError(f"run: {path} holds no settings of a run; expected a record of wanedit")
    return {str(name): value for name, value in values.items()}


def _events(path: Path) -> tuple[list[Event], list[str]]:
    """The lines that can be read, and a note where some cannot: a kill may tear the last one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return [], ["there is no metrics.jsonl: steps, model files and times are not known"]
    events, torn = [], 0
    for line in filter(str.strip, lines):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            events.append(event)
        else:
            torn += 1
    return events, [f"metrics.jsonl: {torn} of {len(lines)} lines cannot be read"] if torn else []


def _video(root: Path, config: dict[str, Any]) -> Path | None:
    output = Path(str(config.get("output") or ""))
    # The folder may have been moved: what lies in it counts before what its record says.
    places = [root / FINAL_NAME, root.parent / f"{root.stem}.mp4", root.parent / f"{root.stem}.mov", output]
    if root.suffix != ".wanedit":
        places = [places[0], *([output] if output.suffix.lower() in VIDEO_SUFFIXES else [])]
    for place in places:
        try:
            if place.is_file() and probe(place).frames:
                return place
        except (WaneditError, OSError):
            continue
    return None


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
