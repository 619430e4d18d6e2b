"""`wanedit ablate`: every run of a grid, and what it shows."""

from jsonargparse import Namespace

from wanedit.commands.support import Parser, add_run_flags, new_parser, resumable, unpack
from wanedit.commands.work import Launcher, add_launcher
from wanedit.jobs.ablate.config import AblationConfig, check_ablation
from wanedit.runtime.launch import current_world

HELP = "make every run of an experiment's grid, its tables and figures"
ORDER = 5


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Expand an experiment's grid.yaml into runs, make those that are not complete, and write results.csv, "
        "summary.csv, table.md and figures beside the grid. A run that fails is listed; the others go on.",
        AblationConfig,
    )
    about = "a folder with a grid.yaml: the same as --experiment"
    made.add_argument("folder", nargs="?", type=str, default="", help=about)
    made.positional["folder"] = "experiment"
    add_launcher(made)
    add_run_flags(made)
    return made


def run(settings: Namespace) -> int:
    """Ablate, or print the plan. Returns the exit code: 1 if a run failed."""
    values, _ = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    values["experiment"] = values.pop("folder") or values["experiment"]
    launcher = Launcher.of(values)
    config = AblationConfig(**values)
    if dry_run:
        check_ablation(config, current_world())
        from wanedit.jobs.ablate.run import print_ablation_plan

        print_ablation_plan(config)
        return launcher.start(config.runs_folder, dry_run, quiet)
    return make(config, launcher, verbose, quiet)


def make(config: AblationConfig, launcher: Launcher, verbose: bool, quiet: bool) -> int:
    """Make the experiment, its plan first with `verbose`. Returns the exit code."""
    check_ablation(config, current_world())
    from wanedit.jobs.ablate.run import ablate, begin, print_ablation_plan

    if verbose:
        print_ablation_plan(config)
    if launcher.launcher != "local":
        begin(config)
        return launcher.start(config.runs_folder, False, quiet)
    with resumable(f"finished runs are kept in {config.runs_folder}. Go on with"):
        results = ablate(config, verbose=not quiet)
    if not quiet and current_world().rank == 0:
        print(results.told)
    return int(results.failed > 0)
