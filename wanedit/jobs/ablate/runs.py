"""From a grid to runs, each named by the hash of all that decides its result, and what is on disk of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wanedit.errors import InputError
from wanedit.jobs.ablate.grid import Grid, Settings, merge, points
from wanedit.jobs.ablate.items import Item, make_items
from wanedit.jobs.ablate.material import fingerprint
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.method import build_method
from wanedit.jobs.edit.plan import ALGORITHM
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.runtime.directory import write_text
from wanedit.runtime.hashing import digest, hash_files
from wanedit.runtime.settings import check_values
from wanedit.wan.load import open_wan

# Raised when a change to what is measured makes earlier results another thing.
MEASURED = 1
RESULT, FAILURE = "result.json", "failure.json"
# What decides nothing.
LOGGED = ("tracking", "experiment", "tracking_project")
# The run's own, which no grid may set.
OWN = ("output", "base_seed", "force_regenerate", "num_gpus", "gpu_ids", "gpu_id", "resume_from")


@dataclass(frozen=True)
class Run:
    """One run of a grid.

    Attributes:
        name: 16 hexadecimal digits: same name, same result.
        labels: of its point, by column.
        settings: of the command, without inputs and output.
    """

    name: str
    labels: Settings
    item: Item
    seed: int
    command: str
    settings: Settings

    def folder(self, root: Path) -> Path:
        """Its own."""
        return root / "runs" / self.name

    def result(self, root: Path) -> dict[str, float] | None:
        """What was measured; None if it is not complete, or its file is not what a run writes."""
        found = _read(self.folder(root) / RESULT)
        measures = found.get("measures")
        if not isinstance(measures, dict) or not measures or found.get("run") != self.name:
            return None
        return measures if all(type(value) in (int, float) for value in measures.values()) else None

    def failure(self, root: Path) -> str | None:
        """Why it ended early; None if it did not."""
        return None if self.result(root) is not None else _read(self.folder(root) / FAILURE).get("error")

    def succeed(self, root: Path, measures: dict[str, float]) -> None:
        """Write what was measured: from now on the run is complete."""
        self._write(root, RESULT, {"measures": measures})

    def fail(self, root: Path, error: str) -> None:
        """Write why it ended; an earlier result is no longer one."""
        (self.folder(root) / RESULT).unlink(missing_ok=True)
        self._write(root, FAILURE, {"error": error})

    def _write(self, root: Path, name: str, values: dict[str, Any]) -> None:
        self.folder(root).mkdir(parents=True, exist_ok=True)
        about = {"run": self.name, "labels": self.labels, "seed": self.seed, "item": asdict(self.item)}
        text = json.dumps(about | {"settings": self.settings} | values, indent=1, ensure_ascii=False)
        write_text(self.folder(root) / name, text + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A record; empty if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def expand(grid: Grid, folder: Path, items: int | None = None) -> list[Run]:
    """Every run of a grid, each once, checked as far as no clip and no weight is needed.

    Args:
        folder: the experiment's, from which the paths of its clips count.
        items: take only the first so many clips.

    Raises:
        InputError: a setting that the command does not have or cannot take; naming the point of the grid.
        MissingWeightsError: the model is not there.
    """
    found: dict[str, Run] = {}
    models: dict[str, str] = {}
    for point in points(grid):
        settings = merge({"cpu_threads": 1} | grid.base, point.settings)
        source = _checked(grid.command, settings, point.labels).source
        if source not in models:
            models[source] = digest(hash_files(open_wan(source), lambda text: None))
        clips = make_items(merge(grid.data, point.data), folder)
        for item in clips if grid.data["kind"] == "clips" else ():
            own = {name: value for name, value in item.spec["settings"].items() if name != "reference"}
            _checked(grid.command, merge(own, settings), point.labels | {"clip": item.name})
        for item in clips[:items]:
            for seed in grid.seeds:
                run = Run("", point.labels, item, seed, grid.command, settings)
                name = _name(run, models[source])
                found.setdefault(json.dumps([name, point.labels]), replace(run, name=name))
    return list(found.values())


def _name(run: Run, model: str) -> str:
    values = {
        "algorithm": [ALGORITHM, MEASURED],
        "command": run.command,
        "settings": {name: value for name, value in run.settings.items() if name not in LOGGED},
        "item": fingerprint(run.item),
        "seed": run.seed,
        "model": model,
    }
    return digest(values)[:16]


def _checked(command: str, settings: Settings, labels: Settings) -> EditConfig | GenerationConfig:
    """The configuration that the settings make, without its inputs."""
    if own := [name for name in OWN if name in settings]:
        raise InputError(f"{own[0]} is set by the grid; expected it to be left to the runs")
    made = EditConfig if command == "edit" else GenerationConfig
    unknown = [name for name in settings if name not in made.__dataclass_fields__]
    if unknown:
        raise InputError(f"{_place(labels)}: unknown setting {unknown[0]!r} of {command}")
    try:
        check_values(made, settings)
        config = made(**settings)
        if isinstance(config, EditConfig):
            build_method(config)
    except InputError as error:
        raise InputError(f"{_place(labels)}: {error}") from None
    return config


def _place(labels: Settings) -> str:
    return "grid at " + ", ".join(f"{name} {value}" for name, value in labels.items())


def unfinished(runs: Sequence[Run], root: Path, force: bool) -> list[Run]:
    """Those to be made, each name once: two points of a grid may ask for the same."""
    seen: dict[str, Run] = {}
    for run in runs:
        if force or run.result(root) is None:
            seen.setdefault(run.name, run)
    return list(seen.values())


def rows(runs: Sequence[Run], root: Path) -> Iterator[tuple[Run, str, float]]:
    """(run, measure, value) of every complete run."""
    for run in runs:
        for name, value in (run.result(root) or {}).items():
            yield run, name, value
