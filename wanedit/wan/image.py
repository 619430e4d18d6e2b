"""Images to 257 tokens each, by the vision half of CLIP (open-clip XLM-RoBERTa-Large, ViT-H/14)."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.wan.checkpoint import fill, find_weights
from wanedit.wan.config import read_overrides

STEM = "models_clip_open-clip-xlm-roberta-large-vit-huge-14"
CONFIG = "image_encoder_config.json"
PREFIX = "visual."
# The file also holds the text half, which no Wan model reads.
UNUSED = ("textual.", "log_scale")

# The vision half as Wan 2.1 uses it (`wan/modules/clip.py`, `clip_xlm_roberta_vit_h_14`).
OFFICIAL: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 14,
    "dim": 1280,
    "mlp_ratio": 4,
    "out_dim": 1024,
    "num_heads": 16,
    "num_layers": 32,
    "pool_type": "token",
    "pre_norm": True,
    "post_norm": False,
    "activation": "gelu",
}
# CLIP's pixel statistics (arXiv 2103.00020; also in `wan/modules/clip.py`).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class ImageEncoder(nn.Module):
    """`encoder(images)` gives the features of the last block but one, class token first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.side = int(model.image_size)  # pyright: ignore[reportArgumentType]

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b 257 dim"]:
        """Encode pixels in [-1, 1], resized here by bicubic interpolation to the encoder's own size."""
        images = F.interpolate(images, size=(self.side, self.side), mode="bicubic", align_corners=False)
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        pixels = (images * 0.5 + 0.5 - mean) / std
        weight = next(self.model.parameters())
        return self.model(pixels.to(weight.device, weight.dtype), use_31_block=True)


def build_image_encoder(config: dict[str, Any]) -> nn.Module:
    """The bare vision transformer, uninitialised, on whatever device is current."""
    from diffsynth.models.wan_video_image_encoder import VisionTransformer

    return VisionTransformer(**config)


def read_image_config(folder: Path) -> dict[str, Any]:
    """The folder's own sizes, or the official ones where it says none."""
    return OFFICIAL | read_overrides(folder / CONFIG, OFFICIAL)


def load_image_encoder(folder: Path, dtype: torch.dtype, device: torch.device | str = "cpu") -> ImageEncoder:
    """Load the image encoder of a Wan folder.

    Raises:
        MissingWeightsError: weights are absent or do not fit.
    """
    with torch.device("meta"):
        model = build_image_encoder(read_image_config(folder))
    fill(model, find_weights(folder, STEM), lambda _: dtype, device, PREFIX, UNUSED)
    return ImageEncoder(model)
