"""What an edit is restored with: whether it is, in which size, and the source and keyframes in that size."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import UInt8

from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.lit.editing.pixels import MAKES_PIXELS
from wanedit.lit.editing.task import Pictures
from wanedit.run.edit_config import EditConfig, EditedFrame
from wanedit.video import load_image
from wanedit.video.arrays import Frames
from wanedit.video.images import Size
from wanedit.video.register import Placement, register
from wanedit.video.restoring import Restore
from wanedit.video.source import SourceClip, read_source

# A source's shape counts as kept when it changes by less than this share.
SHAPE_KEPT = 0.01


def restore_kind(config: EditConfig) -> Restore:
    """`config.restore` decided: the methods of others are left as they were published."""
    if config.restore != "auto":
        return config.restore
    return "keyframes" if config.method == "residual_corrected" else "none"


def decide_output(config: EditConfig, method: Method) -> EditConfig:
    """`restore` and `output_size` without auto.

    Raises:
        InputError: the source's size is asked for where nothing is restored, or with bars beside it.
    """
    kind = "none" if isinstance(method, MAKES_PIXELS) else restore_kind(config)
    wanted = config.output_size
    if wanted == "source" and kind == "none":
        raise InputError(
            f"output_size is source, but {config.method} with restore {config.restore} leaves the model's own pixels; "
            "expected restore source, residual or keyframes, or output_size model"
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


def original_size(sides: Size, size: Size, policy: str) -> Size:
    """(height, width) of the part of a source that `images.fit` brings to `size`, in the source's own pixels."""
    if policy == "stretch":
        return sides
    scale = max(size[0] / sides[0], size[1] / sides[1])
    return min(sides[0], round(size[0] / scale)), min(sides[1], round(size[1] / scale))


def place_keyframes(
    config: EditConfig, keyframes: Sequence[EditedFrame], source: SourceClip, sides: Size
) -> tuple[list[Placement], list[str]]:
    """How each keyframe belongs on its frame of the source, and what the user should know of it.

    Args:
        config: decided.
        source: read at the model's size; every keyframe is of one of its frames.
        sides: (height, width) of the source as stored.
    """
    placements, notes = [], []
    for keyframe in keyframes:
        loaded = load_image(keyframe.path)
        frame = source.frames[keyframe.index]
        placement = register(loaded.pixels, frame, sides, config.resize_policy, config.keyframe_fit)
        placements.append(placement)
        said = [*loaded.notes, *([placement.note] if placement.note else [])]
        notes += [f"{keyframe.path.name}: {note}" for note in said]
    return placements, notes


def shown_in(
    frames: Frames, keyframes: Sequence[EditedFrame], placements: Sequence[Placement], policy: str
) -> UInt8[np.ndarray, "k h w 3"]:
    """The keyframes (K, H, W, 3) as `frames` (T, H, W, 3) look, the source brought to its size by `policy`."""
    pairs = zip(keyframes, placements, strict=True)
    return np.stack([p.place(load_image(k.path).pixels, frames[k.index], policy) for k, p in pairs])


def read_originals(
    config: EditConfig,
    source: SourceClip,
    keyframes: Sequence[EditedFrame],
    placements: Sequence[Placement],
    sides: Size,
) -> Pictures | None:
    """Source and keyframes in the size of the result; None where that is the model's.

    Args:
        config: decided.
        source: read at the model's size.
        placements: of the keyframes.
        sides: (height, width) of the source as stored.
    """
    size = (source.frames.shape[1], source.frames.shape[2])
    own = original_size(sides, size, config.resize_policy)
    if config.output_size == "model" or own == size:
        return None
    clip = read_source(
        source.path,
        decoder=config.decoder,
        start=config.start,
        num_frames=len(source.frames),
        size=own,
        policy=config.resize_policy,
        salvage=config.salvage,
    )
    return Pictures(clip.frames, shown_in(clip.frames, keyframes, placements, config.resize_policy))


def shape_notes(config: EditConfig, source: SourceClip, sides: Size) -> list[str]:
    """What becomes of the source's shape, where the user would not expect it.

    Args:
        config: decided.
        source: read at the model's size.
        sides: (height, width) of the source as stored.
    """
    (height, width), size, notes = sides, (source.frames.shape[1], source.frames.shape[2]), []
    own = original_size(sides, size, config.resize_policy)
    result = own if config.output_size == "source" else size
    change = (size[1] / size[0]) / (width / height) - 1
    warned = source.fit is not None and source.fit.warning is not None
    if abs(change) >= SHAPE_KEPT and not warned:
        text = (
            f"the source's {width}x{height} is not of the shape of the model's frames, {size[1]}x{size[0]}: "
        )
        if config.resize_policy == "stretch" and config.output_size == "model":
            notes.append(f"{text}the result's width is {change:+.0%} off")
        elif config.resize_policy == "crop":
            lost = 1 - own[0] * own[1] / (height * width)
            notes.append(f"{text}{lost:.0%} of it is cut off; resize_policy stretch would keep it")
    if result[0] % 2 or result[1] % 2:
        notes.append(
            f"{result[1]}x{result[0]} has an odd side, which H.264 cannot have: {result[1] // 2 * 2}x"
            f"{result[0] // 2 * 2} are written; the lossless frames beside it keep all"
        )
    return notes
