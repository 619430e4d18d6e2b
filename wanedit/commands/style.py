"""`wanedit style`: edited keyframes from a style."""

from jsonargparse import Namespace

from wanedit.commands.support import Parser, add_run_flags, add_source, new_parser, resumable, unpack
from wanedit.commands.work import Launcher, add_launcher, run_many
from wanedit.jobs.style.config import StyleConfig, style_config

HELP = "edited keyframes from a picture or words"
ORDER = 2


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Take keyframes from a video and restyle them after a picture or a description. The folder that comes out "
        "is what `wanedit edit VIDEO --keyframes FOLDER` reads. Run again, it goes on where it stopped.",
        StyleConfig,
    )
    add_source(made, many=True)
    add_launcher(made, jobs=True)
    add_run_flags(made)
    return made


def run(settings: Namespace) -> int:
    """Restyle, or print the plan. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    launcher = Launcher.of(values, jobs=True)
    if (code := run_many("style", values, folders, launcher, dry_run, verbose, quiet)) is not None:
        return code
    launcher.only_here("the keyframes of one video")
    config = style_config(values)
    if dry_run or verbose:
        from wanedit.jobs.style.plan import print_style_plan

        print_style_plan(config, folders)
    if dry_run:
        return 0
    from wanedit.jobs.style.run import style

    kept = f"what was answered is kept in {config.folder}. Resume with"
    with resumable(kept, kept):
        result = style(config, folders, verbose=not quiet)
    if not quiet:
        print(f"{result.folder}: keyframes at {list(result.indices)}")
        print(f"{result.contact_sheet}: source over result")
    return 0
