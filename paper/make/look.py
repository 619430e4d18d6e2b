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
    record: Path, rows: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], wide: int, about: Mapping
) -> None:
    """Keep rows of frames as a picture, and beside it as JSON what they are.

    Args:
        record: the picture; the JSON has its name.
        rows: by name, a frame (h, w, 3) in bytes for each column, all of one shape.
        columns: what stands above each; one that begins with `*` is framed.
        wide: pixels along a frame of the picture.
        about: what else the JSON should say.
    """
    high, own = next(iter(rows.values()))[0].shape[:2]
    size = (wide, round(wide * high / own))
    scaled = [
        np.hstack(
            [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in frames]
        )
        for frames in rows.values()
    ]
    Image.fromarray(np.vstack(scaled)).save(record, optimize=True)
    told = {"rows": list(rows), "columns": list(columns), **about}
    record.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def draw_strips(record: Path, about: Mapping, path: Path) -> None:
    """The figure of such a record."""
    sheet, rows, columns = np.asarray(Image.open(record)), about["rows"], about["columns"]
    high, wide = sheet.shape[0] // len(rows), sheet.shape[1] // len(columns)
    figure = Figure(
        figsize=(WIDTH, WIDTH / len(columns) * high / wide * len(rows) + 0.35), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for r, name in enumerate(rows):
        axes[r][0].set_ylabel(name)
        for c, title in enumerate(columns):
            axis = axes[r][c]
            axis.imshow(sheet[r * high : (r + 1) * high, c * wide : (c + 1) * wide], interpolation="none")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(visible=title.startswith("*"), color=RED, linewidth=1.6)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title.removeprefix("*"), fontsize=8 if len(columns) < 9 else 6)
    save(figure, path)
