"""Many videos by one command, from their list to a table of what each came to."""

import csv
import importlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from wanedit import __version__
from wanedit.errors import InputError, WaneditError
from wanedit.files import MAX_VALUES, MAX_YAML, Json, at_home, digest, file_sha256, reading, write_text
from wanedit.outside import look_in
from wanedit.runtime import launch, pool
from wanedit.runtime.inputs import with_model
from wanedit.runtime.many import Found, Kind, checked_name, its_own
from wanedit.runtime.outputs import check_outputs, require_writable
from wanedit.runtime.pool import RUNS, Member, NotHereError, Pool
from wanedit.runtime.record import own_record, recorded, recorded_config
from wanedit.runtime.settings import PlainValues, TrackingSettings, require_folder

TABLE = "runs.csv"
# What is said of all at once: where they are made, whether anew, and where. No entry has its own.
OF_ALL = ("output", "force_regenerate", "gpu_id", "module_folders")
# What decides no result.
BESIDE = (*TrackingSettings.__dataclass_fields__, *OF_ALL)
_HASH = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class ManyConfig(PlainValues):
    """Many runs of one job.

    Attributes:
        job: whose settings these are; a record says it.
        of: the job of each.
        common: its settings for all.
        runs: of each `name`, `hash`, `cost` and `settings`, which are those that it has otherwise.
        folders: where relative paths are looked up after the current folder.
        module_folders: where modules are looked for after that; a run records those that it found its own in.
        output: the folder of all.
        force: make all anew.
    """

    job: Literal["many"] = "many"
    of: str = ""
    common: dict[str, Any] = field(default_factory=dict)
    runs: list[Any] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    module_folders: list[str] = field(default_factory=list)
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
    """Runs of one job, which end in a table. Raises InputError for settings that are none, as of a damaged record."""

    label = "videos"

    def __init__(self, config: ManyConfig) -> None:
        self.of, self.kind, self.folders = (
            config.of,
            kind_of(config.of),
            [Path(folder) for folder in config.folders],
        )
        root = require_folder(config.output)
        look_in(config.module_folders)
        self.all = list[One]()
        with reading(record := root / "config.yaml", "runs as wanedit records them"):
            for one in config.runs:
                if not _HASH.fullmatch(one["hash"]):
                    raise ValueError(f"the hash {one['hash']!r}")
                output = root / f"{checked_name(one['name'], record)}{self.kind.ENDING}"
                settings = config.common | one["settings"] | {"output": str(output.absolute())}
                self.all.append(One(one["hash"], one["name"], settings, float(one["cost"])))
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
    if common.get("gpu_id") is not None:
        raise InputError(
            f"gpu_id is {common['gpu_id']} for many videos, which take the GPUs in turn; expected it left out, and "
            "CUDA_VISIBLE_DEVICES to choose some"
        )
    common = with_model(common, folders, absolute=True)
    runs = []
    for entry in entries:
        name = entry["name"]
        try:
            if of_all := [key for key in OF_ALL if key in entry]:
                raise InputError(
                    f"{of_all[0]} is of all videos at once; expected it beside the list, as --{of_all[0]}, not in it"
                )
            own = {key: value for key, value in entry.items() if key != "name"}
            for each in kind.EACH:
                if each not in entry:
                    own[each] = its_own(each, common.get(each), name, folders)
            own = common | with_model(own, folders, absolute=True)
            own["output"] = str((root / f"{name}{kind.ENDING}").absolute())
            found = kind.find(own, folders)
        except WaneditError as error:
            raise type(error)(f"{name}: {error}") from None
        differs = {key: value for key, value in own.items() if key not in common or value != common[key]}
        differs.pop("output", None)
        runs.append({"name": name, "hash": _hash(of, own, found), "cost": found.cost, "settings": differs})
    made = ManyConfig(
        of=of,
        common={key: value for key, value in common.items() if key != "output"},
        runs=runs,
        folders=[str(folder) for folder in folders],
        module_folders=common.get("module_folders", []),
        output=str(root),
        force=force,
    )
    _require_readable(made)
    directory = Many(made).directory
    own_record("many", directory)
    for path in (directory.config, directory.metrics, root / RUNS / "x"):
        require_writable(path)
    check_outputs([directory.final], recorded=directory.recorded)
    return made


def _require_readable(config: ManyConfig) -> None:
    """Raise InputError where the record of so many could not be read again."""
    text = yaml.safe_dump(values := recorded(config), allow_unicode=True)
    if (count := _values(values)) > MAX_VALUES or len(text.encode()) > MAX_YAML:
        raise InputError(
            f"{len(config.runs)} videos have {count} settings of {len(text.encode())} bytes; one record holds "
            f"{MAX_VALUES} of {MAX_YAML}: expected several lists, each with an output of its own"
        )


def _values(value: object) -> int:
    """As `wanedit.files.compose_yaml` counts them: names, values, and what holds them."""
    if isinstance(value, dict):
        return 1 + sum(1 + _values(part) for part in value.values())
    return 1 + sum(map(_values, value)) if isinstance(value, list | tuple) else 1


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
