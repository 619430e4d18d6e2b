"""`python -m paper.make`: every figure, table and number of the paper; the same bytes in every run."""

if __name__ == "__main__":
    from wanedit.interrupts import watch

    watch()  # before the figures are imported, which takes seconds

import argparse
import sys
import time
from pathlib import Path

from matplotlib import rc_context

from paper.make import ablations, claims, hard_edits, joins, junctions, propagation, real_frames, timeline
from paper.make.look import PAPER as LOOK
from paper.make.records import PAPER, MissingRecordError
from paper.make.tex import Numbers
from wanedit.interrupts import run


def make(out: Path) -> None:
    """Write all into `out`.

    Raises:
        MissingRecordError: a record that the paper cannot do without.
    """
    numbers = Numbers()
    for name in ("figures", "tables"):
        (out / name).mkdir(parents=True, exist_ok=True)
    with rc_context(LOOK):  # pyright: ignore[reportArgumentType]
        timeline.make(out, numbers)
        claims.make(out, numbers)
        propagation.make(out, numbers)
        hard_edits.make(out, numbers)
        junctions.make(out, numbers)
        joins.make(out, numbers)
        real_frames.make(out, numbers)
        ablations.make(out)
    numbers.write(out / "numbers.tex")


def main(words: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m paper.make", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAPER, help="folder of figures, tables and numbers.tex")
    options = parser.parse_args(words)
    start = time.perf_counter()
    try:
        make(options.out)
    except MissingRecordError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"figures, tables and numbers in {options.out}; {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    run(main)
