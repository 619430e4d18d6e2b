"""Working on a run that is on record, whatever its job, and ways to start more who do: an array of SLURM, or actors of
Ray. Each pulls tasks out of the run's folder, which all of them see, and whoever is last puts the whole together."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from wanedit.errors import InputError, ResourceError, WaneditError
from wanedit.files import Json, at_home, file_sha256
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.record import job_part, read_settings, recorded_job
from wanedit.runtime.settings import FINAL_NAME, canonical
from wanedit.video.formats import FORMATS

if TYPE_CHECKING:
    import submitit

# Of an array's members, unless others are given: SLURM's names.
SLURM_DEFAULTS: Json = {"time": 1440, "gpus_per_node": 1, "ntasks_per_node": 1}
LOOK = 2.0  # seconds between two looks at actors
GRACE = 30.0  # until actors have tidied up once the run is complete


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
    pulls what is left.

    Args:
        workers: how many actors; as many as the cluster has room for unless it is given.
        address: of a cluster; None for this machine alone, as long as the run takes.
        told: how far the run is.
        say: given that when it changes, and what ended a worker.

    Raises:
        InputError: ray is not installed; a node has another wanedit, Python or torch, or does not see the folder.
        ResourceError: the cluster cannot be reached, or has no room for so many workers.
        WaneditError: all workers ended, and the run is not complete; the first one's error.
    """
    ray = _library("ray")
    directory = RunDirectory(root, root / FINAL_NAME)
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
        actor = ray.remote(max_restarts=-1, max_task_retries=-1, **options)(Actor)
        config = str(directory.config.absolute())
        own, first, last = about(config), None, ""
        actors = [actor.remote() for _ in range(count)]
        working = {one.work.remote(str(root.absolute()), own): one for one in actors}
        while working and directory.film_sha256() is None:
            # Those for which there is no room, since a node was lost, are not waited for.
            for ref in ray.wait([*working], num_returns=1, timeout=LOOK)[0]:
                del working[ref]
                try:
                    ray.get(ref)
                except ray.exceptions.RayError as error:
                    cause = getattr(error, "cause", error)
                    first = first or cause
                    say(f"a worker ended: {cause}")
            if (now := told()) not in ("", last):
                say(last := now)
        if directory.film_sha256() is None:
            raise first if isinstance(first, WaneditError) else ResourceError(f"all workers ended: {first}")
        if working:
            ray.wait([*working], num_returns=len(working), timeout=GRACE)
        say(f"{root}: complete")
    finally:
        ray.shutdown()


class Actor:
    """A worker of a run, in a process of Ray."""

    def work(self, root: str, needed: Mapping[str, str]) -> None:
        """Pull tasks until the run is complete. Raises InputError where this node is not as the driver needs it."""
        own = about(str(Path(root) / "config.yaml"))
        if differs := [name for name in needed if own.get(name) != needed[name]]:
            raise InputError(
                f"the node {os.uname().nodename} has {differs[0]} {own.get(differs[0])}, the driver has "
                f"{needed[differs[0]]}; all need one environment, and see the run under one path"
            )
        work(Path(root), verbose=False)


def about(config: str) -> dict[str, str]:
    """What all workers must have alike: versions, and the run's record."""
    import torch

    from wanedit import __version__

    return {
        "wanedit": __version__,
        "Python": ".".join(map(str, sys.version_info[:2])),
        "torch": torch.__version__,
        f"SHA-256 of {config}": file_sha256(Path(config)) if Path(config).exists() else "none",
    }
