"""Hashes that name work by content: of settings, files, pixels and models."""

import hashlib
import json
from collections.abc import Callable, Mapping

import numpy as np
import torch

from wanedit.wan.checkpoint import sha256
from wanedit.wan.load import WanFolder, deciding_files, default_dtype


def digest(values: Mapping[str, object]) -> str:
    """SHA-256 of a JSON object, keys sorted."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


LARGE = 4e9


def pixels_sha256(pixels: np.ndarray) -> str:
    """SHA-256 of an array's shape and bytes."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def compute_kind() -> str:
    """Accelerator and number format: a run resumed on another would mix pixels of two kinds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return f"{device} {default_dtype(device)}"


def hash_files(folder: WanFolder, say: Callable[[str], None]) -> dict[str, str]:
    """SHA-256 of every file that decides what the model computes."""
    files = deciding_files(folder)
    size = sum(file.stat().st_size for file in files)
    if size > LARGE:
        say(f"hashing {size / 1e9:.0f} GB of weights; this is remembered until the files change")
    return {str(file.relative_to(folder.path)): sha256(file) for file in files}
