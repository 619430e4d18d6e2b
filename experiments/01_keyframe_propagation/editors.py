"""Editors that share one copy of the networks and code nothing twice: many variants edit the same clip."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from wanedit.flow.editing import Edit, Edited, Method, OnStep, VideoModel
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.path import Schedule
from wanedit.lit.edit_clip import EditSettings
from wanedit.lit.editor import FlowMatchingEditor
from wanedit.lit.networks import Encodings
from wanedit.lit.tasks import EditTask
from wanedit.wan.load import WanFolder


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
