"""What the experiments on drawn clips share: variants of settings.yaml, results that go on where they stopped, and
editors that share one copy of the networks and code nothing twice, for many variants edit the same clip."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from wanedit.files import digest, write_text
from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.path import Schedule
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.method import build_method
from wanedit.jobs.edit.plan import edit_settings
from wanedit.lit.edit_clip import EditSettings
from wanedit.lit.editor import FlowMatchingEditor
from wanedit.lit.networks import Encodings
from wanedit.lit.tasks import EditTask
from wanedit.metrics.functional import bootstrap
from wanedit.wan.load import WanFolder, hash_files, open_wan

# No method: the truth, encoded and decoded, which bounds what any method of latents can reach.
CEILING = "coded_truth"


@dataclass(frozen=True)
class Variant:
    """A method with its settings, under the name that the table gives it."""

    name: str
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """Names the variant in results."""
        return json.dumps([self.name, self.settings], sort_keys=True)


def load_settings(folder: Path) -> dict[str, Any]:
    """An experiment's settings.yaml, and tuned.yaml over its methods where that exists."""
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    tuned = folder / "tuned.yaml"
    if tuned.exists():
        for name, values in yaml.safe_load(tuned.read_text()).items():
            settings["methods"][name] |= values
    return settings


def weights_of(model: str) -> str:
    """What the lines of a model's results say of it: 16 digits of the hash of its files."""
    return digest(hash_files(open_wan(model), print))[:16]


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a results file; of a pair that was begun twice, the later ones."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(line["id"], line["restore"]): line for line in lines}.values())


def tidy(results: Path, what: str, weights: str) -> None:
    """Drop lines of `what` that other weights made, and of clips not finished: what is as edited comes last."""
    files = {path: read(path) for path in sorted(results.glob(f"{what}_*.jsonl"))}
    # What another process has begun may have been restored in another way later.
    every = [line for lines in files.values() for line in lines]
    whole = {x["id"] for x in every if x["restore"] == "none" and x.get("weights") == weights}
    for path, lines in files.items():
        kept = [line for line in lines if line["id"] in whole]
        if len(kept) < len(lines):
            print(f"{path.name}: {len(lines) - len(kept)} results of other weights or unfinished are dropped")
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def mean(lines: list[dict[str, Any]], name: str) -> float:
    """Of the lines that have this value; NaN where none has."""
    values = [line[name] for line in lines if line[name] is not None]
    return float(np.mean(values)) if values else float("nan")


def interval(
    lines: list[dict[str, Any]], others: list[dict[str, Any]], name: str = "psnr"
) -> bootstrap.Interval:
    """Mean difference `lines` - `others` in a value, and its 95 %, resampling scenes: edits of one are not independent.

    Raises:
        ValueError: no pair has the value on both sides.
    """
    ours = {_clip(x): x[name] for x in lines}
    shared = [x for x in others if x[name] is not None and ours.get(_clip(x)) is not None]
    gaps = [ours[_clip(x)] - x[name] for x in shared]
    return bootstrap.interval(gaps, [_clip(x)[:2] for x in shared])


def _clip(line: dict[str, Any]) -> tuple[str, int, str]:
    """What an edited clip is known by."""
    return line.get("cause", ""), line["seed"], line["edit"]


def build(folder: WanFolder, variant: Variant, settings: dict[str, Any]) -> "ExperimentEditor":
    """The editor of one variant, not loaded."""
    values = {"keyframe_encoding": settings["keyframe_encoding"]} | variant.settings
    config = EditConfig(
        video="-",
        base_seed=settings["seed"],
        shift=settings["shift"],
        guidance_scale=settings["guidance_scale"],
        num_inference_steps=values.pop("steps"),
        restore="none",
        **values,
    )
    method = build_method(config)
    return ExperimentEditor(folder, method, edit_settings(config, folder, method, num_frames=1))


class Networks:
    """Loaded once for all editors, with the texts, pictures and latents of the clips at hand.

    Args:
        folder: the model.
        compiled: let torch.compile fuse transformer and decoder.
    """

    def __init__(self, folder: WanFolder, compiled: bool) -> None:
        self.owner = FlowMatchingEditor(folder, CopySource(), EditSettings(1, 3.0, 1.0, 1.0))
        self.compiled = compiled
        self.coded: dict[str, Tensor] = {}

    def begin(self, tasks: list[EditTask]) -> None:
        """Encode what these tasks say and show; forget the clips before."""
        first = self.owner.networks is None
        self.owner.encodings = Encodings()
        self.owner.load(tasks)
        self.coded = {}
        if first and self.compiled:
            transformer, vae = self.owner.loaded()
            # A handful of shapes: the whole clip, and the pieces between keyframes that flf2v samples.
            for part, name in ((transformer, "velocity"), (vae, "decode")):
                setattr(part, name, torch.compile(getattr(part, name), dynamic=False))

    def once(self, what: str, x: Tensor, code: Callable[[Tensor], Tensor]) -> Tensor:
        """`code(x)`, remembered."""
        key = what + hashlib.sha256(x.numpy().tobytes()).hexdigest()
        if key not in self.coded:
            self.coded[key] = code(x)
        return self.coded[key]


class ExperimentEditor(FlowMatchingEditor):
    """An editor that borrows its networks."""

    shared: Networks

    def use(self, networks: Networks) -> None:
        """Take them for the clips that they have begun with."""
        self.shared, owner = networks, networks.owner
        self.networks, self.encodings = owner.networks, owner.encodings

    def encode(self, video: Tensor) -> Tensor:
        return self.shared.once("encode", video, super().encode)

    def decode(self, latents: Tensor) -> Tensor:
        return self.shared.once("decode", latents, super().decode)


@dataclass(frozen=True, eq=False)
class Given(Method):
    """A method that has its latents already."""

    latents: Tensor

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        return Edited(latents=self.latents[None])


class GivenEditor(ExperimentEditor):
    """An editor whose result is known, with its pixels restored or not."""

    def __init__(
        self, networks: Networks, latents: Tensor, restore: Literal["none", "keyframes"] = "none"
    ) -> None:
        owner = networks.owner
        super().__init__(owner.folder, Given(latents), replace(owner.settings, restore=restore))
        self.use(networks)
