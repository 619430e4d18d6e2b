"""`wanedit edit`: an edited video from edited keyframes, or from a style that makes them."""

from pathlib import Path
from typing import Any

from wanedit.commands.support import (
    add_run_flags,
    add_source,
    allow_bare_flags,
    command_again,
    complain,
    new_parser,
    unpack,
)
from wanedit.errors import ServiceError
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.integrated.styled import EditStyle, styling_of
from wanedit.jobs.style.config import parts_of

HELP = "an edited video from edited keyframes, or from a style"
KEYS = [
    *EditConfig.__dataclass_fields__,
    *(f"style.{name}" for name in EditStyle.__dataclass_fields__),
    "config",
    "dry_run",
    "verbose",
    "quiet",
]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "Edit a video: its edited keyframes are spread over all of it; with --style.image or --style.description they "
        "are made first. Methods: residual_corrected, sdedit, flowedit, flowalign, rf_inversion, first_frame, flf2v, "
        "hard_replacement, copy_source, warp.",
        EditConfig,
    )
    made.add_class_arguments(EditStyle, "style")
    allow_bare_flags(made)
    add_source(made)
    add_run_flags(made)
    return made


def run(settings: Any) -> int:
    """Style where that is asked, then edit; or print the plans. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    style = EditStyle(**parts_of(values.pop("style")))
    config = EditConfig(**values)
    if dry_run or verbose:
        _print_plans(style, config, folders)
    return 0 if dry_run else _edit(style, config, folders, quiet)


def _print_plans(style: EditStyle, config: EditConfig, folders: list[Path]) -> None:
    from wanedit.jobs.edit.show import print_edit_plan

    if not style.asked:
        print_edit_plan(config, folders)
        return
    from wanedit.jobs.integrated.styled import unstyled
    from wanedit.jobs.style.plan import print_style_plan

    styling = styling_of(style, config)
    print_style_plan(styling, folders)
    with unstyled(styling, config, folders) as rehearsal:
        print_edit_plan(rehearsal, folders)


def _edit(style: EditStyle, config: EditConfig, folders: list[Path], quiet: bool) -> int:
    """Style and edit; interrupted, or left by the service, print how to go on."""
    from wanedit.jobs.edit.run import edit
    from wanedit.runtime import launch

    try:
        if style.asked:
            from wanedit.jobs.integrated.styled import with_styled_keyframes

            config = with_styled_keyframes(style, config, folders, verbose=not quiet)
        result = edit(config, folders, verbose=not quiet)
    except launch.Interrupted as signal:
        complain(
            f"{signal}: nothing partial is left in {config.folder}. Edit again with:\n  {command_again()}"
        )
        return signal.exit_code
    except ServiceError as error:
        complain(f"{error}\nwhat was answered is kept in {config.folder}. Go on with:\n  {command_again()}")
        return error.exit_code
    if not quiet:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_indices)}")
    return 0
