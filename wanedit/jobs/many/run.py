"""Many videos by one command, from their list to a table of what each came to."""

import csv
import importlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from wanedit import __version__
from wanedit.errors import InputError, WaneditError
from wanedit.files import Json, at_home, digest, file_sha256, write_text
from wanedit.runtime import launch, pool
from wanedit.runtime.many import Found, Kind, its_own
from wanedit.runtime.outputs import check_outputs, require_writable
from wanedit.runtime.pool import RUNS, Member, NotHereError, Pool
from wanedit.runtime.record import own_record, recorded_config
from wanedit.runtime.settings import MODEL_FIELDS, PlainValues, TrackingSettings, require_folder
from wanedit.wan.catalog import find_known

TABLE = "runs.csv"
# What decides no result.
BESIDE = (*TrackingSettings.__dataclass_fields__, "output", "module_folders", "force_regenerate", "gpu_id")


@dataclass(frozen=True)
class ManyConfig(PlainValues):
    """Many runs of one job.

    Attributes:
        job: whose settings these are; a record says it.
        of: the job of each.
        runs: of each `name`, `hash`, `cost` and `settings`.
        folders: where relative paths are looked up after the current folder.
        output: the folder of all.
        force: make all anew.
    """

    job: Literal["many"] = "many"
    of: str = ""
    runs: list[Any] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    output: str = ""
    force: bool = False


def kind_of(job: str) -> Kind:
    """How a job makes many. Raises InputError for one that does not."""
    try:
        found = importlib.import_module(f"wanedit.jobs.{job}.many")
    except ModuleNotFoundError:
        found = None
    if not isinstance(found, Kind):
        raise InputError(f"of is {job!r}; expected a job that makes many videos")
    return found


@dataclass(frozen=True)
class One(Member):
    """One of many: its settings, and what it may cost."""

    called: str
    settings: Mapping[str, Any]
    cost: float

    @property
    def title(self) -> str:
        """What people call it."""
        return self.called

    def about(self) -> Json:
        """What its outcome says of it."""
        return {"name": self.called, "settings": dict(self.settings)}


class Many(Pool[One]):
    """Runs of one job, which end in a table."""

    label = "videos"

    def __init__(self, config: ManyConfig) -> None:
        self.of, self.kind, self.folders = (
            config.of,
            kind_of(config.of),
            [Path(folder) for folder in config.folders],
        )
        self.all = [One(one["hash"], one["name"], one["settings"], one["cost"]) for one in config.runs]
        root = require_folder(config.output)
        super().__init__(root, root / TABLE, replace(config, force=False), self.all, config.force)

    def cost(self, run: One) -> float:
        """As its job found it."""
        return run.cost

    def make(self, run: One, gpu: int | None, anew: bool) -> Mapping[str, float]:
        """Make one as its command would, of the very files that are on record."""
        try:
            found = self.kind.find(dict(run.settings), self.folders)
        except WaneditError as error:
            raise NotHereError(f"{run.called}: {error}") from None
        if _hash(self.of, run.settings, found) != run.name:
            raise NotHereError(
                f"{run.called}: wanedit, the model or a file that is read is another here than when the run was begun; "
                "run its command again, which makes what changed anew"
            )
        given = dict(run.settings) | ({"force_regenerate": True} if anew and self.kind.ENDING == "" else {})
        return self.kind.make(given, self.folders, gpu)

    def conclude(self, made: int, seconds: float) -> None:
        """Write the table: a line for each, with its numbers, or why it failed."""
        results = {run.called: run.result(self.root) or {} for run in self.all}
        columns = list(dict.fromkeys(name for found in results.values() for name in found))
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["name", *columns, "error"])
        for run in self.all:
            found = results[run.called]
            values = (repr(found[name]) if name in found else "" for name in columns)
            table.writerow([run.called, *values, run.failure(self.root) or ""])
        write_text(self.final, text.getvalue())


@dataclass(frozen=True)
class ManyResult:
    """What many came to: the table, how many there are, and of those that failed why."""

    table: Path
    count: int
    failures: Mapping[str, str]

    @property
    def failed(self) -> int:
        """How many."""
        return len(self.failures)

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.table}: {self.count - self.failed} of {self.count} are made"


def many(
    of: str, common: Json, entries: Sequence[Json], folders: Sequence[Path] = (), force: bool = False
) -> ManyConfig:
    """Everything about many runs that is found before one is made.

    Args:
        of: the job of each.
        common: its settings for all; `output` is the folder of all.
        entries, folders: those of each, over them, with a `name`, and where their relative paths are looked up after
            the current folder; as `runtime.many.listed` has them.
        force: make all anew.

    Raises:
        InputError, MissingWeightsError: as the job, with the name of the one; the output is another job's, or cannot be
            written.
    """
    kind, root = kind_of(of), require_folder(str(common["output"] or Path("outputs", of)))
    runs = []
    for entry in entries:
        name = entry["name"]
        own = common | {key: value for key, value in entry.items() if key != "name"}
        own["output"] = str((root / f"{name}{kind.ENDING}").absolute())
        for model in MODEL_FIELDS & own.keys():
            # A name stays one; so does a class.
            if own[model] and os.path.exists(path := at_home(own[model])) and not find_known(own[model]):
                own[model] = str(path.absolute())
        try:
            for each in kind.EACH:
                if each not in entry:
                    own[each] = its_own(each, common.get(each), name, folders)
            found = kind.find(own, folders)
        except WaneditError as error:
            raise type(error)(f"{name}: {error}") from None
        runs.append({"name": name, "hash": _hash(of, own, found), "cost": found.cost, "settings": own})
    made = ManyConfig(
        of=of, runs=runs, folders=[str(folder) for folder in folders], output=str(root), force=force
    )
    directory = Many(made).directory
    own_record("many", directory)
    for path in (directory.config, directory.metrics, root / RUNS / "x"):
        require_writable(path)
    check_outputs([directory.final], recorded=directory.recorded)
    return made


def _hash(of: str, settings: Mapping[str, Any], found: Found) -> str:
    decides = {
        "job": of,
        "wanedit": __version__,
        "settings": {name: value for name, value in settings.items() if name not in BESIDE},
        "inputs": [_contents(path) for path in found.inputs],
        "decides": found.decides,
        "output": Path(str(settings["output"])).name,
    }
    return digest(decides)[:16]


def _contents(path: Path) -> object:
    if path.is_file():
        return file_sha256(path)
    return [[each.name, file_sha256(each)] for each in sorted(path.iterdir()) if each.is_file()]


def run(
    config: ManyConfig,
    jobs: int = 1,
    verbose: bool = True,
    say: Callable[[str], None] = print,
    gpu: int | None = None,
) -> ManyResult:
    """Make those that are not complete, beside all other processes that do; one that fails costs no other.

    Args:
        config: as `many` makes it.
        jobs: processes of this one that do the work; 0 for this one alone, as under torchrun.
        verbose: a progress bar, and each failure as it happens. say: where lines go.
        gpu: which device, for this process alone.

    Raises:
        ResourceError: others are at something else in this folder, or it cannot be written.
    """
    made, world = Many(config), launch.current_world()
    children = 0 if world.under_torchrun else jobs
    pool.pull(made, world, say if verbose and world.rank == 0 else None, children, gpu)
    failures = {one.called: why for one in made.all if (why := one.failure(made.root))}
    return ManyResult(made.final, len(made.all), failures)


def begin(config: ManyConfig) -> None:
    """Put them on record for processes that something else starts. Raises as `run`."""
    pool.begin(Many(config))


def work(root: Path, record: Json, gpu: int | None = None, verbose: bool = True) -> ManyResult:
    """Help with, or go on with, what a folder has on record, as `runtime.launchers.work` does. Raises as `run`."""
    config = recorded_config(ManyConfig, record, root)
    return run(replace(config, output=str(at_home(config.output))), 0, verbose, gpu=gpu)
