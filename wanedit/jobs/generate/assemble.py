"""From complete segments to the final video: colour, restoring, retiming, joins, smoothing, sheets."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from wanedit.errors import InputError
from wanedit.jobs.generate.plan import Plan, Say
from wanedit.progress import counted
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.outputs import film_metadata
from wanedit.runtime.settings import MODEL_FIELDS
from wanedit.timeline import Segment, Timeline
from wanedit.video import (
    Piece,
    contact_sheet,
    correct_segment,
    junction_sheet,
    read_frames,
    retime,
    smooth_stream,
    stitch,
    write_png,
    write_video,
)
from wanedit.video.motion import speed_change
from wanedit.video.restoring import restored_segment
from wanedit.video.sheets import contact_indices, junction_indices, spread

JUNCTION_RADIUS = 4
THUMBNAIL = 480
# Times as fast, or as slow, as evenly: a cubic of slopes up to 3 is monotone.
MAX_PACE = 3.0


def assemble(plan: Plan, directory: RunDirectory, tell: Say = lambda line: None) -> None:
    """Stitch all segments into the final video and draw its two sheets. One segment is in memory at a time.

    Args:
        tell: told what a natural pace comes to.

    Raises:
        ResourceError: the disk is full; the segments stay.
    """
    import cv2

    count, keys, fps = plan.timeline.num_frames, plan.timeline.keyframe_frames, float(plan.timeline.fps)
    joins = spread(plan.timeline.joins)
    shown, near = contact_indices(count, keys), junction_indices(count, joins, JUNCTION_RADIUS)
    wanted, kept = {*shown, *near}, {}

    film = final_frames(plan, directory, tell=tell)

    def watched() -> Iterator[np.ndarray]:
        for index, frame in enumerate(counted(film, "stitching", "frames", count)):
            if index in wanted:
                # Small enough to keep hundreds; the sheets show none larger.
                scale = THUMBNAIL / max(frame.shape[:2])
                size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
                kept[index] = frame if scale >= 1 else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            yield frame

    write_video(
        directory.final, watched(), plan.timeline.fps, metadata(plan), plan.config.crf, sound=plan.sound
    )
    title = f"{count} frames, {count / fps:.2f} s at {fps:g} fps, {len(keys)} keyframes"
    chosen = np.stack([kept[i] for i in shown])
    write_png(directory.contact_sheet, contact_sheet(chosen, keys, fps, shown, title))
    if joins:
        chosen = np.stack([kept[i] for i in near])
        total = len(plan.timeline.joins)
        some = f"{len(joins)} of {total} " if len(joins) < total else ""
        title = f"{some}joins: four frames on either side"
        sheet = junction_sheet(chosen, joins, JUNCTION_RADIUS, fps, near, title)
        write_png(directory.junctions, sheet)


def final_frames(
    plan: Plan,
    directory: RunDirectory,
    first: int = 0,
    last: int | None = None,
    tell: Say = lambda line: None,
) -> Iterator[np.ndarray]:
    """The frames of the output, uint8 (H, W, 3), exactly `timeline.num_frames` of them.

    Args:
        first, last: segments, for those from the beginning of one to the end of the other alone.
        tell: told what a natural pace comes to.
    """
    journal = Manifest(directory).read()

    def decoded(segment: Segment) -> np.ndarray:
        entry = plan.frames_entry(segment.index, journal)
        if entry is None:
            raise InputError(f"segment {segment.index} is not decoded; run again")
        path = directory.inside(entry.file)
        try:
            return read_frames(path)
        except InputError as error:
            raise InputError(
                f"segment {segment.index}: {error}. Delete {path} and run again: it is made anew"
            ) from None

    def frames(segment: Segment) -> np.ndarray:
        return segment_frames(plan, segment, decoded(segment), pace)

    pace = dict[int, float]()
    if plan.config.pace == "natural":
        pace = paces(plan.timeline, decoded, first, last)
        times = ", ".join(f"frame {frame}: {met * met:.2f}" for frame, met in pace.items())
        meet = sum(1 / MAX_PACE <= met <= MAX_PACE for met in pace.values())
        nearer = f", come nearer at {len(pace) - meet}" if len(pace) > meet else ""
        tell(
            f"pace natural: speeds meet at {meet} of {len(plan.timeline.keyframe_frames) - 2} inner keyframes{nearer}"
            + (f" (as sampled, the speed behind over that before, {times})" if times else "")
        )
    segments, config = plan.timeline.segments[first : None if last is None else last + 1], plan.config
    start, stop = segments[0].start, segments[-1].end + 1
    pieces = (Piece(segment.start, segment.end, frames(segment)) for segment in segments)
    joins = [segment.start - start for segment in segments[1:]]
    return smooth_stream(stitch(pieces), stop - start, joins, config.smoothing, config.smoothing_radius)


def paces(
    chain: Timeline, decoded: Callable[[Segment], np.ndarray], first: int = 0, last: int | None = None
) -> dict[int, float]:
    """For the frames of inner keyframes: the root of how many times as fast the video as sampled goes on there as it
    came. What comes goes so many times as fast as evenly, and what follows is as many times slower: they meet.

    Args:
        decoded: frames of a segment as they were sampled.
        first, last: segments, for those keyframes alone that these begin, hold or end at.
    """
    segments = chain.segments
    end = len(segments) if last is None else last + 1
    found, before = dict[int, float](), None
    for segment in segments[max(first - 1, 0) : end + 1]:
        frames = decoded(segment)
        for span in segment.spans:
            part = frames[span.first : span.last + 1]
            # Sampled frames that go by in a frame of the video.
            rate = (span.last - span.first) / (span.end - span.start)
            if before is not None:
                change = speed_change(before[0], part[0], part[1])
                if change is not None:
                    found[span.start] = float(np.sqrt(change * rate / before[1]))
            before = part[-2].copy(), rate
    return found


def segment_frames(plan: Plan, segment: Segment, frames: np.ndarray, pace: Mapping[int, float]) -> np.ndarray:
    """One segment's contribution: from keyframe to keyframe corrected, restored and retimed to its place.

    Args:
        frames: as decoded.
        pace: see `paces`.
    """
    truth = dict(zip(plan.timeline.keyframe_frames, plan.keyframes, strict=True))
    # A segment beyond the model's limit is always stretched along its motion: a blend would only double it.
    method = "optical_flow" if segment.frames > segment.sampled_frames else plan.config.retime_method
    pieces = []
    for span in segment.spans:
        part = frames[span.first : span.last + 1]
        ends = truth[span.start].pixels(), truth[span.end].pixels()
        if plan.config.colour_correction:
            # Decoded in one sequence, a segment begins with the last frame of the one before.
            borrowed = plan.config.decode == "once" and segment.index > 0 and not pieces
            part = correct_segment(part, *ends, borrowed)
        if plan.config.restore != "none":
            kind = "residual" if plan.config.restore == "residual" else "keyframes"
            part = restored_segment(part, *ends, kind)
        # The keyframe between two is the same frame in both.
        met = (1 / pace.get(span.start, 1.0), pace.get(span.end, 1.0))
        speeds = min(max(met[0], 1 / MAX_PACE), MAX_PACE), min(max(met[1], 1 / MAX_PACE), MAX_PACE)
        pieces.append(retime(part, span.end - span.start + 1, method, speeds)[bool(pieces) :])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def metadata(plan: Plan) -> dict[str, str]:
    """What the final file carries: the resolved configuration and the hash of every segment.

    A video is passed on: of paths it says the last name only, and of keyframes the hash of their pixels.
    """
    config = asdict(plan.config)
    config["keyframes"] = [
        {"file": image.keyframe.path.name, "seconds": image.keyframe.seconds, "sha256": image.sha256}
        for image in plan.keyframes
    ]
    for name in ("output", "audio", *MODEL_FIELDS):
        config[name] = config[name] and Path(config[name]).name
    config["references"] = [image.keyframe.path.name for image in plan.references]
    config["lora"] = [str(replace(one, path=Path(one.path.name))) for one in plan.config.loras]
    config["module_folders"] = [Path(folder).name for folder in config["module_folders"]]
    return film_metadata(plan.timeline.num_frames) | {
        "wanedit_config": json.dumps(config, ensure_ascii=False),
        "wanedit_segments": json.dumps([task.digest for task in plan.tasks]),
    }
