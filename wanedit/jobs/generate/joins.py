"""How segments become one sequence of latents, which stretches of it are decoded, and what of all that is missing.

Sampled time is the segments' sampled frames one after the other, each keyframe that two of them share counted once. A
segment has 4n+1 frames, so every join lies at the end of a latent slot: the sequence is segment 0 whole, then the slots
1 … of every later one. Slot 0 of those is a latent of one frame, where the video has one of four: it is private, an
anchor that its segment is denoised with and that is thrown away. A segment's frames are the last 4n+1 of what its own
slots decode to behind `WARM_UP` slots that go before. So every piece runs from keyframe to keyframe, whatever way it
was decoded, and retiming a surplus away within it moves no join: frame counts are exact for all kinds of joins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.files import Json, digest
from wanedit.flow.relay import Told, joined
from wanedit.flow.windows import window_ramp
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.lit.tasks import Begun, Bridge, CoDenoising, DecodeTask, SegmentTask, StoredPicture, Window
from wanedit.rng import take_seed
from wanedit.runtime.directory import segment_file
from wanedit.runtime.predict import load_latents
from wanedit.timeline import STRIDE, Segment, Timeline, slot, slots
from wanedit.wan.load import WanFolder
from wanedit.wan.vae import WARM_UP

# Raised when a change to the code changes the frames that the same latents are decoded to, the latents of a bridge, or
# what is denoised together.
DECODING, BRIDGING, CO_DENOISING = 1, 1, 1


@runtime_checkable
class NamedPicture(StoredPicture, Protocol):
    """A keyframe that is read when it is needed."""

    @property
    def sha256(self) -> str:
        """Of its pixels."""
        ...


@dataclass(frozen=True)
class Slots:
    """A stretch of a sequence of latents that lies in several files.

    Attributes:
        folder: of the files.
        places: for each slot the file, and the slot in it.
    """

    folder: Path
    places: tuple[tuple[str, int], ...]

    @property
    def slots(self) -> int:
        """How many."""
        return len(self.places)

    @property
    def files(self) -> set[str]:
        """Names of those that hold them."""
        return {file for file, _ in self.places}

    def read(self) -> Float[Tensor, "channels s h w"]:
        """All of them, from files that are made by now. Raises InputError where one is not as it was written."""
        held = {file: load_latents(self.folder / file) for file in self.files}
        return torch.stack([held[file][:, slot] for file, slot in self.places], dim=1)


@dataclass(frozen=True)
class Todo:
    """What a run makes, or what of it a folder still lacks, in the order of its stages.

    Attributes:
        segments: to sample.
        bridges: to sample between them.
        pieces: to decode.
        together: to denoise before all that; one at most.
    """

    segments: tuple[SegmentTask, ...]
    bridges: tuple[SegmentTask, ...]
    pieces: tuple[DecodeTask, ...]
    together: tuple[CoDenoising, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.together or self.segments or self.bridges or self.pieces)

    @property
    def digests(self) -> list[str]:
        """Of all that is made."""
        return [task.digest for task in (*self.together, *self.segments, *self.bridges, *self.pieces)]


def latents_file(task: SegmentTask | CoDenoising) -> str:
    """Where the latents of a segment are kept, of a bridge those of its zone, or the state of a whole chain."""
    kind = "state" if isinstance(task, CoDenoising) else task.kind
    return segment_file(task.index, task.digest, ".safetensors").replace("segment", kind)


def _left(tasks: Sequence[SegmentTask]) -> dict[int, int]:
    """By the index of a segment, and so of the bridge over its first keyframe, that of the segment before it."""
    return {after.index: before.index for before, after in pairwise(tasks)}


def sequence(tasks: Sequence[SegmentTask], bridges: Sequence[SegmentTask] = ()) -> list[tuple[str, int]]:
    """The latents of segments that follow each other: for each slot the file, and the slot in it."""
    places, begin, left = list[tuple[str, int]](), dict[int, int](), _left(tasks)
    for k, task in enumerate(tasks):
        begin[task.index] = max(0, len(places) - 1)
        places += [(latents_file(task), slot) for slot in range(1 if k else 0, task.slots)]
    for task in bridges:
        if task.bridge is not None:
            for slot in task.bridge.zone:
                places[begin[left[task.index]] + slot] = (latents_file(task), slot - task.bridge.zone[0])
    return places


def told_along(
    texts: Sequence[str], chain: Timeline, segments: Sequence[Segment], window: tuple[int, int]
) -> tuple[Told, ...]:
    """What the slots of a window are told, each of its own pair of keyframes; () where all are told the same.

    Args:
        texts: for each pair of the chain; () for all at once.
        segments: that follow each other, in whose slots the window begins and stops.
    """
    told, begin, (start, stop) = list[Told](), 0, window
    for segment in segments if texts else ():
        for span in segment.spans:
            # Slot 0 alone begins with a keyframe: every other one ends with it, and belongs to the pair before.
            first = begin + slot(span.first) + 1 if begin + span.first else 0
            low, high = max(first, start), min(begin + slot(span.last) + 1, stop)
            if low < high:
                text = texts[chain.keyframe_frames.index(span.start)]
                told.append(Told(text, low - start, high - start))
        begin += segment.slots - 1
    return joined(told)


def hashed_told(told: Sequence[Told]) -> Json:
    """What prompts along time add to the hash of what they decide: nothing where there are none."""
    return {"told": [[one.prompt, one.start, one.stop] for one in told]} if told else {}


def bridges(
    tasks: Sequence[SegmentTask],
    chain: Timeline,
    images: Mapping[int, NamedPicture],
    texts: Sequence[str],
    config: GenerationConfig,
    folder: WanFolder,
    where: Path,
    pairs: Sequence[str] = (),
    together: bool = False,
) -> tuple[list[SegmentTask], dict[int, str]]:
    """A task for each keyframe between two segments, and by the index of the second why there is none.

    A zone is half of a segment at most, so that no two bridges change one slot; each reads two segments alone.

    Args:
        images: keyframes, by the output frame that shows them.
        texts: prompt of every two neighbouring segments.
        where: latents are kept.
        pairs: as `told_along` takes them.
        together: they are denoised with the segments from the start: each changes all slots of both, or of as much
            about the keyframe as fits the model's limit.
    """
    made, lacking = list[SegmentTask](), dict[int, str]()
    sigma = 1.0 if together else config.bridge_sigma
    for (before, after), (left, right), text in zip(
        pairwise(tasks), pairwise(chain.segments), texts, strict=True
    ):
        join, total = before.slots - 1, before.slots + after.slots - 1
        zone = range(
            join + 1 - min(config.bridge_zone, join // 2),
            join + 1 + min(config.bridge_zone, (after.slots - 1) // 2),
        )
        # Sampled frame of the two -> keyframe.
        shown = {span.first: images[span.start] for span in left.spans}
        shown |= {STRIDE * join + span.first: images[span.start] for span in right.spans}
        shown[STRIDE * (total - 1)] = images[right.end]
        window, reach = (0, total), config.bridge_zone + config.bridge_context
        if together:
            limit = slots(folder.sampling.max_frames)
            reach = total if total <= limit else (limit - 1) // 2
        if folder.shows.frames == "any":
            window = (max(0, join - reach), min(total, join + reach + 1))
        free = tuple(range(*window) if together else zone)
        if folder.shows.frames != "any":
            # Of a keyframe that the model cannot be shown the slot is held.
            shown = {frame: shown[frame] for frame in (0, STRIDE * (total - 1))}
            free = tuple(slot for slot in free if slot != join)
        frames = STRIDE * (window[1] - 1 - window[0]) + 1
        if not free or frames > folder.sampling.max_frames:
            why = "its segments are too short" if not free else f"its window has {frames} frames"
            lacking[right.index] = f"no bridge over the keyframe at frame {right.start}: {why}"
            continue
        low, high = STRIDE * window[0], STRIDE * (window[1] - 1)
        middle = {frame - low: image for frame, image in shown.items() if low <= frame <= high}
        told = told_along(pairs, chain, (left, right), window)
        decides = {
            "bridge": BRIDGING,
            "segments": [before.digest, after.digest],
            "window": window,
            "zone": free,
            "sigma": sigma,
            "prompt": text,
            "keyframes": [[frame, image.sha256] for frame, image in middle.items()],
            "middle_strength": list(folder.held(config.middle_strength)),
            **hashed_told(told),
        }
        made.append(
            replace(
                after,
                sampled_frames=frames,
                first=before.first,
                middle=middle,
                prompt=text,
                original=digest(decides | {"segments": [before.original, after.original]}),
                digest=digest(decides),
                begun=None,
                told=told,
                bridge=Bridge(Slots(where, tuple(sequence([before, after]))), window, free, sigma),
            )
        )
    return made, lacking


def co_denoising(
    tasks: Sequence[SegmentTask], bridges: Sequence[SegmentTask], sigma: float, where: Path
) -> tuple[CoDenoising, list[SegmentTask]]:
    """Segments and the bridges between them as one state, denoised down to `sigma`, and segments that go on from it.

    Args:
        where: latents are kept.
    """
    begin, left, length = dict[int, int](), _left(tasks), 1
    for task in tasks:
        begin[task.index] = length - 1
        length += task.slots - 1
    windows, end = [], length
    for task in (*tasks, *bridges):
        start = begin[task.index]
        if task.bridge is not None:
            start = begin[left[task.index]] + task.bridge.window[0]
        # Every window has its own references, and its own anchor if it does not begin with the video.
        private, end = end, end + len(task.references) + (start > 0)
        stop = start + task.slots
        ramp = window_ramp(task.slots, start == 0, stop == length)
        if task.bridge is not None:
            held = [slot not in task.bridge.zone for slot in range(*task.bridge.window)]
            ramp[torch.tensor(held)] = 0
        places = (*range(private, end), *range(start + (start > 0), stop))
        windows.append((task, places, torch.cat([ramp.new_ones(len(task.references)), ramp])))
    total = torch.zeros(end, dtype=torch.float64)
    for _, places, weights in windows:
        total[list(places)] += weights
    state = CoDenoising(
        tuple(Window(task, at, tuple((weights / total[list(at)]).tolist())) for task, at, weights in windows),
        end,
        sigma,
        tasks[0].seed,
        digest(
            {
                "co_denoise": CO_DENOISING,
                "sigma": sigma,
                "segments": [task.digest for task in tasks],
                "bridges": [task.digest for task in bridges],
            }
        ),
    )
    begun = []
    for window in state.windows[: len(tasks)]:
        latents = Slots(where, tuple((latents_file(state), place) for place in window.places))
        name = digest({"co_denoise": state.digest, "segment": window.task.index})
        begun.append(replace(window.task, digest=name, original=name, begun=Begun(latents, sigma)))
    return state, begun


def taken(task: SegmentTask, seed: int, take: int) -> SegmentTask:
    """Another take of what is of take 0, in a run of `seed`."""
    kind = "segment" if task.bridge is None else "bridge"
    name = digest({"of": task.digest, "take": take}) if take else task.digest
    return replace(task, seed=take_seed(seed, kind, task.index, take), take=take, digest=name)


def first_takes(tasks: Sequence[SegmentTask]) -> list[SegmentTask]:
    """What is read where all of them are of take 0."""
    return [replace(task, digest=task.original) for task in tasks]


def decodings(
    tasks: Sequence[SegmentTask], bridges: Sequence[SegmentTask], folder: Path, once: bool
) -> tuple[DecodeTask, ...]:
    """For each segment what has to be decoded for its frames.

    Args:
        folder: where latents are kept.
        once: as a stretch of the whole sequence; else the segment by itself.
    """
    whole, end, made = sequence(tasks, bridges), 1, []
    for task in tasks:
        # Its keyframe is the last frame of the slot before, and the first of these frames.
        start, end = end, end + task.slots - 1
        places = tuple(whole[max(0, start - WARM_UP) : end] if once else sequence([task]))
        made.append(
            DecodeTask(
                index=task.index,
                digest=digest({"decoding": DECODING, "places": places}),
                latents=Slots(folder, places),
                frames=task.sampled_frames,
                size=task.size,
                latent_space=task.latent_space,
                take=task.take,
            )
        )
    return tuple(made)
