"""config.yaml: the settings that a run's folder was made with, what a later run of it takes over, and what a finished
run holds for whoever measures or shows it.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from jaxtyping import Bool

from wanedit.errors import InputError
from wanedit.files import Json, at_home, is_there, read_text, read_yaml, texts, write_text
from wanedit.lit import comes_from_outside
from wanedit.outside import folders_of
from wanedit.registry import Registry
from wanedit.rng import draw_seed
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import Event, append_event, read_events
from wanedit.runtime.outputs import RECORD_MARK
from wanedit.runtime.settings import (
    MODEL_FIELDS,
    IsDataclass,
    PlainValues,
    RunSettings,
    SampledSettings,
    TrackingSettings,
    canonical,
    check_values,
)
from wanedit.video.arrays import AnyFrame, Clip, FrameSequence
from wanedit.wan.catalog import find_known, locate_lora

Config = TypeVar("Config", bound=PlainValues)

# Of the process and its machine: those who make one video together may have each their own.
OWN = (
    "num_gpus",
    "gpu_ids",
    "sequence_parallel",
    "offload_model",
    "t5_cpu",
    "fit",
    *TrackingSettings.__dataclass_fields__,
)
ONCE = {"force_regenerate": False, "resume_from": None}


def resolve_seed(config: RunSettings, directory: RunDirectory) -> int:
    """The run's base seed: the given one, the one that this folder's earlier run drew, or a fresh one."""
    if config.base_seed is not None and config.base_seed >= 0:
        return config.base_seed
    # Made anew with the same seed, it would come out the same.
    earlier = None if config.force_regenerate else _recorded_before("base_seed", config, directory)
    return draw_seed() if earlier is None else earlier


def resolve_threads(config: RunSettings, directory: RunDirectory) -> int:
    """Threads of each CPU process: the given number, that of this folder's earlier run, or all cores.

    The order in which a product is summed depends on the number of threads, and so do the last bits of the
    latents: one process, several ranks and a resumed run must agree on it.
    """
    earlier = _recorded_before("cpu_threads", config, directory)
    return config.cpu_threads or earlier or launch.all_cores()


def resolve_attention(config: SampledSettings, directory: RunDirectory) -> str:
    """Who computes attention: who is named, or for "auto" whoever did in this folder's earlier run, so that a package
    that was installed since does not make all of it anew."""
    if (
        config.attention != "auto"
        or config.force_regenerate
        or not (earlier := own_record(config.job, directory))
    ):
        return config.attention
    # Before it could be chosen, it was sdpa.
    recorded = earlier.get("attention", "sdpa")
    return recorded if isinstance(recorded, str) else config.attention


def _recorded_before(name: str, config: RunSettings, directory: RunDirectory) -> int | None:
    value = own_record(config.job, directory).get(name)
    return value if isinstance(value, int) else None


def own_record(job: str, directory: RunDirectory) -> Json:
    """The configuration of this folder's earlier run; empty if there was none.

    Raises:
        InputError: it is of another job, which would be overwritten, or is no record.
    """
    record = _read_record(directory)
    if record and (other := recorded_job(record)) != job:
        raise InputError(
            f"output {directory.root} holds a run of the job {other}, which would be overwritten; choose another output"
        )
    return record


def _read_record(directory: RunDirectory) -> Json:
    """The recorded configuration of this folder's earlier run; empty if there was none."""
    path = directory.config
    if not is_there(path):
        return {}
    text = read_text(path, "a record of wanedit")
    if not text.startswith(RECORD_MARK):
        raise InputError(
            f"{path} is not a record of wanedit and would be overwritten; choose another output, or "
            "move it away"
        )
    return canonical(read_settings(path))


def write_record(directory: RunDirectory, config: IsDataclass) -> None:
    """Write config.yaml, see `recorded`."""
    text = yaml.safe_dump(recorded(config), sort_keys=False, allow_unicode=True)
    write_text(directory.config, RECORD_MARK + text)


def record_start(directory: RunDirectory, config: IsDataclass, **about: object) -> None:
    """Write down that a run starts, with what else is known `about` it, and its settings for a later run."""
    from wanedit import __version__

    started: Event = {
        "event": "start",
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "wanedit": __version__,
    }
    if isinstance(config, RunSettings):
        started |= {"seed": config.base_seed, "cpu_threads": config.cpu_threads}
    # The record first: it says whose the other files are, should the first line be torn.
    write_record(directory, config)
    append_event(directory.metrics, started | about)


def another_run(config: RunSettings | None, digests: Sequence[str], directory: RunDirectory) -> str:
    """In what the run that this folder was last started for is another than this one, in words; "" for the same.

    Args:
        config: None for a run of which the digests say all that counts.
        digests: of all that this one makes.
    """
    from wanedit import __version__

    starts = [event for event in read_events(directory.metrics) if event.get("event") == "start"]
    if not starts:
        return "no run was started there"
    if (theirs := starts[-1].get("wanedit")) != __version__:
        return f"its wanedit is {theirs}, this one {__version__}"
    record: Json = {} if config is None else own_record(config.job, directory)
    own = (
        {}
        if config is None
        else canonical(yaml.safe_load(yaml.safe_dump(recorded(config), allow_unicode=True)))
    )
    for name in own:
        if name not in OWN and own[name] != record.get(name):
            return f"its {name} is {record.get(name)!r}, here it is {own[name]!r}"
    if starts[-1].get("keeps") != [*digests]:
        return "its model's files, pictures or kind of device are others"
    return ""


def recorded(config: IsDataclass) -> Json:
    """The settings as a later run, from whatever folder, should read them.

    What was asked for this run alone, to make things anew, is left out.
    """
    values = asdict(config)
    values |= {name: once for name, once in ONCE.items() if name in values}
    values["output"] = str(at_home(values["output"]).absolute())
    for name in MODEL_FIELDS:
        # A name stays one, of a repository in the hub's cache, too.
        source = values.get(name)
        if (
            source
            and os.path.exists(at_home(source))
            and not (find_known(source) or comes_from_outside(source))
        ):
            values[name] = str(at_home(source).absolute())
    if isinstance(config, RunSettings):
        values["lora"] = [
            str(replace(one, path=at_home(locate_lora(one.path)).absolute())) for one in config.loras
        ]
    if "module_folders" in values:
        given = [str(at_home(folder).absolute()) for folder in values["module_folders"]]
        values["module_folders"] = list(dict.fromkeys([*given, *folders_of(texts(values))]))
    return values


def recorded_job(record: Mapping[str, object]) -> str:
    """The job that a record belongs to. Records of before 0.2 do not say it; only an edit has a source video."""
    return str(record.get("job", "edit" if "video" in record else "generate"))


@dataclass(frozen=True, eq=False)
class Repaired:
    """What became of joins that were tried again.

    Attributes:
        joins: frame -> what was measured `before` and `after`, and how many `attempts` it took.
        video: the film as it was before, as long as the run's; None where its frames are gone.
    """

    joins: Mapping[int, Json]
    video: Clip | None


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """What a complete run holds for whoever measures or shows it, whatever job made it.

    Attributes:
        video: uint8 (T, H, W, 3), before lossy encoding; what is long had better stay in its file, see `FrameSequence`.
        prompt: what the video shows.
        keyframes: frame -> picture that the video should show there, of the video's size.
        junctions: frames at which pieces of the video are joined.
        reference: the source of an edit, as long and as large as the video; None for what was made from nothing.
        mask: (T, H, W), where the run may have changed the reference; None for everywhere.
        method, steps: the settings of an edit's method, and its record of every step, as in metrics.jsonl.
        seconds, evaluations: wall time of sampling and decoding, and of the network; None where no run recorded them.
        repaired: joins that were tried again; None where none was.
        config, digests, metadata: its settings, the hashes of all that decides its pixels, and what its video says of
            itself: by which trackers know it. None and empty for a job that is not tracked.
    """

    job: str
    video: Clip
    fps: Fraction
    prompt: str = ""
    keyframes: dict[int, AnyFrame] = field(default_factory=dict)
    junctions: tuple[int, ...] = ()
    reference: Clip | None = None
    mask: Bool[np.ndarray, "t h w"] | FrameSequence | None = None
    method: Json = field(default_factory=dict)
    steps: tuple[Event, ...] = ()
    seconds: float | None = None
    evaluations: float | None = None
    repaired: Repaired | None = None
    config: RunSettings | None = None
    digests: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


# (folder, its record, folders of relative paths) -> what it holds. The package's own jobs offer it as
# `wanedit.jobs.<job>.load_run`, other packages in the entry points `wanedit.jobs`.
LoadRun = Callable[[Path, Json, Sequence[Path]], FinishedRun]
JOBS: Registry[LoadRun] = Registry("job")


def read_run(root: Path, folders: Sequence[Path] = ()) -> FinishedRun:
    """What a complete run holds, loaded by the job that its record names; its inputs must be where they were.

    Args:
        root: the run's folder, with its config.yaml.
        folders: where its relative paths are looked up after the current folder.

    Raises:
        InputError: no run, one that is not complete or whose inputs have gone or changed, or of an unknown job.
        MissingWeightsError: its model is not on this machine: the hash of the run holds the model's.
    """
    path = root / "config.yaml"
    record = read_settings(path)
    job = recorded_job(record)
    load: LoadRun | None = job_part(job, "load_run")
    if load is None and job in JOBS:
        load = JOBS[job]
    if load is None:
        raise InputError(f"run: {path} is of the job {job!r}, whose runs nothing installed here can read")
    return load(root, canonical(record), folders)


def job_part(job: str, name: str) -> Any:
    """What `wanedit.jobs.<job>` offers under a name; None where there is no such job, or it offers none."""
    own = f"wanedit.jobs.{job}"
    if not job.isidentifier() or importlib.util.find_spec(own) is None:
        return None
    return getattr(importlib.import_module(own), name, None)


def read_settings(path: Path) -> Json:
    """The settings of a config.yaml, as they were recorded. Raises InputError where it holds none."""
    values = read_yaml(path, "a record of wanedit")
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise InputError(f"{path}: holds no settings; expected a record of wanedit")
    return values


def recorded_config(kind: type[Config], record: Mapping[str, object], root: Path) -> Config:
    """The settings of a record.

    Raises:
        InputError: a name that is none of theirs, or a value of another type or range.
    """
    unknown = sorted(set(record) - set(kind.__dataclass_fields__))
    if unknown:
        raise InputError(f"run: {root / 'config.yaml'} has {unknown[0]!r}, which this version does not know")
    values: Json = check_values(kind, record)
    return kind(**values)
