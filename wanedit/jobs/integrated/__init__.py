"""An edit that makes its own keyframes: all is checked before the stylist is asked, then styled, then edited."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

from wanedit.errors import InputError
from wanedit.jobs.edit.config import EditConfig, check_output
from wanedit.jobs.style.config import StyleConfig, StyleSource, Styling
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.settings import Everyday, FileName

# Where in a run's folder the keyframes are made.
STYLED = "styled"
# How a source is read, by the names of EditConfig, StyleConfig and read_source alike.
OF_THE_SOURCE = ("start", "num_frames", "fps", "decoder")


@dataclass(frozen=True, kw_only=True)
class EditStyle(Styling):
    """How the keyframes of an edit are made; with neither picture nor words they are given.

    Attributes:
        image: a picture that has the style.
        description: words for it.
    """

    image: Annotated[FileName | None, Everyday("what goes in")] = None
    description: Annotated[str, Everyday("what goes in")] = ""

    @property
    def asked(self) -> bool:
        """Whether there is a style."""
        return self.image is not None or bool(self.description.strip())


def styling_of(style: EditStyle, config: EditConfig) -> StyleConfig:
    """The styling run inside the folder of an edit, of the same frames of the same source.

    Raises:
        InputError: the edit has keyframes already.
    """
    if config.keyframes:
        raise InputError("keyframes and a style are given; expected one of them")
    return StyleConfig(
        style=StyleSource(style.image, style.description),
        force_regenerate=config.force_regenerate,
        output=str(Path(config.folder) / STYLED),
        **{one.name: getattr(style, one.name) for one in fields(Styling)},
        # Both count and decode the same frames of the same source.
        **{name: getattr(config, name) for name in ("video", "module_folders", *OF_THE_SOURCE)},
    )


def with_styled_keyframes(
    style: EditStyle,
    config: EditConfig,
    folders: Sequence[Path] = (),
    verbose: bool = True,
    say: Callable[[str], None] = print,
) -> EditConfig:
    """The configuration of the edit with keyframes made by a style, inside the folder of its run.

    What an earlier run of the folder was answered is not asked again.

    Raises:
        InputError, MissingWeightsError: of the style or of the edit, before the stylist is asked.
        RejectedKeyframesError, ServiceError, ResourceError: as `wanedit.jobs.style.run.style`.
    """
    from wanedit.jobs.edit.plan import make_edit_plan, resolve_edit
    from wanedit.jobs.style.run import style as restyle

    styling = styling_of(style, config)
    # A stylist may cost money: whatever the edit would refuse is refused before it is asked.
    with unstyled(styling, config, folders) as rehearsal:
        directory = RunDirectory(config.folder, config.final_path)
        plan = make_edit_plan(resolve_edit(rehearsal, directory), folders)
        check_output(plan.config, plan.source.path, plan.keyframes)
    # What was done to the source is told by the edit.
    told_there = tuple(f": {note}" for note in plan.source.notes)
    result = restyle(
        styling, folders, verbose=verbose, say=lambda line: None if line.endswith(told_there) else say(line)
    )
    if verbose:
        say(f"styled keyframes at {list(result.indices)}: {result.contact_sheet}")
    return replace(config, keyframes=str(result.folder))


@contextmanager
def unstyled(styling: StyleConfig, config: EditConfig, folders: Sequence[Path] = ()) -> Iterator[EditConfig]:
    """The configuration with the source's own frames as keyframes, where a plan needs some before they are styled."""
    from wanedit.jobs.style.plan import make_style_plan
    from wanedit.stylists.extract import read_keyframes
    from wanedit.video import write_png

    plan = make_style_plan(styling, folders)
    keyframes = read_keyframes(plan.clip, plan.indices, plan.cuts)
    with tempfile.TemporaryDirectory(prefix="wanedit-", ignore_cleanup_errors=True) as scratch:
        for index, frame in zip(keyframes.indices, keyframes.frames, strict=True):
            write_png(Path(scratch) / f"{index:04d}.png", frame)
        yield replace(config, keyframes=scratch)
