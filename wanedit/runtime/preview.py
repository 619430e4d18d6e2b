"""A small picture of what is being sampled, RUN/preview/: its clean estimate, by a linear map from latents to colours,
or by TAEHV where its file is beside the model. In a terminal that can show pictures, there too.

It changes nothing that is made, and a run goes on where it cannot be drawn.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from rich import get_console
from torch import Tensor
from torch.nn.functional import avg_pool2d

from wanedit.errors import WaneditError
from wanedit.files import read_json, reading
from wanedit.flow.path import Step
from wanedit.lit.model import OpenModel
from wanedit.progress import heard
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.terminal import Picture, codes, protocol
from wanedit.wan.config import WAN_21_LATENTS
from wanedit.wan.load import WanFolder
from wanedit.wan.taehv import TinyDecoder, find_taehv

# Of the slots of a clip so many are shown side by side, each at least so high.
SHOWN, HEIGHT = 5, 96
# What TAEHV decodes is brought down to between this height and twice it.
DECODED_HEIGHT = 128
# Seconds between two pictures in a terminal, which keeps them all.
BETWEEN = 10.0
# Beside the files of a model that has a VAE of its own.
BESIDE = "latent_colours.json"
# Of Wan 2.1's VAE: published with ComfyUI, `comfy/latent_formats.py`, class Wan21; a row a channel, then what is added.
WAN_21 = (
    (-0.1299, -0.1692, 0.2932), (0.0671, 0.0406, 0.0442), (0.3568, 0.2548, 0.1747), (0.0372, 0.2344, 0.1420),
    (0.0313, 0.0189, -0.0328), (0.0296, -0.0956, -0.0665), (-0.3477, -0.4059, -0.2925), (0.0166, 0.1902, 0.1975),
    (-0.0412, 0.0267, -0.1364), (-0.1293, 0.0740, 0.1636), (0.0680, 0.3019, 0.1128), (0.0032, 0.0581, 0.0639),
    (-0.1251, 0.0927, 0.1699), (0.0060, -0.0633, 0.0005), (0.3477, 0.2275, 0.2950), (0.1984, 0.0913, 0.1861),
)  # fmt: skip
WAN_21_ADDED = (-0.1835, -0.0868, -0.3360)


@dataclass(frozen=True, eq=False)
class Colours:
    """rgb = latents . factors + added, in [-1, 1]."""

    factors: Float[Tensor, "c 3"]
    added: Float[Tensor, "3"]

    @classmethod
    def of(cls, model: OpenModel) -> "Colours | None":
        """Those of a model's latents; None where nobody knows them. Raises InputError for a file of none."""
        if isinstance(model, WanFolder) and (own := model.path / BESIDE).is_file():
            expected = f"a map from {model.latent_space.channels} latents to colours"
            with reading(own, expected):
                told = read_json(own, expected)
                factors, added = (
                    torch.tensor(told[name], dtype=torch.float32) for name in ("factors", "added")
                )
                if factors.shape != (model.latent_space.channels, 3) or added.shape != (3,):
                    raise ValueError(f"shapes {list(factors.shape)} and {list(added.shape)}")
            return cls(factors, added)
        if model.latent_space != WAN_21_LATENTS or not isinstance(model, WanFolder):
            return None
        return cls(torch.tensor(WAN_21), torch.tensor(WAN_21_ADDED))

    @classmethod
    def fitted(cls, latents: Float[Tensor, "n c"], rgb: Float[Tensor, "n 3"]) -> "Colours":
        """By least squares, from latents and the mean colour in [-1, 1] of the pixels that each stands for."""
        known = torch.cat([latents, torch.ones(len(latents), 1)], dim=1).double()
        solution = torch.linalg.lstsq(known, rgb.double()).solution.float()
        return cls(solution[:-1], solution[-1])

    def draw(self, clean: Float[Tensor, "c s h w"]) -> UInt8[np.ndarray, "h wide 3"]:
        """Slots of a clip side by side, from the first to the last, a pixel for each latent."""
        picked = clean[:, shown_slots(clean)].float().cpu().nan_to_num()
        return _beside(torch.einsum("cshw,cr->rshw", picked, self.factors) + self.added[:, None, None, None])


def shown_slots(clean: Float[Tensor, "c s h w"]) -> list[int]:
    """Those that are shown: the first, the last and some evenly between."""
    last = clean.shape[1] - 1
    return sorted({round(i * last / (SHOWN - 1)) for i in range(SHOWN)})


def _beside(frames: Float[Tensor, "3 n h w"]) -> UInt8[np.ndarray, "h wide 3"]:
    levels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte()
    return rearrange(levels, "c n h w -> h (n w) c").cpu().numpy()


def decoded(tiny: TinyDecoder, clean: Float[Tensor, "c s h w"]) -> UInt8[np.ndarray, "height wide 3"]:
    """As `Colours.draw`, of the last frame of each slot, which the slot before goes ahead of."""
    decoder, latents = tiny.to(clean.device), clean.nan_to_num()
    frames = [decoder.decode(latents[:, max(0, slot - 1) : slot + 1])[:, -1] for slot in shown_slots(clean)]
    smaller = max(1, frames[0].shape[1] // DECODED_HEIGHT)
    return _beside(avg_pool2d(torch.stack(frames, dim=1), smaller))


class Previews:
    """The pictures of one run: one file for each task, replaced while it is sampled, gone when it is done.

    Args:
        every: draw at each so many steps; 0 for never.
        terminal: show them in a terminal, too, if it is one that can.

    Raises:
        InputError, MissingWeightsError: a file beside the model that is to draw them, and cannot.
    """

    def __init__(self, directory: RunDirectory, model: OpenModel, every: int, terminal: bool = False) -> None:
        self.folder, self.every = directory.previews, every
        self.colours = Colours.of(model) if every else None
        self.tiny: TinyDecoder | None = None
        if every and isinstance(model, WanFolder) and (file := find_taehv(model.path, model.latent_space)):
            self.tiny = TinyDecoder(file, model.latent_space)
        self.protocol, self.printed = protocol(os.environ) if terminal else "", -BETWEEN

    def path(self, latents: str) -> Path:
        """Of a task whose latents or frames are kept under this name in segments/."""
        return self.folder / Path(latents).with_suffix(".png").name

    def show(self, latents: str, step: Step, clean: Float[Tensor, "1 c s h w"]) -> None:
        """Draw a step's clean estimate, if it is one that is shown."""
        if not self.every or step.index % self.every:
            return
        # Brings PyAV.
        from wanedit.video.encode import write_png

        # A full disk, or memory, is told by what must be made.
        with suppress(OSError, WaneditError, torch.OutOfMemoryError):
            if self.tiny is not None:
                pixels = decoded(self.tiny, clean[0])
            elif self.colours is not None:
                pixels = self.colours.draw(clean[0])
            else:
                return
            times = -(-HEIGHT // len(pixels))
            pixels = pixels.repeat(times, axis=0).repeat(times, axis=1)
            self.folder.mkdir(exist_ok=True)
            write_png(self.path(latents), pixels)
            self._print(self.path(latents).read_bytes(), pixels)

    def _print(self, png: bytes, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Above the bars, where some are drawn in a terminal that can show it; nothing into a pipe."""
        console, now = get_console(), time.monotonic()
        if self.protocol and heard() and console.is_terminal and now - self.printed >= BETWEEN:
            self.printed = now
            console.print(Picture(codes(self.protocol, png, pixels)))

    def remove(self, latents: str) -> None:
        """Once a task is done."""
        with suppress(OSError):
            self.path(latents).unlink(missing_ok=True)
            self.folder.rmdir()  # the last one takes the folder with it
