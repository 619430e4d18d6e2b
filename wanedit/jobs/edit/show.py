"""`wanedit edit --dry_run`: the plan of an edit as a page of text. No weight is loaded."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from wanedit.errors import InputError
from wanedit.flow.path import schedule
from wanedit.jobs.edit.config import EditConfig, check_edit
from wanedit.jobs.edit.method import describe_method
from wanedit.jobs.edit.plan import EditPlan, make_edit_plan
from wanedit.jobs.edit.run import check_output, is_complete, resolve_edit
from wanedit.runtime.cost import forward_flops
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import wide_console
from wanedit.runtime.launch import World, choose_devices
from wanedit.wan.load import WanFolder


def print_edit_plan(config: EditConfig, folders: Sequence[Path] = ()) -> None:
    """Print source, keyframes, slots, method, schedule and what a run would skip.

    Raises:
        InputError, MissingWeightsError: as the run itself would.
    """
    directory = RunDirectory(config.folder, config.final_path)
    check_edit(config)
    try:
        choose_devices(config, World())
    except InputError as error:
        wide_console().print(f"not on this machine: {error}", style="yellow")
    plan = make_edit_plan(resolve_edit(config, directory), folders)
    check_output(plan, directory)
    console = wide_console()
    for warning in plan.warnings:
        console.print(f"warning: {warning}", style="yellow")
    console.print(_keyframes(plan))
    console.print(_totals(plan, directory), highlight=False)


def _keyframes(plan: EditPlan) -> Table:
    table = Table(title="Edited keyframes", title_justify="left")
    for column in ("#", "file", "frame", "latent slot", "from", "to"):
        table.add_column(column, overflow="fold")
    rows = zip(plan.keyframes, plan.fits, plan.task.slots, strict=True)
    for k, (keyframe, fit, slot) in enumerate(rows):
        before, after = fit.source, fit.target
        sizes = f"{before[1]}*{before[0]}", f"{after[1]}*{after[0]} ({fit.policy})"
        table.add_row(str(k), keyframe.path.name, str(keyframe.index), str(slot), *sizes)
    return table


def _totals(plan: EditPlan, directory: RunDirectory) -> str:
    settings, task = plan.settings, plan.task
    (height, width), inner = task.pictures.frames.shape[1:3], task.size
    at = "" if inner == (height, width) else f", sampled at {inner[1]}*{inner[0]}"
    levels = schedule(settings.num_inference_steps, settings.shift, settings.solver)
    done = "skips: complete" if is_complete(plan, directory) else "edits"
    options = ", ".join(f"{name} {value}" for name, value in describe_method(plan.method).items())
    where = cost = ""
    if isinstance(plan.model, WanFolder):
        where = f" ({plan.model.path})"
        cost = f", {forward_flops(plan.model.config, task.tokens) / 1e12:.3g} TFLOP a pass"
    return "\n".join(
        (
            f"source     {plan.source.path}: frames {plan.source.start} … "
            f"{plan.source.start + len(task.frames) - 1} of {plan.source.total}, {float(plan.fps):g} fps",
            f"output     {directory.final}: {len(task.frames)} frames, {width}*{height}{at}, "
            f"restored: {settings.restore}",
            f"model      {plan.model.name}{where}",
            f"method     {plan.config.method} ({options})",
            f"schedule   {settings.solver}, {len(levels)} steps, shift {settings.shift:g}, largest h "
            f"{max(step.h for step in levels):.3g}; guidance {settings.guidance_scale:g}, source "
            f"{settings.source_guidance_scale:g}",
            f"clip       {task.sampled_frames} frames, {task.grid[0]} slots, {task.tokens} tokens{cost}",
            f"seed       {plan.config.base_seed}",
            f"cost       about {plan.rehearsal.evaluations} passes of the network",
            f"hash       {task.digest[:12]}",
            f"this run   {done}",
        )
    )
