"""Where a run's processes are: this one, a torchrun that we started, or a torchrun that started us."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from wanedit.errors import InputError, WaneditError, all_there
from wanedit.runtime.settings import RunSettings

if TYPE_CHECKING:
    from wanedit.wan.parallel import Crew

T = TypeVar("T")


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


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be a process of one inside the block, to whatever asks, under torchrun too."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("TORCHELASTIC")}
    try:
        yield
    finally:
        os.environ.update(hidden)


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
    with all_there():
        dist.broadcast_object_list(box, src=0)
    decided = box[0]
    if isinstance(decided, WaneditError):
        decided.told = world.rank > 0
    if isinstance(decided, Exception):
        raise decided
    return cast(T, decided)


def barrier(world: World) -> None:
    """Wait until every rank is here."""
    if world.under_torchrun:
        import torch.distributed as dist

        with all_there():
            dist.barrier()


def crew_of(world: World, ranks: int, guided: bool) -> "Crew":
    """Those who make each sample together with this process, where so many ranks of a torchrun do."""
    import torch

    from wanedit.wan.parallel import ALONE, muster

    return ALONE if ranks == 1 else muster(ranks, guided, "nccl" if torch.cuda.is_available() else "gloo")


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


# Where Linux shows a driver of NVIDIA's cards and boards, of AMD's, or of Windows below it.
_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")


def require_driver(config: RunSettings) -> None:
    """Refuse devices as `choose_devices` does, without torch, whose import takes seconds, where no driver is there."""
    drivers = (path for name in _DRIVERS for path in Path("/dev").glob(name))
    if config.devices and sys.platform == "linux" and not any(drivers):
        raise _no_gpu(config)


def _no_gpu(config: RunSettings) -> InputError:
    name = "gpu_ids" if hasattr(config, "gpu_ids") else "gpu_id"
    return InputError(
        f"{name} {config.devices} asked for; this machine has no GPU. Leave {name} out to run on the CPU"
    )


def require_device(gpu: int) -> None:
    """Raise InputError for a GPU that this machine does not have."""
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not 0 <= gpu < available:
        raise InputError(
            f"gpu {gpu} asked for; this machine has {available} GPU(s)"
            + (f": expected 0 … {available - 1}" if available else ". Leave gpu out to work on the CPU")
        )


def gpus(config: RunSettings, world: World) -> list[int]:
    """The devices of this machine that a run works on; none on a CPU."""
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # Workers see only the devices that were chosen for them.
    if world.under_torchrun or not config.devices:
        wanted = world.local_size if world.under_torchrun else config.num_processes
        return [*range(min(wanted, available))]
    return [gpu for gpu in config.devices if gpu < available]


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
            raise _no_gpu(config)
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
