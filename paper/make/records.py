"""The recorded results that the paper is made of, and how to make them where they are missing."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "paper"
EXPERIMENTS = ROOT / "experiments"
CLAIMS = PAPER / "records" / "math_verification.json"
JUNCTION_FAULTS = PAPER / "records" / "junction_faults.csv"
REAL_FRAMES = PAPER / "records" / "real_frames.png"
JOIN_FRAMES = PAPER / "records" / "join_frames.png"
HARD_FRAMES = PAPER / "records" / "hard_frames.png"
PROPAGATION = EXPERIMENTS / "01_keyframe_propagation"
JOINS = EXPERIMENTS / "09_joins"
HARD_EDITS = EXPERIMENTS / "11_hard_edits"

MAKES = {
    CLAIMS: "python -m math_verification --json paper/records/math_verification.json",
    JUNCTION_FAULTS: "python -m paper.make.junction_faults",
    REAL_FRAMES: "python -m paper.make.real_frames",
    REAL_FRAMES.with_suffix(".json"): "python -m paper.make.real_frames",
    HARD_FRAMES: "python -m paper.make.hard_edits",
    HARD_FRAMES.with_suffix(".json"): "python -m paper.make.hard_edits",
    JOIN_FRAMES: "python -m paper.make.joins",
    JOIN_FRAMES.with_suffix(".json"): "python -m paper.make.joins",
    JOINS / "results" / "limit.csv": "python experiments/09_joins/limit.py 64",
    HARD_EDITS / "results" / "results.csv": "python experiments/11_hard_edits/table.py (after its run.py)",
    PROPAGATION / "results" / "results.csv": "python experiments/01_keyframe_propagation/table.py",
}


class MissingRecordError(FileNotFoundError):
    """A record that the paper needs is not in the repository; the message names the command that makes it."""


def need(path: Path) -> Path:
    """The path, if the file is there.

    Raises:
        MissingRecordError: it is not.
    """
    if not path.exists():
        folder = path.parents[1]
        command = MAKES.get(path, f"wanedit ablate experiments/{folder.name}")
        if folder == PROPAGATION:
            command = MAKES.get(path, "python experiments/01_keyframe_propagation/run.py test (and ablate)")
        raise MissingRecordError(f"{path.relative_to(ROOT)} is missing; make it with: {command}")
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows by column name."""
    with need(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_yaml(path: Path) -> Any:
    """A settings file."""
    return yaml.safe_load(need(path).read_text(encoding="utf-8"))


def read_json(path: Path) -> Any:
    """What a record says of itself."""
    return json.loads(need(path).read_text(encoding="utf-8"))


def read_lines(*paths: Path) -> list[dict[str, Any]]:
    """JSON lines of all files in order; of a pair that was begun twice, the later ones."""
    found = {}
    for path in paths:
        for line in map(json.loads, need(path).read_text(encoding="utf-8").splitlines()):
            found[line["id"], line["restore"]] = line
    return list(found.values())


def number_or_none(text: str) -> float | None:
    """A CSV cell; empty for what could not be measured."""
    return float(text) if text else None
