"""What the page asks, answered from the folders of runs. Every answer is plain JSON; nothing here knows Gradio.

A run is its folder. What the page changes is `board.yaml` in it, a file of settings as `--config` takes one; what was
made stands in the journal. Nothing is kept in memory that a killed server would lose, and two pages of one run see the
same files. The page names pictures by a hash, runs by the name of their folder, and no path at all.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import numpy as np
import yaml
from PIL import Image

from wanedit.board import edits, films
from wanedit.board.runs import (
    Run,
    called,
    film_of,
    finite,
    installed_models,
    is_run,
    named,
    pairs,
    picture_id,
)
from wanedit.board.worker import Progress
from wanedit.errors import InputError, WaneditError
from wanedit.files import (
    Json,
    atomic_path,
    file_sha256,
    is_there,
    read_text,
    system_errors,
    write_text,
)
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.report.measures import measure
from wanedit.report.record import listing
from wanedit.runtime.directory import Manifest
from wanedit.runtime.outputs import LOG_MARK
from wanedit.runtime.record import recorded_job
from wanedit.stylists.gemini.settings import find_key
from wanedit.video import load_image, read_frames, write_png
from wanedit.video.arrays import AnyFrame, pixels_sha256
from wanedit.video.source import open_source
from wanedit.wan.catalog import Sampling, find_known, locate, sampling_in

LOG, PROGRESS = "board.log", ".board.json"
DRAFT_MARK = "# Written by `wanedit board`. To run it by hand: wanedit {} --config board.yaml\n"
# What the page changes of a run, by its job: each says what it may set, and what the settings come to.
JOBS: dict[str, ModuleType] = {"generate": films, "edit": edits}
# Of settings that name what is registered: the names of the package's own, and no module.
NAMED = ("solver", "method", "controller")
FLOATS = ("shift", "guidance_scale", "source_guidance_scale", "alpha", "beta")
NAME = re.compile(r"[^\W_][\w .-]{0,79}")
MAX_PICTURE = 50_000_000  # pixels
MAX_KEYFRAMES = 1000
LOG_LINES = 8
STOP_WITHIN = 20.0  # seconds


class StaleError(InputError):
    """The draft has been changed by another page meanwhile."""


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
        changed = dict[Run, int]()
        for run in (Run(self.folder / name) for name in names):
            with suppress(FileNotFoundError):  # somebody removed it meanwhile
                if is_run(run.root) and run.job() in JOBS:
                    changed[run] = run.root.stat().st_mtime_ns
        found = sorted(changed, key=changed.__getitem__, reverse=True)
        return {
            "runs": [
                {"name": run.root.name, "job": run.job(), "running": run.owner() is not None} for run in found
            ],
            "only": self.only,
            "models": installed_models(),
            "joins": get_args(get_type_hints(GenerationConfig)["joins"]),
            "edit": edits.choices() | {"stylists": stylists()},
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
        if image.alpha is not None and run.job() == "edit":
            # Where a keyframe is transparent, the source stays.
            pixels = np.concatenate([image.pixels, image.alpha[..., None]], axis=-1)
        else:
            pixels = image.pixels
        height, width = pixels.shape[:2]
        return {"id": self._kept(run, pixels), "width": width, "height": height, "notes": list(image.notes)}

    def add_video(self, name: object, upload: Path) -> Json:
        """Take a video into a run's folder, to be edited; answers as `open`.

        Raises:
            InputError: it is no video, of too many pixels a frame, or the run is a film of pictures.
        """
        run = self.run(name)
        before = run.settings()
        if before.get("keyframes") and run.job() != "edit":
            raise InputError("this film is made of pictures; begin a new one to edit a video")
        clip = open_source(upload)
        count, height, width, _ = clip.frames.shape
        if height * width > MAX_PICTURE:
            raise InputError(f"the video has {height * width} pixels a frame; expected {MAX_PICTURE} at most")
        ending = (
            upload.suffix.lower() if re.fullmatch(r"\.[a-z0-9]{1,5}", upload.suffix.lower()) else ".video"
        )
        path = run.root / f"source_{file_sha256(upload)[:16]}{ending}"
        with system_errors(run.root), self.changing:
            run.root.mkdir(parents=True, exist_ok=True)
            shutil.move(upload, path)
            values = before | {"job": "edit", "video": str(path), "output": str(run.root)}
            most = sampling_of(called(values.get("model"))).max_frames
            # What a model is good for; the page says so, and offers the rest.
            values |= {"start": 0, "num_frames": most if count > most else None}
            self._keep(run, values | {"keyframes": listing(values.get("keyframes"))})
        return self.open(name)

    def style(self, name: object, frame: object, look: object) -> Json:
        """Have a frame of the source restyled, and those restyled before in the same look with it, so that they agree.

        Args:
            look: `stylist`, one of those offered, and `words` or `picture`, one that was added, or both.

        Returns:
            keyframes: pairs of a picture and its frame.

        Raises:
            InputError: a value that is none.
            WaneditError: of the stylist.
        """
        run = self.run(name)
        values, asked = run.settings(), dict(look) if isinstance(look, dict) else {}
        if asked.get("stylist") not in stylists():
            raise InputError(f"stylist is {asked.get('stylist')!r}; expected one of {', '.join(stylists())}")
        if not isinstance(frame, int) or not isinstance(asked.get("words", ""), str):
            raise InputError(f"frame is {frame!r}; expected a whole number, and words for the look")
        image = str(self.picture(name, asked["picture"])) if asked.get("picture") else None
        pictures = edits.restyled(run, values, frame, str(asked["stylist"]), asked.get("words", ""), image)
        return {"keyframes": [[self._kept(run, pixels), at] for at, pixels in sorted(pictures.items())]}

    def _kept(self, run: Run, pixels: np.ndarray) -> str:
        """Take a picture, RGB or with alpha, into a run's folder; returns what the page calls it."""
        place = run.root / "keyframes"
        with system_errors(place):
            place.mkdir(parents=True, exist_ok=True)
        path = place / f"{pixels_sha256(pixels)[:16]}.png"
        if not is_there(path):
            if pixels.shape[-1] == 3:
                write_png(path, pixels)
            else:
                with atomic_path(path) as partial:
                    Image.fromarray(pixels).save(partial, format="png")
        return picture_id(path)

    def start(self, name: object, draft: object, version: object) -> Json:
        """Begin, or go on with, what the page shows: the command line in a process of its own."""
        told = self.plan(name, draft, version)
        run = self.run(name)
        with self.changing:
            if self._busy(run):
                raise InputError("this film is being made already; wait for it, or cancel it")
            write_text(run.root / PROGRESS, json.dumps(asdict(self._foretold(run, told))))
            write_text(run.root / LOG, LOG_MARK)
            words = [run.job(), "--config", str(run.draft), "--output", str(run.root)]
            with (run.root / LOG).open("ab") as log:
                # A session of its own: closing the terminal of the board ends no run.
                self.started[run.root.name] = subprocess.Popen(
                    [sys.executable, "-m", "wanedit.board.worker", str(run.root / PROGRESS), *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
        return self._status(run)

    def _foretold(self, run: Run, told: Json) -> Progress:
        """What a run of a plan begins with: how long each stage may take, as they went here before, or else in the
        latest run of the model."""
        known = (Progress.read(one.root / PROGRESS).took for one in run.like(told.get("made_by", "")))
        took = next(filter(None, known), {})
        before, cost = Progress(began=time.time(), took=took), told.get("cost", {})
        if cost.get("seconds") is None:
            return before
        sampling = {JOBS[run.job()].SAMPLES: cost["seconds"] if cost["segments"] or cost["bridges"] else 0.0}
        units = {"frames": told["num_frames"], "segments": cost["pieces"]}
        return replace(before, expected=before.foretell(sampling, units))

    def cancel(self, name: object) -> Json:
        """Stop a run as Ctrl-C would; what is finished is kept."""
        run = self.run(name)
        process = self.started.get(run.root.name)
        pid = process.pid if process is not None and process.poll() is None else run.owner()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)  # SIGINT is not heard by what a script started in the background
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
            # Changes with the picture; null for none.
            "preview": str(shown[-1][0]) if (shown := previews(run)) else None,
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
                found, note = None, run.discreet(str(error))
            joins = found.metrics.get("junctions", {}) if found else {}
            self.measured = {film["id"]: {"joins": finite(joins), "note": note or ""}}
        return self.measured[film["id"]]

    def picture(self, name: object, picture: str) -> Path:
        """The file of a picture. Raises InputError where the run has none of the name."""
        found = self.run(name).pictures().get(picture)
        if found is None or not is_there(found):
            raise InputError(f"there is no picture {picture!r}")
        return found

    def preview(self, name: object) -> Path:
        """The latest picture of what is being sampled. Raises InputError where there is none."""
        shown = previews(self.run(name))
        if not shown:
            raise InputError("nothing is being sampled")
        return shown[-1][1]

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
        if piece == "source":
            frames = edits.source(run, run.settings()).frames
            if not 0 <= index < len(frames):
                raise InputError(f"frame {index} asked for, the source has frames 0 to {len(frames) - 1}")
            return frames[index]
        entries = Manifest(run.directory).read()
        if piece not in entries:
            raise InputError(f"there is no segment {piece!r}")
        return read_frames(run.directory.inside(entries[piece].file), [index])[0]

    def source(self, name: object) -> Path:
        """The source of an edit as a film that a browser plays. Raises InputError where there is none."""
        run = self.run(name)
        return edits.preview(run, run.settings())

    def changes(self, name: object, of: str, index: int) -> AnyFrame:
        """See `edits.changes`."""
        run = self.run(name)
        return edits.changes(run, run.settings(), of, index)

    def _changed(self, run: Run, draft: object) -> Json:
        """The settings that stand, with those of the page over them. Raises InputError for a value that is none."""
        if not isinstance(draft, dict):
            raise InputError("no draft; expected keyframes and settings")
        before, pictures, job = run.settings(), run.pictures(), run.job()
        if job not in JOBS:
            raise InputError(f"this is a run of `wanedit {job}`, which the page shows and does not change")
        given: Json = dict(draft["settings"]) if isinstance(draft.get("settings"), dict) else {}
        values, known = dict(before), JOBS[job]
        if called(given.get("model") or before.get("model")) != called(before.get("model")):
            values = {name: value for name, value in before.items() if name in known.OF_ANY_MODEL}
            given = {name: given[name] for name in given if name in (*known.OF_ANY_MODEL, "model")}
        if values.get("ckpt_dir"):
            given = {name: value for name, value in given.items() if name != "model"}
        for name, value in given.items():
            if name not in known.OPEN_FIELDS:
                raise InputError(f"{name} cannot be set here; expected one of {', '.join(known.OPEN_FIELDS)}")
            if name == "model" and value not in (*installed_models(), called(before.get("model"))):
                raise InputError(f"model is {value!r}; expected one of {', '.join(installed_models())}")
            plain = value in (None, before.get(name)) or re.fullmatch(r"[a-z+_0-9]+", str(value))
            if name in NAMED and not plain:
                raise InputError(f"{name} is {value!r}; expected the name of one of the package's")
            # JavaScript writes 3.0 as 3, and a segment's hash tells them apart.
            if name in FLOATS and type(value) is int:
                value = float(value)
            if value is None and name in ("method", "controller", "restore"):
                values.pop(name, None)
            else:
                values[name] = value
        keyframes = []
        for entry in listing(draft.get("keyframes"))[: MAX_KEYFRAMES + 1]:
            if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in pictures):
                raise InputError(
                    f"a keyframe is {entry!r}; expected a picture of this film and its seconds, or its frame"
                )
            keyframes.append([str(pictures[entry[0]]), entry[1]])
        if len(keyframes) > MAX_KEYFRAMES:
            raise InputError(f"more than {MAX_KEYFRAMES} keyframes; expected that many at most")
        if keyframes != [[str(path), at] for path, at in pairs(before)]:
            values.pop("numbers", None)  # which segments keep theirs is told by the plan
        subs = listing(values.get("sub_prompts"))
        if job == "generate" and not any(isinstance(sub, str) and sub.strip() for sub in subs):
            values["sub_prompts"] = []
        return values | {"job": job, "keyframes": keyframes, "output": str(run.root)}

    def _keep(self, run: Run, values: Mapping[str, object]) -> None:
        with system_errors(run.root):
            run.root.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
        write_text(run.draft, DRAFT_MARK.format(values["job"]) + text)

    def _told(self, run: Run, values: Json) -> Json:
        """What settings come to, or the error that stands in the way."""
        job, model = recorded_job(values) if values else "generate", called(values.get("model"))
        own, known = sampling_of(model), JOBS.get(job)
        told: Json = {
            "version": run.version(),
            "job": job,
            "keyframes": [],
            "settings": {},
            "resolved": {},
            "fps": own.fps,
            # Between pictures that are dropped: what the model is good for, and a second where nobody would wait.
            "spacing": (own.max_frames - 1) / own.fps if own.full_size else 1.0,
            "own": {name: getattr(own, name) for name in ("size", "fps", "num_inference_steps")},
            "presets": films.presets(own) if job == "generate" else [],
            "segments": [],
            "warnings": [],
            "error": None,
        }
        if known is None:
            return told
        fields = known.OPEN_FIELDS
        told["keyframes"] = known.keyframes_of(values)
        told["settings"] = {name: values[name] for name in fields if name in values} | {"model": model}
        told["resolved"] = {name: getattr(own, name, None) for name in fields}
        try:
            if values.get("video"):
                told["source"] = edits.shown_source(run, values)
                told["fps"], told["num_frames"] = told["source"]["fps"], told["source"]["frames"]
            if len(told["keyframes"]) < (2 if job == "generate" else 1):
                return told
            told |= known.planned(run, values)
            # Until the film is there, with all that is not sampling; None until a run has ended by which it is told.
            told["cost"]["whole"] = sum(self._foretold(run, told).expected.values()) or None
            return told
        except WaneditError as error:
            return told | {"error": named(run, values, str(error))}

    def _busy(self, run: Run) -> bool:
        process = self.started.get(run.root.name)
        return (process is not None and process.poll() is None) or run.owner() is not None

    def _status(self, run: Run) -> Json:
        process = self.started.get(run.root.name)
        told: Json = {"running": self._busy(run), "stage": None, "error": None, "left": None}
        if told["running"]:
            progress = Progress.read(run.root / PROGRESS)
            told["stage"] = {name: getattr(progress, name) for name in ("label", "unit", "done", "total")}
            if not progress.began:  # `Told.over` left no stage
                ours = process is not None and process.poll() is None
                told["stage"]["label"] = "ending" if ours else "at work elsewhere"
            told["left"], told["of"] = progress.left, "all" if progress.expected else "stage"
            return told
        code = None if process is None else process.poll()
        if code not in (None, 0):
            stopped = code in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT)
            told["error"] = None if stopped else run.discreet(self._complaint(run, code))
            told["stopped"] = stopped
        return told

    def _complaint(self, run: Run, code: int | None) -> str:
        """What a run that failed said last."""
        lines = read_text(run.root / LOG, "what a run said").splitlines() if is_there(run.root / LOG) else []
        begun = [k for k, line in enumerate(lines) if line.startswith("wanedit: ")]
        said = "\n".join(lines[begun[-1] :] if begun else lines[-LOG_LINES:]).removeprefix("wanedit: ")
        return said or f"the run ended with exit code {code} and no word"


def previews(run: Run) -> list[tuple[int, Path]]:
    """The pictures of what is being sampled, and no others, the latest last, each with its time; they come and go."""
    found = list[tuple[int, Path]]()
    for path in run.directory.unfinished():
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path))
    return sorted(found)


def sampling_of(model: str) -> Sampling:
    """What a model was made for; what is usual, for one that is not known."""
    known = find_known(model)
    if known is not None and known.bundled:
        return sampling_in(locate(model), known)
    return known.sampling if known else Sampling()


def stylists() -> list[str]:
    """Who may be asked for a keyframe: the one that needs no network, and Gemini where this machine has a key."""
    try:
        find_key()
    except InputError:
        return ["palette"]
    return ["palette", "gemini"]
