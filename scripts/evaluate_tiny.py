"""Measure wan-tiny on clips that it never saw: `python scripts/evaluate_tiny.py --out scores.json --sheet sheet.png`.

Prints every quantity beside what is asked of it. Exit code 0 when all was measured, whether or not every bar is met.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wanedit.errors import InputError, WaneditError

if TYPE_CHECKING:
    from wanedit.lit.training.evaluate_rows import Evaluation
    from wanedit.lit.training.scorecard import Row

PARTS = ("vae", "footage", "flf2v", "first", "text", "all", "large", "long", "size", "speed")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    flags = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flags.add_argument("--model", default="tiny", help="folder of the model; the shipped one by default")
    flags.add_argument("--clips", type=int, default=256, help="test clips for each 64x64 row")
    flags.add_argument("--large_clips", type=int, default=24, help="test clips for 128x128 and 96x96x33")
    flags.add_argument("--rows", nargs="+", choices=PARTS, default=list(PARTS), help="parts of the table")
    flags.add_argument(
        "--footage", nargs="+", type=Path, default=[], help="real clips and pictures for the VAE"
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
        InputError: a number below 1, a missing or unreadable file, an unknown solver or folder.
        MissingWeightsError: a part of the model is absent.
    """
    from wanedit.flow.solvers import get_solver
    from wanedit.wan.load import open_wan, require_parts

    for name in ("clips", "large_clips", "steps"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; expected at least 1")
    missing = [str(path) for path in given.footage if not path.is_file()]
    if missing:
        raise InputError(f"footage: got {', '.join(missing)}; expected existing files")
    for path in given.footage:
        require_picture(path)
    for path in (given.out, given.sheet):
        if path is not None and path.is_dir():
            raise InputError(f"{path} is a folder; expected a file to write")
    get_solver(given.solver)
    require_parts(open_wan(given.model))


def require_picture(path: Path) -> None:
    """See that a file has a first frame.

    Raises:
        InputError: it is neither a clip nor a picture.
    """
    import av
    import av.error

    try:
        with av.open(str(path)) as container:
            next(container.decode(video=0))
    except (av.error.FFmpegError, StopIteration, IndexError):
        raise InputError(
            f"footage: {path} has no frame that can be read; expected a clip or picture"
        ) from None


def load(given: argparse.Namespace) -> "Evaluation":
    """The model and how it is sampled: its own settings where the command line says nothing."""
    from wanedit.lit.training.evaluate import SamplerSettings
    from wanedit.lit.training.evaluate_rows import Evaluation
    from wanedit.wan.load import load_wan

    wan = load_wan(given.model)
    own = wan.folder.sampling
    steps = own.num_inference_steps if given.steps is None else given.steps
    guidance = own.guidance_scale if given.guidance is None else given.guidance
    settings = SamplerSettings(steps, own.shift, guidance, given.solver, given.seed)
    # A larger clip is compared with the same scene at 64x64, which must be among those measured.
    large = min(given.large_clips, given.clips)
    return Evaluation(wan, settings, given.clips, large, given.text_guidance, given.footage)


def measure(e: "Evaluation", names: Sequence[str]) -> "list[Row]":
    """The rows of the named parts; says on the error stream how long each took."""
    from wanedit.lit.training.evaluate_cost import size_rows, speed_rows
    from wanedit.lit.training.evaluate_rows import ROWS

    parts = {**ROWS, "size": size_rows, "speed": speed_rows}
    rows = []
    for name in [name for name in PARTS if name in names]:
        began = time.perf_counter()
        rows += parts[name](e)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return rows


def evaluate(given: argparse.Namespace) -> None:
    """Load, measure, print; write what was asked for."""
    from wanedit.lit.training.evaluate_sheet import write_sheet
    from wanedit.lit.training.scorecard import as_dict, table

    e = load(given)
    rows = measure(e, given.rows)
    print(table(rows))
    if given.out:
        settings = vars(e.settings) | {"text_guidance": e.text_guidance}
        record = {"model": e.wan.folder.name, "settings": settings, "rows": as_dict(rows)}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2) + "\n")
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
