"""What a run will cost: tokens, floating-point operations, memory, disk. Estimates, for the plan."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from wanedit.errors import ResourceError
from wanedit.lit.tasks import CoDenoising, DecodeTask, EditTask, SamplerSettings, SegmentTask
from wanedit.lit.velocity import BATCHED_UP_TO
from wanedit.timeline import STRIDE
from wanedit.wan.checkpoint import held_bytes
from wanedit.wan.condition import image_part, text_part
from wanedit.wan.config import IMAGE_TOKENS, WanConfig
from wanedit.wan.load import (
    WanFolder,
    default_dtype,
    phases,
    read_vae_config,
    text_dtype,
    transformer_dtype,
    vae_part,
)
from wanedit.wan.vae import WARM_UP, decoding_bytes

# FFV1 keeps about this share of the raw bytes of camera footage.
LOSSLESS_SHARE = 0.6
# Room for the final H.264 file as a share of the raw bytes, and what is asked for beyond the estimate.
FINAL_SHARE, SPARE = 0.05, 1.25


# Of a chain's state, as large as its latents, a solver holds so many: the state, its velocity, what it remembers.
STATES = 7


def forward_flops(config: WanConfig, tokens: int) -> float:
    """Floating-point operations of one velocity: two per multiply-add of every matrix product.

    The projections of the context, and the embedding of known frames, are left out: they run once per sample.
    """
    # Hint blocks are like the others, each with a projection of its own, the first with two.
    hints = len(config.vace_layers)
    dim, context = config.dim, config.text_len + config.num_images * IMAGE_TOKENS
    projections = 6 * dim * dim + 2 * dim * config.ffn_dim  # q k v o, cross-attention's q o, feed-forward
    attention = 2 * dim * (tokens + context)
    patches = 4 * dim * (config.in_dim + config.out_dim)
    blocks = (config.num_layers + hints) * (projections + attention) + (hints + bool(hints)) * dim * dim
    return 2.0 * tokens * (blocks + patches)


def sampling_flops(config: WanConfig, tasks: Sequence[SegmentTask], passes: int) -> float:
    """Floating-point operations of sampling these segments with so many passes each, decoding not counted."""
    return sum(forward_flops(config, task.tokens) * passes for task in tasks)


def activation_bytes(config: WanConfig, tokens: int, guided: bool, bytes_per_weight: int) -> int:
    """Live at the widest point of a block: residual stream and its norm in float32, q k v, feed-forward; and beside it,
    of a vace, the stream of its hints and the embedded latents."""
    rows, streams = 2 if guided and tokens <= BATCHED_UP_TO else 1, 16 if config.vace_layers else 8
    return rows * tokens * (streams * config.dim + (4 * config.dim + config.ffn_dim) * bytes_per_weight)


def cross_bytes(config: WanConfig, prompts: int, bytes_per_weight: int) -> int:
    """Of the keys and values of so many prompts, the negative one among them, and of pictures, in every block."""
    rows = prompts * config.text_len + config.num_images * IMAGE_TOKENS
    return rows * 2 * config.dim * (config.num_layers + len(config.vace_layers)) * bytes_per_weight


@dataclass(frozen=True)
class Memory:
    """Bytes: of the largest part while it is alone, and of transformer, VAE and activations together."""

    encoders: int
    sampling: int

    @property
    def words(self) -> str:
        """As a plan shows it."""
        encoding, sampling = (
            f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
            for count in (self.encoders, self.sampling)
        )
        return f"about {encoding} to encode, then {sampling} to sample and decode, and 1.2 GB for the process itself"


def memory(
    folder: WanFolder,
    task: SegmentTask | EditTask,
    settings: SamplerSettings,
    tokens: int | None = None,
    views: int = 1,
) -> Memory:
    """Peak of the encoding stage and of the sampling stage on this machine, encoders freed in between.

    Args:
        tokens: of one pass of the network; None for the task's.
        views: of the clip, each with a context of its own, which are held at once.
    """
    config, device = folder.config, "cuda" if torch.cuda.is_available() else "cpu"
    dtype = default_dtype(device)
    activations = activation_bytes(config, tokens or task.tokens, settings.guided, dtype.itemsize)
    prompts = max(1, len(task.told)) if isinstance(task, SegmentTask) else 1
    cross = views * cross_bytes(config, prompts + settings.reads_negative, dtype.itemsize)
    dtype_of = transformer_dtype(dtype)
    weights = sum(
        sum(held_bytes(part.weights(), dtype_of, settings.weights).values()) for part, _ in phases(folder)
    )
    weights += 4 * vae_part(folder.source).num_weights()
    # With the frames that the decoder is warmed up by, and drops.
    frames = task.sampled_frames + STRIDE * WARM_UP
    decoding = decoding_bytes(read_vae_config(folder.source), frames, task.size)
    text = text_dtype(folder.source, device).itemsize
    encoders = [text * text_part(folder.source).num_weights()]
    if config.image_tokens:
        encoders.append(4 * image_part(folder.source).num_weights())
    return Memory(max(encoders), weights + cross + max(activations, decoding))


def latent_bytes(task: SegmentTask | CoDenoising | EditTask) -> int:
    """Of the float32 latents of a task."""
    return 4 * task.latent_space.channels * math.prod(task.grid)


def disk_bytes(
    sampled: Sequence[SegmentTask | CoDenoising],
    decoded: Sequence[DecodeTask],
    total_frames: int,
    size: tuple[int, int],
) -> int:
    """Room that latents and lossless segments to be written and the final video need, with a quarter to spare."""
    frame = size[0] * size[1] * 3
    latents = sum(map(latent_bytes, sampled))
    lossless = sum(task.frames for task in decoded) * frame * LOSSLESS_SHARE
    return int(SPARE * (latents + lossless + total_frames * frame * FINAL_SHARE)) + (1 << 20)


def require_memory(frames: int, size: tuple[int, int], copies: int, doing: str) -> None:
    """See that so many copies of a clip of 8-bit frames fit, before a model is loaded.

    Raises:
        ResourceError: they do not.
    """
    height, width = size
    needed, free = copies * frames * height * width * 3, psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"{doing} holds {copies} copies of {frames} frames of {width}x{height}, {needed / 2**30:.3g} GiB; "
            f"{free / 2**30:.3g} GiB of memory are free. Edit fewer frames at a time (start, num_frames), or with a "
            "smaller output_size"
        )
