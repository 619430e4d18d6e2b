"""What fits a card: which part of a model lies where, decided from sizes alone, before anything is loaded.

All figures are estimates: of weights their bytes, of activations what a block holds at its widest, of time operations
and bandwidth.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import psutil
import torch

from wanedit.errors import InputError, ResourceError
from wanedit.lit.edit_clip import EditSettings
from wanedit.lit.tasks import ChainSettings, SamplerSettings
from wanedit.runtime.cost import activation_bytes, cross_bytes, forward_flops
from wanedit.runtime.launch import current_world, gpus
from wanedit.runtime.settings import SampledSettings
from wanedit.timeline import STRIDE
from wanedit.wan.checkpoint import held_bytes
from wanedit.wan.condition import image_part, text_part
from wanedit.wan.config import WanConfig
from wanedit.wan.load import (
    WanFolder,
    packed_parts,
    phases,
    read_vae_config,
    text_dtype,
    transformer_dtype,
    vae_part,
)
from wanedit.wan.packed import PIECE, ROUNDED, packable
from wanedit.wan.vae import WARM_UP, decoding_bytes

Settings = TypeVar("Settings", ChainSettings, EditSettings)
GB = 1 << 30
# Of a card the driver's context takes the one, the allocator's gaps the other.
CONTEXT, GAPS = int(0.8 * GB), 0.05
TILES = (None, 512, 256, 128)
# What a plan calls weights in memory.
FORMATS = {
    "full": "bfloat16",
    "file": "weights as small as in the file",
    "int8": "weights in int8",
    "fp8": "weights in fp8",
}
# Of its peak a card brings this to the products of a transformer.
SHARE = 0.5
# Bytes that a card moves to make one number of packed weights: a code read, float32 written, read and written scaled,
# read again and rounded to 16 bits, which are joined, and read by the product.
UNPACKING = 1 + 3 * 4 + 4 + 2 + 4 + 2


@dataclass(frozen=True)
class Card:
    """One that people own.

    Attributes:
        gigabytes: of memory.
        flops: a second, of dense bfloat16 products that are added up in float32, by its data sheet.
        bandwidth: bytes a second that come from host memory.
        memory: bytes a second of its own memory, by its data sheet.
    """

    name: str
    gigabytes: int
    flops: float
    bandwidth: float
    memory: float


CARDS = (
    Card("RTX 4060", 8, 30e12, 12e9, 272e9),
    Card("RTX 3060", 12, 25e12, 24e9, 360e9),
    Card("RTX 4080", 16, 97e12, 24e9, 717e9),
    Card("RTX 4090", 24, 165e12, 24e9, 1008e9),
    Card("RTX A6000", 48, 155e12, 24e9, 768e9),
    Card("A100", 80, 312e12, 24e9, 2039e9),
    Card("H100", 80, 989e12, 50e9, 3350e9),
)


@dataclass(frozen=True)
class Sizes:
    """Bytes of what a card holds at one time or another.

    Attributes:
        text, image: the encoders, each alone.
        vae: always there, with its weights.
        fixed: of the transformer that answers, what is no block.
        block: one of its blocks; of `blocks`, in each of `experts`.
        contexts: keys and values of the prompts and pictures.
        activations: of a pass.
        decoding: tile -> beside the weights, to decode the longest piece; the tiles that may be taken, falling.
        weights: how matrices lie in memory, as `wanedit.wan.load.load_transformer` takes it.
        unpacked: numbers that are made of packed weights at each pass.
    """

    text: int
    image: int
    vae: int
    fixed: int
    block: int
    blocks: int
    experts: int
    contexts: int
    activations: int
    decoding: dict[int | None, int]
    weights: str = "full"
    unpacked: int = 0

    @property
    def transformers(self) -> int:
        """All weights of all of them."""
        return self.experts * (self.fixed + self.blocks * self.block)


@dataclass(frozen=True)
class Fit:
    """Where everything lies.

    Attributes:
        gigabytes: of the card.
        weights, unpacked: as of `Sizes`.
        resident: blocks that stay on it; the others are brought in turn, see `wanedit.wan.streaming`.
        offload_model, t5_cpu, tile: as in `SampledSettings`.
        peak: bytes on the card at most.
        moved: bytes brought to it at each pass of the network.
        host: bytes of weights in host memory.
    """

    gigabytes: float
    resident: int
    blocks: int
    offload_model: bool
    t5_cpu: bool
    tile: int | None
    peak: int
    moved: int
    host: int
    weights: str = "full"
    unpacked: int = 0

    def applied(self, settings: Settings) -> Settings:
        """Settings of a sampler that lay the model out so."""
        return replace(
            settings,
            offload_model=self.offload_model,
            t5_cpu=self.t5_cpu,
            tile=self.tile,
            weights=self.weights,
            resident=None if self.resident == self.blocks else self.resident,
        )

    @property
    def words(self) -> str:
        """As a plan shows it."""
        away = self.blocks - self.resident
        told = [f"{self.gigabytes:g} GB: {FORMATS[self.weights]}"]
        if away:
            told.append(
                f"{self.resident} of {self.blocks} blocks stay on the card, {away} are brought in turn while those "
                "before compute"
            )
        elif self.offload_model:
            told.append("the transformer leaves the card while the VAE works")
        else:
            told.append("all stays on the card")
        told += ["text encoder on the CPU"] if self.t5_cpu else []
        told += [f"VAE in tiles of {self.tile}"] if self.tile else []
        told.append(f"about {self.peak / GB:.1f} GB at most")
        return ", ".join(told) + (f"; {self.host / GB:.1f} GB of host memory" if self.host else "")

    def seconds(self, card: Card, config: WanConfig, tokens: int, passes: int) -> float:
        """Of sampling one task on a card: each pass computes or waits for blocks, whichever takes longer."""
        computing = forward_flops(config, tokens) / (SHARE * card.flops)
        computing += UNPACKING * self.unpacked / card.memory
        return passes * max(computing, self.moved / card.bandwidth)

    def estimates(self, config: WanConfig, tokens: int, passes: int, what: str) -> list[str]:
        """A line for each known card of that memory, or of the next larger there is; `what` is sampled."""
        size = min((card.gigabytes for card in CARDS if card.gigabytes >= self.gigabytes), default=80)
        return [
            f"estimate   about {self.seconds(card, config, tokens, passes):.3g} s of sampling {what} on an "
            f"{card.name} ({card.gigabytes} GB), from operations and bandwidth"
            for card in CARDS
            if card.gigabytes == size
        ]


def weight_bytes(held: Mapping[str, int]) -> tuple[int, int, int]:
    """Of the tensors of a transformer: of what is no block, of its largest block, and how many blocks there are."""
    sizes: Counter[str] = Counter()
    for name, size in held.items():
        sizes[name.split(".")[1] if name.startswith("blocks.") else ""] += size
    fixed = sizes.pop("", 0)
    return fixed, max(sizes.values()), len(sizes)


def measure(
    folder: WanFolder,
    frames: int,
    size: tuple[int, int],
    guided: bool,
    prompts: int = 2,
    views: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    weights: str = "full",
    tile: int | None = None,
) -> Sizes:
    """The sizes of a model on an accelerator, for clips of so many sampled frames of (height, width), told so many
    prompts, the negative one among them, in each of so many views that are held at once.

    Args:
        tile: of the VAE; None for any that is tried.
    """
    parts = [part.weights() for part, _ in phases(folder)]
    fixed, block, blocks = max(
        weight_bytes(held_bytes(part, transformer_dtype(dtype), weights)) for part in parts
    )
    config, width = folder.config, dtype.itemsize
    vae, tokens = read_vae_config(folder.source), math.prod(folder.latent_space.grid(frames, size)) // 4
    # With the frames that the decoder is warmed up by, and drops.
    decoded = frames + STRIDE * WARM_UP
    clip = 2 * 3 * 4 * decoded * math.prod(size)
    # Of packed weights one matrix is numbers while it computes, and a piece of it in float32 beside.
    matrices = [
        [math.prod(shape) for name, shape in part.shapes.items() if packable(name, shape)] for part in parts
    ]
    unpacking = (
        0 if weights == "full" else width * max(map(max, filter(None, matrices)), default=0) + 12 * PIECE
    )
    return Sizes(
        text=text_dtype(folder.source, "cuda").itemsize * text_part(folder.source).num_weights(),
        image=4 * image_part(folder.source).num_weights() if config.image_tokens else 0,
        vae=4 * vae_part(folder.source).num_weights(),
        fixed=fixed,
        block=block,
        blocks=blocks,
        experts=len(parts),
        contexts=views * cross_bytes(config, prompts, width),
        activations=activation_bytes(config, tokens, guided, width) + unpacking,
        decoding={
            one: decoding_bytes(vae, decoded, size)
            if one is None
            else clip + decoding_bytes(vae, decoded, (min(one, size[0]), min(one, size[1])))
            for one in (TILES if tile is None else (tile,))
        },
        weights=weights,
        unpacked=0 if weights == "full" else max(map(sum, matrices)),
    )


def fit(sizes: Sizes, gigabytes: float, t5_cpu: bool = False) -> Fit:
    """Lay a model out on a card, the quickest way that fits: what costs nothing first, then what costs time.

    Args:
        t5_cpu: keep the text encoder on the CPU though it fits.

    Raises:
        ResourceError: no way fits; it names the card that would do.
    """
    budget = int((gigabytes * GB - CONTEXT) * (1 - GAPS))
    # While the text encoder works nothing else of size is there.
    t5_cpu = t5_cpu or sizes.text > budget
    fitting = [tile for tile, size in sizes.decoding.items() if sizes.vae + size <= budget]
    tile = fitting[0] if fitting else [*sizes.decoding][-1]
    working = sizes.vae + sizes.fixed + sizes.contexts + sizes.activations
    decoding = sizes.vae + sizes.decoding[tile]
    together = sizes.vae + sizes.transformers + max(sizes.contexts + sizes.activations, sizes.decoding[tile])
    offload = together > budget
    resident = sizes.blocks
    if working + sizes.blocks * sizes.block > budget:
        # Beside those that stay the one that computes, and the one that is on its way.
        resident = max(-1, (budget - working) // sizes.block - 2)
    least = max(working + 2 * sizes.block, decoding, sizes.image)
    if resident < 0 or max(decoding, sizes.image) > budget:
        need = math.ceil((least / (1 - GAPS) + CONTEXT) / GB)
        tiles = f" in tiles of {tile}" if tile else ""
        raise ResourceError(
            f"{gigabytes:g} GB do not hold this: with all blocks in host memory sampling takes "
            f"{(working + 2 * sizes.block) / GB:.1f} GB, decoding{tiles} {decoding / GB:.1f} GB; a card of {need} GB "
            "would do, or a smaller size, or fewer frames at a time"
        )
    away = sizes.blocks - resident
    there = working + resident * sizes.block + (2 * sizes.block if away else 0)
    stages = [there if offload else together, decoding, sizes.image, 0 if t5_cpu else sizes.text]
    return Fit(
        gigabytes=gigabytes,
        resident=resident,
        blocks=sizes.blocks,
        offload_model=offload,
        t5_cpu=t5_cpu,
        tile=tile,
        peak=max(stages),
        moved=away * sizes.block,
        host=max(sizes.transformers if offload else 0, sizes.text if t5_cpu else 0),
        weights=sizes.weights,
        unpacked=sizes.unpacked,
    )


def best(options: Sequence[Sizes], gigabytes: float, host: int | None = None, t5_cpu: bool = False) -> Fit:
    """Of several ways to keep the weights the one that brings the least to the card at each pass, the first of equals;
    one that rounds them only where no other fits.

    Args:
        host: bytes of host memory for this process; None for as many as are needed.
        t5_cpu: as of `fit`.

    Raises:
        ResourceError: none fits; as of the last, which is the smallest.
    """
    fitting, failed = list[Fit](), ""
    for sizes in options:
        try:
            one = fit(sizes, gigabytes, t5_cpu)
        except ResourceError as error:
            failed = str(error)
            continue
        if host is None or one.host <= host:
            fitting.append(one)
        else:
            failed = (
                f"{one.words}: this machine has {host / GB:.1f} GB of host memory for each process; expected a larger "
                "card, fewer processes, or smaller weights (weights int8)"
            )
    if not fitting:
        raise ResourceError(failed)
    exact = [one for one in fitting if one.weights not in ROUNDED]
    return min(exact or fitting, key=lambda one: one.moved)


def decide_fit(
    config: SampledSettings,
    model: WanFolder,
    frames: int,
    size: tuple[int, int],
    settings: SamplerSettings,
    prompts: int = 1,
    views: int = 1,
) -> tuple[Fit | None, list[str]]:
    """What `--fit` comes to for clips of so many sampled frames of (height, width), told so many prompts and perhaps
    the negative one in each of so many views; and notes.

    Raises:
        InputError, ResourceError: see `card_memory` and `best`.
    """
    if config.fit is None:
        return None, []
    world, notes = current_world(), list[str]()
    found = card_memory(config.fit, gpus(config, world))
    if not torch.cuda.is_available():
        asked, shown = "auto", ""
        if found is not None:
            asked, shown = f"{found:g}", f": the plan shows what a card of {found:g} GB would do"
        notes.append(f"fit {asked} changes nothing here, where there is no accelerator{shown}")
    if found is None:
        return None, notes
    small = ["file"] if packed_parts(model) else []
    ways = {"auto": ["full", *small, "int8"], "file": small or ["full"]}.get(config.weights, [config.weights])
    prompts += settings.reads_negative
    sizes = [
        measure(model, frames, size, settings.guided, prompts, views, weights=way, tile=config.tile)
        for way in ways
    ]
    # Each process keeps blocks of its own there.
    host = psutil.virtual_memory().total // max(config.num_processes, world.local_size)
    decided = best(sizes, found, host if torch.cuda.is_available() else None, config.t5_cpu)
    with suppress(ResourceError):
        rounded = fit(sizes[-1], found, config.t5_cpu)
        if decided.weights not in ROUNDED and decided.moved > rounded.moved:
            notes.append(
                f"weights int8 would keep {rounded.resident} of {rounded.blocks} blocks on the card in place of "
                f"{decided.resident}; they change a velocity by a percent or so"
            )
        if config.weights == "auto" and decided.weights in ROUNDED:
            notes.append(
                f"the weights are rounded to {decided.weights}, for they fit in no other way: a velocity changes by a "
                "percent or so"
            )
    return decided, notes


def card_memory(asked: str | float, devices: Sequence[int]) -> float | None:
    """The gigabytes that `--fit` names; for `auto` those of the smallest of these devices, None where there is none.

    Raises:
        InputError: a text that is neither.
    """
    if asked == "auto":
        memories = (torch.cuda.get_device_properties(device).total_memory / GB for device in devices)
        return min(memories, default=None)
    try:
        gigabytes = float(asked)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 1e4:
        raise InputError(f"fit is {asked!r}; expected auto, or the gigabytes of a card")
    return gigabytes
