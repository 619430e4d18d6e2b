"""One run's folder as the board reads it: its settings, its pictures, who works on it, its film."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from wanedit.errors import InputError, MissingWeightsError, WaneditError
from wanedit.files import Json, digest, file_sha256, is_there, reading
from wanedit.report.clips import keyframe_places
from wanedit.report.record import listing, read_record
from wanedit.runtime.claims import Queue
from wanedit.runtime.cost import forward_flops
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import events_of, read_events
from wanedit.runtime.record import own_record, read_settings, recorded_config, recorded_job
from wanedit.runtime.settings import FINAL_NAME, RunSettings, canonical, with_changes
from wanedit.video.decode import VideoInfo, probe
from wanedit.wan.catalog import KNOWN_MODELS, find_known, locate
from wanedit.wan.config import WanConfig

DRAFT = "board.yaml"
Config = TypeVar("Config", bound=RunSettings)
BESIDE = 1.2e9  # bytes that Python and its libraries take beside a model


@dataclass(frozen=True)
class Sampled:
    """Of a segment, or of an edit, in metrics.jsonl.

    Attributes:
        replayed: of the evaluations those that an earlier run had made, which took none of the seconds.
    """

    tokens: int
    evaluations: float
    seconds: float
    replayed: float = 0


@dataclass(frozen=True)
class Started:
    """Of a start, in metrics.jsonl: by what model, and when."""

    model: str
    time: datetime


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        root: the folder, there or not.
    """

    root: Path

    @cached_property
    def directory(self) -> RunDirectory:
        """Its paths."""
        return RunDirectory(self.root, self.root / FINAL_NAME)

    @property
    def draft(self) -> Path:
        """What the page has changed."""
        return self.root / DRAFT

    def settings(self) -> Json:
        """The settings that stand: those of the page or of the last start, whichever came later; empty for none."""
        found = [path for path in (self.directory.config, self.draft) if is_there(path)]
        if len(found) == 2:
            # The record is written once more when its run ends: what was changed meanwhile stands.
            start, (config, draft) = self.last_start(), found
            started = start.time.timestamp() if start else config.stat().st_mtime
            found = [config if started > draft.stat().st_mtime else draft]
        return canonical(read_settings(found[0])) if found else {}

    def last_start(self) -> Started | None:
        """The last one on record."""
        metrics = self.directory.metrics
        return _last_start(metrics, metrics.stat().st_mtime_ns) if is_there(metrics) else None

    def version(self) -> str:
        """Changes with `settings`."""
        return digest(self.settings())[:16]

    def versions(self) -> set[str]:
        """That, and the one of the draft: a start, which resolves it, is no other page's change."""
        drafts = [canonical(read_settings(self.draft))] if is_there(self.draft) else []
        return {digest(settings)[:16] for settings in (self.settings(), *drafts)}

    def job(self) -> str:
        """Which command the run is of."""
        return recorded_job(self.settings()) if self.settings() else "generate"

    def pictures(self) -> dict[str, Path]:
        """By what the page calls them: the pictures in its folder, and those that its settings name."""
        own = (self.root / "keyframes").glob("*.png")
        named = (path for path, _ in pairs(self.settings()))
        return {picture_id(path): path for path in (*own, *named)}

    def owner(self) -> int | None:
        """The process that works on the run, on this machine; None where there is none."""
        queue = Queue(self.root)
        here = {name: one for name, one in queue.workers().items() if one and one.machine == queue.machine}
        return next((one.pid for name, one in here.items() if not queue.is_lost(name)), None)

    def config(self, kind: type[Config], values: Json) -> Config:
        """Settings as a run of this folder would have them, for its plan: a seed that is to be drawn changes nothing in
        what that comes to. Raises InputError for a value that is none."""
        config = recorded_config(kind, values, self.root)
        if config.base_seed is None or config.base_seed < 0:
            seed = own_record(config.job, self.directory).get("base_seed", 0)
            config = with_changes(config, base_seed=seed)
        return config

    def like(self, model: str) -> Iterator["Run"]:
        """This run, then those beside it that the model was last used for, the latest first."""
        yield self
        beside = list[tuple[int, Path]]()
        for path in self.root.parent.glob("*/metrics.jsonl"):
            with suppress(OSError):  # gone meanwhile
                beside.append((path.stat().st_mtime_ns, path))
        for changed, path in sorted(beside, reverse=True):
            start = None if path.parent == self.root else _last_start(path, changed)
            if start is not None and start.model == model:
                yield Run(path.parent)

    def speed(self, config: WanConfig, model: str, event: str) -> float | None:
        """Operations a second: the median of what this folder sampled, or else the latest of those like it; None where
        none has.

        Args:
            model: its name.
            event: of the record, that tells of one piece of work.
        """
        for run in self.like(model):
            speeds = [
                forward_flops(config, one.tokens) * (one.evaluations - one.replayed) / one.seconds
                for one in events_of(read_events(run.directory.metrics), Sampled, event)
                if one.seconds > 0 and one.evaluations > one.replayed
            ]
            if speeds:
                return median(speeds)
        return None

    def discreet(self, text: str) -> str:
        """Without the folders, which a page need not show."""
        for path, name in ((self.root, ""), (self.root.parent, self.root.parent.name), (Path.home(), "~")):
            text = text.replace(f"{path}{os.sep}", f"{name}/" if name else "")
            text = text.replace(str(path), name or self.root.name)
        return text


@lru_cache(maxsize=1024)
def _last_start(metrics: Path, changed: int) -> Started | None:
    """Of a file as it was `changed` last."""
    return next(events_of(reversed(read_events(metrics)), Started, "start"), None)


def pairs(values: Json) -> list[tuple[Path, Any]]:
    """The keyframes of a run's settings, each with its place; what is none is left out, and told by the plan."""
    found = [listing(entry) for entry in listing(values.get("keyframes"))]
    return [(Path(str(entry[0])), entry[1]) for entry in found if len(entry) == 2]


def named(run: Run, values: Json, text: str) -> str:
    """A word of the plan as the page shows it: a picture by its number, whose file is called by its content."""
    for k, (path, _) in enumerate(pairs(values)):
        text = (
            text.replace(f"{path.name}:", f"picture {k}:") if path.parent == run.root / "keyframes" else text
        )
    return run.discreet(text)


def picture_id(path: Path) -> str:
    """What the page calls a picture."""
    return digest({"picture": os.path.abspath(path)})[:16]


def called(model: object) -> str:
    """The name of a model, for one of several that it has."""
    known = find_known(str(model or "tiny"))
    return known.name if known else str(model)


def finite(value: Any) -> Any:
    """Values for JSON, which has no word for a number that is not finite: null."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_run(root: Path) -> bool:
    """Whether a folder holds a run, or one that the page has begun."""
    return root.is_dir() and any((root / name).is_file() for name in ("metrics.jsonl", DRAFT))


def installed_models() -> list[str]:
    """The known models that are on this machine."""
    found = []
    for model in KNOWN_MODELS:
        try:
            locate(model.name)
        except (MissingWeightsError, InputError):
            continue
        found.append(model.name)
    return found


def film_of(run: Run) -> Json | None:
    """A run's film: what it is called by its content, its frames and joins; None where there is none."""
    path = run.directory.final
    if not is_there(path) or not path.stat().st_size:
        return None
    try:
        record, info = read_record(run.root), probe(path)
    except WaneditError:
        return None
    places = keyframe_places(record)
    said = next((e.get("sha256") for e in reversed(record.events) if e.get("event") == "wrote"), None)
    return {
        "id": str(said or file_sha256(path))[:16],
        "frames": info.frames,
        "fps": float(info.fps),
        "size": [info.width, info.height],
        "keyframes": list(places),
        "joins": list(places[1:-1]) if record.job == "generate" else [],
        "job": record.job,
        # Of an edit, as the film itself says: the frame of the source that is its first, and what it is the edit of.
        "start": made_with(info).get("start", 0),
        "digest": record.edit_digest if record.job == "edit" else None,
        "reached": listing(record.reached.get("told")),
    }


def made_with(info: VideoInfo) -> Json:
    """The settings that a film carries; empty for none."""
    try:
        with reading(Path("a film"), "its settings"):
            found = json.loads(info.metadata.get("wanedit_config", "{}"))
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}
