"""`wanedit ablate`: every run of a grid, and what it shows."""

from typing import Any

from wanedit.commands.support import add_run_flags, command_again, complain, new_parser, unpack
from wanedit.jobs.ablate.config import AblationConfig

HELP = "make every run of an experiment's grid, its tables and figures"
KEYS = [*AblationConfig.__dataclass_fields__, "config", "dry_run", "verbose", "quiet"]


def parser() -> Any:
    """Its flags."""
    made = new_parser(
        "Expand an experiment's grid.yaml into runs, make those that are not complete, and write results.csv, "
        "summary.csv, table.md and figures beside the grid. A run that fails is listed; the others go on.",
        AblationConfig,
    )
    made.add_argument("folder", nargs="?", type=str, default="", help="the same as --experiment")
    add_run_flags(made)
    return made


def run(settings: Any) -> int:
    """Ablate, or print the plan. Returns the exit code: 1 if a run failed."""
    values, _ = unpack(settings)
    dry_run, verbose, quiet = (values.pop(name) for name in ("dry_run", "verbose", "quiet"))
    values["experiment"] = values.pop("folder") or values["experiment"]
    config = AblationConfig(**values)
    if dry_run or verbose:
        from wanedit.jobs.ablate.run import check_ablation, print_ablation_plan
        from wanedit.runtime.launch import current_world

        check_ablation(config, current_world())
        print_ablation_plan(config)
    return 0 if dry_run else _ablate(config, quiet)


def _ablate(config: AblationConfig, quiet: bool) -> int:
    from wanedit.jobs.ablate.run import ablate
    from wanedit.runtime import launch

    try:
        results = ablate(config, verbose=not quiet)
    except launch.Interrupted as signal:
        complain(
            f"{signal}: finished runs are kept in {config.runs_folder}. Go on with:\n  {command_again()}"
        )
        return signal.exit_code
    if not quiet and launch.current_world().rank == 0:
        print(f"results: {config.results_folder / 'table.md'}")
    return 1 if results.missing else 0
