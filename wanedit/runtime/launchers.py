"""Working on a run that is on record, whatever its job, and ways to start more who do: an array of SLURM, or actors of
Ray. Each pulls tasks out of the run's folder, or is the hand of one that sees it, and whoever is last puts the whole
together."""

import os
import secrets
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from wanedit.errors import InputError, ResourceError, WaneditError
from wanedit.files import Json, at_home, temporary
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.record import job_part, read_settings, recorded_job
from wanedit.runtime.settings import FINAL_NAME, canonical
from wanedit.video.formats import FORMATS

if TYPE_CHECKING:
    import submitit
    from torch import Tensor

    from wanedit.lit.tasks import Work
    from wanedit.runtime.hands import Order

# Of an array's members, unless others are given: SLURM's names.
SLURM_DEFAULTS: Json = {"time": 1440, "gpus_per_node": 1, "ntasks_per_node": 1}
LOOK = 2.0  # seconds between two looks at actors
GRACE = 30.0  # until actors have tidied up once the run is complete
SEEN = ".seen."  # begins the name of the file by which actors know whether they see the folder


@runtime_checkable
class Made(Protocol):
    """What a run came to: in words, and how many of its tasks failed for good."""

    @property
    def told(self) -> str: ...

    @property
    def failed(self) -> int: ...


def work(root: Path, gpu: int | None = None, verbose: bool = True) -> Made:
    """Go on with a run from its folder alone, beside all others who do, until it is complete.

    Args:
        root: the run's folder. Its job is asked for `wanedit.jobs.<job>.work`.
        gpu: which device; None for the first one.
        verbose: print what the run tells, and progress bars.

    Raises:
        InputError: the folder holds no run, one that was begun elsewhere, or one that is made in one go; or there is no
            such device. Besides as the job.
    """
    record = canonical(read_settings(root / "config.yaml"))
    job = recorded_job(record)
    output = at_home(str(record.get("output", root)))
    home = output.with_suffix(".wanedit") if output.suffix.lower() in FORMATS else output
    if not (home.is_dir() and home.samefile(root)):
        raise InputError(
            f"run: {root} was begun as {home}, where its record has it; expected it there, or its own command with "
            f"--output {root}"
        )
    if gpu is not None:
        launch.require_device(gpu)
    if (on := job_part(job, "work")) is None:
        raise InputError(
            f"run: {root} is of `wanedit {job}`, which is made in one go; run its command again instead"
        )
    return on(root, record, gpu, verbose)


class Member:
    """What a member of an array does. One that SLURM takes away, or whose time is over, is queued again by submitit."""

    def __call__(self, root: str) -> None:
        work(Path(root), verbose=False)

    def checkpoint(self, root: str) -> "submitit.helpers.DelayedSubmission":
        """Asked by submitit before the end: what goes on is the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, root)


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        extra = {"submitit": "slurm"}.get(name, name)
        raise InputError(
            f"--launcher {extra} needs {name}, which is not installed; pip install 'wanedit[{extra}]'"
        ) from None


def slurm_script(root: Path, workers: int, options: Mapping[str, Any]) -> str:
    """The script that `submit` hands to sbatch. Raises InputError for options that SLURM does not have."""
    _library("submitit")
    from submitit.slurm.slurm import _make_sbatch_string  # which the executor itself needs SLURM for

    folder = root.absolute() / "slurm"
    command = f"{sys.executable} -u -m submitit.core._submit {folder}"
    given = SLURM_DEFAULTS | dict(options) | {"job_name": f"wanedit-{root.name}", "map_count": workers}
    try:
        return _make_sbatch_string(command, folder, **given)
    except TypeError as error:
        raise InputError(
            f"slurm: {str(error).split('()')[-1].strip()}; expected options of sbatch as submitit names them, and "
            "others in additional_parameters"
        ) from None


def submit(
    root: Path, workers: int, options: Mapping[str, Any], cluster: str = "slurm"
) -> "list[submitit.Job[None]]":
    """Queue an array of workers and return at once; its members log below the run's folder.

    Args:
        options: of sbatch, as submitit names them: partition, account, time in minutes, additional_parameters …
        cluster: submitit's executor; its "local" starts processes here.

    Raises:
        InputError: submitit, SLURM, or an option is not there.
    """
    submitit = _library("submitit")
    slurm_script(root, workers, options)
    try:
        executor = submitit.AutoExecutor(root.absolute() / "slurm", cluster=cluster)
    except RuntimeError:
        raise InputError(
            "--launcher slurm: there is no srun on this machine; run it where SLURM is, or --dry_run prints the script"
        ) from None
    given = SLURM_DEFAULTS | dict(options) | {"job_name": f"wanedit-{root.name}"}
    executor.update_parameters(**{f"slurm_{name}": value for name, value in given.items()})
    return executor.map_array(Member(), [str(root.absolute())] * workers)


def run_actors(
    root: Path,
    workers: int | None,
    address: str | None,
    told: Callable[[], str],
    say: Callable[[str], None],
) -> None:
    """Work on a run by actors of Ray until it is complete: one for each GPU or, where there is none, for the cores
    that the run's record gives a process. An actor that dies is begun again, on another node where its own is gone, and
    pulls what is left. One whose node does not see the folder is the hand of another here, which pulls for it.

    Args:
        workers: how many actors; as many as the cluster has room for unless it is given.
        address: of a cluster; None for this machine alone, as long as the run takes.
        told: how far the run is.
        say: given that when it changes, and what ended a worker.

    Raises:
        InputError: ray is not installed; a node has another wanedit, Python or torch.
        ResourceError: the cluster cannot be reached, or has no room for so many workers.
        WaneditError: all workers ended, and the run is not complete; the first one's error.
    """
    ray = _library("ray")
    directory, folder = RunDirectory(root, root / FINAL_NAME), root.absolute()
    threads = max(1, int(read_settings(directory.config).get("cpu_threads") or 1))
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(f"address {address}: {error}; expected that of a Ray cluster that runs") from None
    try:
        has = ray.cluster_resources()
        gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 0))
        room = gpus or cores // threads
        if not 0 < (count := workers or room) <= room:
            raise ResourceError(
                f"workers is {workers or 'unset'}; the Ray cluster has {gpus} GPUs and {cores} cores, which is room "
                f"for {room}, of {threads} threads each"
            )
        options = {"num_gpus": 1 if gpus else 0, "num_cpus": 1 if gpus else threads}
        # Both are 0 by default; that a task ends all its workers is seen by the queue.
        again = {"max_restarts": -1, "max_task_retries": -1}
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        with temporary(folder / f"{SEEN}{secrets.token_hex(8)}") as seen:
            for left in folder.glob(f"{SEEN}*"):  # by a driver that was killed
                left.unlink(missing_ok=True)
            seen.touch()
            given, first, last = (str(folder), versions(), str(seen)), None, ""
            actors = [ray.remote(**again, **options)(Actor).remote() for _ in range(count)]
            working = {one.work.remote(*given): one for one in actors}
            while working and directory.film_sha256() is None:
                # Those for which there is no room, since a node was lost, are not waited for.
                for ref in ray.wait([*working], num_returns=1, timeout=LOOK)[0]:
                    hand = working.pop(ref)
                    try:
                        if node := ray.get(ref):
                            say(f"{node} does not see {root}: what it makes comes back through Ray")
                            worker = ray.remote(**again, num_cpus=0, scheduling_strategy=here)(Actor).remote()
                            actors.append(worker)
                            working[worker.work.remote(*given, hand)] = worker
                    except ray.exceptions.RayError as error:
                        cause = getattr(error, "cause", error)
                        first = first or cause
                        say(f"a worker ended: {cause}")
                if (now := told()) not in ("", last):
                    say(last := now)
            if directory.film_sha256() is None:
                raise (
                    first if isinstance(first, WaneditError) else ResourceError(f"all workers ended: {first}")
                )
            if working:
                ray.wait([*working], num_returns=len(working), timeout=GRACE)
        say(f"{root}: complete")
    finally:
        ray.shutdown()


class Actor:
    """A worker of a run, in a process of Ray; or the hand of one, on a node that does not see the run's folder."""

    def __init__(self) -> None:
        from wanedit.runtime.hands import Hand

        self.hand = Hand()

    def work(self, root: str, needed: Mapping[str, str], seen: str, hand: Any = None) -> str:
        """Pull tasks until the run is complete.

        Args:
            needed: what must be here as the driver has it.
            seen: a file in the folder that the driver has just made.
            hand: another actor, in which the networks are.

        Returns:
            "", or at once this node's name, where it does not see the folder.

        Raises:
            InputError: this node, or the hand's, is not as it must be.
        """
        self.check(needed)
        if not Path(seen).exists():
            return os.uname().nodename
        if hand is None:
            work(Path(root), verbose=False)
            return ""
        import ray

        from wanedit.runtime.hands import through
        from wanedit.runtime.predict import making

        def wait() -> None:
            # Also for one that is being begun again.
            _answer(hand.check.remote(versions() | device()))

        def ask(order: "Order", task: "Work", known: "list[Tensor]") -> Generator[Any, None, None]:
            made = hand.make.options(num_returns="streaming", max_task_retries=0).remote(order, task, known)
            try:
                yield from map(_answer, made)
            except GeneratorExit:
                # Another has the task by now. What an actor is at ends with its process alone.
                ray.kill(hand, no_restart=False)
                wait()
                raise

        wait()
        with making(through(ask)):
            work(Path(root), verbose=False)
        return ""

    def check(self, needed: Mapping[str, str]) -> None:
        """Raises InputError where this node is not as it must be."""
        own = versions() | device()
        if differs := [name for name in needed if own[name] != needed[name]]:
            raise InputError(
                f"the node {os.uname().nodename} has {differs[0]} {own[differs[0]]}, the driver has "
                f"{needed[differs[0]]}; all need one environment"
            )

    def make(self, order: "Order", task: "Work", known: "list[Tensor]") -> Generator[Any, None, None]:
        """As `Hand.make`."""
        yield from self.hand.make(order, task, known)


def _answer(given: Any) -> Any:
    """What another actor answers; its error is raised as it was there."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(given)
    except RayTaskError as error:
        raise error.cause from None
    except RayError:
        # A worker without its hand is a lost worker: its claim stays, so that the queue knows, and Ray begins it again.
        os.kill(os.getpid(), signal.SIGKILL)


def versions() -> dict[str, str]:
    """What all workers must have alike."""
    import torch

    from wanedit import __version__

    return {
        "wanedit": __version__,
        "Python": ".".join(map(str, sys.version_info[:2])),
        "torch": torch.__version__,
    }


def device() -> dict[str, str]:
    """What a hand must have as its worker, which plans for it."""
    from wanedit.wan.load import compute_kind

    return {"the device": compute_kind()}
