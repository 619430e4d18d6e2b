"""Train wan-tiny: `python scripts/train_tiny.py --config configs/train/tiny_cpu.yaml --footage '[clip.mp4]'`.

A run that was stopped goes on from its last checkpoint when it is started again with the same `out` and the same
settings. Exit code 0 when `assets` holds the trained model; 2, and one line that says why, for settings or files that
cannot be used.
"""

import sys

from jsonargparse import ArgumentParser

from tiny.plan import TrainTiny
from wanedit.errors import WaneditError


def parser() -> ArgumentParser:
    """The command line: every field of TrainTiny, and --config for a YAML file of them."""
    flags = ArgumentParser(description=__doc__)
    flags.add_class_arguments(TrainTiny)
    flags.add_argument("--config", action="config")
    return flags


def plan(arguments: list[str] | None) -> TrainTiny:
    """The settings of a command line.

    Raises:
        InputError: a value that no training can have.
    """
    flags = parser()
    settings = vars(flags.instantiate(flags.parse_args(arguments)))
    return TrainTiny(**{name: value for name, value in settings.items() if name != "config"})


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or that of the failure."""
    try:
        given = plan(arguments)
        from tiny.pipeline import train_tiny

        train_tiny(given)
    except WaneditError as error:
        print(f"train_tiny: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
