"""Edits that warping gets wrong: a table, a figure by cause and the numbers, from experiments/11_hard_edits.

In two minutes on two cores `python -m paper.make.hard_edits` edits one scene of every cause and writes
paper/records/hard_frames.png, a column of frames for each, and hard_frames.json, which says what they are.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from paper.make.look import BLACK, BLUE, GREEN, RED, axes_row, draw_strips, save, write_strips
from paper.make.propagation import BAR, BASELINES, NAMES, OURS, PIXELS
from paper.make.records import (
    HARD_EDITS,
    HARD_FRAMES,
    PROPAGATION,
    ROOT,
    need,
    number_or_none,
    read_csv,
    read_json,
    read_yaml,
)
from paper.make.statistics import Line, mean, paired
from paper.make.tex import Numbers, between, escape, signed, write_table

REGIONS = {"unshown": "in no keyframe", "shown": "in a keyframe", "background": "not edited", "all": "all"}
ORACLES = {
    "coded_truth": "truth through the VAE",
    "true_flow": "warp, true flow",
    "true_visibility": "true flow and visibility",
    "true_motion": "restored by true flow and visibility",
    "true_target": "controller steered to the truth",
    "true_keyframes": "keyframes in register",
}
BLOCKS = (
    tuple(ORACLES),
    ("warp_nearest", "copy_source", "flf2v"),
    (OURS, "exponential", "source_only"),
    tuple(name for name in BASELINES if name != "flf2v"),
)
# (method, restoration) -> its lines.
Rows = dict[tuple[str, str], list[Line]]


def load() -> Rows:
    """Every line of the record; a scene is a cause and a seed."""
    rows: Rows = defaultdict(list)
    for cells in read_csv(HARD_EDITS / "results" / "results.csv"):
        line: Line = {"cause": cells["cause"], "seed": (cells["cause"], cells["seed"]), "edit": cells["edit"]}
        line |= {name: number_or_none(cells[name]) for name in (*REGIONS, "evaluations", "seconds")}
        rows[cells["method"], cells["restore"]].append(line)
    return dict(rows)


def make(out: Path, numbers: Numbers) -> None:
    """All of it."""
    rows, restored = load(), read_yaml(HARD_EDITS / "settings.yaml")["restorations"][-1]
    ours = rows[OURS, restored]
    tried = [name for name in BASELINES if (name, "none") in rows]
    best = max(tried, key=lambda name: mean(_restored(rows, name, restored), "unshown"))
    rivals = {
        "warp": rows["warp_nearest", restored],
        "best": _restored(rows, best, restored),
        "alone": rows["copy_source", restored],
    }
    _numbers(numbers, ours, rivals, rows, best)
    for region in ("unshown", "shown", "background"):
        gap = paired(ours, rows[OURS, "keyframes"], region)
        numbers.add(f"hard.gap.before.{region}", between(signed(gap.mean), gap.low, gap.high))
    _table(out / "tables" / "hard_edits.tex", rows, restored)
    _forest(out / "figures" / "hard_edits.pdf", ours, rivals)
    draw_strips(
        need(HARD_FRAMES), read_json(HARD_FRAMES.with_suffix(".json")), out / "figures" / "hard_frames.pdf"
    )


def _restored(rows: Rows, method: str, kind: str) -> list[Line]:
    """A method's restored lines; of what makes pixels, which nothing restores, those that there are."""
    return rows[method, "none" if method in PIXELS else kind]


def _numbers(
    numbers: Numbers, ours: list[Line], rivals: dict[str, list[Line]], rows: Rows, best: str
) -> None:
    causes = list(dict.fromkeys(line["cause"] for line in ours))
    numbers.add("hard.causes", len(causes))
    numbers.add("hard.scenes", min(sum(line["cause"] == cause for line in ours) for cause in causes))
    numbers.add("hard.best", NAMES[best])
    gaps = {name: paired(ours, theirs, "unshown") for name, theirs in rivals.items()}
    numbers.add("hard.bar", f"{BAR:g}")
    for name in ("warp", "best"):
        met = gaps[name].mean >= BAR and gaps[name].low > 0
        numbers.add(f"hard.verdict.{name}", "met" if met else "missed")
    for name, theirs in rivals.items():
        for region in ("unshown", "shown", "background"):
            gap = paired(ours, theirs, region)
            numbers.add(f"hard.gap.{name}.{region}", between(signed(gap.mean), gap.low, gap.high))
    told = {"unshown": ("coded_truth", "true_target"), "shown": ("true_motion", "true_visibility")}
    for region, oracles in told.items():
        numbers.add(f"hard.ours.{region}", f"{mean(ours, region):.1f}")
        for oracle in oracles:
            numbers.add(f"hard.{oracle}.{region}", f"{mean(rows[oracle, 'none'], region):.1f}")


def _table(path: Path, rows: Rows, restored: str) -> None:
    """Mean PSNR by region, every method, as edited and restored."""
    top = r"& \multicolumn{4}{c}{as edited} & \multicolumn{4}{c}{restored} & \\ "
    top += r"\cmidrule(lr){2-5}\cmidrule(lr){6-9} "
    header = [top + "method", *(escape(name) for _ in range(2) for name in REGIONS.values()), "NFE"]
    blocks = [
        [_table_row(rows, method, restored) for method in block if (method, "none") in rows]
        for block in BLOCKS
    ]
    write_table(path, "l" + "r" * 9, header, blocks)


def _table_row(rows: Rows, method: str, restored: str) -> list[str]:
    cells = []
    for kind in ("none", restored):
        lines = rows.get((method, kind), [])
        cells += [f"{mean(lines, region):.2f}".replace("nan", "") for region in REGIONS]
    return [(NAMES | ORACLES)[method], *cells, f"{mean(rows[method, 'none'], 'evaluations'):.0f}"]


def _forest(path: Path, ours: list[Line], rivals: dict[str, list[Line]]) -> None:
    """Ours restored, minus each rival, by cause and region; right of zero is better."""
    causes = list(dict.fromkeys(line["cause"] for line in ours))
    looks = {
        "warp": (GREEN, "o", "than the warp"),
        "best": (RED, "s", "than the best baseline"),
        "alone": (BLUE, "^", "than the source, no model"),
    }
    regions = ("unshown", "shown", "background")
    figure, axes = axes_row(len(regions), 2.6, share_y=True)
    for axis, region in zip(axes, regions, strict=True):
        for shift, (name, (colour, mark, label)) in zip((-0.22, 0.0, 0.22), looks.items(), strict=True):
            for place, cause in enumerate((*causes, None)):
                mine, theirs = (_of_cause(lines, cause) for lines in (ours, rivals[name]))
                try:
                    gap = paired(mine, theirs, region)
                except ValueError:  # a cause may have no such region
                    continue
                axis.plot([gap.low, gap.high], [place + shift] * 2, color=colour, linewidth=1.2)
                axis.plot(
                    gap.mean,
                    place + shift,
                    mark,
                    color=colour,
                    markersize=3.4,
                    label=label if place == 0 else None,
                )
        axis.axvline(0, color=BLACK, linewidth=0.8)
        axis.axhline(len(causes) - 0.5, color=BLACK, linewidth=0.5)
        axis.set_title(REGIONS[region])
    axes[0].axvline(BAR, color=BLACK, linewidth=0.8, linestyle=":")
    axes[0].set_yticks(range(len(causes) + 1), [*causes, "all causes"])
    axes[0].invert_yaxis()
    axes[1].set_xlabel("PSNR of RCF + covariance control, all restored: dB more")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(figure, path)


def _of_cause(lines: Iterable[Line], cause: str | None) -> list[Line]:
    return [line for line in lines if cause in (None, line["cause"])]


def record() -> None:
    """Edit, and write the record: of every cause its first scene, where the edit is seen in no keyframe most."""
    from wanedit.wan.load import open_wan

    sys.path += [str(HARD_EDITS), str(HARD_EDITS.parent)]
    from court import Networks, Variant, build, load_settings  # pyright: ignore[reportMissingImports]
    from scenes import CAUSES, cases  # pyright: ignore[reportMissingImports]

    settings, methods = load_settings(HARD_EDITS), load_settings(PROPAGATION)["methods"]
    folder = open_wan(settings["model"])
    networks, restored = Networks(folder, False), settings["restorations"][-1]
    tried = {
        "warp": Variant("warp", methods["warp_nearest"]),
        "ours": Variant("ours", methods[OURS]),
    }
    editors = {row: build(folder, variant, settings) for row, variant in tried.items()}
    editors["ours"].settings = replace(editors["ours"].settings, restore=restored)
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for cause in CAUSES:
        case = next(cases(cause, 1, settings["num_frames"], settings["size"]))
        unshown = case.changed & ~case.shown
        t = int(unshown[1:-1].sum((1, 2)).argmax()) + 1 if unshown.any() else len(unshown) // 2
        rows["keyframe"].append(case.keyframes[0])
        rows["truth"].append(case.truth[t])
        rows["unseen"].append(np.where(unshown[t][..., None], case.truth[t], np.uint8(245)))
        task = case.task(settings["seed"])
        networks.begin([task])
        for row, editor in editors.items():
            editor.use(networks)
            rows[row].append(np.asarray(editor.predict_step(task).frames[t]))
        print(cause, t, flush=True)
    write_strips(HARD_FRAMES, rows, list(CAUSES), settings["size"][1], {})
    print(f"{HARD_FRAMES.relative_to(ROOT)}: {HARD_FRAMES.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    record()
