"""`python -m math_verification`: run the claims, print one table, draw the figures; 1 if a claim fails."""

if __name__ == "__main__":
    from wanedit.interrupts import watch

    watch()  # before torch is imported, which takes seconds

import argparse
import math
import time
from pathlib import Path

import torch

from math_verification.claims import CLAIMS
from math_verification.figures import save, style
from math_verification.report import FULL, QUICK, print_table
from math_verification.store import write
from wanedit.interrupts import run


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m math_verification", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/math_verification"), help="folder of figures"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="keep all numbers there; the paper reads them"
    )
    parser.add_argument("--only", action="append", metavar="NAME", choices=CLAIMS, help="repeatable")
    parser.add_argument("--quick", action="store_true", help="fewer samples and steps, for tests")
    parser.add_argument("--list", action="store_true", help="name the claims and stop")
    return parser


def main(words: list[str] | None = None) -> int:
    """Returns the exit status."""
    options = arguments().parse_args(words)
    if options.list:
        for name, claim in CLAIMS.items():
            print(f"{name:18} {claim.SENTENCE}")
        return 0
    # One thread: sums come in one order, so figures come out as the same bytes.
    torch.set_num_threads(1)
    start, done, files, results = time.perf_counter(), {}, [], {}
    for name in options.only or CLAIMS:
        began = time.perf_counter()
        result = CLAIMS[name].verify(QUICK if options.quick else FULL)
        with style():
            files += save(result.figures(), options.out)
        done[name] = (CLAIMS[name].SENTENCE, result.rows(), time.perf_counter() - began)
        results[name] = (CLAIMS[name].SENTENCE, result)
    print_table(done)
    if options.json is not None:
        write(options.json, results)
    rows = [row for _, found, _ in done.values() for row in found]
    failed = sum(not row.passed for row in rows)
    predicted = sum(not math.isnan(row.bound) or not row.passed for row in rows)
    seconds = f"{time.perf_counter() - start:.0f} s ({time.process_time():.0f} s of processor)"
    held = f"{predicted - failed} of {predicted} rows hold, {len(rows) - predicted} more are measured"
    print(f"{held}; {seconds}; {len(files)} files in {options.out}")
    return int(failed > 0)


if __name__ == "__main__":
    run(main)
