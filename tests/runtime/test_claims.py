"""Workers that share a folder: each task is one worker's, and what a lost one had goes to another."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from wanedit.errors import HandedOver, InputError, ResourceError
from wanedit.files import digest
from wanedit.runtime import claims
from wanedit.runtime.claims import DECIDING, LOSSES, InUseError, LostError, Pulled, Queue
from wanedit.runtime.directory import RunDirectory


@dataclass(frozen=True)
class Task:
    name: str
    cost: int = 1

    @property
    def digest(self) -> str:
        return digest({"name": self.name})


TASKS = [Task(f"task {k}", k) for k in range(6)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of half a second."""
    monkeypatch.setenv(claims.LEASE_VARIABLE, "0.5")
    monkeypatch.setattr(claims, "LOOK", 0.02)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    made = Queue(tmp_path)
    with made.working():
        yield made


def pulled(tasks: list[Task], queue: Queue, done: set[str]) -> Pulled[Task]:
    return Pulled(tasks, queue, lambda: set(done), lambda task: task.cost)


def from_elsewhere(queue: Queue) -> None:
    """What the queue says from now on comes from another machine, whose locks nobody sees here."""
    queue.machine = "elsewhere"
    queue.say("from elsewhere")


def test_a_task_is_one_workers_until_it_lets_go(queue: Queue, tmp_path: Path) -> None:
    other = Queue(tmp_path)
    with other.working():
        assert queue.take(TASKS[:1]) == TASKS[0]
        assert other.take(TASKS[:1]) is None
        assert other.take(TASKS[:2]) == TASKS[1]
        [seen] = [worker for worker in queue.workers().values() if worker]
        assert (seen.doing, seen.task) == ("task 1", TASKS[1].digest)
        queue.release(TASKS[0])
        assert other.take(TASKS[:1]) == TASKS[0]
    # A worker that leaves leaves nothing.
    assert [path.name for path in queue.folder.iterdir()] == [queue.own]


def test_the_dearest_come_first_and_none_that_is_finished(queue: Queue) -> None:
    done = {TASKS[4].digest}
    for k, task in enumerate(pulled(TASKS, queue, done)):
        assert task.cost == [5, 3, 2, 1, 0][k]
        done.add(task.digest)
    assert len(done) == 6


@pytest.mark.usefixtures("quick")
def test_many_workers_do_each_task_once(tmp_path: Path) -> None:
    tasks, done, made = [Task(str(k), k) for k in range(60)], set[str](), list[str]()

    def work() -> None:
        queue = Queue(tmp_path)
        with queue.working():
            for task in pulled(tasks, queue, done):
                time.sleep(0.001)
                made.append(task.name)
                done.add(task.digest)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(made) == sorted(task.name for task in tasks)
    assert not (tmp_path / ".queue").exists()


def test_who_has_nothing_left_asks_for_what_would_be_done_last_if_it_is_quicker(
    quick: None, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "BEGINNING", 1.0)
    slow, slower, lease = Queue(tmp_path), Queue(tmp_path), Queue(tmp_path).lease
    tasks = [Task("a", 2), Task("b", 2)]

    def told(of: Queue, task: Task, step: int, seconds: float) -> None:
        """A worker's word of its task: so many steps of ten, each of so many seconds."""
        assert of.task in ("", task.digest)
        if not of.task:
            assert of.take([task]) == task
        of.stepped(step, 10, replayed=False)
        of.step_seconds = seconds
        of.say(f"step {step}")

    def asks() -> list[str]:
        time.sleep(lease / claims.BEATS)
        queue.ask(tasks, lambda task: task.cost)
        return [task.name for task in tasks if (queue.folder / f"{task.digest[:16]}.asked").exists()]

    with slow.working(), slower.working():
        told(slow, tasks[0], 2, 3.0)
        told(slower, tasks[1], 2, 4.0)
        assert asks() == []  # while it does not know how quick it is itself
        queue.pace = 2.0  # two seconds a step, over the cost of 2: as slow as they
        assert asks() == []
        queue.pace = 1.0
        assert asks() == ["b"]
        slow.stepped(3, 10, replayed=False)  # what nobody asks for is kept
        with pytest.raises(HandedOver):
            slower.stepped(3, 10, replayed=False)
        slower.release(tasks[1])
        # Nobody else has it meanwhile, he who let it go least of all.
        assert slower.take(tasks) is None
        assert queue.take(tasks) == tasks[1]
        assert asks() == []
        # Steps that were made before tell nothing of how long one takes.
        queue.stepped(4, 10, replayed=True)
        assert queue.step_seconds == 0.0
        queue.release(tasks[1])
        assert queue.pace == 1.0
        # What is asked for at its last step is done by who has it.
        slower.ask(tasks, lambda task: task.cost)
        (queue.folder / f"{tasks[0].digest[:16]}.asked").write_text(slower.own)
        slow.stepped(10, 10, replayed=False)
        with pytest.raises(HandedOver):
            slow.stepped(9, 10, replayed=False)
    # Who asked has left: its word is worth nothing.
    assert queue.take(tasks[:1]) == tasks[0]
    queue.stepped(1, 10, replayed=False)
    assert not list(queue.folder.glob("*.asked"))


HOLDER = """
import sys, time
from pathlib import Path
from tests.runtime.test_claims import TASKS
from wanedit.runtime.claims import Queue
queue = Queue(Path(sys.argv[1]))
with queue.working():
    assert queue.take(TASKS)
    print("has it", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_killed_process_had_is_free_at_once_and_what_a_stopped_one_had_is_not(
    number: int, queue: Queue, tmp_path: Path, repository: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=repository
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "has it\n"
        assert queue.take(TASKS[:1]) is None
        os.kill(process.pid, number)
        if number == signal.SIGKILL:
            process.wait(10)
            assert queue.take(TASKS[:1]) == TASKS[0]
        else:
            assert queue.take(TASKS[:1]) is None
            # By the kernel it lives: the folder is in use.
            with pytest.raises(InUseError, match=f"in use by process {process.pid} on"):
                queue.own_folder()
    finally:
        process.kill()
        process.wait(10)


@pytest.mark.usefixtures("quick")
def test_who_is_silent_for_a_lease_has_lost_its_task_and_drops_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, other = Queue(tmp_path), Queue(tmp_path)
    with ExitStack() as stack:
        stack.enter_context(silent.working())
        from_elsewhere(silent)
        assert silent.take(TASKS[:1])
        monkeypatch.setattr(silent, "_write", lambda: None)  # as one that was stopped
        stack.enter_context(other.working())
        began = time.monotonic()
        while not other.take(TASKS[:1]):
            silent.fence(TASKS[0].digest)
            # Times of files, and so other machines' clocks, say nothing.
            os.utime(silent.folder / silent.own, (began * 5, 0))
            time.sleep(0.02)
        assert 0.4 < time.monotonic() - began < 5
        with pytest.raises(LostError):
            silent.fence(TASKS[0].digest)
        assert silent.dropped == 1
        other.fence(TASKS[0].digest)
        silent.release(TASKS[0])
        other.fence(TASKS[0].digest)
        # Done and let go, it is still not the silent one's.
        other.release(TASKS[0])
        assert not list(other.folder.glob(f"{TASKS[0].digest[:16]}.*"))


@pytest.mark.usefixtures("quick")
def test_who_beats_from_another_machine_keeps_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, other = Queue(tmp_path), Queue(tmp_path)
    with busy.working(), other.working():
        from_elsewhere(busy)
        monkeypatch.setattr(
            claims, "_is_locked", lambda path: pytest.fail("asked for another machine's lock")
        )
        assert busy.take(TASKS[:1])
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            assert other.take(TASKS[:1]) is None
            time.sleep(0.1)
        with pytest.raises(InUseError):
            other.own_folder()


@pytest.mark.usefixtures("quick")
def test_a_folder_is_had_alone_once_the_silent_are_lost(tmp_path: Path) -> None:
    gone, heir, never_left = Queue(tmp_path), Queue(tmp_path), ExitStack()
    never_left.enter_context(gone.working())
    assert gone.take(TASKS)
    from_elsewhere(gone)
    gone._over.set()
    with heir.working():
        began = time.monotonic()
        heir.own_folder()
        assert time.monotonic() - began > 0.4
        assert {path.name for path in heir.folder.iterdir()} == {heir.own, "run.0"}
        second = Queue(tmp_path)
        with second.working(), pytest.raises(InUseError):
            second.own_folder()
        # Should it come back after all, it takes nothing in a folder that is another's.
        with pytest.raises(ResourceError, match=r"was held up for over 0\.5 s"):
            gone.take(TASKS)


@pytest.mark.usefixtures("quick")
def test_of_those_who_come_at_one_moment_one_has_the_folder_and_the_others_help(tmp_path: Path) -> None:
    """Each is refused by the one that has the claim alone, or they would all leave and come back together."""
    together, decided, helped = threading.Barrier(8), list[bool](), threading.Event()

    def come() -> None:
        directory = RunDirectory(tmp_path, tmp_path / "film.mp4")
        together.wait()
        with ExitStack() as stack:
            _, helps = directory.enter(stack, lambda: None, lambda plan: "")
            decided.append(not helps)
            directory.queue.say("at work")
            if len(decided) == 8:
                helped.set()
            helped.wait(20)

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(decided) == [False] * 7 + [True]
    first, second = Queue(tmp_path), Queue(tmp_path)
    first.doing = second.doing = DECIDING
    with first.working(), second.working():
        assert first._claim("run", [])
        first.own_folder()
        with pytest.raises(InUseError):
            second.own_folder()


def test_a_task_that_loses_every_worker_ends_them(queue: Queue, tmp_path: Path) -> None:
    never_left = ExitStack()
    for _ in range(LOSSES):
        killed = Queue(tmp_path)
        never_left.enter_context(killed.working())
        assert killed.take(TASKS[:1])
        killed._over.set()
        assert killed._file is not None
        killed._file.close()  # and with it the kernel's lock
    with pytest.raises(ResourceError, match="task 0 was lost by 5 workers one after the other"):
        queue.take(TASKS[:1])
    # Who comes after it is told the same, until the run is begun anew.
    assert queue._file is not None
    queue._file.close()
    other = Queue(tmp_path)
    with other.working():
        assert other.take(TASKS[1:]) == TASKS[1]
        with pytest.raises(ResourceError, match="task 0 was lost"):
            other.take(TASKS[:1])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", range(4))
def test_whoever_is_lost_whenever_all_is_done_and_nothing_more_often_than_that_explains(
    seed: int, tmp_path: Path
) -> None:
    """Workers are lost at random: before they take, while they work, after their result is in place."""
    draw, tasks = random.Random(seed), [Task(str(k), k) for k in range(12)]
    done, begun, losses, stacks = set[str](), list[str](), 0, list[ExitStack]()
    while len(done) < len(tasks):
        queue = Queue(tmp_path)
        stacks.append(stack := ExitStack())
        stack.enter_context(queue.working())
        for task in pulled(tasks, queue, done):
            begun.append(task.name)
            if draw.random() < 0.3:
                losses += 1
                if draw.random() < 0.5:
                    done.add(task.digest)
                queue._over.set()
                assert queue._file is not None
                queue._file.close()
                queue._claims.clear()  # the generator's own tidying is of no process that was killed
                break
            done.add(task.digest)
        else:
            stack.close()
    assert len(tasks) <= len(begun) <= len(tasks) + losses
    assert not (tmp_path / ".queue").exists() or losses


@pytest.mark.parametrize("said", ["mine", '{"beat": "soon"}', "[]", '{"nonsense": 1}', "\0"])
@pytest.mark.usefixtures("quick")
def test_what_no_worker_wrote_holds_a_task_for_a_lease_at_most(said: str, tmp_path: Path) -> None:
    (tmp_path / ".queue").mkdir()
    unreadable = tmp_path / ".queue" / "worker.there.7.0123abcd"
    unreadable.write_text(said)
    for k, name in enumerate((unreadable.name, "../../x", "\0", said)):
        (tmp_path / ".queue" / f"{TASKS[k].digest[:16]}.0").write_text(name)
    queue = Queue(tmp_path)
    with queue.working():
        assert queue.workers() == {unreadable.name: None}
        assert queue.take(TASKS[:4]) is None
        time.sleep(0.6)
        assert [queue.take([task]) for task in TASKS[:4]] == TASKS[:4]
    assert not (tmp_path / ".queue").exists()


def test_a_lease_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("soon", "0", "-1", "inf", "nan"):
        monkeypatch.setenv(claims.LEASE_VARIABLE, given)
        with pytest.raises(InputError, match=f"WANEDIT_LEASE is '{given}'; expected a number of seconds"):
            Queue(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", ["film", "many"])
def test_a_round_of_killed_workers_comes_to_the_bytes_of_an_undisturbed_run(job: str, tmp_path: Path) -> None:
    """The short form of benchmarks/chaos.py: real workers of a film of 12 segments, or of 12 edits."""
    words = ["-m", "benchmarks.chaos", str(tmp_path), "--kills", "1", "--job", job]
    played = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    logs = "".join(path.read_text() for path in sorted(tmp_path.glob("*.log")))
    assert played.returncode == 0, played.stdout + played.stderr + logs
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["kills"] >= 1
    assert "losses" not in record
