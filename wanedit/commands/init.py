"""`wanedit init`: a commented file of settings beside what it is to be run on."""

import json
import shlex
import textwrap

from jsonargparse import Namespace

from wanedit import commands
from wanedit.commands.support import Parser, new_parser
from wanedit.errors import InputError
from wanedit.files import at_home, is_there, system_errors, write_text
from wanedit.runtime.inputs import parse_keyframes
from wanedit.runtime.outputs import require_writable
from wanedit.video.formats import FORMATS

HELP = "a commented file of settings beside your pictures or your video"
ORDER = 0
NAME = "wanedit.yaml"
WIDTH = 100


def parser() -> Parser:
    """Its flags."""
    made = new_parser(
        "Write a file of the settings that are used most, each with what it means, and with the pictures or the video "
        "of a folder filled in. Nothing that is there is replaced."
    )
    made.add_argument(
        "job", choices=["generate", "edit"], help="the command that it is for: generate or edit"
    )
    made.add_argument(
        "folder", nargs="?", type=str, default=".", help="where the pictures or the video are; this folder"
    )
    made.add_argument("--output", type=str, default="", help=f"the file; {NAME} in the folder unless given")
    made.add_argument("--quiet", action="store_true", help="print nothing")
    return made


def run(settings: Namespace) -> int:
    """Write the file and say how it is run. Returns the exit code."""
    folder = at_home(settings.folder)
    if not folder.is_dir():
        raise InputError(
            f"folder: no folder {folder.absolute()}; expected where the pictures or the video are"
        )
    path = at_home(settings.output) if settings.output else folder / NAME
    if is_there(path):
        raise InputError(f"output {path} is there already; choose another output, or move it away")
    require_writable(path)
    found: dict[str, object] = {"output": f"outputs/{folder.absolute().name or settings.job}"}
    notes: list[str] = []
    with system_errors(folder):
        if settings.job == "generate":
            found["keyframes"] = [
                [str(one.path.absolute().relative_to(folder.absolute())), one.seconds]
                for one in parse_keyframes(folder, tell=notes.append)
            ]
        else:
            videos = sorted(one.name for one in folder.iterdir() if one.suffix.lower() in FORMATS)
            if len(videos) != 1:
                names = ", ".join(videos[:5]) or "none"
                raise InputError(f"folder: {len(videos)} videos in {folder} ({names}); expected one")
            found["video"] = videos[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    command = f"wanedit {settings.job} --config {shlex.quote(str(path))}"
    write_text(path, written(settings.job, command, found, notes))
    if not settings.quiet:
        print(f"{path}\nlook it through, then: {command}")
    return 0


def written(job: str, command: str, found: dict[str, object], notes: list[str]) -> str:
    """The text of the file: what a command's short help has, at its defaults but for what was found."""
    own = commands.load(job).parser()
    assert isinstance(own, Parser)
    lines = [f"# {command}", f"# Every setting: wanedit {job} --help all", *(f"# {note}" for note in notes)]
    known = {action.dest: action for action in own._actions}
    for heading, shown in own.sections(every=False).items():
        # A word without a flag gives a setting, which is what a file has.
        names = [own.positional.get(one.dest, one.dest) for one in shown]
        settings = [known[name] for name in names if name in own.kinds and "." not in name]
        lines += ["", f"# -- {heading} --"] if settings else []
        for action in settings:
            lines += textwrap.wrap(
                action.help or "", WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
            )
            value = found.get(action.dest, action.default)
            if isinstance(value, list) and value:
                lines += [f"{action.dest}:", *(f"  - {json.dumps(one, ensure_ascii=False)}" for one in value)]
            else:
                lines.append(f"{action.dest}: {json.dumps(value, ensure_ascii=False)}")  # which is YAML, too
    return "\n".join(lines) + "\n"
