"""Edit drawn scenes that warping gets wrong: `python experiments/11_hard_edits/run.py --scenes 16 --jobs 2`.

Each result is one line of results/test_<part>.jsonl, which names the weights that it was made with; what is there
already is skipped, so a stopped run goes on, and more scenes are added to fewer.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scenes import CAUSES, Case, cases, sampled
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from wanedit.files import digest
from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel, at_slots
from wanedit.flow.path import Schedule
from wanedit.metrics.functional.fidelity import MOST
from wanedit.video import from_uint8
from wanedit.video.restoring import Restoration, Sight
from wanedit.wan.load import open_wan

HERE = Path(__file__).parent
RESULTS = HERE / "results"
sys.path.append(str(HERE.parent))
from court import (  # noqa: E402
    CEILING,
    ExperimentEditor,
    Networks,
    Variant,
    build,
    load_settings,
    read,
    tidy,
    weights_of,
)

# The method whose oracles are asked.
OURS = "covariance"
# Fewer pixels than this of a clip are no region.
LEAST_PIXELS = 50


@dataclass(frozen=True, eq=False)
class TrueTarget(Method):
    """A method that is steered to the truth's own latents in the place of its encoded keyframes."""

    method: Method
    truth: Tensor

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        return self.method(model, replace(edit, edited=at_slots(self.truth, edit.slots)), schedule, observe)


@dataclass(frozen=True, eq=False)
class TrueMotion(Restoration):
    """A restoration that is told where each keyframe is seen, and where it looks alike."""

    case: Case | None = None

    def seen(self, at: int, frames: range) -> Iterator[Sight]:
        assert self.case is not None
        k = self.indices.index(at)
        for t in frames:
            way = self.case.follow[t][k]
            yield Sight(abs(t - at), way.flow, (way.seen & way.alike).astype(np.float32))


def work(part: int, given: argparse.Namespace) -> None:
    """Edit one process's share of the scenes and append what is measured to its file of results."""
    torch.set_num_threads(1)
    settings = load_settings(HERE)
    tuned = load_settings(HERE.parent / "01_keyframe_propagation")["methods"]
    folder, weights = open_wan(settings["model"]), weights_of(settings["model"])
    variants = [Variant(name, tuned[name]) for name in settings["methods"]]
    editors = {v.name: build(folder, v, settings) for v in variants if v.name != CEILING}
    networks = Networks(folder, given.compile)
    done = {line["id"] for path in RESULTS.glob("test_*.jsonl") for line in read(path)}
    draw = [
        partial(cases, cause, given.scenes or settings["scenes"], settings["num_frames"], settings["size"])
        for cause in settings.get("causes", CAUSES)
    ]
    # One scene of every cause, then the next: a run that is stopped has as many of each.
    drawn = (case for group in zip(*(one() for one in draw), strict=True) for case in group)
    with (RESULTS / f"test_{part}.jsonl").open("a") as file:
        for number, case in enumerate(drawn):
            if number % given.jobs != part:
                continue
            for line in edited(case, variants, editors, networks, settings, done):
                file.write(json.dumps(line | {"weights": weights}) + "\n")
            file.flush()
            print(case.cause, case.seed, flush=True)


def edited(
    case: Case,
    variants: list[Variant],
    editors: dict[str, ExperimentEditor],
    networks: Networks,
    settings: dict[str, Any],
    done: set[str],
) -> Iterator[dict[str, Any]]:
    """The lines of one scene that are not there yet: of a method every restoration, and last as it is."""
    about = {"cause": case.cause, "seed": case.seed, "edit": case.kind}
    names = {
        v.name: digest({"what": [case.cause, case.seed, v.key, settings["restorations"]]})[:16]
        for v in variants
    }
    names |= {
        name: digest({"what": [case.cause, case.seed, name, names[OURS]]})[:16]
        for name in settings["oracles"]
    }
    if not set(names.values()) - done:
        return
    task = case.task(settings["seed"])
    true_task = replace(task, keyframes=case.truth[list(case.indices)])
    networks.begin([task, true_task])
    owner = networks.owner
    truth = networks.once("encode", from_uint8(case.truth)[None], owner.encode)
    coded = levels(networks, networks.once("encode", from_uint8(case.source)[None], owner.encode))

    def lines(
        name: str, latents: Tensor | None, frames: np.ndarray, evaluations: int, seconds: float
    ) -> Iterator[dict]:
        """Of one method; `frames` as it made them."""
        line = about | {"id": names[name], "method": name, "evaluations": evaluations}
        if latents is not None:
            for kind in settings["restorations"]:
                started = time.perf_counter()
                restored = Restoration(
                    levels(networks, latents[None]), coded, case.source, task.keyframes, case.indices, kind
                )
                better = restored.frames()
                took = round(time.perf_counter() - started, 3)
                yield line | {"restore": kind, "seconds": took, **measured(case, better)}
        yield line | {"restore": "none", "seconds": round(seconds, 3), **measured(case, frames)}

    ours = None
    for variant in variants:
        if variant.name == CEILING:
            frames = rounded(levels(networks, truth))
            yield from lines(CEILING, truth[0], frames, 0, 0.0)
            continue
        editor = editors[variant.name]
        editor.use(networks)
        made = editor.predict_step(task)
        if variant.name == OURS:
            ours = made
        yield from lines(variant.name, made.latents, made.frames, made.evaluations, made.seconds)
    assert ours is not None
    assert ours.latents is not None
    editor = editors[OURS]
    for name in settings["oracles"]:
        if name == "true_flow":
            yield from lines(name, None, warped(case), 0, 0.0)
        elif name == "true_visibility":
            source = Restoration(
                levels(networks, ours.latents[None]),
                coded,
                case.source,
                task.keyframes,
                case.indices,
                "source",
            )
            yield from lines(name, None, warped(case, source.frames()), ours.evaluations, 0.0)
        elif name == "true_motion":
            restored = TrueMotion(
                levels(networks, ours.latents[None]),
                coded,
                case.source,
                task.keyframes,
                case.indices,
                "keyframes",
                case,
            )
            yield from lines(name, None, restored.frames(), ours.evaluations, 0.0)
        elif name == "true_target":
            method = editor.method
            editor.method = TrueTarget(method, truth)
            made = editor.predict_step(task)
            editor.method = method
            yield from lines(name, made.latents, made.frames, made.evaluations, made.seconds)
        elif case.cause == "misregistered":
            made = editor.predict_step(true_task)
            yield from lines(name, made.latents, made.frames, made.evaluations, made.seconds)


def levels(networks: Networks, latents: Tensor) -> np.ndarray:
    """Decoded, (T, H, W, 3) in 0 … 255, not rounded."""
    video = networks.once("decode", latents, networks.owner.decode)[0]
    return np.ascontiguousarray(((video.float() + 1) * 127.5).movedim(0, -1).numpy())


def rounded(video: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)


def warped(case: Case, otherwise: np.ndarray | None = None) -> np.ndarray:
    """The nearest keyframe along the exact flow; or the mean of those that show a pixel, elsewhere `otherwise`."""
    made = np.empty(case.source.shape, np.float32)
    for t, ways in enumerate(case.follow):
        far = [abs(t - at) for at in case.indices]
        moved = [sampled(case.keyframes[k], case.at(t, k)).astype(np.float32) for k in range(len(ways))]
        if otherwise is None:
            made[t] = moved[int(np.argmin(far))]
            continue
        shares = [(way.seen & way.alike)[..., None] / max(d, 1e-3) for way, d in zip(ways, far, strict=True)]
        total = np.maximum(sum(shares), 1e-9)
        mean = sum(share * picture for share, picture in zip(shares, moved, strict=True)) / total
        made[t] = np.where(case.shown[t][..., None], mean, otherwise[t])
    return rounded(made)


def measured(case: Case, video: np.ndarray) -> dict[str, Any]:
    """PSNR in dB by region, over the frames that are no keyframes; None for regions of a few pixels."""
    error = np.square(video.astype(np.float64) - case.truth).mean(-1)
    inner = np.ones(len(error), bool)
    inner[list(case.indices)] = False
    inner = inner[:, None, None]
    found: dict[str, Any] = {}
    for name, region in regions(case).items():
        values = error[region & inner]
        enough = len(values) >= LEAST_PIXELS
        with np.errstate(divide="ignore"):
            found[name] = (
                round(float(min(10 * np.log10(255**2 / values.mean()), MOST)), 3) if enough else None
            )
    return found


def regions(case: Case) -> dict[str, np.ndarray]:
    """What is told apart: what the edit changes, shown in a keyframe or in none, what it does not; and all."""
    everything = np.ones(case.shown.shape, bool)
    return {
        "unshown": case.changed & ~case.shown,
        "shown": case.changed & case.shown,
        "background": ~case.changed,
        "all": everything,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, help="of each cause; fewer than settings.yaml says")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the scenes")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the networks: needs a C++ compiler"
    )
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    tidy(RESULTS, "test", weights_of(load_settings(HERE)["model"]))
    spawn(work, (given,), nprocs=given.jobs)


if __name__ == "__main__":
    main()
