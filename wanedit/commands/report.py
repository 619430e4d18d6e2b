"""`wanedit report`: one HTML file that shows a run, or compares several."""

from pathlib import Path

from jsonargparse import Namespace

from wanedit.commands.support import Parser, add_config, new_parser
from wanedit.errors import InputError
from wanedit.runtime.events import progress_bars
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.outputs import REPORT_NAME, page_file

HELP = "show a run, or compare several, in one HTML file"
ORDER = 6


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Write one HTML file that needs nothing else: videos that play and scrub together, junctions, curves, "
        "metrics, plan, settings and hashes of a run; of several runs, a comparison."
    )
    add_config(made)
    made.add_argument("runs", nargs="+", type=str, help="folders of runs, or their finished videos")
    made.add_argument(
        "--output",
        type=str,
        default=None,
        help="the .html file; of one run report.html in its folder unless given",
    )
    made.add_argument(
        "--metrics", type=str, default="auto", help='"auto", "none", or names as in `wanedit evaluate`'
    )
    made.add_argument("--quiet", action="store_true", help="print nothing")
    made.everyday |= {"metrics": "how", "output": "what comes out", "config": "the run", "quiet": "the run"}
    return made


def run(settings: Namespace) -> int:
    """Write the file and say where it is. Returns the exit code."""
    runs, output = [Path(run) for run in settings.runs], settings.output
    if len(runs) > 1 and output is None:
        raise InputError(f"{len(runs)} runs and no output; expected --output FILE.html for their comparison")
    # Before the page is imported, which draws and so takes seconds.
    found = [run_folder(one) for one in runs]
    target = page_file(found[0] / REPORT_NAME if output is None else output)
    from wanedit.report import write_comparison, write_report

    with progress_bars(not settings.quiet):
        if len(runs) == 1:
            path = write_report(runs[0], target, settings.metrics)
        else:
            path = write_comparison(runs, target, settings.metrics)
    if not settings.quiet:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return 0
