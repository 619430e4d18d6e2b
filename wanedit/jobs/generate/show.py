"""`--dry_run`: the plan as a page of text. No weight is loaded."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from wanedit.errors import InputError
from wanedit.jobs.generate.config import GenerationConfig, check
from wanedit.jobs.generate.plan import Plan, make_plan, remaining, resolve
from wanedit.lit.tasks import SegmentTask
from wanedit.rng import derive_seed
from wanedit.runtime.cost import disk_bytes, forward_flops, memory, sampling_flops
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import wide_console
from wanedit.runtime.launch import World, choose_devices


def print_plan(config: GenerationConfig, folders: Sequence[Path] = ()) -> None:
    """Print segments, frames, seeds, tokens, operations, memory, disk, and what a resume would skip.

    Raises:
        InputError, MissingWeightsError: as the run itself would.
    """
    directory = RunDirectory(config.folder, config.final_path)
    check(config)
    try:
        choose_devices(config, World())
    except InputError as error:
        # A plan may be made on one machine for another.
        wide_console().print(f"not on this machine: {error}", style="yellow")
    plan = make_plan(resolve(config, directory, World()), folders)
    show_plan(plan, remaining(plan, directory), directory)
    if (config.base_seed is None or config.base_seed < 0) and not directory.config.exists():
        wide_console().print("the seed was drawn for this plan; the run draws its own and records it")


def show_plan(plan: Plan, todo: list[SegmentTask], directory: RunDirectory) -> None:
    """Print a plan of which `todo` is to be sampled."""
    console = wide_console()
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow")
    console.print(_keyframes(plan), _segments(plan, todo), sep="\n")
    console.print(_totals(plan, todo, directory), highlight=False)


def _keyframes(plan: Plan) -> Table:
    table = Table(title="Keyframes", title_justify="left")
    for column in ("#", "file", "seconds", "frame", "from", "to", "notes"):
        table.add_column(column, overflow="fold")
    for k, (image, frame) in enumerate(zip(plan.keyframes, plan.timeline.keyframe_frames, strict=True)):
        source, target = image.fit.source, image.fit.target
        table.add_row(
            str(k),
            image.keyframe.path.name,
            f"{image.keyframe.seconds:g}",
            str(frame),
            f"{source[1]}*{source[0]}",
            f"{target[1]}*{target[0]} ({image.fit.policy})",
            "; ".join(image.notes),
        )
    return table


def _segments(plan: Plan, todo: list[SegmentTask]) -> Table:
    sampled = {task.index for task in todo}
    table = Table(title="Segments", title_justify="left")
    for column in ("#", "frames", "sampled", "tokens", "noise seed", "TFLOP a pass", "hash", "this run"):
        table.add_column(column, overflow="fold")
    for segment, task in zip(plan.timeline.segments, plan.tasks, strict=True):
        table.add_row(
            str(segment.index),
            f"{segment.start} … {segment.end} ({segment.frames})",
            str(segment.sampled_frames),
            str(task.tokens),
            str(derive_seed(task.seed, "segment", task.index)),
            f"{forward_flops(plan.folder.config, task.tokens) / 1e12:.3g}",
            task.digest[:12],
            "samples" if segment.index in sampled else "skips: complete",
        )
    return table


def _totals(plan: Plan, todo: list[SegmentTask], directory: RunDirectory) -> str:
    settings = plan.settings
    guided = settings.guidance_scale != 1.0
    flops = sampling_flops(plan.folder.config, todo, plan.evaluations * (2 if guided else 1))
    weight = 2 if torch.cuda.is_available() else 4
    peak = memory(plan.folder, max(plan.tasks, key=lambda task: task.tokens), guided, weight)
    height, width = plan.size
    return "\n".join(
        (
            f"output     {directory.final}: {plan.timeline.num_frames} frames, {width}*{height}, "
            f"{float(plan.timeline.fps):g} fps",
            f"model      {plan.folder.name} ({plan.folder.path})",
            f"sampler    {settings.solver}, {settings.num_inference_steps} steps, shift {settings.shift:g}, "
            f"guidance {settings.guidance_scale:g}",
            f"seed       {plan.seed}",
            f"to sample  {len(todo)} of {len(plan.tasks)} segments, {flops / 1e12:.3g} TFLOP in the transformer",
            f"memory     about {_gigabytes(peak.encoders)} to encode, "
            f"then {_gigabytes(peak.sampling)} to sample and decode, and 1.2 GB for the process itself",
            f"disk       about {disk_bytes(todo, plan.timeline.num_frames, plan.size) / 1e6:.0f} MB",
        )
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
