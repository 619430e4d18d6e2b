"""`wanedit bench`: methods of editing on a benchmark's clips."""

from jsonargparse import Namespace

from wanedit.commands import ablate
from wanedit.commands.support import Parser, add_run_flags, new_parser, resumable, unpack
from wanedit.commands.work import Launcher, add_launcher
from wanedit.files import at_home
from wanedit.jobs.ablate.bench import FIVE_FRAMES, BenchConfig, check_bench, print_bench_plan, write_grid
from wanedit.jobs.ablate.config import check_results

HELP = "methods of editing on a benchmark's clips, as one experiment"
ORDER = 5


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Write the grid of a benchmark, then make every run of it that is not complete, its tables and figures, as "
        "wanedit ablate does. davis: an edit whose truth is known, on real clips with masks, which needs no weights "
        "of a measure. five: FiVE-Bench's edits, beside its published numbers.",
        BenchConfig,
    )
    for word, setting, about in (
        ("name", "benchmark", "the benchmark: the same as --benchmark"),
        ("folder", "data", "its folder: the same as --data"),
    ):
        made.add_argument(word, nargs="?", type=str, default="", help=about)
        made.positional[word] = setting
    add_launcher(made)
    add_run_flags(made)
    return made


def run(settings: Namespace) -> int:
    """Make the benchmark, or print its plan. Returns the exit code: 1 if a run failed."""
    values, _ = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    for word, setting in (("name", "benchmark"), ("folder", "data")):
        values[setting] = values.pop(word) or values[setting]
    launcher = Launcher.of(values)
    config = BenchConfig(**values)
    check_bench(config)
    if config.benchmark == "five" and config.stylist is not None:
        with resumable(f"keyframes are kept in {config.keyframes_folder}. Go on with", "Go on with"):
            lacking = style_keyframes(config, dry_run, quiet)
        if dry_run and lacking:
            return 0  # what is edited is not known before
    if dry_run:
        print_bench_plan(config)
        return launcher.start(config.ablation.runs_folder, dry_run, quiet)
    check_results(config.results_folder)
    write_grid(config, config.folder)
    return ablate.make(config.ablation, launcher, verbose, quiet)


def style_keyframes(config: BenchConfig, dry_run: bool, quiet: bool) -> int:
    """Have the keyframes of FiVE-Bench's edits made that are not there. Returns of how many edits they were not.

    Raises:
        WaneditError: the folder is none of the benchmark's, or the stylist gives out; those that are made stay.
    """
    from wanedit.jobs.ablate.footage import FiveEdit, read_five
    from wanedit.jobs.style.config import StyleConfig, StyleSource
    from wanedit.jobs.style.run import StyleDirectory, style
    from wanedit.video.source import open_source

    home = config.keyframes_folder

    def lacks(edit: FiveEdit) -> bool:
        begun = StyleDirectory(home / edit.name)
        return not begun.final.exists() and (begun.journal.exists() or not begun.root.is_dir())

    edits = list(filter(lacks, read_five(at_home(config.data), config.kinds)))
    if not quiet:
        print(f"keyframes of {len(edits)} edits to make, in {home}")
    for edit in edits if not dry_run else ():
        frames = min(config.num_frames or FIVE_FRAMES, len(open_source(edit.sequence.video).frames))
        styling = StyleConfig(
            video=str(edit.sequence.video),
            style=StyleSource(description=edit.target_prompt),
            stylist=config.stylist or "",
            indices=list(range(0, frames, config.spacing)),
            num_frames=frames,
            output=str(home / edit.name),
        )
        style(styling, verbose=False)
    return len(edits)
