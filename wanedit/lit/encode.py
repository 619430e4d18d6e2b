"""Everything about a run's prompts and keyframes that the transformer reads, encoded before it is loaded."""

import contextlib
import ctypes
import gc
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.lit.tasks import SegmentTask
from wanedit.wan.condition import load_image_encoder, load_text_encoder
from wanedit.wan.load import WanFolder


@dataclass(frozen=True)
class Encodings:
    """Features by prompt and image tokens by keyframe pair, on the CPU; a few MB per segment at most."""

    text: dict[str, Tensor]
    image_tokens: dict[int, Tensor]


def encode_tasks(
    folder: WanFolder,
    tasks: Iterable[SegmentTask],
    guidance_scale: float,
    device: torch.device,
    text_device: torch.device,
    dtype: torch.dtype,
) -> Encodings:
    """Load each encoder, use it on all tasks, and let it go before the next is loaded.

    So the text encoder, the largest part but one, never shares memory with the transformer.

    Args:
        folder: the model.
        tasks: of this rank.
        guidance_scale: at 1.0 negative prompts are not encoded.
        device: of the image encoder.
        text_device: of the text encoder; the CPU under `t5_cpu`.
        dtype: of the text encoder, also under `t5_cpu`, as officially. The image encoder runs in float32: it is
            gone before the transformer comes, and official float16 would only round.
    """
    tasks = list(tasks)
    prompts = {task.prompt for task in tasks}
    if guidance_scale != 1.0:
        prompts |= {task.negative_prompt for task in tasks}
    text = encode_texts(folder, prompts, text_device, dtype)
    # A first-last model reads both keyframes; an inpainting one (Fun-InP) reads the first and sees the last
    # through its condition channels.
    both = folder.config.num_images == 2
    pairs = {task.index: [task.first, task.last] if both else [task.first] for task in tasks}
    pictures = encode_pictures(folder, [image for pair in pairs.values() for image in pair], device)
    tokens = {
        index: torch.cat([pictures[picture_key(image)] for image in pair], dim=1)
        for index, pair in pairs.items()
        if pictures
    }
    return Encodings(text, tokens)


def encode_texts(
    folder: WanFolder, prompts: Iterable[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Prompt -> features (1, N, text_dim), on the CPU."""
    prompts = sorted(set(prompts))
    if not prompts:
        return {}
    encoder = load_text_encoder(folder.path, folder.config.text_len, dtype, device)
    with torch.no_grad():
        features = {prompt: encoder([prompt]).cpu() for prompt in prompts}
    del encoder
    release(device)
    return features


def encode_pictures(
    folder: WanFolder, images: Iterable[Float[Tensor, "3 height width"]], device: torch.device
) -> dict[str, Tensor]:
    """`picture_key` -> 257 tokens (1, 257, dim), on the CPU; empty for a model that reads none."""
    unique = {picture_key(image): image for image in images}
    if not unique or not folder.config.image_tokens:
        return {}
    encoder = load_image_encoder(folder.path, torch.float32, device)
    with torch.no_grad():
        tokens = {key: encoder(image[None].to(device)).cpu() for key, image in unique.items()}
    del encoder
    release(device)
    return tokens


def picture_key(image: Float[Tensor, "3 height width"]) -> str:
    """A picture's name by content: two frames of equal pixels are encoded once."""
    pixels = image.detach().to("cpu", torch.float32).contiguous().numpy()
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def release(device: torch.device) -> None:
    """Give freed weights back to the system or the device's allocator."""
    gc.collect()
    _trim_heap()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _trim_heap() -> None:
    # glibc keeps freed blocks of up to 32 MB for itself until it is told; other C libraries have no such call.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
