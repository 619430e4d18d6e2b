"""Styling from end to end: choose keyframes, restyle them, write the folder that `wanedit edit --keyframes` reads."""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wanedit.errors import InputError, WaneditError
from wanedit.jobs.style.config import StyleConfig, resolved
from wanedit.jobs.style.plan import Say, StylePlan, make_style_plan
from wanedit.runtime import launch
from wanedit.runtime.directory import RunDirectory, write_text
from wanedit.runtime.inputs import KEYFRAMES_JSON
from wanedit.runtime.progress import progress_bar
from wanedit.stylists.cache import Cache, Journal, picture_hash
from wanedit.stylists.extract import Keyframes, read_keyframes
from wanedit.stylists.protocol import Stylist, reword
from wanedit.stylists.workflow import Attempt, Outcome, Rules, Track, Workflow
from wanedit.video import write_png
from wanedit.video.arrays import AnyFrame, Frames
from wanedit.video.atomic import PARTIAL_SUFFIX
from wanedit.video.sheets import comparison_sheet

FORMAT = 1
OWN_NAME = re.compile(r"\d{4,}\.png")


@dataclass(frozen=True, eq=False)
class StyleResult:
    """Restyled keyframes.

    Attributes:
        keyframes: uint8 (K, H, W, 3), RGB, of the source's size.
        indices: the frame of each, counted from the configuration's `start`.
        metadata: what keyframes.json holds.
        folder: the run's, as `wanedit edit --keyframes` reads it. contact_sheet: source over result.
        notes: what the user should know.
    """

    keyframes: Frames
    indices: tuple[int, ...]
    metadata: dict[str, Any]
    folder: Path
    contact_sheet: Path
    notes: tuple[str, ...]


class StyleDirectory:
    """Paths of a styling run. Nothing is created before `prepare`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / KEYFRAMES_JSON
        self.keyframes = root / "keyframes"
        self.work = root / "style"
        self.cache = self.work / "cache"
        self.journal = self.work / "journal.jsonl"
        self.config = root / "config.yaml"
        self.contact_sheet = root / "contact_sheet.png"

    def prepare(self) -> None:
        """Create the folders and drop what a killed run left half-written.

        Raises:
            InputError: a folder cannot be created.
        """
        for folder in (self.root, self.keyframes, self.cache):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"output {folder}: {error.strerror}") from None
            for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
                partial.unlink(missing_ok=True)


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
    with launch.interruptible():
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
    plan = make_style_plan(config, folders, stylist)
    directory = StyleDirectory(config.folder)
    _check_output(plan, directory)
    _require_key(plan.stylist)
    with RunDirectory(directory.root, directory.record).lock():
        directory.prepare()
        for note in plan.notes if verbose else ():
            say(f"note: {note}")
        try:
            return await _run(plan, directory, verbose)
        except WaneditError as error:
            if _holds_another(plan, directory.record):
                reword(error, f"{error}. {directory.root} still holds the keyframes of an earlier style")
            raise
        finally:
            close = getattr(plan.stylist, "aclose", None)
            if close is not None:
                await close()


def _holds_another(plan: StylePlan, path: Path) -> bool:
    """Whether a folder's record is of another style, or by another stylist."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return [record["style"], record["stylist"]] != json.loads(json.dumps(_made_by(plan)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


async def _run(plan: StylePlan, directory: StyleDirectory, verbose: bool) -> StyleResult:
    config = plan.config
    keyframes = await asyncio.to_thread(read_keyframes, plan.clip, plan.indices, plan.cuts)
    cache = Cache(directory.cache, renew=config.force_regenerate)
    with progress_bar(len(plan.indices), "restyling", "keyframes", verbose) as done:
        workflow = Workflow(
            stylist=plan.stylist,
            keyframes=tuple(keyframes.frames),
            frames=plan.indices,
            reference=plan.reference,
            rules=Rules(config.retries, config.concurrency, config.on_reject),
            cache=cache,
            journal=Journal(directory.journal),
            done=done,
        )
        outcome = await workflow.run()
    return _write(plan, directory, keyframes, outcome)


def _write(plan: StylePlan, directory: StyleDirectory, keyframes: Keyframes, outcome: Outcome) -> StyleResult:
    """Pictures first, the record that names them last: a folder with a record is complete."""
    chosen = {track.frame: track.best for track in outcome.tracks}
    directory.record.unlink(missing_ok=True)
    names = {frame: f"{frame:04d}.png" for frame in chosen}
    for frame, attempt in chosen.items():
        write_png(directory.keyframes / names[frame], attempt.styled.image)
    for old in directory.keyframes.iterdir():
        if OWN_NAME.fullmatch(old.name) and old.name not in names.values():
            old.unlink()
    _write_sheet(plan, directory.contact_sheet, keyframes, {f: a.styled.image for f, a in chosen.items()})
    final = resolved(plan.config, plan.clip.path, plan.image, plan.indices)
    write_text(directory.config, yaml.safe_dump(asdict(final), sort_keys=False, allow_unicode=True))
    metadata = _metadata(plan, outcome, names)
    write_text(directory.record, json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    frames = np.stack([attempt.styled.image for attempt in chosen.values()])
    kept = [f for f, a in chosen.items() if not a.verdict.accepted]
    told = [f"frame {frame} passed in no attempt; its best one is used, as asked for" for frame in kept]
    notes = (*plan.notes, *told)
    return StyleResult(frames, plan.indices, metadata, directory.root, directory.contact_sheet, notes)


def _metadata(plan: StylePlan, outcome: Outcome, names: dict[int, str]) -> dict[str, Any]:
    clip, (used, stylist) = plan.clip, _made_by(plan)
    spent = getattr(plan.stylist, "spent", None)
    return {
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "video": str(clip.path.absolute()),
        "start": clip.start,
        "num_frames": clip.count,
        "fps": float(clip.fps),
        "scene_cuts": None if plan.cuts is None else list(plan.cuts),
        "style": used,
        "stylist": stylist,
        # Of this run alone; the lines "spent" of the journal are of all runs.
        "spent": None if spent is None else {"calls": spent[0], "price_usd": spent[1]},
        "guide": outcome.guide.model_dump(mode="json"),
        "keyframes": [_entry(plan, track, names[track.frame]) for track in outcome.tracks],
    }


def _made_by(plan: StylePlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """The style and the stylist, as a record names them."""
    used = {
        "image": None if plan.image is None else str(plan.image.absolute()),
        "image_sha256": picture_hash(plan.reference.image) or None,
        "description": plan.reference.description,
    }
    return used, plan.stylist.settings


def _entry(plan: StylePlan, track: Track, name: str) -> dict[str, Any]:
    best: Attempt = track.best
    height, width = best.styled.image.shape[:2]
    return {
        "file": f"keyframes/{name}",
        "frame": track.frame,
        "source_frame": plan.clip.start + track.frame,
        "seconds": round(track.frame / float(plan.clip.fps), 6),
        "size": [width, height],
        "sha256": picture_hash(best.styled.image),
        "attempt": best.number,
        "accepted": best.verdict.accepted,
        "reasons": list(best.verdict.reasons),
        "cached": best.cached,
        "provenance": best.styled.provenance,
    }


def _write_sheet(plan: StylePlan, path: Path, keyframes: Keyframes, styled: dict[int, AnyFrame]) -> None:
    source = dict(zip(keyframes.indices, keyframes.frames, strict=True))
    rows = {"source": source, "styled": styled}
    write_png(path, comparison_sheet(rows, list(styled), fps=plan.clip.fps))


def _check_output(plan: StylePlan, directory: StyleDirectory) -> None:
    """See that no input would be overwritten, and that a source of images stays one.

    Raises:
        InputError: the reference or the video lies among the files that the run writes, or those among the video's.
    """
    written = {(directory.keyframes / f"{i:04d}.png") for i in plan.indices} | {directory.contact_sheet}
    for used in (plan.image, plan.clip.path):
        for path in written if used is not None else ():
            if path.exists() and used is not None and path.samefile(used):
                raise InputError(f"output {path} is also an input; expected another folder")
    if not plan.clip.path.is_dir():
        return
    source, root = plan.clip.path.resolve(), directory.root.resolve()
    own = [folder.resolve() for folder in (directory.keyframes, directory.work, directory.cache)]
    if root.is_relative_to(source) or source in own:
        raise InputError(
            f"output {directory.root} is also an input, {source}; expected a folder outside of it"
        )


def _require_key(stylist: Stylist) -> None:
    """A stylist that needs a key says so before a folder is made."""
    ready = getattr(stylist, "ready", None)
    if ready is not None:
        ready()
