"""From a StyleConfig to what will be done: the reference read, the frames chosen, no stylist asked; its page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.table import Table

from wanedit import timeline
from wanedit.jobs.style.config import StyleConfig, check_style, parse_indices
from wanedit.runtime.inputs import find_path
from wanedit.runtime.progress import wide_console
from wanedit.stylists.extract import Clip, check_indices, choose_indices, open_clip, scene_cuts
from wanedit.stylists.protocol import Estimate, StyleReference, Stylist
from wanedit.stylists.workflow import PLAIN_RANGE
from wanedit.video import load_image
from wanedit.video.images import LoadedImage

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class StylePlan:
    """A run, decided. `cuts` is None where nobody looked for cuts; `notes` are for the user."""

    config: StyleConfig
    clip: Clip
    indices: tuple[int, ...]
    cuts: tuple[int, ...] | None
    reference: StyleReference
    image: Path | None
    stylist: Stylist
    estimate: Estimate
    notes: tuple[str, ...]


def make_style_plan(
    config: StyleConfig, folders: Sequence[Path] = (), stylist: Stylist | None = None
) -> StylePlan:
    """Check everything and decide everything.

    Args:
        folders: where relative paths are looked up after the current folder.
        stylist: another one than `config.stylist` names.

    Raises:
        InputError: a value, the video, the reference or a frame number cannot be used.
    """
    check_style(config)
    image = None if config.style.image is None else find_path(config.style.image, folders, what="style.image")
    loaded = None if image is None else load_image(image)
    reference = StyleReference(None if loaded is None else loaded.pixels, config.style.description.strip())
    maker = stylist or make_stylist(config)
    _check_words(maker, reference)
    path = find_path(config.video, folders, what="video", folder=True)
    clip = open_clip(path, config.start, config.num_frames, config.decoder, config.fps)
    indices, cuts = _choose(config, clip)
    estimate = maker.estimate(len(indices), config.retries)
    notes = [f"style.image: {note}" for note in _notes_of(loaded)] if loaded is not None else []
    notes += _notes(config, clip, indices, cuts)
    return StylePlan(config, clip, indices, cuts, reference, image, maker, estimate, tuple(notes))


def make_stylist(config: StyleConfig) -> Stylist:
    """The stylist that a configuration names; imports only that one."""
    if config.stylist == "gemini":
        from wanedit.stylists.gemini.stylist import GeminiStylist

        return GeminiStylist(config.gemini)
    from wanedit.stylists.palette.stylist import PaletteStylist

    return PaletteStylist(config.palette)


def _check_words(stylist: Stylist, reference: StyleReference) -> None:
    """A stylist that knows only some words says so before the video is read."""
    check = getattr(stylist, "check_reference", None)
    if check is not None:
        check(reference)


def _choose(config: StyleConfig, clip: Clip) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    given = parse_indices(config.indices)
    if given is not None:
        return check_indices(given, clip), None
    cuts = tuple(scene_cuts(clip)) if config.scene_cuts and clip.count > 1 else None
    return choose_indices(clip.count, clip.fps, config.target_fps, config.max_frames, cuts or ()), cuts


def _notes_of(image: LoadedImage) -> list[str]:
    """What was done to a reference to read it, and whether it shows anything."""
    plain = np.ptp(image.pixels.reshape(-1, 3), axis=0).max() <= PLAIN_RANGE
    return [*image.notes, *(["it is of one colour, and so will the keyframes be"] if plain else [])]


def _notes(config: StyleConfig, clip: Clip, indices: Sequence[int], cuts: Sequence[int] | None) -> list[str]:
    notes = []
    for a, b in pairwise(indices):
        if timeline.slot(a) == timeline.slot(b):
            notes.append(
                f"frames {a} and {b} share a latent slot, which wanedit edit refuses; take them 4 apart"
            )
    if cuts and config.max_frames < len(cuts) + 1:
        notes.append(
            f"{len(cuts) + 1} scenes and max_frames {config.max_frames}: some scenes get no keyframe"
        )
    return notes


def print_style_plan(config: StyleConfig, folders: Sequence[Path] = ()) -> None:
    """Print which frames would be restyled, how often the stylist would be asked, and what that may cost.

    Raises:
        InputError: as the run itself would.
    """
    plan = make_style_plan(config, folders)
    console = wide_console()
    for note in plan.notes:
        console.print(f"note: {note}", style="yellow")
    console.print(_frames(plan))
    console.print(_totals(plan), highlight=False)


def _frames(plan: StylePlan) -> Table:
    table = Table(title="Keyframes", title_justify="left")
    for column in ("#", "frame", "of the source", "seconds", "scene"):
        table.add_column(column)
    for k, frame in enumerate(plan.indices):
        scene = "-" if plan.cuts is None else str(1 + sum(cut <= frame for cut in plan.cuts))
        seconds = f"{frame / float(plan.clip.fps):.2f}"
        table.add_row(str(k), str(frame), str(plan.clip.start + frame), seconds, scene)
    return table


def _totals(plan: StylePlan) -> str:
    clip, estimate, config = plan.clip, plan.estimate, plan.config
    height, width = clip.size
    cuts = "not looked for" if plan.cuts is None else ", ".join(map(str, plan.cuts)) or "none"
    image = "" if plan.image is None else f"{plan.image}"
    style = " + ".join(part for part in (image, repr(config.style.description)) if part not in ("", "''"))
    (least, most), (low, high) = estimate.calls, estimate.price
    price = "nothing" if not high else f"{low:.2f} to {high:.2f} US dollars, estimated"
    return "\n".join(
        (
            f"source     {clip.path}: frames {clip.start} … {clip.start + clip.count - 1} of {clip.total}, "
            f"{width}*{height}, {float(clip.fps):g} fps",
            f"cuts       {cuts}",
            f"style      {style}",
            f"stylist    {plan.stylist.settings.get('stylist', config.stylist)}",
            f"calls      {least} to {most} of a service; what the cache of an earlier run holds is not asked again",
            f"price      {price}",
            f"output     {config.folder}",
        )
    )
