"""`wanedit evaluate`: measure a finished video."""

from jsonargparse import Namespace

from wanedit.commands.support import Parser, add_source, new_parser, unpack
from wanedit.commands.work import Launcher, add_launcher, run_many
from wanedit.files import at_home
from wanedit.jobs.evaluate.config import EvaluationConfig, find_files
from wanedit.runtime.events import progress_bars

HELP = "measure a finished video"
ORDER = 4


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Measure a video: its joins, its consistency in time, and what it is to a reference, a mask and "
        "keyframes. What cannot be measured is named with the reason.",
        EvaluationConfig,
    )
    add_source(made, many=True)
    add_launcher(made, jobs=True)
    made.add_argument("--quiet", action="store_true", help="print nothing")
    made.everyday |= {"config": "the run"}
    return made


def run(settings: Namespace) -> int:
    """Measure, print and write. Returns the exit code."""
    values, folders = unpack(settings)
    quiet = values.pop("quiet")
    launcher = Launcher.of(values, jobs=True)
    if (code := run_many("evaluate", values, folders, launcher, False, False, quiet)) is not None:
        return code
    launcher.only_here("one video")
    config = EvaluationConfig(**values)
    find_files(config, folders)
    from wanedit.jobs.evaluate.run import evaluate, print_evaluation, write

    say = (lambda line: None) if quiet else print
    with progress_bars(not quiet):
        result = evaluate(config, folders, say)
    if not quiet:
        print_evaluation(result)
    if config.output is not None:
        write(result, at_home(config.output))
    return 0
