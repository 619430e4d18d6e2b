"""What a method refuses, found out before a model is loaded."""

from typing import NoReturn

import torch
from torch import Tensor

from wanedit.flow.editing import Edit, Method, View
from wanedit.flow.methods import FLF2V, CopySource, WarpNearestKeyframe
from wanedit.flow.path import Schedule
from wanedit.flow.solvers import Velocity
from wanedit.lit.edit_task import EditTask
from wanedit.lit.model import require_readable
from wanedit.wan.load import WanFolder

# Methods that ask the model for nothing, and so have nothing to refuse but what a task refuses.
WITHOUT_MODEL = (CopySource, WarpNearestKeyframe)
SIDE = 16


class _Reached(Exception):  # noqa: N818  (a signal, no error)
    """The method has come so far that it needs a network."""


class _Listener:
    """In the place of a model: takes the views that a method asks with, and ends it at its first evaluation."""

    evaluations = 0

    def __init__(self, folder: WanFolder) -> None:
        self.folder = folder

    def velocity(self, view: View, slots: int) -> Velocity:
        require_readable(self.folder, view)
        return self._reached

    def encode(self, video: Tensor) -> Tensor:
        self._reached()

    def decode(self, latents: Tensor) -> Tensor:
        self._reached()

    def _reached(self, *args: object) -> NoReturn:
        raise _Reached


def rehearse(
    method: Method, folder: WanFolder, task: EditTask, shown: tuple[int, ...], schedule: Schedule
) -> None:
    """Run a method up to its first evaluation, on an empty clip of the task's length.

    Args:
        shown: the frames of the keyframes that both views show.

    Raises:
        InputError: what the method itself refuses: keyframes at other frames than it needs, a schedule too short
            for its settings, images for a model that reads none.
    """
    if isinstance(method, WITHOUT_MODEL):
        return
    slots, count, frames = task.grid[0], len(task.keyframe_indices), task.sampled_frames
    latents = torch.zeros(1, 16, slots, SIDE // 8, SIDE // 8)
    images = dict.fromkeys(shown, torch.zeros(3, SIDE, SIDE))
    edit = Edit(
        latents,
        latents[:, :, :1].expand(-1, -1, count, -1, -1),
        task.slots,
        latents,
        View(task.prompt, 1.0, images),
        View(task.source_prompt, 1.0, images),
        torch.zeros(1, 3, frames, SIDE, SIDE),
        torch.zeros(1, 3, count, SIDE, SIDE),
        task.keyframe_indices,
    )
    try:
        method(_Listener(folder), edit, schedule)
    except _Reached:
        return


def expected_steps(method: Method, task: EditTask, schedule: Schedule) -> int:
    """How many steps a method will report."""
    if isinstance(method, WITHOUT_MODEL):
        return 0
    strength, n_max = getattr(method, "strength", None), getattr(method, "n_max", None)
    if strength is not None:
        return len(schedule.after(strength))
    if n_max is not None:
        return min(n_max, len(schedule))
    return len(schedule) * (_pieces(task) if isinstance(method, FLF2V) else 1)


def _pieces(task: EditTask) -> int:
    """Clips that FLF2V renders: between keyframes, before the first and after the last."""
    indices, end = task.keyframe_indices, task.sampled_frames - 1
    between = len(indices) - 1 + (indices[0] > 0)
    return between + (indices[-1] < end or between == 0)
