"""LPIPS: how different two pictures look, by the features of a trained network (Zhang et al. 2018)."""

from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.metrics.functional.fidelity import masked_mean
from wanedit.metrics.weights import ALEXNET, VGG16, HubFile, require

Frames = UInt8[np.ndarray, "t height width 3"]
Net = Literal["alex", "vgg"]

# Frames that pass the network at once.
BATCH = 8
# AlexNet's last pooling needs this much.
SMALLEST = 32


@dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS with torchmetrics' heads, version 0.1, on a trunk of torchvision."""

    network: nn.Module

    @classmethod
    def load(cls, net: Net = "alex", file: HubFile | None = None) -> "Lpips":
        """With the published trunk.

        Args:
            file: the trunk's file; the published one by default.

        Raises:
            MissingWeightsError, InputError: see `weights.require`.
        """
        return cls(_network(net, require(file or {"alex": ALEXNET, "vgg": VGG16}[net])))

    def distances(
        self, a: Frames, b: UInt8[np.ndarray, "_ _ _ 3"], mask: Bool[np.ndarray, "_ _ _"] | None = None
    ) -> Float[np.ndarray, " t"]:
        """LPIPS of each frame of a and b.

        With a mask: the mean over the mask of the map in which each layer is brought to the frame's size, as the
        paper's code has it for `spatial=True`. Features see beyond the mask's border.

        Args:
            mask: the pixels that count; a frame without any is NaN.

        Raises:
            InputError: shapes that differ, or frames smaller than 32 pixels.
        """
        if mask is None:
            return self._passed(self.network, a, b).mean(axis=(1, 2))
        spatial: Any = copy(self.network)  # its parameters are shared
        spatial.spatial = True
        return masked_mean(self._passed(spatial, a, b), mask)

    def steps(self, video: Frames) -> Float[np.ndarray, " n"]:
        """LPIPS from each frame to the next."""
        return self.distances(video[:-1], video[1:])

    @torch.no_grad()
    def _passed(
        self, network: nn.Module, a: Frames, b: UInt8[np.ndarray, "_ _ _ 3"]
    ) -> Float[np.ndarray, "t _ _"]:
        if a.shape != b.shape or min(a.shape[1:3]) < SMALLEST:
            raise InputError(
                f"frames are {a.shape} and {b.shape}; expected one shape, at least {SMALLEST} pixels each way"
            )
        pairs = (slice(k, k + BATCH) for k in range(0, len(a), BATCH))
        return torch.cat([network(_pixels(a[p]), _pixels(b[p]))[:, 0] for p in pairs]).double().numpy()


@cache
def _network(net: Net, trunk: Path) -> nn.Module:
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    # Its heads come with torchmetrics; its trunk would be downloaded, and is filled here instead.
    network = _NoTrainLpips(pretrained=True, net=net, pnet_rand=True)
    own = network.net.state_dict()
    stored = torch.load(trunk, map_location="cpu", weights_only=True)
    wanted = {name: "features." + name.split(".", 1)[1] for name in own}
    missing = [name for name in wanted.values() if name not in stored]
    if missing:
        raise InputError(
            f"{trunk} has no {missing[0]}; expected the weights of torchvision's trunk for {net!r}"
        )
    network.net.load_state_dict({name: stored[source] for name, source in wanted.items()})
    return network


def _pixels(frames: Frames) -> Float[Tensor, "n 3 height width"]:
    video = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1)
    return video.float() / 127.5 - 1
