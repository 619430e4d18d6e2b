"""wan-tiny on clips that it never saw: `python -m tiny.scorecard --out scores.json --sheet sheet.png`.

Prints every quantity beside what is asked of it. Exit code 0 when all was measured, whether or not every bar is met.
"""

if __name__ == "__main__":
    from wanedit.interrupts import watch

    watch()  # before torch is imported, which takes seconds

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

from tiny.data import require_footage
from tiny.rows import PARTS, Row, small_figures, total_row
from tiny.sampling import Evaluation, SamplerSettings
from tiny.sheet import write_sheet
from wanedit import __version__
from wanedit.errors import InputError, WaneditError
from wanedit.flow.solvers import SOLVERS
from wanedit.interrupts import Interrupted, run
from wanedit.runtime.outputs import check_outputs
from wanedit.sprites.scene import SPLITS
from wanedit.wan import load
from wanedit.wan.checkpoint import sha256

P = ParamSpec("P")
T = TypeVar("T")

FOOTAGE = Path(__file__).resolve().parents[1] / "examples" / "footage"
HELD_OUT = tuple(FOOTAGE / name for name in ("bottles.mkv", "flf2v_first.png", "flf2v_last.png"))
# Of 128x128 and 96x96x33, where the command line says nothing: more would take the table over its ten minutes.
LARGE = 16


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = [part.name for part in PARTS]
    flags = argparse.ArgumentParser("python -m tiny.scorecard", description=__doc__, allow_abbrev=False)
    flags.add_argument("--model", default="tiny", help="folder of the model; the shipped one by default")
    flags.add_argument("--clips", type=int, default=256, help="test clips for each 64x64 row")
    flags.add_argument(
        "--large_clips",
        type=int,
        help=f"test clips for 128x128 and 96x96x33; {LARGE}, or --clips if that is less",
    )
    flags.add_argument("--split", choices=SPLITS[1:], default="test", help="which scenes")
    flags.add_argument("--rows", nargs="+", choices=names, default=names, help="parts of the table")
    flags.add_argument(
        "--footage",
        nargs="+",
        type=Path,
        help="real clips and pictures for the VAE; those of examples/footage by default",
    )
    flags.add_argument("--steps", type=int, help="sampling steps; the model's own by default")
    flags.add_argument(
        "--guidance", type=float, help="of FLF2V and first frame only; the model's own by default"
    )
    flags.add_argument("--text_guidance", type=float, default=4.0, help="of text-only samples")
    flags.add_argument("--solver", default="unipc", help="unipc, dpm++, euler, heun, or package.module:Name")
    flags.add_argument("--seed", type=int, default=0, help="of the noise")
    flags.add_argument("--out", type=Path, help="JSON file to write")
    flags.add_argument("--sheet", type=Path, help="PNG file of sixteen samples to write")
    return flags


def check(given: argparse.Namespace) -> None:
    """See that all can be done before the model is loaded.

    Raises:
        InputError: a number below 1, more large clips than clips, a missing or unreadable file, a file that cannot
            be written, an unknown solver or folder.
        MissingWeightsError: a part of the model is absent.
    """
    for name in ("clips", "large_clips", "steps"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; expected at least 1")
    # A larger clip is compared with the same scene at 64x64, which must be among those measured.
    if given.large_clips is not None and given.large_clips > given.clips:
        raise InputError(
            f"large_clips is {given.large_clips}; expected at most clips, which is {given.clips}"
        )
    if "footage" in given.rows:
        require_footage(given.footage or HELD_OUT)
    SOLVERS[given.solver]
    load.require_parts(load.open_wan(given.model))
    # Last, because it makes folders.
    for path in filter(None, (given.out, given.sheet)):
        check_outputs([path])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}; expected a folder that can be made"
            ) from None


def evaluate(given: argparse.Namespace) -> None:
    """Load the model, measure, print; write what was asked for."""
    wan = load.load_wan(given.model)
    own = wan.folder.sampling
    settings = SamplerSettings(
        own.num_inference_steps if given.steps is None else given.steps,
        own.shift,
        own.guidance_scale if given.guidance is None else given.guidance,
        given.solver,
        given.seed,
    )
    e = Evaluation(
        wan,
        settings,
        given.clips,
        min(LARGE, given.clips) if given.large_clips is None else given.large_clips,
        given.text_guidance,
        given.footage or HELD_OUT,
        held_out=not given.footage,
        split=given.split,
    )
    rows = measure(e, given.rows)
    print(table(rows))
    if given.out:
        given.out.write_text(json.dumps(record(e, rows), indent=2, allow_nan=False) + "\n")
    if given.sheet:
        write_sheet(e, given.sheet)


def measure(e: Evaluation, names: Sequence[str]) -> list[Row]:
    """The rows of the named parts and of their time; says on the error stream how long each took."""

    def timed(name: str, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        began = time.perf_counter()
        result = function(*arguments, **named)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        return result

    began = time.perf_counter()
    parts = [part for part in PARTS if part.name in names]
    # Measured once, for all parts that need it.
    small = (timed("64x64x17", small_figures, e),) if any(part.small for part in parts) else ()
    rows = [row for part in parts for row in timed(part.name, part.rows, e, *(small if part.small else ()))]
    return [*rows, total_row(time.perf_counter() - began, len(parts) == len(PARTS))]


def table(rows: Sequence[Row]) -> str:
    """Aligned columns: quantity, measured, bar, clips, verdict and note."""

    def number(value: float, unit: str) -> str:
        if unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.{3 if unit == 'RGB' else 2}f} {unit}".rstrip()

    lines = [("quantity", "measured", "bar", "clips", "")]
    for row in rows:
        measured = "-" if row.value is None else number(row.value, row.unit)
        bar = "" if row.bar is None else f"{'>=' if row.at_least else '<='} {number(row.bar, row.unit)}"
        end = "; ".join(part for part in (row.verdict, row.note) if part)
        lines.append((row.name, measured, bar, str(row.count or ""), end))
    name, *numbers = (max(len(line[i]) for line in lines) for i in range(4))
    padded = (
        [line[0].ljust(name), *(text.rjust(width) for text, width in zip(line[1:4], numbers, strict=True))]
        for line in lines
    )
    return "\n".join("  ".join([*cells, line[4]]).rstrip() for cells, line in zip(padded, lines, strict=True))


def record(e: Evaluation, rows: Sequence[Row]) -> dict[str, object]:
    """The table with all that decides its numbers: weights, split, clips, settings, machine. Plain values, no NaN."""
    folder = e.wan.folder
    parts = [*load.transformer_parts(folder), load.vae_part(folder.source)]
    files = [file for part in parts for file in part.files()]
    return {
        "wanedit": __version__,
        "model": folder.name,
        "sha256": {str(file.relative_to(folder.path)): sha256(file) for file in files},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "split": e.split,
        "clips": {"with a bar": e.clips, "large": e.large_clips, "without a bar": e.few},
        "footage": [path.name for path in e.paths],
        "settings": vars(e.settings) | {"text_guidance": e.text_guidance},
        "rows": as_dict(rows),
    }


def as_dict(rows: Sequence[Row]) -> list[dict[str, object]]:
    """For JSON, which knows no NaN: the fields of every row and its verdict; null for a value that is not finite."""
    known = [row.value is not None and math.isfinite(row.value) for row in rows]
    return [
        asdict(row) | {"value": row.value if there else None, "verdict": row.verdict}
        for row, there in zip(rows, known, strict=True)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or that of the failure."""
    given = parser().parse_args(arguments)
    try:
        check(given)
        evaluate(given)
    except WaneditError as error:
        print(f"tiny.scorecard: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as reason:
        print(f"tiny.scorecard: {reason}: stopped; nothing was written", file=sys.stderr)
        return reason.exit_code
    return 0


if __name__ == "__main__":
    run(main)
