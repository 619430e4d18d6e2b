"""Loss curves beside the model card: one thinned CSV and one PNG for all stages."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_curves(stages: Mapping[str, tuple[Path, str]], folder: Path, most: int = 200) -> None:
    """Gather one column of each stage's log, averaged to at most `most` points.

    Args:
        stages: stage -> (folder of its metrics*.csv, column).
        folder: receives training.csv and training.png.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(stages), figsize=(3.2 * len(stages), 2.6), layout="constrained")
    with (folder / "training.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["stage", "step", "quantity", "value"])
        for axis, (stage, (path, column)) in zip(np.atleast_1d(axes), stages.items(), strict=True):
            steps, values = _read(path, column, most)
            writer.writerows([stage, int(s), column, f"{v:.5g}"] for s, v in zip(steps, values, strict=True))
            axis.plot(steps, values, linewidth=0.8, alpha=0.35, color="#0072B2")
            axis.plot(*_trend(steps, values), linewidth=1.6, color="#0072B2")
            axis.set(title=stage, xlabel="step", ylabel=column)
            axis.grid(alpha=0.3)
    figure.savefig(folder / "training.png", dpi=90)
    plt.close(figure)


def _trend(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over a twelfth of the curve, moving: batches of several sizes make the raw values jump."""
    width = max(1, len(values) // 12)
    kernel = np.ones(width) / width
    return np.convolve(steps, kernel, "valid"), np.convolve(values, kernel, "valid")


def _part(path: Path) -> float:
    """N of metrics.N.csv; metrics.csv is the latest."""
    number = path.name.split(".")[1]
    return float(number) if number.isdigit() else float("inf")


def _read(folder: Path, column: str, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of all parts of a log; of a step that was done twice the later value counts.

    A stage too short to log anything has none.
    """
    found: dict[float, float] = {}
    for path in sorted(folder.glob("metrics*.csv"), key=_part):
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            found |= {float(row["step"]): float(row[column]) for row in rows if row.get(column)}
    steps, values = np.array(sorted(found.items())).reshape(-1, 2).T
    width = max(1, len(steps) // most)
    kept = len(steps) // width * width
    return steps[:kept].reshape(-1, width).mean(1), values[:kept].reshape(-1, width).mean(1)
