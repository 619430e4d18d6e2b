"""The processes of a run: a torchrun that we start and what its workers died of, or a torchrun that started us."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from wanedit import __version__
from wanedit.errors import ResourceError, WaneditError
from wanedit.files import Json
from wanedit.runtime.launch import visible_devices
from wanedit.runtime.outputs import LOG_MARK, MADE_WITH
from wanedit.runtime.settings import RunSettings

ERROR_FILE = ".worker_error.json"
LOG_FILE = "workers.log"
LOG_LINES = 5
KILLED = "was ended by SIGKILL"


def run_workers(
    module: str,
    config_path: Path,
    config: RunSettings,
    verbose: bool,
    doing: Callable[[int], str],
    *words: str,
) -> None:
    """Sample a run's segments with `num_gpus` processes under torchrun and wait for them.

    The rendezvous takes a free port, so that runs on one machine do not collide.

    Args:
        module: of a worker; takes the path of the recorded run, and --verbose or --quiet.
        config_path: the recorded run.
        config: the same, read.
        verbose: whether rank 0 draws a progress bar.
        doing: says of a rank that was lost what it was at, and what is kept.
        words: what else the worker is told.

    Raises:
        WaneditError: a worker failed; the class, and so the exit code, is that of the worker's own error.
        ResourceError: one was killed, as the kernel does for want of memory.
    """
    report, log = (config_path.parent / name for name in (ERROR_FILE, LOG_FILE))
    report.unlink(missing_ok=True)
    # Several processes on the same cores: idle OpenMP threads must sleep, not spin.
    environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | {"OMP_NUM_THREADS": str(config.cpu_threads)}
    if config.devices:
        inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible_devices(config.devices, inherited)
    command = [
        sys.executable, "-m", "wanedit.runtime.workers", str(report),
        "--nnodes=1", f"--nproc-per-node={config.num_processes}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        "-m", module, str(config_path), "--verbose" if verbose else "--quiet", *words,
    ]  # fmt: skip
    # torchrun answers a lost worker with pages of tracebacks: they go to a file, our own error to the user.
    with log.open("w") as noise:
        noise.write(LOG_MARK)
        noise.flush()
        process = subprocess.Popen(command, env=environment, stderr=noise)
        try:
            code = process.wait()
        except BaseException:
            # torchrun passes it on to its workers and waits for them: none is left sampling behind us.
            process.terminate()
            process.wait()
            for path in (log, report):
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
    if code:
        raise _worker_error(report, log, doing)
    log.unlink()


def report_error(config_path: Path, rank: int, error: WaneditError) -> None:
    """Leave a worker's error for the process that started it; the first one counts."""
    _report(
        config_path.parent / ERROR_FILE, {"class": type(error).__name__, "message": f"rank {rank}: {error}"}
    )


def _report(path: Path, values: Json) -> None:
    with contextlib.suppress(OSError), path.open("x") as file:
        json.dump({MADE_WITH: __version__, "error": values}, file)


def _worker_error(report: Path, log: Path, doing: Callable[[int], str]) -> WaneditError:
    """What a worker told, or what is known of one that could not."""
    from wanedit import errors

    told: Json = {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        told = json.loads(report.read_text())["error"]
        report.unlink()
    if "class" in told:
        return getattr(errors, told["class"], WaneditError)(told["message"])
    kind, how = WaneditError, "a worker failed"
    if "how" in told:
        how = f"rank {told['rank']} {told['how']}{doing(told['rank'])}"
        if told["how"] == KILLED:
            kind, how = ResourceError, f"{how}. It is what the kernel sends where memory runs out"
    lines = log.read_text(errors="replace").removeprefix(LOG_MARK).splitlines()
    # torchrun's own begin with a letter, the day and the time.
    last = [line for line in lines if line.strip() and not re.match(r"[IWE]\d{4} ", line)][-LOG_LINES:]
    shown = "".join(f"\n  {line}" for line in last)
    return kind(f"{how}. Run the same command again: it goes on. Its last words, of {log}:{shown or ' none'}")


def tell_torchrun(message: str) -> None:
    """Put our own line into the table that a torchrun which started this process prints of workers that failed."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        told = {"message": message, "extraInfo": {"timestamp": int(time.time())}}
        with contextlib.suppress(OSError):
            Path(file).write_text(json.dumps({"message": told}))


def _torchrun(report: str, *words: str) -> int:
    """torchrun with these words; the worker that failed first goes into `report`, unless it did so itself."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(words))
    except ChildFailedError as error:
        # Of those that fail in one moment the others may only have lost the one that a signal ended.
        signalled = [one for one in error.failures.items() if one[1].exitcode < 0]
        rank, failure = signalled[0] if signalled else error.get_first_failure()
        # Of a worker that took a signal itself, or that a shell started, the exit code is 128 and its number.
        number = -failure.exitcode if failure.exitcode < 0 else failure.exitcode - 128
        known = number in {*signal.Signals}
        name = signal.Signals(number).name if known else ""
        how = f"was ended by {name}" if known else f"ended with exit code {failure.exitcode}"
        _report(Path(report), {"rank": rank, "how": how})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_torchrun(*sys.argv[1:]))
