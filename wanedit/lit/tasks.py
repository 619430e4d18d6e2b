"""Segments as tasks, and how they are shared. Without Lightning, whose import costs a plan more than the plan."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from wanedit import timeline


@runtime_checkable
class Work(Protocol):
    """A task that is shared over ranks by its cost."""

    @property
    def tokens(self) -> int:
        """Tokens that the transformer sees."""
        ...


Task = TypeVar("Task", bound=Work)
# Told (segment index, step index) after every step.
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SegmentTask:
    """A pure, idempotent piece of work: with the model and the sampler's settings, all that decides its pixels.

    Attributes:
        index: position in the chain; with `seed` it names the noise.
        sampled_frames: 4n+1.
        first, last: keyframes in [-1, 1], of one size, multiples of 16.
        prompt, negative_prompt: complete, sub-prompt joined.
        seed: the run's base seed.
        digest: hash of all that decides the pixels; names the segment's file.
    """

    index: int
    sampled_frames: int
    first: Float[Tensor, "3 height width"]
    last: Float[Tensor, "3 height width"]
    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    digest: str = ""

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent sizes (S, H/8, W/8)."""
        _, height, width = self.first.shape
        return timeline.slots(self.sampled_frames), height // 8, width // 8

    @property
    def tokens(self) -> int:
        """Tokens that the transformer sees: S * H/16 * W/16."""
        slots, height, width = self.grid
        return slots * (height // 2) * (width // 2)


@dataclass(eq=False)
class SampledSegment:
    """The latents of a task and the frames that they decode to.

    Not frozen, since Lightning walks through predictions and moves what it finds to the CPU.

    Attributes:
        index, digest, tokens: of the task.
        latents: normalised, float32, on the CPU.
        seconds: wall time of sampling and decoding.
    """

    index: int
    digest: str
    tokens: int
    latents: Float[Tensor, "16 s h w"]
    frames: UInt8[np.ndarray, "t height width 3"]
    seconds: float


@dataclass(frozen=True)
class ChainSettings:
    """How every segment of a run is sampled.

    Attributes:
        offload_model: on an accelerator, the transformer is in host memory while the VAE works, and of two
            experts only the one that answers is on the device.
        t5_cpu: the text encoder runs on the CPU.
        tile: side of VAE tiles in pixels; None for whole frames.
    """

    num_inference_steps: int
    shift: float
    guidance_scale: float
    solver: str = "unipc"
    offload_model: bool = True
    t5_cpu: bool = False
    tile: int | None = None


def shares(tasks: Sequence[Task], world_size: int) -> list[list[Task]]:
    """The tasks of every rank, spread by cost."""
    # Attention makes the cost of a task grow faster than its tokens; the order is what counts here.
    return [[tasks[i] for i in mine] for mine in share([task.tokens**2 for task in tasks], world_size)]


def share(costs: list[int], world_size: int) -> list[list[int]]:
    """Spread work over ranks, longest first, each piece to the least loaded rank (Graham 1969, LPT).

    Returns:
        For every rank the indices it works on, in ascending order; a rank beyond the work gets none.
    """
    loads, shares = [0] * world_size, [[] for _ in range(world_size)]
    for index in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = loads.index(min(loads))
        loads[rank] += costs[index]
        shares[rank].append(index)
    return [sorted(indices) for indices in shares]
