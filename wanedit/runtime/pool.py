"""Many runs that need nothing of each other, in one folder from which any mix of processes pulls them: as the ranks of
a torchrun, as children of one command, in several terminals, or wherever SLURM or Ray starts them.

Each leaves its outcome on record, `runs/NAME/result.json` or, so that one that fails costs no other, `failure.json`;
whoever is last concludes. A job declares its runs, how one is made, and what to conclude; all else is here.
"""

import errno
import json
import os
import re
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from wanedit.errors import InputError, ResourceError, WaneditError
from wanedit.files import Json, digest, read_json, system_errors, write_text
from wanedit.interrupts import held_back, interruptible
from wanedit.runtime import launch
from wanedit.runtime.claims import LOSSES, InUseError, LostError, Pulled, Queue, patient
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import counting_together, events_of, progress_bars, read_events
from wanedit.runtime.launch import World
from wanedit.runtime.outputs import check_outputs
from wanedit.runtime.record import another_run, own_record, record_start
from wanedit.runtime.settings import FINAL_NAME, IsDataclass

# What the system refuses a process whatever run it is at: the run has not failed, and another process may make it.
_EVERYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE}
RUNS, RESULT, FAILURE = "runs", "result.json", "failure.json"
# A child whose parent was killed ends after so long without work.
IDLE_SECONDS = 60
LOOK = 1.0  # seconds between two looks at what the children have done
# A process that can make none of so many runs is fit for none.
TRIES = 3


class NotHereError(ResourceError):
    """This process cannot make a run as it is on record; one elsewhere may."""


@dataclass(frozen=True)
class Member(ABC):
    """One of the runs.

    Attributes:
        name: 16 hexadecimal digits of the hash of all that decides its result.
    """

    name: str

    @property
    @abstractmethod
    def title(self) -> str:
        """What people call it."""

    @abstractmethod
    def about(self) -> Json:
        """What its outcome says of it, for people."""

    def folder(self, root: Path) -> Path:
        """Its own, in that of all runs."""
        return root / RUNS / self.name

    def result(self, root: Path) -> dict[str, float] | None:
        """What was measured; None if it is not complete, or its file is not what a run writes."""
        found = read_outcome(self.folder(root) / RESULT)
        measures = found.get("measures")
        if not isinstance(measures, dict) or not measures or found.get("run") != self.name:
            return None
        return measures if all(type(value) in (int, float) for value in measures.values()) else None

    def failure(self, root: Path) -> str | None:
        """Why it ended early; None if it did not."""
        return (
            None if self.result(root) is not None else read_outcome(self.folder(root) / FAILURE).get("error")
        )

    def check(self, root: Path) -> None:
        """See that it would replace nothing of another origin. Raises InputError."""
        folder = self.folder(root)
        if folder.exists():
            directory, tables = RunDirectory(folder, folder / FINAL_NAME), (folder / RESULT, folder / FAILURE)
            directory.check(())
            theirs = [path for path in tables if read_outcome(path).get("run") != self.name]
            check_outputs(theirs, recorded=directory.recorded)

    def succeed(self, root: Path, measures: Mapping[str, float], seconds: float = 0.0) -> None:
        """Write what was measured, and how long all of it took: from now on the run is complete.

        Raises:
            InputError: nothing was, by which no run is known as complete.
        """
        if not measures:
            raise InputError(f"nothing was measured of {self.title}; expected a number at least")
        self._write(root, RESULT, {"measures": dict(measures), "seconds": round(seconds, 3)})
        (self.folder(root) / FAILURE).unlink(missing_ok=True)

    def fail(self, root: Path, error: str) -> None:
        """Write why it ended; an earlier result is no longer one."""
        (self.folder(root) / RESULT).unlink(missing_ok=True)
        self._write(root, FAILURE, {"error": error})

    def forget(self, root: Path) -> None:
        """Have no outcome, so that it is made."""
        for name in (RESULT, FAILURE):
            (self.folder(root) / name).unlink(missing_ok=True)

    def _write(self, root: Path, name: str, values: Json) -> None:
        self.folder(root).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"run": self.name, **self.about(), **values}, indent=1, ensure_ascii=False)
        write_text(self.folder(root) / name, text + "\n")


def read_outcome(path: Path) -> Json:
    """A record; empty if there is none that can be read."""
    try:
        return read_json(path, "the record of a run")
    except InputError:
        return {}


@dataclass(frozen=True)
class Outcome:
    """What `succeed` and `fail` write of the run of a name: how long it took, or why it failed."""

    run: str
    seconds: float = 0.0
    error: str | None = None


def outcomes(root: Path, names: Sequence[str]) -> dict[str, Outcome]:
    """Those of a pool's runs, as far as there are, for whoever looks on from outside."""
    found = {}
    for name in names:
        for file in (RESULT, FAILURE):
            said = [*events_of([read_outcome(root / RUNS / name / file)], Outcome)]
            if said and said[0].run == name:
                found[name] = said[0]
                break
    return found


@runtime_checkable
class OfAJob(IsDataclass, Protocol):
    """Settings that say whose they are."""

    @property
    def job(self) -> str: ...


@dataclass(frozen=True)
class _Task:
    """A run as the queue knows it."""

    digest: str
    name: str


_CONCLUSION = _Task(digest({"task": "conclusion"}), "concluding")


@dataclass(frozen=True)
class _Start:
    time: str
    anew: bool
    to_make: list[str]


Run = TypeVar("Run", bound=Member)


class Pool(ABC, Generic[Run]):
    """All runs of a folder.

    Args:
        root: the folder. final: what stands when all is concluded.
        config: goes on record as the folder's config.yaml, whose `job` goes on with it (`runtime.launchers.work`).
        runs: may name one several times, of which the first counts.
        anew: forget what is complete.
    """

    label = "runs"

    def __init__(
        self, root: Path, final: Path, config: OfAJob, runs: Sequence[Run], anew: bool = False
    ) -> None:
        self.root, self.final, self.config, self.anew = root, final, config, anew
        self.runs: dict[str, Run] = {}
        for run in runs:
            self.runs.setdefault(run.name, run)
        self._over: set[str] = set()

    @abstractmethod
    def make(self, run: Run, gpu: int | None, anew: bool) -> Mapping[str, float]:
        """Make one and measure it.

        Args:
            gpu: which device; None for the first one.
            anew: whatever its folder holds.

        Raises:
            NotHereError: this process cannot, which leaves the run to others, and ends a process that can make none.
                Anything else ends the run.
        """

    @abstractmethod
    def conclude(self, made: int, seconds: float) -> None:
        """Put down what all came to, `made` of them in the `seconds` since the first process began: `final` is written.

        Raises:
            ResourceError: none came to anything.
        """

    def cost(self, run: Run) -> float:
        """Of one, in any unit: the dearest are made first."""
        return 0.0

    @property
    def directory(self) -> RunDirectory:
        """The folder as one process sees it."""
        made = RunDirectory(self.root, self.final)
        made.folders = (self.root, self.root / RUNS)
        return made

    def ended(self) -> set[str]:
        """Names of the runs that have an outcome by now."""
        # One listing: to open two files of each run that nobody has begun would be N^2 of them in all.
        with suppress(FileNotFoundError):
            begun = self.runs.keys() & {*os.listdir(self.root / RUNS)} - self._over
            left = (self.runs[name] for name in begun)
            self._over |= {run.name for run in left if run.result(self.root) or run.failure(self.root)}
        return self._over


@system_errors()
def pull(
    pool: Pool[Run],
    world: World,
    tell: Callable[[str], None] | None,
    children: int = 0,
    gpu: int | None = None,
) -> None:
    """Make what the runs of a pool still lack, beside all other processes that do; returns when all have an outcome and
    these are concluded, by whomever.

    Args:
        world: each rank of a torchrun pulls by itself.
        tell: told how many there are, and of each that fails; None for nothing and no progress bar.
        children: so many processes of this one do the work, so that a run that kills its process costs only itself;
            0 for this one alone.
        gpu: which device, for this process alone; None for the first one.

    Raises:
        InUseError: others are at another run in this folder.
        InputError, ResourceError: as `RunDirectory.lock`, `Pool.make` for what is no fault of a run, and
            `Pool.conclude`.
    """
    directory = pool.directory
    launch.join(world)
    try:
        with interruptible(), progress_bars(tell is not None), ExitStack() as stack:
            todo, anew = launch.on_rank_zero(world, lambda: _decide(pool, directory, stack))
            queue = directory.queue
            if world.rank:
                stack.enter_context(queue.working())
            if tell is not None:
                tell(f"{len(pool.runs)} {pool.label}, {len(todo)} to make, in {pool.root}")
            told, own = set[str](), 0

            def news() -> None:
                over = pool.ended()
                for name in todo:
                    if name not in told and name in over:
                        told.add(name)
                        if tell is not None and (why := pool.runs[name].failure(pool.root)):
                            tell(f"failed: {pool.runs[name].title} ({name}): {why}")

            def of_others() -> int:
                return len(pool.ended() & {*todo}) - own

            ranks = f" on {world.size} ranks" if world.size > 1 else ""
            label = f"{pool.label}{ranks}"
            shows = of_others if not world.rank else None
            with counting_together(label, pool.label, len(todo), shows) as advance:
                if children:
                    in_children(pool, queue, children, anew, news)
                else:
                    local = world.rank % world.local_size if world.under_torchrun else None
                    for _ in pulled(pool, queue, _device(local) if gpu is None else gpu, anew):
                        own += 1
                        advance()
                        news()
            news()
            _conclude(pool, directory)
            if tell is not None and queue.dropped:
                tell(queue.dropped_words)
    finally:
        launch.leave(world)


def _decide(pool: Pool[Run], directory: RunDirectory, stack: ExitStack) -> tuple[list[str], bool]:
    """Take the folder and put on record what is to be made, or help those who have. Returns the names of what is still
    to be made, and whether all of that is made anew."""
    names = [*pool.runs]

    def another(_: None) -> str:
        if pool.anew:
            return "What it makes is to be made anew here"
        differs = another_run(None, names, directory)
        return differs and f"It is at another run: {differs}"

    _, helps = directory.enter(stack, lambda: None, another)
    if helps:
        anew, over = any(start.anew for start in _starts(directory)[-1:]), pool.ended()
        return [name for name in names if name not in over], anew
    own_record(pool.config.job, directory)  # raises for one of another job
    # What was to be made anew and is not yet, still is: what is in its folder is of before.
    unfinished = directory.film_sha256() is None
    anew = pool.anew or any(start.anew and unfinished for start in _starts(directory)[-1:])
    # What stands in `final` is the job's to know.
    check_outputs([directory.config])
    check_outputs(directory.tables, recorded=directory.recorded)
    todo = [run for run in pool.runs.values() if pool.anew or run.result(pool.root) is None]
    for run in todo:
        run.check(pool.root)
    directory.prepare()
    # What lost workers left in the folders of single runs goes, since nobody works here.
    for left in (*pool.root.glob("*/.queue"), *pool.root.glob(f"{RUNS}/*/.queue")):
        queue = Queue(left.parent)
        with suppress(InUseError), queue.working():
            queue.own_folder()
    for run in todo:
        run.forget(pool.root)
    to_make = [run.name for run in todo]
    record_start(directory, pool.config, anew=anew, to_make=to_make, keeps=names, stages={pool.label: names})
    directory.queue.say("begins")
    return to_make, anew


def begin(pool: Pool[Run]) -> None:
    """Put the runs on record for processes that something else starts. Raises as `pull`."""
    with system_errors(), interruptible(), ExitStack() as stack:
        _decide(pool, pool.directory, stack)


def _starts(directory: RunDirectory) -> list[_Start]:
    return [*events_of(read_events(directory.metrics), _Start, "start")]


def _device(worker: int | None) -> int | None:
    """Processes of one machine take its devices in turn."""
    import torch

    return worker % torch.cuda.device_count() if worker is not None and torch.cuda.is_available() else None


def pulled(pool: Pool[Run], queue: Queue, gpu: int | None, anew: bool) -> Iterator[str]:
    """Make runs until all have an outcome; yields after each that this process was at.

    A run that this process cannot make is left to others, which have the time to make all else. What then is still
    there has failed: a file of it is gone.

    Raises:
        NotHereError: this process can make none, of which nothing is put down. Besides what is no fault of a run.
    """

    def give_up(task: _Task, why: str) -> None:
        pool.runs[task.digest].fail(pool.root, why)

    costs = {name: pool.cost(run) for name, run in pool.runs.items()}
    tasks = [_Task(name, run.title) for name, run in pool.runs.items()]
    aside, able = dict[str, str](), False
    for task in Pulled(
        tasks, queue, lambda: pool.ended() | aside.keys(), lambda task: costs[task.digest], give_up
    ):
        run, began = pool.runs[task.digest], time.monotonic()
        try:
            # To the run itself this process is one of its own, and another that was at it may only be held up.
            with launch.alone(), patient(), system_errors():
                measures = pool.make(run, gpu, anew)
            queue.fence(run.name)
            run.succeed(pool.root, measures, time.monotonic() - began)
        except LostError:
            continue
        except NotHereError as error:
            aside[run.name] = str(error)
            if not able and len(aside) == TRIES:
                break
            continue
        except Exception as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _EVERYWHERE:
                raise
            # A fault of one run, ours or a library's, must not cost the others.
            try:
                queue.fence(run.name)
                run.fail(
                    pool.root,
                    str(error) if isinstance(error, WaneditError) else f"{type(error).__name__}: {error}",
                )
            except LostError:
                continue
            except (OSError, WaneditError):
                raise error from None  # what it came from is the news, not that it cannot be written down
        able = True
        yield run.name
    if aside and not able:
        raise NotHereError(next(iter(aside.values())))
    left = [task for task in tasks if task.digest in aside]
    for task in Pulled(left, queue, pool.ended, give_up=give_up):
        with suppress(LostError):
            queue.fence(task.digest)
            give_up(task, aside[task.digest])
            yield task.digest


def _conclude(pool: Pool[Run], directory: RunDirectory) -> None:
    def concluded() -> list[str]:
        return [] if directory.film_sha256() is None else [_CONCLUSION.digest]

    for _ in Pulled([_CONCLUSION], directory.queue, concluded):
        start = _starts(directory)[-1]
        seconds = (datetime.now(UTC) - datetime.fromisoformat(start.time)).total_seconds()
        pool.conclude(len(start.to_make), seconds)
        directory.wrote()


def _child(pool: Pool[Run], worker: int, anew: bool, parent: int) -> None:
    """What a process of `in_children` does."""
    queue = pool.directory.queue
    with queue.working():
        for _ in pulled(pool, queue, _device(worker), anew):
            if os.getppid() != parent:  # which was killed; what it began goes no further
                return


def in_children(pool: Pool[Run], queue: Queue, count: int, anew: bool, news: Callable[[], None]) -> None:
    """Have so many processes make the runs. One that a run kills is begun again, and that run has failed.

    Args:
        queue: of this process, in the pool's folder.
        news: called now and then.

    Raises:
        NotHereError: of one of them, where none could make what is left.
        ResourceError: they end at once, whatever they are at. Besides as `pulled`.
    """
    from loky.process_executor import ProcessPoolExecutor, TerminatedWorkerError

    left = len(pool.runs) - len(pool.ended())
    executors: dict[int, ProcessPoolExecutor] = {}
    busy: dict[Future[None], tuple[int, int]] = {}
    idle_deaths = 0
    unable: NotHereError | None = None

    def start(worker: int) -> None:
        # One process each: when one dies, it is known which one, and the others go on. Ctrl-C and a closed terminal
        # reach the whole group, and this process ends the others.
        with held_back():
            executor = executors[worker] = ProcessPoolExecutor(1, timeout=IDLE_SECONDS)
            pid = executor.submit(os.getpid).result()
            busy[executor.submit(_child, pool, worker, anew, os.getpid())] = worker, pid

    try:
        for worker in range(min(count, left)):
            start(worker)
        while busy:
            for future in wait(busy, LOOK, FIRST_COMPLETED).done:
                worker, pid = busy.pop(future)
                error = future.exception()
                if isinstance(error, NotHereError):
                    unable = error  # the others go on
                    continue
                if not isinstance(error, TerminatedWorkerError):
                    if error is not None:
                        raise error
                    continue
                # loky's words end with "{EXIT(9)}" or "{SIGKILL(-9)}".
                name, code = (re.findall(r"(\w+)\((-?\d+)\)", str(error)) or [("?", "?")])[-1]
                how = f"signal {name}" if code.startswith("-") else f"exit code {code}"
                # Of this host: containers on one machine have processes of one number.
                here = [one for one in queue.workers().values() if one and one.host == socket.gethostname()]
                died_at = [one.task for one in here if one.pid == pid and one.task in pool.runs]
                for task in died_at:
                    pool.runs[task].fail(pool.root, f"its process ended with {how}")
                idle_deaths += not died_at
                if idle_deaths >= LOSSES:
                    raise ResourceError(f"processes for the runs end at once, the last one with {how}")
                executors[worker].shutdown(kill_workers=True)
                start(worker)
            news()
        if unable is not None and pool.runs.keys() - pool.ended():
            raise unable
    finally:
        for executor in executors.values():
            executor.shutdown(kill_workers=True)
