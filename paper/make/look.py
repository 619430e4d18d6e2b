"""One look for all figures of the paper, and the same bytes in every run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from math_verification.figures import (
    BLACK,
    BLUE,
    CONTROLLER_STYLE,
    GREEN,
    METADATA,
    ORANGE,
    PINK,
    RED,
    SKY,
    STYLE,
)

# The width of the text in inches; figures are included unscaled, so that 8 points are 8 points.
WIDTH = 6.5
GREY = "#777777"
SERIES = (
    (BLUE, "o-"),
    (RED, "s--"),
    (GREEN, "^-."),
    (ORANGE, "D:"),
    (PINK, "v-"),
    (SKY, "*--"),
    (BLACK, "x:"),
)
# The methods that are drawn over the distance; the others of the project would lie on the first.
METHOD_STYLE: dict[str, tuple[str, str]] = {
    "covariance": CONTROLLER_STYLE["covariance full"],
    "flowedit": (RED, "--"),
    "coded_truth": (BLACK, ":"),
    "warp_nearest": (GREEN, "-."),
    "flf2v": (PINK, "--"),
    "sdedit": (SKY, ":"),
}
# Not compressed: zlib's output is not the same in all its versions. The letters are few.
PAPER = STYLE | {"pdf.compression": 0, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7}


def save(figure: Figure, path: Path) -> None:
    """As PDF, without a date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context(PAPER):  # pyright: ignore[reportArgumentType]
        figure.savefig(path, metadata=METADATA["pdf"])


def axes_row(
    count: int, height: float = 2.3, width: float = WIDTH, share_y: bool = False
) -> tuple[Figure, list]:
    """A row of axes as wide as the text."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=share_y)[0]
    return figure, list(axes)


def write_strips(
    record: Path, clips: Mapping[str, Sequence[np.ndarray]], shown: Sequence[int], wide: int, about: Mapping
) -> None:
    """Keep the shown frames of every clip, a row each, as a picture, and beside it as JSON what they are.

    Args:
        record: the picture; the JSON has its name.
        clips: by the name of its row; frames (h, w, 3) in bytes, all of one shape.
        wide: pixels along a frame of the picture.
        about: what else the JSON should say.
    """
    first = np.asarray(next(iter(clips.values()))[0])
    size = (wide, round(wide * first.shape[0] / first.shape[1]))
    rows = [
        np.hstack(
            [
                np.asarray(Image.fromarray(np.asarray(clip[t])).resize(size, Image.Resampling.LANCZOS))
                for t in shown
            ]
        )
        for clip in clips.values()
    ]
    Image.fromarray(np.vstack(rows)).save(record, optimize=True)
    told = {"rows": list(clips), "frames": list(shown), **about}
    record.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def draw_strips(record: Path, about: Mapping, path: Path) -> None:
    """The figure of such a record; frames among `about["keyframes"]` are framed and said to be."""
    sheet, rows, frames = np.asarray(Image.open(record)), about["rows"], about["frames"]
    high, wide = sheet.shape[0] // len(rows), sheet.shape[1] // len(frames)
    figure = Figure(
        figsize=(WIDTH, WIDTH / len(frames) * high / wide * len(rows) + 0.35), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(frames), squeeze=False)
    for r, name in enumerate(rows):
        axes[r][0].set_ylabel(name)
        for c, frame in enumerate(frames):
            axis = axes[r][c]
            axis.imshow(sheet[r * high : (r + 1) * high, c * wide : (c + 1) * wide], interpolation="none")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=frame in about["keyframes"], color=RED, linewidth=1.6)
    for axis, frame in zip(axes[0], frames, strict=True):
        axis.set_title(f"{frame}, keyframe" if frame in about["keyframes"] else f"{frame}")
    save(figure, path)
