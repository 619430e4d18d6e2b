"""The table as JSON, with all that decides its numbers: weights, split, clips, settings, machine."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tiny.evaluate_run import Evaluation
from tiny.scorecard import Row, as_dict
from wanedit.wan.checkpoint import find_weights
from wanedit.wan.load import TRANSFORMER_STEM, VAE_STEM


def record(e: Evaluation, rows: Sequence[Row]) -> dict[str, Any]:
    """Plain values only; without NaN."""
    return {
        "model": e.wan.folder.name,
        "sha256": weight_hashes(e),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "split": e.split,
        "clips": {"with a bar": e.clips, "large": e.large_clips, "without a bar": e.few},
        "footage": [path.name for path in e.paths],
        "settings": vars(e.settings) | {"text_guidance": e.text_guidance},
        "rows": as_dict(rows),
    }


def weight_hashes(e: Evaluation) -> dict[str, str]:
    """File name -> sha256 of the transformer's and the VAE's weights; names are relative to the model's folder."""
    folder = e.wan.folder
    files = [file for path in folder.transformer_folders for file in find_weights(path, TRANSFORMER_STEM)]
    files += find_weights(folder.path, VAE_STEM)
    return {str(file.relative_to(folder.path)): _sha256(file) for file in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
