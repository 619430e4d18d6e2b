"""Generation from end to end: plan, sample what is missing, stitch."""

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wanedit.errors import InputError, ResourceError
from wanedit.jobs.generate.assemble import assemble, metadata
from wanedit.jobs.generate.config import GenerationConfig, check
from wanedit.jobs.generate.plan import Plan, make_plan
from wanedit.lit.chain import FLF2VChain, OnStep, SampledSegment, SegmentTask
from wanedit.lit.data import shares
from wanedit.runtime import launch
from wanedit.runtime.cost import disk_bytes
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import append_event
from wanedit.runtime.journal import Manifest, segment_file
from wanedit.runtime.launch import World
from wanedit.runtime.predict import predict, save_latents, write_piece
from wanedit.runtime.progress import progress_bar
from wanedit.runtime.record import resolve_seed, resolve_threads, write_record
from wanedit.tracking import check_tracking
from wanedit.tracking.runs import track, track_result

Say = Callable[[str], None]


@dataclass(frozen=True)
class GenerationResult:
    """What a run made.

    Attributes:
        video: the final file.
        num_frames, fps: of it.
        keyframe_frames: the frame at which each keyframe stands.
        seed: of all noise.
        segments: hash of every segment, in order.
        sampled: indices of the segments that this call sampled; the others were complete before.
    """

    video: Path
    contact_sheet: Path
    num_frames: int
    fps: float
    keyframe_frames: tuple[int, ...]
    seed: int
    segments: tuple[str, ...]
    sampled: tuple[int, ...]


def generate(
    config: GenerationConfig,
    folders: Sequence[Path] = (),
    verbose: bool = True,
    say: Say = print,
    full_plan: bool = False,
) -> GenerationResult:
    """Make one long video through timed keyframes; resume what an earlier run of the same folder finished.

    Args:
        config: the run.
        folders: where relative keyframe paths are looked up after the current folder.
        verbose: show the plan's warnings and a progress bar.
        say: where the lines go.
        full_plan: first print the whole plan, as `--dry_run` does.

    Raises:
        InputError, MissingWeightsError, ResourceError, NumericalError: see their docstrings; the exit code of
            the command line is theirs.
    """
    world = launch.current_world()
    launch.join(world)
    try:
        with launch.interruptible():
            return _generate(config, folders, world, say if verbose and world.rank == 0 else None, full_plan)
    finally:
        launch.leave(world)


def _generate(
    config: GenerationConfig, folders: Sequence[Path], world: launch.World, say: Say | None, full_plan: bool
) -> GenerationResult:
    directory = RunDirectory(config.folder, config.final_path)
    with contextlib.ExitStack() as stack:
        # One rank decides, and owns the folder until the run ends; the others receive the plan or the error.
        plan, todo = launch.on_rank_zero(world, lambda: _start(config, folders, directory, world, stack, say))
        if say is not None:
            _announce(plan, todo, directory, say, full_plan)
        digests = [task.digest for task in plan.tasks]
        tracking = stack.enter_context(track(plan.config, directory, world, digests, metadata(plan), say))
        sample_share(plan, todo, directory, world, say is not None, tracking.follow)
        launch.barrier(world)
        if world.rank == 0:
            with progress_bar(plan.timeline.num_frames, "stitching", "frames", say is not None) as advance:
                assemble(plan, directory, advance)
            numbers = {"frames": plan.timeline.num_frames, "segments": len(digests), "sampled": len(todo)}
            track_result(tracking, directory, digests, numbers | {"seed": plan.config.base_seed or 0})
    return _result(plan, todo, directory)


def _start(
    config: GenerationConfig,
    folders: Sequence[Path],
    directory: RunDirectory,
    world: launch.World,
    stack: contextlib.ExitStack,
    say: Say | None,
) -> tuple[Plan, list[SegmentTask]]:
    check(config)
    check_tracking(config)
    if world.under_torchrun and config.devices:
        raise InputError(
            f"gpu_ids are {config.devices} under torchrun; set CUDA_VISIBLE_DEVICES for torchrun instead"
        )
    launch.choose_devices(config, world)
    if directory.final.is_dir():
        raise InputError(f"output {directory.final} is a folder; expected the name of a video file")
    plan = make_plan(resolve(config, directory, world), folders, say or (lambda text: None))
    stack.enter_context(directory.lock())
    return plan, _prepare(plan, directory)


def resolve(config: GenerationConfig, directory: RunDirectory, world: launch.World) -> GenerationConfig:
    """Fill what depends on the machine and on an earlier run of this folder: seed, threads, offloading.

    Raises:
        InputError: the folder's config.yaml is not a record of wanedit.
    """
    several = max(world.size, config.num_gpus) > 1
    offload = not several if config.offload_model is None else config.offload_model
    return replace(
        config,
        base_seed=resolve_seed(config, directory),
        cpu_threads=resolve_threads(config, directory),
        offload_model=offload,
    )


def _prepare(plan: Plan, directory: RunDirectory) -> list[SegmentTask]:
    """Settle what is to be sampled, check the disk, record the configuration."""
    directory.prepare()
    todo = remaining(plan, directory)
    need = disk_bytes(todo, plan.timeline.num_frames, plan.size)
    free = shutil.disk_usage(directory.root).free
    if free < need:
        raise ResourceError(
            f"{directory.root}: {free / 1e6:.0f} MB free, about {need / 1e6:.0f} MB needed; make room, or choose "
            "another output"
        )
    if plan.config.force_regenerate or plan.config.resume_from is not None:
        Manifest(directory).forget({task.digest for task in todo})
    append_event(directory.metrics, _started(plan, todo))
    write_record(directory, plan.config)
    return todo


def _started(plan: Plan, todo: list[SegmentTask]) -> dict[str, Any]:
    """The record of a start: what the keyframes went through, and what the model's files were."""
    from wanedit import __version__

    return {
        "event": "start",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "wanedit": __version__,
        "model": plan.folder.name,
        "model_files": plan.model_files,
        "seed": plan.config.base_seed,
        "cpu_threads": plan.config.cpu_threads,
        "keyframes": [
            {
                "file": str(image.keyframe.path),
                "sha256": image.sha256,
                "normalised": list(image.notes),
                "fit": asdict(image.fit),
            }
            for image in plan.keyframes
        ],
        "warnings": list(plan.warnings),
        "to_sample": [task.index for task in todo],
    }


def remaining(plan: Plan, directory: RunDirectory) -> list[SegmentTask]:
    """Segments that have to be sampled.

    Raises:
        InputError: `resume_from` lies outside the chain, or a segment before it is not complete.
    """
    complete = Manifest(directory).complete([task.digest for task in plan.tasks], plan.config.save_latents)
    if plan.config.force_regenerate:
        return list(plan.tasks)
    start = plan.config.resume_from
    if start is None:
        return [task for task in plan.tasks if task.digest not in complete]
    if not 0 <= start < len(plan.tasks):
        raise InputError(f"resume_from is {start}; expected a segment, 0 to {len(plan.tasks) - 1}")
    lacking = [task.index for task in plan.tasks[:start] if task.digest not in complete]
    if lacking:
        raise InputError(
            f"resume_from is {start}, but segments {lacking} are not complete for these settings in "
            f"{directory.segments}; leave resume_from out to sample whatever is missing"
        )
    return list(plan.tasks[start:])


def _announce(
    plan: Plan, todo: list[SegmentTask], directory: RunDirectory, say: Say, full_plan: bool
) -> None:
    if full_plan:
        from wanedit.jobs.generate.show import show_plan

        show_plan(plan, todo, directory)
        return
    for warning in plan.warnings:
        say(f"warning: {warning}")
    done = len(plan.tasks) - len(todo)
    say(
        f"{len(plan.tasks)} segments, {plan.timeline.num_frames} frames at {float(plan.timeline.fps):g} fps, "
        f"{plan.folder.name}, seed {plan.config.base_seed}" + (f"; {done} already complete" if done else "")
    )
    if not todo:
        say(
            "nothing to sample: stitching again. --force_regenerate samples anew, with another seed unless one is given"
        )


def sample_share(
    plan: Plan,
    todo: list[SegmentTask],
    directory: RunDirectory,
    world: launch.World,
    verbose: bool,
    follow: Callable[[], None] = lambda: None,
) -> None:
    """Sample `todo`: here, here and on the other ranks of a torchrun, or in processes started for it.

    Args:
        follow: called after every step.
    """
    if not todo:
        return
    if plan.config.num_gpus > 1 and not world.under_torchrun:
        launch.run_workers(directory.config, plan.config, directory.lock_descriptor, verbose)
        return
    mine = shares(todo, world.size)[world.rank]
    label = f"rank {world.rank} of {world.size}," if world.size > 1 else "sampling"
    with progress_bar(len(mine) * plan.settings.num_inference_steps, label, "steps", verbose) as advance:

        def on_step(segment: int, step: int) -> None:
            launch.raise_if_interrupted()
            advance()
            follow()

        sample(plan, todo, directory, world, on_step)
    launch.raise_if_interrupted()


def _result(plan: Plan, todo: list[SegmentTask], directory: RunDirectory) -> GenerationResult:
    return GenerationResult(
        directory.final,
        directory.contact_sheet,
        plan.timeline.num_frames,
        float(plan.timeline.fps),
        plan.timeline.keyframe_frames,
        plan.config.base_seed or 0,
        tuple(task.digest for task in plan.tasks),
        tuple(task.index for task in todo),
    )


def sample(
    plan: Plan, todo: list[SegmentTask], directory: RunDirectory, world: World, on_step: OnStep
) -> None:
    """Sample this rank's share of `todo`; each segment is on disk and in the journal when its step ends.

    Raises:
        NumericalError, ResourceError, MissingWeightsError: see FLF2VChain.
    """
    chain = FLF2VChain(plan.folder, plan.settings, on_step)
    predict(chain, todo, _saver(plan, directory, world.rank), plan.config, world)


def _saver(plan: Plan, directory: RunDirectory, rank: int) -> Callable[[SampledSegment], None]:
    manifest = Manifest(directory)

    def save(segment: SampledSegment) -> None:
        name = segment_file(segment.index, segment.digest)
        try:
            if plan.config.save_latents:
                save_latents(directory, name, segment.latents)
            entry = write_piece(directory, name, segment, plan.timeline.fps, rank)
            manifest.record(segment.digest, entry)
        except ResourceError as error:
            raise ResourceError(
                f"segment {segment.index}: {error}. Finished segments stay; make room and run again"
            ) from None
        _log(plan, directory, segment, rank)

    return save


def _log(plan: Plan, directory: RunDirectory, segment: SampledSegment, rank: int) -> None:
    steps = plan.settings.num_inference_steps
    line = {
        "event": "segment",
        "segment": segment.index,
        "rank": rank,
        "frames": len(segment.frames),
        "tokens": segment.tokens,
        "steps": steps,
        "seconds": round(segment.seconds, 3),
        "latent_rms": round(float(segment.latents.square().mean().sqrt()), 5),
    }
    append_event(directory.metrics, line)
