"""Editing from end to end: plan, edit what is not complete, write the video and what a person looks at first."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from wanedit.errors import InputError, ResourceError
from wanedit.files import Json, OnDisk, system_errors
from wanedit.flow.editing import Metrics
from wanedit.flow.path import Step
from wanedit.interrupts import interruptible
from wanedit.jobs.edit.config import EditConfig, check_edit, check_output
from wanedit.jobs.edit.method import guidance
from wanedit.jobs.edit.plan import EditPlan, is_complete, make_edit_plan, resolve_edit
from wanedit.lit.edit_clip import step_record
from wanedit.lit.model import OutsideModel
from wanedit.lit.tasks import EditedClip
from wanedit.metrics.functional.reach import Reach, ReachSeries
from wanedit.progress import counted, counting
from wanedit.runtime import launch, leftovers
from wanedit.runtime.claims import LostError
from wanedit.runtime.cost import LOSSLESS_SHARE, latent_bytes, require_memory
from wanedit.runtime.directory import Manifest, RunDirectory, segment_file
from wanedit.runtime.events import append_event, attended, number, progress_bars, read_events, recorded_steps
from wanedit.runtime.options import describe
from wanedit.runtime.outputs import film_metadata
from wanedit.runtime.predict import (
    Velocities,
    drop_velocities,
    paced,
    predict,
    save_latents,
    write_piece,
)
from wanedit.runtime.preview import Previews
from wanedit.runtime.record import FinishedRun, record_start, recorded_config
from wanedit.runtime.settings import MODEL_FIELDS
from wanedit.tracking import Tracking, check_tracking
from wanedit.tracking.runs import track, track_result
from wanedit.video import read_frames, write_png, write_video
from wanedit.video.arrays import Frames
from wanedit.video.decode import open_frames
from wanedit.video.restoring import CARRIED
from wanedit.video.sheets import comparison_sheet, contact_indices, spread
from wanedit.video.sound import SoundOf, silent

Say = Callable[[str], None]
SHOWN_EVERY = 10
STUCK = 0.1
SHEET_FRAMES = 8


@dataclass(frozen=True, repr=False)
class EditResult(OnDisk):
    """What a run made; as a path, its video.

    Attributes:
        video: the final file.
        frames: uint8 (T, H, W, 3), before lossy encoding.
        num_frames, fps: of it.
        keyframe_indices: the frames of the keyframes.
        seed: of all noise.
        digest: hash of all that decides the pixels.
        edited: False if the clip was complete before.
        keyframe_error: |x0_hat[K] - x_e| / |x_e| at the last step; None where the method knows none.
        reach: how much of the edit every frame carries; None where the keyframes change nothing.
        sound_of: the source's sound, for whoever writes the frames anew.
    """

    video: Path
    contact_sheet: Path
    frames: Frames
    num_frames: int
    fps: float
    keyframe_indices: tuple[int, ...]
    seed: int
    digest: str
    edited: bool
    keyframe_error: float | None
    reach: Reach | None = None
    sound_of: SoundOf = silent

    failed = 0

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.video}: {self.num_frames} frames, keyframes at {list(self.keyframe_indices)}"

    def __fspath__(self) -> str:
        return str(self.video)


@system_errors()
def edit(
    config: EditConfig,
    folders: Sequence[Path] = (),
    verbose: bool = True,
    say: Say = print,
    sound_of: SoundOf | None = None,
) -> EditResult:
    """Edit one video; a folder whose edit is complete for these settings is only written out again.

    Under torchrun rank 0 does, and the others wait: one clip is the work of one device.

    Args:
        config: the run.
        folders: where relative paths are looked up after the current folder.
        verbose: show warnings, every tenth step and progress bars.
        say: where the lines go.
        sound_of: the sound of frames that were in memory; None for the source's own.

    Raises:
        InputError, MissingWeightsError, ResourceError, NumericalError: see their docstrings; the exit code of
            the command line is theirs.
    """
    ranks = launch.current_world()
    try:
        if not ranks.under_torchrun:
            return _edit(config, folders, verbose, say, sound_of)
        with interruptible():
            launch.join(ranks)
            try:
                # What sound there is, is read by whoever has the source open.
                return launch.on_rank_zero(
                    ranks, lambda: replace(_edit(config, folders, verbose, say, sound_of), sound_of=silent)
                )
            finally:
                launch.leave(ranks)
    except LostError:
        raise ResourceError(
            f"{config.folder}: this process was held up, and another went on with the edit; run again"
        ) from None


def begin(config: EditConfig, folders: Sequence[Path] = (), verbose: bool = True, say: Say = print) -> None:
    """Put an edit on record for a worker that something else starts, see `work`. Arguments and errors as of `edit`."""
    directory = RunDirectory(config.folder, config.final_path)
    with system_errors(), interruptible(), progress_bars(verbose):
        plan = _planned(config, directory, folders, say if verbose else lambda text: None)
        with directory.lock():
            _prepare(plan, directory)


def work(root: Path, record: Json, gpu: int | None = None, verbose: bool = True) -> EditResult:
    """Make, or go on with, the edit that a folder has on record, as `runtime.launchers.work` does.

    Args:
        root: the run's folder. record: what its config.yaml holds.
        gpu: which device; None for the first one.
        verbose: as of `edit`.

    Raises:
        InputError: as `edit`, and a record that is none.
    """
    config = replace(recorded_config(EditConfig, record, root), gpu_id=gpu, offload_model=None)
    launch.require_driver(config)
    return edit(config, verbose=verbose)


def _planned(
    config: EditConfig,
    directory: RunDirectory,
    folders: Sequence[Path],
    tell: Say,
    sound_of: SoundOf | None = None,
) -> EditPlan:
    """The plan, where the run's files may be written and its device is there."""
    check_edit(config)
    check_tracking(config)
    launch.choose_devices(config, launch.World())
    plan = make_edit_plan(resolve_edit(config, directory), folders, tell, sound_of)
    check_output(plan.config, plan.source.path, plan.keyframes)
    return plan


def _edit(
    config: EditConfig, folders: Sequence[Path], verbose: bool, say: Say, sound_of: SoundOf | None
) -> EditResult:
    """As `edit`, in this process."""
    tell: Say = say if verbose else lambda text: None
    world, directory = launch.World(), RunDirectory(config.folder, config.final_path)
    with interruptible(), progress_bars(verbose), launch.alone():
        plan = _planned(config, directory, folders, tell, sound_of)
        task, digests = plan.task, [plan.task.digest]
        with directory.lock():
            complete = _prepare(plan, directory)
            directory.queue.say("writes the film" if complete else "edits")
            if plan.about:
                tell(plan.about)
            for warning in plan.warnings:
                tell(f"warning: {warning}")
            height, width = task.pictures.frames.shape[1:3]
            tell(
                f"{len(task.frames)} frames of {width}*{height} at {float(plan.fps):g} fps, keyframes at "
                f"{list(task.keyframe_indices)}, {plan.config.method}, {plan.model.name}, seed "
                f"{plan.config.base_seed}" + ("; already complete" if complete else "")
            )
            with track(
                plan.config, directory, world, digests, metadata(plan), say if verbose else None
            ) as tracking:
                if not complete:
                    sample(plan, directory, world, tracking, tell)
                directory.queue.fence(task.digest)
                # Also where a full disk kept the run before from it.
                Manifest(directory).settle()
                result = _finish(plan, directory, edited=not complete)
                directory.wrote()
                for line in [] if complete else advice(result.keyframe_error, plan):
                    tell(line)
                for line in (
                    result.reach.told() if result.reach else ["the keyframes change nothing of the source"]
                ):
                    tell(line)
                numbers = {
                    "keyframe_error": result.keyframe_error,
                    "reach": result.reach and result.reach.mean,
                    "frames": result.num_frames,
                    "seed": result.seed,
                }
                track_result(tracking, directory, digests, numbers)
                for line in leftovers.told(directory, digests):
                    tell(line)
    return result


def _prepare(plan: EditPlan, directory: RunDirectory) -> bool:
    """Check the disk, record the start and the configuration; returns whether the clip is complete already."""
    directory.prepare()
    complete = is_complete(plan, directory)
    frames = plan.task.pictures.frames
    # The source in its own size and the result: what a plan leaves in the file, restoring needs at once.
    copies = 1 if complete or plan.settings.restore == "none" else 2
    require_memory(len(frames), (frames.shape[1], frames.shape[2]), copies, "this edit")
    velocities = plan.rehearsal.evaluations * latent_bytes(plan.task)
    directory.require_space(
        velocities + int(2 * plan.task.pictures.frames.nbytes * LOSSLESS_SHARE) + (1 << 20)
    )
    record_start(
        directory,
        plan.asked,
        model=plan.model.name,
        model_files=plan.model_files,
        method=describe(plan.method),
        keyframes=[
            {"file": str(k.path), "frame": k.index, "fit": asdict(fit)}
            for k, fit in zip(plan.keyframes, plan.fits, strict=True)
        ],
        warnings=list(plan.warnings),
        sound=None
        if plan.sound is None
        else {"start": float(plan.sound.start), "seconds": float(plan.sound.seconds)},
        edit=plan.task.digest,
    )
    if plan.config.force_regenerate:
        # Whoever goes on with it, elsewhere or later, makes it anew, too.
        Manifest(directory).forget({plan.task.digest})
    return complete


def sample(
    plan: EditPlan, directory: RunDirectory, world: launch.World, tracking: Tracking, tell: Say
) -> None:
    """Edit the clip; every step is on record at once, and the frames in the journal when the last one ends.

    Raises:
        NumericalError, ResourceError, MissingWeightsError: see FlowMatchingEditor.
    """
    shown = ("r_k_norm", "v_diff_norm", "delta_v_norm", "alpha_h", "keyframe_error")
    config, seen = plan.config, 0
    previews = Previews(directory, plan.model, config.preview, config.preview_in_terminal)
    velocities = Velocities(directory, plan.task.digest)
    if config.force_regenerate:
        drop_velocities(directory, [plan.task.digest])
    with counting("editing", "steps", plan.rehearsal.steps) as advance:

        def on_step(clip: int, step: Step, metrics: Metrics) -> None:
            nonlocal seen
            seen += 1
            advance()
            # One that was held up for a lease adds nothing to what another now makes.
            directory.queue.fence(plan.task.digest)
            # Not with the result: a run that diverges has its steps on record.
            append_event(directory.metrics, {"event": "step", **step_record(step, metrics)})
            tracking.follow()
            if step.index % SHOWN_EVERY == 0 or seen == plan.rehearsal.steps:
                values = "  ".join(f"{name} {metrics[name]:.3g}" for name in shown if name in metrics)
                tell(f"step {step.index:3d}  sigma {step.sigma:.3f}  {values}")

        def save(clip: EditedClip) -> None:
            name = segment_file(clip.index, clip.digest)
            if plan.config.save_latents and clip.latents is not None:
                save_latents((directory.segments / name).with_suffix(".safetensors"), clip.latents)
            entry = write_piece(directory, name, clip, plan.fps, 0)
            measured = [step["keyframe_error"] for step in clip.steps if "keyframe_error" in step]
            line = {
                "event": "edited",
                "frames": len(clip.frames),
                "tokens": clip.tokens,
                "evaluations": clip.evaluations,
                **({"evaluations_saved": plan.uncached - clip.evaluations} if plan.settings.cache else {}),
                **({"replayed": velocities.replayed} if velocities.replayed else {}),
                "seconds": round(clip.seconds, 3),
                **paced(clip, velocities.replayed),
                "digest": clip.digest,
                # |x0_hat[K] - x_e| / |x_e| of the last step that measured it.
                "keyframe_error": measured[-1] if measured else None,
                **attended(plan.settings.attention, clip.off_sdpa),
            }
            # First, for what is in the journal is never edited again, and would lack it for ever.
            append_event(directory.metrics, line)
            Manifest(directory).record(clip.digest, entry)
            previews.remove(name)
            drop_velocities(directory, [clip.digest])

        def watch(digest: str, step: Step, clean: Tensor) -> None:
            previews.show(segment_file(0, digest), step, clean)

        # Brings Lightning, for which a plan, a mistake and a run that is complete need not wait.
        from wanedit.lit.editor import FlowMatchingEditor, OutsideEditor

        if isinstance(plan.model, OutsideModel):
            module = OutsideEditor(plan.model, plan.method, plan.settings, on_step, watch)
        else:
            module = FlowMatchingEditor(
                plan.model, plan.method, plan.settings, on_step, watch, lambda digest: velocities.answering()
            )
        predict(module, [plan.task], save, plan.config, world)


def advice(error: float | None, plan: EditPlan) -> list[str]:
    """What to try when the keyframes were not reached."""
    if error is None or error <= STUCK:
        return []
    ways, scale, settings = [], guidance(plan.config, plan.method)[0], plan.settings
    controller = getattr(plan.method, "controller", None)
    if controller is None:
        ways.append("use residual_corrected, whose controllers tie keyframes in")
    elif gain := controller.advice(settings.schedule):
        ways.append(gain)
    if scale > 1:
        own = getattr(plan.method, "guidance_scale", None) is not None
        ways.append(f"lower {'method_options.guidance_scale' if own else 'guidance_scale'} (now {scale:g})")
    ways.append("look whether the keyframes show edits of their frames")
    restored = ", before they were restored" if plan.config.restore in CARRIED else ""
    missed = f"the keyframes were missed by {error:.0%} (relative residual of the last step{restored})"
    return [f"{missed}: {', or '.join(ways)}"]


def _finish(plan: EditPlan, directory: RunDirectory, edited: bool) -> EditResult:
    """Write the video and what a person looks at first."""
    task = plan.task
    frames = read_frames(Manifest(directory).path(task.digest))
    write_video(
        directory.final,
        counted(frames, "writing the film", "frames"),
        plan.fps,
        metadata(plan),
        plan.config.crf,
        sound=plan.sound,
        clock=plan.clock,
    )
    keys = spread(task.keyframe_indices)
    shown = contact_indices(len(frames), keys, max(SHEET_FRAMES, len({0, len(frames) - 1, *keys})))
    title = (
        f"{len(keys)} of {len(task.keyframe_indices)} keyframes"
        if tuple(keys) != task.keyframe_indices
        else ""
    )
    clips = {"source": task.pictures.frames, "edited": frames}
    rows = {name: dict(zip(shown, clip[shown], strict=True)) for name, clip in clips.items()}
    times = plan.clock and [float(at * plan.clock.time_base - plan.clock.start) for at in plan.clock.pts]
    rows["keyframes"] = dict(zip(task.keyframe_indices, task.pictures.keyframes, strict=True))
    write_png(
        directory.contact_sheet,
        comparison_sheet(rows, shown, task.keyframe_indices, plan.fps, title, times=times),
    )
    events = [event for event in read_events(directory.metrics) if event.get("digest") == task.digest]
    done = [event for event in events if event.get("event") == "edited"]
    return EditResult(
        video=directory.final,
        contact_sheet=directory.contact_sheet,
        frames=frames,
        num_frames=len(frames),
        fps=float(plan.fps),
        keyframe_indices=task.keyframe_indices,
        seed=task.seed,
        digest=task.digest,
        edited=edited,
        keyframe_error=number(done[-1].get("keyframe_error")) if done else None,
        reach=_reach(plan, directory, frames),
        sound_of=plan.sound_of,
    )


def _reach(plan: EditPlan, directory: RunDirectory, frames: Frames) -> Reach | None:
    """How far the edit reached, which goes on record; None where the keyframes change nothing."""
    pictures, indices = plan.task.pictures, plan.task.keyframe_indices
    keyframes = dict(zip(indices, pictures.keyframes, strict=True))
    series = ReachSeries(keyframes, dict(zip(indices, pictures.frames[list(indices)], strict=True)))
    if not series.edits:
        return None
    for source, result in zip(
        pictures.frames, counted(frames, "how far the edit reached", "frames"), strict=True
    ):
        series.update(source, result)
    found = series.reach()
    line = {
        "event": "reached",
        "digest": plan.task.digest,
        "shares": [round(share, 3) for share in found.shares],
        "known": [round(known, 3) for known in found.known],
        "told": found.told(),
    }
    append_event(directory.metrics, line)
    return found


def metadata(plan: EditPlan) -> dict[str, str]:
    """What the final file carries: of paths the last name only, of keyframes their frames, and the hash of the edit."""

    config = asdict(plan.config)
    config["keyframes"] = [{"file": k.path.name, "frame": k.index} for k in plan.keyframes]
    for name in ("video", "output", *MODEL_FIELDS):
        config[name] = config[name] and Path(config[name]).name
    config["lora"] = [str(replace(one, path=Path(one.path.name))) for one in plan.config.loras]
    config["module_folders"] = [Path(folder).name for folder in config["module_folders"]]
    return film_metadata(len(plan.task.frames)) | {
        "wanedit_config": json.dumps(config, ensure_ascii=False),
        "wanedit_edit": plan.task.digest,
    }


def load_run(root: Path, record: Mapping[str, object], folders: Sequence[Path] = ()) -> FinishedRun:
    """What a complete edit holds, for `runtime.record.read_run`. Raises InputError for one that is not."""
    # Where the model lay on its card is past, and this machine may have another.
    config = replace(recorded_config(EditConfig, record, root), fit=None)
    plan, directory = make_edit_plan(config, folders), RunDirectory(root, config.final_path)
    if not is_complete(plan, directory):
        raise InputError(f"run: the edit of {root} is not complete for its inputs as they are; run it again")
    pictures, digest = plan.task.pictures, plan.task.digest
    events = read_events(directory.metrics)
    method, steps = recorded_steps(events, digest)
    done = [event for event in events if event.get("event") == "edited" and event.get("digest") == digest]
    return FinishedRun(
        "edit",
        open_frames(Manifest(directory).path(digest)),
        plan.fps,
        prompt=config.prompt,
        keyframes=dict(zip(plan.task.keyframe_indices, pictures.keyframes, strict=True)),
        reference=pictures.frames,
        method=method,
        steps=steps,
        seconds=number(done[-1].get("seconds")) if done else None,
        evaluations=number(done[-1].get("evaluations")) if done else None,
        config=config,
        digests=(digest,),
        metadata=metadata(plan),
    )
