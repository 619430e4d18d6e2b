"""What an edit is restored with: whether it is, in which size, and the source and keyframes in that size."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from wanedit.errors import InputError
from wanedit.flow.editing import Method
from wanedit.lit.editing.pixels import MAKES_PIXELS
from wanedit.lit.editing.task import Pictures
from wanedit.run.edit_config import EditConfig, EditedFrame
from wanedit.video import fit, load_image
from wanedit.video.images import Size
from wanedit.video.source import SourceClip, read_source


def restore_kind(config: EditConfig) -> Literal["none", "source", "residual", "keyframes"]:
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
        raise InputError("output_size is source and resize_policy pad; expected crop or stretch")
    if wanted == "auto":
        can = kind != "none" and config.resize_policy != "pad"
        wanted = "source" if can and config.size is None else "model"
    return replace(config, restore=kind, output_size=wanted)


def original_size(sides: Size, size: Size, policy: str) -> Size:
    """(height, width) of the part of a source that `images.fit` brings to `size`, in the source's own pixels.

    Even sides, which every video format takes.
    """
    height, width = sides
    if policy == "stretch":
        seen = (float(height), float(width))
    else:
        scale = max(size[0] / height, size[1] / width)
        seen = (size[0] / scale, size[1] / scale)
    return int(seen[0]) // 2 * 2, int(seen[1]) // 2 * 2


def read_originals(
    config: EditConfig, source: SourceClip, keyframes: Sequence[EditedFrame], sides: Size, size: Size
) -> Pictures | None:
    """Source and keyframes in the size of the result; None where that is the model's.

    Args:
        config: decided.
        source: read at the model's size.
        sides: (height, width) of the source as stored.
        size: of the model's frames.
    """
    own = original_size(sides, size, config.resize_policy)
    if config.output_size == "model" or own[0] * own[1] <= size[0] * size[1]:
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
    pictures = [fit(load_image(Path(k.path)).pixels, own, config.resize_policy)[0] for k in keyframes]
    return Pictures(clip.frames, np.stack(pictures))
