"""What of a run is shown as moving pictures: its frames, its source, its keyframes, and where it changed the source."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import UInt8

from wanedit import timeline
from wanedit.errors import WaneditError
from wanedit.report.embed import fitted
from wanedit.report.record import Record
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.journal import Manifest
from wanedit.runtime.record import read_run
from wanedit.video import read_frames
from wanedit.video.arrays import AnyFrame

# A difference is multiplied by the largest of these that keeps 95 % of the pixels on the scale, and by the smallest
# at any rate: what is sought is whether anything changed where nothing should.
FACTORS = (32, 16, 8, 4)
ON_SCALE = 95

AnyClip = UInt8[np.ndarray, "_ _ _ 3"]


@dataclass(frozen=True, eq=False)
class Clips:
    """The pictures of one run, as they were before lossy encoding where that is still known.

    Attributes:
        result, source: (T, H, W, 3); no source for a generation, or where it has gone; no result for an unfinished run.
        keyframes: frame -> picture; empty where they have gone.
        places: the frames of the keyframes, known even then.
        joins: frames at which segments meet.
    """

    fps: float
    result: AnyClip | None
    source: AnyClip | None = None
    keyframes: dict[int, AnyFrame] | None = None
    places: tuple[int, ...] = ()
    joins: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the result."""
        return None if self.result is None else (self.result.shape[2], self.result.shape[1])


def gather(record: Record) -> tuple[Clips, list[str]]:
    """The pictures of a run, and notes on what of them is not to be had."""
    fps = float(record.info.fps) if record.info else float(record.config.get("fps") or 16)
    places = keyframe_places(record)
    joins = places[1:-1] if record.kind == "generation" else ()
    try:
        found = read_run(record.root)
    except WaneditError as error:
        frames, note = _without_inputs(record)
        return Clips(fps, frames, places=places, joins=joins), [*note, str(error)]
    keyframes = dict(found.keyframes)
    return Clips(fps, found.video, found.reference, keyframes, tuple(keyframes), tuple(found.junctions)), []


def _without_inputs(record: Record) -> tuple[AnyClip | None, list[str]]:
    """An edit's lossless frames need no input; a generation's are only in its finished video."""
    if record.kind == "edit" and record.digests:
        manifest = Manifest(RunDirectory(record.root, record.root))
        try:
            return read_frames(manifest.path(record.digests[-1])), ["source and keyframes are not shown"]
        except WaneditError as error:
            record.notes.append(str(error))
    if record.video is not None:
        return read_frames(record.video), ["shown as the finished file has it; keyframes are not shown"]
    return None, ["there are no frames to show"]


def keyframe_places(record: Record) -> tuple[int, ...]:
    """The frames of the keyframes by what is on record; empty where that cannot be told."""
    given = record.config.get("keyframes")
    if not isinstance(given, list):
        return ()
    try:
        values = [float(entry[1]) for entry in given]
        if record.kind == "edit":
            return tuple(int(value) for value in values)
        return timeline.plan(values, record.config.get("fps") or 16, 10**9 + 1, stretch=True).keyframe_frames
    except (WaneditError, TypeError, ValueError, IndexError, KeyError):
        return ()


def held(clips: Clips) -> AnyClip | None:
    """The edited keyframes as a clip: each from its own frame until the next; the first one also before it."""
    if not clips.keyframes or clips.result is None:
        return None
    order = sorted(clips.keyframes)
    at = np.searchsorted(order, np.arange(len(clips.result)), side="right") - 1
    pictures = fitted(np.stack([clips.keyframes[place] for place in order]))
    return pictures[np.maximum(at, 0)]


def difference(clips: Clips) -> UInt8[np.ndarray, "_ _ _"] | None:
    """The largest absolute difference of the three colours between result and source, in levels, at shown size."""
    if clips.source is None or clips.result is None or clips.source.shape != clips.result.shape:
        return None
    shown = fitted(clips.result), fitted(clips.source)
    return np.stack(
        [np.abs(a.astype(np.int16) - b).max(axis=-1).astype(np.uint8) for a, b in zip(*shown, strict=True)]
    )


def factor_for(levels: UInt8[np.ndarray, "_ _ _"]) -> int:
    """By how much a difference is amplified; see FACTORS."""
    top = float(np.percentile(levels, ON_SCALE))
    return next((factor for factor in FACTORS if factor * top <= 255), FACTORS[-1])


def painted(levels: UInt8[np.ndarray, "_ _ _"], factor: int) -> AnyClip:
    """Amplified levels in colour: black for no difference, then violet, orange, pale yellow."""
    scaled = np.minimum(levels.astype(np.uint16) * factor, 255).astype(np.uint8)
    return _palette()[scaled]


@cache
def _palette() -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps

    return (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
