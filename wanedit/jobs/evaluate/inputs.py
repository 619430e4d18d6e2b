"""What an evaluation is given, read and checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from wanedit.errors import InputError
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.truth import SceneTruth
from wanedit.metrics.functional.junctions import check_junctions
from wanedit.metrics.functional.motion import ClipMotion, follow
from wanedit.runtime.inputs import find_path, parse_edited
from wanedit.runtime.record import read_run
from wanedit.video import load_image
from wanedit.video.arrays import Frames
from wanedit.video.source import SourceClip, read_source

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi")


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that is measured with, read.

    Attributes:
        mask: (T, H, W), where the reference may be changed.
        keyframes: frame -> picture.
        scene: the sprites that the video should show.
        of_run: from the folder of a run, where the reference is the source of an edit.
        steps, method: an edit's record of every step, and the settings of its method.
        fps, prompt: how the video is shown, and what of.
    """

    video: Frames
    junctions: tuple[int, ...] = ()
    reference: Frames | None = None
    mask: Bool[np.ndarray, "t h w"] | None = None
    keyframes: dict[int, np.ndarray] | None = None
    scene: SceneTruth | None = None
    of_run: bool = False
    steps: tuple[dict[str, Any], ...] = ()
    method: dict[str, Any] = field(default_factory=dict)
    fps: Fraction = Fraction(16)
    prompt: str = ""

    @property
    def truth(self) -> Frames | None:
        """The reference, where it may be the truth."""
        return None if self.of_run else self.reference

    @cached_property
    def motion(self) -> ClipMotion:
        """Followed once, for all who ask."""
        return follow(self.video)

    @cached_property
    def reference_motion(self) -> ClipMotion:
        """Of the reference."""
        assert self.reference is not None, "the caller sees to it"
        return follow(self.reference)


def inputs_of_run(root: Path, folders: Sequence[Path] = ()) -> Inputs:
    """All that a complete run has on record. Raises as `read_run`."""
    run = read_run(root, folders)
    return Inputs(
        run.video,
        run.junctions,
        run.reference,
        run.mask,
        run.keyframes or None,
        of_run=True,
        steps=run.steps,
        method=run.method,
        fps=run.fps,
        prompt=run.prompt,
    )


def read_inputs(config: EvaluationConfig, folders: Sequence[Path] = ()) -> tuple[Inputs, SourceClip]:
    """Read everything that the configuration names.

    Raises:
        InputError: see `evaluate`.
    """
    clip = read_source(find_path(config.video, folders, what="video", folder=True))
    frames, (height, width) = clip.frames, clip.frames.shape[1:3]
    junctions = _junctions(config.junctions, len(frames))
    reference = _like(config.reference, "reference", frames, folders)
    mask = read_mask(config.mask, frames, folders)
    keyframes = None
    if config.keyframes:
        entries = parse_edited(config.keyframes, folders)
        keyframes = {entry.index: load_image(entry.path).pixels for entry in entries}
        for index, picture in keyframes.items():
            if not 0 <= index < len(frames) or picture.shape[:2] != (height, width):
                raise InputError(
                    f"keyframe {index} is {picture.shape[1]}x{picture.shape[0]}; expected {width}x{height}, at a frame "
                    f"from 0 to {len(frames) - 1}"
                )
    return Inputs(frames, junctions, reference, mask, keyframes, fps=clip.fps), clip


def _junctions(text: str, frames: int) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if any(not word.isdecimal() for word in words):
        raise InputError(f"junctions is {text!r}; expected frame numbers such as 24,48")
    junctions = tuple(int(word) for word in words)
    if junctions:
        check_junctions(frames, junctions)
    return junctions


def _like(name: str | None, what: str, video: Frames, folders: Sequence[Path]) -> Frames | None:
    if name is None:
        return None
    frames = read_source(find_path(name, folders, what=what, folder=True)).frames
    if frames.shape != video.shape:
        sizes = [f"{len(v)} frames of {v.shape[2]}x{v.shape[1]}" for v in (frames, video)]
        raise InputError(f"{what} has {sizes[0]}; expected the video's {sizes[1]}")
    return frames


def read_mask(name: str | None, video: Frames, folders: Sequence[Path]) -> Bool[np.ndarray, "t h w"] | None:
    """White places of a picture, or of a video or folder as long as the video. Raises InputError where none fits."""
    if name is None:
        return None
    path = find_path(name, folders, what="mask", folder=True)
    if path.is_dir() or path.suffix.lower() in VIDEOS:
        frames = _like(name, "mask", video, folders)
        assert frames is not None
        return frames.mean(axis=-1) > 127
    picture = load_image(path).pixels
    if picture.shape[:2] != video.shape[1:3]:
        raise InputError(
            f"mask is {picture.shape[1]}x{picture.shape[0]}; expected {video.shape[2]}x{video.shape[1]}"
        )
    return np.broadcast_to(picture.mean(axis=-1) > 127, video.shape[:3])
