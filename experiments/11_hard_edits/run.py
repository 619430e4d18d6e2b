"""Edit drawn scenes that warping gets wrong: `python experiments/11_hard_edits/run.py --scenes 16 --jobs 2`.

Each result is one line of results/test_<part>.jsonl, which names the weights that it was made with; what is there
already is skipped, so a stopped run goes on, and more scenes are added to fewer.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scenes import CAUSES, Case, cases, sampled
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from wanedit.files import atomic_path, digest
from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel, at_slots
from wanedit.flow.path import Schedule
from wanedit.metrics.functional.fidelity import MOST
from wanedit.video import from_uint8
from wanedit.video.aligning import align
from wanedit.video.restoring import Restoration, Restore, Restored, Sight, light_gain
from wanedit.wan.load import open_wan

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# What was sampled; not of the record.
KEPT = HERE.parent.parent / "outputs" / "11_hard_edits"
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
# Oracles of warp and restoration themselves, and what has no pixels of its own to restore.
UNRESTORED = ("flf2v", "true_flow", "true_visibility", "true_motion")
# A row of the keyframes as they are given, where the others have them aligned, is a method's with this behind its name.
UNALIGNED = "_unaligned"
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


# Sights by the kind of a restoration, the keyframe and the frames; and the seconds that they took.
Motion = dict[tuple[Restored, int, range], tuple[list[Sight], float]]


@dataclass(frozen=True, eq=False)
class Following(Restoration):
    """A restoration that remembers motion: it is the source's own, and the same beside every method."""

    motion: Motion = field(default_factory=dict)

    def seen(self, at: int, frames: range) -> Iterator[Sight]:
        key = self.kind, at, frames
        if key not in self.motion:
            started = time.perf_counter()
            sights = [*super().seen(at, frames)]
            self.motion[key] = sights, time.perf_counter() - started
        yield from self.motion[key][0]


@dataclass(frozen=True, eq=False)
class TrueMotion(Restoration):
    """A restoration that is told where each keyframe is seen, and where it looks alike."""

    case: Case | None = None

    def seen(self, at: int, frames: range) -> Iterator[Sight]:
        assert self.case is not None
        k = self.indices.index(at)
        for t in frames:
            way = self.case.follow[t][k]
            own = self.source[t].astype(np.float32)
            light = light_gain(own, sampled(self.source[at], self.case.at(t, k)).astype(np.float32))
            yield Sight(abs(t - at), way.flow, (way.seen & way.alike).astype(np.float32), light)


@dataclass(frozen=True, eq=False)
class Sampled:
    """What a method made; latents (C, S, h, w), None of what is made of pixels."""

    latents: Tensor | None
    frames: np.ndarray
    evaluations: int
    seconds: float


def work(part: int, given: argparse.Namespace) -> None:
    """Edit one process's share of the scenes and append what is measured to its file of results."""
    torch.set_num_threads(1)
    settings = load_settings(HERE)
    tuned = load_settings(HERE.parent / "01_keyframe_propagation")["methods"]
    folder, weights = open_wan(settings["model"]), weights_of(settings["model"])
    names = given.methods.split(",") if given.methods else settings["methods"]
    variants = [Variant(name, tuned[name]) for name in names]
    editors = {v.name: build(folder, v, settings) for v in variants if v.name != CEILING}
    networks = Networks(folder, given.compile)
    lines = [line for path in RESULTS.glob("test_*.jsonl") for line in read(path)]
    done = {(line["id"], line["restore"]) for line in lines}
    count = given.scenes or settings["scenes"]
    causes = given.causes.split(",") if given.causes else CAUSES
    draws = [cases(cause, count, settings["num_frames"], tuple(settings["size"])) for cause in causes]
    # One scene of every cause, then the next: a run that is stopped has as many of each.
    drawn = (case for group in zip(*draws, strict=True) for case in group)
    with (RESULTS / f"test_{part}.jsonl").open("a") as file:
        for number, case in enumerate(drawn):
            if number % given.jobs == part:
                scene = Court(case, variants, editors, networks, settings, weights)
                for line in scene.lines(done):
                    file.write(json.dumps(line) + "\n")
                file.flush()
                print(case.cause, case.seed, flush=True)


@dataclass(eq=False)
class Court:
    """One scene before all methods and oracles."""

    case: Case
    variants: list[Variant]
    editors: dict[str, ExperimentEditor]
    networks: Networks
    settings: dict[str, Any]
    weights: str

    def __post_init__(self) -> None:
        """Lay the keyframes over their frames, as `wanedit edit` does."""
        self.task = self.case.task(self.settings["seed"])
        frames = self.case.source[list(self.case.indices)]
        pairs = list(zip(self.case.keyframes, frames, strict=True))
        aligned = np.stack([align(*pair).undone(*pair) for pair in pairs])
        self.slipped = not np.array_equal(aligned, self.case.keyframes)
        self.keyframes = {
            "": aligned,
            UNALIGNED: self.case.keyframes,
            "true_keyframes": self.case.truth[list(self.case.indices)],
        }
        self.motion: Motion = {}
        self.begun = False

    def shown(self, name: str) -> np.ndarray:
        """The keyframes that a row has."""
        return self.keyframes.get(name, self.keyframes[UNALIGNED if name.endswith(UNALIGNED) else ""])

    def aligned(self, name: str) -> list[str]:
        """What the names of its results add; those of keyframes as they are given are older than aligning."""
        return ["aligned"] if self.slipped and self.shown(name) is self.keyframes[""] else []

    def lines(self, done: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        """What is not done yet: of each method its restorations, and last as it is."""
        keys = {variant.name: variant.key for variant in self.variants}
        unaligned = [name + UNALIGNED for name in self.settings["unaligned"] if name in keys]
        for name in (*keys, *self.settings["oracles"], *(unaligned if self.slipped else ())):
            method = name.removesuffix(UNALIGNED)
            key = keys.get(method, method + keys[OURS])
            what = [self.case.cause, self.case.seed, key, self.weights, *self.aligned(name)]
            own = digest({"what": what})[:16]
            kinds: list[Restore] = (
                ["none"] if name in UNRESTORED else [*self.settings["restorations"], "none"]
            )
            kinds = [kind for kind in kinds if (own, kind) not in done]
            if not kinds or (name == "true_keyframes" and self.case.cause != "misregistered"):
                continue
            made = self.made(name)
            about = {"id": own, "cause": self.case.cause, "seed": self.case.seed, "edit": self.case.kind}
            about |= {"method": name, "evaluations": made.evaluations, "weights": self.weights}
            for kind in kinds:
                frames, seconds = made.frames, made.seconds
                if kind != "none":
                    restoration = self.restoration(made, kind, Following, self.motion)
                    seconds = sum(spent for (of, *_), (_, spent) in self.motion.items() if of == kind)
                    started = time.perf_counter()
                    frames = replace(restoration, keyframes=self.shown(name)).frames()
                    seconds += time.perf_counter() - started
                yield about | {"restore": kind, "seconds": round(seconds, 3), **measured(self.case, frames)}

    def made(self, name: str) -> Sampled:
        """What a method or an oracle makes of the scene. What took evaluations is kept under outputs/, so that another
        restoration is measured without them."""
        if name == CEILING:
            coded = self.coded(self.case.truth)
            return Sampled(coded[0], rounded(levels(self.networks, coded)), 0, 0.0)
        if name == "true_flow":
            return Sampled(None, warped(self.case, self.shown(name)), 0, 0.0)
        if name in ("true_visibility", "true_motion"):
            ours = self.made(OURS)
            if name == "true_visibility":
                frames = warped(self.case, self.shown(name), self.restoration(ours, "source").frames())
            else:
                frames = self.restoration(
                    ours, self.settings["restorations"][-1], TrueMotion, self.case
                ).frames()
            return replace(ours, latents=None, frames=frames)
        what = [self.weights, self.settings["seed"], self.case.cause, self.case.seed]
        key = json.dumps([*what, name.removesuffix(UNALIGNED), *self.aligned(name)])
        path = KEPT / f"{digest({'what': key})[:16]}.pt"
        if path.exists():
            return Sampled(**torch.load(path, weights_only=False))
        made = self.sampled(name)
        with atomic_path(path) as temporary:
            torch.save(vars(made), temporary)
        return made

    def sampled(self, name: str) -> Sampled:
        """By the networks."""
        task = replace(self.task, keyframes=self.shown(name))
        editor = self.editors.get(name.removesuffix(UNALIGNED), self.editors[OURS])
        self.begin()
        editor.use(self.networks)
        method = editor.method
        if name == "true_target":
            editor.method = TrueTarget(method, self.coded(self.case.truth))
        made = editor.predict_step(task)
        editor.method = method
        return Sampled(made.latents, made.frames, made.evaluations, made.seconds)

    def restoration(
        self, made: Sampled, kind: Restored, how: type[Restoration] = Restoration, *more: Case | Motion
    ) -> Restoration:
        """Of what a method made."""
        source = self.case.source
        if made.latents is None:  # the codec has lost nothing of the source
            edited, coded = made.frames.astype(np.float32), source.astype(np.float32)
        else:
            self.begin()
            edited = levels(self.networks, made.latents[None])
            coded = levels(self.networks, self.coded(source))
        return how(edited, coded, source, self.keyframes[""], self.case.indices, kind, *more)

    def coded(self, video: np.ndarray) -> Tensor:
        """Latents (1, C, S, h, w)."""
        self.begin()
        return self.networks.once("encode", from_uint8(video)[None], self.networks.owner.encode)

    def begin(self) -> None:
        """Encode what is said and shown, unless nothing of it is asked for."""
        if not self.begun:
            self.networks.begin([replace(self.task, keyframes=known) for known in self.keyframes.values()])
            self.begun = True


def levels(networks: Networks, latents: Tensor) -> np.ndarray:
    """Decoded, (T, H, W, 3) in 0 … 255, not rounded."""
    video = networks.once("decode", latents, networks.owner.decode)[0]
    return np.ascontiguousarray(((video.float() + 1) * 127.5).movedim(0, -1).numpy())


def rounded(video: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(video), 0, 255).astype(np.uint8)


def warped(case: Case, keyframes: np.ndarray, otherwise: np.ndarray | None = None) -> np.ndarray:
    """The nearest keyframe along the exact flow; or the mean of those that show a pixel, elsewhere `otherwise`."""
    made = np.empty(case.source.shape, np.float32)
    for t, ways in enumerate(case.follow):
        far = [abs(t - at) for at in case.indices]
        moved = [sampled(keyframes[k], case.at(t, k)).astype(np.float32) for k in range(len(ways))]
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
    parser.add_argument(
        "--causes", help="fewer than all, with commas; tables of all causes count them evenly"
    )
    parser.add_argument("--methods", help="fewer than settings.yaml says, with commas; covariance is one")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the scenes")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the networks: needs a C++ compiler"
    )
    given = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    tidy(RESULTS, "test", weights_of(load_settings(HERE)["model"]))
    spawn(work, (given,), nprocs=given.jobs)


if __name__ == "__main__":
    main()
