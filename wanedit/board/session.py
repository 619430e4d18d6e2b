"""What the page asks, answered from the folders of runs. Every answer is plain JSON; nothing here knows Gradio.

A run is its folder. What the page changes is `board.yaml` in it, a file of settings as `--config` takes one; what was
made stands in the journal. Nothing is kept in memory that a killed server would lose, and two pages of one run see the
same files. The page names pictures by a hash, runs by the name of their folder, and no path at all.
"""

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, get_args, get_type_hints

import yaml

from wanedit.errors import InputError, MissingWeightsError, WaneditError
from wanedit.files import Json, digest, file_sha256, is_there, read_text, system_errors, write_text
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.joins import Todo
from wanedit.jobs.generate.plan import Plan, check_output, make_plan, remaining, resolve
from wanedit.report.clips import keyframe_places
from wanedit.report.measures import measure
from wanedit.report.record import listing, read_record
from wanedit.runtime.claims import Queue
from wanedit.runtime.cost import forward_flops, memory, sampling_flops
from wanedit.runtime.directory import Entry, Manifest, RunDirectory
from wanedit.runtime.events import events_of, read_events
from wanedit.runtime.launch import World
from wanedit.runtime.outputs import LOG_MARK
from wanedit.runtime.record import own_record, read_settings, recorded_config, recorded_job
from wanedit.runtime.settings import FINAL_NAME, canonical, with_changes
from wanedit.video import load_image, write_png
from wanedit.video.arrays import AnyFrame, pixels_sha256
from wanedit.video.decode import probe, read_frames
from wanedit.wan.catalog import KNOWN_MODELS, Sampling, find_known, locate, sampling_in

DRAFT, LOG, PROGRESS = "board.yaml", "board.log", ".board.json"
DRAFT_MARK = "# Written by `wanedit board`. To run it by hand: wanedit generate --config board.yaml\n"
# What the page may set. Not what names a file, a module or a service: those stay as the folder's settings have them.
OPEN_FIELDS = (
    "prompt", "sub_prompts", "negative_prompt", "model", "size", "fps", "num_inference_steps", "shift",
    "guidance_scale", "solver", "base_seed", "window", "joins", "takes", "bridge_takes", "restore", "colour_correction",
)  # fmt: skip
# What is kept when the model changes: the rest was resolved for the one before.
OF_ANY_MODEL = ("keyframes", "prompt", "sub_prompts", "base_seed", "audio", "output", "job", "crf", "joins")
NAME = re.compile(r"[^\W_][\w .-]{0,79}")
MAX_PICTURE = 50_000_000  # pixels
MAX_KEYFRAMES = 1000
LOG_LINES = 8
STOP_WITHIN = 20.0  # seconds


class StaleError(InputError):
    """The draft has been changed by another page meanwhile."""


@dataclass(frozen=True)
class _Sampled:
    """Of a segment, in metrics.jsonl."""

    tokens: int
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class _Stage:
    """Of a run that works, as `wanedit.board.worker` writes it."""

    label: str
    unit: str
    done: int
    total: int | None
    began: float


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
        if not found:
            return {}
        return canonical(read_settings(max(found, key=lambda path: path.stat().st_mtime_ns)))

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
        named = (Path(str(entry[0])) for entry in listing(self.settings().get("keyframes")) if listing(entry))
        return {picture_id(path): path for path in (*own, *named)}

    def owner(self) -> int | None:
        """The process that works on the run, on this machine; None where there is none."""
        queue = Queue(self.root)
        here = {name: one for name, one in queue.workers().items() if one and one.machine == queue.machine}
        return next((one.pid for name, one in here.items() if not queue.is_lost(name)), None)


def picture_id(path: Path) -> str:
    """What the page calls a picture."""
    return digest({"picture": os.path.abspath(path)})[:16]


class Session:
    """All that a page may ask.

    Args:
        folder: of the runs that are listed, and in which new ones are made.
        only: the name of the one run that is shown; None for all.
    """

    def __init__(self, folder: Path, only: str | None = None) -> None:
        self.folder, self.only = folder.absolute(), only
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.measured: dict[str, Json] = {}
        # Of writing drafts and starting runs; what is read is read from files that are replaced whole.
        self.changing = threading.Lock()

    def run(self, name: object) -> Run:
        """The run of a name. Raises InputError for what is no plain name, or not shown here."""
        if (
            not isinstance(name, str)
            or NAME.fullmatch(name) is None
            or Path(name).suffix.lower() == ".wanedit"
        ):
            raise InputError(
                f"the run's name is {name!r}; expected letters, digits, spaces, dots and dashes, 80 at most"
            )
        if self.only is not None and name != self.only:
            raise InputError(f"{name} is not shown here; expected {self.only}")
        root = self.folder / name
        if root.is_symlink() and self.only is None:
            raise InputError(f"{name} is a link; expected a folder in {self.folder.name}")
        return Run(root)

    def runs(self) -> Json:
        """The runs that there are, latest first, and the models that may be chosen."""
        names = (
            [self.only]
            if self.only
            else [path.name for path in self.folder.glob("*") if NAME.fullmatch(path.name)]
        )
        found = [run for name in names if is_run((run := Run(self.folder / name)).root)]
        found.sort(key=lambda run: run.root.stat().st_mtime_ns, reverse=True)
        return {
            "runs": [
                {"name": run.root.name, "job": run.job(), "running": run.owner() is not None} for run in found
            ],
            "only": self.only,
            "models": installed_models(),
            "joins": get_args(get_type_hints(GenerationConfig)["joins"]),
        }

    def open(self, name: object) -> Json:
        """A run as it stands: its settings, what they come to, its film and what it is doing."""
        run = self.run(name)
        return {"plan": self._told(run, run.settings()), "status": self._status(run), "film": film_of(run)}

    def plan(self, name: object, draft: object, version: object) -> Json:
        """Keep what the page has changed, and say what it comes to.

        Args:
            draft: keyframes, pairs of a picture and seconds, and settings, see OPEN_FIELDS.
            version: of the settings that the page began from.

        Raises:
            StaleError: they are not the run's any more; nothing is kept.
            InputError: a value that is none.
        """
        run = self.run(name)
        with self.changing:
            if run.settings() and version not in run.versions():
                raise StaleError("this film was changed in another window; shown is what stands now")
            values = self._changed(run, draft)
            if values != run.settings():
                self._keep(run, values)
        return self._told(run, values)

    def add_picture(self, name: object, upload: Path) -> Json:
        """Take a picture into a run's folder.

        Raises:
            InputError: it is no picture, or of too many pixels.
        """
        run = self.run(name)
        image = load_image(upload, max_pixels=MAX_PICTURE)
        place = run.root / "keyframes"
        with system_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        path = place / f"{pixels_sha256(image.pixels)[:16]}.png"
        if not is_there(path):
            write_png(path, image.pixels)
        height, width = image.pixels.shape[:2]
        return {"id": picture_id(path), "width": width, "height": height, "notes": list(image.notes)}

    def start(self, name: object, draft: object, version: object) -> Json:
        """Begin, or go on with, what the page shows: the command line in a process of its own."""
        self.plan(name, draft, version)
        run = self.run(name)
        with self.changing:
            if self._busy(run):
                raise InputError("this film is being made already; wait for it, or cancel it")
            (run.root / PROGRESS).unlink(missing_ok=True)
            write_text(run.root / LOG, LOG_MARK)
            words = ["generate", "--config", str(run.draft), "--output", str(run.root)]
            with (run.root / LOG).open("ab") as log:
                # A session of its own: closing the terminal of the board ends no run.
                self.started[run.root.name] = subprocess.Popen(
                    [sys.executable, "-m", "wanedit.board.worker", str(run.root / PROGRESS), *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        return self._status(run)

    def cancel(self, name: object) -> Json:
        """Stop a run as Ctrl-C does; what is finished is kept."""
        run = self.run(name)
        process = self.started.get(run.root.name)
        pid = process.pid if process is not None and process.poll() is None else run.owner()
        if pid is not None:
            os.kill(pid, signal.SIGINT)
            end = time.monotonic() + STOP_WITHIN
            while self._busy(run) and time.monotonic() < end:
                time.sleep(0.1)
        return self._status(run)

    def status(self, name: object) -> Json:
        """What a run is doing, and its film where that is a new one."""
        run = self.run(name)
        journal = run.directory.progress
        made = journal.stat().st_mtime_ns if is_there(journal) else 0
        return {
            "status": self._status(run),
            "film": film_of(run),
            "version": run.version(),
            "made": str(made),
        }

    def measures(self, name: object) -> Json:
        """The measures of every join of a run's film, by frame; or why there are none."""
        run = self.run(name)
        film = film_of(run)
        if film is None:
            return {"joins": {}, "note": "there is no film yet"}
        if film["id"] not in self.measured:
            try:
                found, note = measure(run.root, "junctions")
            except WaneditError as error:
                found, note = None, self._discreet(run, str(error))
            joins = found.metrics.get("junctions", {}) if found else {}
            self.measured = {film["id"]: {"joins": finite(joins), "note": note or ""}}
        return self.measured[film["id"]]

    def picture(self, name: object, picture: str) -> Path:
        """The file of a picture. Raises InputError where the run has none of the name."""
        found = self.run(name).pictures().get(picture)
        if found is None or not is_there(found):
            raise InputError(f"there is no picture {picture!r}")
        return found

    def film(self, name: object) -> Path:
        """The file of a run's film. Raises InputError where there is none."""
        run = self.run(name)
        if film_of(run) is None:
            raise InputError("there is no film yet")
        return run.directory.final

    def frame(self, name: object, piece: str, index: int) -> AnyFrame:
        """A frame of a run's film, or of one of its segments by its hash."""
        run = self.run(name)
        if piece == "film":
            return read_frames(self.film(name), [index])[0]
        entries = Manifest(run.directory).read()
        if piece not in entries:
            raise InputError(f"there is no segment {piece!r}")
        return read_frames(run.directory.inside(entries[piece].file), [index])[0]

    def _changed(self, run: Run, draft: object) -> Json:
        """The settings that stand, with those of the page over them. Raises InputError for a value that is none."""
        if not isinstance(draft, dict):
            raise InputError("no draft; expected keyframes and settings")
        before, pictures = run.settings(), run.pictures()
        if before and run.job() != "generate":
            raise InputError(
                f"this is a run of `wanedit {run.job()}`, which the page shows and does not change"
            )
        given: Json = dict(draft["settings"]) if isinstance(draft.get("settings"), dict) else {}
        values = dict(before)
        if called(given.get("model") or before.get("model")) != called(before.get("model")):
            values = {name: value for name, value in before.items() if name in OF_ANY_MODEL}
            given = {name: given[name] for name in given if name in (*OF_ANY_MODEL, "model")}
        if values.get("ckpt_dir"):
            given = {name: value for name, value in given.items() if name != "model"}
        for name, value in given.items():
            if name not in OPEN_FIELDS:
                raise InputError(f"{name} cannot be set here; expected one of {', '.join(OPEN_FIELDS)}")
            if name == "model" and value not in (*installed_models(), called(before.get("model"))):
                raise InputError(f"model is {value!r}; expected one of {', '.join(installed_models())}")
            if name == "solver" and value is not None and not re.fullmatch(r"[a-z+_0-9]+", str(value)):
                raise InputError(f"solver is {value!r}; expected the name of one of the package's")
            # JavaScript writes 3.0 as 3, and a segment's hash tells them apart.
            if name in ("shift", "guidance_scale") and type(value) is int:
                value = float(value)
            values[name] = value
        keyframes = []
        for entry in listing(draft.get("keyframes"))[: MAX_KEYFRAMES + 1]:
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in pictures):
                raise InputError(f"a keyframe is {entry!r}; expected a picture of this film and its seconds")
            keyframes.append([str(pictures[entry[0]]), entry[1]])
        if len(keyframes) > MAX_KEYFRAMES:
            raise InputError(f"more than {MAX_KEYFRAMES} keyframes; expected that many at most")
        subs = values.get("sub_prompts") or []
        if not any(isinstance(sub, str) and sub.strip() for sub in subs):
            subs = []
        return values | {
            "job": "generate",
            "keyframes": keyframes,
            "sub_prompts": subs,
            "output": str(run.root),
        }

    def _keep(self, run: Run, values: Mapping[str, object]) -> None:
        with system_errors(run.root):
            run.root.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        write_text(run.draft, DRAFT_MARK + text)

    def _told(self, run: Run, values: Json) -> Json:
        """What settings come to: the film's frames, each segment, what is to be sampled and what that costs; or the
        error that stands in the way."""
        job, model = recorded_job(values) if values else "generate", called(values.get("model"))
        known = find_known(model)
        own = known.sampling if known else Sampling()
        if known is not None and known.bundled:
            own = sampling_in(locate(model), known)
        keyframes = listing(values.get("keyframes")) if job == "generate" else []
        told: Json = {
            "version": run.version(),
            "job": job,
            "keyframes": [[picture_id(Path(str(path))), seconds] for path, seconds in keyframes],
            "settings": {name: values[name] for name in OPEN_FIELDS if name in values} | {"model": model},
            "resolved": {name: getattr(own, name, None) for name in OPEN_FIELDS},
            "fps": own.fps,
            # Between pictures that are dropped: what the model is good for, and a second where nobody would wait.
            "spacing": (own.max_frames - 1) / own.fps if own.full_size else 1.0,
            "segments": [],
            "warnings": [],
            "error": None,
        }
        if len(keyframes) < 2:
            return told
        try:
            config = recorded_config(GenerationConfig, values, run.root)
            if config.base_seed is None or config.base_seed < 0:
                # The run draws one; what its plan comes to is the same with any.
                config = with_changes(config, base_seed=own_record(job, run.directory).get("base_seed", 0))
            plan = make_plan(resolve(config, run.directory, World()))
            check_output(plan.config, [image.keyframe for image in plan.keyframes])
            return told | self._plan(run, plan)
        except WaneditError as error:
            return told | {"error": self._discreet(run, str(error))}

    def _plan(self, run: Run, plan: Plan) -> Json:
        todo, journal = remaining(plan, run.directory), Manifest(run.directory).read()
        flops = sampling_flops(plan.folder.config, todo.segments, plan.evaluations)
        flops += sampling_flops(plan.folder.config, todo.bridges, plan.bridge_evaluations)
        peak = memory(plan.folder, max(plan.tasks, key=lambda task: task.tokens), plan.settings.guided)
        speed = self._speed(run, plan)
        return {
            "fps": float(plan.timeline.fps),
            "num_frames": plan.timeline.num_frames,
            "keyframe_frames": list(plan.timeline.keyframe_frames),
            "size": list(plan.size[::-1]),
            "segments": [self._segment(plan, todo, journal, k) for k in range(len(plan.tasks))],
            "warnings": [self._discreet(run, note) for note in plan.warnings],
            "resolved": {name: getattr(plan.config, name) for name in OPEN_FIELDS},
            "about": plan.folder.about,
            "cost": {
                "segments": len(todo.segments),
                "of": len(plan.tasks),
                "bridges": len(todo.bridges),
                "pieces": len(todo.pieces),
                "flops": flops,
                "seconds": flops / speed if speed else None,
                "memory": max(peak.encoders, peak.sampling) + 1.2e9,
            },
        }

    def _segment(self, plan: Plan, todo: Todo, journal: Mapping[str, Entry], k: int) -> Json:
        segment, task, piece = plan.timeline.segments[k], plan.tasks[k], plan.pieces[k]
        frames, latents = plan.frames_entry(k, journal), journal.get(task.digest)
        state = "sample" if task in todo.segments else "decode" if piece in todo.pieces else "kept"
        return {
            "start": segment.start,
            "end": segment.end,
            "frames": segment.frames,
            "sampled": segment.sampled_frames,
            "digest": task.digest,
            # By what its frames are asked for; null for none.
            "piece": next((name for name, entry in journal.items() if entry is frames), None),
            "piece_frames": frames.frames if frames else 0,
            "seconds": latents.seconds if latents else None,
            "todo": state,
            "take": task.take,
            "takes": self._takes(task.original, piece.original, journal),
            # Of the bridge over the keyframe at which it begins: the take, and those that are there.
            "bridge": next((one.take for one in plan.bridges if one.index == k), None),
            "bridges": sorted(
                entry.take
                for entry in journal.values()
                if entry.index == k and entry.original in plan.originals[len(plan.tasks) :]
            ),
        }

    def _takes(self, segment: str, piece: str, journal: Mapping[str, Entry]) -> list[Json]:
        """What was sampled of a segment, by its take: seconds, and by what its frames are asked for, null for none.

        Args:
            segment, piece: digests of its take 0, latents and frames.
        """
        shown, found = dict[int, tuple[str, int]](), list[Json]()
        for name, entry in journal.items():
            if piece in (name, entry.original):
                shown[entry.take] = name, entry.frames
        for name, entry in journal.items():
            # One of an earlier version names no take 0: it is one.
            if segment in (name, entry.original):
                at, frames = shown.get(entry.take, (None, 0))
                found.append(
                    {"take": entry.take, "seconds": entry.seconds, "piece": at, "piece_frames": frames}
                )
        return sorted(found, key=lambda one: one["take"])

    def _speed(self, run: Run, plan: Plan) -> float | None:
        """Operations a second, the median of the segments that this folder sampled before; None where there is none."""
        speeds = [
            forward_flops(plan.folder.config, one.tokens) * one.evaluations / one.seconds
            for one in events_of(read_events(run.directory.metrics), _Sampled, "segment")
            if one.seconds > 0
        ]
        return median(speeds) if speeds else None

    def _busy(self, run: Run) -> bool:
        process = self.started.get(run.root.name)
        return (process is not None and process.poll() is None) or run.owner() is not None

    def _status(self, run: Run) -> Json:
        process = self.started.get(run.root.name)
        told: Json = {"running": self._busy(run), "stage": None, "error": None, "left": None}
        if told["running"]:
            told["stage"] = {"label": "starting", "done": 0, "total": None}
            for stage in events_of(read_events(run.root / PROGRESS), _Stage):
                told["stage"] = {name: getattr(stage, name) for name in ("label", "unit", "done", "total")}
                if stage.done and stage.total:
                    told["left"] = (time.time() - stage.began) / stage.done * (stage.total - stage.done)
            return told
        code = None if process is None else process.poll()
        if code not in (None, 0):
            stopped = code in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT)
            told["error"] = None if stopped else self._discreet(run, self._complaint(run, code))
            told["stopped"] = stopped
        return told

    def _complaint(self, run: Run, code: int | None) -> str:
        """What a run that failed said last."""
        lines = read_text(run.root / LOG, "what a run said").splitlines() if is_there(run.root / LOG) else []
        begun = [k for k, line in enumerate(lines) if line.startswith("wanedit: ")]
        said = "\n".join(lines[begun[-1] :] if begun else lines[-LOG_LINES:]).removeprefix("wanedit: ")
        return said or f"the run ended with exit code {code} and no word"

    def _discreet(self, run: Run, text: str) -> str:
        """Without the folders, which a page need not show."""
        for path, name in ((run.root, run.root.name), (self.folder, self.folder.name), (Path.home(), "~")):
            text = text.replace(f"{path}{os.sep}", "" if path == run.root else f"{name}/").replace(
                str(path), name
            )
        return text


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
    }
