"""config.yaml: the settings that a run's folder was made with, and what a later run of it takes over."""

import os
from pathlib import Path
from typing import Any

import yaml

from wanedit.errors import InputError
from wanedit.rng import draw_seed
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.settings import RunSettings, canonical
from wanedit.wan.catalog import find_known

RECORD_MARK = "# Recorded by wanedit: the resolved configuration of this folder's run.\n"


def resolve_seed(config: RunSettings, directory: RunDirectory) -> int:
    """The run's base seed: the given one, the one that this folder's earlier run drew, or a fresh one."""
    if config.base_seed is not None and config.base_seed >= 0:
        return config.base_seed
    earlier = None if config.force_regenerate else _recorded_before("base_seed", config, directory)
    return draw_seed() if earlier is None else earlier


def resolve_threads(config: RunSettings, directory: RunDirectory) -> int:
    """Threads of each CPU process: the given number, that of this folder's earlier run, or all cores.

    The order in which a product is summed depends on the number of threads, and so do the last bits of the
    latents: one process, several ranks and a resumed run must agree on it.
    """
    earlier = _recorded_before("cpu_threads", config, directory)
    return config.cpu_threads or earlier or launch.all_cores()


def _recorded_before(name: str, config: RunSettings, directory: RunDirectory) -> int | None:
    record = _read_record(directory)
    # Records of before 0.2 do not say their job; only an edit has a source video.
    job = record.get("job", "edit" if "video" in record else "generate")
    if record and job != config.job:
        raise InputError(
            f"output {directory.root} holds a run of `wanedit {job}`, which would be overwritten; choose another output"
        )
    value = record.get(name)
    return value if isinstance(value, int) else None


def _read_record(directory: RunDirectory) -> dict[str, Any]:
    """The recorded configuration of this folder's earlier run; empty if there was none."""
    path = directory.config
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"output {directory.root}: {os.strerror(error.errno or 0)}") from None
    if not text.startswith(RECORD_MARK):
        raise InputError(f"{path} is not a record of wanedit and would be overwritten; choose another output")
    try:
        return canonical(dict(yaml.safe_load(text) or {}))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); move it away to start afresh") from None


def absolute_source(source: str) -> str:
    """A model's folder from anywhere; a known name as it is."""
    return source if find_known(source) else str(Path(source).expanduser().absolute())
