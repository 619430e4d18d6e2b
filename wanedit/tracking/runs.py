"""How a run is tracked: under which id, with which configuration, what is logged at its end and measured later."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wanedit.files import digest, file_sha256
from wanedit.runtime import launch
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.record import FinishedRun
from wanedit.runtime.settings import RunSettings, TrackingSettings
from wanedit.tracking.backends import Cell, RunInfo, Scalar
from wanedit.tracking.guard import Tracking, identify, open_tracker

Say = Callable[[str], None]
# Of what the final video says of itself, which names no folders.
PREFIX = "wanedit_"


def track(
    config: RunSettings,
    directory: RunDirectory,
    world: launch.World,
    digests: Sequence[str],
    metadata: Mapping[str, str],
    say: Say | None,
) -> Tracking:
    """The tracking of a run; on other ranks than 0 one that does nothing. Every rank calls it.

    Args:
        digests: hashes of all that decides the pixels: the same ones are the same run, which goes on under its id.
        metadata: what the final video says of itself, and so what may leave this machine.
        say: where lines for the user go; None for nowhere.
    """
    key, root = digest({"digests": [*digests]})[:16], directory.root
    # One id for all ranks, decided once; only rank 0 opens a backend with it.
    run_id = launch.on_rank_zero(world, lambda: identify(config, root, key, config.force_regenerate))
    if world.rank:
        return Tracking.idle(RunInfo(run_id, root, config.job, "", "", {}))
    # The configuration that a final video carries, and what else it says of its making.
    said = {name.removeprefix(PREFIX): text for name, text in metadata.items() if name.startswith(PREFIX)}
    values = json.loads(said.pop("config")) | said
    return open_tracker(config, root, config.job, values, key, say or (lambda line: None))


def track_result(
    tracking: Tracking, directory: RunDirectory, digests: list[str], values: Mapping[str, Scalar]
) -> None:
    """Log what a finished run came to: summary, one row with its sheets, and the video by its content.

    Args:
        digests: of the run's segments, or of its one clip.
        values: numbers of the result.
    """

    def log() -> None:
        entries = Manifest(directory).read()
        seconds = sum(entries[name].seconds for name in digests if name in entries)
        results = {**values, "seconds": round(seconds, 3)}
        tracking.summary(results)
        video, run = directory.final, tracking.run
        # By path: a few letters that lead to it from the folder where the run's folder stands.
        row: dict[str, Cell] = {"run": run.run_id, "video": f"{directory.root.name}/{video.name}"}
        row["contact_sheet"] = directory.contact_sheet
        if directory.junctions.is_file():
            row["junctions"] = directory.junctions
        # To be played; once, for it may be large.
        if not tracking.has(content := file_sha256(video)):
            row["playable"] = video
        tracking.table("result", [{**row, **results}])
        # config.yaml names folders of this machine; what the video carries does not.
        config = json.dumps(dict(run.config), indent=1, ensure_ascii=False) + "\n"
        files = {"video" + video.suffix: video, "config.json": config}
        tracking.artifact(f"{run.job_type}-{run.run_id}", files, content)

    if tracking.active:
        tracking.follow()
        tracking.attempt(log)


def track_measures(
    settings: TrackingSettings, made: FinishedRun, root: Path, values: Mapping[str, Scalar], say: Say
) -> None:
    """Add what was measured of a finished run to the summary of the run that was tracked as it was made.

    Args:
        settings: the backend; what else they leave empty is as the run had it.
        root: the run's folder.
        say: where lines for the user go.
    """
    own, empty = made.config or RunSettings(job=made.job), TrackingSettings()
    names = [name for name in vars(empty) if getattr(settings, name) != getattr(empty, name)]
    config = replace(own, **{name: getattr(settings, name) for name in names})
    with track(
        config, RunDirectory(root, own.final_path), launch.World(), made.digests, made.metadata, say
    ) as run:
        run.summary(values)
