"""`wanedit generate`: a long video through timed keyframes."""

from pathlib import Path
from typing import Any

from wanedit.commands.support import add_run_flags, command_again, complain, new_parser, unpack
from wanedit.errors import InputError
from wanedit.jobs.generate.config import GenerationConfig

HELP = "a long video through timed keyframes"
KEYS = [*GenerationConfig.__dataclass_fields__, "config", "dry_run", "verbose", "quiet"]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "Make one long video through timed keyframes. An interrupted run resumes by itself: run it again.",
        GenerationConfig,
    )
    add_run_flags(made)
    return made


def run(settings: Any) -> int:
    """Generate, or print the plan. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    config = GenerationConfig(**values)
    if not config.keyframes:
        raise InputError(
            'no keyframes; expected --keyframes "a.png:0.0,b.png:3.0" or keyframes in a --config file'
        )
    if dry_run:
        from wanedit.jobs.generate.show import print_plan

        print_plan(config, folders)
        return 0
    return _generate(config, folders, "quiet" if quiet else "plan" if verbose else "progress")


def _generate(config: GenerationConfig, folders: list[Path], talk: str) -> int:
    """Generate; interrupted, print how to resume."""
    from wanedit.jobs.generate.run import generate
    from wanedit.runtime import launch

    try:
        result = generate(config, folders, verbose=talk != "quiet", full_plan=talk == "plan")
    except launch.Interrupted as signal:
        complain(
            f"{signal}: finished segments are kept in {config.folder}. Resume with:\n  {command_again()}"
        )
        return signal.exit_code
    if talk != "quiet" and launch.current_world().rank == 0:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_frames)}")
    return 0
