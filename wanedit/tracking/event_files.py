"""Tracking in TensorBoard's event files: `tensorboard/ID/` in the run's folder."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wanedit.tracking.tracker import Cell, RunInfo, Scalar

FOLDER = "tensorboard"


class TensorBoardTracker:
    """Curves by their own index, the configuration, tables and results as text, images as images."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._folder, self._row = Path(), 0

    def start(self, run: RunInfo) -> str:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._folder, self._row = run.folder / FOLDER, run.first_row
        self._writer = SummaryWriter(str(self._folder / run.run_id), flush_secs=10)
        about = {"id": run.run_id, "group": run.group, "job_type": run.job_type, **run.config}
        self._writer.add_text("config", _block(about), self._row)
        return ""

    def log(self, series: str, index: int, values: Mapping[str, Scalar]) -> None:
        self._row += 1
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{series}/{name}", float(value), index)

    def summary(self, values: Mapping[str, Scalar]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"summary/{name}", float(value), self._row)
        self._writer.add_text("summary", _block(values), self._row)

    def table(self, name: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        self._row += 1
        images = {key: cell for row in rows for key, cell in row.items() if isinstance(cell, Path)}
        for key, path in images.items():
            self._writer.add_image(f"{name}/{key}", _pixels(path), self._row, dataformats="HWC")
        self._writer.add_text(name, _markdown(rows), self._row)

    def artifact(self, name: str, files: Mapping[str, Path | str], digest: str) -> None:
        # Event files hold no files; which ones there were is still worth knowing.
        self._writer.add_text(f"artifact/{name}", _block({"sha256": digest, "files": list(files)}), self._row)

    def finish(self, exit_code: int) -> str:
        if self._writer is None:
            return ""
        self._writer.add_scalar("summary/exit_code", exit_code, self._row)
        self._writer.close()
        return f"tracking: look at it with: tensorboard --logdir {shlex.quote(str(self._folder.absolute()))}"


def _pixels(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _block(values: Mapping[str, Any]) -> str:
    """JSON as Markdown shows it: four spaces make code."""
    lines = json.dumps(dict(values), indent=1, ensure_ascii=False, default=str).splitlines()
    return "\n".join(f"    {line}" for line in lines)


def _markdown(rows: Sequence[Mapping[str, Cell]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns)]
    lines += [[_cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Cell) -> str:
    text = value.name if isinstance(value, Path) else "" if value is None else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
