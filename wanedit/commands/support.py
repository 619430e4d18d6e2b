"""What the commands share: parsers over dataclasses, `--config FILE` overlays, messages, how to run again."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from wanedit.runtime.settings import canonical


def _with_own_names(load: Callable[[str], Any]) -> Callable[[str], Any]:
    """A YAML loader that understands the other names of settings, in files and in flags."""

    def loaded(text: str) -> Any:
        values = load(text)
        return canonical(values) if isinstance(values, dict) else values

    return loaded


set_loader("yaml", _with_own_names(get_loader("yaml")), (yaml.YAMLError,))


def new_parser(description: str, config: type | None = None) -> ArgumentParser:
    """A parser of one command; with `config`, of `--config FILE` and a flag for each field of that dataclass."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=description)
    if config is not None:
        parser.add_argument(
            "--config", action="config", help="YAML file of settings; repeatable, later ones win"
        )
        parser.add_class_arguments(config, as_group=False)
        allow_bare_flags(parser)
    return parser


def add_run_flags(parser: ArgumentParser) -> None:
    """--dry_run, --verbose and --quiet, which belong to the command and not to what it makes."""
    parser.add_argument("--dry_run", action="store_true", help="print the plan and stop")
    parser.add_argument("--verbose", action="store_true", help="print the plan, then run")
    parser.add_argument("--quiet", action="store_true", help="no messages, no progress bar")


def add_source(parser: ArgumentParser) -> None:
    """The video as the first word of a command, without a flag."""
    parser.add_argument(
        "source", nargs="?", type=str, default="", help="the same as --video, over which it wins"
    )


def allow_bare_flags(parser: ArgumentParser) -> None:
    """`--t5_cpu` means `--t5_cpu true`, which jsonargparse alone does not offer for typed fields."""
    for action in parser._actions:
        if getattr(action, "_typehint", None) in (bool, bool | None):
            action.nargs, action.const = "?", True


def unpack(settings: Any) -> tuple[dict[str, Any], list[Path]]:
    """The values of a command, and the folders of its --config files, where relative paths are looked up too."""
    values = settings.as_dict()
    files = [Path(str(getattr(path, "relative", path))) for path in values.pop("config", None) or []]
    if "source" in values:
        values["video"] = values.pop("source") or values["video"]
    return values, [file.parent for file in files]


def complain(message: str) -> None:
    """One error of the program, on standard error."""
    print(f"wanedit: {message}", file=sys.stderr)


def command_again() -> str:
    """The command line of this process, to be run again."""
    started = Path(sys.argv[0])
    names = {"wanedit": "wanedit", "__main__": f"{shlex.quote(sys.executable)} -m wanedit"}
    program = names.get(started.stem, f"{shlex.quote(sys.executable)} {shlex.quote(str(started))}")
    return " ".join([program, *map(shlex.quote, sys.argv[1:])])
