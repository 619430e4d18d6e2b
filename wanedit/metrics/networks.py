"""Trained networks that some measures need, on published weights alone: CLIP, DINO, LPIPS, RAFT; and ColorVideoVDP."""

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from wanedit.errors import InputError
from wanedit.files import reading
from wanedit.metrics.functional.fidelity import Mask, masked_mean
from wanedit.metrics.weights import (
    ALEXNET,
    CLIP,
    CLIP_L14,
    DINO_B8,
    DINO_B16,
    RAFT_LARGE,
    SQUEEZENET,
    VGG16,
    HubFile,
    HubModel,
    require,
    require_model,
)
from wanedit.video.arrays import AnyFrame, Clip
from wanedit.video.motion import Flow

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "t height width 3"]
Moments = tuple[tuple[float, float, float], tuple[float, float, float]]
Build = Callable[[], nn.Module]
Net = Literal["alex", "vgg", "squeeze"]

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
# AlexNet's last pooling needs this much.
LPIPS_SMALLEST = 32
# Where ColorVideoVDP has frames seen, pixel for pixel: 24 inches of Full HD, 200 cd/m2, in an office, from 0.6 m.
DISPLAY = "standard_fhd"
# RAFT's correlation pyramid needs this much each way, and sides that eight divides.
RAFT_SMALLEST, RAFT_MULTIPLE = 128, 8


@dataclass(frozen=True, eq=False)
class ClipImages:
    """CLIP's image tower with its projection; ViT-B/32 as in VBench (Radford et al. 2021)."""

    network: nn.Module

    @classmethod
    def load(cls, model: HubModel = CLIP) -> "ClipImages":
        """Published weights. Raises as `weights.require_model`, and InputError where tensors are missing."""
        return cls(_transformer("CLIPVisionModelWithProjection", require_model(model)))

    @torch.no_grad()
    def embed(self, frames: Frames) -> Float[np.ndarray, "t d"]:
        """Image embeddings."""
        side = _side(self.network)
        batches = _cut(frames, side, side, CLIP_MOMENTS)
        return _joined([self.network(pixel_values=batch).image_embeds for batch in batches])


@dataclass(frozen=True, eq=False)
class ClipTexts:
    """CLIP's text tower with its projection, and what cuts texts into its tokens."""

    network: nn.Module
    tokenizer: Any

    @classmethod
    def load(cls, model: HubModel = CLIP_L14) -> "ClipTexts":
        """Published weights. Raises as `ClipImages.load`."""
        from transformers import PreTrainedTokenizerFast

        path = require_model(model) / "tokenizer.json"
        with reading(path, "CLIP's tokenizer"):
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
        return cls(_transformer("CLIPTextModelWithProjection", path.parent), tokenizer)

    @torch.no_grad()
    def embed(self, text: str) -> Float[np.ndarray, " d"]:
        """The embedding of a text, of as many tokens as the model takes."""
        config: Any = self.network.config
        ids = self.tokenizer(text, truncation=True, max_length=config.max_position_embeddings)["input_ids"]
        return self.network(input_ids=torch.tensor([ids])).text_embeds[0].double().numpy()


@dataclass(frozen=True, eq=False)
class Dino:
    """DINO's vision transformer (Caron et al. 2021): ViT-B/16 for subjects, ViT-B/8 for structure."""

    network: nn.Module

    @classmethod
    def load(cls, model: HubModel = DINO_B16) -> "Dino":
        """Published weights. Raises as `weights.require_model`, and InputError where tensors are missing."""
        return cls(_transformer("ViTModel", require_model(model)))

    @classmethod
    def for_structure(cls, model: HubModel = DINO_B8) -> "Dino":
        """The one with patches of 8."""
        return cls.load(model)

    @torch.no_grad()
    def embed(self, frames: Frames) -> Float[np.ndarray, "t d"]:
        """The class token of each frame."""
        side = _side(self.network)
        batches = _cut(frames, round(side * DINO_MARGIN), side, IMAGENET_MOMENTS)
        return _joined([self.network(pixel_values=batch).last_hidden_state[:, 0] for batch in batches])

    @torch.no_grad()
    def keys(
        self, frame: UInt8[np.ndarray, "height width 3"], white: float = 1.0
    ) -> Float[np.ndarray, "n d"]:
        """Keys of the last layer, all heads side by side, of every token of the whole frame.

        Args:
            white: what the network is shown for level 255, before its mean is taken off.
        """
        config: Any = self.network.config
        pixels = _whole(frame, config.image_size, config.patch_size, white)
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: object, made: Tensor) -> None:
            kept.append(made)

        # The projection to keys of the last layer, which transformers 4 and 5 name differently.
        names = ("attention.key", "attention.k_proj")
        last = [module for name, module in self.network.named_modules() if name.endswith(names)][-1]
        handle = last.register_forward_hook(keep)
        try:
            self.network(pixel_values=pixels, interpolate_pos_encoding=True)
        finally:
            handle.remove()
        return kept[0][0].double().numpy()


@cache
def _transformer(kind: str, folder: Path) -> nn.Module:
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


def _cut(frames: Frames, short: int, crop: int, moments: Moments) -> list[Float[Tensor, "_ 3 _ _"]]:
    """Frames with the shorter side at `short` by bicubic resampling, and of that the middle `crop` x `crop`."""
    from torchvision.transforms.functional import InterpolationMode, center_crop, resize

    video = torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1)
    made = []
    for start in range(0, len(video), BATCH):
        part = resize(video[start : start + BATCH], [short], InterpolationMode.BICUBIC, antialias=True)
        made.append(_normalised(center_crop(part, [crop, crop]), moments))
    return made


def _whole(frame: np.ndarray, short: int, patch: int, white: float = 1.0) -> Float[Tensor, "1 3 _ _"]:
    """The frame with its shorter side at `short`, both sides multiples of the patch."""
    from torchvision.transforms.functional import resize

    height, width = frame.shape[:2]
    scale = min(short / min(height, width), short * WIDEST / max(height, width))
    size = [max(1, round(side * scale / patch)) * patch for side in (height, width)]
    video = torch.from_numpy(np.ascontiguousarray(frame)).movedim(-1, 0)[None]
    return _normalised(resize(video, size, antialias=True), IMAGENET_MOMENTS, white)


def _normalised(pixels: Tensor, moments: Moments, white: float = 1.0) -> Tensor:
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in moments)
    return (pixels.float() / 255 * white - mean) / deviation


def _joined(parts: list[Tensor]) -> Float[np.ndarray, "t d"]:
    return torch.cat(parts).double().numpy()


@dataclass(frozen=True, eq=False)
class Lpips:
    """LPIPS, how different two pictures look by the features of a trained network (Zhang et al. 2018).

    By the authors' package `lpips`, with its heads of version 0.1; the trunk is torchvision's.

    Attributes:
        network: gives the map of each pair, every layer brought to the frame's size.
    """

    network: nn.Module

    @classmethod
    def load(cls, net: Net = "alex", file: HubFile | None = None) -> "Lpips":
        """With the published trunk.

        Args:
            file: the trunk's file; the published one by default.

        Raises:
            MissingWeightsError, InputError: see `weights.require`.
        """
        return cls(_heads(net, require(file or {"alex": ALEXNET, "vgg": VGG16, "squeeze": SQUEEZENET}[net])))

    @torch.no_grad()
    def distance(self, a: Frame, b: AnyFrame, mask: Bool[np.ndarray, "_ _"] | None = None) -> float:
        """LPIPS of two pictures.

        With a mask: the mean over the mask of the map in which each layer is brought to the frame's size, as the
        paper's code has it for `spatial=True`. Features see beyond the mask's border.

        Args:
            mask: the pixels that count; where there is none, NaN.

        Raises:
            InputError: shapes that differ, or pictures smaller than 32 pixels.
        """
        if a.shape != b.shape or min(a.shape[:2]) < LPIPS_SMALLEST:
            raise InputError(
                f"frames are {a.shape} and {b.shape}; expected one shape, at least {LPIPS_SMALLEST} pixels each way"
            )
        network: Any = copy(self.network)  # its parameters are shared
        network.spatial = mask is not None
        found = network(_signed(a), _signed(b))
        return float(found) if mask is None else masked_mean(found[0, 0].double().numpy(), mask)

    def distances(self, a: Clip, b: Clip, mask: Mask | None = None) -> Float[np.ndarray, " t"]:
        """`distance` of each frame of a and b; one pair is held at a time.

        Raises:
            InputError: as `distance`.
        """
        if len(a) != len(b) or (mask is not None and len(mask) != len(a)):
            raise InputError(f"clips are {a.shape} and {b.shape}; expected one shape, of the mask too")
        masks = [None] * len(a) if mask is None else mask
        return np.array([self.distance(*given) for given in zip(a, b, masks, strict=True)], np.float64)


@cache
def _heads(net: Net, trunk: Path) -> nn.Module:
    with warnings.catch_warnings():
        # The package asks torchvision for its trunk by a former name of the argument.
        warnings.simplefilter("ignore", UserWarning)
        from lpips import LPIPS

        # Its heads come with it; its trunk would be downloaded, and is filled here instead.
        network = LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
    own = network.net.state_dict()
    stored = _tensors(trunk)
    wanted = {name: "features." + name.split(".", 1)[1] for name in own}
    missing = [name for name in wanted.values() if name not in stored]
    if missing:
        raise InputError(
            f"{trunk} has no {missing[0]}; expected the weights of torchvision's trunk for {net!r}"
        )
    with reading(trunk, f"the weights of torchvision's trunk for {net!r}"):
        network.net.load_state_dict({name: stored[source] for name, source in wanted.items()})
    return network.eval()


def _tensors(path: Path) -> dict[str, Tensor]:
    expected = "named tensors, as torch saves them"
    with reading(path, expected):
        stored = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(stored, dict) or not all(isinstance(one, Tensor) for one in stored.values()):
        raise InputError(f"{path} holds a {type(stored).__name__}; expected {expected}")
    return stored


def _signed(frame: AnyFrame) -> Float[Tensor, "1 3 height width"]:
    return torch.from_numpy(np.ascontiguousarray(frame)).movedim(-1, 0)[None].float() / 127.5 - 1


def raft_large() -> nn.Module:
    """torchvision's architecture, without weights."""
    from torchvision.models.optical_flow import raft_large as build

    return build(weights=None)


@dataclass(frozen=True, eq=False)
class Raft:
    """RAFT (Teed and Deng 2020), a flow for `functional.motion.follow`: (frame, next frame) -> motion of each pixel.

    Slower than DIS, and what papers report.
    """

    network: nn.Module

    @classmethod
    def load(cls, file: HubFile = RAFT_LARGE, build: Build = raft_large) -> "Raft":
        """With published weights.

        Args:
            file, build: the weights and the architecture that they belong to.

        Raises:
            MissingWeightsError, InputError: see `weights.require`; also weights of another architecture.
        """
        return cls(_flow_network(require(file), build))

    @torch.no_grad()
    def __call__(self, first: Frame, second: UInt8[np.ndarray, "_ _ 3"]) -> Flow:
        """Small frames are enlarged for it, and its flow is brought back to their pixels."""
        height, width = first.shape[:2]
        scale = max(1.0, RAFT_SMALLEST / min(height, width))
        size = (round(width * scale), round(height * scale))
        flow = self.network(_padded(first, size), _padded(second, size))[-1][0]
        found = flow[:, : size[1], : size[0]].movedim(0, -1).float().numpy()
        if scale > 1:
            found = cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA)
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        return np.ascontiguousarray(found * ratio, dtype=np.float32)


@cache
def _flow_network(weights: Path, build: Build) -> nn.Module:
    network, stored = build(), _tensors(weights)
    try:
        network.load_state_dict(stored)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{weights} holds other tensors than its architecture: {reason}") from None
    return network.eval()


def _padded(frame: Frame, size: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
    """In [-1, 1], at `size`, edges repeated to the next multiple of eight."""
    width, height = size
    if frame.shape[:2] != (height, width):
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)
    frame = cv2.copyMakeBorder(
        frame, 0, -height % RAFT_MULTIPLE, 0, -width % RAFT_MULTIPLE, cv2.BORDER_REPLICATE
    )
    return torch.from_numpy(frame).movedim(-1, 0)[None].float() / 127.5 - 1


def require_cvvdp() -> None:
    """Raise InputError where ColorVideoVDP is not installed."""
    if importlib.util.find_spec("pycvvdp") is None:
        raise InputError("ColorVideoVDP is not installed: pip install 'wanedit[cvvdp]'")


@torch.no_grad()
def visible_difference(video: Clip, reference: Clip, fps: float) -> float:
    """ColorVideoVDP (Mantiuk et al. 2024, doi 10.1145/3658144) of a video and its reference, by the authors' package.

    Contrasts in lightness and colour, steady and changing, as a person sees them on `DISPLAY`.

    Args:
        video, reference: of one shape; each is read once, frame by frame.
        fps: frames a second at which they are shown.

    Returns:
        JOD (just-objectionable differences): 10 where no difference is seen; one less is a difference by which three
            of four people tell the better one.

    Raises:
        InputError: shapes that differ, or the package is not installed.
    """
    if video.shape != reference.shape:
        raise InputError(f"video is {video.shape} and its reference {reference.shape}; expected one shape")
    require_cvvdp()
    found = list(sys.path)
    # It has torch look for a compiler of CUDA, which warns where there is no device for it.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import pycvvdp  # pyright: ignore[reportMissingImports]  (an extra)
    from pycvvdp.video_source import video_source_dm  # pyright: ignore[reportMissingImports]

    # It puts its own folder there, whose modules have names such as `utils`.
    sys.path[:] = found

    class Frames(video_source_dm):
        def __init__(self) -> None:
            super().__init__(display_photometry=DISPLAY)
            self.clips = iter(video), iter(reference)

        def get_video_size(self) -> Any:
            return video.shape[1], video.shape[2], video.shape[0]

        def get_frames_per_second(self) -> float:
            return fps

        def get_test_frame(self, frame: int, device: torch.device, colorspace: str) -> Tensor:
            return self.shown(0, device, colorspace)

        def get_reference_frame(self, frame: int, device: torch.device, colorspace: str) -> Tensor:
            return self.shown(1, device, colorspace)

        def shown(self, clip: int, device: torch.device, colorspace: str) -> Tensor:
            pixels = torch.from_numpy(np.ascontiguousarray(next(self.clips[clip]))).to(device)
            encoded = pixels.movedim(-1, 0)[None, :, None].float() / 255
            return cast(Tensor, self.apply_dm_and_color_transform(encoded, colorspace))

    metric = pycvvdp.cvvdp(display_name=DISPLAY, quiet=True)
    jod, _ = metric.predict_video_source(Frames())
    return float(jod)
