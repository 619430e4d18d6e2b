"""`wanedit style`: edited keyframes from a style."""

from pathlib import Path
from typing import Any

from wanedit.commands.support import add_run_flags, add_source, command_again, complain, new_parser, unpack
from wanedit.errors import ServiceError
from wanedit.jobs.style.config import StyleConfig, style_config

HELP = "edited keyframes from a picture or words"
KEYS = [
    *StyleConfig.__dataclass_fields__,
    "style.image",
    "style.description",
    "config",
    "out",
    "dry_run",
    "verbose",
    "quiet",
]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "Take keyframes from a video and restyle them after a picture or a description. The folder that comes out "
        "is what `wanedit edit VIDEO --keyframes FOLDER` reads. Run again, it goes on where it stopped.",
        StyleConfig,
    )
    add_source(made)
    add_run_flags(made)
    made.add_argument("--out", type=str, default="", help="the same as --output, over which it wins")
    return made


def run(settings: Any) -> int:
    """Restyle, or print the plan. Returns the exit code."""
    values, folders = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    out = values.pop("out")
    config = style_config({**values, **({"output": out} if out else {})})
    if dry_run or verbose:
        from wanedit.jobs.style.plan import print_style_plan

        print_style_plan(config, folders)
    return 0 if dry_run else _style(config, folders, quiet)


def _style(config: StyleConfig, folders: list[Path], quiet: bool) -> int:
    """Restyle; stopped by a signal or by the service, print how to go on."""
    from wanedit.jobs.style.run import style
    from wanedit.runtime import launch

    try:
        result = style(config, folders, verbose=not quiet)
    except launch.Interrupted as signal:
        complain(f"{signal}: {_resume(config)}")
        return signal.exit_code
    except ServiceError as error:
        complain(f"{error}\n{_resume(config)}")
        return error.exit_code
    if not quiet:
        print(f"{result.folder}: {len(result.indices)} keyframes at {list(result.indices)}")
        print(f"{result.contact_sheet}: source over result")
    return 0


def _resume(config: StyleConfig) -> str:
    return f"what was answered is kept in {config.folder}. Resume with:\n  {command_again()}"
