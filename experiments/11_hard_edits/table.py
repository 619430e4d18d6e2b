"""Tables of the recorded results: `python experiments/11_hard_edits/table.py` writes results/table.md, results.csv.

Means are over scenes; intervals are 95 % percentile bootstraps over scenes, of the paired difference to OURS.
"""

import csv
import sys
from collections import Counter
from typing import Any

from run import HERE, OURS, RESULTS, UNALIGNED, load_settings, read

from wanedit.files import write_text

sys.path.append(str(HERE.parent))
from court import interval, mean

# A scene is counted as lost beyond so many dB.
LOSS = 0.5
COLUMNS = {"unshown": "in no keyframe", "shown": "in a keyframe", "background": "not edited", "all": "all"}
Line = dict[str, Any]
# (method, restoration) -> its lines.
Rows = dict[tuple[str, str], list[Line]]


def grouped(lines: list[Line]) -> Rows:
    rows: Rows = {}
    for line in lines:
        rows.setdefault((line["method"], line["restore"]), []).append(line)
    return rows


def even(lines: list[Line]) -> list[Line]:
    """Of each cause the first scenes that have every row, as many as of all others or one more: no cause and no method
    counts by what is measured of it alone."""
    rows: dict[str, dict[int, set[tuple[str, str]]]] = {}
    for line in lines:
        if not line["method"].endswith(UNALIGNED) and line["method"] != "true_keyframes":
            seeds = rows.setdefault(line["cause"], {})
            seeds.setdefault(line["seed"], set()).add((line["method"], line["restore"]))
    every = max(len(found) for seeds in rows.values() for found in seeds.values())
    whole = {
        cause: sorted(seed for seed, found in seeds.items() if len(found) == every)
        for cause, seeds in rows.items()
    }
    most = min(map(len, whole.values())) + 1
    return [line for line in lines if line["seed"] in whole[line["cause"]][:most]]


def of_cause(rows: Rows, cause: str) -> Rows:
    found = {row: [line for line in lines if line["cause"] == cause] for row, lines in rows.items()}
    return {row: lines for row, lines in found.items() if lines}


def markdown(rows: list[list[str]]) -> list[str]:
    """The first is the head."""
    return ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]] + [""]


def by_region(rows: Rows, ours: tuple[str, str]) -> list[str]:
    """PSNR by region and what `ours` is beside it, best first where no keyframe shows anything."""
    table = [
        [
            "method",
            "restored",
            "scenes",
            *COLUMNS.values(),
            "NFE",
            "s",
            *(f"{OURS}: gain {c}" for c in COLUMNS.values()),
        ]
    ]
    for (name, restore), lines in sorted(rows.items(), key=lambda item: -mean(item[1], "all")):
        gains = ["" if (name, restore) == ours else gain(rows[ours], lines, c) for c in COLUMNS]
        values = ["" if (m := mean(lines, c)) != m else f"{m:.2f}" for c in COLUMNS]
        spent = [f"{mean(lines, 'evaluations'):.0f}", f"{mean(lines, 'seconds'):.2f}"]
        table.append([name, restore, str(len(lines)), *values, *spent, *gains])
    return markdown(table)


def gain(lines: list[Line], others: list[Line], column: str) -> str:
    try:
        return "{:+.2f} ({:+.2f} … {:+.2f})".format(*interval(lines, others, column))
    except ValueError:  # no scene has such a region
        return ""


def by_cause(rows: Rows, causes: list[str], column: str) -> list[str]:
    """PSNR of one region, a column each cause."""
    table = [["method", "restored", *causes]]
    for (name, restore), lines in sorted(rows.items(), key=lambda item: -mean(item[1], column)):
        values = [mean([x for x in lines if x["cause"] == cause], column) for cause in causes]
        table.append([name, restore, *("" if v != v else f"{v:.1f}" for v in values)])
    return markdown(table)


def losses(rows: Rows, restorations: list[str]) -> list[str]:
    """Of every method the scenes that the last restoration makes worse than the first, over all."""
    first, last = restorations[0], restorations[-1]
    table = [["method", "scenes", f"{last} over {first}", f"lose over {LOSS} dB", "worst", "by cause"]]
    for name in dict.fromkeys(name for name, restore in rows if restore == last and (name, first) in rows):
        before = {(line["cause"], line["seed"]): line["all"] for line in rows[name, first]}
        off = [
            (line["cause"], line["all"] - before[line["cause"], line["seed"]]) for line in rows[name, last]
        ]
        lost = Counter(cause for cause, gained in off if gained < -LOSS)
        causes = ", ".join(f"{cause} {count}" for cause, count in lost.most_common())
        of, gains = str(len(off)), [gained for _, gained in off]
        table.append(
            [name, of, f"{sum(gains) / len(gains):+.2f}", str(lost.total()), f"{min(gains):+.1f}", causes]
        )
    return markdown(table)


def main() -> None:
    """Read every results/test_*.jsonl and write the two files."""
    lines = [line for path in sorted(RESULTS.glob("test_*.jsonl")) for line in read(path)]
    if len({line["weights"] for line in lines}) != 1:
        raise SystemExit("results of several weights, or none: finish `run.py` before they are compared")
    rows, causes = grouped(lines), list(dict.fromkeys(line["cause"] for line in lines))
    evenly, restorations = even(lines), load_settings(HERE)["restorations"]
    best = (OURS, restorations[-1])
    head = (
        "PSNR to the truth in dB off the keyframes, by region: what the edit changes and no keyframe shows, what it "
        "changes and some keyframe shows, what it leaves alone. Rows `true_…` are oracles, `coded_truth` is the VAE. "
        "`warp_nearest` and `copy_source` are restored as what the VAE lost nothing of. Keyframes are aligned with "
        "their frames, but in rows `…_unaligned`."
    )
    text = [
        "# Hard edits",
        "",
        head,
        "",
        f"## All causes, beside {' restored by '.join(best)}",
        "",
        *by_region(grouped(evenly), best),
    ]
    text += ["## What restoring loses", "", *losses(grouped(evenly), restorations)]
    for column, title in COLUMNS.items():
        text += [f"## By cause: {title}", "", *by_cause(grouped(evenly), causes, column)]
    for cause in causes:
        text += [f"## {cause}", "", *by_region(of_cause(rows, cause), best)]
    write_text(RESULTS / "table.md", "\n".join(text).rstrip() + "\n")
    with (RESULTS / "results.csv").open("w", newline="") as file:
        names = ["cause", "seed", "edit", "method", "restore", *COLUMNS, "evaluations", "seconds"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(evenly)
    print("\n".join(text[: text.index(f"## {causes[0]}")]))


if __name__ == "__main__":
    main()
