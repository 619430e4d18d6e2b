"""Edit every case with every method: `python experiments/01_keyframe_propagation/run.py tune|test`.

Each finished clip is one line of results/<name>.jsonl; what is there already is skipped, so a stopped run goes on. Two
processes may share the work: `--part 0 --parts 2` and `--part 1 --parts 2`.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measure import measure
from scenes import Case, cases

from wanedit.lit.editing.editor import EditSettings, FlowMatchingEditor
from wanedit.run.edit_config import EditConfig
from wanedit.run.edit_plan import build_method
from wanedit.wan.load import WanFolder, open_wan

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# Methods that do not look at keyframes between the first and the last, or at none, give one answer for all spacings.
BLIND = ("copy_source", "sdedit", "flowedit", "flowalign", "first_frame")


@dataclass(frozen=True)
class Variant:
    """A method with its settings, under the name that the table gives it."""

    name: str
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """Names the variant in results."""
        return json.dumps([self.name, self.settings], sort_keys=True)


def load_settings() -> dict[str, Any]:
    """settings.yaml, and tuned.yaml over its methods where that exists."""
    settings = yaml.safe_load((HERE / "settings.yaml").read_text())
    tuned = HERE / "tuned.yaml"
    if tuned.exists():
        for name, values in yaml.safe_load(tuned.read_text()).items():
            settings["methods"][name] |= values
    return settings


def variants(settings: dict[str, Any], tuning: bool) -> list[Variant]:
    """The methods as they are; or, tuning, each with every value to be tried."""
    if not tuning:
        return [Variant(name, values) for name, values in settings["methods"].items()]
    return [
        Variant(name, settings["methods"][name] | changes)
        for name, tried in settings["tune"].items()
        for changes in tried
    ]


def build(folder: WanFolder, variant: Variant, settings: dict[str, Any]) -> FlowMatchingEditor:
    """The editor of one variant, not loaded."""
    values = dict(variant.settings)
    steps = values.pop("steps")
    config = EditConfig(video="-", base_seed=settings["seed"], **values)
    method = build_method(config)
    scale = settings["cfg_scale"]
    sampler = EditSettings(steps, settings["shift"], scale, scale, getattr(method, "solver", "euler"))
    return FlowMatchingEditor(folder, method, sampler)


def run(
    split: str, count: int, what: list[Variant], settings: dict[str, Any], out: Path, share: tuple[int, int]
) -> None:
    """Edit this process's share of the cases with every variant and append what is measured to `out`."""
    folder = open_wan(settings["model"])
    editors = {variant.key: build(folder, variant, settings) for variant in what}
    done = {line["id"] for line in read(out)}
    drawn = cases(split, count, settings["edits"], settings["num_frames"], tuple(settings["size"]))
    for number, group in enumerate(drawn):
        if number % share[1] == share[0]:
            with out.open("a") as file:
                for line in edit_group(group, what, editors, settings, done):
                    file.write(json.dumps(line) + "\n")
                    file.flush()
            print(f"scene {number + 1} of {count}", flush=True)


def edit_group(
    group: list[Case],
    what: list[Variant],
    editors: dict[str, FlowMatchingEditor],
    settings: dict[str, Any],
    done: set[str],
) -> Iterator[dict[str, Any]]:
    """One line for each edit, spacing and variant of a scene that is not done yet."""
    todo = [
        (case, spacing, variant, name)
        for case in group
        for spacing in settings["spacings"]
        for variant in what
        for name in [json.dumps([case.seed, case.kind, spacing, variant.key])]
        if name not in done and not (variant.name in BLIND and spacing != settings["spacings"][-1])
    ]
    if not todo:
        return
    tasks = {(c.kind, s): c.task(s, settings["seed"]) for c, s, _, _ in todo}
    loaded = next(iter(editors.values()))
    loaded.load(list(tasks.values()))
    for case, spacing, variant, name in todo:
        editor, task = editors[variant.key], tasks[case.kind, spacing]
        editor.transformer, editor.vae, editor.conditioning = *loaded.loaded(), loaded.conditioning
        clip = editor.edit(task)
        yield {
            "id": name,
            "seed": case.seed,
            "edit": case.kind,
            "spacing": spacing,
            "method": variant.name,
            "settings": variant.settings,
            "evaluations": clip.evaluations,
            "seconds": round(clip.seconds, 3),
            **measure(case, task.keyframe_indices, clip.frames),
        }


def read(path: Path) -> list[dict[str, Any]]:
    """The finished lines of a results file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tuned(lines: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """For each tuned method the tried settings with the best mean PSNR off the keyframes."""
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for variant in variants(settings, True):
        values = [
            x["psnr"] for x in lines if (x["method"], x["settings"]) == (variant.name, variant.settings)
        ]
        if values and float(np.mean(values)) > best.get(variant.name, (-1.0, {}))[0]:
            best[variant.name] = float(np.mean(values)), variant.settings
    return {name: values for name, (_, values) in best.items()}


def main() -> None:
    """Parse, run, and after tuning write tuned.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["tune", "test"])
    parser.add_argument("--scenes", type=int, help="fewer scenes than settings.yaml says")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    given = parser.parse_args()
    settings, tuning = load_settings(), given.what == "tune"
    torch.set_num_threads(max(1, torch.get_num_threads() // given.parts))
    RESULTS.mkdir(exist_ok=True)
    split = "validation" if tuning else "test"
    count = given.scenes or settings["tuning_scenes" if tuning else "scenes"]
    out = RESULTS / f"{given.what}_{given.part}.jsonl"
    run(split, count, variants(settings, tuning), settings, out, (given.part, given.parts))
    if tuning:
        lines = [line for path in sorted(RESULTS.glob("tune_*.jsonl")) for line in read(path)]
        (HERE / "tuned.yaml").write_text(yaml.safe_dump(tuned(lines, settings)))


if __name__ == "__main__":
    main()
