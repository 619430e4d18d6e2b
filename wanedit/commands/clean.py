"""`wanedit clean`: remove what a run's folder holds of earlier settings."""

from pathlib import Path

from jsonargparse import Namespace

from wanedit.commands.support import Parser, new_parser
from wanedit.errors import InputError
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import run_folder
from wanedit.runtime.settings import FINAL_NAME

HELP = "remove the segments of earlier settings from a run's folder"
ORDER = 7


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "List the files of a run's folder that wanedit wrote and that the run as it was last started does not need: "
        "segments of earlier settings, and what killed runs left. With --yes they are removed; to go back to those "
        "settings is to sample them anew."
    )
    made.add_argument("run", type=str, help="the run's folder, or its finished video")
    made.add_argument("--yes", action="store_true", help="remove them")
    made.add_argument("--dry_run", action="store_true", help="list them and stop, as without --yes")
    made.add_argument("--quiet", action="store_true", help="print nothing")
    return made


def run(settings: Namespace) -> int:
    """List, or remove. Returns the exit code."""
    if settings.yes and settings.dry_run:
        raise InputError("yes and dry_run are both given; expected one of them")
    root = run_folder(Path(settings.run))
    directory = RunDirectory(root, root / FINAL_NAME)
    if not directory.recorded:
        raise InputError(f"run: {root} holds no record that wanedit wrote; expected a run's folder")
    from wanedit.runtime.claims import DECIDING
    from wanedit.runtime.leftovers import last_started, leftovers, remove

    directory.queue.doing = DECIDING
    with directory.lock():
        found = leftovers(directory, last_started(directory))
        if settings.yes:
            remove(directory, found)
    if settings.quiet:
        return 0
    for leftover in found:
        print(f"{leftover.path}  {leftover.size / 1e6:.2f} MB  {leftover.why}")
    size = sum(leftover.size for leftover in found) / 1e6
    if settings.yes or not found:
        print(f"{len(found)} files removed, {size:.1f} MB" if found else "nothing to remove")
    else:
        print(f"{len(found)} files, {size:.1f} MB, could go: wanedit clean {settings.run} --yes removes them")
    return 0
