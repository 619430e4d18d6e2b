"""`wanedit work`: one more worker for a generation that others are at, or that was stopped."""

from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser, resumable
from wanedit.errors import InputError
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.launch import current_world, require_driver

HELP = "help a generation that is at work, or go on with one, from its folder alone"
ORDER = 2


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Take tasks of a generation that its folder still lacks, beside all others who do: in another terminal, on "
        "another machine that sees the folder, in every task of a SLURM array, or under torchrun. Whoever is last "
        "stitches. Settings are those that the folder has on record; the device is this process's own."
    )
    made.add_argument("run", type=str, help="the run's folder, or its finished video")
    made.add_argument("--gpu", type=int, default=None, help="which device; the first one unless it is given")
    made.add_argument("--quiet", action="store_true", help="no messages, no progress bar")
    return made


def run(settings: Namespace) -> int:
    """Work until the run is complete. Returns the exit code."""
    from wanedit.runtime.record import read_settings, recorded_config, recorded_job
    from wanedit.runtime.settings import canonical

    root = run_folder(Path(settings.run))
    record = canonical(read_settings(root / "config.yaml"))
    if (job := recorded_job(record)) != "generate":
        raise InputError(f"run: {root} is of `wanedit {job}`, which is one worker's; expected a generation")
    config = recorded_config(GenerationConfig, record, root)
    # As many to a sample as in the run on record, where this launch has them.
    together = config.sequence_parallel if current_world().size % config.sequence_parallel == 0 else 1
    config = replace(
        config,
        num_gpus=1,
        gpu_ids=[] if settings.gpu is None else [settings.gpu],
        offload_model=None,
        sequence_parallel=together,
    )
    require_driver(config)
    from wanedit.jobs.generate.run import generate

    with resumable(f"finished segments are kept in {root}. Go on with"):
        result = generate(config, verbose=not settings.quiet)
    if not settings.quiet and current_world().rank == 0:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_frames)}")
    return 0
