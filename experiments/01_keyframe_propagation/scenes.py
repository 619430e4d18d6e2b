"""Source, truth and keyframes of every clip of the experiment, drawn by the sprite renderer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wanedit.errors import InputError
from wanedit.lit.tasks import EditTask
from wanedit.sprites import apply_edit, caption, edit_mask, frame_times, render, sample_edit, sample_scene
from wanedit.sprites.sets import Clip
from wanedit.video import to_uint8

FPS = 16


@dataclass(frozen=True)
class Case:
    """One scene under one edit, rendered before and after.

    Attributes:
        seed, kind: of the scene, of the edit.
        source, truth: uint8 (T, H, W, 3).
        changed: (T, H, W), the pixels that the edit may change.
        prompts: captions of the source and of the edited scene.
        clip: the edited scene where its sprites can be followed, in style plain; else None.
    """

    seed: int
    kind: str
    source: np.ndarray
    truth: np.ndarray
    changed: np.ndarray
    prompts: tuple[str, str]
    clip: Clip | None

    def task(self, spacing: int, noise_seed: int) -> EditTask:
        """The task of spreading every `spacing`-th frame of the truth."""
        indices = tuple(range(0, len(self.source), spacing))
        source_prompt, prompt = self.prompts
        return EditTask(
            self.seed,
            self.source,
            self.truth[list(indices)],
            indices,
            prompt,
            source_prompt,
            "",
            noise_seed,
            "",
        )


def cases(
    split: str, count: int, kinds: list[str], num_frames: int, size: tuple[int, int]
) -> Iterator[list[Case]]:
    """For each of the first `count` scenes of a split that allow all kinds of edit: one case per kind."""
    seed, found = 0, 0
    while found < count:
        made = _cases_of(seed, split, kinds, num_frames, size)
        seed += 1
        if made:
            found += 1
            yield made


def _cases_of(seed: int, split: str, kinds: list[str], num_frames: int, size: tuple[int, int]) -> list[Case]:
    times = frame_times(num_frames, FPS)
    scene = sample_scene(seed, split, num_frames / FPS)
    source = to_uint8(render(scene, times, size).video)
    made = []
    for kind in kinds:
        try:
            edit = sample_edit(scene, seed, (kind,))
        except InputError:
            return []
        edited = apply_edit(scene, edit)
        truth = to_uint8(render(edited.scene, times, size, edited.style).video)
        changed = edit_mask(scene, edit, times, size).numpy()
        clip = Clip(seed, edited.scene, num_frames) if edited.style == "plain" else None
        made.append(Case(seed, kind, source, truth, changed, (caption(scene), edited.caption), clip))
    return made
