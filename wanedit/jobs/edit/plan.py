"""From an EditConfig to a task and a method: every decision made, every input read, no weight loaded; and its page."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import torch
from rich.table import Table

from wanedit import timeline
from wanedit.errors import InputError
from wanedit.files import Json, digest
from wanedit.flow.editing import Method
from wanedit.jobs.edit.config import EditConfig, EditInputs, check_edit, check_output, find_inputs
from wanedit.jobs.edit.method import (
    build_method,
    check_derivative,
    deciding,
    filled,
    from_outside,
    guidance,
    hashed_method,
    method_words,
    unused,
)
from wanedit.jobs.edit.pictures import (
    align_keyframes,
    decide_output,
    own_size,
    place_keyframes,
    read_originals,
    reading,
    shape_notes,
    shown_in,
)
from wanedit.lit.edit_clip import EditSettings, contexts, pass_tokens
from wanedit.lit.model import OpenModel, OutsideModel, hash_model, held_softly, open_model
from wanedit.lit.rehearsal import Rehearsal, rehearse
from wanedit.lit.tasks import EditTask, Pictures
from wanedit.outside import named_error
from wanedit.runtime.cost import Memory, forward_flops, memory
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.events import wide_console
from wanedit.runtime.fit import Fit, decide_fit
from wanedit.runtime.inputs import EditedFrame
from wanedit.runtime.launch import elsewhere
from wanedit.runtime.options import describe
from wanedit.runtime.record import resolve_attention, resolve_seed, resolve_threads
from wanedit.runtime.sampling import Sampled, decide_sampling, hashed_cache, hashed_computing, hashed_guide
from wanedit.video import FitRecord
from wanedit.video.arrays import Clock, pixels_sha256
from wanedit.video.formats import format_of
from wanedit.video.restoring import CARRIED
from wanedit.video.sound import Sound, SoundOf, film_clock, left_out
from wanedit.video.source import SourceClip, read_source
from wanedit.wan.catalog import SHOWN, Sampling
from wanedit.wan.condition import prompt_doubts
from wanedit.wan.load import WanFolder, compute_kind
from wanedit.wan.packed import ROUNDED

# Raised when a change to the code changes the pixels of an edit for the same inputs.
ALGORITHM = 2
# Decided anew by a run that takes up a record of this one and changes something.
ASKED_AGAIN = ("size", "resize_policy", "restore", "output_size")
# What says how a Wan is run, and no other model is told.
OF_WAN = (
    "offload_model", "t5_cpu", "tile", "negative_prompt", "middle_strength", "attention", "weights", "compile",
    "guidance", "guidance_interval",
)  # fmt: skip
Say = Callable[[str], None]


@dataclass(frozen=True)
class EditPlan:
    """A run, decided.

    `config` holds no null or auto that is decided; `asked` those of size and restoring, which a changed run decides
    anew. `sound` is the source's, of the same stretch; `fit` how the model
    lies on a card, where that was asked for; `clock` says when its frames are shown where that is not evenly.
    """

    config: EditConfig
    asked: EditConfig
    model: WanFolder | OutsideModel
    source: SourceClip
    keyframes: tuple[EditedFrame, ...]
    fits: tuple[FitRecord, ...]
    method: Method
    settings: EditSettings
    task: EditTask
    rehearsal: Rehearsal
    warnings: tuple[str, ...]
    model_files: dict[str, str]
    sound: Sound | None
    sound_of: SoundOf
    clock: Clock | None
    fit: Fit | None = None

    @property
    def fps(self) -> Fraction:
        """Frames a second of source and output."""
        return self.source.fps

    @property
    def about(self) -> str:
        """What the user must know of the model at once; "" where the method asks none."""
        return "" if "model" in self.method.ignores else self.model.about

    @property
    def wan(self) -> WanFolder | None:
        """The model, if it is a Wan that the method asks."""
        return (
            self.model if isinstance(self.model, WanFolder) and "model" not in self.method.ignores else None
        )

    @property
    def tokens(self) -> int:
        """Of one pass of the network."""
        return pass_tokens(self.task, self.settings)

    @property
    def memory(self) -> Memory | None:
        """What the edit takes; None where no Wan is asked."""
        held = contexts(self.task.grid[0], self.settings, self.method)
        return self.wan and memory(self.wan, self.task, self.settings, self.tokens, held)

    @cached_property
    def uncached(self) -> int:
        """Passes of the network without a cache."""
        cache, settings = self.settings.cache, replace(self.settings, cache=None)
        if cache is None or cache.adapts:
            return self.rehearsal.evaluations
        return rehearse(self.method, self.model, self.task, settings).evaluations


def make_edit_plan(
    config: EditConfig,
    folders: Sequence[Path] = (),
    say: Say = lambda text: None,
    sound_of: SoundOf | None = None,
) -> EditPlan:
    """Check everything and decide everything.

    Args:
        config: `base_seed` must be set and not negative.
        folders: where relative paths are looked up after the current folder.
        say: told before something that takes long.
        sound_of: the sound of frames that were in memory; None for the source's own.

    Raises:
        InputError: a value, the source or a keyframe cannot be used.
        MissingWeightsError: the model is not there.
    """
    found = find_inputs(config, folders)
    path, sides, keyframes = found.video, found.sides, found.keyframes
    indices = tuple(keyframe.index for keyframe in keyframes)
    method = build_method(config)
    chosen = (config.parts, config.loras, config.lora_partial)
    model = open_model(config.source, *chosen, distilled=config.distilled)
    given, own = config, model.sampling
    if config.tile is not None:
        model.latent_space.tile(config.tile)
    decided = decide_sampling(config, model, getattr(method, "solver", "euler"))
    config = fill(config, decided, own)
    check_derivative(method, config.attention)
    ignored = unused(given, config, method, decided.guide, own.negative_prompt)
    config = decide_output(config, method)

    size = config.height_width or own_size(path, sides, model, own.size)
    # A long source is refused by its length before its frames are decoded; one of no frames by `read_source`.
    if (length := found.frames(config)) is not None:
        _check_frames(length, indices, config, model)
    source = read_source(path, **reading(config, size))
    _check_frames(len(source.frames), indices, config, model)
    placed, notes = place_keyframes(config, keyframes, source, sides)
    pictures = Pictures(source.frames, shown_in(source.frames, placed, config.resize_policy))
    originals = read_originals(config, source, placed, sides)
    if config.keyframe_align == "auto":
        names = [keyframe.path.name for keyframe in keyframes]
        pictures, originals, aligned = align_keyframes(placed, names, pictures, originals)
        notes += aligned
    kind = format_of(config.final_path)
    notes += shape_notes(config, source, sides, kind)
    clock = None if config.fps else film_clock(source.clock, source.fps)
    kind.require_rate(source.fps, clock and clock.shortest)
    sound_of = sound_of or source.sound_of
    sound, heard = sound_of(source.fps if clock is None else None, kind, frames=len(source.frames))
    notes += heard if path.is_dir() else [*heard, *left_out(path)]

    settings = edit_settings(config, model, method, len(source.frames))
    laid_out, said = None, list[str]()
    if isinstance(model, WanFolder) and "model" not in method.ignores:
        seen = timeline.round_up(len(source.frames))
        frames = seen if settings.window is None else own.max_frames
        held = contexts(timeline.slots(seen), settings, method)
        laid_out, said = decide_fit(config, model, frames, size, settings, views=held)
    if laid_out is not None and torch.cuda.is_available():
        settings = laid_out.applied(settings)
        kept = settings.weights if settings.weights in ROUNDED else config.weights
        config = replace(config, tile=settings.tile, weights=kept)
    files = hash_model(model, say)
    decides = {
        "algorithm": ALGORITHM,
        "compute": compute_kind(),
        # A method that asks no model is not made anew for another one.
        "model": None if "model" in method.ignores else digest(files),
        "pictures": _hashes(pictures),
        "originals": originals and _hashes(originals),
        "indices": list(indices),
        "method": [config.method, hashed_method(method, settings.schedule)],
        "settings": deciding(config, method, settings.guide),
        "sampler": [settings.solver, settings.window],
    }
    if isinstance(model, WanFolder) and "model" not in method.ignores:
        held = model.held(config.middle_strength)
        if {held, model.shows.middle} != {(1.0,)}:
            decides["middle_strength"] = list(held)
    if works := "model" not in method.ignores:
        decides |= hashed_guide(settings.guide) | hashed_cache(settings.cache)
        decides |= hashed_computing(settings)
    if settings.restore in CARRIED:
        decides["carried"] = CARRIED[settings.restore]
    task = EditTask(
        index=0,
        frames=source.frames,
        keyframes=pictures.keyframes,
        keyframe_indices=indices,
        prompt=config.prompt,
        source_prompt=filled(config.source_prompt),
        negative_prompt=filled(config.negative_prompt),
        seed=filled(config.base_seed),
        digest=digest(decides),
        originals=originals,
        latent_space=model.latent_space,
    )
    with _called(config, method):
        rehearsal = rehearse(method, model, task, settings)
        asked = guidance(config, method)
        own_doubts = method.doubts(settings.schedule, asked)
    # What becomes of the shape is told by `shape_notes`, which knows the result.
    told = [note for note in source.notes if source.fit is None or note != source.fit.warning]
    doubts = []
    if works and isinstance(model, OutsideModel):
        doubts += [
            f"{name} {getattr(given, name)} is not used: {model.name} is asked for velocities alone"
            for name in OF_WAN
            if getattr(given, name) != getattr(EditConfig, name)
        ]
    elif works and isinstance(model, WanFolder):
        doubts += _middle(config, model, method, task)
        doubts += model.notes
        doubts += prompt_doubts(model.source, model.config.text_len, [task.prompt, task.source_prompt])
    doubts += [*decided.notes, *said] if works else []
    doubts += [*(_doubts(config, model, task, settings, rehearsal) if works else []), *own_doubts]
    if settings.window is not None and works:
        doubts.append(
            f"{model.name} is good for {own.max_frames} frames and the source has {len(task.frames)}: it is seen "
            f"through overlapping windows of {own.max_frames} frames, whose velocities are averaged (long_source)"
        )
    config = replace(
        config,
        video=str(path.absolute()),
        size=f"{size[1]}*{size[0]}",
        keyframes=[[str(k.path.absolute()), k.index] for k in keyframes],
    )
    return EditPlan(
        config=config,
        asked=replace(config, **{name: getattr(given, name) for name in ASKED_AGAIN}),
        model=model,
        source=source,
        keyframes=keyframes,
        fits=tuple(keyframe.placement.record for keyframe in placed),
        method=method,
        settings=settings,
        task=task,
        rehearsal=rehearsal,
        fit=laid_out,
        warnings=(*ignored, *told, *notes, *doubts),
        model_files=files,
        sound=sound,
        sound_of=sound_of,
        clock=clock,
    )


def decided_apart(config: EditConfig, found: EditInputs) -> Json:
    """What decides an edit besides its settings and the files of its own, found without reading a frame.

    Raises:
        InputError, MissingWeightsError: as `make_edit_plan`, as far as no frame is needed.
    """
    method = build_method(config)
    chosen = (config.parts, config.loras, config.lora_partial)
    model = open_model(config.source, *chosen, distilled=config.distilled)
    if config.tile is not None:
        model.latent_space.tile(config.tile)
    frames = found.frames(config)
    if frames is not None and found.keyframes:
        _check_frames(frames, [keyframe.index for keyframe in found.keyframes], config, model)
    settings = edit_settings(config, model, method, frames or 1)
    files = hash_model(model)
    decides: Json = {
        "algorithm": ALGORITHM,
        "model": digest(files),
        "method": describe(method),
        "restore": [settings.restore, CARRIED.get(settings.restore)],
    }
    if config.attention == "auto":  # which is another on another card
        settings = replace(settings, attention="sdpa")
    return decides | hashed_guide(settings.guide) | hashed_cache(settings.cache) | hashed_computing(settings)


def _called(config: EditConfig, method: Method) -> AbstractContextManager[None]:
    """Where a method is asked that is not all the package's own: what it raises is told as its error."""
    if not from_outside(describe(method)):
        return nullcontext()
    tied = f", controller {config.controller}" if hasattr(method, "controller") else ""
    return named_error(f"method {config.method}{tied}")


def fill(config: EditConfig, decided: Sampled, own: Sampling) -> EditConfig:
    """A configuration whose nulls are the settings that the model was made for."""
    defaults = decided.filled | {
        "negative_prompt": own.negative_prompt,
        "source_prompt": config.prompt,
        "source_guidance_scale": decided.filled["guidance_scale"],
    }
    # Filled as numbers, where it was a text; as it is for this model.
    own_words = {name: decided.filled[name] for name in ("cache_options", "guidance_options", "attention")}
    config = replace(config, noise_levels=None, **own_words)
    return replace(config, **{name: v for name, v in defaults.items() if getattr(config, name) is None})


def _check_frames(frames: int, indices: Sequence[int], config: EditConfig, model: OpenModel) -> None:
    timeline.check_keyframes(len(indices), indices, frames)
    limit = model.sampling.max_frames
    if timeline.round_up(frames) > limit and config.long_source == "error":
        raise InputError(
            f"the source has {frames} frames; {model.name} is good for {limit}. Give num_frames (and start), or "
            "long_source: windows to average overlapping windows of that length, or whole to edit it in one piece"
        )


def edit_settings(config: EditConfig, model: OpenModel, method: Method, num_frames: int) -> EditSettings:
    """What the editor is told of a configuration, for a source of so many frames."""
    solver = getattr(method, "solver", "euler")
    decided = decide_sampling(config, model, solver)
    config = fill(config, decided, model.sampling)
    most = timeline.slots(model.sampling.max_frames)
    restore = decide_output(config, method).restore
    long = timeline.slots(timeline.round_up(num_frames)) > most
    return EditSettings(
        num_inference_steps=filled(config.num_inference_steps),
        shift=config.shift or model.sampling.shift,
        guidance_scale=filled(config.guidance_scale),
        source_guidance_scale=filled(config.source_guidance_scale),
        solver=solver,
        noise_levels=tuple(filled(config.listed)),
        guidance_scale_low=config.guidance_scale_low,
        boundary_timestep=decided.boundary_timestep,
        keyframe_encoding=config.keyframe_encoding,
        restore="none" if restore == "auto" else restore,
        condition_keyframes=config.condition_keyframes,
        window=most if config.long_source == "windows" and long else None,
        offload_model=config.offload_model is not False,
        t5_cpu=config.t5_cpu,
        tile=config.tile,
        middle_strength=config.middle_strength,
        cache=decided.cache,
        attention=decided.filled["attention"],
        weights="full" if config.weights == "auto" else config.weights,
        compile=config.compile,
        guide=decided.guide,
    )


def _doubts(
    config: EditConfig, model: OpenModel, task: EditTask, settings: EditSettings, rehearsal: Rehearsal
) -> list[str]:
    """What will run with this model and this source, but perhaps not as meant."""
    notes, frames, total = [], len(task.frames), task.sampled_frames
    (height, width), (full_height, full_width) = task.size, task.sampled_size
    if (full_height, full_width) != (height, width):
        notes.append(
            f"{width}*{height} are no multiples of {task.latent_space.token_side}: the model works on "
            f"{full_width}*{full_height}, the last row and column held, and {width}*{height} come out"
        )
    if total != frames:
        notes.append(
            f"{frames} frames are no 4n+1: the model works on {total}, the last frame held, and {frames} come out"
        )
    if settings.guidance_scale > 1 and model.sampling.guidance_scale == 1:
        notes.append(
            f"{model.name} is made for guidance 1; guidance_scale {settings.guidance_scale:g} costs it quality, and "
            "twice the time"
        )
    hidden = sorted({*task.keyframe_indices} - {*model.showable(task.keyframe_indices, total)})
    if config.condition_keyframes and hidden:
        notes.append(f"{model.name} cannot be shown the keyframes at {hidden}; they act by the method alone")
    if rehearsal.beyond_training:
        notes.append(
            f"{model.name} was trained on a first frame alone; it may miss the keyframes that end a clip"
        )
    return notes


def _middle(config: EditConfig, model: WanFolder, method: Method, task: EditTask) -> list[str]:
    """What becomes of keyframes that the model is shown in the middle of the clip."""
    shown = config.condition_keyframes or "images" in method.ignores
    frames = model.showable(task.keyframe_indices, task.sampled_frames) if shown else ()
    middle = [frame for frame in frames if 0 < frame < task.sampled_frames - 1]
    if config.middle_strength is not None and not middle:
        return ["middle_strength is not used: the model is shown no keyframe in the middle of the clip"]
    return held_softly(model.held(config.middle_strength)) if middle else []


def _hashes(pictures: Pictures) -> list[str]:
    return [pixels_sha256(pictures.frames), *map(pixels_sha256, pictures.keyframes)]


def resolve_edit(config: EditConfig, directory: RunDirectory) -> EditConfig:
    """Fill what depends on the machine and on an earlier run of this folder: seed and threads."""
    return replace(
        config,
        base_seed=resolve_seed(config, directory),
        cpu_threads=resolve_threads(config, directory),
        attention=resolve_attention(config, directory),
    )


def is_complete(plan: EditPlan, directory: RunDirectory) -> bool:
    """Whether the clip was edited before with all that decides its pixels."""
    name = plan.task.digest
    done = Manifest(directory).complete([name], plan.config.save_latents)
    return name in done and not plan.config.force_regenerate


def print_edit_plan(config: EditConfig, folders: Sequence[Path] = ()) -> None:
    """Print source, keyframes, slots, method, schedule and what a run would skip.

    Raises:
        InputError, MissingWeightsError: as the run itself would.
    """
    directory = RunDirectory(config.folder, config.final_path)
    check_edit(config)
    for note in elsewhere(config):
        wide_console().print(note, style="yellow")
    plan = make_edit_plan(resolve_edit(config, directory), folders)
    check_output(plan.config, plan.source.path, plan.keyframes)
    console = wide_console()
    if plan.about:
        console.print(plan.about, style="yellow")
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow")
    table = Table(title="Edited keyframes", title_justify="left")
    for column in ("#", "file", "frame", "latent slot", "from", "to"):
        table.add_column(column, overflow="fold")
    rows = zip(plan.keyframes, plan.fits, plan.task.slots, strict=True)
    for k, (keyframe, fit, slot) in enumerate(rows):
        before, after = fit.source, fit.target
        sizes = f"{before[1]}*{before[0]}", f"{after[1]}*{after[0]} ({fit.policy})"
        table.add_row(str(k), keyframe.path.name, str(keyframe.index), str(slot), *sizes)
    console.print(table)
    console.print(_totals(plan, directory), highlight=False)


def _totals(plan: EditPlan, directory: RunDirectory) -> str:
    settings, task = plan.settings, plan.task
    (height, width), inner = task.pictures.frames.shape[1:3], task.sampled_size
    at = "" if inner == (height, width) else f", sampled at {inner[1]}*{inner[0]}"
    done = "skips: complete" if is_complete(plan, directory) else "edits"
    where, cost, loras, needs = "", "", (), list[str]()
    if isinstance(plan.model, WanFolder):
        shown = SHOWN[plan.model.shows.frames]
        where, loras = f" ({plan.model.path}); of a clip it is shown {shown}", plan.model.loras
        cost = f", {forward_flops(plan.model.config, plan.tokens) / 1e12:.3g} TFLOP a pass"
        needs += [f"memory     {took.words}"] if (took := plan.memory) else []
        if plan.fit is not None:
            passes = plan.rehearsal.evaluations
            estimates = plan.fit.estimates(plan.model.config, plan.tokens, passes, "the edit")
            needs += [f"fit        {plan.fit.words}", *estimates]
    return "\n".join(
        (
            f"source     {plan.source.path}: frames {plan.source.start} … "
            f"{plan.source.start + len(task.frames) - 1} of {plan.source.total}, {float(plan.fps):g} fps",
            f"output     {directory.final}: {len(task.frames)} frames, {width}*{height}{at}, "
            f"restored: {settings.restore}",
            *([f"sound      of the source, from {float(plan.sound.start):.3f} s"] if plan.sound else []),
            f"model      {plan.model.name}{where}",
            *(f"LoRA       {lora}" for lora in loras),
            f"method     {method_words(plan.config.method, plan.method)}",
            f"schedule   {settings.solver}, {settings.words}, source {settings.source_guidance_scale:g}; largest h "
            f"{max(step.h for step in settings.schedule):.3g}",
            f"clip       {task.sampled_frames} frames, {task.grid[0]} slots, {task.tokens} tokens{cost}",
            f"seed       {plan.config.base_seed}",
            f"cost       {settings.bound or 'about '}{plan.rehearsal.evaluations} passes of the network",
            *needs,
            f"hash       {task.digest[:12]}",
            f"this run   {done}",
        )
    )
