"""An edit that makes its own keyframes: all is checked before the stylist is asked, then styled, then edited."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.edit.run import check_output, resolve_edit
from wanedit.jobs.integrated.config import EditStyle, styling_of
from wanedit.jobs.style.config import StyleConfig
from wanedit.jobs.style.plan import Say, make_style_plan
from wanedit.jobs.style.run import style as restyle
from wanedit.runtime.directory import RunDirectory
from wanedit.stylists.extract import read_keyframes
from wanedit.video import write_png


def with_styled_keyframes(
    style: EditStyle, config: EditConfig, folders: Sequence[Path] = (), verbose: bool = True, say: Say = print
) -> EditConfig:
    """The configuration of the edit with keyframes made by a style, inside the folder of its run.

    What an earlier run of the folder was answered is not asked again.

    Raises:
        InputError, MissingWeightsError: of the style or of the edit, before the stylist is asked.
        RejectedKeyframesError, ServiceError, ResourceError: as `wanedit.jobs.style.run.style`.
    """
    styling = styling_of(style, config)
    with unstyled(styling, config, folders) as rehearsal:
        directory = RunDirectory(config.folder, config.final_path)
        check_output(make_edit_plan(resolve_edit(rehearsal, directory), folders), directory)
    result = restyle(styling, folders, verbose=verbose, say=say)
    if verbose:
        say(f"{len(result.indices)} keyframes at {list(result.indices)}: {result.contact_sheet}")
    return replace(config, keyframes=str(result.folder))


@contextmanager
def unstyled(styling: StyleConfig, config: EditConfig, folders: Sequence[Path] = ()) -> Iterator[EditConfig]:
    """The configuration with the source's own frames as keyframes, where a plan needs some before they are styled."""
    plan = make_style_plan(styling, folders)
    keyframes = read_keyframes(plan.clip, plan.indices, plan.cuts)
    with tempfile.TemporaryDirectory(prefix="wanedit-") as scratch:
        for index, frame in zip(keyframes.indices, keyframes.frames, strict=True):
            write_png(Path(scratch) / f"{index:04d}.png", frame)
        yield replace(config, keyframes=scratch)
