"""`wanedit generate`: a long video through timed keyframes."""

from jsonargparse import Namespace

from wanedit.commands.support import Parser, add_run_flags, new_parser, resumable, unpack
from wanedit.commands.work import Launcher, add_launcher
from wanedit.errors import InputError
from wanedit.jobs.generate.config import GenerationConfig, check_output, find_keyframes
from wanedit.runtime.launch import current_world, require_driver

HELP = "a long video through timed keyframes"
ORDER = 1


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Make one long video through timed keyframes. An interrupted run resumes by itself: run it again.",
        GenerationConfig,
    )
    add_launcher(made)
    add_run_flags(made)
    return made


def run(settings: Namespace) -> int:
    """Generate, or print the plan. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    launcher = Launcher.of(values)
    config = GenerationConfig(**values)
    if not config.keyframes:
        raise InputError(
            'no keyframes; expected --keyframes "a.png:0.0,b.png:3.0" or keyframes in a --config file'
        )
    check_output(config, find_keyframes(config, folders), folders)
    if dry_run:
        from wanedit.jobs.generate.plan import print_plan

        print_plan(config, folders)
        return launcher.start(config.folder, dry_run, quiet)
    require_driver(config)
    from wanedit.jobs.generate.run import begin, generate

    with resumable(f"finished segments are kept in {config.folder}. Resume with"):
        if launcher.launcher != "local":
            begin(config, folders, verbose=not quiet)
            return launcher.start(config.folder, dry_run, quiet)
        result = generate(config, folders, verbose=not quiet, full_plan=verbose and not quiet)
    if not quiet and current_world().rank == 0:
        print(result.told)
    return 0
