"""`wanedit`, and `python -m wanedit`, which torchrun needs: what is not light is imported under the eye of signals."""

from collections.abc import Sequence
from typing import NoReturn

from wanedit import interrupts


def entry(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command of `argv`, or of this process, and end with its exit code."""

    def main() -> int:
        from wanedit.cli import main

        return main(argv)

    interrupts.run(main)


if __name__ == "__main__":
    entry()
