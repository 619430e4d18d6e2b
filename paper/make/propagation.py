"""The propagation experiment: its numbers, two tables and two figures, from experiments/01_keyframe_propagation."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from paper.make.look import GREY, METHOD_STYLE, axes_row, save
from paper.make.records import PROPAGATION, number_or_none, read_csv, read_lines, read_yaml
from paper.make.statistics import Line, mean, paired
from paper.make.tex import Numbers, between, escape, signed, write_table

RESULTS = PROPAGATION / "results"
OURS = "covariance"
# Set before the experiment was run: dB above the best baseline of the literature.
BAR = 1.5
RESTORES = {"none": "as edited", "keyframes": "restored"}
# As the keys of numbers call them.
WAYS = {"as edited": "edited", "restored": "restored"}
# Methods that make pixels: there is nothing to restore, and they stand in both columns.
PIXELS = ("warp_nearest", "copy_source", "flf2v")
NAMES = {
    "coded_truth": "truth through the VAE",
    "warp_nearest": "warped nearest keyframe, no network",
    "covariance": "RCF + covariance control",
    "exponential": "RCF + exponential gain",
    "replacement": "RCF + replacement",
    "residual": "RCF + residual gain",
    "source_only": "RCF, no controller",
    "flowedit": "FlowEdit",
    "flowalign": "FlowAlign",
    "rf_inversion": "RF-Inversion",
    "sdedit": "SDEdit",
    "flf2v": "FLF2V between keyframes",
    "hard_replacement": "hard replacement",
    "first_frame": "first frame only",
    "copy_source": "copy of the source",
    "unseen_covariance": "RCF + covariance, keyframes not shown",
    "unseen_exponential": "RCF + exponential, keyframes not shown",
    "unseen_source_only": "RCF, no controller, keyframes not shown",
}
BLOCKS = (
    ("coded_truth", "warp_nearest", "copy_source"),
    ("covariance", "exponential", "replacement", "residual", "source_only"),
    ("flowedit", "flowalign", "rf_inversion", "sdedit", "hard_replacement", "flf2v", "first_frame"),
    ("unseen_covariance", "unseen_exponential", "unseen_source_only"),
)
BASELINES = BLOCKS[2]
Groups = dict[tuple[str, int, str], list[Line]]


def load() -> Groups:
    """(restore, spacing, method) -> its lines; methods that make pixels count as restored too."""
    groups: Groups = defaultdict(list)
    for cells in read_csv(RESULTS / "results.csv"):
        line: Line = {"seed": int(cells["seed"]), "edit": cells["edit"]}
        line |= {
            name: number_or_none(cells[name]) for name in ("psnr", "psnr_keyframes", "evaluations", "seconds")
        }
        groups[cells["restore"], int(cells["spacing"]), cells["method"]].append(line)
        if cells["method"] in PIXELS:
            groups["keyframes", int(cells["spacing"]), cells["method"]].append(line)
    return groups


def make(out: Path, numbers: Numbers) -> None:
    """All of it."""
    groups, settings = load(), read_yaml(PROPAGATION / "settings.yaml")
    _settings(numbers, settings, groups)
    _levels(numbers, groups, settings["spacings"])
    _gaps(numbers, groups, settings["spacings"])
    _table(out / "tables" / "propagation.tex", groups, settings["spacings"])
    _forest(out / "figures" / "propagation_gaps.pdf", groups, settings["spacings"])
    _distance(out / "figures" / "propagation_distance.pdf", max(settings["spacings"]))
    _changes(out / "tables" / "changes.tex", numbers, settings)


def _settings(numbers: Numbers, settings: dict[str, Any], groups: Groups) -> None:
    for key in ("scenes", "evaluations", "num_frames", "tuning_scenes"):
        numbers.add(f"propagation.{key}", settings[key])
    numbers.add("propagation.side", settings["size"][0])
    numbers.add("propagation.edits", len(settings["edits"]))
    numbers.add("propagation.clips", len(groups["none", settings["spacings"][0], OURS]))
    for name, spacing in zip(("near", "middle", "far"), settings["spacings"], strict=True):
        numbers.add(f"propagation.spacing.{name}", spacing)
        numbers.add(
            f"propagation.flf2v.{name}", f"{mean(groups['none', spacing, 'flf2v'], 'evaluations'):.0f}"
        )
    middle = settings["spacings"][1]
    numbers.add(
        "propagation.covariance.evaluations", f"{mean(groups['none', middle, OURS], 'evaluations'):.0f}"
    )
    numbers.add("propagation.bar", f"{BAR:g}")


def _levels(numbers: Numbers, groups: Groups, spacings: list[int]) -> None:
    """Mean PSNR of what the text names."""
    numbers.add("psnr.coded_truth", f"{mean(groups['none', spacings[0], 'coded_truth'], 'psnr'):.1f}")
    for name, spacing in zip(("near", "middle", "far"), spacings, strict=True):
        numbers.add(
            f"psnr.warp_nearest.{name}", f"{mean(groups['none', spacing, 'warp_nearest'], 'psnr'):.1f}"
        )
    for method in ("covariance", "exponential", "source_only"):
        for restore, word in RESTORES.items():
            value = mean(groups[restore, spacings[1], f"unseen_{method}"], "psnr")
            numbers.add(f"psnr.unseen_{method}.{WAYS[word]}", f"{value:.2f}")
    for name, spacing in zip(("near", "middle", "far"), spacings, strict=True):
        ceiling, ours = (mean(groups["none", spacing, m], "psnr") for m in ("coded_truth", OURS))
        numbers.add(f"psnr.headroom.{name}", f"{ceiling - ours:.1f}")


def best_baseline(groups: Groups, restore: str, spacing: int) -> str:
    """The baseline of the literature with the highest mean."""
    return max(BASELINES, key=lambda method: mean(groups[restore, spacing, method], "psnr"))


def _gaps(numbers: Numbers, groups: Groups, spacings: list[int]) -> None:
    """Ours against the best baseline, the others of interest, and what restoring brings."""
    met = [
        paired(groups["none", s, OURS], groups["none", s, best_baseline(groups, "none", s)]).mean >= BAR
        for s in spacings
    ]
    numbers.add("propagation.verdict", "met" if all(met) else "met in part" if any(met) else "missed")
    for restore, word in RESTORES.items():
        found = {best_baseline(groups, restore, spacing) for spacing in spacings}
        numbers.add(f"best.{WAYS[word]}", ", ".join(NAMES[name] for name in sorted(found)))
        for name, spacing in zip(("near", "middle", "far"), spacings, strict=True):
            ours = groups[restore, spacing, OURS]
            best = groups[restore, spacing, best_baseline(groups, restore, spacing)]
            numbers.add(f"gap.best.{WAYS[word]}.{name}", _gap(ours, best))
            for other in ("exponential", "warp_nearest") if restore == "none" else ("warp_nearest",):
                numbers.add(f"gap.{other}.{WAYS[word]}.{name}", _gap(ours, groups[restore, spacing, other]))


def _gap(ours: list[Line], theirs: list[Line]) -> str:
    found = paired(ours, theirs)
    return between(signed(found.mean), found.low, found.high)


def _table(path: Path, groups: Groups, spacings: list[int]) -> None:
    """Mean PSNR off the keyframes, every method, spacing and way."""
    header = ["method", *(f"every {s}" for _ in RESTORES for s in spacings), "NFE", "s"]
    blocks = [[_table_row(groups, method, spacings) for method in block] for block in BLOCKS]
    top = r"& \multicolumn{3}{c}{as edited} & \multicolumn{3}{c}{restored} & & \\ "
    top += r"\cmidrule(lr){2-4}\cmidrule(lr){5-7} "
    write_table(path, "l" + "r" * 8, [top + header[0], *header[1:]], blocks)


def _table_row(groups: Groups, method: str, spacings: list[int]) -> list[str]:
    cells = []
    for restore in RESTORES:
        for spacing in spacings:
            lines = groups.get((restore, spacing, method))
            cells.append(f"{mean(lines, 'psnr'):.2f}" if lines else "")
    middle = groups["none", spacings[1], method]
    return [NAMES[method], *cells, f"{mean(middle, 'evaluations'):.0f}", f"{mean(middle, 'seconds'):.1f}"]


def _forest(path: Path, groups: Groups, spacings: list[int]) -> None:
    """Paired differences of covariance control to the others, with intervals."""
    others = ["source_only", "exponential", *BASELINES]
    figure, axes = axes_row(len(spacings), 2.35, share_y=True)
    for axis, spacing in zip(axes, spacings, strict=True):
        for restore, colour, mark, shift in (
            ("none", "#0072B2", "o", -0.17),
            ("keyframes", "#D55E00", "s", 0.17),
        ):
            # What is not restored is not compared with what is.
            names = [m for m in others if restore == "none" or m not in PIXELS]
            found = [paired(groups[restore, spacing, OURS], groups[restore, spacing, m]) for m in names]
            means = np.array([gap.mean for gap in found])
            ends = np.abs(np.array([[gap.low, gap.high] for gap in found]).T - means)
            places = np.array([others.index(m) for m in names]) + shift
            axis.errorbar(
                means,
                places,
                xerr=ends,
                fmt=mark,
                color=colour,
                markersize=3.2,
                label=RESTORES[restore],
                lw=1,
            )
        axis.axvline(0, color="black", linewidth=0.8)
        axis.axvline(BAR, color=GREY, linewidth=0.8, linestyle=":")
        axis.set(xscale="symlog", title=f"a keyframe every {spacing} frames", xlim=(-0.5, 15))
        axis.set_xticks([0, 0.5, 1.5, 5, 10], ["0", "0.5", "1.5", "5", "10"])
        axis.minorticks_off()
    axes[0].set_yticks(range(len(others)), [NAMES[m] for m in others])
    axes[0].invert_yaxis()
    axes[1].set_xlabel("PSNR of RCF + covariance control above it, in dB")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(figure, path)


def _distance(path: Path, spacing: int) -> None:
    """PSNR by distance to the nearest keyframe, at the widest spacing."""
    lines = [x for x in read_lines(*sorted(RESULTS.glob("test_*.jsonl"))) if x["spacing"] == spacing]
    figure, axes = axes_row(2, 2.2, share_y=True)
    for axis, (restore, word) in zip(axes, RESTORES.items(), strict=True):
        for method, (colour, dash) in METHOD_STYLE.items():
            wanted = ("none", restore) if method in PIXELS else (restore,)
            curves = [
                x["psnr_by_distance"] for x in lines if x["method"] == method and x["restore"] in wanted
            ]
            if curves:
                curve = np.mean(curves, axis=0)
                label = NAMES[method].removesuffix(", no network")
                axis.plot(range(1, len(curve) + 1), curve, linestyle=dash, color=colour, label=label)
        axis.set(xlabel="frames from the nearest edited keyframe", title=word)
    axes[0].set_ylabel("PSNR to the truth in dB")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(figure, path)


def _changes(path: Path, numbers: Numbers, settings: dict[str, Any]) -> None:
    """One setting changed at a time: difference to the tuned method."""
    lines = read_lines(*sorted(RESULTS.glob("ablate_*.jsonl")))
    tuned = read_yaml(PROPAGATION / "tuned.yaml")
    blocks = []
    for method in ("covariance", "exponential"):
        base = settings["methods"][method] | tuned[method]
        tried = {_frozen(x["settings"]): x["settings"] for x in lines if x["method"] == method}
        tried.pop(_frozen(base))
        shown = [after for after in tried.values() if changed(base, after) not in LEFT_OUT]
        blocks.append([_change(lines, method, base, after, numbers) for after in shown])
    header = ["method", "changed", "NFE", *(f"{word}, dB" for word in RESTORES.values())]
    write_table(path, "llrll", header, blocks)


def _change(
    lines: list[Line], method: str, base: dict[str, Any], after: dict[str, Any], numbers: Numbers
) -> list[str]:
    what = changed(base, after)
    cells = [method, escape(what), ""]
    for restore, word in RESTORES.items():
        ours, theirs = (
            [x for x in lines if (x["method"], x["restore"], x["settings"]) == (method, restore, s)]
            for s in (after, base)
        )
        found = paired(ours, theirs)
        cells[2] = f"{mean(ours, 'evaluations'):.0f}"
        cells.append(between(signed(found.mean), found.low, found.high))
        if (method, word, what) in NAMED_CHANGES:
            numbers.add(f"change.{NAMED_CHANGES[method, word, what]}", signed(found.mean, 1))
    return cells


def _frozen(settings: dict[str, Any]) -> str:
    return repr(sorted((name, repr(value)) for name, value in settings.items()))


# (method, way, changed) -> the key under which the text names the difference.
NAMED_CHANGES = {
    ("covariance", "as edited", "encoding single"): "single",
    ("covariance", "as edited", "lambda 0.5"): "half",
    ("covariance", "as edited", "lambda 0"): "zero",
    ("covariance", "as edited", "one draw of noise"): "draw",
    ("covariance", "as edited", "edit branch denoised, ids by slot"): "denoised",
    ("covariance", "as edited", "keyframes not shown"): "unseen",
    ("covariance", "as edited", "control from sigma 0.3"): "late",
    ("covariance", "as edited", "strength 0.8"): "strength",
}


# What the table leaves out for room; it is in the experiment's own.
LEFT_OUT = (
    "edit branch denoised, ids by frame",
    "6 steps, central differences",
    "tau 0.3",
    "control from sigma 0.6",
)


def changed(base: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs, in the words of the paper."""
    old, new = (
        {**s, **s.get("method_options", {}), **s.get("controller_options", {})} for s in (base, after)
    )
    words = []
    for name, value in new.items():
        if name in ("method_options", "controller_options") or old.get(name) == value:
            continue
        words.append(WORDS[name](value))
    # Lambda below one goes only with one draw of noise, so that need not be said.
    return ", ".join(
        w for w in words if w and not (w == WORDS["renew_noise"](False) and "source_weight" in new)
    )


WORDS = {
    "keyframe_encoding": lambda v: f"encoding {v}",
    "condition_keyframes": lambda v: "keyframes not shown",
    "renew_noise": lambda v: "one draw of noise",
    "source_weight": lambda v: f"lambda {v:g}",
    "edit_branch": lambda v: f"edit branch {v}",
    "keyframe_ids": lambda v: f"ids by {v}",
    "strength": lambda v: f"strength {v:g}",
    "derivative": lambda v: f"{v} differences",
    "steps": lambda v: f"{v} steps",
    "tau": lambda v: f"tau {v:g}",
    "below": lambda v: f"control from sigma {v:g}",
}
