"""Figures that look alike and are the same bytes in every run."""

from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every common kind of colour blindness.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
CONTROLLER_STYLE: dict[str, tuple[str, str]] = {
    "exact": (BLACK, "-"),
    "none": ("#777777", "-"),
    "residual": (RED, "--"),
    "exponential": (ORANGE, "-."),
    "replacement": (PINK, ":"),
    "covariance scalar": (SKY, "--"),
    "covariance full": (BLUE, "-"),
}
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "savefig.dpi": 200,
    # Letters as outlines of TrueType, which journals ask for.
    "pdf.fonttype": 42,
}
# A date in a file would make two runs differ.
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def style() -> AbstractContextManager[None]:
    """The look of all figures, for the time of drawing and saving."""
    return matplotlib.rc_context(STYLE)  # pyright: ignore[reportArgumentType]


def panels(count: int, width: float = 3.2, height: float = 2.6) -> tuple[Figure, list[Axes]]:
    """A row of axes, sizes in inches."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def save(figures: dict[str, Figure], folder: Path) -> list[Path]:
    """Each as PNG and PDF; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for kind, metadata in METADATA.items():
            path = folder / f"{name}.{kind}"
            figure.savefig(path, metadata=metadata)
            written.append(path)
    return written
