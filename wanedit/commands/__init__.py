"""One command of `wanedit`, one file of this folder, by whose name it is found.

It declares HELP, a line of `wanedit --help`; ORDER, its place there; `parser()` and `run(settings)`. Nothing heavy is
imported before `run`.
"""

import importlib
import pkgutil
from typing import Protocol, runtime_checkable

from jsonargparse import ArgumentParser, Namespace

SHARED = "support"


@runtime_checkable
class Command(Protocol):
    """What a command's module has."""

    HELP: str
    ORDER: int

    def parser(self) -> ArgumentParser:
        """Its flags."""
        ...

    def run(self, settings: Namespace) -> int:
        """Do it; returns the exit code."""
        ...


def names() -> list[str]:
    """Of the commands, without importing one."""
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name != SHARED]


def load(name: str) -> Command:
    """The module of a command."""
    module = importlib.import_module(f"{__name__}.{name}")
    assert isinstance(module, Command), f"{module.__name__} lacks one of HELP, ORDER, parser and run"
    return module
