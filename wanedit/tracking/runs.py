"""How an edit and a generation are tracked: under which id, with which configuration, and what is logged at the end."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wanedit.files import file_sha256
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.hashing import digest
from wanedit.runtime.journal import Manifest
from wanedit.runtime.settings import RunSettings
from wanedit.tracking.handle import Tracking
from wanedit.tracking.opening import identify, open_tracker
from wanedit.tracking.tracker import Cell, RunInfo, Scalar

Say = Callable[[str], None]
# What the final video says of itself, see `metadata` of edit.py and assemble.py: of paths the last names only.
CONFIG, PREFIX = "wanedit_config", "wanedit_"


def track(
    config: RunSettings,
    directory: RunDirectory,
    world: launch.World,
    digests: list[str],
    metadata: Mapping[str, str],
    say: Say | None,
) -> Tracking:
    """The tracking of a run; on other ranks than 0 one that does nothing. Every rank calls it.

    Args:
        digests: hashes of all that decides the pixels: the same ones are the same run, which goes on under its id.
        metadata: what the final video says of itself, and so what may leave this machine.
        say: where lines for the user go; None for nowhere.
    """
    key, job = digest({"digests": digests})[:16], config.job
    told = say or (lambda line: None)
    # One id for all ranks, decided once; only rank 0 opens a backend with it.
    run_id = launch.on_rank_zero(
        world, lambda: identify(config, directory.root, key, config.force_regenerate)
    )
    if world.rank == 0:
        return open_tracker(config, directory.root, job, shown_config(metadata), key, told)
    return _elsewhere(run_id, directory.root, job)


def shown_config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The configuration that a final video carries, and what else it says of its making."""
    values = json.loads(metadata[CONFIG])
    others = {name.removeprefix(PREFIX): text for name, text in metadata.items() if name.startswith(PREFIX)}
    return values | {name: text for name, text in others.items() if name != "config"}


def track_result(
    tracking: Tracking, directory: RunDirectory, digests: list[str], values: Mapping[str, Scalar]
) -> None:
    """Log what a finished run came to: summary, one row with its sheets, and the video by its content.

    Args:
        digests: of the run's segments, or of its one clip.
        values: numbers of the result.
    """
    if not tracking.active:
        return
    tracking.follow()
    tracking.attempt(lambda: _log_result(tracking, directory, digests, values))


def _log_result(
    tracking: Tracking, directory: RunDirectory, digests: list[str], values: Mapping[str, Scalar]
) -> None:
    entries = Manifest(directory).read()
    seconds = sum(entries[name].seconds for name in digests if name in entries)
    results = {**values, "seconds": round(seconds, 3)}
    tracking.summary(results)
    video = directory.final
    # By path: a few letters that lead to it from the folder where the run's folder stands.
    row: dict[str, Cell] = {"run": tracking.run.run_id, "video": f"{directory.root.name}/{video.name}"}
    sheets: dict[str, Cell] = {"contact_sheet": directory.contact_sheet}
    if directory.junctions.is_file():
        sheets["junctions"] = directory.junctions
    tracking.table("result", [{**row, **sheets, **results}])
    # config.yaml names folders of this machine; what the video carries does not.
    config = json.dumps(dict(tracking.run.config), indent=1, ensure_ascii=False) + "\n"
    files = {"video" + video.suffix: video, "config.json": config}
    tracking.artifact(f"{tracking.run.job_type}-{tracking.run.run_id}", files, file_sha256(video))


def _elsewhere(run_id: str, folder: Path, job: str) -> Tracking:
    """Tracking of a rank that logs nothing and writes nothing."""
    return Tracking.idle(RunInfo(run_id, folder, job, "", "", {}))
