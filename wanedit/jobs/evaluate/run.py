"""`wanedit evaluate`: what can be measured of a finished video with what is given, and why the rest was not."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wanedit import __version__
from wanedit.files import at_home, system_errors, write_text
from wanedit.jobs.evaluate.config import HEADER, EvaluationConfig, find_files
from wanedit.jobs.evaluate.inputs import read_inputs, read_mask, read_scene
from wanedit.jobs.evaluate.metric import Inputs, Values, find_metric, measure
from wanedit.jobs.evaluate.vbench import export
from wanedit.runtime.events import wide_console
from wanedit.runtime.inputs import find_path, run_folder
from wanedit.runtime.record import read_run
from wanedit.tracking import open_tracker
from wanedit.tracking.runs import track_measures

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluation:
    """Results of one video: `metrics[group]` by name, `skipped[group]` with the reason, and what else is to be said."""

    video: str
    frames: int
    size: tuple[int, int]
    metrics: dict[str, Values]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()


@system_errors()
def evaluate(config: EvaluationConfig, folders: Sequence[Path] = (), say: Say = print) -> Evaluation:
    """Measure a video, export it and log it where that is asked for. Its frames are read as they are measured.

    Args:
        config: what to measure.
        folders: where relative paths are looked up after the current folder.
        say: where lines of a tracker go: how to sync, what failed.

    Raises:
        InputError: a file that is not there or does not fit; a named metric that cannot be measured.
        MissingWeightsError: a named metric needs weights that are not on this machine.
    """
    names, read = find_files(config, folders), list[tuple[Path, list[str]]]()
    for name in names or ():
        find_metric(name)
    made, root = None, Path()
    if config.run is None:
        inputs, read = read_inputs(config, folders)
        title = read[0][0].name
    else:
        root = run_folder(find_path(config.run, folders, what="run", folder=True))
        made, title = read_run(root, folders), root.resolve().name
        inputs = Inputs.of(made)
        if config.mask is not None:
            inputs = replace(inputs, mask=read_mask(config.mask, inputs.video, folders, read))
    if config.scene is not None:
        scene = read_scene(find_path(config.scene, folders, what="scene", folder=True), inputs.video)
        inputs = replace(inputs, scene=scene, mask=scene.changed if inputs.mask is None else inputs.mask)
    if config.prompt:
        inputs = replace(inputs, prompt=config.prompt)
    metrics, skipped = measure(inputs, names)
    exported: tuple[str, ...] = ()
    if config.vbench is not None:
        keyframes = inputs.keyframes or {}
        picture = keyframes[min(keyframes)] if keyframes else None
        folder = at_home(config.vbench)
        exported = export(folder, inputs.video, inputs.fps, inputs.prompt, picture)
    # What had to be done to frames to read them is known once all are read.
    noted = [f"{path.name}: {note}" for path, notes in read for note in dict.fromkeys(notes)]
    height, width = inputs.video.shape[1:3]
    result = Evaluation(title, len(inputs.video), (width, height), metrics, skipped, (*noted, *exported))
    if config.tracking != "none":
        numbers = {"/".join(("evaluate", *filter(None, place))): value for *place, value in rows(result)}
        if made is not None:
            track_measures(config, made, root, numbers, say)
        else:
            # Its files stand beside the results.
            place = at_home(config.output or "").with_suffix("")
            with open_tracker(config, place, "evaluate", {"video": title}, title, say) as tracking:
                tracking.summary(numbers)
    return result


def rows(result: Evaluation) -> list[tuple[str, str, str, float]]:
    """(group, place, name, value) of every number: one line each of the CSV."""
    return [
        (group, "/".join(places[:-1]), places[-1], int(value) if isinstance(value, int) else float(value))
        for group, values in result.metrics.items()
        for places, value in flat(values)
    ]


def flat(values: Values, places: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a group, with the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, (*places, name))
        else:
            yield (*places, name), value


@system_errors()
def write(result: Evaluation, path: Path) -> None:
    """The results as JSON, and beside it as CSV with the same digits; what is not a number is null, or empty."""
    values = {"wanedit": __version__, **asdict(result)}
    write_text(path, json.dumps(_plain(values), indent=1, allow_nan=False) + "\n")
    lines = [
        f"{group},{place},{name},{repr(value) if math.isfinite(value) else ''}"
        for group, place, name, value in rows(result)
    ]
    write_text(path.with_suffix(".csv"), "\n".join([HEADER, *lines]) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_evaluation(result: Evaluation, console: Console | None = None) -> None:
    """What was measured, join by join and group by group, and what was not."""
    console = console or wide_console()
    width, height = result.size
    console.print(f"{result.video}: {result.frames} frames of {width}x{height}", highlight=False)
    joins: dict[str, dict[str, str]] = {}
    numbers = Table(title="Measures", title_justify="left")
    for column in ("group", "measure", "value"):
        numbers.add_column(column, justify="right" if column == "value" else "left")
    for group, values in result.metrics.items():
        for names, number in flat(values):
            if names[-1] == "ratio":
                # The score of a join: "junctions/12/mse/ratio", or "lpips/junctions/12/ratio".
                join = next(name for name in names if name.isdecimal())
                measure_name = group if names[-2] == join else names[-2]
                said = {place[-1] for place, value in flat(values) if value and place[:-1] == names[:-1]}
                mark = "!" if "beyond" in said else "*" if "shows" in said else " "
                joins.setdefault(join, {})[measure_name] = f"{number:.2f}{mark}"
            elif len(names) == 1:
                numbers.add_row(group, names[0], f"{number:.4g}")
    if joins:
        columns = list(dict.fromkeys(name for found in joins.values() for name in found))
        marked = sum(any(text[-1] in "*!" for text in found.values()) for found in joins.values())
        title = f"Junctions: ratio to the interior; {marked} of {len(joins)} show: * by it, ! by size"
        table = Table(title=title, title_justify="left")
        for column in ("frame", *columns):
            table.add_column(column, justify="right")
        for join, found in joins.items():
            table.add_row(join, *(found.get(name, "") for name in columns))
        console.print(table)
    if numbers.row_count:
        console.print(numbers)
    for group, reason in result.skipped.items():
        console.print(f"not measured: {group}: {reason}", style="yellow", highlight=False)
    for note in result.notes:
        console.print(note, highlight=False)
