"""Reading video files, exact by frame index. The packets decide how many frames there are."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from wanedit.errors import InputError
from wanedit.video.arrays import AnyFrame, Frame, Frames, require_same_size
from wanedit.video.libav import SALVAGE_HINT, PacketIndex, PyAVDecoder, first_picture, open_video, scan


@runtime_checkable
class Decoder(Protocol):
    """What a reading library must supply. It may assume that the file was scanned and found complete."""

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        """All frames in order of presentation, upright, uint8 RGB."""
        ...

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        """The frames with these ascending, distinct indices."""
        ...


def _decord() -> Decoder:
    from wanedit.video.decode_decord import DecordDecoder

    return DecordDecoder()


# A decoder is one more entry here, made on first use; its counts are checked against the same scan.
DECODERS: dict[str, Callable[[], Decoder]] = {"decord": _decord, "pyav": PyAVDecoder}


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    frames: whole frames found by packet scan; declared: what the header says (None if nothing).
    height, width: as shown, that is after `rotation` (degrees counter-clockwise).
    duration: seconds that `frames` last. times: seconds of each frame from the first one.
    """

    path: Path
    frames: int
    declared: int | None
    complete: bool
    fps: Fraction
    height: int
    width: int
    duration: float
    times: tuple[float, ...]
    variable_rate: bool
    codec: str
    pixel_format: str
    rotation: int
    metadata: dict[str, str]


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file without trusting its header.

    Raises:
        InputError: missing, not a video, or not one frame of it can be decoded.
    """
    path = Path(path)
    return describe(path, scan(path))


def describe(path: Path, index: PacketIndex) -> VideoInfo:
    """`probe` of a file that was scanned already."""

    with open_video(path) as container:
        picture = first_picture(container, path)
        stream = container.streams.video[0]
        codec, metadata = stream.codec_context.name, dict(container.metadata)
    steps = np.diff(index.pts)
    sideways = abs(picture.rotation) in (90, 270)
    sides = (picture.height, picture.width)
    return VideoInfo(
        path=path,
        frames=index.frames,
        declared=index.declared,
        complete=index.finished and index.declared in (None, index.frames),
        fps=index.fps,
        height=sides[sideways],
        width=sides[not sideways],
        duration=float(index.frames / index.fps),
        times=index.times,
        # Steps that differ by more than the rounding of the container's clock.
        variable_rate=bool(len(steps)) and int(steps.max() - steps.min()) > 1,
        codec=codec,
        pixel_format=picture.format.name,
        rotation=picture.rotation,
        metadata=metadata,
    )


def iter_frames(path: str | Path, decoder: str = "pyav", salvage: bool = False) -> Iterator[Frame]:
    """Yield every frame (H, W, 3) in order; never more than one is held.

    Raises:
        InputError: at once, if the header declares other than what the packets hold; at the frame, if the
            codec finds it damaged (FFV1 always does, H.264 has no checksum); at the end, if fewer decoded.
            With `salvage` whatever decodes is yielded instead.
    """
    path = Path(path)
    get_decoder(decoder)
    index = scanned(path, salvage)
    return frames_between(path, index, 0, index.frames, decoder, salvage)


def frames_between(
    path: Path, index: PacketIndex, start: int, stop: int, decoder: str, salvage: bool
) -> Iterator[Frame]:
    """Yield frames `start` to `stop - 1` of a file that was scanned already. Raises as `iter_frames`."""
    reader = get_decoder(decoder)
    if salvage:  # what is lost cannot be known beforehand: frames are counted as they come
        frames = islice(reader.frames(path, index, salvage), start, stop)
    elif (start, stop) == (0, index.frames):
        frames = reader.frames(path, index, salvage)
    else:
        frames = reader.select(path, index, range(start, stop), salvage)
    return _counted(frames, path, stop - start, salvage)


def read_frames(
    path: str | Path,
    indices: Sequence[int] | None = None,
    decoder: str = "pyav",
    salvage: bool = False,
) -> Frames:
    """Read frames (T, H, W, 3): all of them, or those at `indices`, in that order, repeats allowed.

    Raises:
        InputError: as `iter_frames`; or an index lies outside the clip; or nothing at all decodes.
    """
    path = Path(path)
    reader, index = get_decoder(decoder), scanned(path, salvage)
    if indices is None:
        return stack(frames_between(path, index, 0, index.frames, decoder, salvage), path, index.frames)
    if not len(indices):
        raise InputError(f"{path}: no frame indices were given")
    outside = [int(i) for i in indices if not 0 <= i < index.frames]
    if outside:
        raise InputError(f"{path}: frame {outside[0]} asked for, the clip has frames 0 to {index.frames - 1}")
    wanted = sorted({int(i) for i in indices})
    frames = _counted(reader.select(path, index, wanted, salvage), path, len(wanted), salvage=False)
    return stack(frames, path, len(wanted))[np.searchsorted(wanted, np.asarray(indices))]


def get_decoder(name: str) -> Decoder:
    """The decoder of that name. Raises InputError if there is none (listing them), or it is not installed."""
    require_known(name)
    return DECODERS[name]()


def require_known(name: str) -> None:
    """Raise InputError listing the decoders unless this is one of them, installed or not."""
    if name not in DECODERS:
        raise InputError(f"unknown decoder {name!r}, expected one of: {', '.join(sorted(DECODERS))}")


def scanned(path: Path, salvage: bool) -> PacketIndex:
    """The packets of a file. Raises InputError unless it is whole, or is to be salvaged."""
    index = scan(path)
    if not salvage:
        index.require_complete(path)
    return index


def _counted(frames: Iterator[AnyFrame], path: Path, expected: int, salvage: bool) -> Iterator[AnyFrame]:
    count = 0
    for frame in require_same_size(frames, str(path)):  # a stream may change its size on the way
        count += 1
        yield frame
    if count != expected and not salvage:
        raise InputError(f"{path}: {expected} frames expected, {count} decoded; {SALVAGE_HINT}")


def stack(frames: Iterator[Frame], path: Path, count: int) -> Frames:
    """About `count` frames as one array, filled as they come: a list besides it would double the memory."""
    first = next(frames, None)
    if first is None:
        raise InputError(f"{path}: not one frame can be decoded")
    clip, found = np.empty((count, *first.shape), np.uint8), 0
    for frame in chain([first], frames):
        if found == len(clip):
            clip = np.concatenate([clip, np.empty_like(clip)])
        clip[found] = frame
        found += 1
    return clip[:found]
