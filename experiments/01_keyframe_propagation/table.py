"""Tables and curves of the recorded results: `python experiments/01_keyframe_propagation/table.py`.

Writes results/table.md, results/results.csv and results/distance.png. Means are over scenes and edits; intervals are
95 % percentile bootstraps over scenes, of the paired difference to the method named OURS.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from run import CEILING, HERE, RESULTS, Variant, load_settings, read, variants

sys.path.append(str(HERE.parent))
from court import interval, mean

OURS = "covariance"
COLUMNS = {
    "psnr": "PSNR off keyframes",
    "ssim": "SSIM",
    "psnr_keyframes": "at keyframes",
    "psnr_background": "background",
    "centre_error": "centre error px",
    "seam_ratio": "seam ratio",
    "evaluations": "NFE",
    "seconds": "s",
}
TITLES = {
    "none": "As edited",
    "keyframes": "With pixels restored (`--restore keyframes`); the trivial methods have none to restore",
}
# What is said first: OURS and the others, as edited or restored.
COMPARED = {
    "Covariance control against the others, all as edited": ("none", "none"),
    "The same, all restored": ("keyframes", "keyframes"),
    "Covariance control restored, the others as edited: most of this is restoration": ("keyframes", "none"),
}
# Okabe and Ito's colours, which are told apart by everybody.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Line = dict[str, Any]
Groups = dict[tuple[str, int], dict[str, list[Line]]]


def grouped(lines: list[Line], spacings: list[int]) -> Groups:
    """(restore, spacing) -> method -> its lines.

    A method that makes pixels has nothing to restore and stands in both tables.
    """
    groups: Groups = {(restore, s): defaultdict(list) for restore in TITLES for s in spacings}
    restored = {line["method"] for line in lines if line["restore"] != "none"}
    for line in lines:
        groups[line["restore"], line["spacing"]][line["method"]].append(line)
        if line["method"] not in restored:
            groups["keyframes", line["spacing"]][line["method"]].append(line)
    return groups


def table(groups: dict[str, list[Line]], spacing: int) -> list[str]:
    """Markdown, best first."""
    header = ["method", "clips", *COLUMNS.values(), f"PSNR against {OURS}, 95 %"]
    rows = [header, ["---"] * len(header)]
    for name, group in sorted(groups.items(), key=lambda item: -mean(item[1], "psnr")):
        gap = ""
        if name != OURS and OURS in groups:
            gap = "{:+.2f} ({:+.2f} … {:+.2f})".format(*interval(group, groups[OURS]))
        values = [f"{mean(group, c):.3f}" if c == "ssim" else f"{mean(group, c):.2f}" for c in COLUMNS]
        rows.append([name, str(len(group)), *values, gap])
    return [
        f"### A keyframe every {spacing} frames",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def gains(groups: Groups, spacings: list[int], ours: str, theirs: str) -> list[str]:
    """What OURS, restored as `ours` says, gains on every other method, restored as `theirs` says."""
    others = [
        n for n in groups["none", spacings[0]] if n not in (OURS, CEILING) and not n.startswith("unseen")
    ]
    rows = [["against", *(f"every {s}" for s in spacings)], ["---"] * (len(spacings) + 1)]
    for name in others:
        pairs = [(groups[ours, s][OURS], groups[theirs, s][name]) for s in spacings]
        gaps = ["{:+.2f} ({:+.2f} … {:+.2f})".format(*interval(*pair)) if pair[1] else "" for pair in pairs]
        rows.append([name, *gaps])
    return ["| " + " | ".join(row) + " |" for row in rows]


def ablations(lines: list[Line], settings: dict[str, Any]) -> list[str]:
    """Markdown: one thing changed at a time, and its paired difference to the tuned method, as edited and restored."""
    rows = [
        ["method", "changed", "NFE", *(f"PSNR {title}" for title in ("as edited", "restored"))],
        ["---"] * 5,
    ]
    for variant in variants(settings, "ablate"):
        tuned = Variant(variant.name, settings["methods"][variant.name])
        row = [variant.name, changed(tuned.settings, variant.settings) or "nothing"]
        for restore in TITLES:
            group, base = (
                [
                    x
                    for x in lines
                    if (x["method"], x["settings"], x["restore"]) == (v.name, v.settings, restore)
                ]
                for v in (variant, tuned)
            )
            if restore == "none":
                row.append(f"{mean(group, 'evaluations'):.0f}")
            gap = "" if variant == tuned else " ({:+.2f}, {:+.2f} … {:+.2f})".format(*interval(group, base))
            row.append(f"{mean(group, 'psnr'):.2f}{gap}")
        rows.append(row)
    return ["| " + " | ".join(row) + " |" for row in rows]


def changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The settings, and the single options, that are not as before."""
    found = []
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict):
            old = old or {}
            found += [f"{option} {new}" for option, new in value.items() if old.get(option) != new]
            found += [f"no {option}" for option in old if option not in value]
        elif value != old:
            found.append(f"{name} {value}")
    return ", ".join(found)


def draw_distance(groups: Groups, widest: int, path: Path) -> None:
    """PSNR against the distance to the nearest keyframe, at the widest spacing, as edited and restored."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(13, 5), sharey=True)
    names = [n for n in groups["none", widest] if not n.startswith("unseen")]
    for axes, restore, title in zip(both, TITLES, ("as edited", "pixels restored"), strict=True):
        for k, name in enumerate(names):
            curve = np.mean([x["psnr_by_distance"] for x in groups[restore, widest][name]], axis=0)
            style, width = ("-", "--", ":")[k // len(PALETTE)], 3 if name == OURS else 1.3
            colour = PALETTE[k % len(PALETTE)]
            axes.plot(range(1, len(curve) + 1), curve, style, color=colour, linewidth=width, label=name)
        axes.set(xlabel="frames from the nearest edited keyframe", title=title)
        axes.grid(alpha=0.3)
    both[0].set_ylabel("PSNR to the truth in dB")
    both[1].legend(bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Read every results/test_*.jsonl and write the three files."""
    settings = load_settings(HERE)
    spacings = settings["spacings"]
    lines = [line for path in sorted(RESULTS.glob("test_*.jsonl")) for line in read(path)]
    tried = [line for path in sorted(RESULTS.glob("ablate_*.jsonl")) for line in read(path)]
    if len({line.get("weights") for line in (*lines, *tried)}) > 1:
        raise SystemExit("results of several weights: finish `run.py all` before they are compared")
    groups = grouped(lines, spacings)
    text = [
        "Differences in PSNR off the keyframes in dB, with 95 % intervals. Restored, every method of "
        "latents has the same help; copy_source, warp_nearest and flf2v make pixels, which nothing restores: their "
        "rows are the same in both.",
        "",
    ]
    for title, (ours, theirs) in COMPARED.items():
        text += [f"## {title}", "", *gains(groups, spacings, ours, theirs), ""]
    if tried:
        text += ["## One thing changed at a time, a keyframe every 16 frames of the tuning scenes", ""]
        text += [*ablations(tried, settings), ""]
    for restore, title in TITLES.items():
        text += ["", f"## {title}", ""]
        for spacing in spacings:
            text += table(groups[restore, spacing], spacing)
    (RESULTS / "table.md").write_text("\n".join(text) + "\n")
    with (RESULTS / "results.csv").open("w", newline="") as file:
        names = ["seed", "edit", "spacing", "method", "restore", *COLUMNS]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    draw_distance(groups, max(spacings), RESULTS / "distance.png")
    print("\n".join(text))


if __name__ == "__main__":
    main()
