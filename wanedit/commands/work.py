"""`wanedit work`: more workers for a generation that others are at, or that was stopped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from wanedit.commands.support import Parser, new_parser, resumable
from wanedit.errors import InputError
from wanedit.files import Json
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.launch import current_world
from wanedit.runtime.settings import FINAL_NAME

HELP = "help a generation that is at work, or go on with one, from its folder alone"
ORDER = 2


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Take tasks of a generation that its folder still lacks, beside all others who do: in another terminal, on "
        "another machine that sees the folder, or under torchrun; or start such workers by SLURM or Ray. Whoever is "
        "last stitches. Settings are those that the folder has on record; the device is this process's own."
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
    if settings.dry_run and launcher.launcher != "slurm":
        raise InputError("dry_run shows SLURM's script; expected --launcher slurm beside it")
    with resumable(f"finished segments are kept in {root}. Go on with"):
        if launcher.launcher != "local":
            launcher.start(root, settings.dry_run, settings.quiet)
            return 0
        from wanedit.jobs.generate.run import work

        result = work(root, settings.gpu, verbose=not settings.quiet)
    if not settings.quiet and current_world().rank == 0:
        print(f"{result.video}: {result.num_frames} frames, keyframes at {list(result.keyframe_frames)}")
    return 0


def add_launcher(parser: Parser) -> None:
    """--launcher and what belongs to it."""
    parser.add_argument(
        "--launcher",
        choices=("local", "slurm", "ray"),
        default="local",
        help="who starts the processes. local: this one, or num_gpus of them here; slurm: an array of SLURM, which is "
        "left to itself; ray: actors of a Ray cluster. See docs/cluster.md",
    )
    parser.add_argument(
        "--workers", type=PositiveInt, default=None, help="of SLURM, 1; of Ray, as many as there is room for"
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

    @classmethod
    def of(cls, values: Json) -> "Launcher":
        """Taken out of a command's values. Raises InputError for what does not go together."""
        made = cls(**{name: values.pop(name) for name in cls.__dataclass_fields__})
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

    def start(self, root: Path, dry_run: bool, quiet: bool) -> None:
        """Start workers of a run that is on record. Raises as `launchers.submit` and `launchers.run_actors`."""
        from wanedit.commands.status import status
        from wanedit.jobs.generate import launchers

        directory = RunDirectory(root, root / FINAL_NAME)
        if dry_run:
            if self.launcher == "slurm":
                print(launchers.slurm_script(root, self.workers or 1, self.slurm))
            return
        if not directory.recorded:
            raise InputError(f"run: {root} holds no record that wanedit wrote; expected a run's folder")
        say = (lambda line: None) if quiet else print
        if self.launcher == "slurm":
            jobs = launchers.submit(root, self.workers or 1, self.slurm)
            say(
                f"SLURM has the array {jobs[0].job_id.split('_')[0]} of {len(jobs)}: wanedit status {root} --watch"
            )
            return

        def told() -> str:
            found = status(directory)
            return found.words if found.workers else ""

        launchers.run_actors(root, self.workers, self.address, told, say)
