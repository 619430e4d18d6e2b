"""Segments to sample and clips to edit as tasks, what comes of them, and how they are shared over ranks.

Without Lightning, whose import costs a plan more than the plan.
"""

import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.flow.caching import StepCache
from wanedit.flow.editing import Metrics
from wanedit.flow.guidance import GUIDANCES
from wanedit.flow.guidance.cfg import ClassifierFree
from wanedit.flow.guiding import Ask, Guide, Guided, Pass
from wanedit.flow.path import Schedule, Step, schedule
from wanedit.flow.relay import Told
from wanedit.flow.solvers import count_evaluations
from wanedit.rng import derive_seed
from wanedit.video.arrays import Clip
from wanedit.wan.config import PATCH_SIZE, WAN_21_LATENTS, LatentSpace


@runtime_checkable
class Work(Protocol):
    """A task that is shared over ranks by its cost."""

    @property
    def tokens(self) -> int:
        """Tokens that the transformer sees."""
        ...


@runtime_checkable
class NamedWork(Work, Protocol):
    """A task that several processes may take: the hash of all that decides it, and its name for people."""

    @property
    def digest(self) -> str: ...

    @property
    def name(self) -> str: ...


Task = TypeVar("Task", bound=Work)
# Told (segment index, step index) after every step.
OnStep = Callable[[int, int], None]
# Told (name in the hash of a task, step, clean estimate (1, C, S, h, w)) at every step.
Watch = Callable[[str, Step, Tensor], None]
# Asks the network by what it is given, or gives what the network answered in its place when it was asked before.
Answers = Callable[[Callable[[], Tensor]], Tensor]
# Told (name in the hash of a task): what all answers of the network go through while the task is made.
Kept = Callable[[str], AbstractContextManager[Answers]]


def asked(digest: str) -> AbstractContextManager[Answers]:
    """The network is asked, and nothing is kept."""
    return nullcontext(lambda ask: ask())


@runtime_checkable
class TaskStream(Protocol):
    """Gives this rank one task after the other, and knows beforehand which ones there are."""

    @property
    def tasks(self) -> Sequence[Work]:
        """All that it might give."""
        ...

    def __iter__(self) -> Iterator[Work]: ...


@runtime_checkable
class StoredPicture(Protocol):
    """A picture that is read when it is needed, so that the pictures of a long chain are never all in memory."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width)."""
        ...

    def read(self) -> Float[Tensor, "3 height width"]:
        """The picture in [-1, 1]."""
        ...


Picture = Float[Tensor, "3 height width"] | StoredPicture


@runtime_checkable
class StoredLatents(Protocol):
    """Latents that are read when they are needed, perhaps from several files of which some are not made yet."""

    @property
    def slots(self) -> int:
        """How many."""
        ...

    @property
    def files(self) -> set[str]:
        """Names of those that hold them."""
        ...

    def read(self) -> Float[Tensor, "channels s h w"]:
        """Normalised, float32, on the CPU."""
        ...


@dataclass(frozen=True, eq=False)
class HeldLatents:
    """`StoredLatents` that are in memory."""

    latents: Float[Tensor, "channels s h w"]

    @property
    def slots(self) -> int:
        """How many."""
        return self.latents.shape[1]

    @property
    def files(self) -> set[str]:
        """None."""
        return set()

    def read(self) -> Float[Tensor, "channels s h w"]:
        """All of them."""
        return self.latents


def picture_of(one: Picture) -> Float[Tensor, "3 height width"]:
    """A picture in [-1, 1], read if it is stored."""
    return one.read() if isinstance(one, StoredPicture) else one


@dataclass(frozen=True, eq=False)
class Bridge:
    """What is sampled anew about the keyframe between two segments, the rest of a window held as it is.

    Slots are counted in both segments' latents, the second's without its anchor.

    Attributes:
        latents: of both, to be read when they are sampled.
        window: (start, stop); slot `start` becomes the window's own anchor, a latent of its last frame alone.
        zone: the slots that change, inside of the window.
        sigma: noise level that they are taken back to.
    """

    latents: StoredLatents
    window: tuple[int, int]
    zone: tuple[int, ...]
    sigma: float


@dataclass(frozen=True, eq=False)
class Begun:
    """A segment's state at a noise level, down to which all of a chain were denoised together.

    Attributes:
        latents: those of references and the anchor first, to be read when they are made.
    """

    latents: StoredLatents
    sigma: float


@dataclass(frozen=True, eq=False)
class SegmentTask:
    """A pure, idempotent piece of work: with the model and the sampler's settings, all that decides its pixels.

    Attributes:
        index: its number in the run, its place in the chain unless keyframes were put in or taken out since; with
            `seed` it names the noise.
        sampled_frames: 4n+1.
        first, last: keyframes in [-1, 1], or where they are read, of one size, which the frames get too; the model
            works on the next multiples of a token's side, see `hold_edges`.
        prompt, negative_prompt: complete, sub-prompt joined.
        seed: the run's base seed; of a further take its own.
        digest: hash of all that decides the pixels; names the segment's file.
        latent_space: of the model.
        take: 0, or which further one.
        original: the digest of take 0, by which all takes of it are known.
        middle: sampled frame -> a keyframe between the two, for a model that can be shown any.
        references: pictures that are no frames, for a vace: one slot more each, before the clip's.
        bridge: for the task of sampling a join anew, whose `middle` are all keyframes of its window, also at its ends;
            `first` and `last` are those about the join, which the model looks at.
        begun: for a segment that goes on from there; None for one from noise of its own.
        told: several prompts along time in the place of `prompt`, which is all of them; () for that one.
    """

    index: int
    sampled_frames: int
    first: Picture
    last: Picture
    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    digest: str = ""
    latent_space: LatentSpace = WAN_21_LATENTS
    take: int = 0
    original: str = ""
    middle: Mapping[int, Picture] = field(default_factory=dict)
    references: tuple[Picture, ...] = ()
    bridge: Bridge | None = None
    begun: Begun | None = None
    told: tuple[Told, ...] = ()

    @property
    def kind(self) -> str:
        """Its event in a run's record, and the beginning of its files' names."""
        return "segment" if self.bridge is None else "bridge"

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.kind} {self.index}"

    def keyframes(self) -> list[Float[Tensor, "3 height width"]]:
        """First and last, read."""
        return [picture_of(self.first), picture_of(self.last)]

    def known(self) -> dict[int, Float[Tensor, "3 height width"]]:
        """Sampled frame -> keyframe, read, of all."""
        middle = {frame: picture_of(one) for frame, one in self.middle.items()}
        if self.bridge is not None:
            return middle
        first, last = self.keyframes()
        return {0: first, **middle, self.sampled_frames - 1: last}

    def levels(self, whole: Schedule) -> Schedule:
        """The noise levels of a schedule that it visits; none if it was denoised to the end together with others."""
        if self.bridge is not None:
            return replace(whole, seed=derive_seed(self.seed, "bridge solver", self.index)).after(
                self.bridge.sigma
            )
        levels = replace(whole, seed=derive_seed(self.seed, "solver", self.index))
        return levels if self.begun is None else levels.split(self.begun.sigma)[1]

    @property
    def slots(self) -> int:
        """Latent slots of the sampled clip, references not counted."""
        return timeline.slots(self.sampled_frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.first.shape[1], self.first.shape[2]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent sizes (S, h, w), the slots of references included."""
        slots, height, width = self.latent_space.grid(self.sampled_frames, self.size)
        return len(self.references) + slots, height, width

    @property
    def tokens(self) -> int:
        """Tokens that the transformer sees."""
        return math.prod(self.grid) // math.prod(PATCH_SIZE)


@dataclass(frozen=True)
class Window:
    """A part of a chain's state that the model is asked about at once.

    Attributes:
        task: what it is told and shown there.
        places: the slots of the state that are the window's, in its order.
        weights: of its velocity in each of them; over all windows 1.
    """

    task: SegmentTask
    places: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class CoDenoising:
    """All segments and bridges of a chain, denoised from noise as one state.

    The state is the slots of the sequence of latents, and behind them what each window has for itself: its references
    and its anchor.

    Attributes:
        windows: of the segments, in order, then of the bridges, which here begin at noise with all others.
        slots: of the state.
        sigma: noise level that is the end of it.
        seed: the run's base seed.
        digest: hash of all that decides the state.
    """

    windows: tuple[Window, ...]
    slots: int
    sigma: float
    seed: int
    digest: str
    index = take = 0
    original = ""
    kind = name = "co_denoise"

    @property
    def sampled_frames(self) -> int:
        """What the segments decode to, each keyframe that two of them share counted once."""
        return 1 + sum(one.task.sampled_frames - 1 for one in self.windows if one.task.bridge is None)

    def levels(self, whole: Schedule) -> Schedule:
        """The noise levels of a schedule that it visits."""
        return replace(whole.split(self.sigma)[0], seed=derive_seed(self.seed, "co_denoise solver"))

    @property
    def tokens(self) -> int:
        """What the transformer sees at every step."""
        return sum(window.task.tokens for window in self.windows)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent sizes (slots, h, w) of the state."""
        return self.slots, *self.windows[0].task.grid[1:]

    @property
    def latent_space(self) -> LatentSpace:
        """Of the model."""
        return self.windows[0].task.latent_space


def at_hand(task: Work) -> Work:
    """The task with all that it reads when that is needed in memory, for whoever does not see where it lies.

    Raises:
        InputError: something is not as it was written, or a picture is another by now.
    """
    match task:
        case SegmentTask(bridge=bridge, begun=begun):
            return replace(
                _with_pictures(task),
                bridge=bridge and replace(bridge, latents=HeldLatents(bridge.latents.read())),
                begun=begun and replace(begun, latents=HeldLatents(begun.latents.read())),
            )
        case CoDenoising(windows=windows):
            # Latents of bridges are not there yet, and not read.
            held = (replace(window, task=_with_pictures(window.task)) for window in windows)
            return replace(task, windows=tuple(held))
        case DecodeTask(latents=latents):
            return replace(task, latents=HeldLatents(latents.read()))
        case EditTask(originals=Pictures(frames=frames, keyframes=keyframes)):
            return replace(task, originals=Pictures(np.asarray(frames), keyframes))
    return task


def _with_pictures(task: SegmentTask) -> SegmentTask:
    return replace(
        task,
        first=picture_of(task.first),
        last=picture_of(task.last),
        middle={frame: picture_of(one) for frame, one in task.middle.items()},
        references=tuple(map(picture_of, task.references)),
    )


def peak_memory() -> int:
    """Bytes: of the device, or of this process so far where it works on the CPU."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def hold_edges(
    pictures: Float[Tensor, "*n height width"], latent_space: LatentSpace
) -> Float[Tensor, "*n sampled_height sampled_width"]:
    """Pictures or a clip of any size at the `sampled_size`: the last row and column held, below and on the right.

    To space what `video.hold_last` is to time: what is decoded is cut back to the size before, so that no pixel is
    moved or scaled.
    """
    height, width = pictures.shape[-2:]
    full_height, full_width = latent_space.sampled_size((height, width))
    if (full_height, full_width) == (height, width):
        return pictures
    return pad(pictures, (0, full_width - width, 0, full_height - height), mode="replicate")


@dataclass(eq=False)
class SampledSegment:
    """The latents of a task, and the frames that they decode to by themselves.

    Not frozen, since Lightning walks through predictions and moves what it finds to the CPU.

    Attributes:
        index, digest, tokens: of the task.
        latents: normalised, float32, on the CPU.
        frames: None from a chain that does not decode.
        seconds: wall time of sampling, and of decoding where it is done.
        evaluations: passes of the network that were made.
        off_sdpa: how far its attention was off sdpa, see `WanTransformer`; None where that is what was asked.
        peak_memory: in bytes, as of that function, where and when it was made.
    """

    index: int
    digest: str
    tokens: int
    latents: Float[Tensor, "channels s h w"]
    frames: UInt8[np.ndarray, "t height width 3"] | None
    seconds: float
    evaluations: int = 0
    off_sdpa: float | None = None
    peak_memory: int = field(default_factory=peak_memory)


@dataclass(frozen=True, eq=False)
class DecodeTask:
    """Latents to decode, of whose frames the last ones are kept: those before are the VAE's memory of what went before.

    Attributes:
        index: of the segment whose frames they are; names the file.
        digest: hash of all that decides the pixels.
        latents: in the order of time, to be read when all of them are made.
        frames: to keep, counted from the end.
        size: (height, width) of a frame.
        latent_space: of the model.
        take: of the segment.
        original: the digest that it has where all that it reads is take 0.
    """

    index: int
    digest: str
    latents: StoredLatents
    frames: int
    size: tuple[int, int]
    latent_space: LatentSpace = WAN_21_LATENTS
    take: int = 0
    original: str = ""

    @property
    def name(self) -> str:
        """For a person."""
        return f"decoding segment {self.index}"

    @property
    def tokens(self) -> int:
        """What the transformer would see of these latents."""
        _, height, width = self.latent_space.grid(1, self.size)
        return self.latents.slots * height * width // math.prod(PATCH_SIZE)


@dataclass(eq=False)
class DecodedPiece:
    """The frames of a `DecodeTask`; `index` and `digest` are its own.

    Attributes:
        latents: None, for its segment's file has them.
        seconds: wall time of decoding.
    """

    index: int
    digest: str
    frames: UInt8[np.ndarray, "t height width 3"]
    seconds: float
    latents: None = None


@dataclass(frozen=True)
class SamplerSettings:
    """Which noise levels are visited, how strongly the prompt counts at each, and how and where that is computed.

    Attributes:
        noise_levels: sigmas in the place of those that steps and shift give; the first `num_inference_steps` of them.
        solver: whose schedule is visited.
        guidance_scale_low: guidance once the first of several experts has handed over; None for the same.
        boundary_timestep: down to which the high-noise expert of two answers; None for the model's own.
        cache: answers in the network's place where it may; None for never.
        attention: which of `wanedit.wan.config.ATTENTIONS` is asked.
        weights: in memory, as `wanedit.wan.load.load_transformer` takes them.
        compile: have the transformer's blocks and the decoding of whole clips compiled.
        offload_model: on an accelerator, the transformer is in host memory while the VAE works, and of two
            experts only the one that answers is on the device.
        t5_cpu: the text encoder runs on the CPU.
        tile: side of VAE tiles in pixels; None for whole frames.
        resident: blocks that stay on an accelerator, the others brought in turn, which needs offload_model; None for
            all.
        middle_strength: how firmly the mask holds keyframes in the middle, for all transformers or for each; None for
            what is the model's own.
        guide: how the prompt steers, beside the scales.
    """

    num_inference_steps: int
    shift: float
    guidance_scale: float
    solver: str = field(default="euler", kw_only=True)
    noise_levels: tuple[float, ...] = field(default=(), kw_only=True)
    guidance_scale_low: float | None = field(default=None, kw_only=True)
    boundary_timestep: float | None = field(default=None, kw_only=True)
    cache: StepCache | None = field(default=None, kw_only=True)
    attention: str = field(default="sdpa", kw_only=True)
    weights: str = field(default="full", kw_only=True)
    compile: bool = field(default=False, kw_only=True)
    offload_model: bool = field(default=True, kw_only=True)
    t5_cpu: bool = field(default=False, kw_only=True)
    tile: int | None = field(default=None, kw_only=True)
    resident: int | None = field(default=None, kw_only=True)
    middle_strength: float | Sequence[float] | None = field(default=None, kw_only=True)
    guide: Guide = field(default=Guide(ClassifierFree()), kw_only=True)

    @property
    def scales(self) -> tuple[float, float]:
        """Of guidance: of the first network, and of all after it."""
        low = self.guidance_scale_low
        return self.guidance_scale, self.guidance_scale if low is None else low

    @property
    def guided(self) -> bool:
        """Whether a velocity takes more than one pass at any noise level."""
        return any(len(self.guide.guidance.passes(scale)) > 1 for scale in self.scales)

    @property
    def reads_negative(self) -> bool:
        """Whether the negative prompt is asked about at any noise level."""
        return self.guide.reads_negative(self.scales)

    @property
    def words(self) -> str:
        """As a plan shows it."""
        if self.noise_levels:
            at = ", ".join(f"{sigma:.4g}" for sigma in self.schedule.sigmas[:-1])
            shown = f"{self.num_inference_steps} steps at noise levels {at}"
        else:
            shown = f"{self.num_inference_steps} steps, shift {self.shift:g}"
        low = "" if self.guidance_scale_low is None else f", then {self.guidance_scale_low:g}"
        cache = "" if self.cache is None else f", {type(self.cache).__name__}"
        how = "" if self.attention == "sdpa" else f", attention {self.attention}"
        how += "" if self.weights in ("full", "file") else f", weights in {self.weights}"
        how += ", compiled" * self.compile
        name = GUIDANCES.name_of(type(self.guide.guidance))
        by = "" if name == "cfg" else f" by {name}"
        end, start = self.guide.interval
        if (end, start) != (0.0, 1.0):
            by += f" between noise levels {start:g} and {end:g}"
        return f"{shown}, guidance {self.guidance_scale:g}{low}{by}{cache}{how}"

    def velocity(self, handovers: Sequence[float], ask: Ask) -> Guided:
        """A velocity that asks for what one of a network would ask for; at most, where the clip decides.

        Args:
            handovers: as of an `OpenModel`.
        """
        cache = None if self.cache is None or self.cache.adapts else self.cache
        return Guided(
            ask,
            self.guide,
            self.scales,
            cache,
            network=lambda step: sum(step.timestep < at for at in handovers),
        )

    def evaluations(self, handovers: Sequence[float], levels: Schedule) -> int:
        """Passes of the network for one sample over `levels`; where the cache adapts, at most.

        Raises:
            InputError: as `count_evaluations`.
        """
        counted = 0

        def ask(x: Tensor, step: Step, passes: tuple[Pass, ...]) -> list[Tensor]:
            nonlocal counted
            counted += len(passes)
            return [x] * len(passes)

        count_evaluations(self.solver, levels, self.velocity(handovers, ask))
        return counted

    @property
    def bound(self) -> str:
        """What a plan says before a count of evaluations that may be fewer; "" where it is exact."""
        return "at most " if self.cache is not None and self.cache.adapts else ""

    @property
    def schedule(self) -> Schedule:
        """The noise levels. Raises InputError as `wanedit.flow.path.schedule`."""
        return schedule(self.num_inference_steps, self.shift, self.solver, self.noise_levels)


@dataclass(frozen=True)
class ChainSettings(SamplerSettings):
    """How every segment of a run is sampled."""

    solver: str = "unipc"


@dataclass(frozen=True, eq=False)
class Pictures:
    """A source and its edited keyframes in one size.

    Attributes:
        frames: (T, H, W, 3), perhaps still in their file.
        keyframes: (K, H, W, 3).
    """

    frames: Clip
    keyframes: UInt8[np.ndarray, "k height width 3"]


@dataclass(frozen=True, eq=False)
class EditTask:
    """One clip to edit: with the model, the method and the sampler's settings, all that decides its pixels.

    Attributes:
        index: among the clips of a run; names the file.
        frames: source (T, H, W, 3), any T and size; the model works on the next 4n+1 frames, the last one held, and on
            the next multiples of a token's side, see `hold_edges`.
        keyframes: edited frames (K, H, W, 3) of the same size.
        keyframe_indices: the frame that each keyframe is an edit of, strictly increasing.
        prompt, source_prompt, negative_prompt: of the edited clip, of the source, of guidance.
        seed: with `index` it names the noise.
        digest: hash of all that decides the pixels.
        originals: the same frames and keyframes in the size of the result, where that is not the model's.
        latent_space: of the model.

    Raises:
        InputError: counts, sizes or indices that do not fit, or two keyframes in one latent slot.
    """

    index: int
    frames: UInt8[np.ndarray, "t height width 3"]
    keyframes: UInt8[np.ndarray, "k _ _ 3"]
    keyframe_indices: tuple[int, ...]
    prompt: str
    source_prompt: str
    negative_prompt: str
    seed: int
    digest: str
    originals: Pictures | None = None
    latent_space: LatentSpace = WAN_21_LATENTS

    def __post_init__(self) -> None:
        timeline.check_keyframes(len(self.keyframes), self.keyframe_indices, len(self.frames))
        if self.frames.shape[1:] != self.keyframes.shape[1:]:
            raise InputError(
                f"keyframes are {self.keyframes.shape[1:]} and the source {self.frames.shape[1:]}; expected one size"
            )

    @property
    def pictures(self) -> Pictures:
        """Source and keyframes in the size of the result."""
        return self.originals or Pictures(self.frames, self.keyframes)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    @property
    def sampled_size(self) -> tuple[int, int]:
        """(height, width) that the model sees."""
        return self.latent_space.sampled_size(self.size)

    @property
    def sampled_frames(self) -> int:
        """The 4n+1 frames that the model sees."""
        return timeline.round_up(len(self.frames))

    @property
    def slots(self) -> tuple[int, ...]:
        """The latent slot of every keyframe."""
        return tuple(timeline.slot(index) for index in self.keyframe_indices)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Latent sizes (S, h, w)."""
        return self.latent_space.grid(self.sampled_frames, self.size)

    @property
    def tokens(self) -> int:
        """Tokens of the clip that the transformer sees."""
        return math.prod(self.grid) // math.prod(PATCH_SIZE)


@dataclass(eq=False)
class EditedClip:
    """An edited clip.

    Not frozen, since Lightning walks through predictions and moves what it finds to the CPU.

    Attributes:
        index, digest: of the task.
        tokens: of one pass of the network.
        latents: normalised, float32, on the CPU; None for a method that works on pixels.
        frames: as many as the source has.
        seconds: wall time of encoding, sampling and decoding.
        evaluations: forward passes of the transformer.
        steps: what was measured at every step.
        off_sdpa, peak_memory: as of a `SampledSegment`.
    """

    index: int
    digest: str
    tokens: int
    latents: Float[Tensor, "c s h w"] | None
    frames: UInt8[np.ndarray, "t height width 3"]
    seconds: float
    evaluations: int
    steps: tuple[Metrics, ...] = ()
    off_sdpa: float | None = None
    peak_memory: int = field(default_factory=peak_memory)


def cost(task: Work) -> int:
    """Of a task, as an order: attention makes it grow faster than the tokens."""
    return task.tokens**2


def shares(tasks: Sequence[Work], world_size: int) -> list[list[int]]:
    """For every rank the indices of its tasks, see `share`."""
    return share([cost(task) for task in tasks], world_size)


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
