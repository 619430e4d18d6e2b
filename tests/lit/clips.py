"""A clip of a moving square, a task that recolours it, and an editor that is ready to work on it."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from wanedit.flow.editing import Method
from wanedit.lit.edit_clip import EditSettings
from wanedit.lit.editor import FlowMatchingEditor
from wanedit.lit.tasks import EditTask
from wanedit.wan.load import WanFolder, open_wan

FAST = EditSettings(2, 3.0, 1.0, 1.0)


def moving(frames: int, colour: tuple[int, int, int] = (250, 60, 20), side: int = 32) -> np.ndarray:
    """uint8 (T, side, side, 3): a square that goes one pixel a frame over a gradient."""
    video = np.zeros((frames, side, side, 3), np.uint8)
    video[..., 0] = np.linspace(30, 200, side)
    for t in range(frames):
        video[t, 8:20, 2 + t : 14 + t] = colour
    return video


def edit_task(frames: int = 9, indices: tuple[int, ...] = (0, 8), **changes: Any) -> EditTask:
    """The square is to become blue at `indices`."""
    blue = moving(frames, (20, 60, 250))[list(indices)]
    task = EditTask(0, moving(frames), blue, indices, "a blue square", "a red square", "blurred", 3, "d")
    return replace(task, **changes)


def loaded(
    task: EditTask, method: Method, settings: EditSettings = FAST, folder: WanFolder | None = None
) -> FlowMatchingEditor:
    """An editor with its networks; wan-tiny unless another folder is given."""
    editor = FlowMatchingEditor(folder or tiny(), method, settings)
    editor.load([task])
    return editor


@cache
def tiny() -> WanFolder:
    """wan-tiny, opened."""
    return open_wan("tiny")
