"""`wanedit completion`: what a shell needs to complete commands, flags and their values."""

import os
from typing import Literal, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from wanedit.commands.support import Parser, new_parser

HELP = "completion of commands, flags and values, for bash, zsh or fish"
ORDER = 14
SHELLS = ("bash", "zsh", "fish")


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Print what completes the command line of wanedit in a shell. For bash or zsh, in ~/.bashrc or ~/.zshrc: "
        'eval "$(wanedit completion bash)"; for fish: wanedit completion fish > ~/.config/fish/completions/wanedit.fish'
    )
    made.add_argument("shell", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    return made


def run(settings: Namespace) -> int:
    """Print it. Returns the exit code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["wanedit"], shell=settings.shell))
    return 0


def typed() -> list[str]:
    """The whole words of the line that a shell asks about, after `wanedit`."""
    before = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
    return f"{before}.".split()[1:-1]


def complete(parser: ArgumentParser, asked: str | None) -> None:
    """Answer a shell, as the environment says that argcomplete's words for it set; ends the process.

    Args:
        parser: of the command `asked`, or of `wanedit` itself where none is typed yet.
    """
    from argcomplete.completers import FilesCompleter

    kinds = parser.kinds if isinstance(parser, Parser) else {}
    for action in parser._actions:
        values = _values(*kinds[action.dest]) if action.dest in kinds else []
        if values or not action.choices:
            vars(action)["completer"] = (lambda values=values, **_: values) if values else FilesCompleter()
    if asked:
        os.environ["_ARGCOMPLETE"] = "2"  # the word at which its own line begins
    parser.parse_args([])  # which jsonargparse lets argcomplete answer


def _values(kind: type, name: str) -> list[str]:
    """What a setting may be, where that can be listed: names of what is registered, or of its type."""
    from wanedit.runtime.settings import field_hints, registered_at

    hint, registry = field_hints(kind)[name], registered_at(kind, name)
    if registry is not None:
        return list(registry)
    if hint is bool:
        return ["true", "false"]
    literals = [one for one in (hint, *get_args(hint)) if get_origin(one) is Literal]
    return [str(value) for literal in literals for value in get_args(literal)]
