"""Editing a video through its edited keyframes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanedit.runtime.record import FinishedRun


def load_run(root: Path, record: dict[str, Any], folders: Sequence[Path] = ()) -> "FinishedRun":
    """What a complete edit holds, for `runtime.record.read_run`. Raises InputError for one that is not."""
    # Imported here: whoever reads the settings of a command line passes by.
    from wanedit.errors import InputError
    from wanedit.jobs.edit.config import EditConfig
    from wanedit.jobs.edit.plan import make_edit_plan
    from wanedit.jobs.edit.run import is_complete
    from wanedit.runtime.directory import Manifest, RunDirectory
    from wanedit.runtime.events import number, read_events
    from wanedit.runtime.record import FinishedRun, recorded_config
    from wanedit.video import read_frames

    config = recorded_config(EditConfig, record, root)
    plan, directory = make_edit_plan(config, folders), RunDirectory(root, config.final_path)
    if not is_complete(plan, directory):
        raise InputError(f"run: the edit of {root} is not complete for its inputs as they are; run it again")
    pictures, digest = plan.task.pictures, plan.task.digest
    events = read_events(directory.metrics)
    method, steps = recorded_steps(events, digest)
    done = [event for event in events if event.get("event") == "edited" and event.get("digest") == digest]
    return FinishedRun(
        "edit",
        read_frames(Manifest(directory).path(digest)),
        plan.fps,
        prompt=config.prompt,
        keyframes=dict(zip(plan.task.keyframe_indices, pictures.keyframes, strict=True)),
        reference=pictures.frames,
        method=method,
        steps=steps,
        seconds=number(done[-1].get("seconds")) if done else None,
        evaluations=number(done[-1].get("evaluations")) if done else None,
    )


def recorded_steps(
    events: Sequence[dict[str, Any]], digest: str
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The method's settings and the steps of the last run that finished the edit `digest`; empty where none did.

    A run that was cut short, or that found the edit complete, leaves events of its own, which do not count.
    """
    method, steps = {}, []
    found: tuple[dict[str, Any], tuple[dict[str, Any], ...]] = ({}, ())
    for event in events:
        match event.get("event"):
            case "start":
                method, steps = event.get("method"), []
                method = method if isinstance(method, dict) else {}
            case "step":
                steps.append(event)
            case "edited" if event.get("digest") == digest:
                found = method, tuple(steps)
    return found
