"""TAEHV: a tiny decoder of Wan's latents, for previews. Its file is somebody's own: nothing of it comes with wanedit.

Source: the published architecture (github.com/madebyollin/taehv, `taehv.py`): three stages of three blocks that each
see the frame before, each stage followed by doubling height and width, the second and third also by doubling time. Its
sizes are read from the tensors.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import MissingWeightsError
from wanedit.wan.checkpoint import difference
from wanedit.wan.config import LatentSpace
from wanedit.wan.formats.tensors import read_file

# By the channels of the latents: the names that its files are published by, of Wan 2.1's VAE and of TI2V-5B's.
NAMES = {16: "taew2_1", 48: "taew2_2"}
# The places of a stage's blocks in the published sequence, of what grows time, and of the convolution behind it; what
# is between has no weights.
STAGES = (((3, 4, 5), 7, 8), ((9, 10, 11), 13, 14), ((15, 16, 17), 19, 20))
FIRST, LAST = 1, 22
# Frames of a slot, stage by stage.
GROWS = (1, 2, 2)
COLOURS = 3


def shapes(channels: int, widths: tuple[int, ...], patch: int) -> dict[str, tuple[int, ...]]:
    """Of all tensors of a decoder whose stages, and what is behind them, have these widths."""
    found: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, out: int, into: int, bias: bool = True) -> None:
        found[f"decoder.{name}.weight"] = (out, into, 3, 3)
        if bias:
            found[f"decoder.{name}.bias"] = (out,)

    convolution(str(FIRST), widths[0], channels)
    for k, (blocks, grow, behind) in enumerate(STAGES):
        width = widths[k]
        for block in blocks:
            convolution(f"{block}.conv.0", width, 2 * width)
            convolution(f"{block}.conv.2", width, width)
            convolution(f"{block}.conv.4", width, width)
        found[f"decoder.{grow}.conv.weight"] = (width * GROWS[k], width, 1, 1)
        convolution(str(behind), widths[k + 1], width, bias=False)
    convolution(str(LAST), COLOURS * patch * patch, widths[3])
    return found


def find_taehv(folder: Path, space: LatentSpace) -> Path | None:
    """Its file for latents of this space: in a model's folder, or in a folder `vae_approx` there or beside it."""
    name = NAMES.get(space.channels)
    here = folder if folder.is_dir() else folder.parent
    places = (here, here / "vae_approx", here.parent / "vae_approx")
    files = [place / f"{name}{ending}" for place in places for ending in (".safetensors", ".pth")]
    return next((file for file in files if name and file.is_file()), None)


class TinyDecoder:
    """A decoder of normalised latents.

    Args:
        file: safetensors or .pth, of decoder and encoder or of the decoder alone.
        space: of the latents.

    Raises:
        MissingWeightsError: it is none, or for another kind of latents.
    """

    def __init__(self, file: Path, space: LatentSpace) -> None:
        stored = {n: one for n, one in read_file(file).items() if n.startswith("decoder.")}
        behind = [f"decoder.{place}.weight" for place in (FIRST, *(stage[2] for stage in STAGES))]
        widths = tuple(
            stored[name].shape[0] if name in stored and stored[name].shape else 0 for name in behind
        )
        last = f"decoder.{LAST}.weight"
        self.patch = space.stride // 8
        expected = shapes(space.channels, widths, self.patch)
        found = {name: one.shape for name, one in stored.items()}
        # Trained to grow in time more than is asked for here, a layer has further rows in front.
        cut = {f"decoder.{grow}.conv.weight" for _, grow, _ in STAGES}
        cut = {n for n in cut if n in found and found[n] and found[n][0] > expected[n][0]}
        found |= {name: expected[name] for name in cut if found[name][1:] == expected[name][1:]}
        if problem := f"{last} is absent" if last not in stored else difference(expected, found):
            raise MissingWeightsError(
                f"{file}: {problem}; expected TAEHV's decoder of latents of {space.channels} channels "
                f"({NAMES.get(space.channels, 'there is none')}), or no such file beside the model"
            )
        self.weights: Mapping[str, Tensor] = {
            name: one.read().float()[-expected[name][0] :] for name, one in stored.items()
        }

    def to(self, device: torch.device) -> "TinyDecoder":
        """On a device, from now on."""
        self.weights = {name: one.to(device) for name, one in self.weights.items()}
        return self

    def decode(self, latents: Float[Tensor, "c s h w"]) -> Float[Tensor, "3 t height width"]:
        """Pixels in [-1, 1] of 4 (S - 1) + 1 frames."""
        x = torch.tanh(latents.float().transpose(0, 1) / 3) * 3
        x = F.relu(self._convolve(x, str(FIRST)))
        for blocks, grow, behind in STAGES:
            for block in blocks:
                # Of the first frame there is none before.
                before = torch.cat([torch.zeros_like(x[:1]), x[:-1]])
                inner = torch.cat([x, before], dim=1)
                for layer in (0, 2):
                    inner = F.relu(self._convolve(inner, f"{block}.conv.{layer}"))
                x = F.relu(self._convolve(inner, f"{block}.conv.4") + x)
            x = F.interpolate(x, scale_factor=2)
            grown = F.conv2d(x, self.weights[f"decoder.{grow}.conv.weight"])
            x = self._convolve(grown.reshape(-1, *x.shape[1:]), str(behind))
        x = F.pixel_shuffle(self._convolve(F.relu(x), str(LAST)), self.patch)
        # The first slot is one frame, the last of four that come of it.
        return 2 * x[3:].clamp(0, 1).transpose(0, 1) - 1

    def _convolve(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(
            x, self.weights[f"decoder.{name}.weight"], self.weights.get(f"decoder.{name}.bias"), padding=1
        )
