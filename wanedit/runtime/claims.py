"""Who works in a run's folder, and on what: processes of one machine or of many, which take its tasks one by one.

Each has a file in the folder's `.queue`. It beats: it writes a new number into it several times a lease. One whose
number has stood still for a lease, by the clock of whoever looks on, is lost; clocks of two machines are never
compared. On one machine the kernel knows sooner: a worker holds a lock on its file, which ends with it.

A claim is a file NAME.N that names its worker: the N-th of the task NAME. Of several that make it at once one succeeds,
on network disks too. The task of a worker that is lost goes to whoever makes NAME.N+1; should the lost one only have
been held up, it finds that and drops what it made (`Queue.fence`). The look comes right before a file gets its name:
held up between the two, it writes the same task's file once more, which is no other.

At the end of a run a fast worker may have nothing left to do while a slow one has most of a task before it. It asks for
that by a file NAME.asked, where what was made of a task so far is kept: the slow one lets go of it, and the other goes
on from there.
"""

import fcntl
import json
import math
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from wanedit.errors import HandedOver, InputError, ResourceError, all_there
from wanedit.files import is_there, system_errors
from wanedit.progress import counting
from wanedit.runtime.launch import World, current_world
from wanedit.runtime.settings import check_values

# Seconds after which a worker that does not beat is lost, unless the variable says otherwise. It tells others its own.
LEASE, LEASE_VARIABLE = 60.0, "WANEDIT_LEASE"
BEATS = 6  # in a lease
LOOK = 1.0  # seconds between two looks of one who waits
# A task that was lost so often ends its workers, as one does that asks for more memory than there is.
LOSSES = 5
_RUN = "run"
_WORKER = re.compile(r"worker\.[\w-]{1,40}\.\d+\.[0-9a-f]{8}")
_CLAIM = re.compile(rf"({_RUN}|[0-9a-f]{{16}})\.(\d+)")
_ASKED = re.compile(r"[0-9a-f]{16}\.asked")
# A task is asked for that would so be done in this share of the time, less what it takes to begin in the middle.
SOONER, BEGINNING = 0.75, 15.0
_LENGTH = 1024  # bytes of a worker's file, so that one beat is written over another
DECIDING = "deciding what is to be done"


_patient: ContextVar[bool] = ContextVar("patient", default=False)


@contextmanager
def patient() -> Iterator[None]:
    """Wait, inside the block, for a lease before a folder is refused whose worker has a living process that is silent:
    one that is held up for so long has lost it."""
    before = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(before)


@runtime_checkable
class Named(Protocol):
    """A task by the hash of all that decides it, and its name for people."""

    @property
    def digest(self) -> str: ...

    @property
    def name(self) -> str: ...


Task = TypeVar("Task", bound=Named)


class InUseError(ResourceError):
    """Others work in the folder; `by` is one of them."""

    def __init__(self, message: str, by: "Worker") -> None:
        super().__init__(message)
        self.by = by


class LostOftenError(ResourceError):
    """A task has lost too many workers; `claim` is the file that says so to the next one, too."""

    def __init__(self, message: str, claim: Path) -> None:
        super().__init__(message)
        self.claim = claim


class LostError(Exception):
    """Another worker has the task by now: what was made of it is dropped."""


@dataclass(frozen=True)
class Worker:
    """What a worker's file says.

    Attributes:
        host, pid: for people. rank: among the processes of its launch.
        machine: its kernel since its last start.
        locks: whether it holds a lock on its file.
        lease: its own, in seconds.
        beat: how often it wrote so far.
        doing: for people.
        task: digest of the task that it is at; "" for none.
        step: how far it is.
        steps: of the task, where another may go on with it; 0 where none may.
        step_seconds: that one of them takes; 0 while that is not known.
    """

    host: str
    pid: int
    rank: int
    machine: str
    locks: bool
    lease: float
    beat: int = 0
    doing: str = ""
    task: str = ""
    step: int = 0
    steps: int = 0
    step_seconds: float = 0.0

    @property
    def left(self) -> float:
        """Seconds until its task is done, as far as it has told; 0 where another may not go on with it, or where it
        cannot be told."""
        return max(0, self.steps - self.step) * self.step_seconds

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def machine() -> str:
    """This machine's kernel since its last start."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


class Queue:
    """The workers of a folder and their claims, as one of them sees it. Nothing is written before `working`.

    Args:
        folder: the run's; the files stand in its `.queue`.

    Raises:
        InputError: WANEDIT_LEASE is no number of seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / ".queue"
        given = os.environ.get(LEASE_VARIABLE, str(LEASE))
        try:
            self.lease = float(given)
        except ValueError:
            self.lease = -1
        if not 0 < self.lease < math.inf:
            raise InputError(f"{LEASE_VARIABLE} is {given!r}; expected a number of seconds")
        host = re.sub(r"[^\w-]", "_", socket.gethostname())[:40]
        # A process number comes again, and containers count their own.
        self.own = f"worker.{host}.{os.getpid()}.{secrets.token_hex(4)}"
        self.machine = machine()
        self.doing, self.task, self.step = "at work", "", 0
        self.steps, self.step_seconds = 0, 0.0
        self.pace = (
            math.inf
        )  # seconds that a step takes, over the cost of its task: of the quickest task so far
        self._since: tuple[float, int] | None = None  # when this task's steps were first timed, and at which
        self._asks: Path | None = None
        self._asking = 0.0  # when to look again for what to ask for
        self._asked: set[str] = set()  # for what this worker has asked, and what it has handed over
        self.dropped = 0  # results of tasks that had become others'
        self._file: FileIO | None = None
        self._locks, self._beat, self._over = False, 0, threading.Event()
        self._writing = threading.Lock()
        self._claims: dict[str, Path] = {}
        # Of every worker that was looked at: its last beat, and when, by our clock, it was first seen.
        self._seen: dict[str, tuple[int | None, float]] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be one of the workers inside the block. Raises as `system_errors`."""
        path = self.folder / self.own
        self._over.clear()
        with system_errors(self.folder):
            if is_there(self.folder) and not self.folder.is_dir():
                raise InputError(
                    f"{self.folder} was not written by wanedit and would be replaced; choose another output, or move "
                    "it away"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = path.open("x+b", buffering=0)
            try:
                with suppress(OSError):  # not all network disks have locks
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._locks = True
                self._write()
            except BaseException:
                self._leave()
                raise
        thread = threading.Thread(target=self._beats, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            with suppress(OSError):
                self.sweep()
            self._leave()

    def _leave(self) -> None:
        # The claims first, for a worker's that is not there are anybody's.
        for path in (*self._claims.values(), *filter(None, [self._asks]), self.folder / self.own):
            with suppress(OSError):
                if path.name == self.own or self._owner(path) in (self.own, ""):  # the latter on a full disk
                    path.unlink()
        self._claims.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
        with suppress(OSError):  # others are in it
            self.folder.rmdir()

    def _beats(self) -> None:
        while not self._over.wait(self.lease / BEATS):
            self._tell()

    def say(self, doing: str) -> None:
        """Tell people what this worker does."""
        if doing != self.doing:
            self.doing = doing
            self._tell()

    def _tell(self) -> None:
        # A disk that fails for a moment is told by what must be written.
        with suppress(OSError), self._writing:
            self._write()
            if self._file is not None:
                os.fsync(self._file.fileno())  # on a network disk, else nobody sees it

    def _write(self) -> None:
        if self._file is None:
            return
        self._beat += 1
        said = Worker(
            socket.gethostname(), os.getpid(), current_world().rank, self.machine, self._locks, self.lease,
            self._beat, self.doing[:200], self.task, self.step, self.steps, self.step_seconds,
        )  # fmt: skip
        self._file.seek(0)
        self._file.write(json.dumps(asdict(said)).encode().ljust(_LENGTH))

    def workers(self) -> dict[str, Worker | None]:
        """All others by the names of their files; None for one that cannot be read just now."""
        return {
            name: self._read(name) for name in self._names() if _WORKER.fullmatch(name) and name != self.own
        }

    def others(self) -> list[Worker | None]:
        """All others that are not surely lost: of other machines some may be, until a lease is over."""
        return [worker for name, worker in self.workers().items() if not self.is_lost(name)]

    def own_folder(self) -> None:
        """Have the folder alone while this worker works. Waits for those who may be lost, and removes what they left.

        Raises:
            InUseError: another works in it.
        """
        if self._has_folder():
            return
        with counting("waiting to see whether silent workers are lost", "looks") as advance:
            while not self._has_folder():
                advance()
                time.sleep(LOOK)

    def _has_folder(self) -> bool:
        claim, before = self._claim(_RUN, self._claimed().get(_RUN, [])), self._seen.copy()
        living = {name: worker for name, worker in self.workers().items() if not self.is_lost(name)}
        if claim is not None:
            # Who came at the same moment is refused by this claim, and leaves: both would else refuse each other, and
            # come back together.
            living = {name: one for name, one in living.items() if one is None or one.doing != DECIDING}
        for name, worker in living.items():
            beats = name in before and self._seen[name][0] != before[name][0]
            alive = worker is not None and worker.machine == self.machine and worker.locks
            if worker is not None and (beats or (alive and not _patient.get())):
                raise InUseError(
                    f"{self.folder.parent} is in use by {worker}; wait for it, or choose another output",
                    worker,
                )
        if living or claim is None:
            return False
        self.sweep()
        return True

    def sweep(self) -> None:
        """Remove what lost workers left, unless others are at work, who may just be taking it over."""
        if self.others():
            return
        for name in self._names():
            path = self.folder / name
            if _WORKER.fullmatch(name):
                gone = name != self.own and self.is_lost(name)
            else:
                known = _CLAIM.fullmatch(name) or _ASKED.fullmatch(name)
                owner = self._owner(path) if known else self.own
                gone = owner != self.own and (owner == "" or self.is_lost(owner))
            if gone:
                path.unlink(missing_ok=True)

    def take(self, tasks: Sequence[Task]) -> Task | None:
        """The first of the tasks that no living worker has. This one has it now, until `release`.

        Raises:
            LostOftenError: a task has lost too many workers.
            ResourceError: others took this one for lost.
            OSError: the folder cannot be written to.
        """
        self.folder.stat()  # its absence tells that the whole run was removed
        if not (self.folder / self.own).exists():
            raise ResourceError(
                f"this process was held up for over {self.lease:g} s, and others went on with the run; run again"
            )
        claimed = self._claimed()
        asked = {name[:16] for name in self._names() if _ASKED.fullmatch(name)}
        for task in tasks:
            numbers = claimed.get(task.digest[:16], [])
            if task.digest[:16] in asked and self._is_others(task.digest[:16]):
                continue
            path = self._claim(task.digest[:16], numbers)
            if path is None:
                continue
            if len(numbers) and numbers[-1] + 1 >= LOSSES:
                del self._claims[task.digest[:16]]  # its file stays, so that the next one is told, too
                raise LostOftenError(
                    f"{task.name} was lost by {LOSSES} workers one after the other, as happens where it asks for more "
                    "memory than there is; see what ended them, and run again",
                    path,
                )
            self.task, self.step, self.steps, self.step_seconds, self._since = task.digest, 0, 0, 0.0, None
            self.say(task.name + (", taken over" if numbers or task.digest[:16] in asked else ""))
            self.withdraw()
            return task
        return None

    def stepped(self, step: int, steps: int, replayed: bool) -> None:
        """Tell how far the task is, which another may go on with.

        Args:
            replayed: this step was made before.

        Raises:
            HandedOver: another asks for it.
        """
        self.step, self.steps, now = step, steps, time.monotonic()
        if replayed or self._since is None:
            self._since = now, step
        elif step > self._since[1]:
            self.step_seconds = (now - self._since[0]) / (step - self._since[1])
        name = self.task[:16]
        if step < steps and (self.folder / f"{name}.asked").exists() and self._is_others(name):
            self._asked.add(self.task)
            raise HandedOver

    def ask(self, tasks: Sequence[Task], cost: Callable[[Task], float]) -> None:
        """Ask for the one of the tasks, all of them others', that would be done last, if this worker would be done
        with it sooner."""
        if self._asks is not None:
            if any(self._asks.stem == task.digest[:16] for task in tasks):
                return
            self.withdraw()
        # Others tell of themselves no oftener.
        if time.monotonic() < self._asking:
            return
        self._asking = time.monotonic() + self.lease / BEATS
        others, best = [one for one in self.workers().values() if one], None
        for task in tasks:
            held = next((one for one in others if one.task == task.digest), None)
            if held is None or task.digest in self._asked or (best is not None and held.left <= best[1].left):
                continue
            own = (held.steps - held.step) * self.pace * cost(task) + BEGINNING
            if own < SOONER * held.left:
                best = task, held
        if best is None:
            return
        path = self.folder / f"{best[0].digest[:16]}.asked"
        with suppress(OSError), path.open("x") as file:  # another asks already; a full disk ends no wait
            self._asks = path
            self._asked.add(best[0].digest)
            file.write(self.own)

    def withdraw(self) -> None:
        """Ask for nothing any more."""
        if self._asks is not None:
            with suppress(OSError):
                self._asks.unlink(missing_ok=True)
            self._asks = None

    def _is_others(self, name: str) -> bool:
        """Whether a living worker that is not this one asks for a task; what a lost one asked for is forgotten."""
        path = self.folder / f"{name}.asked"
        owner = self._owner(path)
        if owner == self.own or not path.exists():
            return False
        if not self.is_lost(owner or path.name):
            return True
        path.unlink(missing_ok=True)
        return False

    def _claim(self, name: str, numbers: Sequence[int]) -> Path | None:
        """The next claim of a task that has claims of these numbers, unless its last one is a living worker's."""
        if numbers:
            path = self.folder / f"{name}.{numbers[-1]}"
            owner = self._owner(path)
            if owner == self.own:
                return path
            if not self.is_lost(owner or path.name):
                return None
        path = self.folder / f"{name}.{numbers[-1] + 1 if numbers else 0}"
        try:
            file = path.open("x")
        except FileExistsError:
            return None
        with system_errors(path), file:
            self._claims[name] = path
            file.write(self.own)
        for number in numbers:
            (self.folder / f"{name}.{number}").unlink(missing_ok=True)
        return path

    def _claimed(self) -> dict[str, list[int]]:
        """Numbers of all claims, by task."""
        found: dict[str, list[int]] = {}
        for claim in filter(None, map(_CLAIM.fullmatch, self._names())):
            found.setdefault(claim[1], []).append(int(claim[2]))
        return {task: sorted(numbers) for task, numbers in found.items()}

    def release(self, task: Named, cost: float = 0) -> None:
        """Let others take the task, or, once it is done, leave no file."""
        if self.step_seconds and task.digest not in self._asked:
            self.pace = min(self.pace, self.step_seconds / max(1, cost))
        self.task, self.step, self.steps, self.step_seconds = "", 0, 0, 0.0
        if (path := self._claims.get(task.digest[:16])) is None:
            return
        with suppress(OSError):  # of a disk that fails: it goes when this worker does
            if self._owner(path) == self.own:
                path.unlink(missing_ok=True)
            del self._claims[task.digest[:16]]

    def fence(self, digest: str) -> None:
        """Called before what was made of a task is put in its place. Raises LostError where it is another's by now: by
        its own claim or, where it has none, as in a folder that is one process's, by that of the whole run."""
        path = self._claims.get(digest[:16], self._claims.get(_RUN))
        if path is not None and not self._holds(path):
            self.dropped += 1
            raise LostError

    @property
    def dropped_words(self) -> str:
        """What to tell people where results were dropped."""
        return (
            f"{self.dropped} results were dropped: this process was held up for over {self.lease:g} s, and others made "
            "them"
        )

    def _holds(self, path: Path) -> bool:
        name, _, number = path.name.rpartition(".")
        later = path.with_name(f"{name}.{int(number) + 1}")
        return (self.folder / self.own).exists() and not later.exists() and self._owner(path) == self.own

    def said_at(self, worker: str) -> float | None:
        """When a worker last said what it does, by the clock of the disk, for people; None for one that is gone."""
        with suppress(FileNotFoundError):
            return (self.folder / worker).stat().st_mtime
        return None

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []

    def _owner(self, path: Path) -> str:
        """Of a claim; "" for one that is gone, that is being made, or in which no worker's name stands."""
        try:
            name = path.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return name if _WORKER.fullmatch(name) else ""

    def _read(self, name: str) -> Worker | None:
        # As one that is being written, or none of ours.
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, InputError):
            said = json.loads((self.folder / name).read_bytes())
            check_values(Worker, said)
            return Worker(**said)
        return None

    def is_lost(self, name: str) -> bool:
        """Of a worker's file; or of a claim that nobody's name is in yet."""
        path, worker, now = self.folder / name, self._read(name), time.monotonic()
        if not path.exists():
            return True
        if worker is not None and worker.machine == self.machine and worker.locks and not _is_locked(path):
            return True
        beat = None if worker is None else worker.beat
        before, since = self._seen.get(name, (beat, now))
        self._seen[name] = beat, now if beat != before else since
        return now - self._seen[name][1] >= (self.lease if worker is None else worker.lease)


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


class Pulled(Generic[Task]):
    """Tasks that this worker does as it goes over them: the dearest first, each claimed until it asks for the next.

    It ends when all are finished, by whomever; where others have all that is left it waits, and takes what one of them
    lost.

    Args:
        tasks: all of them, the same for all workers.
        cost: of a task; the order is what counts.
        finished: digests of those that are done, by all workers so far.
        give_up: told of a task that has lost too many workers, and why, which finishes it; None to raise that.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        queue: Queue,
        finished: Callable[[], Collection[str]],
        cost: Callable[[Task], float] = lambda task: 0,
        give_up: Callable[[Task, str], None] | None = None,
    ) -> None:
        self.give_up = give_up
        self.tasks, self.queue, self.finished = sorted(tasks, key=cost, reverse=True), queue, finished
        self.cost = cost

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        queue, left = self.queue, self.tasks
        while True:
            done = self.finished()
            left = [task for task in left if task.digest not in done]
            if not left:
                queue.withdraw()
                return
            try:
                task = queue.take(left)
            except LostOftenError as error:
                if self.give_up is None:
                    raise
                self.give_up(next(one for one in left if error.claim.stem == one.digest[:16]), str(error))
                error.claim.unlink(missing_ok=True)
                continue
            if task is None:
                queue.say("waits for others")
                queue.ask(left, self.cost)
                time.sleep(LOOK)
                continue
            try:
                # It may have been finished between the look and the claim.
                if task.digest not in self.finished():
                    yield task
            finally:
                queue.release(task, self.cost(task))


class Crewed(Generic[Task]):
    """A stream of tasks of which the first rank of each crew takes them out, and tells the others.

    Args:
        tasks: the same on all ranks.
        ranks: of a crew.
    """

    def __init__(self, tasks: Pulled[Task], world: World, ranks: int) -> None:
        import torch.distributed as dist

        self.pulled, self.tasks = tasks, tasks.tasks
        self.first = world.rank // ranks * ranks
        self.leads = world.rank == self.first
        # All ranks make all groups in one order, also those that they are not in.
        groups = {
            at: dist.new_group(range(at, at + ranks), backend="gloo") for at in range(0, world.size, ranks)
        }
        self.group: Any = groups[self.first]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        if self.leads:
            for task in self.pulled:
                self._told(self.tasks.index(task))
                yield task
            self._told(None)
            return
        while (place := self._told(None)) is not None:
            yield self.tasks[place]

    def _told(self, place: int | None) -> int | None:
        import torch.distributed as dist

        box = [place]
        with all_there():
            dist.broadcast_object_list(box, src=self.first, group=self.group)
        return box[0]
