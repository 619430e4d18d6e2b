"""Edit every case with every method: `python experiments/01_keyframe_propagation/run.py tune|choose|ablate|test|all`.

Each finished clip is one line of results/<name>.jsonl, which names the weights that it was made with; what is there
already is skipped, so a stopped run goes on, and what other weights made is made anew.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scenes import Case, cases
from torch.multiprocessing.spawn import spawn

from wanedit.files import digest
from wanedit.jobs.evaluate.metric import Inputs, SceneTruth, measure
from wanedit.lit.tasks import EditedClip, EditTask
from wanedit.video import from_uint8
from wanedit.wan.load import open_wan

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from court import (  # noqa: E402
    CEILING,
    ExperimentEditor,
    GivenEditor,
    Networks,
    Variant,
    build,
    load_settings,
    read,
    tidy,
    weights_of,
)

STAGES = ("tune", "choose", "ablate", "test")
RESULTS = HERE / "results"
# Methods that look at no keyframe but the first, or at none: edited once, measured at every spacing.
BLIND = (CEILING, "copy_source", "first_frame", "unseen_source_only")


def variants(settings: dict[str, Any], what: str) -> list[Variant]:
    """The methods as they are; or, to tune or to ablate, each with every value to be tried."""
    if what == "test":
        return [Variant(name, values) for name, values in settings["methods"].items()]
    return [
        Variant(name, settings["methods"][name] | changes)
        for name, tried in settings[what].items()
        for changes in tried
    ]


def work(part: int, what: str, given: argparse.Namespace) -> None:
    """Edit one process's share of the cases with every variant and append what is measured to its file of results."""
    settings, tuning = load_settings(HERE), what != "test"
    torch.set_num_threads(max(1, torch.get_num_threads() // given.jobs))
    split = "validation" if tuning else "test"
    count = given.scenes or settings["tuning_scenes" if tuning else "scenes"]
    settings["tuning"] = tuning
    if tuning:
        settings["spacings"] = settings["tuning_spacings"]
    tried, out = variants(settings, what), RESULTS / f"{what}_{part}.jsonl"
    folder = open_wan(settings["model"])
    settings["weights"] = weights_of(settings["model"])
    editors = {v.key: build(folder, v, settings) for v in tried if v.name != CEILING}
    networks = Networks(folder, given.compile)
    # By whichever process: the work may have been shared among another number of them.
    done = {line["id"] for path in RESULTS.glob(f"{what}_*.jsonl") for line in read(path)}
    drawn = cases(split, count, settings["edits"], settings["num_frames"], tuple(settings["size"]))
    for number, group in enumerate(drawn):
        if number % given.jobs == part:
            with out.open("a") as file:
                for line in edit_group(group, tried, editors, networks, settings, done):
                    file.write(json.dumps(line) + "\n")
                    file.flush()
            print(f"scene {number + 1} of {count}", flush=True)


def edit_group(
    group: list[Case],
    what: list[Variant],
    editors: dict[str, ExperimentEditor],
    networks: Networks,
    settings: dict[str, Any],
    done: set[str],
) -> Iterator[dict[str, Any]]:
    """Two lines, as edited and restored, for each edit, spacing and variant of a scene that is not done yet."""
    names = {
        (case.kind, variant.key, spacing): name
        for case in group
        for variant in what
        for spacing in settings["only_at"].get(variant.name, settings["spacings"])
        if (name := _name(case, variant, spacing)) not in done
    }
    if not names:
        return
    tasks = {(c.kind, s): c.task(s, settings["seed"]) for c in group for s in settings["spacings"]}
    networks.begin(list(tasks.values()))
    for case, variant in product(group, what):
        edited = None
        if variant.name == CEILING:
            editor = GivenEditor(networks, networks.owner.encode(from_uint8(case.truth)[None])[0])
        else:
            editor = editors[variant.key]
            editor.use(networks)
        # From the widest spacing to the narrowest, so that a blind method is not shown more than it is said to be.
        for spacing in sorted(settings["spacings"], reverse=True):
            task = tasks[case.kind, spacing]
            name = names.get((case.kind, variant.key, spacing))
            if name is None:
                continue
            kept = edited if variant.name in BLIND else None
            edited = editor.predict_step(task) if kept is None else kept
            about = {
                "id": name,
                "seed": case.seed,
                "edit": case.kind,
                "spacing": spacing,
                "method": variant.name,
                "weights": settings["weights"],
            }
            if settings["tuning"]:
                about["settings"] = variant.settings
            if edited.latents is not None:
                restored = GivenEditor(networks, edited.latents, "keyframes").predict_step(task)
                yield _line(about, "keyframes", restored, task, case) | {"evaluations": edited.evaluations}
            # Last, for it says that the pair is whole.
            yield _line(about, "none", edited, task, case)


def _name(case: Case, variant: Variant, spacing: int) -> str:
    """What a pair of lines is found by."""
    return digest({"what": [case.seed, case.kind, spacing, variant.key]})[:16]


def _line(
    about: dict[str, Any], restore: str, clip: EditedClip, task: EditTask, case: Case
) -> dict[str, Any]:
    return {
        **about,
        "restore": restore,
        "evaluations": clip.evaluations,
        "seconds": round(clip.seconds, 3),
        **measured(case, task.keyframe_indices, clip.frames),
    }


def measured(case: Case, indices: tuple[int, ...], video: np.ndarray) -> dict[str, Any]:
    """What `wanedit evaluate` measures of an edited clip against its exact truth, rounded for the record.

    Args:
        indices: of the keyframes.
        video: the edited clip, uint8 (T, H, W, 3).
    """
    keyframes = {index: case.truth[index] for index in indices}
    scene = SceneTruth(case.truth, case.changed, case.clip)
    inputs = Inputs(video, mask=case.changed, keyframes=keyframes, scene=scene)
    inner = any(0 < index < len(video) - 1 for index in indices)
    found, _ = measure(inputs, ["truth", "seams"] if inner else ["truth"])
    truth = found["truth"]
    by_distance = [value for place, value in truth["psnr_by_distance"].items() if place != "0"]
    return {
        "psnr": round(truth["psnr_off_keyframes"], 3),
        "ssim": round(truth["ssim_off_keyframes"], 4),
        "psnr_keyframes": round(truth["psnr_keyframes"], 3),
        # Of frames 1, 2, … away from a keyframe.
        "psnr_by_distance": [round(value, 2) for value in by_distance],
        # None where every pixel of every frame may change.
        "psnr_background": round(value, 3) if math.isfinite(value := truth["psnr_unchanged"]) else None,
        # In px of 64; None where no sprite can be followed.
        "centre_error": round(truth["centre_error"] * 64 / video.shape[2], 3)
        if "centre_error" in truth
        else None,
        "seam_ratio": round(found["seams"]["seam_ratio"], 3) if inner else None,
    }


def tuned(lines: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """For each tuned method the tried settings with the best mean PSNR off the keyframes, as edited."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for variant in variants(settings, "tune"):
        values = [
            line["psnr"]
            for line in lines
            if (line["method"], line["settings"], line["restore"]) == (variant.name, variant.settings, "none")
        ]
        if values and float(np.mean(values)) > best.get(variant.name, (-1.0, {}))[0]:
            best[variant.name] = float(np.mean(values)), variant.settings
    return {name: values for name, (_, values) in best.items()}


def main() -> None:
    """Parse and run; `choose` writes tuned.yaml from what was tried, `all` is everything one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=[*STAGES, "all"])
    parser.add_argument("--scenes", type=int, help="fewer scenes than settings.yaml says")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the scenes")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the networks: needs a C++ compiler"
    )
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for what in STAGES if given.what == "all" else [given.what]:
        if what == "choose":
            settings = yaml.safe_load((HERE / "settings.yaml").read_text())
            lines = [line for path in sorted(RESULTS.glob("tune_*.jsonl")) for line in read(path)]
            (HERE / "tuned.yaml").write_text(yaml.safe_dump(tuned(lines, settings)))
            continue
        tidy(RESULTS, what, weights_of(load_settings(HERE)["model"]))
        spawn(work, (what, given), nprocs=given.jobs)


if __name__ == "__main__":
    main()
