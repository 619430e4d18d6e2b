"""The command line: finds the command, reads files and flags; short errors, stable exit codes."""

import json
import os
import re
import sys
import time
import traceback
from argparse import Action, HelpFormatter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from wanedit import commands
from wanedit.errors import InputError, WaneditError, nearest
from wanedit.files import reading, system_errors
from wanedit.interrupts import GOES_ON, Interrupted, speaks
from wanedit.runtime.settings import ALIASES, canonical, words_for
from wanedit.runtime.settingsfile import read_lines, told_where
from wanedit.runtime.workers import tell_torchrun

if TYPE_CHECKING:
    from wanedit.commands.support import Parser

MAX_ERROR_LINES = 8
HOLD_TONGUE = 2.0  # seconds


@dataclass(frozen=True)
class Line:
    """A command line as its parser takes it.

    Attributes:
        words: `--config FILE` pairs first, so that flags win over files wherever they stand; settings by their names.
        files: of `--config`, in their order.
        typed: by the name of each setting that a flag gives, the flag's own.
        again: settings that are given once more, each time.
    """

    words: list[str]
    files: list[Path]
    typed: dict[str, str]
    again: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (0 done, 2 usage or input, 3 weights, 4 resources, 5 service, 1 other)."""
    from wanedit.commands import completion
    from wanedit.commands.support import Parser, complain, drop_output

    words = list(sys.argv[1:] if argv is None else argv)
    asking = "_ARGCOMPLETE" in os.environ  # a shell, whose line so far stands beside it
    if asking:
        words = completion.typed()
    typed: dict[str, str] = {}
    try:
        asked = words[0] if words and words[0] in commands.names() else None
        own = commands.load(asked).parser() if asked else Parser()
        assert isinstance(own, Parser), "a command makes its parser by support.new_parser"
        if asking:
            completion.complete(own if asked else build_parser(), asked)
        line = read_line(words, [action.dest for action in own._actions], own.repeated)
        typed = line.typed
        inputs = [flag for flag in line.again if own.everyday.get(flag) == "what goes in"]
        for flag in dict.fromkeys(inputs if speaks() else ()):
            complain(f"--{flag} is given {inputs.count(flag) + 1} times: the last one counts")
        with (
            system_errors(Path("standard output")),
            told_where([read_lines(path) for path in line.files], typed),
        ):
            try:
                settings = _parse(line, own, asked)
            except SystemExit:  # of help and version, which are printed
                sys.stdout.flush()
                raise
            with system_errors(Path("the current folder")):
                os.getcwd()  # deleted meanwhile, no path counts from it
            code = commands.load(settings.command).run(settings[settings.command])
            sys.stdout.flush()  # what a full disk refuses is told as a file is
            return code
    except WaneditError as error:
        try:
            sys.stdout.flush()
        except OSError:
            drop_output(sys.stdout)
        told = _as_typed(str(error), typed)
        if not error.told:
            if not speaks():
                # What is wrong for every rank rank 0 says, and torchrun then ends the others.
                time.sleep(HOLD_TONGUE)
            complain(told)
            tell_torchrun(told)
        return error.exit_code
    except Interrupted as reason:
        if speaks():
            complain(f"{reason}: {GOES_ON}")
        return reason.exit_code
    except BrokenPipeError:
        drop_output(sys.stdout)  # its reader left (`wanedit models | head`): nothing to tell it
        return 0


def read_line(argv: Sequence[str], known: Collection[str], repeated: Collection[str] = ()) -> Line:
    """The words after `wanedit`.

    Args:
        known: the settings of the command; only of these other names are understood.
        repeated: those of which each flag gives one entry more, or a whole list in brackets.

    Raises:
        InputError: one setting is given under two names; `--tiled` that is neither true nor false.
    """
    pairs, rest, files, typed, again = [], [], [], {}, []
    lists: dict[str, list[object]] = {}
    words = list(argv[1:])
    while words:
        word, *words = words
        flag, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            rest.append(word)
            continue
        if flag == "config":
            value, words = (value, words) if equals else ("".join(words[:1]), words[1:])
            files.append(Path(value))
            pairs += ["--config", value]
            continue
        setting = flag if flag in known or ALIASES.get(flag) not in known else ALIASES[flag]
        # The same flag again wins, as everywhere: scripts append to a line of defaults. Of two names no order is meant.
        if (before := typed.get(setting, flag)) != flag and not flag.endswith("+"):
            raise InputError(f"{setting} is given twice, by --{before} and --{flag}; expected it once")
        if setting in typed and setting not in repeated:
            again.append(setting)
        typed[setting] = flag
        if setting in repeated and (equals or (words and not words[0].startswith("--"))):
            value, words = (value, words) if equals else (words[0], words[1:])
            lists.setdefault(setting, []).extend(yaml.safe_load(value) if value.startswith("[") else [value])
            continue
        if flag == "tiled" and setting == "tile":
            # A switch, bare or told, of a setting that is a number.
            if not equals and words and isinstance(_yaml(words[0]), bool | int):
                value, *words = words
            told = canonical({"tiled": _yaml(value or "true")})
            equals, value = "=", told["tile"] or "null"
        rest.append(f"--{setting}{equals}{value}")
    rest += [f"--{setting}={json.dumps(entries)}" for setting, entries in lists.items()]
    return Line([*argv[:1], *pairs, *rest], files, typed, again)


def _yaml(word: str) -> object:
    """What a word says in YAML; itself where that is nothing."""
    try:
        with reading(word, "YAML"):
            return yaml.safe_load(word)
    except InputError:
        return word


def _as_typed(message: str, typed: Mapping[str, str]) -> str:
    """A message that begins with a setting, with the flag by whose other name it was given."""
    setting = message.partition(" ")[0]
    flag = typed.get(setting, setting)
    return message if flag == setting else f"{flag} ({setting}){message.removeprefix(setting)}"


class Overview(ArgumentParser):
    """The parser of `wanedit` itself, whose help is a line for each command."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse, which hides that an output is full."""
        print(message, end="", file=file or sys.stdout)

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """What `wanedit --help` prints."""
        found = {name: commands.load(name) for name in commands.names()}
        names = sorted(found, key=lambda name: found[name].ORDER)
        lines = ["usage: wanedit COMMAND [--flag value ...]", self.description or ""]
        width = max(map(len, names)) + 2
        lines += [f"  {name:{width}}{found[name].HELP}" for name in names]
        lines += ["More of a command: wanedit COMMAND --help. The version: wanedit --version", ""]
        return "\n".join(lines)


def build_parser(asked: str | None = None, own: ArgumentParser | None = None) -> ArgumentParser:
    """The parser of `wanedit`: with that of the command that is asked for, else with a line of help for each.

    Args:
        own: the command's, where that is made already.
    """
    from wanedit import __version__

    parser = Overview(
        prog="wanedit",
        description="Training-free long-video generation and editing on Wan video models.",
        version=__version__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    places = parser.add_subcommands(dest="command", required=True)
    found = {name: commands.load(name) for name in ([asked] if asked else commands.names())}
    for name, command in sorted(found.items(), key=lambda one: one[1].ORDER):
        # A parser takes time to build, and only one is needed.
        one = (own or command.parser()) if asked else ArgumentParser()
        places.add_subcommand(name, one, help=command.HELP)
    return parser


def _parse(line: Line, own: "Parser", asked: str | None) -> Namespace:
    parser = build_parser(asked, own)
    try:
        settings = parser.parse_args(line.words or ["--help"])
    except ArgumentError as error:
        raise InputError(_shortened(str(error), own, asked)) from None
    except (
        OverflowError
    ) as error:  # of an integer that no number of 64 bits holds, which jsonargparse does not foresee
        doing = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
        name = [one.dest for one in doing if isinstance(one, Action)][-1]
        raise InputError(
            f"{name} is an integer of over 308 digits; expected {words_for(*own.kinds[name])}"
        ) from None
    for word, setting in own.positional.items():
        bare = settings[settings.command][word]
        if bare and setting in line.typed:
            flag = line.typed[setting]
            raise InputError(
                f"{setting} is given twice, by --{flag} and by {bare} without a flag; expected it once"
            )
    return settings


def _shortened(message: str, own: "Parser", asked: str | None) -> str:
    """The cause in few lines, with the nearest valid key where a key is wrong."""
    valid = [action.dest for action in own._actions] if asked else commands.names()
    union = re.search(r'key "([\w.]+)".*Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.DOTALL)
    plain = re.search(r'key "([\w.]+)":\s*Expected an? (.*?)\. Got value: (.*)', message, re.DOTALL)
    if found := union or plain:
        name, got = found[1], found[3].strip()
        shown = got if re.fullmatch(r"[-+]?[\d.]+", got) else repr(got)
        if name in own.kinds:
            return f"{name} is {shown}; expected {words_for(*own.kinds[name])}"
    if found := re.search(r"""key "([\w.]+)":\s*Unable to load config ['"](.*?)['"]\n""", message, re.DOTALL):
        return f"{found[1]} is {found[2]!r}; expected its parts: {', '.join(own.parts(found[1]))}"
    if found := re.search(r"argument --([\w.]+)\S*: expected one argument", message):
        name = found[1]
        return f"{name} has no value; expected one, as --{name}=VALUE where it begins with a minus"
    if found := re.search(r"arguments are required: (?:\w+\.)?(\w+)", message):
        meant = next((action.help for action in own._actions if action.dest == found[1]), "one")
        return f"no {found[1]} given; expected {meant}"
    if found := re.search(r"argument (\w+): invalid choice: '(.*)' \(choose from (.*)\)", message):
        names = found[3].replace("'", "")
        near = nearest(found[2], names.split(", "))
        hint = f"\nDid you mean {near!r}?" if near else ""
        return f"{found[1]} is {found[2]!r}; expected one of {names}{hint}"
    nested = re.search(r"Subcommand '\w+' does not accept option '(\w+)\.([\w.-]+)'", message)
    if nested and nested[1] in commands.names() and not own.parts(nested[1]):
        return (
            f"{nested[1]!r} is the name of a command and no setting; expected {nested[2]} and the others without it, "
            "at the left margin"
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = "\n".join(lines[:MAX_ERROR_LINES])
    names = [*valid, *(name for name, setting in ALIASES.items() if setting in valid)]
    wrong = re.findall(r"--([A-Za-z_][\w.-]*)|option '([\w.-]+)'|[Kk]ey '([\w.-]+)'", message)
    for word in dict.fromkeys(next(filter(None, groups), "") for groups in wrong):
        if word in names:
            continue
        if where := _commands_with(ALIASES.get(word, word)):
            return f"{text}\n{word} is a setting of {', '.join(where)}; {asked} has none of the name"
        if near := nearest(word, names):
            return f"{text}\nDid you mean {near!r}?"
    return text


def _commands_with(setting: str) -> list[str]:
    """The commands that have a setting."""
    parsers = {name: commands.load(name).parser() for name in commands.names()}
    return [name for name, one in parsers.items() if setting in (action.dest for action in one._actions)]
