"""Files that are whole or absent: each is written beside its place and renamed into it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def by_rename(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make the file under another name, then rename it to `path`."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.chmod(0o644)
    part.replace(path)


def save(value: Any, path: Path) -> None:
    """torch.save by rename."""
    by_rename(path, lambda part: torch.save(value, part))


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object by rename."""
    by_rename(path, lambda part: part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8"))
