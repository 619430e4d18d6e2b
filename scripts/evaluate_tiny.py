"""Measure wan-tiny on clips that it never saw: `python scripts/evaluate_tiny.py --out scores.json --sheet sheet.png`.

Prints every quantity beside what is asked of it. Exit code 0 when all was measured, whether or not every bar is met.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wanedit.errors import InputError, WaneditError

if TYPE_CHECKING:
    from tiny.evaluate_run import Evaluation
    from tiny.scorecard import Row

T = TypeVar("T")

FOOTAGE = Path(__file__).resolve().parents[1] / "examples" / "footage"
HELD_OUT = tuple(FOOTAGE / name for name in ("bottles.mkv", "flf2v_first.png", "flf2v_last.png"))
# Of 128x128 and 96x96x33, where the command line says nothing: more would take the table over its ten minutes.
LARGE = 16


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from tiny.evaluate_rows import PARTS
    from wanedit.sprites.scene import SPLITS

    names = [part.name for part in PARTS]
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
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
    flags.add_argument("--solver", default="unipc", help="unipc, dpm++, euler or heun")
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
    from wanedit.flow.solvers import get_solver
    from wanedit.wan.load import open_wan, require_parts

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
    get_solver(given.solver)
    require_parts(open_wan(given.model))
    # Last, because it makes folders.
    for path in (given.out, given.sheet):
        if path is not None:
            require_writable(path)


def require_writable(path: Path) -> None:
    """Create the folder that a file will be written to.

    Raises:
        InputError: the path is a folder, or its own folder cannot be made.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; expected a folder that can be made"
        ) from None


def require_footage(paths: Sequence[Path]) -> None:
    """See that every file is there and has a first frame.

    Raises:
        InputError: one is missing, or neither a clip nor a picture.
    """
    from tiny.data import require_picture

    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"footage: got {', '.join(missing)}; expected existing files")
    for path in paths:
        require_picture(path)


def load(given: argparse.Namespace) -> "Evaluation":
    """The model and how it is sampled: its own settings where the command line says nothing."""
    from tiny.evaluate import SamplerSettings
    from tiny.evaluate_run import Evaluation
    from wanedit.wan.load import load_wan

    wan = load_wan(given.model)
    own = wan.folder.sampling
    steps = own.num_inference_steps if given.steps is None else given.steps
    guidance = own.guidance_scale if given.guidance is None else given.guidance
    return Evaluation(
        wan,
        SamplerSettings(steps, own.shift, guidance, given.solver, given.seed),
        given.clips,
        min(LARGE, given.clips) if given.large_clips is None else given.large_clips,
        given.text_guidance,
        given.footage or HELD_OUT,
        held_out=not given.footage,
        split=given.split,
    )


def measure(e: "Evaluation", names: Sequence[str]) -> "list[Row]":
    """The rows of the named parts and of their time; says on the error stream how long each took."""
    from tiny.evaluate_between import small_figures
    from tiny.evaluate_cost import total_row
    from tiny.evaluate_rows import PARTS

    began = time.perf_counter()
    parts = [part for part in PARTS if part.name in names]
    # Measured once, for all parts that need it.
    small = (timed("64x64x17", small_figures, e),) if any(part.small for part in parts) else ()
    rows = [row for part in parts for row in timed(part.name, part.rows, e, *(small if part.small else ()))]
    return [*rows, total_row(time.perf_counter() - began, len(parts) == len(PARTS))]


def timed(name: str, function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns; its seconds go to the error stream."""
    began = time.perf_counter()
    result = function(*arguments)
    print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return result


def evaluate(given: argparse.Namespace) -> None:
    """Load, measure, print; write what was asked for."""
    from tiny.evaluate_record import record
    from tiny.evaluate_sheet import write_sheet
    from tiny.scorecard import table

    e = load(given)
    rows = measure(e, given.rows)
    print(table(rows))
    if given.out:
        given.out.write_text(json.dumps(record(e, rows), indent=2, allow_nan=False) + "\n")
    if given.sheet:
        write_sheet(e, given.sheet)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or that of the failure."""
    given = parser().parse_args(arguments)
    try:
        check(given)
        evaluate(given)
    except WaneditError as error:
        print(f"evaluate_tiny: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
