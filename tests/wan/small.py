"""Random transformers small enough for a test, and inputs that fit them."""

import torch
from torch import Tensor

from wanedit.wan.config import IMAGE_TOKENS, WanConfig
from wanedit.wan.transformer import WanTransformer

GRID = (4, 4, 6)


def config(model_type: str = "flf2v", **other) -> WanConfig:
    """Two blocks, two heads of 22 channels: a size whose thirds are uneven."""
    channels = {"t2v": (16, 16), "vace": (16, 16), "ti2v": (48, 48)}.get(model_type, (36, 16))
    sizes = {"dim": 44, "ffn_dim": 64, "num_heads": 2, "num_layers": 2, "freq_dim": 32}
    sizes |= dict(zip(("in_dim", "out_dim"), channels, strict=True))
    if model_type == "vace":
        other = {"num_layers": 3, "vace_layers": (0, 2), "vace_in_dim": 96} | other
    return WanConfig(model_type, **{**sizes, "text_len": 10, "text_dim": 12, "image_dim": 14, **other})


def transformer(model_type: str = "flf2v", seed: int = 0, **other) -> WanTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WanTransformer(config(model_type, **other))
        for name, parameter in model.named_parameters():
            if name.endswith(("emb_pos", "norm_q.weight", "norm_k.weight")):
                torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model.eval().requires_grad_(False)


def inputs(model: WanTransformer, batch: int = 1, grid: tuple[int, int, int] = GRID) -> dict[str, Tensor]:
    """Keyword arguments of `WanTransformer.forward`."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    sizes = model.config
    values = {
        "latents": draw(batch, sizes.out_dim, *grid),
        "timestep": 1000 * torch.rand(batch, generator=generator),
        "text": draw(batch, 7, sizes.text_dim),
    }
    if sizes.num_images:
        values["image_tokens"] = draw(batch, sizes.num_images * IMAGE_TOKENS, sizes.image_dim)
    if sizes.condition_channels:
        values["condition"] = draw(batch, sizes.condition_channels, *grid)
    return values
