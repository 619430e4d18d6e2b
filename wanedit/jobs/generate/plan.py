"""From a configuration to tasks: every decision made, every input read, no weight loaded; and its page."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from rich.table import Table
from torch import Tensor

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.files import Json, digest, reading
from wanedit.flow.path import Schedule
from wanedit.flow.solvers import SOLVERS, count_evaluations
from wanedit.jobs.generate.config import (
    GenerationConfig,
    check,
    check_crews,
    check_output,
    find_keyframes,
    prompts,
    references,
    timed_keyframes,
)
from wanedit.jobs.generate.joins import (
    Todo,
    bridges,
    co_denoising,
    decodings,
    first_takes,
    hashed_told,
    latents_file,
    taken,
    told_along,
)
from wanedit.lit.model import held_softly, open_model, require_wan
from wanedit.lit.tasks import ChainSettings, CoDenoising, DecodeTask, SegmentTask, share
from wanedit.metrics.functional.junctions import check_junctions
from wanedit.rng import derive_seed
from wanedit.runtime.cost import STATES, disk_bytes, forward_flops, latent_bytes, memory, sampling_flops
from wanedit.runtime.directory import Entry, Manifest, RunDirectory
from wanedit.runtime.events import wide_console
from wanedit.runtime.fit import Fit, decide_fit
from wanedit.runtime.inputs import find_path
from wanedit.runtime.launch import World, elsewhere
from wanedit.runtime.predict import Velocities
from wanedit.runtime.record import own_record, resolve_attention, resolve_seed, resolve_threads
from wanedit.runtime.sampling import decide_sampling, hashed_cache, hashed_computing, hashed_guide, unguided
from wanedit.runtime.settings import parse_size
from wanedit.timeline import Keyframe, Timeline
from wanedit.video import FitRecord, fit, from_uint8, load_image
from wanedit.video.arrays import Frame, pixels_sha256
from wanedit.video.formats import format_of
from wanedit.video.sound import Sound, sound_file
from wanedit.wan.catalog import KNOWN_MODELS, SHOWN, fitting
from wanedit.wan.condition import prompt_doubts
from wanedit.wan.config import LatentSpace
from wanedit.wan.load import WanFolder, compute_kind, hash_files
from wanedit.wan.packed import ROUNDED
from wanedit.wan.parallel import split
from wanedit.wan.transformer import heads_problem

# Raised when a change to the code changes the pixels of a segment for the same inputs.
ALGORITHM = 3
# Of a sampler's settings: where weights lie changes no pixel, and the others are hashed by their own words.
ELSEWHERE = (
    "offload_model", "t5_cpu", "resident", "middle_strength", "cache", "guide", "attention", "weights",
    "compile",
)  # fmt: skip
LATER = ("noise_levels", "guidance_scale_low", "boundary_timestep")
Say = Callable[[str], None]
Value = TypeVar("Value")


@dataclass(frozen=True)
class KeyframeImage:
    """A picture at the size of the run, read anew whenever it is needed: hundreds would fill the memory.

    Attributes:
        sha256: of its pixels.
        notes: what was normalised when it was read.
        fit: how it came to its size.
        fill: levels around one that is padded.
    """

    keyframe: Keyframe
    sha256: str
    notes: tuple[str, ...]
    fit: FitRecord
    fill: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, height, width)."""
        return (3, *self.fit.target)

    def pixels(self) -> Frame:
        """uint8 (H, W, 3).

        Raises:
            InputError: the file is not what it was when the run was planned.
        """
        pixels, _ = fit(load_image(self.keyframe.path).pixels, self.fit.target, self.fit.policy, self.fill)
        if pixels_sha256(pixels) != self.sha256:
            raise InputError(f"{self.keyframe.path} has changed since the run was planned; run it again")
        return pixels

    def read(self) -> Float[Tensor, "3 height width"]:
        """Its pixels in [-1, 1]."""
        return from_uint8(self.pixels()[None])[:, 0]


@dataclass(frozen=True)
class Plan:
    """A run, decided.

    Attributes:
        config: with every null filled that a model's default could fill: what is recorded.
        size: (height, width).
        seed: of all noise.
        evaluations: passes of the network for one segment, two for each velocity under guidance; at most, where the
            clip decides what a cache answers.
        window_evaluations: likewise for each window of what is denoised together.
        begun_evaluations: likewise for a segment that goes on from there.
        apart: for each segment a task of take 0, to be sampled by itself.
        model_files: SHA-256 of every file that decides what the model computes, by its path inside the model's folder.
        sound: what lies under the video.
        bridge_evaluations: passes of the network for one bridge.
        together: what is denoised as one state before the segments, if anything is.
        tasks: one for each segment of the timeline.
        bridges: what is sampled anew between segments.
        pieces: for each segment the latents that its frames are decoded from.
        fit: how the model lies on a card, where that was asked for.
        originals: of all segments, and of all bridges that can be, the digests of take 0.
    """

    config: GenerationConfig
    folder: WanFolder
    timeline: Timeline
    keyframes: tuple[KeyframeImage, ...]
    references: tuple[KeyframeImage, ...]
    size: tuple[int, int]
    seed: int
    settings: ChainSettings
    evaluations: int
    window_evaluations: int
    begun_evaluations: int
    apart: tuple[SegmentTask, ...]
    warnings: tuple[str, ...]
    model_files: dict[str, str]
    sound: Sound | None
    bridge_evaluations: int = 0
    together: tuple[CoDenoising, ...] = ()
    tasks: tuple[SegmentTask, ...] = ()
    bridges: tuple[SegmentTask, ...] = ()
    pieces: tuple[DecodeTask, ...] = ()
    originals: tuple[str, ...] = ()
    fit: Fit | None = None

    @property
    def digests(self) -> list[str]:
        """Of all that the run makes."""
        return Todo(self.tasks, self.bridges, self.pieces, self.together).digests

    @cached_property
    def places(self) -> dict[int, int]:
        """By the index of a segment's tasks its place in the chain."""
        return {task.index: k for k, task in enumerate(self.apart)}

    def evaluations_of(self, task: SegmentTask | CoDenoising) -> int:
        """Passes of the network for one task of this run."""
        if isinstance(task, CoDenoising):
            return self.window_evaluations * len(task.windows)
        if task.bridge is not None:
            return self.bridge_evaluations
        return self.evaluations if task.begun is None else self.begun_evaluations

    def uncached(self, task: SegmentTask) -> int:
        """Passes of the network for a segment or bridge without a cache."""
        settings = replace(self.settings, cache=None)
        return _evaluations(self.folder, settings, task.levels(settings.schedule))

    def velocities_of(self, state: CoDenoising) -> int:
        """How many of a state's are asked for."""
        return count_evaluations(self.settings.solver, state.levels(self.settings.schedule))

    @property
    def keeps(self) -> list[str]:
        """What the folder keeps: that, and by their take 0 all other takes of it."""
        first = (*self.originals, *(piece.original for piece in self.pieces))
        return list(dict.fromkeys([*self.digests, *first]))

    def frames_entry(self, segment: int, journal: Mapping[str, Entry]) -> Entry | None:
        """What a journal has of a segment's frames. Versions that kept no latents had them, decoded apart, under the
        segment's own name."""
        names = [self.pieces[segment].digest]
        if self.config.decode == "apart":
            names.append(self.tasks[segment].digest)
        return next((journal[n] for n in names if n in journal and journal[n].file.endswith(".mkv")), None)


def plan_in(
    directory: RunDirectory,
    config: GenerationConfig,
    folders: Sequence[Path] = (),
    world: World | None = None,
    say: Say = lambda text: None,
) -> Plan:
    """The plan of a run in its folder, by what an earlier run left there, see `resolve`.

    Arguments and errors as of `make_plan`.
    """
    earlier = {} if config.force_regenerate else own_record(config.job, directory)
    return make_plan(resolve(config, directory, world or World()), folders, say, earlier)


def make_plan(
    config: GenerationConfig,
    folders: Sequence[Path] = (),
    say: Say = lambda text: None,
    earlier: Json | None = None,
) -> Plan:
    """Check everything and decide everything.

    Args:
        config: `base_seed` must be set and not negative.
        folders: where relative keyframe paths are looked up after the current folder.
        say: told before something that takes long.
        earlier: the record of a run whose segments keep their numbers, if no others are given.

    Raises:
        InputError: a value, a keyframe image or their times cannot be used.
        MissingWeightsError: the model is not there.
    """
    find_keyframes(config, folders)
    if (seed := config.base_seed) is None or seed < 0:
        raise InputError(f"base_seed is {seed}; expected a number >= 0: a run draws one before it is planned")
    chosen = (config.parts, config.loras, config.lora_partial)
    folder = require_wan(open_model(config.source, *chosen, shows_images=True, distilled=config.distilled))
    own, space = folder.sampling, folder.latent_space
    if config.tile is not None:
        space.tile(config.tile)
    solver = config.solver or own.solver
    decided = decide_sampling(config, folder, solver)
    filled = decided.filled
    settings = ChainSettings(
        num_inference_steps=filled["num_inference_steps"],
        shift=filled["shift"] or own.shift,
        guidance_scale=filled["guidance_scale"],
        solver=solver,
        noise_levels=tuple(filled["noise_levels"]),
        guidance_scale_low=filled["guidance_scale_low"],
        boundary_timestep=decided.boundary_timestep,
        offload_model=bool(config.offload_model),
        t5_cpu=config.t5_cpu,
        tile=config.tile,
        middle_strength=config.middle_strength,
        cache=decided.cache,
        attention=filled["attention"],
        weights="full" if config.weights == "auto" else config.weights,
        compile=config.compile,
        guide=decided.guide,
    )
    above, below = settings.schedule.split(config.co_sigma)
    if config.joins == "co_denoise" and not len(above):
        raise InputError(
            f"co_sigma is {config.co_sigma:g}; expected less than {above.sigmas[0]:g}, the first noise level, or joins "
            "none"
        )
    uncached = replace(settings, cache=None)  # which windows that are denoised together go without
    evaluations, for_window, for_begun = (
        _evaluations(folder, how, levels)
        for how, levels in ((settings, settings.schedule), (uncached, above), (settings, below))
    )
    fps, size = _given(config.fps, own.fps), str(_given(config.size, own.size))
    negative_prompt = _given(config.negative_prompt, own.negative_prompt)
    idle = [
        f"{name} {getattr(config, name)} is not used: {why}"
        for name, why in unguided(config, settings.guide, settings.scales).items()
    ]
    others = [] if config.joins == "co_denoise" else ["co_sigma"]
    if config.joins == "none" and not config.bridge_takes and not config.repair:
        others += ["bridge_sigma", "bridge_zone", "bridge_context"]
    idle += [
        f"{name} {getattr(config, name)} is not used: joins is {config.joins}"
        for name in others
        if getattr(config, name) != getattr(GenerationConfig, name)
    ]
    notes = [*decided.notes, *idle]
    keyframes = timed_keyframes(config, folders, fps, own.max_frames, notes.append)
    seconds = [keyframe.seconds for keyframe in keyframes]
    stretch, pack = config.long_segments == "stretch", config.window == "pack"
    chain = timeline.plan(seconds, fps, own.max_frames, stretch, pack)
    height_width = parse_size(size)
    images, subjects = [], []
    # A picture that is no frame is laid inside of one, on white, as officially.
    shown = [(keyframe, config.resize_policy, 0, images) for keyframe in keyframes]
    shown += [(Keyframe(path, 0.0), "pad", 255, subjects) for path in references(config, folders)]
    for keyframe, policy, fill, kind in shown:
        loaded = load_image(keyframe.path)
        pixels, record = fit(loaded.pixels, height_width, policy, fill)
        said = [*loaded.notes, *([record.warning] if record.warning and kind is images else [])]
        notes += [f"{keyframe.path.name}: {note}" for note in said]
        kind.append(KeyframeImage(keyframe, pixels_sha256(pixels), loaded.notes, record, fill))
    if subjects and not folder.reads_video:
        raise InputError(
            f"references are given, and {folder.name} reads pictures as frames alone; expected none, or a VACE"
        )
    if (inner := space.sampled_size(height_width)) != height_width:
        notes.append(
            f"{size} are no multiples of {space.token_side}: the model works on {inner[1]}*{inner[0]}, the last row "
            f"and column of the keyframes held, and {size} come out"
        )
    pairs = timeline.plan(seconds, fps, own.max_frames, stretch) if pack else chain
    notes += _windows(config, folder, chain, pairs, math.prod(space.grid(1, height_width)) // 4)
    cuts = [chain.keyframe_frames.index(frame) for frame in (0, *chain.joins, chain.num_frames - 1)]
    texts = prompts(config, len(keyframes) - 1, cuts)
    relayed = _relayed(config, chain)
    numbers = config.numbers_of(len(chain.segments))
    if earlier and not config.numbers:
        places = [str(keyframe.path.absolute()) for keyframe in keyframes]
        numbers = timeline.renumbered(_recorded_segments(earlier, own.max_frames), _between(places, cuts))
    notes += timeline.stretches(chain)
    notes += unjudged(config, chain)
    notes += _doubts(folder, chain, [*texts, *relayed])
    once = config.decode != "apart"
    takes = config.takes_of(len(chain.segments))
    if not once and chain.joins:
        notes.append(
            "decode apart: each segment is decoded without what goes before it, as the settings or this folder's "
            "earlier run have it; --decode once mends the joins, and samples again what has no latents kept"
        )
    if own.full_size:
        notes += timeline.warnings(chain, max(timeline.DRIFT_ABOVE, own.max_frames))
    kind, audio, sound = format_of(config.final_path), config.audio, None
    kind.require_rate(chain.fps)
    if audio is not None:
        path = find_path(audio, folders, what="audio")
        sound, heard = sound_file(path, chain.num_frames / chain.fps, kind)
        audio = str(path.absolute())
        notes += heard
    # A window over a join is longer than what lies beside it.
    longest = max(segment.sampled_frames for segment in chain.segments)
    longest = longest if config.joins == "none" else min(2 * longest - 1, max(own.max_frames, longest))
    most = max(len(segment.spans) for segment in chain.segments) if relayed else 1
    # A reference is a slot more.
    longest += timeline.STRIDE * len(subjects)
    laid_out, said = decide_fit(config, folder, longest, height_width, settings, most)
    notes += said
    if laid_out is not None and torch.cuda.is_available():
        settings = laid_out.applied(settings)
    files = hash_files(folder, say)
    config = replace(
        config,
        **filled,
        solver=solver,
        decode="once" if once else "apart",
        numbers=[] if numbers == [*range(len(numbers))] else numbers,
        audio=audio,
        keyframes=[[str(keyframe.path.absolute()), keyframe.seconds] for keyframe in keyframes],
        references=[str(image.keyframe.path.absolute()) for image in subjects],
        fps=fps,
        size=size,
        tile=settings.tile,
        weights=settings.weights if settings.weights in ROUNDED else config.weights,
        negative_prompt=negative_prompt,
    )
    tasks = list(
        _tasks(
            folder,
            chain,
            numbers,
            images,
            subjects,
            settings,
            texts,
            relayed,
            negative_prompt,
            seed,
            digest(files),
            space,
        )
    )
    plan = Plan(
        config=config,
        folder=folder,
        timeline=chain,
        keyframes=tuple(images),
        references=tuple(subjects),
        size=height_width,
        seed=seed,
        settings=settings,
        evaluations=evaluations,
        window_evaluations=for_window,
        begun_evaluations=for_begun,
        apart=tuple(tasks),
        warnings=tuple(notes),
        model_files=files,
        sound=sound,
        fit=laid_out,
    )
    plan = replace(plan, warnings=(*notes, *_crews(config, plan)))
    return with_takes(plan, *takes)


def _between(keyframes: Sequence[str], cuts: Sequence[int]) -> list[tuple[str, ...]]:
    """The keyframes of every segment, in and at the ends of it."""
    return [tuple(keyframes[a : b + 1]) for a, b in pairwise(cuts)]


def _recorded_segments(record: Json, limit: int) -> list[tuple[tuple[str, ...], int]]:
    """The keyframes of every segment of an earlier run, and its number; none where its record does not say them.

    Args:
        limit: the longest clip that the model is good for.
    """
    with suppress(InputError), reading("config.yaml", "keyframes as wanedit records them"):
        pictures, seconds = zip(*record["keyframes"], strict=True)
        chain = timeline.plan(seconds, record["fps"], limit, True, record.get("window") == "pack")
        cuts = [chain.keyframe_frames.index(frame) for frame in (0, *chain.joins, chain.num_frames - 1)]
        numbers = record.get("numbers") or range(len(chain.segments))
        return list(zip(_between([str(one) for one in pictures], cuts), map(int, numbers), strict=True))
    return []


def with_takes(plan: Plan, takes: Sequence[int], bridge_takes: Sequence[int]) -> Plan:
    """The same run of these takes of every segment, and of the bridge over every join.

    Raises:
        InputError: bridges that cannot be.
    """
    config, chain = plan.config, plan.timeline
    once, everywhere, again = config.decode != "apart", config.joins == "bridge", 0
    if not once and (any(bridge_takes) or config.joins != "none"):
        asked = f"joins is {config.joins}"
        if config.joins == "none":
            asked = f"bridge_takes are {list(bridge_takes)}"
        raise InputError(
            f"{asked} and decode apart; expected decode once, since slots of two segments change"
        )
    if everywhere or any(bridge_takes):
        above, below = plan.settings.schedule.split(config.bridge_sigma)
        if not len(below):
            raise InputError(
                f"bridge_sigma is {config.bridge_sigma:g}; expected at least "
                f"{math.ceil(1e4 * above.sigmas[-2]) / 1e4:g}, so that a step starts there"
            )
        again = _evaluations(plan.folder, plan.settings, below)
    where = RunDirectory(config.folder, config.final_path).segments
    shown = dict(zip(chain.keyframe_frames, plan.keyframes, strict=True))
    cuts = [chain.keyframe_frames.index(frame) for frame in (0, *chain.joins, chain.num_frames - 1)]
    told = [prompts(config, len(plan.keyframes) - 1, ends)[0] for ends in zip(cuts, cuts[2:], strict=False)]
    over = partial(
        bridges,
        chain=chain,
        images=shown,
        texts=told,
        config=config,
        folder=plan.folder,
        where=where,
        pairs=prompts(config, len(plan.keyframes) - 1) if config.prompt_relay else (),
    )
    tasks = [taken(task, plan.seed, take) for task, take in zip(plan.apart, takes, strict=True)]
    state, notes = tuple[CoDenoising, ...](), list[str]()
    if config.joins == "co_denoise":
        windows, lacking = over(plan.apart, together=True)
        notes += lacking.values()
        if plan.settings.cache is not None:
            notes.append(
                f"the cache {config.cache} answers nothing down to co_sigma {config.co_sigma:g}: where windows are "
                "denoised together, none is remembered from step to step"
            )
        if plan.settings.guide.guidance.remembers:
            notes.append(
                f"the guidance {config.guidance} remembers no earlier step down to co_sigma {config.co_sigma:g}, where "
                "windows are denoised together"
            )
        one, begun = co_denoising(plan.apart, windows, config.co_sigma, where)
        state = (one,)
        # Another take of a segment is sampled apart: it would change all others too.
        tasks = [
            replace(task, original=from_state.original) if task.take else from_state
            for task, from_state in zip(tasks, begun, strict=True)
        ]
    able, lacking = over(tasks)
    able = [taken(task, plan.seed, bridge_takes[plan.places[task.index] - 1]) for task in able]
    between = [task for task in able if everywhere or task.take]
    notes += [note for k, note in lacking.items() if everywhere or bridge_takes[k - 1]]
    most = max(len(tasks), *[len(one.windows) for one in state], 0)
    if config.num_gpus > most * config.sequence_parallel:
        notes.append(
            f"num_gpus is {config.num_gpus} and the number of {'windows' if state else 'segments'} {most}, each the "
            "work of one process: no more are started"
        )
    firsts = decodings(first_takes(tasks), first_takes(able) if everywhere else (), where, once)
    return replace(
        plan,
        config=replace(
            config,
            takes=list(takes) if any(takes) else [],
            bridge_takes=list(bridge_takes) if any(bridge_takes) else [],
        ),
        bridge_evaluations=again,
        together=state,
        tasks=tuple(tasks),
        bridges=tuple(between),
        pieces=tuple(
            replace(piece, original=of_first.digest)
            for piece, of_first in zip(decodings(tasks, between, where, once), firsts, strict=True)
        ),
        originals=tuple(task.original for task in (*tasks, *able)),
        warnings=tuple(dict.fromkeys([*plan.warnings, *notes])),
    )


def _evaluations(folder: WanFolder, settings: ChainSettings, levels: Schedule) -> int:
    return settings.evaluations(folder.handovers(settings.boundary_timestep), levels)


def _given(value: Value | None, own: Value) -> Value:
    return own if value is None else value


def _tasks(
    folder: WanFolder,
    chain: Timeline,
    numbers: list[int],
    images: list[KeyframeImage],
    subjects: list[KeyframeImage],
    settings: ChainSettings,
    texts: list[str],
    relayed: Sequence[str],
    negative_prompt: str,
    seed: int,
    model: str,
    space: LatentSpace,
) -> Iterator[SegmentTask]:
    """One task for each segment; `numbers` and `texts` are theirs, `relayed` as `told_along` takes them, `model` is the
    hash of the model's files."""
    place = dict(zip(chain.keyframe_frames, images, strict=True))
    for segment, k, prompt in zip(chain.segments, numbers, texts, strict=True):
        first, last = place[segment.start], place[segment.end]
        middle = {span.first: place[span.start] for span in segment.spans[1:]}
        # Whatever changes a pixel stands here and nothing else: a segment is found again by this hash.
        decides = {
            "algorithm": ALGORITHM,
            "compute": compute_kind(),
            "model": model,
            "keyframes": [first.sha256, last.sha256],
            "prompt": prompt,
            # Where guidance asks nothing about it, it is not read.
            "negative_prompt": negative_prompt if settings.reads_negative else "",
            "frames": segment.sampled_frames,
            "index": k,
            "seed": seed,
            "sampler": {
                name: value
                for name, value in asdict(settings).items()
                # What came later is left out unless it is set, so that earlier segments keep their names.
                if name not in ELSEWHERE and not (name in LATER and value in ((), None))
            },
            **(
                {
                    "middle": [[frame, image.sha256] for frame, image in middle.items()],
                    "middle_strength": list(folder.held(settings.middle_strength)),
                }
                if middle
                else {}
            ),
            **({"references": [image.sha256 for image in subjects]} if subjects else {}),
            # Left out where it is the package's own, so that earlier segments keep their names.
            **hashed_told(along := told_along(relayed, chain, (segment,), (0, segment.slots))),
            **hashed_guide(settings.guide),
            **hashed_cache(settings.cache),
            **hashed_computing(settings),
            **({"code": code} if (code := SOLVERS.code(settings.solver)) else {}),
        }
        yield SegmentTask(
            index=k,
            sampled_frames=segment.sampled_frames,
            first=first,
            last=last,
            middle=middle,
            references=tuple(subjects),
            prompt=prompt,
            told=along,
            negative_prompt=negative_prompt,
            seed=seed,
            original=digest(decides),
            digest=digest(decides),
            latent_space=space,
        )


def _windows(
    config: GenerationConfig, folder: WanFolder, chain: Timeline, pairs: Timeline, tokens: int
) -> list[str]:
    """What comes of packing keyframes into windows.

    Args:
        pairs: the same, unpacked. tokens: of a slot.

    Raises:
        InputError: the model cannot be shown a frame in the middle, or its strengths are for another number of experts.
    """
    if config.window == "pack" and folder.shows.frames != "any":
        able = ", ".join(known.name for known in KNOWN_MODELS if known.shows.frames == "any")
        raise InputError(
            f"window is pack, and {folder.name} can be shown {SHOWN[folder.shows.frames]} of a window; expected window "
            f"pair, or a model that can be shown any: {able}"
        )
    strength = folder.held(config.middle_strength)
    held = sum(len(segment.inner) for segment in chain.segments)
    notes = []
    if config.middle_strength is not None and not held:
        notes.append("middle_strength is not used: no keyframe lies in the middle of a window")
    if held:
        notes += held_softly(strength)
    if held:
        packed, apart = (
            sum(forward_flops(folder.config, one.slots * tokens) for one in plan.segments)
            for plan in (chain, pairs)
        )
        windows, joins = len(chain.segments), len(chain.joins)
        notes.append(
            f"window pack: {_many(windows, 'window')} with {_many(joins, 'join')} in place of "
            f"{len(pairs.segments)} with {len(pairs.joins)}, at {packed / apart:.0%} of their operations"
        )
    if config.window == "pack" and not held:
        notes.append(
            f"window pack changes nothing here: no three neighbouring keyframes fit {folder.sampling.max_frames} frames"
        )
    if held and config.sub_prompts and not config.prompt_relay:
        notes.append(
            "a window of several pairs of keyframes is told their sub_prompts one after the other; prompt_relay tells "
            "each stretch its own"
        )
    if config.prompt_relay and not _relayed(config, chain):
        notes.append("prompt_relay is not used: no window has several sub_prompts")
    return notes


def _relayed(config: GenerationConfig, chain: Timeline) -> list[str]:
    """The prompt of each pair of keyframes, where some window is told several along its time; else none."""
    if not config.prompt_relay:
        return []
    texts = prompts(config, len(chain.keyframe_frames) - 1)
    several = (
        config.joins != "none" or config.repair or any(map(bool, config.takes_of(len(chain.segments))[1]))
    )
    windows = zip(chain.segments, chain.segments[1:], strict=False) if several else ()
    windows = [*((one,) for one in chain.segments), *windows]
    return texts if any(told_along(texts, chain, one, (0, 10**6)) for one in windows) else []


def _crews(config: GenerationConfig, plan: Plan) -> list[str]:
    """What is gained by processes that share segments over segments side by side.

    Raises:
        InputError: the processes that share tokens do not divide the model's heads.
    """
    together = config.sequence_parallel
    if together == 1:
        return []
    _, tokens = split(together, plan.settings.guided)
    if problem := heads_problem(plan.folder.config, tokens):
        raise InputError(f"sequence_parallel is {together}: {problem}")
    costs = [round(forward_flops(plan.folder.config, task.tokens)) for task in plan.apart]

    def longest(processes: int) -> float:
        return max(sum(costs[i] for i in mine) for mine in share(costs, processes)) / max(costs)

    processes = max(config.num_gpus, together)
    apart, shared = longest(processes), longest(processes // together) / together
    better = "no sooner than" if apart <= shared else "where"
    return [
        f"sequence_parallel {together}: {processes} processes sample {len(costs)} segments in {shared:.3g} times what "
        f"the longest takes one, exchanges not counted, {better} segments side by side (sequence_parallel 1) take "
        f"{apart:.3g}"
    ]


def _doubts(folder: WanFolder, chain: Timeline, texts: list[str]) -> list[str]:
    """What will run, but perhaps not as meant."""
    notes = []
    if folder.known is None:
        names = (
            ", ".join(model.name for model in fitting(folder.config, len(folder.source.transformers)))
            or "no known model"
        )
        notes.append(
            f"{folder.path.name} has the layout of {names}: settings that are not given take general defaults; name "
            "the folder after its model, or give num_inference_steps, shift, guidance_scale and negative_prompt"
        )
    if any(not folder.showable((one.sampled_frames - 1,), one.sampled_frames) for one in chain.segments):
        notes.append(
            f"{folder.name} was trained on a first frame alone; it may miss the last keyframe of a segment"
            if folder.config.condition_channels
            else f"{folder.name} is shown the first keyframe of a segment alone: nothing leads to the last one, which "
            "the video jumps to"
        )
    return notes + folder.notes + prompt_doubts(folder.source, folder.config.text_len, texts)


def resolve(config: GenerationConfig, directory: RunDirectory, world: World) -> GenerationConfig:
    """Fill what depends on the machine and on an earlier run of this folder: seed, threads, offloading, decoding.

    Raises:
        InputError: the folder's config.yaml is not a record of wanedit.
    """
    several = max(world.size, config.num_gpus) > 1
    offload = not several if config.offload_model is None else config.offload_model
    decode, earlier = config.decode, own_record(config.job, directory)
    if decode == "auto" and earlier and not config.force_regenerate:
        # One of before it could be chosen was decoded apart.
        decode = earlier.get("decode", "apart")
    return replace(
        config,
        decode=decode,
        base_seed=resolve_seed(config, directory),
        cpu_threads=resolve_threads(config, directory),
        attention=resolve_attention(config, directory),
        offload_model=offload,
    )


def remaining(plan: Plan, directory: RunDirectory) -> Todo:
    """What has to be sampled and decoded: pieces that are missing, and segments that these read and that are missing.

    Raises:
        InputError: `resume_from` lies outside the chain, or a segment before it is not complete.
    """
    start, entries = plan.config.resume_from, Manifest(directory).read()
    if start is not None and not 0 <= start < len(plan.tasks):
        raise InputError(f"resume_from is {start}; expected a segment, 0 to {len(plan.tasks) - 1}")
    if plan.config.force_regenerate:
        start = 0
    complete = Manifest(directory).complete(plan.digests, plan.config.save_latents)
    whole = {name: entries[name] for name in complete}
    anew = set[int]() if start is None else {task.index for task in plan.tasks[start:]}
    pieces = tuple(
        piece
        for piece in plan.pieces
        if piece.index in anew or plan.frames_entry(plan.places[piece.index], whole) is None
    )
    lacking = [plan.places[piece.index] for piece in pieces if piece.index not in anew]
    if plan.config.resume_from and lacking:
        raise InputError(
            f"resume_from is {start}, but segments {lacking} are not complete for these settings in "
            f"{directory.segments}; leave resume_from out to sample whatever is missing"
        )
    kept = {entry.file for entry in whole.values()}
    read = {file for piece in pieces for file in piece.latents.files}
    # A bridge reads its segment and the one before.
    between = tuple(
        task
        for task in plan.bridges
        if task.index in anew or (latents_file(task) in read and latents_file(task) not in kept)
    )
    read |= {file for task in between if task.bridge for file in task.bridge.latents.files}
    segments = tuple(
        task
        for task in plan.tasks
        if task.index in anew
        or (latents_file(task) in read and latents_file(task) not in kept)
        or (plan.config.save_latents and task.digest not in whole)
    )
    state = {file for task in segments if task.begun for file in task.begun.latents.files}
    together = tuple(task for task in plan.together if start == 0 or not state <= kept)
    return Todo(segments, between, pieces, together)


def for_segments(config: GenerationConfig, todo: Todo) -> GenerationConfig:
    """A configuration of no more processes than there are segments to make: others would only load the model."""
    windows = [len(task.windows) for task in todo.together]
    stages = (todo.segments, todo.bridges, todo.pieces)
    together = config.sequence_parallel
    needed = together * max(1, min(config.num_gpus // together, max([*windows, *map(len, stages)])))
    return replace(config, num_gpus=needed, gpu_ids=config.devices[:needed])


def print_plan(config: GenerationConfig, folders: Sequence[Path] = ()) -> None:
    """Print segments, frames, seeds, tokens, operations, memory, disk, and what a resume would skip.

    Raises:
        InputError, MissingWeightsError: as the run itself would.
    """
    directory = RunDirectory(config.folder, config.final_path)
    check(config)
    # Of one process, a plan for the torchrun that will have as many as are wanted.
    check_crews(config, config.num_gpus if config.num_gpus > 1 else config.sequence_parallel)
    for note in elsewhere(config):
        wide_console().print(note, style="yellow")
    plan = plan_in(directory, config, folders)
    check_output(plan.config, [image.keyframe for image in plan.keyframes])
    show_plan(plan, remaining(plan, directory), directory)
    if (config.base_seed is None or config.base_seed < 0) and not directory.config.exists():
        wide_console().print("the seed was drawn for this plan; the run draws its own and records it")


def show_plan(plan: Plan, todo: Todo, directory: RunDirectory) -> None:
    """Print a plan of which `todo` is to be made, as a page."""
    console, sampled = wide_console(), {task.index for task in todo.segments}
    decoded = {piece.index for piece in todo.pieces}
    if plan.folder.about:
        console.print(plan.folder.about, style="yellow")
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow")
    keyframes = Table(title="Keyframes", title_justify="left")
    for column in ("#", "file", "seconds", "frame", "from", "to", "notes"):
        keyframes.add_column(column, overflow="fold")
    for k, (image, frame) in enumerate(zip(plan.keyframes, plan.timeline.keyframe_frames, strict=True)):
        source, target = image.fit.source, image.fit.target
        keyframes.add_row(
            str(k),
            image.keyframe.path.name,
            f"{image.keyframe.seconds:g}",
            str(frame),
            f"{source[1]}*{source[0]}",
            f"{target[1]}*{target[0]} ({image.fit.policy})",
            "; ".join(image.notes),
        )
    segments = Table(title="Segments", title_justify="left")
    for column in (
        "#",
        "keyframes",
        "frames",
        "sampled",
        "tokens",
        "noise seed",
        "TFLOP a pass",
        "hash",
        "this run",
    ):
        segments.add_column(column, overflow="fold")
    for segment, task in zip(plan.timeline.segments, plan.tasks, strict=True):
        segments.add_row(
            str(segment.index),
            " ".join(str(plan.timeline.keyframe_frames.index(frame)) for frame in segment.keyframes),
            f"{segment.start} … {segment.end} ({segment.frames})",
            str(segment.sampled_frames),
            str(task.tokens),
            str(derive_seed(task.seed, "segment", task.index)) + _of_take(task),
            f"{forward_flops(plan.folder.config, task.tokens) / 1e12:.3g}",
            task.digest[:12],
            ", ".join(
                verb for verb, those in (("samples", sampled), ("decodes", decoded)) if task.index in those
            )
            or "skips: complete",
        )
    console.print(keyframes, segments, sep="\n")
    console.print(_totals(plan, todo, directory), highlight=False)


def announce(plan: Plan, todo: Todo, tell: Say) -> None:
    """Tell a plan of which `todo` is to be made, in a line."""
    if plan.folder.about:
        tell(plan.folder.about)
    for warning in plan.warnings:
        tell(f"warning: {warning}")
    done = len(plan.tasks) - len(todo.segments)
    tell(
        f"{_many(len(plan.tasks), 'segment')}, {plan.timeline.num_frames} frames at {float(plan.timeline.fps):g} fps, "
        f"{plan.folder.name}, seed {plan.seed}" + (f"; {done} already complete" if done else "")
    )
    if plan.config.numbers:
        tell(f"numbers {_numbers(plan)}")
    for one in todo.together:
        steps = len(one.levels(plan.settings.schedule))
        tell(f"{_many(len(one.windows), 'window')} to denoise together for {_many(steps, 'step')}")
    if todo.bridges:
        tell(f"{_many(len(todo.bridges), 'bridge')} to sample")
    elif not todo.segments:
        tell(
            f"nothing to sample: {'decoding and ' if todo.pieces else ''}stitching again. --force_regenerate samples "
            "anew, with another seed unless one is given"
        )


def space_needed(plan: Plan, todo: Todo) -> int:
    """Bytes of disk for what a run makes, and for the velocities that are kept of what is being made."""
    states = [one for one in todo.together for _ in range(1 + plan.velocities_of(one))]
    sampled = (*todo.segments, *todo.bridges, *states)
    answers = [plan.evaluations_of(one) * latent_bytes(one) for one in (*todo.segments, *todo.bridges)]
    begun = sum(sorted(answers)[-for_segments(plan.config, todo).num_gpus :])
    return begun + disk_bytes(sampled, todo.pieces, plan.timeline.num_frames, plan.size)


def _totals(plan: Plan, todo: Todo, directory: RunDirectory) -> str:
    settings = plan.settings
    tasks = [*todo.segments, *todo.bridges]
    flops = sum(sampling_flops(plan.folder.config, [task], plan.evaluations_of(task)) for task in tasks)
    windows = [window.task for one in todo.together for window in one.windows]
    flops += sampling_flops(plan.folder.config, windows, plan.window_evaluations)
    disk = space_needed(plan, todo)
    # A window of what is denoised together is longer than either of its segments.
    asked = [*plan.tasks, *plan.bridges, *(window.task for one in plan.together for window in one.windows)]
    longest = max(asked, key=lambda task: task.tokens)
    peak = memory(plan.folder, longest, settings)
    sampling = peak.sampling + max([STATES * latent_bytes(one) for one in todo.together], default=0)
    height, width = plan.size
    return "\n".join(
        (
            f"output     {directory.final}: {plan.timeline.num_frames} frames, {width}*{height}, "
            f"{float(plan.timeline.fps):g} fps",
            f"model      {plan.folder.name} ({plan.folder.path}); of a clip it is shown "
            + SHOWN[plan.folder.shows.frames],
            *(f"LoRA       {lora}" for lora in plan.folder.loras),
            *(f"reference  {image.keyframe.path}" for image in plan.references),
            f"sampler    {settings.solver}, {settings.words}",
            "passes     " + _passes(plan),
            f"seed       {plan.seed}",
            *([f"numbers    {_numbers(plan)}"] if plan.config.numbers else []),
            f"to sample  {len(todo.segments)} of {len(plan.tasks)} segments, {settings.bound}{flops / 1e12:.3g} TFLOP "
            "in the transformer",
            *(_together(plan, one, one in todo.together, directory) for one in plan.together),
            *(
                f"bridge {plan.places[one.index]}   {one.sampled_frames} frames about the keyframe at frame "
                f"{plan.timeline.segments[plan.places[one.index]].start}, {one.tokens} tokens, "
                f"{one.digest[:12]}{_of_take(one)}, "
                + ("samples" if one in todo.bridges else "skips: complete")
                for one in plan.bridges
            ),
            *_most_repairs(plan),
            f"to decode  {len(todo.pieces)} of {len(plan.pieces)} segments, {plan.config.decode}",
            f"processes  {for_segments(plan.config, todo).num_gpus}",
            f"memory     {replace(peak, sampling=sampling).words}",
            *_laid_out(plan),
            f"disk       about {disk / 1e6:.0f} MB",
        )
    )


def _laid_out(plan: Plan) -> list[str]:
    """Where the model lies on a card, and how long that takes; nothing where it was not asked for."""
    if plan.fit is None:
        return []
    longest = max(plan.tasks, key=lambda task: task.tokens)
    estimates = plan.fit.estimates(plan.folder.config, longest.tokens, plan.evaluations, "a segment")
    return [f"fit        {plan.fit.words}", *estimates]


def _most_repairs(plan: Plan) -> list[str]:
    """What trying joins again costs, should all of them show at every attempt."""
    limit, joins = plan.config.repair, len(plan.timeline.joins)
    if not limit or not joins or unjudged(plan.config, plan.timeline):
        return []
    try:
        bridged = with_takes(plan, plan.config.takes_of(joins + 1)[0], [1] * joins)
    except InputError:
        bridged = plan
    # Another take of a segment may have the bridges at both of its ends sampled again.
    flops = max(sampling_flops(plan.folder.config, [task], plan.evaluations) for task in plan.tasks)
    if bridged.bridges:
        longest = max(bridged.bridges, key=lambda task: task.tokens)
        flops += 2 * sampling_flops(plan.folder.config, [longest], bridged.bridge_evaluations)
    what = "a bridge, then segments" if bridged.bridges else "segments, for no bridge can be"
    return [
        f"repair     at most {joins * limit} attempts, {limit} at each of {joins} joins that show: {what}; at most "
        f"{joins * limit * flops / 1e12:.3g} TFLOP more"
    ]


def unjudged(config: GenerationConfig, chain: Timeline) -> list[str]:
    """Why the joins that are to be repaired cannot be judged; nothing where they can."""
    if config.repair and chain.joins:
        try:
            check_junctions(chain.num_frames, chain.joins)
        except InputError as error:
            return [f"nothing is repaired, for the joins cannot be judged: {error}"]
    return []


def _passes(plan: Plan) -> str:
    """Of the network, for each kind of work: segments that go on from a state have fewer than those from noise."""
    bound, segments = plan.settings.bound, dict.fromkeys(map(plan.evaluations_of, plan.tasks))
    parts = [f"{bound}{' or '.join(map(str, segments))} of the network for a segment"]
    parts += [f"{plan.window_evaluations} for a window denoised together"] if plan.together else []
    parts += [f"{bound}{plan.bridge_evaluations} for a bridge"] if plan.bridges else []
    return ", ".join(parts)


def _numbers(plan: Plan) -> str:
    """Those of the segments, where they do not count from 0 up, and what that means."""
    return (
        f"{', '.join(map(str, plan.config.numbers))}: the segments', which name their noise, hash and files"
    )


def _of_take(task: SegmentTask) -> str:
    return f" (take {task.take})" if task.take else ""


def _together(plan: Plan, state: CoDenoising, wanted: bool, directory: RunDirectory) -> str:
    kept = len(Velocities(directory, state.digest).kept())
    done = (
        f"denoises; {kept} of {plan.velocities_of(state)} velocities are kept"
        if wanted
        else "skips: complete"
    )
    return (
        f"together   {len(state.windows)} windows, {state.tokens} tokens, {len(state.levels(plan.settings.schedule))} "
        f"steps down to noise level {state.sigma:g}, {state.digest[:12]}, {done}"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
