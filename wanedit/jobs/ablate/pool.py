"""Runs shared among processes. A run that fails, or kills its process, is recorded and the others go on."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from wanedit.errors import WaneditError
from wanedit.jobs.ablate.runs import Run

Done = Callable[[Run], None]
STOP_SECONDS = 10


def run_all(runs: Sequence[Run], root: Path, jobs: int, done: Done) -> None:
    """Make all runs, `jobs` at a time, each process with its share of the cores.

    Args:
        root: of all runs.
        done: told of every run that ended, well or not.
    """
    waiting, workers = list(reversed(runs)), []
    try:
        workers = [_Worker.start(root, number) for number in range(min(jobs, len(runs)))]
        while waiting or any(worker.run is not None for worker in workers):
            for worker in workers:
                if worker.run is None and waiting:
                    worker.give(waiting.pop())
            busy = [worker for worker in workers if worker.run is not None]
            ready = connection.wait([w.pipe for w in busy] + [w.process.sentinel for w in busy])
            for number, worker in enumerate(workers):
                if worker.pipe in ready or worker.process.sentinel in ready:
                    ended = worker.collect(root)
                    done(ended)
                    if not worker.process.is_alive():
                        workers[number] = _Worker.start(root, worker.number)
    finally:
        for worker in workers:
            worker.stop()


@dataclass
class _Worker:
    """A process, the pipe to it, and the run that it is at."""

    process: Any
    pipe: Connection
    number: int
    run: Run | None = None

    @classmethod
    def start(cls, root: Path, number: int) -> "_Worker":
        # Spawned, not forked: a fork of a process that has used torch may hang in its thread pool.
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, root, number), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours, number)

    def give(self, run: Run) -> None:
        self.run = run
        self.pipe.send(run)

    def collect(self, root: Path) -> Run:
        """The run that ended; one whose process died is recorded as failed."""
        run, self.run = self.run, None
        assert run is not None, "only busy workers are waited for"
        try:
            self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(STOP_SECONDS)
            run.fail(root, f"its process ended with {_exit(self.process.exitcode)}")
        return run

    def stop(self) -> None:
        self.pipe.close()
        if self.run is not None and self.process.is_alive():
            self.process.terminate()
        self.process.join(STOP_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"


def _work(pipe: Connection, root: Path, number: int) -> None:
    """A worker's life: make what is sent until the pipe closes."""
    # Ctrl-C reaches the whole group; the parent ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gpu = device_of(number)
    while True:
        try:
            run = pipe.recv()
        except (EOFError, OSError):
            return
        make(run, root, gpu)
        pipe.send(run.name)


def device_of(number: int) -> int | None:
    """The device of a worker, in turn; None without one."""
    import torch

    return number % torch.cuda.device_count() if torch.cuda.is_available() else None


def make(run: Run, root: Path, gpu: int | None) -> None:
    """Make one run; its failure is written where its result would be."""
    import cv2

    from wanedit.jobs.ablate.perform import perform

    cv2.setNumThreads(int(run.settings.get("cpu_threads") or os.cpu_count() or 1))
    try:
        perform(run, root, gpu)
    except WaneditError as error:
        run.fail(root, str(error))
    except Exception as error:
        # A fault of one run, ours or a library's, must not cost the others.
        run.fail(root, f"{type(error).__name__}: {error}")
