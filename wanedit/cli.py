"""The command line: typed functions of run/, `--config FILE` overlays, short errors, stable exit codes."""

import difflib
import itertools
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from wanedit.errors import WaneditError
from wanedit.runtime.settings import ALIASES

USAGE_EXIT = 2
INTERRUPT_EXIT = 130
MAX_ERROR_LINES = 8


class _UsageError(Exception):
    pass


def build_parser() -> Any:
    """The parser of `wanedit`; needs jsonargparse and nothing heavier."""
    from jsonargparse import ArgumentParser

    from wanedit import __version__
    from wanedit.commands import COMMANDS

    parser = ArgumentParser(
        prog="wanedit",
        description="Training-free long-video generation and editing on Wan video models.",
        version=__version__,
        exit_on_error=False,
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    for name, command in COMMANDS.items():
        commands.add_subcommand(name, command.parser(), help=command.HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (0 done, 2 usage or input, 3 weights, 4 resources, 5 service, 1 other)."""
    from wanedit.commands.support import complain

    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except _UsageError as error:
        complain(str(error))
        return USAGE_EXIT
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


def _run(argv: list[str]) -> int:
    from wanedit.commands import COMMANDS

    settings = _parse(argv)
    return COMMANDS[settings.command].run(settings[settings.command])


def _parse(argv: list[str]) -> Any:
    from jsonargparse import ArgumentError

    parser = build_parser()
    try:
        return parser.parse_args(_configs_first(argv) or ["--help"])
    except ArgumentError as error:
        raise _UsageError(_shortened(str(error), _valid_keys(argv))) from None
    except UnicodeDecodeError as error:
        raise _UsageError(f"a --config file is not UTF-8 text ({error.reason}); expected YAML") from None


def _configs_first(argv: list[str]) -> list[str]:
    """Flags win over files wherever they stand: `--config FILE` pairs are moved to the front, in their order."""
    files, rest, words = [], [], iter(argv[1:])
    for word in map(_own_name, words):
        if word == "--config":
            files += [word, *itertools.islice(words, 1)]
        else:
            (files if word.startswith("--config=") else rest).append(word)
    return [*argv[:1], *files, *rest]


def _own_name(word: str) -> str:
    """A flag by the name of its setting."""
    name, equals, value = word.partition("=")
    own = ALIASES.get(name.removeprefix("--")) if name.startswith("--") else None
    return word if own is None else f"--{own}{equals}{value}"


def _valid_keys(argv: list[str]) -> list[str]:
    from wanedit.commands import COMMANDS

    command = COMMANDS.get(argv[0]) if argv else None
    return list(command.KEYS) if command is not None else list(COMMANDS)


def _shortened(message: str, valid: Sequence[str]) -> str:
    """The cause in few lines, with the nearest valid key where a key is wrong."""
    union = re.search(r'key "([\w.]+)".*Subtypes: \[(.*?)\]\n.*Given value: (.*)', message, re.DOTALL)
    if union:
        kinds = " or ".join(_in_words(kind) for kind in re.split(r", (?=<class|typing)", union[2]))
        return f"{union[1]} is {union[3].strip()!r}; expected {kinds}"
    plain = re.search(r'key "([\w.]+)":\s*Expected an? (.*?)\. Got value: (.*)', message, re.DOTALL)
    if plain:
        return f"{plain[1]} is {plain[3].strip()!r}; expected {_in_words(plain[2])}"
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = "\n".join(lines[:MAX_ERROR_LINES])
    wrong = re.findall(
        r"--([A-Za-z_][\w.-]*)|option '([\w.-]+)'|[Kk]ey '([\w.-]+)'|choice: '([\w.-]+)'", message
    )
    for word in dict.fromkeys(next(filter(None, groups)) for groups in wrong):
        near = difflib.get_close_matches(word.replace("-", "_"), valid, n=1, cutoff=0.5)
        if word not in valid and near:
            return f"{text}\nDid you mean {near[0]!r}?"
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
