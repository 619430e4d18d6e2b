"""What an ablation would do, as a table for a person."""

from rich.console import Console
from rich.table import Table

from wanedit.jobs.ablate.config import AblationConfig
from wanedit.jobs.ablate.grid import column_names, label_text, load_grid
from wanedit.jobs.ablate.runs import expand
from wanedit.runtime.progress import wide_console


def print_ablation_plan(config: AblationConfig, console: Console | None = None) -> None:
    """Every point of the grid with its runs, and how many of them are complete."""
    console = console or wide_console()
    grid = load_grid(config.folder)
    runs, columns = expand(grid, config.folder, config.items), column_names(grid)
    counts: dict[tuple[str, ...], list[int]] = {}
    for run in runs:
        made = counts.setdefault(tuple(label_text(run.labels.get(c)) for c in columns), [0, 0])
        made[0] += 1
        made[1] += run.result(config.runs_folder) is not None
    table = Table(title=grid.title, title_justify="left", caption=grid.shows.strip(), caption_justify="left")
    for name in (*columns, "runs", "complete"):
        table.add_column(name, justify="right" if name in ("runs", "complete") else "left")
    for point, (total, complete) in counts.items():
        table.add_row(*point, str(total), str(complete))
    console.print(table)
    left = len(runs) - sum(complete for _, complete in counts.values())
    hint = f"; the whole takes about {grid.minutes:g} minutes on two cores" if grid.minutes else ""
    console.print(f"{len(runs)} runs of `wanedit {grid.command}`, {left} to make{hint}", highlight=False)
    console.print(f"runs in {config.runs_folder}, results in {config.results_folder}", highlight=False)
