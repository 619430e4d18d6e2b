"""Noise that belongs to the sample: a pure function of a seed and the sample's own keys.

Never of the process: two ranks, one device and a resumed run draw the same numbers for the same segment.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

MAX_SEED = 2**63 - 1


def derive_seed(seed: int, *keys: int | str) -> int:
    """A 63-bit seed from `seed` and `keys`, by SHA-256, so that near keys share nothing."""
    text = "\x1f".join(repr(part) for part in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & MAX_SEED


def take_seed(seed: int, kind: str, index: int, take: int) -> int:
    """The seed of a take of a sample: for take 0 the run's own, for every further one another."""
    return derive_seed(seed, kind, index, take) if take else seed


def noise(shape: Sequence[int], seed: int, *keys: int | str) -> "Tensor":
    """Standard normal float32 of `shape`, drawn on the CPU by a generator of its own.

    Args:
        shape: any.
        seed: the run's base seed.
        keys: what names the sample within the run, such as ("segment", 3).
    """
    import torch

    generator = torch.Generator(device="cpu").manual_seed(derive_seed(seed, *keys))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def draw_seed() -> int:
    """A fresh base seed from the system, for a run that was given none. Record it."""
    return secrets.randbelow(2**31)
