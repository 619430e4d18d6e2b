"""Generation from end to end: plan, sample what is missing, stitch; as a function and as a Python object."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

from torch import Tensor

from wanedit.errors import HandedOver, InputError
from wanedit.files import Json, OnDisk, digest, system_errors
from wanedit.flow.path import Step
from wanedit.interrupts import interruptible
from wanedit.jobs.generate.assemble import assemble, final_frames, metadata
from wanedit.jobs.generate.config import GenerationConfig, check, check_crews, check_output, find_keyframes
from wanedit.jobs.generate.joins import Todo, latents_file
from wanedit.jobs.generate.plan import (
    Plan,
    Say,
    announce,
    for_segments,
    make_plan,
    plan_in,
    remaining,
    show_plan,
    space_needed,
    with_takes,
)
from wanedit.jobs.generate.repair import repair_of, repaired
from wanedit.lit.tasks import Answers, CoDenoising, DecodedPiece, NamedWork, SampledSegment, asked, cost
from wanedit.runtime import launch, leftovers, workers
from wanedit.runtime.claims import Crewed, Pulled
from wanedit.runtime.directory import Manifest, RunDirectory, segment_file
from wanedit.runtime.events import (
    append_event,
    attended,
    counting_together,
    events_of,
    progress_bars,
    read_events,
)
from wanedit.runtime.inputs import KeyframesLike
from wanedit.runtime.launch import World
from wanedit.runtime.predict import (
    Velocities,
    drop_velocities,
    paced,
    predict,
    write_latents,
    write_piece,
)
from wanedit.runtime.preview import Previews
from wanedit.runtime.record import (
    FinishedRun,
    Repaired,
    another_run,
    record_start,
    recorded_config,
    write_record,
)
from wanedit.runtime.settings import with_changes
from wanedit.tracking import check_tracking
from wanedit.tracking.runs import track, track_result
from wanedit.video import write_png
from wanedit.video.arrays import FrameSequence, pixels_sha256
from wanedit.video.tensors import pixels_of


@dataclass(frozen=True)
class _Film:
    """The last task of a run: joins that show are mended, and all is stitched."""

    digest: str = digest({"task": "film"})
    name: str = "stitching"


FILM = _Film()


@dataclass(frozen=True, repr=False)
class GenerationResult(OnDisk):
    """What a run made; as a path, its video.

    Attributes:
        video: the final file.
        num_frames, fps: of it.
        keyframe_frames: the frame at which each keyframe stands.
        seed: of all noise.
        segments: hash of every segment, in order.
        sampled: indices of the segments that were sampled meanwhile, by whatever process; the others were complete
            before.
    """

    video: Path
    contact_sheet: Path
    num_frames: int
    fps: float
    keyframe_frames: tuple[int, ...]
    seed: int
    segments: tuple[str, ...]
    sampled: tuple[int, ...]

    failed = 0

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.video}: {self.num_frames} frames, keyframes at {list(self.keyframe_frames)}"

    def __fspath__(self) -> str:
        return str(self.video)


@system_errors()
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
        verbose: show the plan's warnings and progress bars.
        say: where the lines go.
        full_plan: first print the whole plan, as `--dry_run` does.

    Raises:
        InputError, MissingWeightsError, ResourceError, NumericalError: see their docstrings; the exit code of
            the command line is theirs.
    """
    world, directory = launch.current_world(), RunDirectory(config.folder, config.final_path)
    tell = say if verbose and world.rank == 0 else None
    launch.join(world)
    try:
        with interruptible(), progress_bars(tell is not None), contextlib.ExitStack() as stack:
            # One rank decides for all; the others receive the plan or the error.
            plan, todo, helps = launch.on_rank_zero(
                world, lambda: _decide(config, folders, directory, world, stack, tell)
            )
            if world.rank:
                stack.enter_context(directory.queue.working())
            digests = [task.digest for task in plan.tasks]
            if tell is not None and full_plan:
                show_plan(plan, todo, directory)
            elif tell is not None:
                announce(plan, todo, tell)
            # Of several launches the first one tracks the run.
            tracked = plan.config if not helps else replace(plan.config, tracking="none")
            tracking = stack.enter_context(track(tracked, directory, world, digests, metadata(plan), tell))
            sample(plan, todo, directory, world, tell is not None, tracking.follow)
            anew = {plan.places[task.index] for task in todo.segments}

            def make(other: Plan) -> None:
                lacking = launch.on_rank_zero(world, lambda: _lacking(other, directory))
                anew.update(other.places[task.index] for task in lacking.segments)
                sample(other, lacking, directory, world, tell is not None, tracking.follow)

            plan = _finish(plan, directory, world, make, tell or (lambda text: None))
            digests = [task.digest for task in plan.tasks]
            if verbose and directory.queue.dropped:
                say(directory.queue.dropped_words)
            if world.rank == 0:
                numbers = {
                    "frames": plan.timeline.num_frames,
                    "segments": len(digests),
                    "sampled": len(anew),
                    "seed": plan.seed,
                }
                track_result(tracking, directory, digests, numbers)
                for line in leftovers.told(directory, plan.keeps) if tell is not None else ():
                    say(line)
    finally:
        launch.leave(world)
    return GenerationResult(
        video=directory.final,
        contact_sheet=directory.contact_sheet,
        num_frames=plan.timeline.num_frames,
        fps=float(plan.timeline.fps),
        keyframe_frames=plan.timeline.keyframe_frames,
        seed=plan.seed,
        segments=tuple(digests),
        sampled=tuple(sorted(anew)),
    )


def begin(
    config: GenerationConfig, folders: Sequence[Path] = (), verbose: bool = True, say: Say = print
) -> None:
    """Put a run on record for workers that something else starts, see `work`. Arguments and errors as of `generate`."""
    directory, tell = RunDirectory(config.folder, config.final_path), say if verbose else None
    with system_errors(), interruptible(), progress_bars(verbose), contextlib.ExitStack() as stack:
        plan, todo, _ = _decide(config, folders, directory, World(), stack, tell)
        if tell is not None:
            announce(plan, todo, tell)


def work(root: Path, record: Json, gpu: int | None = None, verbose: bool = True) -> GenerationResult:
    """Help a generation that is at work, or go on with one, as `runtime.launchers.work` does; whoever is last stitches.

    Args:
        root: the run's folder. record: what its config.yaml holds.
        gpu: which device; None for the first one.
        verbose: as of `generate`.

    Raises:
        InputError: as `generate`, and a record that is none.
    """
    config = recorded_config(GenerationConfig, record, root)
    # As many to a sample as in the run on record, where this launch has them.
    together = config.sequence_parallel if launch.current_world().size % config.sequence_parallel == 0 else 1
    config = replace(
        config,
        num_gpus=1,
        gpu_ids=[] if gpu is None else [gpu],
        offload_model=None,
        sequence_parallel=together,
    )
    launch.require_driver(config)
    return generate(config, verbose=verbose)


def _decide(
    config: GenerationConfig,
    folders: Sequence[Path],
    directory: RunDirectory,
    world: World,
    stack: contextlib.ExitStack,
    tell: Say | None,
) -> tuple[Plan, Todo, bool]:
    """Plan, take the folder, settle what is to be sampled, check the disk, record the run; or help others who have done
    so for the same run, as the third of what is returned says."""
    check(config)
    check_tracking(config)
    if world.under_torchrun and config.devices:
        raise InputError(
            f"gpu_ids are {config.devices} under torchrun; set CUDA_VISIBLE_DEVICES for torchrun instead"
        )
    check_crews(config, world.size if world.under_torchrun else config.num_gpus)
    launch.choose_devices(config, world)

    def planned() -> Plan:
        plan = plan_in(directory, config, folders, world, tell or (lambda text: None))
        check_output(plan.config, [image.keyframe for image in plan.keyframes])
        return plan

    plan, helps = directory.enter(stack, planned, lambda plan: _another(plan, directory))
    if helps:
        return plan, remaining(plan, directory), True
    directory.prepare()
    todo = remaining(plan, directory)
    directory.require_space(space_needed(plan, todo))
    # What is made anew, or is damaged, would else be found complete.
    Manifest(directory).forget({*todo.digests})
    # Of what is there, which a stop may have left; or not to be gone on from.
    drop_velocities(
        directory, {*plan.digests} - ({*todo.digests} if not plan.config.force_regenerate else set())
    )
    record_start(
        directory,
        plan.config,
        model=plan.folder.name,
        model_files=plan.model_files,
        keyframes=[
            {
                "file": str(image.keyframe.path),
                "sha256": image.sha256,
                "normalised": list(image.notes),
                "fit": asdict(image.fit),
            }
            for image in plan.keyframes
        ],
        warnings=list(plan.warnings),
        segments=[task.digest for task in plan.tasks],
        keeps=plan.keeps,
        to_sample=[plan.places[task.index] for task in todo.segments],
        stages={
            "denoised together": [task.digest for task in plan.together],
            "segments": [task.digest for task in plan.tasks],
            "bridges": [task.digest for task in plan.bridges],
            "decoded": [piece.digest for piece in plan.pieces],
        },
    )
    directory.queue.say("begins")
    return plan, todo, False


def _another(plan: Plan, directory: RunDirectory) -> str:
    """Why this process cannot help those who work in the folder, in words; "" if it can."""
    config = plan.config
    if directory.film_sha256() is not None:
        return "It has its film already"
    if config.force_regenerate or config.resume_from is not None:
        return "What it makes is to be made anew here"
    if config.num_gpus > 1:
        return (
            "A launch that helps is of one process, or of a torchrun: torchrun "
            f"--nproc_per_node={config.num_gpus} -m wanedit work {directory.root}"
        )
    differs = another_run(config, plan.keeps, directory)
    return differs and f"It is at another run: {differs}"


def _lacking(plan: Plan, directory: RunDirectory) -> Todo:
    """What the folder lacks of a plan, by its journal, too, in which what is damaged would else be found complete."""
    todo = remaining(plan, directory)
    Manifest(directory).forget({*todo.digests})
    return todo


def _finish(
    plan: Plan, directory: RunDirectory, world: World, make: Callable[[Plan], None], tell: Say
) -> Plan:
    """Mend joins that show and stitch, which one of several launches does while the others wait. Returns the plan with
    the takes that stay. Arguments as of `repaired`."""

    def finished() -> list[str]:
        return [] if directory.film_sha256() is None else [FILM.digest]

    for _ in _turns(Pulled([FILM], directory.queue, finished), world):
        plan = repaired(plan, directory, world, make, tell)
        if world.rank == 0:
            Manifest(directory).settle()
            assemble(plan, directory, tell)
            write_record(directory, plan.config)
            directory.wrote()
    # Where another launch did, what it put down leads to the same takes.
    return repaired(plan, directory, world, make, lambda text: None)


def _turns(tasks: Pulled, world: World) -> Iterator[None]:
    """Once, on all ranks of this launch, for each of the tasks that it gets: rank 0 claims them for all."""
    claimed = iter(tasks)
    while launch.on_rank_zero(world, lambda: next(claimed, None) is not None):
        yield


def sample(
    plan: Plan,
    todo: Todo,
    directory: RunDirectory,
    world: World,
    verbose: bool,
    follow: Callable[[], None] = lambda: None,
) -> None:
    """Make `todo`: here, here and on the other ranks of a torchrun, or in processes started for it.

    Stage by stage, since each reads what the one before made in whatever process: what is denoised together, segments,
    bridges, then frames. Every process of the folder pulls its tasks, but for what is denoised together, which all
    ranks of one launch do. What is made is on disk and in the journal when its step ends, and all of it, by whomever,
    when this returns.

    Args:
        verbose: whether processes that are started draw progress bars.
        follow: called after every step.

    Raises:
        NumericalError, ResourceError, MissingWeightsError: see FLF2VChain.
    """
    if not todo:
        return
    manifest, queue = Manifest(directory), directory.queue
    config = plan.config if world.under_torchrun else for_segments(plan.config, todo)
    if config.num_gpus > 1 and not world.under_torchrun:

        def doing(rank: int) -> str:
            here = [one for one in queue.workers().values() if one and one.machine == queue.machine]
            at = next((f" at {one.doing}" for one in here if one.rank == rank and one.task), "")
            journal = manifest.read()
            # Which rank 0 has for all, and lets go of when it is ended with the others.
            at = next((f" at {one.name}" for one in todo.together if one.digest not in journal), at)
            kept = sum(task.digest in journal for task in plan.tasks)
            return f"{at}; {kept} of {len(plan.tasks)} segments are kept in {directory.segments}"

        queue.say(f"waits for its {config.num_gpus} processes")
        workers.run_workers(
            "wanedit.jobs.generate.worker",
            directory.config,
            config,
            verbose,
            doing,
            *(",".join(map(str, takes)) for takes in plan.config.takes_of(len(plan.tasks))),
        )
        return
    schedule, fps = plan.settings.schedule, plan.timeline.fps
    sampled = {task.digest: task for task in (*todo.together, *todo.segments, *todo.bridges)}
    decoded = {task.digest: task for task in todo.pieces}
    previews = Previews(directory, plan.folder, config.preview, config.preview_in_terminal)

    own: set[str] = set()  # what this process made
    kept: dict[str, Velocities] = {}

    def keep(name: str) -> contextlib.AbstractContextManager[Answers]:
        # At each evaluation of a state all of its windows are asked about.
        kept[name] = Velocities(directory, name, 0 if isinstance(sampled[name], CoDenoising) else None)
        return kept[name].answering()

    ranks = f" on {world.size} ranks" if world.size > 1 else ""

    def units_of_others(units: Mapping[str, int]) -> Callable[[], int] | None:
        """What other processes have done so far of tasks that are so many units each; rank 0 alone asks."""

        def done() -> int:
            finished = manifest.read().keys()
            begun = {
                one.task: one.step for one in queue.workers().values() if one and one.task not in finished
            }
            return sum(
                count if name in finished else min(count, begun.get(name, 0))
                for name, count in units.items()
                if name not in own
            )

        return done if world.rank == 0 else None

    def pulled(tasks: Sequence[NamedWork]) -> Pulled[NamedWork]:
        return Pulled(tasks, queue, lambda: manifest.read().keys(), cost)

    def save_latents(made: SampledSegment | None) -> None:
        if made is None:  # handed over; or of what ranks made together, on all but the first
            return
        task = sampled[made.digest]
        entry = write_latents(directory, latents_file(task), made, task.sampled_frames, world.rank)
        together = isinstance(task, CoDenoising)
        replayed = kept[made.digest].replayed if made.digest in kept and not together else 0
        line = {
            "event": task.kind,
            "digest": made.digest,
            **({"windows": len(task.windows)} if together else {"segment": task.index, "take": task.take}),
            "rank": world.rank,
            "frames": task.sampled_frames,
            "tokens": made.tokens,
            "steps": len(task.levels(schedule)),
            "evaluations": plan.evaluations_of(task) if together else made.evaluations,
            **({} if together else {"evaluations_saved": plan.uncached(task) - made.evaluations}),
            **({"replayed": replayed} if replayed else {}),
            "seconds": round(made.seconds, 3),
            **paced(made, replayed),
            "latent_rms": round(float(made.latents.square().mean().sqrt()), 5),
            **attended(plan.settings.attention, made.off_sdpa),
        }
        # First, for what is in the journal is never sampled again, and would lack it for ever.
        append_event(directory.metrics, line)
        manifest.record(made.digest, replace(entry, take=task.take, original=task.original))
        own.add(made.digest)
        previews.remove(latents_file(task))
        drop_velocities(directory, [made.digest])

    def save_piece(piece: DecodedPiece) -> None:
        task = decoded[piece.digest]
        entry = write_piece(directory, segment_file(piece.index, piece.digest), piece, fps, world.rank)
        manifest.record(piece.digest, replace(entry, take=task.take, original=task.original))
        own.add(piece.digest)
        counted()

    # Brings Lightning, for which a plan and a run that is complete need not wait.
    from wanedit.lit.chain import FLF2VChain, SequenceDecoder
    from wanedit.lit.co_denoise import CoDenoiser

    if sampled:
        # Of what is denoised together every window takes the step.
        units = {
            name: len(task.levels(schedule)) * (len(task.windows) if isinstance(task, CoDenoising) else 1)
            for name, task in sampled.items()
        }
        with counting_together(
            f"sampling{ranks}", "steps", sum(units.values()), units_of_others(units)
        ) as stepped:

            def on_step(segment: int, step: int) -> None:
                queue.step = step + 1
                stepped()
                follow()
                if (begun := kept.get(queue.task)) is None:
                    return
                try:
                    queue.stepped(step + 1, len(sampled[queue.task].levels(schedule)), begun.replaying)
                except HandedOver:
                    stepped(-queue.step)  # counted by who goes on
                    raise

            def watch(digest: str, step: Step, clean: Tensor) -> None:
                previews.show(latents_file(sampled[digest]), step, clean)

            for task in todo.together:

                def on_state(index: int, step: int, windows: int = len(task.windows)) -> None:
                    queue.step = windows * (step + 1)
                    stepped(windows)
                    follow()

                one = CoDenoiser(plan.folder, plan.settings, on_state, watch, keep)
                for _ in _turns(pulled([task]), world):
                    predict(one, [task], save_latents, config, world, together=True)
                    launch.barrier(world)
            together = config.sequence_parallel
            # The ranks of a crew would have to go on from one place.
            through = keep if together == 1 else asked
            chain = FLF2VChain(plan.folder, plan.settings, on_step, decodes=False, watch=watch, kept=through)
            chain.crew = launch.crew_of(world, together, plan.settings.guided)
            for stage in filter(None, (todo.segments, todo.bridges)):
                tasks = pulled(stage)
                if together > 1:
                    tasks = Crewed(tasks, world, together)
                leads = not isinstance(tasks, Crewed) or tasks.leads
                predict(chain, tasks, save_latents if leads else lambda made: None, config, world)
    units = {piece.digest: 1 for piece in todo.pieces}
    with counting_together(f"decoding{ranks}", "segments", len(units), units_of_others(units)) as counted:
        decoder = SequenceDecoder(plan.folder, plan.settings.tile, plan.settings.compile)
        predict(decoder, pulled(todo.pieces), save_piece, config, world)


@dataclass(frozen=True)
class _Sampled:
    digest: str
    evaluations: int


def load_run(root: Path, record: Mapping[str, object], folders: Sequence[Path] = ()) -> FinishedRun:
    """What a complete generation holds, for `runtime.record.read_run`. Raises InputError for one that is not."""
    # One of before decoding could be chosen was decoded apart.
    config = recorded_config(GenerationConfig, {"decode": "apart"} | {**record}, root)
    # Where the model lay on its card is past, and this machine may have another.
    config = replace(config, fit=None)
    plan, directory = make_plan(config, folders), RunDirectory(root, config.final_path)
    if (missing := remaining(plan, directory)).pieces:
        raise InputError(
            f"run: {len(missing.pieces)} of {len(plan.tasks)} segments of {root} are not complete for their inputs as "
            "they are; run it again"
        )
    places = plan.timeline.keyframe_frames
    entries, events = Manifest(directory).read(), read_events(directory.metrics)
    # Of segments of before the record says it, what the plan counts.
    counted = {one.digest: one.evaluations for one in events_of(events, _Sampled)}

    def film(of: Plan) -> FrameSequence:
        shape = (of.timeline.num_frames, *of.size, 3)
        return FrameSequence(shape, lambda start, stop: islice(final_frames(of, directory), start, stop))

    digests, mended = [task.digest for task in plan.tasks], None
    if (repair := repair_of(plan, directory)) is not None:
        # By these it was tracked, when what would stay was not known.
        digests = repair.from_segments
        first = replace(plan.config, takes=repair.from_takes[0], bridge_takes=repair.from_takes[1])
        before = with_takes(plan, *first.takes_of(len(plan.tasks)))
        video = None if remaining(before, directory).pieces else film(before)
        mended = Repaired({join: asdict(told) for join, told in repair.joins.items()}, video)
    return FinishedRun(
        "generate",
        film(plan),
        Fraction(plan.timeline.fps),
        prompt=config.prompt,
        keyframes=dict(zip(places, (image.pixels() for image in plan.keyframes), strict=True)),
        junctions=plan.timeline.joins,
        seconds=sum(entries[name].seconds for name in plan.digests if name in entries),
        evaluations=sum(
            counted.get(task.digest, plan.evaluations_of(task))
            for task in (*plan.together, *plan.tasks, *plan.bridges)
        ),
        repaired=mended,
        config=config,
        digests=tuple(digests),
        metadata=metadata(plan),
    )


def _filed(keyframes: KeyframesLike | None, folder: Path) -> KeyframesLike | None:
    """Keyframes whose pictures in memory are files of a folder, named by their pixels; all else as it is given."""
    if keyframes is None or isinstance(keyframes, str | os.PathLike):
        return keyframes
    filed: list[object] = []
    for k, given in enumerate(keyframes):
        if (
            isinstance(given, list | tuple)
            and len(given) == 2
            and not isinstance(given[0], str | os.PathLike)
        ):
            pixels = pixels_of(given[0], f"keyframe {k}")
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{pixels_sha256(pixels)[:16]}.png"
            write_png(path, pixels)
            given = (path, given[1])
        filed.append(given)
    return filed


class MultiKeyframePipeline:
    """Generates long videos through timed keyframes.

    Args:
        config: settings that all runs share; keyword arguments override single fields of it.

    Examples:
        >>> pipeline = MultiKeyframePipeline(size="128*128", fps=16)
        >>> result = pipeline.run(
        ...     keyframes=[("a.png", 0.0), ("b.png", 1.5)], global_prompt="a red ball", output_path="outputs/ball"
        ... )
    """

    def __init__(self, config: GenerationConfig | None = None, **settings: object) -> None:
        self.config = with_changes(config or GenerationConfig(), **settings)

    def run(
        self,
        keyframes: KeyframesLike | os.PathLike[str] | None = None,
        global_prompt: str | None = None,
        output_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        **settings: object,
    ) -> GenerationResult:
        """Make one video; resumes if `output_path` holds an unfinished run of the same settings.

        Args:
            keyframes: pairs (path, seconds), "a.png:0.0,b.png:3.0", or a folder; the config's own when None. In the
                place of a path a picture: PIL image, array or tensor (H, W, 3) uint8; it is kept in the run's folder.
            global_prompt: what the whole video shows.
            output_path: the run's folder, or the final .mp4 inside it.
            verbose: print the plan's warnings and progress bars.
            settings: further fields of `GenerationConfig`.

        Raises:
            InputError, MissingWeightsError, ResourceError, NumericalError: as `generate`.
        """
        with tempfile.TemporaryDirectory(prefix="wanedit-") as scratch:
            # Refused before anything is written where it will stay.
            filed = _filed(keyframes, Path(scratch))
            config = self._configured(filed, global_prompt, output_path, settings)
            check_output(config, find_keyframes(config))
        if keyframes is not None:
            config = with_changes(config, keyframes=_filed(keyframes, config.folder / "keyframes"))
        return generate(config, verbose=verbose)

    def plan(
        self,
        keyframes: KeyframesLike | os.PathLike[str] | None = None,
        global_prompt: str | None = None,
        output_path: str | os.PathLike[str] | None = None,
        **settings: object,
    ) -> Plan:
        """What `run` would do, decided without loading a weight. Arguments as `run`."""
        with tempfile.TemporaryDirectory(prefix="wanedit-") as scratch:
            config = self._configured(_filed(keyframes, Path(scratch)), global_prompt, output_path, settings)
            # A seed that the run would draw is not drawn for a plan.
            drawn = config.base_seed is None or config.base_seed < 0
            return make_plan(with_changes(config, base_seed=0) if drawn else config)

    def _configured(
        self,
        keyframes: KeyframesLike | os.PathLike[str] | None,
        global_prompt: str | None,
        output_path: str | os.PathLike[str] | None,
        settings: dict[str, object],
    ) -> GenerationConfig:
        named = {
            "keyframes": keyframes,
            "prompt": global_prompt,
            "output": output_path,
        }
        changes = {name: value for name, value in named.items() if value is not None}
        return with_changes(self.config, **changes, **settings)
