"""Reading video files, exact by frame index. The packets decide how many frames there are."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float

from wanedit.errors import InputError
from wanedit.files import read_each, reading
from wanedit.progress import counted
from wanedit.video.arrays import AnyFrame, Frame, Frames, FrameSequence, require_same_size
from wanedit.video.formats import own_names
from wanedit.video.images import is_animation, load_animation
from wanedit.video.libav import (
    SALVAGE_HINT,
    PacketIndex,
    PyAVDecoder,
    decoded_pictures,
    display_of,
    first_picture,
    kept_rate,
    open_video,
    scan,
    video_stream,
)
from wanedit.video.light import UNSPECIFIED

_WHOLE = "a whole video"


@runtime_checkable
class Decoder(Protocol):
    """What a reading library must supply. It may assume that the file was scanned and found complete.

    notes: what was done to the pictures read so far, for the user.
    """

    notes: tuple[str, ...]

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        """All frames in order of presentation, upright, uint8 RGB."""
        ...

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        """The frames with these ascending, distinct indices."""
        ...


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    frames: whole frames found by packet scan; declared: what the header says (None if nothing).
    fps: frames a second; where they are not evenly spaced, on average.
    height, width: as shown, that is of square pixels and after `rotation` (degrees counter-clockwise).
    codec: FFmpeg's name; "animation" of what Pillow reads.
    duration: seconds that `frames` last. times: seconds of each frame from the first one.
    notes: what is done to the first picture to show it, one line each.
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
    notes: tuple[str, ...] = ()


def probe(path: str | Path) -> VideoInfo:
    """Describe a video file without trusting its header.

    Raises:
        InputError: missing, not a video, or not one frame of it can be decoded.
    """
    path = Path(path)
    return describe(path, index_of(path))


def describe(path: Path, index: PacketIndex) -> VideoInfo:
    """`probe` of a file that was scanned already."""
    if is_animation(path):
        first, _ = next(load_animation(path))
        (height, width), codec, pixel_format, rotation = first.pixels.shape[:2], "animation", first.mode, 0
        metadata, notes = dict[str, str](), first.notes
    else:
        with reading(path, _WHOLE, computes=True), open_video(path) as container:
            picture = first_picture(container, path)
            stream, display = video_stream(container), display_of(container, path)
            codec, metadata = stream.codec_context.name, own_names(dict(container.metadata))
            (height, width), rotation = display.sides(picture), picture.rotation
            pixel_format = picture.format.name
            for whole in display.deinterlaced([picture]):
                display(whole)
            notes = display.notes
    return VideoInfo(
        path=path,
        frames=index.frames,
        declared=index.declared,
        complete=index.finished and index.declared in (None, index.frames),
        fps=index.fps,
        height=height,
        width=width,
        duration=float(index.frames / index.fps),
        times=index.times,
        variable_rate=index.variable_rate,
        codec=codec,
        pixel_format=pixel_format,
        rotation=rotation,
        metadata=metadata,
        notes=notes,
    )


def iter_frames(path: str | Path, decoder: str = "pyav", salvage: bool = False) -> Iterator[Frame]:
    """Yield every frame (H, W, 3) in order; never more than one is held.

    Raises:
        InputError: at once, if the header declares other than what the packets hold; at the frame, if the
            codec finds it damaged (FFV1 always does, H.264 has no checksum); at the end, if fewer decoded.
            With `salvage` whatever decodes is yielded instead.
    """
    path = Path(path)
    _reader(path, decoder)
    index = scanned(path, salvage)
    return frames_between(path, index, 0, index.frames, decoder, salvage)


def frames_between(
    path: Path,
    index: PacketIndex,
    start: int,
    stop: int,
    decoder: str,
    salvage: bool,
    notes: list[str] | None = None,
) -> Iterator[Frame]:
    """Yield frames `start` to `stop - 1` of a file that was scanned already. Raises as `iter_frames`.

    Args:
        notes: gets what was done to the pictures, when the last one was taken.
    """
    reader = _reader(path, decoder)
    if salvage:  # what is lost cannot be known beforehand: frames are counted as they come
        frames = islice(reader.frames(path, index, salvage), start, stop)
    elif (start, stop) == (0, index.frames):
        frames = reader.frames(path, index, salvage)
    else:
        frames = reader.select(path, index, range(start, stop), salvage)
    yield from _counted(frames, path, stop - start, salvage)
    if notes is not None:
        notes.extend(note for note in reader.notes if note not in notes)


def open_frames(path: str | Path, decoder: str = "pyav") -> FrameSequence:
    """The frames of a file, not read yet. Raises InputError at once as `iter_frames`, and where they are read."""
    path = Path(path)
    index = scanned(path, salvage=False)
    info = describe(path, index)
    return FrameSequence(
        (index.frames, info.height, info.width, 3),
        lambda start, stop: frames_between(path, index, start, stop, decoder, salvage=False),
    )


def read_frames(
    path: str | Path,
    indices: Sequence[int] | None = None,
    decoder: str = "pyav",
    salvage: bool = False,
    notes: list[str] | None = None,
) -> Frames:
    """Read frames (T, H, W, 3): all of them, or those at `indices`, in that order, repeats allowed.

    Args:
        notes: gets what was done to the pictures.

    Raises:
        InputError: as `iter_frames`; or an index lies outside the clip; or nothing at all decodes.
    """
    path = Path(path)
    reader, index = _reader(path, decoder), scanned(path, salvage)
    if indices is None:
        every = frames_between(path, index, 0, index.frames, decoder, salvage, notes)
        return stack(every, path, index.frames)
    if not len(indices):
        raise InputError(f"{path}: no frame indices were given")
    outside = [int(i) for i in indices if not 0 <= i < index.frames]
    if outside:
        raise InputError(f"{path}: frame {outside[0]} asked for, the clip has frames 0 to {index.frames - 1}")
    wanted = sorted({int(i) for i in indices})
    frames = _counted(reader.select(path, index, wanted, salvage), path, len(wanted), salvage=False)
    clip = stack(frames, path, len(wanted))
    if notes is not None:
        notes.extend(note for note in reader.notes if note not in notes)
    return clip[np.searchsorted(wanted, np.asarray(indices))]


def get_decoder(name: str) -> Decoder:
    """The decoder of that name. Raises InputError if there is none (listing them), or it is not installed."""
    require_known(name)
    return DECODERS[name]()


def require_known(name: str) -> None:
    """Raise InputError listing the decoders unless this is one of them, installed or not."""
    if name not in DECODERS:
        raise InputError(f"unknown decoder {name!r}, expected one of: {', '.join(sorted(DECODERS))}")


def _reader(path: Path, decoder: str) -> Decoder:
    """What reads a file: the decoder of that name, and of an animation that FFmpeg does not know, Pillow."""
    return AnimationDecoder() if is_animation(path) else get_decoder(decoder)


def index_of(path: Path) -> PacketIndex:
    """The frames of a file, whole or not. Raises InputError as `libav.open_video`."""
    if not is_animation(path):
        return scan(path)
    # A frame of no time, as some programs write it, is shown for a tenth of a second by browsers.
    shown = [duration or 100 for _, duration in load_animation(path)]
    *starts, end = accumulate(shown, initial=0)
    clock = Fraction(1, 1000)
    return PacketIndex(
        pts=tuple(starts),
        end=end,
        keys=tuple(range(len(shown))),
        time_base=clock,
        fps=kept_rate(starts, end, clock, None),
        seekable=True,
        declared=len(shown),
        finished=True,
    )


class AnimationDecoder:
    """Animations that FFmpeg does not decode, or not wholly, through Pillow. Implements `Decoder`."""

    def __init__(self) -> None:
        self.notes: tuple[str, ...] = ()

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        return self.select(path, index, range(index.frames), salvage)

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        chosen = set(wanted)
        for number, (image, _) in enumerate(islice(load_animation(path), wanted[-1] + 1)):
            if number in chosen:
                self.notes = tuple(dict.fromkeys([*self.notes, *image.notes]))
                yield image.pixels


def scanned(path: Path, salvage: bool) -> PacketIndex:
    """The packets of a file. Raises InputError unless it is whole, or is to be salvaged."""
    index = index_of(path)
    if not salvage:
        index.require_complete(path)
    return index


def _counted(frames: Iterator[AnyFrame], path: Path, expected: int, salvage: bool) -> Iterator[AnyFrame]:
    count = 0
    # A stream may change its size on the way.
    for frame in require_same_size(read_each(frames, path, _WHOLE), str(path)):
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
    for frame in counted(chain([first], frames), f"reading {path.name}", "frames", count):
        if found == len(clip):
            clip = np.concatenate([clip, np.empty_like(clip)])
        clip[found] = frame
        found += 1
    return clip[:found]


INSTALL = "pip install 'wanedit[decord]'"

_CONTAINERS = {"mov": "mp4 or mov", "matroska": "Matroska or WebM", "avi": "AVI"}  # by FFmpeg's first name
_HD = 720
_RAISED = (RuntimeError, AssertionError)
_ANY_REPEAT = 1e-9  # share of frames that may stand in for others; decord counts them only if it is above 0


@dataclass(frozen=True)
class _Stream:
    """What PyAV found in a file that it decoded to the end."""

    container: str
    height: int
    width: int
    is_untagged_hd: bool


class DecordDecoder:
    """decord as a `Decoder`, for those who compare with pipelines that read through it; does not salvage.

    decord 0.6.0 is exact where it reads a whole file from its first frame on. What it gets wrong it does not tell: it
    shows a damaged frame as if nothing were or another in its place, begins an MPEG transport stream at the second
    keyframe, miscounts from a keyframe that pictures shown before it refer to, and returns four channels of nonsense
    where a video is to be turned by 90 degrees; and it is reported never to come back from opening some damaged
    files. So it is handed a file only after all of it was decoded through PyAV, without the conversion to RGB that
    costs the most.

    Colours come from decord's own, faster conversion, on average 1 to 1.5 levels darker than PyAV's.

    Raises:
        InputError: decord is not installed or does not load; here, and nowhere later.
    """

    def __init__(self) -> None:
        try:
            import decord
        except (ImportError, OSError, RuntimeError) as error:  # the last two where its library does not load
            raise InputError(f"decoder 'decord' is not installed ({_reason(error)}): {INSTALL}") from error
        self.decord = decord
        self.notes: tuple[str, ...] = ()

    def frames(self, path: Path, index: PacketIndex, salvage: bool) -> Iterator[Frame]:
        stream = _checked(path, index, salvage)
        return self._in_order(self._open(path, index), path, stream, range(index.frames))

    def select(self, path: Path, index: PacketIndex, wanted: Sequence[int], salvage: bool) -> Iterator[Frame]:
        stream = _checked(path, index, salvage)
        reader = self._open(path, index)
        # decord numbers keyframes by packet: that is their place on the screen where no picture refers across them
        exact = index.seekable and stream.container != "avi" and reader.get_key_indices() == list(index.keys)
        if not exact:
            return self._in_order(reader, path, stream, wanted)
        return (_rgb(self._call(path, partial(reader.__getitem__, i)), path, stream) for i in wanted)

    def _open(self, path: Path, index: PacketIndex) -> Any:
        # with an absolute path, since 'a:b.mp4' would be read as protocol 'a'
        name, decord = os.path.abspath(path), self.decord
        reader = self._call(
            path, lambda: decord.VideoReader(name, decord.cpu(0), num_threads=1, fault_tol=_ANY_REPEAT)
        )
        if len(reader) != index.frames:
            raise InputError(
                f"{path}: decord counts {len(reader)} frames, the packets hold {index.frames}; "
                "decoder: pyav goes by the packets"
            )
        return reader

    def _in_order(self, reader: Any, path: Path, stream: _Stream, wanted: Sequence[int]) -> Iterator[Frame]:
        chosen = set(wanted)
        for number in range(wanted[-1] + 1):
            frame = self._call(path, reader.next)
            if number in chosen:
                yield _rgb(frame, path, stream)

    def _call(self, path: Path, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except StopIteration as error:
            raise InputError(f"{path}: decord ends before the last frame; decoder: pyav reads it") from error
        # its library has two errors of its own, its Python code raises the others
        except (self.decord.DECORDError, self.decord.DECORDLimitReachedError, *_RAISED) as error:
            raise InputError(
                f"{path}: decord cannot read it ({_reason(error)}); decoder: pyav may"
            ) from error


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _checked(path: Path, index: PacketIndex, salvage: bool) -> _Stream:
    """Decode all of a file through PyAV. Raises InputError for damage and for what decord reads wrongly."""
    if salvage:
        raise InputError(f"{path}: decord cannot salvage, it hides what is damaged; decoder: pyav can")
    with open_video(path) as container:
        kind = container.format.name.split(",")[0]
        if kind not in _CONTAINERS:
            expected = ", ".join(_CONTAINERS.values())
            raise InputError(f"{path}: decord is exact with {expected}, got {kind}; decoder: pyav reads it")
        if video_stream(container).codec.canonical_name == "av1":
            raise InputError(f"{path}: decord has no decoder for AV1; decoder: pyav reads it")
        display, count, first = display_of(container, path), 0, None
        for picture in decoded_pictures(container, path, salvage=False):
            first, count = first or picture, count + 1
            if wrong := display.alters(picture):
                raise InputError(f"{path}: {wrong}, which decord gets wrong; decoder: pyav reads it")
    if first is None or count != index.frames:
        raise InputError(
            f"{path}: {index.frames} frames expected, {count} decoded; decoder: pyav can salvage"
        )
    untagged = first.colorspace == UNSPECIFIED and not first.format.is_rgb
    return _Stream(kind, first.height, first.width, untagged and first.height >= _HD)


def _rgb(frame: Any, path: Path, stream: _Stream) -> Frame:
    """The frame as an array of its own, whatever framework decord's bridge is set to."""
    rgb = frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame).copy()
    if rgb.shape != (stream.height, stream.width, 3):
        raise InputError(
            f"{path}: decord returns frames of shape {rgb.shape}, expected {(stream.height, stream.width, 3)}; "
            "decoder: pyav reads it"
        )
    return cv2.transform(rgb, _FROM_601_TO_709) if stream.is_untagged_hd else rgb


def _from_ycbcr(kr: float, kb: float) -> Float[np.ndarray, "3 3"]:
    """Y'CbCr to R'G'B' for the luma weights of red and blue (ITU-R BT.601 and BT.709, item 3)."""
    cr, cb = 2 * (1 - kr), 2 * (1 - kb)
    kg = 1 - kr - kb
    return np.array([[1, 0, cr], [1, -kb * cb / kg, -kr * cr / kg], [1, cb, 0]])


# decord takes untagged video of any size as BT.601, players (and PyAV's `to_rgb`) from 720 lines up as BT.709
_FROM_601_TO_709 = _from_ycbcr(0.2126, 0.0722) @ np.linalg.inv(_from_ycbcr(0.299, 0.114))


# A decoder is one more entry here, made on first use; its counts are checked against the same scan.
DECODERS: dict[str, Callable[[], Decoder]] = {"decord": DecordDecoder, "pyav": PyAVDecoder}
