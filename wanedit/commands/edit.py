"""`wanedit edit`: an edited video from edited keyframes, or from a style that makes them."""

from jsonargparse import Namespace

from wanedit.commands.support import (
    Parser,
    add_run_flags,
    add_settings,
    add_source,
    new_parser,
    resumable,
    unpack,
)
from wanedit.commands.work import Launcher, add_launcher, run_many
from wanedit.errors import InputError
from wanedit.jobs.edit.config import EditConfig, check_output, find_inputs
from wanedit.jobs.integrated import EditStyle, styling_of
from wanedit.jobs.style.config import parts_of
from wanedit.runtime.launch import current_world, require_driver

HELP = "an edited video from edited keyframes, or from a style"
ORDER = 3


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Edit a video: its edited keyframes spread over all of it. --style.image or --style.description makes them.",
        EditConfig,
    )
    add_settings(made, EditStyle, "style")
    add_source(made, many=True)
    add_launcher(made, jobs=True)
    add_run_flags(made)
    return made


def run(settings: Namespace) -> int:
    """Style where that is asked, then edit; or print the plans. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    launcher = Launcher.of(values, jobs=True)
    if (code := run_many("integrated", values, folders, launcher, dry_run, verbose, quiet)) is not None:
        return code
    launcher = launcher.of_one("one video")
    style = EditStyle(**parts_of(values.pop("style")))
    config = EditConfig(**values)
    if style.asked and current_world().size > 1:
        raise InputError(
            "a style is asked for under torchrun; expected keyframes, which wanedit style makes first"
        )
    if style.asked:
        from wanedit.jobs.style.plan import find_style

        find_style(styling_of(style, config), folders)
    found = find_inputs(config, folders, styled=style.asked)
    check_output(config, found.video, found.keyframes)
    if not dry_run:
        require_driver(config)
    if dry_run or verbose:
        from wanedit.jobs.edit.plan import print_edit_plan

        if style.asked:
            from wanedit.jobs.integrated import unstyled
            from wanedit.jobs.style.plan import print_style_plan

            styling = styling_of(style, config)
            print_style_plan(styling, folders, of_an_edit=True)
            with unstyled(styling, config, folders) as rehearsal:
                print_edit_plan(rehearsal, folders)
        else:
            print_edit_plan(config, folders)
    if dry_run:
        return launcher.start(config.folder, dry_run, quiet)
    from wanedit.jobs.edit.run import begin, edit

    with resumable(
        f"nothing partial is left in {config.folder}. Edit again with",
        f"what was answered is kept in {config.folder}. Go on with",
    ):
        if style.asked:
            from wanedit.jobs.integrated import with_styled_keyframes

            config = with_styled_keyframes(style, config, folders, verbose=not quiet)
        if launcher.launcher != "local":
            begin(config, folders, verbose=not quiet)
            return launcher.start(config.folder, dry_run, quiet)
        result = edit(config, folders, verbose=not quiet)
    if not quiet and current_world().rank == 0:
        print(result.told)
    return 0
