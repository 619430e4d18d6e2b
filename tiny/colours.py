"""`python -m tiny.colours`: the linear map from wan-tiny's latents to colours, by which runs draw what they are at."""

import json

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wanedit.files import write_text
from wanedit.runtime.preview import BESIDE, Colours
from wanedit.sprites.sets import Clip, first_clips
from wanedit.timeline import STRIDE
from wanedit.wan.load import load_vae, open_wan
from wanedit.wan.vae import WanVAE

SCENES, FRAMES, SIZE = 48, 17, 64


def pairs(vae: WanVAE, clip: Clip) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n 3"]]:
    """The latents of one drawn clip, and the mean colour of the pixels and frames that each stands for."""
    video = clip.video(SIZE)[None]
    latents = vae.encode(video)
    first, rest = video[:, :, :1], video[:, :, 1:]
    rest = rearrange(rest, "b c (s f) h w -> b c s f h w", f=STRIDE).mean(3)
    side = SIZE // latents.shape[-1]
    colours = F.avg_pool3d(torch.cat([first, rest], dim=2), (1, side, side))
    return rearrange(latents, "1 c s h w -> (s h w) c"), rearrange(colours, "1 c s h w -> (s h w) c")


def main() -> None:
    """Fit, say how well on clips that were not used, and write the map beside the model."""
    folder = open_wan("tiny")
    vae = load_vae(folder, torch.device("cpu"))
    with torch.no_grad():
        fitted = [pairs(vae, clip) for clip in first_clips(SCENES, FRAMES, split="validation")]
        held = [pairs(vae, clip) for clip in first_clips(SCENES // 3, FRAMES, split="test")]
    known, colours = (torch.cat(x) for x in zip(*fitted, strict=True))
    made = Colours.fitted(known, colours)
    known, colours = (torch.cat(x) for x in zip(*held, strict=True))
    off = known @ made.factors + made.added - colours
    explained = 1 - float(off.square().sum() / (colours - colours.mean(0)).square().sum())
    print(f"explains {explained:.1%} of the colours of clips that it was not fitted to")
    told = {"factors": made.factors.tolist(), "added": made.added.tolist()}
    write_text(folder.path / BESIDE, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
