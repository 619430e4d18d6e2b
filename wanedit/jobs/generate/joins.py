"""How segments become one sequence of latents, which stretches of it are decoded, and what of all that is missing.

Sampled time is the segments' sampled frames one after the other, each keyframe that two of them share counted once. A
segment has 4n+1 frames, so every join lies at the end of a latent slot: the sequence is segment 0 whole, then the slots
1 … of every later one. Slot 0 of those is a latent of one frame, where the video has one of four: it is private, an
anchor that its segment is denoised with and that is thrown away. A segment's frames are the last 4n+1 of what its own
slots decode to behind `WARM_UP` slots that go before. So every piece runs from keyframe to keyframe, whatever way it
was decoded, and retiming a surplus away within it moves no join: frame counts are exact for all kinds of joins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.files import digest
from wanedit.lit.tasks import DecodeTask, SegmentTask
from wanedit.runtime.directory import segment_file
from wanedit.runtime.predict import load_latents
from wanedit.wan.vae import WARM_UP

# Raised when a change to the code changes the frames that the same latents are decoded to.
DECODING = 1


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
        pieces: to decode.
    """

    segments: tuple[SegmentTask, ...]
    pieces: tuple[DecodeTask, ...]

    def __bool__(self) -> bool:
        return bool(self.segments or self.pieces)

    @property
    def digests(self) -> list[str]:
        """Of all that is made."""
        return [task.digest for task in (*self.segments, *self.pieces)]


def latents_file(task: SegmentTask) -> str:
    """Where the latents of a segment are kept."""
    return segment_file(task.index, task.digest, ".safetensors")


def sequence(tasks: Sequence[SegmentTask]) -> list[tuple[str, int]]:
    """The latents of segments that follow each other: for each slot the file, and the slot in it."""
    return [
        (latents_file(task), slot)
        for k, task in enumerate(tasks)
        for slot in range(1 if k else 0, task.slots)
    ]


def decodings(tasks: Sequence[SegmentTask], folder: Path, once: bool) -> tuple[DecodeTask, ...]:
    """For each segment what has to be decoded for its frames.

    Args:
        folder: where latents are kept.
        once: as a stretch of the whole sequence; else the segment by itself.
    """
    whole, end, made = sequence(tasks), 1, []
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
            )
        )
    return tuple(made)
