"""From a StyleConfig to what will be done: the reference read, the frames chosen, no stylist asked; its page."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.jobs.style.config import StyleConfig, Styling, check_style, parse_indices
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import wide_console
from wanedit.runtime.inputs import KEYFRAMES_JSON, find_path
from wanedit.runtime.outputs import check_outputs, require_writable
from wanedit.runtime.record import own_record
from wanedit.runtime.settings import IsDataclass, with_changes
from wanedit.stylists import STYLISTS
from wanedit.stylists.cache import ENTRY_NAME, is_entry, is_journal
from wanedit.stylists.extract import Clip, check_indices, choose_indices, open_clip, scene_cuts
from wanedit.stylists.protocol import Estimate, Record, StyleReference, Stylist
from wanedit.stylists.workflow import PLAIN_RANGE
from wanedit.video import load_image

Say = Callable[[str], None]
# Of a keyframe's file.
OWN_NAME = re.compile(r"\d{4,}\.png")


@dataclass(frozen=True, eq=False)
class StylePlan:
    """A run, decided.

    Attributes:
        cuts: None where nobody looked for cuts.
        made_by: all that the stylist's answers depend on, besides what it is asked.
        notes: for the user.
    """

    config: StyleConfig
    clip: Clip
    indices: tuple[int, ...]
    cuts: tuple[int, ...] | None
    reference: StyleReference
    image: Path | None
    stylist: Stylist
    made_by: Record
    estimate: Estimate
    notes: tuple[str, ...]


class StyleDirectory(RunDirectory):
    """Paths of a styling run: a run's folder whose finished work is a record of keyframes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, root / KEYFRAMES_JSON)
        self.keyframes = root / "keyframes"
        self.work = root / "style"
        self.cache = self.work / "cache"
        self.journal = self.work / "journal.jsonl"
        self.folders = (root, self.keyframes, self.cache)


def make_style_plan(
    config: StyleConfig, folders: Sequence[Path] = (), stylist: Stylist | None = None
) -> StylePlan:
    """Check everything and decide everything.

    Args:
        folders: where relative paths are looked up after the current folder.
        stylist: another one than `config.stylist` names.

    Raises:
        InputError: a value, the stylist, the video, the reference or a frame number cannot be used.
    """
    found = find_style(config, folders, stylist)
    image, reference, maker = found.image, found.reference, found.stylist
    (clip, indices), cuts = open_stretch(config, folders), None
    if indices is None:
        cuts = tuple(scene_cuts(clip)) if config.scene_cuts and clip.count > 1 else None
        indices = choose_indices(clip.count, clip.fps, config.target_fps, config.max_frames, cuts or ())
    notes = [*found.notes, *(f"{clip.path.name}: {note}" for note in clip.notes)]
    for a, b in pairwise(indices):
        if timeline.slot(a) == timeline.slot(b):
            notes.append(
                f"frames {a} and {b} share a latent slot, which wanedit edit refuses; take them 4 apart"
            )
    if cuts and config.max_frames < len(cuts) + 1:
        scenes = f"{len(cuts) + 1} scenes and max_frames {config.max_frames}"
        notes.append(f"{scenes}: some scenes get no keyframe")
    estimate = maker.estimate(len(indices), config.retries)
    return StylePlan(
        config, clip, indices, cuts, reference, image, maker, found.made_by, estimate, tuple(notes)
    )


def open_stretch(config: StyleConfig, folders: Sequence[Path] = ()) -> tuple[Clip, tuple[int, ...] | None]:
    """The stretch of the video that keyframes are of, and which frames they are where that is given.

    Raises:
        InputError: no such video, damaged, or it has no such frames.
    """
    path = find_path(config.video, folders, what="video", folder=True)
    clip = open_clip(path, config.start, config.num_frames, config.decoder, config.fps)
    given = parse_indices(config.indices)
    return clip, None if given is None else check_indices(given, clip)


@dataclass(frozen=True, eq=False)
class FoundStyle:
    """A style and who follows it, before the video is looked at; `made_by` and `notes` as in `StylePlan`."""

    image: Path | None
    reference: StyleReference
    stylist: Stylist
    made_by: Record
    notes: tuple[str, ...]


def find_style(
    config: StyleConfig, folders: Sequence[Path] = (), stylist: Stylist | None = None
) -> FoundStyle:
    """Check the settings, then the reference and the stylist; arguments as `make_style_plan`.

    Raises:
        InputError: a value, the stylist or the reference cannot be used.
    """
    check_style(config)
    image = None if config.style.image is None else find_path(config.style.image, folders, what="style.image")
    loaded = None if image is None else load_image(image)
    reference = StyleReference(None if loaded is None else loaded.pixels, config.style.description.strip())
    maker, made_by = (stylist, stylist.settings) if stylist is not None else make_stylist(config)
    notes = [] if loaded is None else [f"style.image: {note}" for note in loaded.notes]
    if loaded is not None and np.ptp(loaded.pixels.reshape(-1, 3), axis=0).max() <= PLAIN_RANGE:
        notes.append("style.image: it is of one colour, and so will the keyframes be")
    # One that knows only some words says so before the video is read, and which of them it will not follow.
    if check := getattr(maker, "check_reference", None):
        notes += check(reference) or ()
    return FoundStyle(image, reference, maker, made_by, tuple(notes))


def make_stylist(config: Styling) -> tuple[Stylist, Record]:
    """The stylist that a configuration names, and all that its answers depend on.

    Raises:
        InputError: no such stylist, options that it does not take, or what they make is no stylist.
    """
    kind, options = STYLISTS[config.stylist], config.stylist_options
    # A stylist of the package has a section of settings of its own name.
    sections = {f.name: getattr(config, f.name) for f in fields(Styling)}
    if isinstance(section := sections.get(config.stylist), IsDataclass):
        made = kind(with_changes(section, **options))
        return made, made.settings
    with STYLISTS.guard(config.stylist):
        try:
            inspect.signature(kind).bind(**options)
        except ValueError:  # of C, which does not always say
            pass
        except TypeError as error:
            raise InputError(
                f"stylist {config.stylist}: {error}; stylist_options are {options}, expected those of "
                f"{config.stylist}{inspect.signature(kind)}"
            ) from None
        made = kind(**options)
    if not isinstance(made, Stylist):
        raise InputError(
            f"stylist {config.stylist} is a {type(made).__name__}, which lacks members of "
            "wanedit.stylists.protocol.Stylist; expected settings, analyse, restyle, verify and estimate"
        )
    # Its own settings may leave an option out, and then an answer to other options would be taken for its own.
    about = {"stylist": config.stylist, "options": options, "settings": made.settings}
    return made, about | {"code": STYLISTS.code(config.stylist)}


def check_output(directory: StyleDirectory, video: Path, image: Path | None) -> None:
    """See that no input would be overwritten, that a source of images stays one, and nothing of another origin is lost.

    Args:
        image: the reference; None for words alone.

    Raises:
        InputError: the reference or the video lies among the files that the run writes, or those among the video's; or
            one of these files is another job's or another program's.
    """
    require_writable(directory.config)
    # Each file speaks for itself: a folder's name, or a record beside it, tells nothing of who made or retouched it.
    own_record("style", directory)
    inputs = [video, *([] if image is None else [image])]
    # Pictures that are no longer keyframes are removed.
    pictures = [path for path in directory.keyframes.glob("*") if OWN_NAME.fullmatch(path.name)]
    check_outputs((directory.contact_sheet, directory.final, *pictures), inputs)
    ours = is_journal(directory.journal)
    check_outputs([directory.journal], inputs, ours)
    entries = [path for path in directory.cache.glob("*") if ENTRY_NAME.fullmatch(path.name)]
    # Where there is a journal, what is no entry is one that was damaged.
    check_outputs([path for path in entries if not (ours or is_entry(path))], inputs)
    source, root = video.resolve(), directory.root.resolve()
    own = [folder.resolve() for folder in (directory.keyframes, directory.work, directory.cache)]
    if source.is_dir() and (root.is_relative_to(source) or source in own):
        raise InputError(
            f"output {directory.root} is also an input, {source}; expected a folder outside of it"
        )


def print_style_plan(config: StyleConfig, folders: Sequence[Path] = (), of_an_edit: bool = False) -> None:
    """Print which frames would be restyled, how often the stylist would be asked, and what that may cost.

    Args:
        of_an_edit: its own plan follows, which says what was done to the source.

    Raises:
        InputError: as the run itself would.
    """
    from rich.table import Table

    plan = make_style_plan(config, folders)
    check_output(StyleDirectory(config.folder), plan.clip.path, plan.image)
    clip, console = plan.clip, wide_console()
    told_there = {f"{clip.path.name}: {note}" for note in clip.notes if of_an_edit}
    for note in plan.notes:
        if note in told_there:
            continue
        console.print(f"note: {note}", style="yellow")
    table = Table(title="Keyframes", title_justify="left")
    for column in ("#", "frame", "of the source", "seconds", "scene"):
        table.add_column(column)
    for k, frame in enumerate(plan.indices):
        scene = "-" if plan.cuts is None else str(1 + sum(cut <= frame for cut in plan.cuts))
        table.add_row(str(k), str(frame), str(clip.start + frame), f"{clip.times[frame]:.2f}", scene)
    console.print(table)
    height, width = clip.size
    cuts = "not looked for" if plan.cuts is None else ", ".join(map(str, plan.cuts)) or "none"
    words = repr(config.style.description) if config.style.description else ""
    (least, most), (low, high) = plan.estimate.calls, plan.estimate.price
    totals = {
        "source": f"{clip.path}: frames {clip.start} … {clip.start + clip.count - 1} of {clip.total}, "
        f"{width}*{height}, {float(clip.fps):g} fps",
        "cuts": cuts,
        "style": " + ".join(part for part in ("" if plan.image is None else str(plan.image), words) if part),
        "stylist": plan.made_by.get("stylist", config.stylist),
        "calls": f"{least} to {most} of a service; what the cache of an earlier run holds is not asked again"
        if most
        else "of no service",
        "price": "nothing" if not high else f"{low:.2f} to {high:.2f} US dollars, estimated",
        "output": config.folder,
    }
    console.print("\n".join(f"{name:10} {value}" for name, value in totals.items()), highlight=False)
