"""Picture networks that give a frame its features: CLIP and DINO, as they lie in Hugging Face's cache."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.metrics.weights import CLIP, DINO_B8, DINO_B16, HubModel, require_model

Frames = UInt8[np.ndarray, "t height width 3"]
Moments = tuple[tuple[float, float, float], tuple[float, float, float]]

# Frames that pass a network at once.
BATCH = 8
# Mean and standard deviation of what each was trained on.
CLIP_MOMENTS: Moments = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_MOMENTS: Moments = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# VBench-I2V brings the shorter side to 256 and cuts the middle 224 of it for DINO.
DINO_MARGIN = 256 / 224
# DINO has no pooler; transformers would make one of random weights.
OPTIONS = {"ViTModel": {"add_pooling_layer": False}}
# The longer side at most, in shorter sides, of what the structure distance looks at.
WIDEST = 480 / 224


@dataclass(frozen=True, eq=False)
class ClipImages:
    """CLIP's image tower with its projection; ViT-B/32 as in VBench (Radford et al. 2021)."""

    network: nn.Module

    @classmethod
    def load(cls, model: HubModel = CLIP) -> "ClipImages":
        """Published weights. Raises as `weights.require_model`, and InputError where tensors are missing."""
        return cls(_network("CLIPVisionModelWithProjection", require_model(model)))

    @torch.no_grad()
    def embed(self, frames: Frames) -> Float[np.ndarray, "t d"]:
        """Image embeddings."""
        side = _side(self.network)
        batches = _batches(frames, side, side, CLIP_MOMENTS)
        return _joined([self.network(pixel_values=batch).image_embeds for batch in batches])


@dataclass(frozen=True, eq=False)
class Dino:
    """DINO's vision transformer (Caron et al. 2021): ViT-B/16 for subjects, ViT-B/8 for structure."""

    network: nn.Module

    @classmethod
    def load(cls, model: HubModel = DINO_B16) -> "Dino":
        """Published weights. Raises as `weights.require_model`, and InputError where tensors are missing."""
        return cls(_network("ViTModel", require_model(model)))

    @classmethod
    def for_structure(cls, model: HubModel = DINO_B8) -> "Dino":
        """The one with patches of 8."""
        return cls.load(model)

    @torch.no_grad()
    def embed(self, frames: Frames) -> Float[np.ndarray, "t d"]:
        """The class token of each frame."""
        side = _side(self.network)
        batches = _batches(frames, round(side * DINO_MARGIN), side, IMAGENET_MOMENTS)
        return _joined([self.network(pixel_values=batch).last_hidden_state[:, 0] for batch in batches])

    @torch.no_grad()
    def keys(self, frame: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "n d"]:
        """Keys of the last layer, all heads side by side, of every token of the whole frame."""
        config: Any = self.network.config
        pixels = _whole(frame, config.image_size, config.patch_size)
        kept: list[Tensor] = []

        def keep(module: Any, given: Any, made: Any) -> None:
            kept.append(made)

        handle = _last_keys(self.network).register_forward_hook(keep)
        try:
            self.network(pixel_values=pixels, interpolate_pos_encoding=True)
        finally:
            handle.remove()
        return kept[0][0].double().numpy()


@cache
def _network(kind: str, folder: Path) -> nn.Module:
    import transformers

    # What the rest of the checkpoint is for, such as CLIP's text tower, is no news to the reader.
    loud = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        network, report = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **OPTIONS.get(kind, {})
        )
    except RuntimeError as error:
        raise InputError(
            f"{folder} holds tensors of other sizes than its config.json says: {error}"
        ) from None
    finally:
        transformers.logging.set_verbosity(loud)
    missing = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
    if missing:
        raise InputError(f"{folder} has no {missing[0]}; expected the weights of {kind} for its config.json")
    return network.eval().float()


def _side(network: Any) -> int:
    return int(network.config.image_size)


def _last_keys(network: nn.Module) -> nn.Module:
    """The projection to keys of the last layer, which transformers 4 and 5 name differently."""
    found = [m for name, m in network.named_modules() if name.endswith(("attention.key", "attention.k_proj"))]
    return found[-1]


def _batches(frames: Frames, short: int, crop: int, moments: Moments) -> list[Float[Tensor, "_ 3 _ _"]]:
    """Frames with the shorter side at `short` by bicubic resampling, and of that the middle `crop` x `crop`."""
    from torchvision.transforms.functional import InterpolationMode, center_crop, resize

    video = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1)
    made = []
    for start in range(0, len(video), BATCH):
        part = resize(video[start : start + BATCH], [short], InterpolationMode.BICUBIC, antialias=True)
        made.append(_normalised(center_crop(part, [crop, crop]), moments))
    return made


def _whole(frame: np.ndarray, short: int, patch: int) -> Float[Tensor, "1 3 _ _"]:
    """The frame with its shorter side at `short`, both sides multiples of the patch."""
    from torchvision.transforms.functional import resize

    height, width = frame.shape[:2]
    scale = min(short / min(height, width), short * WIDEST / max(height, width))
    size = [max(1, round(side * scale / patch)) * patch for side in (height, width)]
    video = torch.from_numpy(np.ascontiguousarray(frame)).movedim(-1, 0)[None]
    return _normalised(resize(video, size, antialias=True), IMAGENET_MOMENTS)


def _normalised(pixels: Tensor, moments: Moments) -> Tensor:
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in moments)
    return (pixels.float() / 255 - mean) / deviation


def _joined(parts: list[Tensor]) -> Float[np.ndarray, "t d"]:
    return torch.cat(parts).double().numpy()
