"""The looks a scene can be drawn in. They change colours only: masks, centres and flow stay the same."""

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.sprites.scene import COLOURS

STYLES = ("plain", "outline", "night", "pastel", "neon", "sepia")
# A neon tube glows up to this distance from its outline, in units of the sprite's size.
_GLOW = 0.45
_INK, _PAPER = (0.15, 0.08, 0.03), (1.0, 0.95, 0.83)


def rgb(name: str, style: str) -> Float[Tensor, "3 1 1 1"]:
    """A named colour as its style shows it, in [0, 1]."""
    colour = torch.tensor(COLOURS[name])
    if style == "night":
        colour = colour * torch.tensor([0.30, 0.34, 0.55])
    elif style == "pastel":
        colour = 0.45 * colour + 0.55
    return colour[:, None, None, None]


def toned(name: str, style: str) -> Float[Tensor, "3 1 1 1"]:
    """A background's colour: halfway to grey, so that sprites stand out from it; nearly black behind neon."""
    if style == "neon":
        return 0.16 * rgb(name, style) + torch.tensor([0.01, 0.01, 0.04])[:, None, None, None]
    grey = 0.24 if style == "night" else 0.72
    return 0.5 * rgb(name, style) + 0.5 * grey


def neon(name: str, distance: Float[Tensor, "T H W"]) -> Float[Tensor, "3 T H W"]:
    """Light of a neon tube bent along a sprite's outline: a whitish core in a glow of the sprite's colour."""
    away = distance.abs()
    core = (1 - away / 0.09).clamp(min=0)
    glow = (1 - away / _GLOW).clamp(min=0).square()
    return rgb(name, "neon") * (0.7 * glow + 0.6 * core) + 0.35 * core.square()


def graded(picture: Float[Tensor, "3 T H W"], style: str) -> Float[Tensor, "3 T H W"]:
    """The finished picture in [0, 1] as its style develops it: sepia keeps only the brightness."""
    if style == "neon":
        return picture.clamp(max=1)
    if style != "sepia":
        return picture
    # Luma weights of ITU-R BT.601.
    luma = (picture * torch.tensor([0.299, 0.587, 0.114])[:, None, None, None]).sum(0, keepdim=True)
    # A print has more contrast than its subject; the weights squeeze saturated colours towards mid grey.
    luma = ((luma - 0.5) * 1.4 + 0.5).clamp(0, 1)
    ink, paper = (torch.tensor(tone)[:, None, None, None] for tone in (_INK, _PAPER))
    return torch.lerp(ink, paper, luma)
