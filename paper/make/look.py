"""One look for all figures of the paper, and the same bytes in every run."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

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
