"""`wanedit edit`: an edited video from edited keyframes."""

from pathlib import Path
from typing import Any

from wanedit.commands.support import add_run_flags, add_source, command_again, complain, new_parser, unpack
from wanedit.run.edit_config import EditConfig

HELP = "an edited video from edited keyframes"
KEYS = [*EditConfig.__dataclass_fields__, "config", "dry_run", "verbose", "quiet"]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "Edit a video: its edited keyframes are spread over all of it. Methods: residual_corrected, "
        "sdedit, flowedit, flowalign, rf_inversion, first_frame, flf2v, hard_replacement, copy_source, warp.",
        EditConfig,
    )
    add_source(made)
    add_run_flags(made)
    return made


def run(settings: Any) -> int:
    """Edit, or print the plan. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    config = EditConfig(**values)
    if dry_run or verbose:
        from wanedit.run.report_edit import print_edit_plan

        print_edit_plan(config, folders)
    return 0 if dry_run else _edit(config, folders, quiet)


def _edit(config: EditConfig, folders: list[Path], quiet: bool) -> int:
    """Edit; interrupted, print how to do it again."""
    from wanedit.run import launch
    from wanedit.run.edit import edit

    try:
        result = edit(config, folders, verbose=not quiet)
    except launch.Interrupted as signal:
        complain(
            f"{signal}: nothing partial is left in {config.folder}. Edit again with:\n  {command_again()}"
        )
        return signal.exit_code
    if not quiet:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_indices)}")
    return 0
