"""Styling from end to end: choose keyframes, restyle them, write the folder that `wanedit edit --keyframes` reads."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from wanedit import __version__
from wanedit.errors import WaneditError
from wanedit.files import OnDisk, read_json, system_errors, write_text
from wanedit.interrupts import interruptible
from wanedit.jobs.style.config import StyleConfig, resolved
from wanedit.jobs.style.plan import OWN_NAME, Say, StyleDirectory, StylePlan, check_output, make_style_plan
from wanedit.progress import counting
from wanedit.runtime.events import progress_bars
from wanedit.runtime.record import write_record
from wanedit.stylists.cache import Cache, Journal, picture_hash
from wanedit.stylists.extract import Keyframes, read_keyframes
from wanedit.stylists.protocol import Record, Stylist, reword
from wanedit.stylists.workflow import Outcome, Rules, Workflow
from wanedit.video import write_png
from wanedit.video.arrays import Frames
from wanedit.video.sheets import comparison_sheet, spread

FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class StyleResult(OnDisk):
    """Restyled keyframes; as a path, the folder that `wanedit edit --keyframes` reads.

    Attributes:
        keyframes: uint8 (K, H, W, 3), RGB, of the source's size.
        indices: the frame of each, counted from the configuration's `start`.
        metadata: what keyframes.json holds.
        folder: the run's, as `wanedit edit --keyframes` reads it. contact_sheet: source over result.
        notes: what the user should know.
    """

    keyframes: Frames
    indices: tuple[int, ...]
    metadata: Record
    folder: Path
    contact_sheet: Path
    notes: tuple[str, ...]

    def __fspath__(self) -> str:
        return str(self.folder)


def style(
    config: StyleConfig,
    folders: Sequence[Path] = (),
    *,
    stylist: Stylist | None = None,
    verbose: bool = True,
    say: Say = print,
) -> StyleResult:
    """Restyle keyframes of a video; what an earlier run was answered is not asked again.

    Args:
        config: the run.
        folders: where relative paths are looked up after the current folder.
        stylist: another one than `config.stylist` names.
        verbose: show notes and a progress bar. say: where lines go.

    Raises:
        InputError: a value, the video, the reference or a frame number cannot be used.
        RejectedKeyframesError: the stylist accepted none of the attempts at a keyframe.
        ServiceError, ResourceError: the service or the disk gave out; the same call goes on where it stopped.
    """
    with interruptible():
        return asyncio.run(style_async(config, folders, stylist=stylist, verbose=verbose, say=say))


async def style_async(
    config: StyleConfig,
    folders: Sequence[Path] = (),
    *,
    stylist: Stylist | None = None,
    verbose: bool = True,
    say: Say = print,
) -> StyleResult:
    """`style` for a running event loop; it does not handle signals."""
    with system_errors():
        plan = make_style_plan(config, folders, stylist)
        directory = StyleDirectory(config.folder)
        check_output(directory, plan.clip.path, plan.image)
        if ready := getattr(plan.stylist, "ready", None):
            ready()  # one that needs a key says so before a folder is made
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(directory.lock())
            directory.queue.say("restyles")
            directory.prepare()
            for note in plan.notes if verbose else ():
                say(f"note: {note}")
            await stack.enter_async_context(_closing(plan.stylist))
            stack.enter_context(_told_of_earlier(plan, directory))
            # Decoding takes seconds, and the event loop may be the caller's own.
            keyframes = await asyncio.to_thread(read_keyframes, plan.clip, plan.indices, plan.cuts)
            # What had to be done to frames to read them is known once they are read.
            read = tuple(f"{plan.clip.path.name}: {note}" for note in keyframes.notes)
            plan = replace(plan, notes=(*plan.notes, *read))
            for note in read if verbose else ():
                say(f"note: {note}")
            with (
                progress_bars(verbose),
                counting("restyling", "keyframes", len(plan.indices)) as done,
            ):
                workflow = Workflow(
                    stylist=plan.stylist,
                    keyframes=tuple(keyframes.frames),
                    frames=plan.indices,
                    reference=plan.reference,
                    rules=Rules(config.retries, config.concurrency, config.on_reject),
                    cache=Cache(directory.cache, renew=config.force_regenerate),
                    journal=Journal(directory.journal),
                    made_by=plan.made_by,
                    done=done,
                )
                outcome = await workflow.run()
            return _write(plan, directory, keyframes, outcome)


@contextlib.asynccontextmanager
async def _closing(stylist: Stylist) -> AsyncIterator[None]:
    """Close the stylist's connections after the block; that they do not close hides no error of the block."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            await _close(stylist)
        raise
    await _close(stylist)


async def _close(stylist: Stylist) -> None:
    if close := getattr(stylist, "aclose", None):
        await close()


@contextlib.contextmanager
def _told_of_earlier(plan: StylePlan, directory: StyleDirectory) -> Iterator[None]:
    """Say of a failure that what stands in the folder is no result of this run, unless it is of this very style."""
    try:
        with system_errors():
            yield
    except WaneditError as error:
        another = False
        own = json.loads(json.dumps([_style(plan), plan.made_by]))
        with contextlib.suppress(WaneditError):
            record = read_json(directory.final, "the record of a style")
            another = "style" in record and [record["style"], record.get("stylist")] != own
        if another:
            reword(error, f"{error}. {directory.root} still holds the keyframes of an earlier style")
        raise


def _style(plan: StylePlan) -> Record:
    """The style, as a record names it."""
    return {
        "image": None if plan.image is None else str(plan.image.absolute()),
        "image_sha256": picture_hash(plan.reference.image) or None,
        "description": plan.reference.description,
    }


def _write(plan: StylePlan, directory: StyleDirectory, keyframes: Keyframes, outcome: Outcome) -> StyleResult:
    """Pictures first, the record that names them last: a folder with a record is complete."""
    chosen = {track.frame: track.best for track in outcome.tracks}
    pictures = {frame: attempt.styled.image for frame, attempt in chosen.items()}
    # Before the first picture: until the new record stands, a stopped run must not pass for a complete one.
    directory.final.unlink(missing_ok=True)
    names = {frame: f"{frame:04d}.png" for frame in chosen}
    for frame, picture in pictures.items():
        write_png(directory.keyframes / names[frame], picture)
    for old in directory.keyframes.iterdir():
        if OWN_NAME.fullmatch(old.name) and old.name not in names.values():
            old.unlink()
    source = dict(zip(keyframes.indices, keyframes.frames, strict=True))
    rows = {"source": source, "styled": pictures}
    shown = spread(list(pictures))
    title = f"{len(shown)} of {len(pictures)} keyframes" if len(shown) < len(pictures) else ""
    write_png(directory.contact_sheet, comparison_sheet(rows, shown, title=title, times=plan.clip.times))
    final = resolved(plan.config, plan.clip.path, plan.image, plan.indices)
    write_record(directory, final)
    metadata = _metadata(plan, outcome, names)
    write_text(directory.final, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    kept = [f for f, a in chosen.items() if not a.verdict.accepted]
    told = [f"frame {frame} passed in no attempt; its best one is used, as asked for" for frame in kept]
    frames = np.stack(list(pictures.values()))
    notes = (*plan.notes, *told)
    return StyleResult(frames, plan.indices, metadata, directory.root, directory.contact_sheet, notes)


def _metadata(plan: StylePlan, outcome: Outcome, names: dict[int, str]) -> Record:
    """What keyframes.json holds: how the run was made, and each keyframe."""
    clip, spent = plan.clip, getattr(plan.stylist, "spent", None)
    entries = []
    for track in outcome.tracks:
        best = track.best
        height, width = best.styled.image.shape[:2]
        entries.append(
            {
                "file": f"keyframes/{names[track.frame]}",
                "frame": track.frame,
                "source_frame": clip.start + track.frame,
                "seconds": round(clip.times[track.frame], 6),
                "size": [width, height],
                "sha256": picture_hash(best.styled.image),
                "attempt": best.number,
                "accepted": best.verdict.accepted,
                "reasons": list(best.verdict.reasons),
                "cached": best.cached,
                "provenance": best.styled.provenance,
            }
        )
    return {
        "wanedit": __version__,
        "format": FORMAT,
        "job": "style",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "video": str(clip.path.absolute()),
        "start": clip.start,
        "num_frames": clip.count,
        "fps": float(clip.fps),
        "scene_cuts": None if plan.cuts is None else list(plan.cuts),
        "style": _style(plan),
        "stylist": plan.made_by,
        # Of this run alone; the lines "spent" of the journal are of all runs.
        "spent": None if spent is None else {"calls": spent[0], "price_usd": spent[1]},
        "guide": outcome.guide.model_dump(mode="json"),
        "notes": list(plan.notes),
        "keyframes": entries,
    }
