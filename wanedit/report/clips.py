"""What of a run is shown as pictures: frames, source, keyframes, where it changed the source, all as data URIs so that
one file holds them and every frame can be jumped to; and what the page makes of them: panes that one clock drives, a
time line with the keyframes, strips of stills.
"""

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import av
import cv2
import numpy as np
from av import VideoStream
from jaxtyping import UInt8
from PIL import Image

from wanedit import timeline
from wanedit.errors import WaneditError
from wanedit.progress import counted
from wanedit.report.record import Record, listing
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.events import number
from wanedit.runtime.record import Repaired, read_run
from wanedit.timeline import rate_of
from wanedit.video.arrays import AnyFrame, Clip, FrameSequence, Rate, peek
from wanedit.video.decode import index_of, open_frames
from wanedit.video.display import ACCURATE_SCALING
from wanedit.video.formats import format_of
from wanedit.video.sound import Sound, sound_of, sound_packets

WIDEST = 960
# Frames between two that stand alone: few, so that a jump decodes little.
GROUP = 4
CRF = 20
JPEG_QUALITY = 88
# mp4 as browsers play it: they know fewer codecs of sound than other players.
PLAYED = replace(format_of("page.mp4"), sounds=("aac", "mp3", "opus", "flac"))
# A difference is multiplied by the largest of these that keeps 95 % of the pixels on the scale, and by the smallest
# at any rate: what is sought is whether anything changed where nothing should.
FACTORS = (32, 16, 8, 4)
ON_SCALE = 95

STRIP_RADIUS = 4
STRIP_WIDTH = 240
STILL_WIDTH = 480

Section = dict[str, object]


@dataclass(frozen=True, eq=False)
class Clips:
    """The pictures of one run, as they were before lossy encoding where that is still known; none is held in memory.

    Attributes:
        result, source: (T, H, W, 3); no source for a generation, or where it has gone; no result for an unfinished run.
        keyframes: frame -> picture; empty where they have gone.
        places: the frames of the keyframes, known even then.
        joins: frames at which segments meet.
        repaired: those of them that were tried again.
        sound: of the finished film.
    """

    fps: float
    result: Clip | None
    source: Clip | None = None
    keyframes: dict[int, AnyFrame] | None = None
    places: tuple[int, ...] = ()
    joins: tuple[int, ...] = ()
    repaired: Repaired | None = None
    sound: Sound | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the result."""
        return None if self.result is None else (self.result.shape[2], self.result.shape[1])


def gather(record: Record) -> tuple[Clips, list[str]]:
    """The pictures of a run and the sound of its film, and notes on what of them is not to be had."""
    clips, notes = _pictures(record)
    sound, silent = _film_sound(record, clips)
    return replace(clips, sound=sound), [*notes, *silent]


def _film_sound(record: Record, clips: Clips) -> tuple[Sound | None, list[str]]:
    """What is heard beside the result, where the page shows all of it when the film does."""
    if record.video is None or clips.result is None:
        return None, []
    try:
        index = index_of(record.video)
        sound, notes = sound_of(
            record.video, index.clock, rate_of(clips.fps), PLAYED, frames=len(clips.result)
        )
    except WaneditError as error:
        return None, [str(error)]
    # What is encoded anew is so for this page alone.
    return sound, [] if sound else [note.replace("the source's", "on this page the film's") for note in notes]


def _pictures(record: Record) -> tuple[Clips, list[str]]:
    places = keyframe_places(record)
    try:
        run = read_run(record.root)
        return Clips(
            float(run.fps),
            run.video,
            run.reference,
            run.keyframes,
            tuple(run.keyframes),
            run.junctions,
            run.repaired,
        ), []
    except WaneditError as error:
        reason = str(error)
    # An edit's lossless frames need none of its inputs; a generation's are then only in its finished video.
    frames, notes = None, []
    if record.job == "edit" and record.digests:
        manifest = Manifest(RunDirectory(record.root, record.root))
        try:
            frames = open_frames(manifest.path(record.digests[-1]))
            notes.append("source and keyframes are not shown")
        except WaneditError as error:
            notes.append(str(error))
    if frames is None and record.video is not None:
        frames = open_frames(record.video)
        notes.append("shown as the finished file has it; keyframes are not shown")
    if frames is None:
        notes.append("there are no frames to show")
    # The first and the last keyframe join nothing.
    joins = places[1:-1] if record.job == "generate" else ()
    fps = float(record.info.fps) if record.info else number(record.config.get("fps")) or 16.0
    return Clips(fps, frames, places=places, joins=joins), [*notes, reason]


def keyframe_places(record: Record) -> tuple[int, ...]:
    """The frames of the keyframes by what is on record; empty where that cannot be told."""
    try:
        values = [float(entry[1]) for entry in listing(record.config.get("keyframes"))]
        if record.job == "edit":
            return tuple(int(value) for value in values)
        return timeline.plan(values, record.config.get("fps") or 16, 10**9 + 1, stretch=True).keyframe_frames
    except (WaneditError, TypeError, ValueError, IndexError, KeyError):
        return ()


def same_frames(a: Clip | None, b: Clip | None) -> bool:
    """Whether both are there and show the same, frame by frame."""
    if a is None or b is None or a.shape != b.shape:
        return False
    return a is b or all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def held(clips: Clips) -> FrameSequence | None:
    """The edited keyframes as a clip: each from its own frame until the next; the first one also before it."""
    if not clips.keyframes or clips.result is None:
        return None
    order, frames = sorted(clips.keyframes), len(clips.result)
    at = np.maximum(np.searchsorted(order, np.arange(frames), side="right") - 1, 0)
    pictures = [fitted(clips.keyframes[place]) for place in order]
    return FrameSequence(
        (frames, *pictures[0].shape), lambda start, stop: (pictures[k] for k in at[start:stop])
    )


def difference(clips: Clips) -> FrameSequence | None:
    """The largest absolute difference of the three colours between result and source, (T, h, w) at shown size."""
    result, source = clips.result, clips.source
    if source is None or result is None or source.shape != result.shape:
        return None

    def levels(start: int, stop: int) -> Iterator[UInt8[np.ndarray, "_ _"]]:
        for pair in zip(result[start:stop], source[start:stop], strict=True):
            a, b = map(fitted, pair)
            yield np.abs(a.astype(np.int16) - b).max(axis=-1).astype(np.uint8)

    return FrameSequence((len(result), *fitted(result[0]).shape[:2]), levels)


def factor_for(levels: Iterable[UInt8[np.ndarray, "_ _"]]) -> int:
    """By how much a difference is amplified; see FACTORS. Counted frame by frame."""
    counts = np.zeros(256, np.int64)
    for frame in counted(levels, "comparing with the source", "frames"):
        counts += np.bincount(frame.ravel(), minlength=256)
    # The level that the share stays at or below, on the line between its neighbours as `np.percentile` has it.
    place, below = (counts.sum() - 1) * ON_SCALE / 100, np.cumsum(counts)
    low, high = (
        int(np.searchsorted(below, rank, side="right")) for rank in (math.floor(place), math.ceil(place))
    )
    top = low + (high - low) * (place - math.floor(place))
    return next((factor for factor in FACTORS if factor * top <= 255), FACTORS[-1])


def painted(levels: UInt8[np.ndarray, "_ _"], factor: int) -> AnyFrame:
    """Amplified levels in colour: black for no difference, then violet, orange, pale yellow."""
    scaled = np.minimum(levels.astype(np.uint16) * factor, 255).astype(np.uint8)
    return _palette()[scaled]


@cache
def _palette() -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps

    return (colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Embedded:
    """A file inside the page.

    Attributes:
        uri: "data:...;base64,...".
        size: (width, height) of what is embedded.
        reduced: whether it is smaller than what it was made from.
    """

    uri: str
    size: tuple[int, int]
    reduced: bool


def fitted(frame: AnyFrame, widest: int = WIDEST) -> AnyFrame:
    """A frame at most `widest` pixels wide and with even sides, which H.264 in yuv420p needs."""
    height, width = frame.shape[:2]
    scale = min(1.0, widest / width)
    size = max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
    if size == (width, height):
        return frame
    if scale == 1.0:
        # An odd side: its last row or column is shown twice, so that nothing is resampled.
        return np.pad(frame, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def embed_video(
    frames: Iterable[AnyFrame], fps: Rate, widest: int = WIDEST, sound: Sound | None = None
) -> Embedded:
    """A clip as H.264 in mp4, BT.709, no frame of which refers to a later one; read once, frame by frame.

    Args:
        sound: is put behind the pictures, for a player that has the whole file at once.
    """
    first, every = peek(frames, "the report")
    shown, file, rate = fitted(first, widest), io.BytesIO(), rate_of(fps)
    # One thread and no macroblock tree: the same frames give the same bytes.
    private = f"keyint={GROUP}:min-keyint={GROUP}:scenecut=0:bframes=0:mbtree=0:threads=1"
    options = {"crf": str(CRF), "preset": "medium", "x264-params": private}
    with av.open(file, "w", format="mp4") as container:
        stream = cast(VideoStream, container.add_stream("libx264", rate=rate, options=options))
        stream.height, stream.width = shown.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / rate
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(stream.codec_context, name, 1)  # BT.709, limited range
        beside = iter(()) if sound is None else sound_packets(sound, container, PLAYED)
        for index, frame in enumerate(every):
            pixels = np.ascontiguousarray(fitted(frame, widest))
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace="ITU709",
                dst_color_range="MPEG",
                interpolation=ACCURATE_SCALING,
            )
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        for packet in beside:
            container.mux(packet)
    size = shown.shape[1], shown.shape[0]
    return Embedded(_uri("video/mp4", file.getvalue()), size, first.shape[1] > widest)


def embed_image(frame: AnyFrame, widest: int) -> Embedded:
    """One picture as JPEG, without loss of colour resolution."""
    picture, reduced = Image.fromarray(frame), frame.shape[1] > widest
    if reduced:
        height = max(1, round(frame.shape[0] * widest / frame.shape[1]))
        picture = picture.resize((widest, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return Embedded(_uri("image/jpeg", file.getvalue()), picture.size, reduced)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True, eq=False)
class Pane:
    """One clip of the player.

    Attributes:
        note: what is to be known of it, in few words.
        keyed: whether it is marked while a keyframe's own frame is shown.
        row: panes of one row are of one kind.
        sound: is heard where the reader of the page chooses it.
    """

    title: str
    frames: Clip
    fps: float
    note: str = ""
    keyed: bool = False
    row: int = 0
    sound: Sound | None = None


def panes_of(clips: Clips) -> list[Pane]:
    """Source, result, keyframes and difference, as far as they are known."""
    if clips.result is None:
        return []
    edit = clips.source is not None
    found = [Pane("Source", clips.source, clips.fps)] if clips.source is not None else []
    title = "Edited" if edit else "Result"
    found.append(Pane(title, clips.result, clips.fps, "", not edit, sound=clips.sound))
    keyed = held(clips)
    if keyed is not None:
        found.append(Pane("Keyframes", keyed, clips.fps, "each from its own frame until the next", True))
    levels = difference(clips)
    if levels is not None:
        found.append(difference_pane(levels, clips.fps, factor_for(levels)))
    return found


def difference_pane(
    levels: FrameSequence, fps: float, factor: int, title: str = "Difference", row: int = 0
) -> Pane:
    """Where the result is not the source."""

    def coloured(start: int, stop: int) -> Iterator[AnyFrame]:
        return (painted(frame, factor) for frame in levels.read(start, stop))

    note = f"|edited − source| × {factor}; full scale {255 / factor:.0f} of 255 levels"
    return Pane(title, FrameSequence((*levels.shape, 3), coloured), fps, note, row=row)


def player(panes: Sequence[Pane], keyframes: Sequence[int] = (), joins: Sequence[int] = ()) -> Section:
    """All panes and what drives them.

    Args:
        keyframes, joins: what the time line shows besides the time.
    """
    if not panes:
        return {"note": "", "rows": []}
    made = [
        embed_video(
            counted(pane.frames, f"drawing {pane.title}", "frames", len(pane.frames)),
            pane.fps,
            sound=pane.sound,
        )
        for pane in panes
    ]
    longest = max(panes, key=lambda pane: len(pane.frames) / pane.fps)
    by_row = [
        [(pane, clip) for pane, clip in zip(panes, made, strict=True) if pane.row == row]
        for row in sorted({pane.row for pane in panes})
    ]
    # Rows of up to three are equally wide, and end together: a difference below its result.
    widest = max(map(len, by_row))
    rows = []
    for shown in by_row:
        columns = widest if widest <= 3 else len(shown)
        rows.append({"columns": columns, "skip": columns - len(shown), "panes": shown})
    marked = [("key", frame, f"Keyframe {k}, frame {frame}") for k, frame in enumerate(keyframes)]
    marked += [("join", frame, f"Join at frame {frame}") for frame in joins if frame not in set(keyframes)]
    reduced = any(clip.reduced for clip in made)
    return {
        "note": f"Shown at {WIDEST} pixels' width; the video itself is larger." if reduced else "",
        "rows": rows,
        "fps": f"{longest.fps:.10g}",
        "frames": len(longest.frames),
        "keyframes": keyframes,
        "heard": [pane.title for pane in panes if pane.sound],
        "markers": [(kind, at, f"{label}, {at / longest.fps:.2f} s") for kind, at, label in marked],
    }


def keyframe_stills(clips: Clips, names: Sequence[str]) -> Section | None:
    """Every keyframe beside what the result shows at its frame, and the source where there is one."""
    if not clips.keyframes or clips.result is None:
        return None
    shown, frames = [], list(clips.keyframes)
    result, source = (_at(clip, frames) for clip in (clips.result, clips.source))
    for place, (frame, picture) in enumerate(clips.keyframes.items()):
        stills = {"source": source[frame]} if source else {}
        stills |= {"keyframe": picture, "result": result[frame]}
        shown.append(
            {
                "frame": frame,
                "time": f"{frame / clips.fps:.2f} s",
                "file": names[place] if place < len(names) else "",
                "stills": {name: embed_image(still, STILL_WIDTH) for name, still in stills.items()},
                "distance": float(np.abs(result[frame].astype(np.int16) - picture).mean()),
            }
        )
    return {"note": "", "keyframes": shown}


def _at(clip: Clip | None, frames: Sequence[int]) -> dict[int, AnyFrame]:
    return {} if clip is None else dict(zip(frames, clip[frames], strict=True))


def junction_strips(clips: Clips) -> Section | None:
    """The frames around every join, each with its change from the frame before; a click shows it in the player. Of a
    join that was tried again also as it was."""
    if not clips.joins or clips.result is None:
        return None
    strips = {at: {"frame": at, "time": f"{at / clips.fps:.2f} s"} for at in clips.joins}
    made = _stills(clips.result, clips.joins)
    told, earlier = clips.repaired.joins if clips.repaired else {}, dict[int, list[Section]]()
    if clips.repaired is not None and clips.repaired.video is not None:
        earlier = _stills(clips.repaired.video, [at for at in clips.joins if at in told])
    rows = []
    for at, strip in strips.items():
        said = ""
        if at in told:
            now, tries = told[at]["after"], told[at]["attempts"]
            said = f" · after {tries} attempt{'s' * (tries != 1)} {_severity(now)}"
            if at in earlier:
                was = f"{strip['time']} · as it was first: {_severity(told[at]['before'])}"
                rows.append(strip | {"time": was, "stills": earlier[at]})
        rows.append(strip | {"time": f"{strip['time']}{said}", "stills": made[at]})
    note = (
        "Four frames on either side of each keyframe that two segments share. The bar is the mean change from the "
        "frame before, in levels: a join that shows is a bar that stands out. A click jumps there."
    )
    if told:
        note += (
            " Joins that were tried again have their worst measure before and after; above 1 a join shows."
        )
    return {"note": note, "strips": rows}


def _severity(verdict: Mapping[str, object]) -> str:
    severity = number(verdict.get("severity"))
    return f"{verdict.get('measure')}, severity {severity or 0:.2f}"


def _stills(clip: Clip, joins: Sequence[int]) -> dict[int, list[Section]]:
    """Of every join the frames about it."""
    count = len(clip)
    near = {at: range(max(at - STRIP_RADIUS, 0), min(at + STRIP_RADIUS + 1, count)) for at in joins}
    wanted, changes, pictures = {i for frames in near.values() for i in frames}, {}, {}
    before: AnyFrame | None = None
    for i, frame in enumerate(counted(clip, "looking at the joins", "frames")):
        if i in wanted:
            pictures[i] = embed_image(frame, STRIP_WIDTH)
            if before is not None:
                changes[i] = float(np.abs(frame.astype(np.int16) - before).mean())
        before = frame
    most = {at: max((changes.get(i, 0) for i in frames), default=0) or 1.0 for at, frames in near.items()}
    return {
        at: [
            {
                "frame": i,
                "word": "join" if i == at else f"{i - at:+d}",
                "change": f"{changes[i]:.1f}" if i in changes else "",
                "bar": 100 * changes.get(i, 0) / most[at],
                "picture": pictures[i],
            }
            for i in frames
        ]
        for at, frames in near.items()
    }
