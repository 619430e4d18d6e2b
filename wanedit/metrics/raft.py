"""RAFT (Teed and Deng 2020) as the optical flow of the same measures: slower than DIS, and what papers report."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.metrics.weights import RAFT_LARGE, HubFile, require
from wanedit.video.motion import Flow

Frame = UInt8[np.ndarray, "height width 3"]
Build = Callable[[], nn.Module]

# Its correlation pyramid needs this much each way, and sides that eight divides.
SMALLEST, MULTIPLE = 128, 8


def raft_large() -> nn.Module:
    """torchvision's architecture, without weights."""
    from torchvision.models.optical_flow import raft_large as build

    return build(weights=None)


@dataclass(frozen=True, eq=False)
class Raft:
    """A flow for `functional.motion.follow`: (frame, next frame) -> motion of each pixel."""

    network: nn.Module

    @classmethod
    def load(cls, file: HubFile = RAFT_LARGE, build: Build = raft_large) -> "Raft":
        """With published weights.

        Args:
            file, build: the weights and the architecture that they belong to.

        Raises:
            MissingWeightsError, InputError: see `weights.require`; also weights of another architecture.
        """
        return cls(_network(require(file), build))

    @torch.no_grad()
    def __call__(self, first: Frame, second: UInt8[np.ndarray, "_ _ 3"]) -> Flow:
        """Small frames are enlarged for it, and its flow is brought back to their pixels."""
        height, width = first.shape[:2]
        scale = max(1.0, SMALLEST / min(height, width))
        size = (round(width * scale), round(height * scale))
        flow = self.network(_pixels(first, size), _pixels(second, size))[-1][0]
        found = flow[:, : size[1], : size[0]].movedim(0, -1).float().numpy()
        if scale > 1:
            found = cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA)
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        return np.ascontiguousarray(found * ratio, dtype=np.float32)


@cache
def _network(weights: Path, build: Build) -> nn.Module:
    network = build()
    stored = torch.load(weights, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(stored)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{weights} holds other tensors than its architecture: {reason}") from None
    return network.eval()


def _pixels(frame: Frame, size: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
    """In [-1, 1], at `size`, edges repeated to the next multiple of eight."""
    width, height = size
    if frame.shape[:2] != (height, width):
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    frame = cv2.copyMakeBorder(frame, 0, -height % MULTIPLE, 0, -width % MULTIPLE, cv2.BORDER_REPLICATE)
    return torch.from_numpy(frame).movedim(-1, 0)[None].float() / 127.5 - 1
