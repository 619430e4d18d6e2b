"""The 20 condition channels of image-to-video models: 4 of mask, 16 of latent."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.wan.config import MASK_CHANNELS
from wanedit.wan.vae import STRIDE_TIME

Image = Float[Tensor, "3 height width"]


def frame_mask(known: set[int], num_frames: int, height: int, width: int) -> Float[Tensor, "1 4 s h w"]:
    """1 where a frame is known. Slot 0 repeats frame 0 in its four channels; slot j holds frames 4j-3 … 4j.

    So with a known last frame only channel 3 of the last slot is 1: its three frames before are free.
    Source: Wan 2.1, `wan/first_last_frame2video.py`, without its fixed length of 81.

    Args:
        known: frame indices, 0 <= p < num_frames.
        num_frames: 4n+1.
        height, width: of the latents.
    """
    if num_frames < 1 or (num_frames - 1) % STRIDE_TIME:
        raise InputError(f"num_frames is {num_frames}; expected 4n+1")
    outside = sorted(p for p in known if not 0 <= p < num_frames)
    if outside:
        raise InputError(f"frames {outside} lie outside 0 … {num_frames - 1}")
    frames = torch.zeros(num_frames)
    frames[list(known)] = 1
    slots = torch.cat([frames[:1].repeat(MASK_CHANNELS), frames[1:]]).view(-1, MASK_CHANNELS)
    return slots.T[None, :, :, None, None].expand(-1, -1, -1, height, width).contiguous()


def build_condition(
    images: Mapping[int, Image],
    num_frames: int,
    encode: Callable[[Tensor], Tensor],
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "1 20 s h w"]:
    """Mask and latents of a video that shows the known images at their frames and zeros elsewhere.

    Args:
        images: frame index -> pixels in [-1, 1], all of one size; {0: first, T-1: last} for FLF2V.
        num_frames: 4n+1.
        encode: video (1, 3, T, H, W) to normalised latents.
        size: (height, width), for a clip of which nothing is known; otherwise that of the images.

    Raises:
        InputError: images of different sizes, neither image nor size, an index outside the clip.
    """
    sizes = {tuple(image.shape) for image in images.values()}
    if not sizes and size is not None:
        sizes = {(3, *size)}
    if len(sizes) != 1:
        raise InputError(
            f"condition images have sizes {sorted(sizes)}; expected one image or more, of one size"
        )
    like = next(iter(images.values()), torch.empty(0))
    video = like.new_zeros(1, 3, num_frames, *sizes.pop()[1:])
    mask = frame_mask(set(images), num_frames, 1, 1)
    for frame, image in images.items():
        video[0, :, frame] = image
    latents = encode(video)
    return torch.cat([mask.to(latents).expand(-1, -1, -1, *latents.shape[3:]), latents], dim=1)
