"""Which frames of a video become keyframes, their pixels, and where the film cuts from one scene to another.

A cut is told by two measures of every pair of neighbouring frames, on thumbnails:

- colour: half the L1 distance of their Lab histograms, 0 for the same colours, 1 for none in common;
- unexplained: the share of the picture that optical flow cannot carry from one frame to the next.

Fast motion keeps its colours and is mostly explained, or, if it is too fast for the flow, goes on for several frames.
A cut is a pair whose two measures together are large, and stand out from the pairs around by a ratio, and so does its
colour alone. A flash, after which the scene is as it was before, is no cut. Dissolves are not found.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32

from wanedit.errors import InputError
from wanedit.timeline import Seconds
from wanedit.video.arrays import AnyFrame, Frames
from wanedit.video.colour import rgb_to_lab
from wanedit.video.decode import frames_between, read_frames, scanned
from wanedit.video.images import list_images, load_images
from wanedit.video.motion import dis_flow, warp
from wanedit.video.source import open_source

MARGIN = 2  # frames beside a cut that are not taken: encoders and shutters blur them
SPACING = 4  # frames between keyframes at least, so that each has a latent slot of its own


@dataclass(frozen=True)
class Clip:
    """The stretch of a source to take keyframes from, before a frame is read.

    total: frames of the whole source. start, count: the stretch. size: (height, width). fps: of the source.
    notes: as those of `OpenedSource` before a frame is read. times: seconds at which each frame begins, from the first
    one, and at which the last one ends.
    """

    path: Path
    total: int
    start: int
    count: int
    size: tuple[int, int]
    fps: Fraction
    decoder: str
    notes: tuple[str, ...]
    times: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Keyframes:
    """Keyframes of a clip.

    indices: counted from the clip's start. frames: uint8 (K, H, W, 3). cuts: the first frame of each later scene,
    or None where nobody looked for cuts. notes: what was done to these frames to show them, beyond the clip's notes.
    """

    indices: tuple[int, ...]
    frames: Frames
    cuts: tuple[int, ...] | None
    notes: tuple[str, ...] = ()


def open_clip(
    path: Path,
    start: int = 0,
    num_frames: int | None = None,
    decoder: str = "pyav",
    fps: Seconds | str | None = None,
) -> Clip:
    """Look at a video file or a folder of images; count its frames, decode at most one.

    Raises:
        InputError: no such source, damaged, or it holds no such stretch.
    """
    source = open_source(path, decoder=decoder, fps=fps, start=start, num_frames=num_frames)
    count, height, width, _ = source.frames.shape
    return Clip(
        path,
        source.total,
        start,
        count,
        (height, width),
        source.fps,
        decoder,
        tuple(source.notes),
        tuple(source.times),
    )


def check_indices(indices: Sequence[int], clip: Clip) -> tuple[int, ...]:
    """Explicit indices of a clip, ascending.

    Raises:
        InputError: none, one twice, or one outside of the clip.
    """
    if not indices:
        raise InputError("indices are empty; expected frame numbers such as 0,20, or null to choose them")
    outside = [i for i in indices if not 0 <= i < clip.count]
    if outside:
        raise InputError(f"indices: frame {outside[0]} asked for, the clip has frames 0 to {clip.count - 1}")
    twice = [i for i in indices if list(indices).count(i) > 1]
    if twice:
        raise InputError(f"indices: frame {twice[0]} stands twice; expected each once")
    return tuple(sorted(indices))


def scene_cuts(clip: Clip) -> list[int]:
    """The first frame of each later scene of a clip; reads all of its frames, and keeps thumbnails only."""
    if clip.path.is_dir():
        paths = list_images(clip.path)[clip.start : clip.start + clip.count]
        return find_cuts(image.pixels for image in load_images(paths))
    index = scanned(clip.path, False)
    return find_cuts(
        frames_between(clip.path, index, clip.start, clip.start + clip.count, clip.decoder, False)
    )


def choose_indices(
    count: int, fps: Fraction | float, target_fps: float, max_frames: int, cuts: Sequence[int] = ()
) -> tuple[int, ...]:
    """Frames to restyle: the first, then `target_fps` of them a second, in every scene at least one.

    Where that would be more than `max_frames`, each scene gets its share, evenly spread, the longest scenes first
    where there are too many of them. No frame within two of a cut is taken as far as a scene has others, and no
    two frames are nearer than four, which would share a latent slot of the model.

    Args:
        count: frames of the clip. cuts: the first frame of each later scene.
    """
    bounds = [0, *cuts, count]
    scenes = []  # first and last frame of each that may be taken
    for start, stop in pairwise(bounds):
        margin = min(MARGIN, (stop - start - 1) // 2)
        scenes.append((start + (margin if start else 0), stop - 1 - (margin if stop < count else 0)))
    step = max(float(fps) / target_fps, SPACING)
    wanted = [int((high - low) / step + 1e-6) + 1 for low, high in scenes]
    shares = _share_out(wanted, [high - low + 1 for low, high in scenes], max_frames)
    chosen: list[int] = []
    for number, ((low, high), want, share) in enumerate(zip(scenes, wanted, shares, strict=True)):
        for frame in _places(low, high, step, share, want, first=number == 0):
            if not chosen or frame - chosen[-1] >= SPACING:
                chosen.append(frame)
    return tuple(chosen)


def _share_out(wanted: list[int], lengths: list[int], limit: int) -> list[int]:
    """How many keyframes each scene gets: one each, the first scene before all; then where they are the sparsest."""
    shares = [0] * len(wanted)
    order = sorted(range(1, len(wanted)), key=lambda i: (-lengths[i], i))
    for i in [0, *order][:limit]:
        shares[i] = 1
    for _ in range(limit - sum(shares)):
        open_scenes = [i for i in range(len(wanted)) if 0 < shares[i] < wanted[i]]
        if not open_scenes:
            break
        shares[max(open_scenes, key=lambda i: (lengths[i] / shares[i], -i))] += 1
    return shares


def _places(low: int, high: int, step: float, share: int, want: int, first: bool) -> list[int]:
    if share == 0:
        return []
    if share == 1:
        return [low if first else (low + high) // 2]
    if share == want:
        return [low + round(i * step) for i in range(share)]
    return [round(place) for place in np.linspace(low, high, share)]


def read_keyframes(clip: Clip, indices: Sequence[int], cuts: Sequence[int] | None = None) -> Keyframes:
    """Read the frames with these ascending indices, each by seeking to it.

    Raises:
        InputError: a frame cannot be decoded; images of unequal size.
    """
    places, notes = [clip.start + i for i in indices], list[str]()
    if clip.path.is_dir():
        paths = list_images(clip.path)
        images = list(load_images([paths[i] for i in places]))
        frames = np.stack([image.pixels for image in images])
        counts = Counter(note for image in images for note in image.notes)
        notes = [f"{note} ({count} of {len(images)} keyframes)" for note, count in counts.items()]
    else:
        frames = read_frames(clip.path, places, clip.decoder, notes=notes)
    new = tuple(note for note in notes if note not in clip.notes)
    return Keyframes(tuple(indices), frames, None if cuts is None else tuple(cuts), new)


LONG_SIDE = 96
BINS = ((0, 100, 12), (-60, 60, 10), (-60, 60, 10))
DIFFERENT = 12.0  # Lab units from which a pixel counts as unexplained
SCORE = 0.3  # of a cut: the geometric mean of both measures
RATIO = 2.2  # of a cut to the median of the pairs around it
AROUND = 4  # pairs on either side
FLASH = 2  # frames that a flash may last
ALIKE = 0.5  # of the cut's score: below it the frames around a flash show one scene


@dataclass(frozen=True, eq=False)
class Thumb:
    """A frame, small: its pixels, their Lab values and the histogram of these."""

    pixels: AnyFrame
    lab: Float32[np.ndarray, "h w 3"]
    histogram: Float32[np.ndarray, "n"]


def thumb_of(frame: AnyFrame) -> Thumb:
    """The thumbnail of a frame, its longer side 96 pixels at most."""
    scale = min(1.0, LONG_SIDE / max(frame.shape[:2]))
    size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
    pixels = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    lab = rgb_to_lab(pixels)
    places = [
        np.clip((lab[..., c] - low) * (bins / (high - low)), 0, bins - 1).astype(np.int64)
        for c, (low, high, bins) in enumerate(BINS)
    ]
    index = (places[0] * BINS[1][2] + places[1]) * BINS[2][2] + places[2]
    counts = np.bincount(index.ravel(), minlength=BINS[0][2] * BINS[1][2] * BINS[2][2])
    cube = counts.reshape([bins for _, _, bins in BINS]).astype(np.float32) / index.size
    for axis in range(3):  # neighbouring bins hold neighbouring colours
        ahead, behind = np.roll(cube, 1, axis), np.roll(cube, -1, axis)
        cube = (ahead + 2 * cube + behind) / 4
    return Thumb(pixels, lab, cube.ravel().astype(np.float32))


def differ(before: Thumb, after: Thumb) -> tuple[float, float]:
    """How much two frames differ as a cut does, the geometric mean of both measures of the module; and in colour alone.

    Each 0 to 1.
    """
    colour = 0.5 * float(np.abs(before.histogram - after.histogram).sum())
    moved = warp(after.lab, dis_flow(before.pixels, after.pixels))
    unexplained = float((np.linalg.norm(moved - before.lab, axis=-1) > DIFFERENT).mean())
    return math.sqrt(colour * unexplained), colour


def find_cuts(frames: Iterable[AnyFrame]) -> list[int]:
    """The first frame of each scene after the first, ascending; of the frames a few thumbnails are held."""
    held: deque[Thumb] = deque(maxlen=FLASH + 2)
    pairs: list[tuple[float, float]] = []
    # (pair before a flash, pair after it) -> how much the frames around it differ; pair i lies before frame i + 1.
    across: dict[tuple[int, int], float] = {}
    for t, frame in enumerate(frames):
        held.append(thumb_of(frame))
        if t:
            pairs.append(differ(held[-2], held[-1]))
        for start in range(max(0, t - 1 - FLASH), t - 1):
            if min(pairs[start][0], pairs[-1][0]) >= SCORE:
                across[start, t - 1], _ = differ(held[start - t - 1], held[-1])
    scores, colours = np.array(pairs).reshape(-1, 2).T
    kept: list[int] = []
    for cut in np.flatnonzero(scores >= SCORE).tolist():
        if not (_stands_out(scores, cut) and _stands_out(colours, cut)):
            continue
        before = kept[-1] if kept else -1
        if across.get((before, cut), math.inf) < ALIKE * min(scores[before], scores[cut]):
            kept.pop()
        else:
            kept.append(cut)
    return [pair + 1 for pair in kept]


def _stands_out(values: np.ndarray, i: int) -> bool:
    around = np.concatenate([values[max(0, i - AROUND) : i], values[i + 1 : i + 1 + AROUND]])
    return not len(around) or bool(values[i] >= RATIO * np.median(around))
