"""Where a run's processes are: this one, a torchrun that we started, or a torchrun that started us."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

from wanedit.errors import InputError, WaneditError
from wanedit.runtime.settings import RunSettings

T = TypeVar("T")
WORKER_ERROR = ".worker_error.json"
WORKER_LOG = "workers.log"


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    under_torchrun: bool = False

    @property
    def nodes(self) -> int:
        """Machines, each with `local_size` processes."""
        return self.size // self.local_size


def current_world() -> World:
    """Read what torchrun tells its workers."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return World()
    size, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    return World(int(os.environ["RANK"]), size, local, True)


def join(world: World) -> None:
    """Meet the other workers. gloo also on GPUs: only words travel here, never tensors."""
    import torch.distributed as dist

    if world.under_torchrun and not dist.is_initialized():
        # A rank without work waits for the others, and one segment of a large model can take an hour.
        dist.init_process_group("gloo", timeout=timedelta(days=30))


def on_rank_zero(world: World, decide: Callable[[], T]) -> T:
    """Call `decide` on rank 0 alone and give what it returns, or raises, to every rank."""
    if not world.under_torchrun:
        return decide()
    import torch.distributed as dist

    box: list[T | Exception | None] = [None]
    if world.rank == 0:
        try:
            box[0] = decide()
        except Exception as error:
            box[0] = error
    dist.broadcast_object_list(box, src=0)
    decided = box[0]
    if isinstance(decided, Exception):
        raise decided
    return cast(T, decided)


def barrier(world: World) -> None:
    """Wait until every rank is here."""
    if world.under_torchrun:
        import torch.distributed as dist

        dist.barrier()


def leave(world: World) -> None:
    """Part from the other workers."""
    if world.under_torchrun:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def all_cores() -> int:
    """Physical cores that this process may use."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` CPU threads inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_devices(config: RunSettings, world: World) -> tuple[str, list[int] | int]:
    """Accelerator and devices for Lightning.

    Raises:
        InputError: a GPU is asked for that this machine does not have.
    """
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # Workers see only the devices that were chosen for them.
    ids = [] if world.under_torchrun else config.devices
    if available == 0:
        if ids:
            name = "gpu_ids" if hasattr(config, "gpu_ids") else "gpu_id"
            raise InputError(
                f"{name} {ids} asked for; this machine has no GPU. Leave {name} out to run on the CPU"
            )
        return "cpu", world.local_size
    missing = [i for i in ids if not 0 <= i < available]
    wanted = world.local_size if world.under_torchrun else config.num_processes
    if missing or wanted > available:
        raise InputError(
            f"gpu_ids {ids or 'unset'}, num_gpus {config.num_processes}: this machine has {available} GPU(s)"
        )
    if world.under_torchrun:
        return "cuda", world.local_size
    return "cuda", ids or 1


def elsewhere(config: RunSettings) -> list[str]:
    """Why a run cannot start on this machine, for a plan, which may be made on one machine for another."""
    try:
        choose_devices(config, World())
    except InputError as error:
        return [f"not on this machine: {error}"]
    return []


def visible_devices(ids: list[int], inherited: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for workers: `ids` count within what this process itself may see."""
    if not inherited:
        return ",".join(map(str, ids))
    names = inherited.split(",")
    return ",".join(names[i] for i in ids)


def run_workers(module: str, config_path: Path, config: RunSettings, lock: int, verbose: bool) -> None:
    """Sample a run's segments with `num_gpus` processes under torchrun and wait for them.

    The rendezvous takes a free port, so that runs on one machine do not collide.

    Args:
        module: of a worker; takes the path of the recorded run, and --verbose or --quiet.
        config_path: the recorded run.
        config: the same, read.
        lock: file descriptor of the run's lock. torchrun inherits it: should this process be killed, the folder
            stays locked while workers live.
        verbose: whether rank 0 draws a progress bar.

    Raises:
        WaneditError: a worker failed; the class, and so the exit code, is that of the worker's own error.
    """
    report = config_path.parent / WORKER_ERROR
    report.unlink(missing_ok=True)
    # Several processes on the same cores: idle OpenMP threads must sleep, not spin.
    environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | {"OMP_NUM_THREADS": str(config.cpu_threads)}
    if config.devices:
        inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
        environment["CUDA_VISIBLE_DEVICES"] = visible_devices(config.devices, inherited)
    command = [
        sys.executable, "-m", "torch.distributed.run",
        "--nnodes=1", f"--nproc-per-node={config.num_processes}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0",
        "-m", module, str(config_path), "--verbose" if verbose else "--quiet",
    ]  # fmt: skip
    # torchrun answers a lost worker with pages of tracebacks: they go to a file, our own error to the user.
    log = config_path.parent / WORKER_LOG
    with log.open("w") as noise:
        process = subprocess.Popen(command, env=environment, pass_fds=(lock,), stderr=noise)
        try:
            code = process.wait()
        except BaseException:
            # torchrun passes it on to its workers and waits for them: none is left sampling behind us.
            process.terminate()
            process.wait()
            raise
    if code:
        raise _worker_error(report, code)
    log.unlink()


def report_error(config_path: Path, rank: int, error: WaneditError) -> None:
    """Leave a worker's error for the process that started it; the first one counts."""
    with contextlib.suppress(FileExistsError), (config_path.parent / WORKER_ERROR).open("x") as file:
        json.dump({"class": type(error).__name__, "message": f"rank {rank}: {error}"}, file)


def _worker_error(report: Path, code: int) -> WaneditError:
    from wanedit import errors

    if not report.exists():
        return WaneditError(
            f"a worker failed (see {report.with_name(WORKER_LOG)}); finished segments stay, run again to resume"
        )
    told = json.loads(report.read_text())
    report.unlink()
    return getattr(errors, told["class"], WaneditError)(told["message"])
