"""The clip that is to be edited, from a video file or a folder of images; and edited keyframes laid on its frames.

Frame indices that a user gives are indices of this clip: 0 is the frame at `start`.

Image editors return shapes of their own: some stretch the frame, some draw more of it, some cut it, and the file does
not say which. Laid wrongly, every edge of the edit stands beside that of the source.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import psutil
from jaxtyping import Bool, Float32, UInt8

from wanedit.errors import InputError, ResourceError
from wanedit.timeline import fit_length, rate_of
from wanedit.video.arrays import AnyFrame, Clock, Frames, FrameSequence, Rate
from wanedit.video.decode import DECODERS, describe, frames_between, require_known, scanned, stack
from wanedit.video.images import FitRecord, Size, fit, list_images, load_image, load_images, numbering_gaps
from wanedit.video.sound import SoundOf, silent, sound_of

FOLDER_FPS = 16  # of a folder of images whose rate is not given: the rate of the Wan models


@dataclass(frozen=True)
class SourceClip:
    """A stretch of a source, decoded.

    frames: uint8 (T, H, W, 3). fps: frames per second at which they are to be shown.
    start, total: the first frame's place in the source, and how many frames the source has.
    decoder: what read them; 'images' for a folder.
    fit: how every frame was brought to the size asked for; None where none was.
    notes: one line for each thing that the user should know, for the caller to show.
    clock: when the file shows these frames; None where it does not say (images, frames without times, salvage).
    """

    path: Path
    frames: Frames
    fps: Fraction
    start: int
    total: int
    decoder: str
    fit: FitRecord | None
    notes: tuple[str, ...]
    clock: Clock | None = None

    @property
    def sound_of(self) -> SoundOf:
        """The sound beside these frames, see `sound.sound_of`."""
        if self.path.is_dir():
            return silent
        last = self.start + len(self.frames) == self.total
        return partial(sound_of, self.path, self.clock, last=last)


@dataclass(frozen=True)
class OpenedSource:
    """A stretch of a source, of which no frame is read yet: fields as of `SourceClip`.

    `notes` grows while frames are read, by what of them had to be changed. `retimed`: they are shown at a rate that was
    asked for, not by the file's clock.
    """

    path: Path
    frames: FrameSequence
    fps: Fraction
    start: int
    total: int
    decoder: str
    notes: list[str]
    records: list[FitRecord]
    clock: Clock | None = None
    retimed: bool = False

    @property
    def times(self) -> list[float]:
        """Seconds at which each frame begins, from the first one, and at which the last one ends."""
        # By the file's own clock, where that is more than the rate, rounded, and no rate was asked for.
        if self.clock is not None and not self.clock.even and not self.retimed:
            ticks = (*self.clock.pts, self.clock.end)
            return [float((tick - ticks[0]) * self.clock.time_base) for tick in ticks]
        return [float(i / self.fps) for i in range(len(self.frames) + 1)]

    @property
    def fit(self) -> FitRecord | None:
        """How the frames read so far were brought to their size; the first one stands for all."""
        return self.records[0] if self.records else None


@dataclass(frozen=True)
class _Source:
    """A file or folder before its frames are read. `read` yields frames `start` to `stop - 1`."""

    total: int
    sides: Size
    fps: Fraction
    decoder: str
    read: Callable[[int, int], Iterator[AnyFrame]]
    notes: list[str] = field(default_factory=list)
    clock: Clock | None = None


def read_source(
    path: str | Path,
    *,
    decoder: str = "pyav",
    fps: Rate | str | None = None,
    start: int = 0,
    num_frames: int | None = None,
    size: Size | None = None,
    policy: str = "crop",
    salvage: bool = False,
) -> SourceClip:
    """Read a clip to edit from a video file or a folder of images.

    Args:
        path: any video, or a folder that holds nothing but images of one size (`images.list_images`).
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
    source = open_source(
        path,
        decoder=decoder,
        fps=fps,
        start=start,
        num_frames=num_frames,
        size=size,
        policy=policy,
        salvage=salvage,
    )
    (count, height, width, _), free = source.frames.shape, psutil.virtual_memory().available
    if (needed := count * height * width * 3) > free:
        raise ResourceError(
            f"{path}: {count} frames of {width}x{height} take {needed / 2**30:.3g} GiB, "
            f"{free / 2**30:.3g} GiB of memory are free; read fewer (num_frames) or smaller ones (size)"
        )
    clip, notes = stack(iter(source.frames), source.path, count), source.notes
    if len(clip) < count:
        notes.append(f"{count} frames asked for, {len(clip)} salvaged")
    if source.fit and source.fit.warning:
        notes.append(source.fit.warning)
    return SourceClip(
        source.path,
        clip,
        source.fps,
        start,
        source.total,
        source.decoder,
        source.fit,
        tuple(notes),
        source.clock,
    )


def open_source(
    path: str | Path,
    *,
    decoder: str = "pyav",
    fps: Rate | str | None = None,
    start: int = 0,
    num_frames: int | None = None,
    size: Size | None = None,
    policy: str = "crop",
    salvage: bool = False,
) -> OpenedSource:
    """A clip whose frames are read when they are looked at, one at a time. Arguments and errors as `read_source`.

    Raises:
        InputError: where a frame is read too, if it is damaged.
    """
    path = Path(path)
    require_known(decoder)
    rate = None if fps is None else rate_of(fps)
    source = _folder(path, rate, salvage) if path.is_dir() else _video(path, rate, decoder, salvage)
    if not 0 <= start < source.total:
        raise InputError(f"{path}: start is frame {start}, the source has frames 0 to {source.total - 1}")
    stop = source.total if num_frames is None else start + num_frames
    if not start < stop <= source.total:
        raise InputError(
            f"{path}: {num_frames} frames from frame {start} on were asked for; "
            f"the source has {source.total} frames, so expected 1 to {source.total - start}"
        )
    records: list[FitRecord] = []

    def read(first: int, last: int) -> Iterator[AnyFrame]:
        for frame in source.read(start + first, start + last):
            if size is not None:
                frame, record = fit(frame, size, policy)
                # The first one stands for all, which are of one size before too.
                records[:] = records or [record]
            yield frame

    frames = FrameSequence((stop - start, *(size or source.sides), 3), read)
    clock = source.clock and source.clock.cut(start, stop)
    return OpenedSource(
        path,
        frames,
        source.fps,
        start,
        source.total,
        source.decoder,
        source.notes,
        records,
        clock,
        retimed=rate is not None,
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
    notes = [*info.notes]
    if not info.complete:
        declared = "nothing" if info.declared is None else f"{info.declared} frames"
        notes.append(f"damaged: the header declares {declared}, {info.frames} whole frames found")
    elif info.declared is None and info.codec != "apng":  # which names it where FFmpeg does not look
        notes.append(
            f"its header names no length, as browsers and pipes write: {info.frames} whole frames found"
        )
    if index.assumed_rate and not fps:
        notes.append(f"the file says no frame rate: {float(info.fps):.6g} fps taken")
    if info.variable_rate:
        steps = np.diff(info.times)
        shown = f"shown evenly at {float(fps):.6g} fps, as asked" if fps else "each keeps its time"
        notes.append(
            f"variable frame rate: frames are {steps.min():.3g} to {steps.max():.3g} s apart; {shown}"
        )
    if fps and fps != info.fps:
        rates = f"{float(fps):.6g} fps as asked, the file says {float(info.fps):.6g}"
        notes.append(f"shown at {rates}; no frame is dropped or made")
    return _Source(
        total=info.frames,
        sides=(info.height, info.width),
        fps=fps or info.fps,
        decoder=decoder,
        read=lambda start, stop: frames_between(path, index, start, stop, decoder, salvage, notes),
        notes=notes,
        clock=None if salvage else index.clock,
    )


def _folder(path: Path, fps: Fraction | None, salvage: bool) -> _Source:
    if salvage:
        raise InputError(f"{path}: a folder of images cannot be salvaged; take the damaged images out")
    paths = list_images(path)
    first = load_image(paths[0]).pixels
    notes = [] if fps else [f"images have no frame rate: {FOLDER_FPS} fps taken"]
    if gaps := numbering_gaps(paths):
        (before, after), among = gaps[0], f", the first of {len(gaps)} gaps" if len(gaps) > 1 else ""
        notes.append(
            f"no image between {before.name} and {after.name}{among}: frames are counted by their order, not by the "
            "numbers in their names"
        )

    def read(start: int, stop: int) -> Iterator[AnyFrame]:
        counts: Counter[str] = Counter()
        for image in load_images(paths[start:stop]):
            counts.update(image.notes)
            yield image.pixels
        # What was normalised on the way is noted at the end, once for all images.
        notes.extend(f"{note} ({count} of {stop - start} images)" for note, count in counts.items())

    return _Source(
        total=len(paths),
        sides=(first.shape[0], first.shape[1]),
        fps=fps or Fraction(FOLDER_FPS),
        decoder="images",
        read=read,
        notes=notes,
    )


Way = Literal["stretch", "crop", "inside"]
KeyframeFit = Literal["auto", "stretch", "crop", "inside"]
# Shapes that differ by less than this many pixels of the larger picture are one.
NEGLIGIBLE = 1.0
# Pixels about a rim in which edges see it.
RIM = 8
# A picture with a side below this has no shape to speak of.
SMALLEST = 8
# Edges that agree by less than this are found together by chance.
AGREES = 0.1


@dataclass(frozen=True, eq=False)
class Placement:
    """How a keyframe is brought to its source's shape.

    Attributes:
        sides: (height, width) of the source as stored.
        how: "stretch" it; "crop" what is beyond the source's shape; "inside": it is the middle of the frame, and the
            source stays around it. None where it has the source's shape.
        record: of bringing it there.
        note: for the user; None where nothing was done.
    """

    sides: Size
    how: Way | None
    record: FitRecord
    note: str | None = None

    def place(
        self, keyframe: UInt8[np.ndarray, "_ _ 3"], frame: UInt8[np.ndarray, "h w 3"], policy: str
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The keyframe as `frame` looks: the source's frame, brought to its size by `fit(…, policy)`."""
        size = (frame.shape[0], frame.shape[1])
        if self.how is None or self.how == policy == "stretch":
            return fit(keyframe, size, policy)[0]
        if self.how != "inside":
            return fit(fit(keyframe, self.sides, self.how)[0], size, policy)[0]
        # Its rim is repeated beyond it, so that resizing mixes nothing foreign into it.
        beyond = fit(self._padded(keyframe, "edge"), size, policy)[0]
        share = self._covered(keyframe, size, policy)
        return np.rint(share * beyond + (1 - share) * frame).astype(np.uint8)

    def covers(
        self, keyframe: UInt8[np.ndarray, "_ _ 3"], size: Size, policy: str
    ) -> Bool[np.ndarray, "h w"]:
        """Where in the frame a keyframe that lies inside is seen."""
        return self._covered(keyframe, size, policy)[..., 0] > 0.5

    def _covered(self, keyframe: np.ndarray, size: Size, policy: str) -> Float32[np.ndarray, "h w 1"]:
        white = self._padded(np.full_like(keyframe, 255), "constant")
        return fit(white, size, policy)[0][..., :1].astype(np.float32) / 255

    def _padded(self, keyframe: np.ndarray, mode: Literal["edge", "constant"]) -> np.ndarray:
        """The keyframe scaled until it fits inside the source's shape, in the middle."""
        scale = min(side / own for side, own in zip(self.sides, keyframe.shape, strict=False))
        inner = [
            min(side, max(1, round(own * scale)))
            for side, own in zip(self.sides, keyframe.shape, strict=False)
        ]
        gaps = [(side - own) for side, own in zip(self.sides, inner, strict=True)]
        around = [(gap // 2, gap - gap // 2) for gap in gaps]
        return np.pad(fit(keyframe, (inner[0], inner[1]), "stretch")[0], [*around, (0, 0)], mode=mode)


def register(
    keyframe: UInt8[np.ndarray, "_ _ 3"],
    frame: UInt8[np.ndarray, "h w 3"],
    sides: Size,
    policy: str,
    how: KeyframeFit = "auto",
) -> Placement:
    """Decide how a keyframe belongs on its source.

    Args:
        keyframe: of any shape.
        frame: the source's frame, brought to its size by `policy`.
        sides: (height, width) of the source as stored.
        how: see `Placement`; "auto": whichever puts the keyframe's edges nearest to the frame's, and "stretch" where
            they agree in no way.

    Raises:
        InputError: an unknown policy.
    """
    height, width = keyframe.shape[:2]
    if same_shape((height, width), sides):
        return Placement(sides, None, fit(keyframe, sides, "stretch")[1])
    ways = {way: Placement(sides, way, fit(keyframe, sides, POLICY[way])[1]) for way in get_args(Way)}
    # Compared where all three have pixels of the keyframe, and its rim is no edge.
    covered = ways["inside"].covers(keyframe, (frame.shape[0], frame.shape[1]), policy)
    core = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)
    where = cv2.erode(covered.astype(np.uint8), core, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0

    def agreement(picture: UInt8[np.ndarray, "h w 3"]) -> float:
        # Correlation of the edges, -1 … 1: an edit recolours, but leaves most edges in their place.
        if not where.any():
            return 0.0
        x, y = (edges[where] - edges[where].mean() for edges in (_edges(picture), _edges(frame)))
        power = float(np.sqrt((x * x).sum() * (y * y).sum()))
        return float((x * y).sum()) / power if power else 0.0

    agree = {way: agreement(placed.place(keyframe, frame, policy)) for way, placed in ways.items()}
    best = max(agree, key=lambda way: agree[way])
    chosen = how if how != "auto" else best if agree[best] >= AGREES else "stretch"
    found = ", ".join(f"{way} {value:.2f}" for way, value in agree.items())
    doubt = "; none agrees" if how == "auto" and agree[best] < AGREES else ""
    note = (
        f"{width}x{height} is not of the source's shape, {sides[1]}x{sides[0]}: {DONE[chosen]} "
        f"(agreement of edges: {found}{doubt}; keyframe_fit chooses)"
    )
    return Placement(sides, chosen, ways[chosen].record, note)


def same_shape(a: Size, b: Size) -> bool:
    """Whether pictures of these sides have one shape, to less than a pixel of the larger one."""
    large, small = (a, b) if a[0] * a[1] >= b[0] * b[1] else (b, a)
    # A small picture's own sides are only known to half a pixel, which is more than one of the large picture's.
    height = small[0] * large[1] / small[1]
    return abs(height - large[0]) < max(NEGLIGIBLE, 0.5 * large[0] / small[0]) and min(small) >= SMALLEST


POLICY: dict[Way, str] = {"stretch": "stretch", "crop": "crop", "inside": "pad"}
DONE: dict[Way, str] = {
    "stretch": "stretched to it",
    "crop": "cropped to it",
    "inside": "laid inside it, the source around it",
}


def _edges(picture: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Where the brightness changes, and how strongly."""
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    return np.sqrt(across * across + down * down)
