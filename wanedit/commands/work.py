"""`wanedit work`: more workers for a run that others are at, or that was stopped."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser, resumable
from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.launch import current_world
from wanedit.runtime.settings import FINAL_NAME

HELP = "help a run that is at work, or go on with one, from its folder alone"
ORDER = 2


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Take tasks of a run that its folder still lacks, beside all others who do: in another terminal, on "
        "another machine that sees the folder, or under torchrun; or start such workers by SLURM or Ray. Whoever is "
        "last puts the whole together. Settings are those on record there; the device is this process's own."
    )
    made.add_argument("run", type=str, help="the run's folder, or its finished video")
    made.add_argument("--gpu", type=int, default=None, help="which device; the first one unless it is given")
    add_launcher(made)
    made.add_argument("--dry_run", action="store_true", help="print SLURM's script and stop")
    made.add_argument("--quiet", action="store_true", help="no messages, no progress bar")
    return made


def run(settings: Namespace) -> int:
    """Work until the run is complete. Returns the exit code."""
    root, values = run_folder(Path(settings.run)), settings.as_dict()
    launcher = Launcher.of(values)
    if settings.gpu is not None and (launcher.launcher != "local" or current_world().under_torchrun):
        raise InputError(
            f"gpu is {settings.gpu} for several processes, which take the devices in turn; expected it for one alone"
        )
    if settings.dry_run and launcher.launcher != "slurm":
        raise InputError("dry_run shows SLURM's script; expected --launcher slurm beside it")
    with resumable(f"what was finished is kept in {root}. Go on with"):
        if launcher.launcher != "local":
            return launcher.start(root, settings.dry_run, settings.quiet)
        from wanedit.runtime.launchers import work

        result = work(root, settings.gpu, verbose=not settings.quiet)
    if not settings.quiet and current_world().rank == 0:
        print(result.told)
    return int(result.failed > 0)


def add_launcher(parser: Parser, jobs: bool = False) -> None:
    """--launcher and what belongs to it; with `jobs` also how many processes of one command share many videos."""
    if jobs:
        parser.add_argument(
            "--jobs",
            "--num_gpus",
            type=int,
            default=1,
            help="of many videos: processes that share them on this machine; they take its GPUs in turn",
        )
    parser.add_argument(
        "--launcher",
        choices=("local", "slurm", "ray"),
        default="local",
        help="who starts the processes. local: this one, or num_gpus of them here; slurm: an array of SLURM, which is "
        "left to itself; ray: actors of a Ray cluster. See docs/cluster.md",
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="of SLURM, 1; of Ray, as many as there is room for"
    )
    parser.add_argument(
        "--address", type=str, default=None, help="of a Ray cluster; this machine alone without it"
    )
    parser.add_argument(
        "--slurm",
        type=dict[str, Any],
        default={},
        help='of sbatch, as in \'{"partition": "gpu", "time": 600}\'',
    )


@dataclass(frozen=True)
class Launcher:
    """What `add_launcher` adds, as it was given."""

    launcher: str
    workers: int | None
    address: str | None
    slurm: Json
    jobs: int = 1

    @classmethod
    def of(cls, values: Json, jobs: bool = False) -> "Launcher":
        """Taken out of a command's values. Raises InputError for what does not go together."""
        for name in ("jobs", "num_gpus"):
            if values["launcher"] != "local" and (given := values.get(name) or 1) > 1:
                raise InputError(
                    f"{name} is {given}, launcher is {values['launcher']}; expected workers, which says how many it "
                    "starts"
                )
        for name in ("jobs", "workers"):
            if (given := values.get(name)) is not None and given < 1:
                raise InputError(f"{name} is {given}; expected at least 1")
        names = ("launcher", "workers", "address", "slurm", *(("jobs",) if jobs else ()))
        made = cls(**{name: values.pop(name) for name in names})
        for name, needs in (("workers", ("slurm", "ray")), ("address", ("ray",)), ("slurm", ("slurm",))):
            if getattr(made, name) and made.launcher not in needs:
                raise InputError(
                    f"{name} is given, launcher is {made.launcher}; expected {' or '.join(needs)}"
                )
        if made.launcher != "local" and current_world().under_torchrun:
            raise InputError(
                f"launcher is {made.launcher} under torchrun, which has started workers; expected local"
            )
        return made

    def start(self, root: Path, dry_run: bool, quiet: bool) -> int:
        """Start workers of a run that is on record; returns the exit code. Raises as `launchers.submit` and
        `launchers.run_actors`."""
        from wanedit.commands.status import status
        from wanedit.runtime import launchers

        directory = RunDirectory(root, root / FINAL_NAME)
        if dry_run:
            if self.launcher == "slurm":
                print(launchers.slurm_script(root, self.workers or 1, self.slurm))
            return 0
        if not directory.recorded:
            raise InputError(f"run: {root} holds no record that wanedit wrote; expected a run's folder")
        say = (lambda line: None) if quiet else print
        if self.launcher == "slurm":
            jobs = launchers.submit(root, self.workers or 1, self.slurm)
            say(
                f"SLURM has the array {jobs[0].job_id.split('_')[0]} of {len(jobs)}: wanedit status {root} --watch"
            )
            return 0

        def told() -> str:
            found = status(directory)
            return found.words if found.workers else ""

        launchers.run_actors(root, self.workers, self.address, told, say)
        return int(status(directory).failed > 0)

    def of_one(self, what: str) -> "Launcher":
        """As it is for a single one, which is the work of one process. Raises InputError where more are asked for."""
        for name in ("jobs", "workers"):
            if (given := getattr(self, name) or 1) > 1:
                raise InputError(
                    f"{name} is {given} for {what}, which is the work of one process; expected 1, or many videos"
                )
        return self if self.launcher == "local" else replace(self, workers=1)

    def only_here(self, what: str) -> None:
        """Refuse any other way than this process, for a single one that is on no record before it is done."""
        if self.of_one(what).launcher != "local":
            raise InputError(f"launcher is {self.launcher} for {what}; expected local, or many videos")


def run_many(
    of: str,
    values: Json,
    folders: Sequence[Path],
    launcher: Launcher,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
) -> int | None:
    """Make many where the video of a command's settings is a list or a folder of videos; None where it is one.

    Args:
        of: the job of each.
        verbose: print what there is to make before it is made.

    Returns:
        The exit code: 1 if one failed.
    """
    from wanedit.jobs.many.run import Many, begin, kind_of, many, run
    from wanedit.runtime.many import listed

    def tell(note: str) -> None:
        if not quiet and current_world().rank == 0:
            print(f"note: {note}")

    if (found := listed(values["video"], kind_of(of), folders, values["output"], tell)) is None:
        return None
    given = {name: value for name, value in values.items() if name not in ("video", "force_regenerate")}
    config = many(of, given, *found, force=bool(values.get("force_regenerate")))
    root = Path(config.output)
    if (dry_run or verbose) and current_world().rank == 0:
        planned = Many(config)
        for one in planned.all:
            print(f"{one.title}: {'complete' if one.result(root) else 'to make'}")
        print(f"{len(planned.all)} videos, results in {planned.final}")
    if dry_run:
        return launcher.start(root, dry_run, quiet)
    with resumable(f"what was finished is kept in {root}. Go on with"):
        if launcher.launcher != "local":
            begin(config)
            return launcher.start(root, dry_run, quiet)
        made = run(config, launcher.jobs, verbose=not quiet)
    if not quiet and current_world().rank == 0:
        print(made.told)
    return int(made.failed > 0)
