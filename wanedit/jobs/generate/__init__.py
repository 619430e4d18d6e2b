"""Generating a video through its keyframes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wanedit.runtime.record import FinishedRun


def load_run(root: Path, record: dict[str, Any], folders: Sequence[Path] = ()) -> "FinishedRun":
    """What a complete generation holds, for `runtime.record.read_run`. Raises InputError for one that is not."""
    # Imported here: whoever reads the settings of a command line passes by.
    from fractions import Fraction

    import numpy as np

    from wanedit.errors import InputError
    from wanedit.jobs.generate.assemble import final_frames
    from wanedit.jobs.generate.config import GenerationConfig
    from wanedit.jobs.generate.plan import make_plan, remaining
    from wanedit.runtime.directory import Manifest, RunDirectory
    from wanedit.runtime.record import FinishedRun, recorded_config

    config = recorded_config(GenerationConfig, record, root)
    plan, directory = make_plan(config, folders), RunDirectory(root, config.final_path)
    if missing := remaining(plan, directory):
        raise InputError(
            f"run: {len(missing)} of {len(plan.tasks)} segments of {root} are not complete for their inputs as they "
            "are; run it again"
        )
    places = plan.timeline.keyframe_frames
    entries = Manifest(directory).read()
    return FinishedRun(
        "generate",
        np.stack(list(final_frames(plan, directory))),
        Fraction(plan.timeline.fps),
        prompt=config.prompt,
        keyframes=dict(zip(places, (image.pixels for image in plan.keyframes), strict=True)),
        junctions=tuple(places[1:-1]),
        seconds=sum(entries[task.digest].seconds for task in plan.tasks),
    )
