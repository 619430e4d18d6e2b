"""The junction study: which fault each measure sees, and how often it cries wolf."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from paper.make.records import JUNCTION_FAULTS, read_csv
from paper.make.tex import Numbers, escape, write_table

# The fault of rows at places where nothing was joined.
CLEAN = "no join"
FOOTAGE, TEXTURE = "bottles", "texture: "
Cells = dict[str, list[dict[str, str]]]


def make(out: Path, numbers: Numbers) -> None:
    """The table of faults against measures, over all clips."""
    rows = read_csv(JUNCTION_FAULTS)
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    faults = list(dict.fromkeys(row["fault"] for row in rows if row["fault"] != CLEAN))
    body = [
        [escape(fault), *(_cell(rows, fault, m) for m in measures), _any(rows, fault)] for fault in faults
    ]
    write_table(
        out / "tables" / "junctions.tex",
        "l" + "r" * (len(measures) + 1),
        ["fault", *measures, "any measure"],
        [body],
    )
    _numbers(numbers, rows, faults)


def _clips(rows: list[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(row["clip"] for row in rows))


def _cell(rows: list[dict[str, str]], fault: str, measure: str) -> str:
    """Median ratio, and in how many clips it shows."""
    found = [row for row in rows if row["fault"] == fault and row["measure"] == measure]
    ratio, shown = np.median([float(row["ratio"]) for row in found]), sum(int(row["shows"]) for row in found)
    text = f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"
    return rf"\seen{{{text}}}{{{shown}}}" if shown else text


def _any(rows: list[dict[str, str]], fault: str) -> str:
    return f"{len(_seen(rows, fault))}"


def _seen(rows: list[dict[str, str]], fault: str) -> set[str]:
    return {row["clip"] for row in rows if row["fault"] == fault and int(row["shows"])}


def _numbers(numbers: Numbers, rows: list[dict[str, str]], faults: list[str]) -> None:
    clips, spoilt = _clips(rows), [fault for fault in faults if fault != "none"]
    textures = sum(name.startswith(TEXTURE) for name in clips)
    numbers.add("junctions.clips", len(clips))
    numbers.add("junctions.drawn", len(clips) - 1 - textures)
    numbers.add("junctions.textures", textures)
    numbers.add("junctions.faults", len(spoilt))
    numbers.add("junctions.pairs", len(clips) * len(spoilt))
    missed = [fault for fault in spoilt if len(_seen(rows, fault)) < len(clips)]
    numbers.add("junctions.missed", ", ".join(map(escape, missed)) or "none")
    numbers.add("junctions.none", len(_seen(rows, "none")))
    numbers.add("junctions.found", sum(len(_seen(rows, fault)) for fault in spoilt))
    places: dict[str, dict[tuple[str, str], bool]] = defaultdict(lambda: defaultdict(bool))
    for row in rows:
        if row["fault"] == CLEAN:
            name = row["clip"]
            kind = "footage" if name == FOOTAGE else "textures" if name.startswith(TEXTURE) else "drawn"
            places[kind][name, row["junction"]] |= bool(int(row["shows"]))
    for kind, found in places.items():
        numbers.add(f"junctions.places.{kind}", len(found))
        numbers.add(f"junctions.false.{kind}", sum(found.values()))
