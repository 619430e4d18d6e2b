"""Which frames of a video become keyframes, and their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from wanedit.errors import InputError
from wanedit.stylists.scene_cuts import find_cuts
from wanedit.video.arrays import Frames
from wanedit.video.decode import describe, frames_between, read_frames, require_known, scanned
from wanedit.video.folder import list_images, load_images
from wanedit.video.images import load_image
from wanedit.video.source import FOLDER_FPS

MARGIN = 2  # frames beside a cut that are not taken: encoders and shutters blur them
SPACING = 4  # frames between keyframes at least, so that each has a latent slot of its own


@dataclass(frozen=True)
class Clip:
    """The stretch of a source to take keyframes from, before a frame is read.

    total: frames of the whole source. start, count: the stretch. size: (height, width). fps: of the source.
    """

    path: Path
    total: int
    start: int
    count: int
    size: tuple[int, int]
    fps: Fraction
    decoder: str


@dataclass(frozen=True, eq=False)
class Keyframes:
    """Keyframes of a clip.

    indices: counted from the clip's start. frames: uint8 (K, H, W, 3). cuts: the first frame of each later scene,
    or None where nobody looked for cuts.
    """

    indices: tuple[int, ...]
    frames: Frames
    cuts: tuple[int, ...] | None


def open_clip(
    path: Path, start: int = 0, num_frames: int | None = None, decoder: str = "pyav", fps: float | None = None
) -> Clip:
    """Look at a video file or a folder of images; count its frames, decode at most one.

    Raises:
        InputError: no such source, damaged, or it holds no such stretch.
    """
    require_known(decoder)
    if path.is_dir():
        images = list_images(path)
        height, width = load_image(images[0]).pixels.shape[:2]
        total, rate = len(images), Fraction(fps or FOLDER_FPS).limit_denominator(1000)
    else:
        info = describe(path, scanned(path, False))
        total, height, width = info.frames, info.height, info.width
        rate = info.fps if fps is None else Fraction(fps).limit_denominator(1000)
    if not 0 <= start < total:
        raise InputError(f"{path}: start is frame {start}, the source has frames 0 to {total - 1}")
    count = total - start if num_frames is None else num_frames
    if not 1 <= count <= total - start:
        raise InputError(
            f"{path}: {count} frames from frame {start} on were asked for; expected 1 to {total - start}"
        )
    return Clip(path, total, start, count, (height, width), rate, decoder)


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
    scenes = [_usable(a, b, a == 0, b == count) for a, b in pairwise(bounds)]
    step = max(float(fps) / target_fps, SPACING)
    wanted = [int((high - low) / step + 1e-6) + 1 for low, high in scenes]
    shares = _share_out(wanted, [high - low + 1 for low, high in scenes], max_frames)
    chosen: list[int] = []
    for number, ((low, high), want, share) in enumerate(zip(scenes, wanted, shares, strict=True)):
        for frame in _places(low, high, step, share, want, first=number == 0):
            if not chosen or frame - chosen[-1] >= SPACING:
                chosen.append(frame)
    return tuple(chosen)


def _usable(start: int, stop: int, is_first: bool, is_last: bool) -> tuple[int, int]:
    """First and last frame of a scene that may be taken."""
    margin = min(MARGIN, (stop - start - 1) // 2)
    return start + (0 if is_first else margin), stop - 1 - (0 if is_last else margin)


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
    places = [clip.start + i for i in indices]
    if clip.path.is_dir():
        paths = list_images(clip.path)
        frames = np.stack([image.pixels for image in load_images([paths[i] for i in places])])
    else:
        frames = read_frames(clip.path, places, clip.decoder)
    return Keyframes(tuple(indices), frames, None if cuts is None else tuple(cuts))
