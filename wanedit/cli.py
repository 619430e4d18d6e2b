"""The command line: finds the command, reads files and flags; short errors, stable exit codes."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from wanedit import commands
from wanedit.errors import InputError, WaneditError, nearest
from wanedit.runtime.settings import ALIASES, canonical
from wanedit.runtime.settingsfile import read_lines, told_where

INTERRUPT_EXIT = 130
MAX_ERROR_LINES = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (0 done, 2 usage or input, 3 weights, 4 resources, 5 service, 1 other)."""
    from wanedit.commands.support import complain

    words = list(sys.argv[1:] if argv is None else argv)
    try:
        files = [read_lines(path) for path in _config_files(words)]
        with told_where(files, _flags(words)):
            settings = _parse(words)
            return commands.load(settings.command).run(settings[settings.command])
    except WaneditError as error:
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain("interrupted before anything was sampled")
        return INTERRUPT_EXIT
    except BrokenPipeError:
        # The reader of our output left (`wanedit models | head`): nothing to tell it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser(asked: str | None = None) -> ArgumentParser:
    """The parser of `wanedit`: with the flags of the command that is asked for, else with a line of help for each."""
    from wanedit import __version__

    parser = ArgumentParser(
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
        places.add_subcommand(name, command.parser() if asked else ArgumentParser(), help=command.HELP)
    return parser


def _parse(words: list[str]) -> Namespace:
    names = commands.names()
    asked = words[0] if words and words[0] in names else None
    parser = build_parser(asked)
    try:
        return parser.parse_args(_configs_first(words) or ["--help"])
    except ArgumentError as error:
        valid = names if asked is None else [action.dest for action in commands.load(asked).parser()._actions]
        raise InputError(_shortened(str(error), valid)) from None


def _configs_first(argv: list[str]) -> list[str]:
    """Flags win over files wherever they stand: `--config FILE` pairs are moved to the front, in their order."""
    files, rest, words = [], [], argv[1:]
    while words:
        word, *words = words
        if word.partition("=")[0] == "--tiled":
            # A switch, bare or told, of a setting that is a number.
            told = words[:1] if "=" not in word and words and words[0].lower() in ("true", "false") else []
            words = words[len(told) :]
            value = yaml.safe_load(told[0] if told else word.partition("=")[2] or "true")
            rest.append(f"--tile={canonical({'tiled': value})['tile'] or 'null'}")
        elif word == "--config":
            files += [word, *words[:1]]
            words = words[1:]
        else:
            (files if word.startswith("--config=") else rest).append(_own_name(word))
    return [*argv[:1], *files, *rest]


def _config_files(argv: Sequence[str]) -> list[Path]:
    """The files of `--config FILE` that are there, in their order; of others jsonargparse tells."""
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    named = [
        after if word == "--config" else word.removeprefix("--config=")
        for word, after in pairs
        if word == "--config" or word.startswith("--config=")
    ]
    return [path for path in map(Path, named) if path.is_file()]


def _flags(argv: Sequence[str]) -> set[str]:
    """The settings that flags give, by their own names."""
    return {_own_name(word).removeprefix("--").partition("=")[0] for word in argv if word.startswith("--")}


def _own_name(word: str) -> str:
    """A flag by the name of its setting."""
    name, equals, value = word.partition("=")
    own = ALIASES.get(name.removeprefix("--")) if name.startswith("--") else None
    return word if own is None else f"--{own}{equals}{value}"


def _shortened(message: str, valid: Sequence[str]) -> str:
    """The cause in few lines, with the nearest valid key where a key is wrong."""
    union = re.search(r'key "([\w.]+)".*Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.DOTALL)
    if union:
        kinds = " or ".join(_in_words(kind) for kind in re.split(r", (?=<class|typing)", union[2]))
        return f"{union[1]} is {union[3].strip()!r}; expected {kinds}"
    plain = re.search(r'key "([\w.]+)":\s*Expected an? (.*?)\. Got value: (.*)', message, re.DOTALL)
    if plain:
        return f"{plain[1]} is {plain[3].strip()!r}; expected {_in_words(plain[2])}"
    group = re.search(
        r"""Parser key "([\w.]+)":\s*Unable to load config ['"](.*?)['"]\n""", message, re.DOTALL
    )
    if group:
        parts = [name for name in valid if name.startswith(f"{group[1]}.")]
        return f"{group[1]} is {group[2]!r}; expected its parts: {', '.join(parts)}"
    nested = re.search(r"Subcommand '\w+' does not accept option '(\w+)\.([\w.-]+)'", message)
    if nested and nested[1] in commands.names():
        return (
            f"{nested[1]!r} is the name of a command and no setting; expected {nested[2]} and the others without it, "
            "at the left margin"
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = "\n".join(lines[:MAX_ERROR_LINES])
    wrong = re.findall(
        r"--([A-Za-z_][\w.-]*)|option '([\w.-]+)'|[Kk]ey '([\w.-]+)'|choice: '([\w.-]+)'", message
    )
    for word in dict.fromkeys(next(filter(None, groups)) for groups in wrong):
        near = None if word in valid else nearest(word, valid)
        if near:
            return f"{text}\nDid you mean {near!r}?"
    return text


def _in_words(kind: str) -> str:
    """A type as jsonargparse prints it."""
    names = {
        "float": "a number",
        "int": "an integer",
        "bool": "true or false",
        "dict": "a mapping",
        "str": "text",
        "NoneType": "null",
    }
    literal = re.search(r"Literal\[(.*)\]", kind)
    if literal:
        return "one of " + literal[1].replace("'", "")
    name = re.sub(r"<class '(\w+)'>", r"\1", kind)
    return names.get(name, name)


def entry() -> NoReturn:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
