"""Reports of finished runs: one page for one run, one page to compare several."""

from collections.abc import Sequence
from pathlib import Path

from wanedit.errors import InputError
from wanedit.report.compare import comparison_page
from wanedit.report.record import folder_of, read_record
from wanedit.report.single import run_page
from wanedit.runtime.directory import write_text

REPORT_NAME = "report.html"


def write_report(root: Path, output: Path | None = None, metrics: str = "auto") -> Path:
    """Write the page of one run, whole or not, and return where it is.

    Args:
        root: the run's folder, or its finished video.
        output: the file; None for report.html in the run's folder.
        metrics: "auto" for all that can be measured, "none", or names as `wanedit evaluate --metrics` takes them.

    Raises:
        InputError: no run, or the file cannot be written.
    """
    folder = folder_of(Path(root))
    target = folder / REPORT_NAME if output is None else _target(output)
    write_text(target, run_page(read_record(folder), metrics))
    return target


def write_comparison(roots: Sequence[Path], output: Path, metrics: str = "auto") -> Path:
    """Write one page that compares runs. Arguments and errors as `write_report`.

    Raises:
        InputError: fewer than two runs, or one named twice.
    """
    folders = [folder_of(Path(root)) for root in roots]
    if len(folders) < 2 or len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(
            f"a comparison of {len(folders)} runs, some perhaps the same; expected two different ones or more"
        )
    target = _target(output)
    write_text(target, comparison_page([read_record(folder) for folder in folders], metrics))
    return target


def _target(output: Path) -> Path:
    target = Path(output).expanduser()
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"output is {target.name!r}; expected the name of an .html file")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
