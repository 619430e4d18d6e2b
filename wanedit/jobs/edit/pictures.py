"""The pictures of an edit: its source and keyframes, in the model's size and in that of the result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.jobs.edit.config import EditConfig
from wanedit.lit.model import OpenModel
from wanedit.lit.tasks import Pictures
from wanedit.runtime.inputs import EditedFrame
from wanedit.runtime.settings import SMALLEST_SIDE, parse_size
from wanedit.video import load_image
from wanedit.video.aligning import Alignment, align
from wanedit.video.arrays import Clip, Frame
from wanedit.video.formats import Format
from wanedit.video.images import OVER_WHITE, Size, under
from wanedit.video.source import Placement, SourceClip, open_source, register

# A source's shape counts as kept when it changes by less than this share.
SHAPE_KEPT = 0.01
KEPT = "where it is transparent, the source stays"


def decide_output(config: EditConfig, method: Method) -> EditConfig:
    """`restore`, `output_size` and `resize_policy` without auto; nothing restores a method's own pixels.

    Raises:
        InputError: the source's size is asked for where nothing is restored, or with bars beside it.
    """
    kind = method.restored_by if config.restore == "auto" else config.restore
    if method.makes_pixels:
        kind = "none"
    wanted = config.output_size
    if wanted == "source" and method.makes_pixels:
        raise InputError(
            f"output_size is source, but {config.method} makes pixels of the model's size; expected auto or model"
        )
    if wanted == "source" and kind == "none":
        raise InputError(
            f"output_size is source, but {config.method} with restore {config.restore} leaves the model's own pixels; "
            "expected restore source, residual, keyframes or fused, or output_size model"
        )
    if wanted == "source" and config.resize_policy == "pad":
        # Their bars are whole pixels of the model's frames, which no bars of the source's own size match.
        raise InputError("output_size is source and resize_policy pad; expected auto, crop or stretch")
    if wanted == "auto":
        can = kind != "none" and config.resize_policy != "pad"
        wanted = "source" if can and config.size is None else "model"
    policy = config.resize_policy
    if policy == "auto":
        # What is stretched for the model is stretched back in the source's own size, and nothing is cut off.
        policy = "stretch" if wanted == "source" else "crop"
    return replace(config, restore=kind, output_size=wanted, resize_policy=policy)


def own_size(path: Path, sides: Size, model: OpenModel, model_size: str) -> Size:
    """(height, width): the source's shape, at most as many pixels as the model's own size, multiples of a token's side.

    Raises:
        InputError: the source is too small or too narrow for that.
    """
    limit = math.prod(parse_size(model_size))
    scale = min(1.0, math.sqrt(limit / math.prod(sides)))
    unit = model.latent_space.token_side
    fitted = [int(side * scale / unit + 0.5) * unit for side in sides]
    while math.prod(fitted) > limit:
        # Rounding went beyond the limit: the longer side gives way, by which the shape changes least.
        fitted[fitted.index(max(fitted))] -= unit
    if min(fitted) < SMALLEST_SIDE:
        raise InputError(
            f"{path} is {sides[1]}*{sides[0]}, too small or too narrow for {model.name} at its own shape; expected a "
            "size to be given"
        )
    return fitted[0], fitted[1]


def reading(config: EditConfig, size: Size | None) -> dict[str, Any]:
    """How `read_source` and `open_source` bring the frames that are edited to `size`."""
    return {
        "decoder": config.decoder,
        "fps": config.fps,
        "start": config.start,
        "num_frames": config.num_frames,
        "size": size,
        "policy": config.resize_policy,
        "salvage": config.salvage,
    }


@dataclass(frozen=True, eq=False)
class PlacedKeyframe:
    """A keyframe as it was read, and how it lies on the source's frame `index`; `alpha` as of `LoadedImage`."""

    index: int
    pixels: Frame
    placement: Placement
    alpha: UInt8[np.ndarray, "h w"] | None = None

    def shown(self, frame: Frame, policy: str) -> Frame:
        """The keyframe as `frame` looks, its source's frame, which stays where the keyframe is transparent."""
        placed = self.placement.place(self.pixels, frame, policy)
        if self.alpha is None:
            return placed
        opaque = np.repeat(self.alpha[..., None], 3, axis=2)
        share = self.placement.place(opaque, np.full_like(frame, 255), policy).astype(np.float32) / 255
        return under(placed, share[..., :1], frame)

    def alignment(self, shown: Frame, frame: Frame) -> Alignment:
        """What it is off by as it is shown on `frame`; nothing where the source stays in or around it."""
        whole = self.alpha is None and self.placement.how != "inside"
        return align(shown, frame) if whole else Alignment()


def place_keyframes(
    config: EditConfig, keyframes: Sequence[EditedFrame], source: SourceClip, sides: Size
) -> tuple[list[PlacedKeyframe], list[str]]:
    """Read the keyframes, lay each on its frame, and say what the user should know of it.

    Args:
        config: decided.
        source: read at the model's size; every keyframe is of one of its frames.
        sides: (height, width) of the source as stored.
    """
    placed, notes = [], []
    for keyframe in keyframes:
        loaded = load_image(keyframe.path)
        frame = source.frames[keyframe.index]
        placement = register(loaded.pixels, frame, sides, config.resize_policy, config.keyframe_fit)
        placed.append(PlacedKeyframe(keyframe.index, loaded.pixels, placement, loaded.alpha))
        said = [KEPT if note == OVER_WHITE else note for note in loaded.notes]
        said += [note for note in (keyframe.note, placement.note) if note]
        notes += [f"{keyframe.path.name}: {note}" for note in said]
    return placed, notes


def shown_in(frames: Clip, keyframes: Sequence[PlacedKeyframe], policy: str) -> UInt8[np.ndarray, "k h w 3"]:
    """The keyframes (K, H, W, 3) as `frames` (T, H, W, 3) look, the source brought to its size by `policy`."""
    return np.stack([k.shown(frames[k.index], policy) for k in keyframes])


def align_keyframes(
    keyframes: Sequence[PlacedKeyframe], names: Sequence[str], pictures: Pictures, originals: Pictures | None
) -> tuple[Pictures, Pictures | None, list[str]]:
    """Both with every keyframe laid exactly over its frame, and what the user should know of it.

    What a keyframe is off by is found once, in the size of the result, and undone in both sizes.

    Args:
        names: of the keyframes.
    """
    best, found = originals or pictures, list[Alignment]()
    notes: dict[str, list[str]] = {}
    for k, (keyframe, name) in enumerate(zip(keyframes, names, strict=True)):
        found.append(keyframe.alignment(best.keyframes[k], best.frames[keyframe.index]))
        if note := found[-1].note:
            notes.setdefault(note, []).append(name)

    def aligned(of: Pictures) -> Pictures:
        undone = [one.undone(of.keyframes[k], of.frames[keyframes[k].index]) for k, one in enumerate(found)]
        return replace(of, keyframes=np.stack(undone))

    said = [f"{', '.join(named)}: {note}" for note, named in notes.items()]
    if all(one.estimate is None for one in found):
        return pictures, originals, said
    return aligned(pictures), originals and aligned(originals), said


def original_size(sides: Size, size: Size, policy: str) -> Size:
    """(height, width) of the part of a source that `images.fit` brings to `size`, in the source's own pixels."""
    if policy == "stretch":
        return sides
    scale = max(size[0] / sides[0], size[1] / sides[1])
    return min(sides[0], round(size[0] / scale)), min(sides[1], round(size[1] / scale))


def read_originals(
    config: EditConfig, source: SourceClip, keyframes: Sequence[PlacedKeyframe], sides: Size
) -> Pictures | None:
    """Source and keyframes in the size of the result; None where that is the model's.

    The source stays in its file: only what restores the edit, and then needs every frame, holds it.

    Args:
        config: decided.
        source: read at the model's size.
        sides: (height, width) of the source as stored.
    """
    size = source.frames.shape[1], source.frames.shape[2]
    own = original_size(sides, size, config.resize_policy)
    if config.output_size == "model" or own == size:
        return None
    known = replace(config, num_frames=len(source.frames))
    frames = open_source(source.path, **reading(known, own)).frames
    return Pictures(frames, shown_in(frames, keyframes, config.resize_policy))


def shape_notes(config: EditConfig, source: SourceClip, sides: Size, kind: Format) -> list[str]:
    """What becomes of the source's shape, where the user would not expect it.

    Args:
        config: decided.
        source: read at the model's size.
        sides: (height, width) of the source as stored.
        kind: of the film that is written.
    """
    (height, width), size, notes = sides, (source.frames.shape[1], source.frames.shape[2]), []
    own = original_size(sides, size, config.resize_policy)
    result = own if config.output_size == "source" else size
    made = f"{result[1]}x{result[0]}"
    change = (result[1] / result[0]) / (width / height) - 1
    if abs(change) >= SHAPE_KEPT:
        lost = 1 - own[0] * own[1] / (height * width)
        became = {
            "crop": f"{lost:.0%} of it is cut off (resize_policy stretch keeps it)",
            "stretch": f"it is stretched, {change:+.0%} in width",
            "pad": "black bars fill it up",
        }
        notes.append(f"the source is {width}x{height} and the result {made}: {became[config.resize_policy]}")
    if (written := kind.fitted(*result)) != result:
        notes.append(
            f"{made} has an odd side, which H.264 cannot have: {written[1]}x{written[0]} are written; the lossless "
            "frames beside it keep all"
        )
    return notes
