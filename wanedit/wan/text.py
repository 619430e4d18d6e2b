"""Prompts to token features, by the UMT5 encoder and the tokenizer beside it."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wanedit.errors import MissingWeightsError
from wanedit.wan.checkpoint import fill, find_weights
from wanedit.wan.config import read_overrides

STEM = "models_t5_umt5-xxl-enc"
TOKENIZER = Path("google/umt5-xxl")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CONFIG = "text_encoder_config.json"

# UMT5-XXL as Wan 2.1 uses it (`wan/modules/t5.py`, `umt5_xxl`).
OFFICIAL: dict[str, Any] = {
    "vocab": 256384,
    "dim": 4096,
    "dim_attn": 4096,
    "dim_ffn": 10240,
    "num_heads": 64,
    "num_layers": 24,
    "num_buckets": 32,
    "shared_pos": False,
    "dropout": 0.0,
}


class TextEncoder(nn.Module):
    """`encoder(prompts)` gives one tensor of token features per prompt."""

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def forward(self, prompts: list[str]) -> Float[Tensor, "b n dim"]:
        """Encode prompts; positions after a prompt's last token are zero.

        Source: Wan 2.1, `wan/modules/t5.py`, `T5EncoderModel.__call__`, which cuts every prompt to its own
        length, and `WanModel.forward`, which pads it with zeros.

        Returns:
            (B, text_len, dim) in the dtype of the encoder; prompts beyond text_len tokens are cut, as there.
        """
        ids, mask = self.tokenizer(prompts, return_mask=True, add_special_tokens=True)
        device = next(self.model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        features = self.model(ids, mask)
        return features * (mask > 0).unsqueeze(-1).to(features.dtype)


def build_text_encoder(config: dict[str, Any]) -> nn.Module:
    """The bare encoder, uninitialised, on whatever device is current."""
    from diffsynth.models.wan_video_text_encoder import WanTextEncoder

    return WanTextEncoder(**config)


def read_text_config(folder: Path) -> dict[str, Any]:
    """The folder's own sizes, or the official ones where it says none."""
    return OFFICIAL | read_overrides(folder / CONFIG, OFFICIAL)


def find_tokenizer(folder: Path) -> Path:
    """The tokenizer's own folder.

    Raises:
        MissingWeightsError: one of its files is absent.
    """
    path = folder / TOKENIZER
    missing = [name for name in TOKENIZER_FILES if not (path / name).is_file()]
    if missing:
        raise MissingWeightsError(f"{path} lacks {', '.join(missing)}; expected the UMT5 tokenizer")
    return path


def load_text_encoder(
    folder: Path, text_len: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Load encoder and tokenizer of a Wan folder.

    Raises:
        MissingWeightsError: weights or tokenizer are absent or do not fit.
    """
    tokenizer = find_tokenizer(folder)
    from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer

    with torch.device("meta"):
        model = build_text_encoder(read_text_config(folder))
    fill(model, find_weights(folder, STEM), lambda _: dtype, device)
    return TextEncoder(model, HuggingfaceTokenizer(str(tokenizer), seq_len=text_len, clean="whitespace"))


def count_tokens(folder: Path, prompts: list[str]) -> list[int]:
    """Tokens of every prompt, the end mark included, before any cut. Loads the tokenizer's table and no more.

    Raises:
        MissingWeightsError: no tokenizer.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(find_tokenizer(folder) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [len(encoding.ids) for encoding in tokenizer.encode_batch([" ".join(p.split()) for p in prompts])]


def prompt_doubts(folder: Path, limit: int, prompts: list[str]) -> list[str]:
    """A note for every prompt of which the model does not read the end: `limit` is its text_len."""
    notes = [
        f"a prompt of {count} tokens is cut to the model's {limit}: {prompt[:60]!r} …"
        for prompt, count in zip(prompts, count_tokens(folder, prompts), strict=True)
        if count > limit
    ]
    return list(dict.fromkeys(notes))
