"""Table and curve of the recorded results: `python experiments/01_keyframe_propagation/table.py`.

Writes results/table.md, results/results.csv and results/distance.png. Means are over scenes and edits; intervals are
95 % percentile bootstraps over scenes, of the paired difference to the method named OURS.
"""

import csv
from collections import defaultdict
from typing import Any

import numpy as np
from run import BLIND, RESULTS, load_settings, read

OURS = "covariance"
DRAWS = 2000
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
# Okabe and Ito's colours, which are told apart by everybody.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Line = dict[str, Any]


def spread_over_spacings(lines: list[Line], spacings: list[int]) -> list[Line]:
    """A method that looks at no inner keyframe was run once: its line stands for every spacing."""
    more = [
        line | {"spacing": spacing}
        for line in lines
        if line["method"] in BLIND
        for spacing in spacings
        if spacing != line["spacing"]
    ]
    return lines + more


def mean(lines: list[Line], name: str) -> float:
    """Of the lines that have this value."""
    values = [line[name] for line in lines if line[name] is not None]
    return float(np.mean(values)) if values else float("nan")


def interval(lines: list[Line], others: list[Line]) -> tuple[float, float]:
    """95 % of the mean PSNR difference `lines` - `others`, resampling scenes: edits of a scene are not independent."""
    ours = {(x["seed"], x["edit"]): x["psnr"] for x in lines}
    gaps: dict[int, list[float]] = defaultdict(list)
    for x in others:
        if (x["seed"], x["edit"]) in ours:
            gaps[x["seed"]].append(ours[x["seed"], x["edit"]] - x["psnr"])
    means = np.array([np.mean(values) for values in gaps.values()])
    draws = np.random.default_rng(0).choice(means, (DRAWS, len(means))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def rows(lines: list[Line], spacings: list[int]) -> list[list[str]]:
    """One row for each spacing and method, best first."""
    made = []
    for spacing in spacings:
        groups: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            if line["spacing"] == spacing:
                groups[line["method"]].append(line)
        for name, group in sorted(groups.items(), key=lambda item: -mean(item[1], "psnr")):
            low, high = interval(group, groups[OURS]) if name != OURS and OURS in groups else (0.0, 0.0)
            gap = "" if name == OURS else f"{low:+.2f} … {high:+.2f}"
            values = [f"{mean(group, column):.2f}" for column in COLUMNS]
            made.append([str(spacing), name, str(len(group)), *values, gap])
    return made


def draw_distance(lines: list[Line], path: Any) -> None:
    """PSNR against the distance to the nearest keyframe, at the widest spacing."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    widest = max(line["spacing"] for line in lines)
    groups: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["spacing"] == widest:
            groups[line["method"]].append(line)
    figure, axes = plt.subplots(figsize=(9, 5))
    for k, (name, group) in enumerate(sorted(groups.items(), key=lambda item: -mean(item[1], "psnr"))):
        places = sorted(map(int, group[0]["psnr_by_distance"]))
        curve = [np.mean([x["psnr_by_distance"][str(d)] for x in group]) for d in places]
        style = ("-", "--", ":")[k // len(PALETTE)]
        axes.plot(places[1:], curve[1:], style, color=PALETTE[k % len(PALETTE)], label=name)
    axes.set(xlabel="frames from the nearest edited keyframe", ylabel="PSNR to the truth in dB")
    axes.grid(alpha=0.3)
    axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    figure.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Read every results/test_*.jsonl and write the three files."""
    spacings = load_settings()["spacings"]
    lines = [line for path in sorted(RESULTS.glob("test_*.jsonl")) for line in read(path)]
    lines = spread_over_spacings(lines, spacings)
    header = ["spacing", "method", "clips", *COLUMNS.values(), f"PSNR against {OURS}, 95 %"]
    table = rows(lines, spacings)
    text = "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *table])
    (RESULTS / "table.md").write_text(text + "\n")
    with (RESULTS / "results.csv").open("w", newline="") as file:
        names = ["seed", "edit", "spacing", "method", *COLUMNS]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    draw_distance(lines, RESULTS / "distance.png")
    print(text)


if __name__ == "__main__":
    main()
