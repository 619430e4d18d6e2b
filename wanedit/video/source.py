"""The clip that is to be edited, from a video file or a folder of images.

Frame indices that a user gives are indices of this clip: 0 is the frame at `start`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
from jaxtyping import UInt8

from wanedit.errors import InputError, ResourceError
from wanedit.timeline import fit_length
from wanedit.video.arrays import AnyFrame, Frames, Rate
from wanedit.video.decode import DECODERS, VideoInfo, describe, frames_between, require_known, scanned, stack
from wanedit.video.encode import as_rate
from wanedit.video.fitting import FitRecord, fit
from wanedit.video.images import Size, list_images, load_image, load_images

FOLDER_FPS = 16  # of a folder of images whose rate is not given: the rate of the Wan models


@dataclass(frozen=True)
class SourceClip:
    """A stretch of a source, decoded.

    frames: uint8 (T, H, W, 3). fps: frames per second at which they are to be shown.
    start, total: the first frame's place in the source, and how many frames the source has.
    decoder: what read them; 'images' for a folder.
    fit: how every frame was brought to the size asked for; None where none was.
    notes: one line for each thing that the user should know, for the caller to show.
    """

    path: Path
    frames: Frames
    fps: Fraction
    start: int
    total: int
    decoder: str
    fit: FitRecord | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """A file or folder before its frames are read. `read` yields frames `start` to `stop - 1`."""

    total: int
    sides: Size
    fps: Fraction
    decoder: str
    read: Callable[[int, int], Iterator[AnyFrame]]
    notes: list[str] = field(default_factory=list)


def read_source(
    path: str | Path,
    *,
    decoder: str = "pyav",
    fps: Rate | None = None,
    start: int = 0,
    num_frames: int | None = None,
    size: Size | None = None,
    policy: str = "crop",
    salvage: bool = False,
) -> SourceClip:
    """Read a clip to edit from a video file or a folder of images.

    Args:
        path: any video, or a folder that holds nothing but images of one size (`folder.list_images`).
        decoder: `pyav` or `decord`, for a video; see `decode.DECODERS`.
        fps: the rate at which the frames are to be shown. For a video the default is its own rate. A folder
            has none and is taken at 16 unless told. No frame is ever dropped or made to meet a rate.
        start: the first frame to read. num_frames: how many; by default all to the end.
        size: (height, width) to bring every frame to, by `policy` as `images.fit` has it: 'crop' scales until
            the size is covered and keeps the middle. By default frames keep their size.
        salvage: take what can be decoded of a damaged video, and note how much that is. Only with `pyav`.

    Raises:
        InputError: no such source, or it is damaged, or holds no frames from `start` on, or fewer than
            `num_frames`; unknown decoder or one not installed; fps out of range; salvage of a folder.
        ResourceError: the frames would not fit into memory.
    """
    path = Path(path)
    require_known(decoder)
    rate = None if fps is None else as_rate(fps)
    source = _folder(path, rate, salvage) if path.is_dir() else _video(path, rate, decoder, salvage)
    if not 0 <= start < source.total:
        raise InputError(f"{path}: start is frame {start}, the source has frames 0 to {source.total - 1}")
    stop = source.total if num_frames is None else start + num_frames
    if not start < stop <= source.total:
        raise InputError(
            f"{path}: {num_frames} frames from frame {start} on were asked for; "
            f"the source has {source.total} frames, so expected 1 to {source.total - start}"
        )
    (height, width), count, free = size or source.sides, stop - start, psutil.virtual_memory().available
    if (needed := count * height * width * 3) > free:
        raise ResourceError(
            f"{path}: {count} frames of {width}x{height} take {needed / 2**30:.3g} GiB, "
            f"{free / 2**30:.3g} GiB of memory are free; read fewer (num_frames) or smaller ones (size)"
        )
    frames, records = source.read(start, stop), list[FitRecord]()
    if size is not None:
        frames = _fitted(frames, size, policy, records)
    clip = stack(frames, path, stop - start)
    if len(clip) < stop - start:
        source.notes.append(f"{stop - start} frames asked for, {len(clip)} salvaged")
    record = records[0] if records else None
    if record and record.warning:
        source.notes.append(record.warning)
    return SourceClip(
        path, clip, source.fps, start, source.total, source.decoder, record, tuple(source.notes)
    )


def hold_last(frames: Frames) -> UInt8[np.ndarray, "T h w 3"]:
    """Frames (t, h, w, 3) extended to T = `timeline.fit_length(t)`, a 4n+1, by holding the last one.

    `cut_back` is its inverse. The frames held share a latent slot with the last ones of the clip, so nothing
    that the user sees is moved in time. Raises InputError for no frames.
    """
    extra = fit_length(len(frames)) - len(frames)
    return np.concatenate([frames, frames[-1:].repeat(extra, 0)]) if extra else frames


def cut_back(frames: Frames, num_frames: int) -> UInt8[np.ndarray, "T h w 3"]:
    """The first `num_frames` of a clip that `hold_last` extended from that many.

    Raises:
        InputError: the clip has another length than `hold_last` gives.
    """
    if len(frames) != fit_length(num_frames):
        raise InputError(
            f"a clip of {len(frames)} frames is to be cut back to {num_frames}; expected {fit_length(num_frames)}"
        )
    return frames[:num_frames]


def _video(path: Path, fps: Fraction | None, decoder: str, salvage: bool) -> _Source:
    DECODERS[decoder]()  # one that is not installed says so before a long file is scanned
    index = scanned(path, salvage)
    info = describe(path, index)
    return _Source(
        total=info.frames,
        sides=(info.height, info.width),
        fps=fps or info.fps,
        decoder=decoder,
        read=lambda start, stop: frames_between(path, index, start, stop, decoder, salvage),
        notes=list(_notes(info, fps)),
    )


def _notes(info: VideoInfo, fps: Fraction | None) -> Iterator[str]:
    if not info.complete:
        declared = "nothing" if info.declared is None else f"{info.declared} frames"
        yield f"damaged: the header declares {declared}, {info.frames} whole frames found"
    if info.variable_rate:
        steps = np.diff(info.times)
        yield (
            f"variable frame rate: frames are {steps.min():.3g} to {steps.max():.3g} s apart; "
            f"they are taken one by one and shown evenly at {float(fps or info.fps):.6g} fps"
        )
    if fps and fps != info.fps:
        rates = f"{float(fps):.6g} fps as asked, the file says {float(info.fps):.6g}"
        yield f"shown at {rates}; no frame is dropped or made"


def _folder(path: Path, fps: Fraction | None, salvage: bool) -> _Source:
    if salvage:
        raise InputError(f"{path}: a folder of images cannot be salvaged; take the damaged images out")
    paths = list_images(path)
    first = load_image(paths[0]).pixels
    notes = [] if fps else [f"images have no frame rate: {FOLDER_FPS} fps taken"]
    return _Source(
        total=len(paths),
        sides=(first.shape[0], first.shape[1]),
        fps=fps or Fraction(FOLDER_FPS),
        decoder="images",
        read=lambda start, stop: _images(paths[start:stop], notes),
        notes=notes,
    )


def _images(paths: tuple[Path, ...], notes: list[str]) -> Iterator[AnyFrame]:
    """The pixels of each; what was normalised on the way is noted at the end, once for all images."""
    counts: Counter[str] = Counter()
    for image in load_images(paths):
        counts.update(image.notes)
        yield image.pixels
    notes.extend(f"{note} ({count} of {len(paths)} images)" for note, count in counts.items())


def _fitted(
    frames: Iterator[AnyFrame], size: Size, policy: str, records: list[FitRecord]
) -> Iterator[AnyFrame]:
    """Every frame at one size; the first one's record stands for all, which are of one size before too."""
    for frame in frames:
        pixels, record = fit(frame, size, policy)
        records[:] = records or [record]
        yield pixels
