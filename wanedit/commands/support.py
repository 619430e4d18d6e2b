"""What the commands share: parsers over dataclasses, `--config FILE` overlays, messages, how to run again."""

import functools
import json
import operator
import os
import re
import shlex
import sys
import textwrap
from argparse import SUPPRESS, Action, HelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from types import UnionType
from typing import IO, Any, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from wanedit import commands
from wanedit.errors import InputError, ServiceError, WaneditError
from wanedit.files import Json, reading
from wanedit.interrupts import Interrupted, speaks
from wanedit.runtime.inputs import with_model
from wanedit.runtime.launch import current_world
from wanedit.runtime.settings import (
    Everyday,
    Registered,
    Repeated,
    canonical,
    field_hints,
    plain_type,
    words_for,
)

# Characters of a line of the short help.
WIDTH = 110

read_yaml: Callable[[str], object] = get_loader("yaml")


# The text of the config file that is being read, and the parser that reads it: only there are the keys of a mapping
# names of settings. In a flag's value, such as `--method_options '{"seed": 1}'`, they are somebody else's.
_reading: ContextVar["tuple[str, Parser] | None"] = ContextVar("reading", default=None)


def load_yaml(text: str) -> object:
    """YAML; in a config file the other names of settings are understood, and presets."""
    try:
        with reading("value", "YAML"):
            values = read_yaml(text)
    except InputError as error:  # jsonargparse takes what is no YAML for a text
        raise yaml.YAMLError(str(error)) from error
    content, parser = _reading.get() or (None, None)
    if parser is None or not isinstance(values, dict) or text != content:
        return values
    return parser.own_settings(canonical(values))


# jsonargparse reads each value of a flag with it, too.
set_loader("yaml", load_yaml, (yaml.YAMLError,))


class Help(Action):
    """`--help`, what is used most; `--help all`, every flag."""

    def __call__(self, parser: Any, namespace: Any, values: object, option_string: str | None = None) -> None:
        if values not in ("", "all"):
            raise InputError(f"--help {values}; expected --help, or --help all for every flag")
        print(parser.format_help() if values else parser.short_help(), end="")
        parser.exit()


class Parser(ArgumentParser):
    """A parser of one command. Where a setting is a name out of a registry, its help lists the names.

    Attributes:
        everyday: the flags of the short help, in its order, each with the heading that it stands under.
        kinds: by flag, the dataclass and the field that it sets.
        positional: by word without a flag, the setting that it gives.
        repeated: settings of which each flag gives one entry more.
    """

    registries: dict[str, Registered] = {}  # noqa: RUF012  a parser with some has its own
    everyday: dict[str, str] = {}  # noqa: RUF012  likewise
    kinds: dict[str, tuple[type, str]] = {}  # noqa: RUF012  likewise
    positional: dict[str, str] = {}  # noqa: RUF012  likewise
    repeated: set[str] = set()  # noqa: RUF012  likewise

    def parse_string(self, content: str, *arguments: Any, **named: Any) -> Namespace:
        """The settings of a config file."""
        before = _reading.set((content, self))
        try:
            return super().parse_string(content, *arguments, **named)
        finally:
            _reading.reset(before)

    def parts(self, name: str) -> list[str]:
        """The names of the parts of a setting that has some."""
        found = (action.dest for action in self._actions if action.dest.startswith(f"{name}."))
        return [dest for dest in found if dest.count(".") == name.count(".") + 1]

    def own_settings(self, values: Json) -> Json:
        """What a config file says to this command.

        Of a file that says `preset: true` that is what the command has; what only others have is left out with a note.

        Raises:
            InputError: `preset` is no switch; something else than parts for a setting that has parts.
        """
        preset = values.pop("preset", False)
        if preset not in (True, False):
            raise InputError(f"preset is {preset!r}; expected true or false")
        for name, value in values.items():
            if not isinstance(value, dict) and (parts := self.parts(name)):
                raise InputError(f"{name} is {value!r}; expected its parts: {', '.join(parts)}")
        if not preset:
            return values
        strange = set(values) - settings_of(self)
        elsewhere = set().union(
            *(settings_of(commands.load(name).parser()) for name in commands.names() if strange)
        )
        if left := [name for name in values if name in strange & elsewhere]:
            command = self.prog.split()[-1]
            complain(f"preset: {command} has no {', '.join(left)}, which other commands have: left out")
        return {name: value for name, value in values.items() if name not in left}

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """Every flag with all that is said of it. Only here the registries are read, which imports what they hold."""
        lines = self._head()
        for heading, actions in self.sections(every=True).items():
            lines += [f"{heading}:"]
            for action in actions:
                said = f"{self._said(action).rstrip('.')} ({self._takes(action)})"
                lines += textwrap.wrap(
                    f"  {_flags(action):24} {said}", WIDTH, subsequent_indent=" " * 27, break_on_hyphens=False
                )
        return "\n".join(lines) + "\n"

    def short_help(self) -> str:
        """What is used most, a line a flag."""
        lines = self._head()
        for heading, actions in self.sections(every=False).items():
            lines += [f"{heading}:"]
            for action in actions:
                said = re.split(r"[.;:] |[.;:]$", self._said(action), maxsplit=1)[0]
                known = isinstance(action.default, str | int | float) and action.default not in ("", False)
                line, default = f"  {_flags(action):24} {said}", f" [{action.default}]" if known else ""
                room = WIDTH - len(default)
                lines.append((line if len(line) <= room else f"{line[: room - 2]} …") + default)
        flags = sum(1 for one in self._actions if one.option_strings and not isinstance(one, Help))
        if flags:
            lines.append(f"All flags ({flags}), with what each takes: --help all")
        return "\n".join(lines) + "\n"

    def _head(self) -> list[str]:
        bare = [one for one in self._actions if not one.option_strings]
        words = "".join(f" [{_flags(one)}]" if one.nargs == "?" else f" {_flags(one)} ..." for one in bare)
        usage = f"usage: {self.prog.replace('[options] ', '')}{words} [--flag value ...]"
        return [usage, *textwrap.wrap(self.description or "", WIDTH)]

    def sections(self, every: bool) -> dict[str, list[Action]]:
        """What help shows by its headings: words, and the flags used most; or every one, parts under their own name."""
        found: dict[str, list[Action]] = {
            heading: [] for heading in get_args(field_hints(Everyday)["heading"])
        }
        actions = {action.dest: action for action in self._actions if not isinstance(action, Help)}
        words = [name for name, action in actions.items() if not action.option_strings]
        # A command of few flags says of none that it is used most.
        every, rest = every or not self.everyday, "what else" if self.everyday else "how"
        for name in dict.fromkeys([*words, *self.everyday, *(actions if every else ())]):
            part = name.partition(".")[0] if "." in name else rest
            heading = self.everyday.get(name, "what goes in" if name in words else part)
            found.setdefault(heading, []).append(actions[name])
        return {heading: shown for heading, shown in found.items() if shown}

    def _said(self, action: Action) -> str:
        return "its parts" if self.parts(action.dest) else action.help or ""

    def _takes(self, action: Action) -> str:
        """What values a flag takes, and its default, as a config file would have them."""
        if action.nargs == 0:
            return "a switch"
        if self.parts(action.dest):
            return "a file"
        if registered := self.registries.get(action.dest):
            taken = registered.words()
        elif kind := self.kinds.get(action.dest):
            taken = words_for(*kind)
        else:
            plain = "true or false" if isinstance(action.default, bool) else "text"
            taken = " or ".join(action.choices or [plain])
        default = action.default
        if default in (SUPPRESS, "") or (default is None and "null" not in taken):
            return taken
        return f"{taken}; default {default if isinstance(default, str) else json.dumps(default)}"


def _flags(action: Action) -> str:
    """A flag as help shows it; the word that is given without one."""
    return f"--{action.dest}" if action.option_strings else action.dest.upper()


def settings_of(parser: ArgumentParser) -> set[str]:
    """The names that a config file of a command may have at its top."""
    return {action.dest.partition(".")[0] for action in parser._actions}


def new_parser(description: str, config: type | None = None) -> Parser:
    """A parser of one command; with `config`, of `--config FILE` and a flag for each field of that dataclass."""
    parser = Parser(exit_on_error=False, allow_abbrev=False, add_help=False, description=description)
    parser.registries, parser.everyday, parser.kinds, parser.positional, parser.repeated = (
        {},
        {},
        {},
        {},
        set(),
    )
    parser.add_argument(
        "-h", "--help", action=Help, nargs="?", const="", default=SUPPRESS, dest=SUPPRESS, metavar="all",
        help="show what is used most; `--help all`: every flag",
    )  # fmt: skip
    if config is not None:
        add_config(parser)
        add_settings(parser, config)
    return parser


def add_config(parser: Parser) -> None:
    """`--config FILE`."""
    parser.add_argument("--config", action="config", help="YAML file of settings; repeatable, later ones win")


def add_settings(parser: Parser, config: type, prefix: str = "") -> None:
    """A flag for each field of a dataclass, with `prefix` and a dot before its name."""
    parser.add_class_arguments(_bare(config), *([prefix] if prefix else []), as_group=bool(prefix))
    allow_bare_flags(parser)
    _note_settings(parser, config, prefix)


def _note_settings(parser: Parser, config: type, prefix: str) -> None:
    """What the types of settings say for help."""
    for name, hint in get_type_hints(config, include_extras=True).items():
        flag = f"{prefix}.{name}" if prefix else name
        parser.kinds[flag] = config, name
        if isinstance(hint, type) and is_dataclass(hint):
            _note_settings(parser, hint, flag)
        for about in getattr(hint, "__metadata__", ()):
            if isinstance(about, Registered):
                parser.registries[flag] = about
            elif isinstance(about, Repeated):
                parser.repeated.add(flag)
            elif isinstance(about, Everyday):
                parser.everyday[flag] = about.heading


def _bare(config: type) -> type:
    """A dataclass of the same fields and words, whose types state no range and not what a list holds.

    jsonargparse shows and refuses ranges in pydantic's words; `check_settings` does so in ours, when a run is planned.
    And it copies a list of which it knows more for each of its entries, in time with the square of their number.
    """
    made: list[tuple[str, Any, Any]] = []
    for f in fields(config):
        kind = _any_list(plain_type(get_type_hints(config)[f.name]))  # without what is annotated
        if is_dataclass(kind) and isinstance(kind, type):
            kind = _bare(kind)
            made.append((f.name, kind, field(default_factory=kind)))
        elif f.default_factory is not MISSING:
            made.append((f.name, kind, field(default_factory=f.default_factory)))
        else:
            made.append((f.name, kind, field(default=f.default)))
    return make_dataclass(config.__name__, made, bases=(config,), frozen=True, kw_only=True)


def _any_list(kind: Any) -> Any:
    """A type in which a list may hold anything."""
    if get_origin(kind) in (Union, UnionType):
        return functools.reduce(operator.or_, map(_any_list, get_args(kind)))
    return list if get_origin(kind) is list else kind


def add_run_flags(parser: Parser) -> None:
    """--dry_run, --verbose and --quiet, which belong to the command and not to what it makes."""
    parser.add_argument("--dry_run", action="store_true", help="print the plan and stop")
    parser.add_argument("--verbose", action="store_true", help="print the plan, then run")
    parser.add_argument("--quiet", action="store_true", help="no messages, no progress bar")
    parser.everyday |= dict.fromkeys(("config", "dry_run"), "the run")


def add_source(parser: Parser, many: bool = False) -> None:
    """The video as the first word of a command, without a flag; with `many`, a list or a folder of them, too."""
    lists = ", or many: a folder of them, or a list in YAML" if many else ""
    parser.add_argument(
        "source",
        nargs="?",
        type=str,
        default="",
        help=f"a video file or a folder of images{lists}: the same as --video; wins over a config file",
    )
    parser.positional["source"] = "video"


def allow_bare_flags(parser: ArgumentParser) -> None:
    """`--t5_cpu` means `--t5_cpu true`, which jsonargparse alone does not offer for typed fields."""
    for action in parser._actions:
        if getattr(action, "_typehint", None) in (bool, bool | None):
            action.nargs, action.const = "?", True


def unpack(settings: Namespace) -> tuple[Json, list[Path]]:
    """The values of a command, and the folders of its --config files, where relative paths are looked up too."""
    values = settings.as_dict()
    files = [Path(str(getattr(path, "relative", path))) for path in values.pop("config", None) or []]
    if "source" in values:
        values["video"] = values.pop("source") or values["video"]
    folders = [file.parent for file in files]
    return with_model(values, folders), folders


def complain(message: str) -> None:
    """One error of the program, on standard error; where that takes nothing, its exit code says it alone."""
    try:
        print(f"wanedit: {message}", file=sys.stderr)
    except OSError:
        drop_output(sys.stderr)


def drop_output(stream: IO[str]) -> None:
    """Python writes what is left when it ends, and would fail once more, with a status of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def command_again() -> str:
    """The command line of this process, to be run again."""
    started = Path(sys.argv[0])
    names = {"wanedit": "wanedit", "__main__": f"{shlex.quote(sys.executable)} -m wanedit"}
    program = names.get(started.stem, f"{shlex.quote(sys.executable)} {shlex.quote(str(started))}")
    if current_world().under_torchrun:
        program = "torchrun … -m wanedit"
    return " ".join([program, *map(shlex.quote, sys.argv[1:])])


@contextmanager
def resumable(kept: str, answered: str = "") -> Iterator[None]:
    """End a run that was stopped with the command line that goes on.

    Args:
        kept: leads to it after a signal: what is kept, and the word for going on.
        answered: leads to it where a service gave out; "" for a run that asks none.

    Raises:
        WaneditError: the run was stopped; its exit code is that of the signal or of the service's error.
    """
    try:
        yield
    except (Interrupted, ServiceError) as reason:
        signalled = isinstance(reason, Interrupted)
        if not signalled and not answered:
            raise
        words = f"{reason}: {kept}" if signalled else f"{reason}\n{answered}"
        stopped = WaneditError(f"{words}:\n  {command_again()}")
        stopped.exit_code, stopped.told = reason.exit_code, signalled and not speaks()
        raise stopped from None
