"""What a group of measures is, what it is given, and the one way in which groups are taken of a video.

`wanedit evaluate`, ablations, experiment 01 and the scorecard of wan-tiny all measure with `measure`. A new group is
one class, in the package or out of it:

    @METRICS.register("brightness")
    class Brightness(Metric):
        plain = ("mean",)

        def measure(self, inputs: Inputs) -> Values:
            return {"mean": float(inputs.video.mean())}
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool

from wanedit.errors import InputError, MissingWeightsError
from wanedit.metrics.functional.motion import ClipMotion, follow
from wanedit.metrics.weights import HubFile, HubModel
from wanedit.registry import Registry
from wanedit.runtime.events import Event
from wanedit.runtime.record import FinishedRun
from wanedit.sprites.sets import Clip
from wanedit.sprites.truth import traces
from wanedit.video import from_uint8
from wanedit.video.arrays import AnyFrame, Frames

# Numbers by name, which may stand by place, a frame or a join, in mappings of their own.
Values = dict[str, Any]
Better = Literal["higher", "lower", "neither"]
# What is said of a lacking input that is no file to be given.
LACKING = {"steps": "the video is not from the folder of an edit, whose steps are on record"}


class NotGivenError(Exception):
    """A group lacks an input, which the message names."""


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """What the video should show.

    Attributes:
        frames: at the video's own size.
        changed: (T, H, W), the pixels that the edit may change; None without an edit.
        clip: the scene, where its sprites can be followed: in style plain.
    """

    frames: Frames
    changed: Bool[np.ndarray, "t h w"] | None = None
    clip: Clip | None = None

    def centre_errors(self, video: Frames) -> Values:
        """Mean distance of the sprites' centres from their true ones in pixels of the video, and the share not found.

        Over the sprites that the instrument can follow in the truth, and the frames between the first and the last; a
        sprite that is not found counts with half of the frame's width.
        """
        if self.clip is None or len(video) < 3:
            return {}
        found = traces(self.clip, from_uint8(video), from_uint8(self.frames))
        if not found:
            return {}
        width = video.shape[2]
        return {
            "centre_error": float(np.mean([trace.error for trace in found])) * width / 64,
            "centre_missing": float(np.mean([trace.missing for trace in found])),
            "sprites_followed": len(found),
        }


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that is measured with, read.

    Attributes:
        mask: (T, H, W), where the reference may be changed.
        keyframes: frame -> picture.
        scene: the truth that the video should show.
        of_run: from the folder of a run, where the reference is the source of an edit.
        steps, method: an edit's record of every step, and the settings of its method.
        fps, prompt: how the video is shown, and what of.
    """

    video: Frames
    junctions: tuple[int, ...] = ()
    reference: Frames | None = None
    mask: Bool[np.ndarray, "t h w"] | None = None
    keyframes: dict[int, AnyFrame] | None = None
    scene: SceneTruth | None = None
    of_run: bool = False
    steps: tuple[Event, ...] = ()
    method: Event = field(default_factory=dict)
    fps: Fraction = Fraction(16)
    prompt: str = ""

    @classmethod
    def of(cls, run: FinishedRun, scene: SceneTruth | None = None) -> "Inputs":
        """What a finished run holds."""
        return cls(
            run.video,
            run.junctions,
            run.reference,
            run.mask if scene is None or run.mask is not None else scene.changed,
            run.keyframes or None,
            scene,
            of_run=True,
            steps=run.steps,
            method=run.method,
            fps=run.fps,
            prompt=run.prompt,
        )

    def has(self, name: str) -> bool:
        """Whether an input is given."""
        value = getattr(self, name)
        return value is not None and not (isinstance(value, tuple | dict | str) and not value)

    @cached_property
    def motion(self) -> ClipMotion:
        """Followed once, for all who ask."""
        return follow(self.video)

    @cached_property
    def reference_motion(self) -> ClipMotion:
        """Of the reference."""
        return follow(given(self.reference))


class Metric(ABC):
    """A group of measures. What it needs and what its numbers mean is declared here and read everywhere else.

    Attributes:
        needs: the `Inputs` without which it cannot be taken.
        uses: those that it takes as well where they are given.
        least_frames: of the video.
        weights: published files without which it cannot be taken.
        higher, lower, plain: its rows, by which way they are better; of plain ones, neither. A row holds one number, or
            several by place, as in {"psnr_by_frame": {"4": …}}; a group of joins has its rows inside each join.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    uses: ClassVar[tuple[str, ...]] = ()
    least_frames: ClassVar[int] = 1
    weights: ClassVar[tuple[HubFile | HubModel, ...]] = ()
    higher: ClassVar[tuple[str, ...]] = ()
    lower: ClassVar[tuple[str, ...]] = ()
    plain: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def measure(self, inputs: Inputs) -> Values:
        """All that can be said with what is given: numbers by row.

        Raises:
            NotGivenError: something is lacking that `needs` cannot say.
            InputError: an input that does not fit.
            MissingWeightsError: weights are not on this machine.
        """

    def __call__(self, inputs: Inputs) -> Values:
        """Measure. Raises as `measure`, and NotGivenError for what `needs` and `least_frames` say."""
        for name in self.needs:
            if not inputs.has(name):
                verb = "is" if self.needs[0].rstrip("s") == self.needs[0] and len(self.needs) == 1 else "are"
                raise NotGivenError(LACKING.get(name, f"no {' and '.join(self.needs)} {verb} given"))
        if (frames := len(inputs.video)) < self.least_frames:
            plural = "s" if frames > 1 else ""
            raise NotGivenError(f"the video has {frames} frame{plural}; {self.least_frames} are needed")
        return self.measure(inputs)


METRICS: Registry[type[Metric]] = Registry("metric", "wanedit.jobs.evaluate.groups")


def find_metric(name: str) -> type[Metric]:
    """A group by its name or as `package.module:Group`. Raises InputError where there is none."""
    found = METRICS[name]
    if not (isinstance(found, type) and issubclass(found, Metric)):
        raise InputError(f"metric {name} is {found!r}; expected a class of {Metric.__module__}.Metric")
    return found


def measure(inputs: Inputs, names: Iterable[str] | None = None) -> tuple[dict[str, Values], dict[str, str]]:
    """Take groups of measures.

    Args:
        names: each must be possible; None for all that what is given allows.

    Returns:
        What was measured, by group; and why the others of `None` were not.

    Raises:
        InputError: an unknown group, an input that lacks or does not fit.
        MissingWeightsError: a named group needs weights that are not on this machine.
    """
    metrics, skipped = {}, {}
    for name in METRICS if names is None else names:
        try:
            metrics[name] = find_metric(name)()(inputs)
        except (NotGivenError, InputError, MissingWeightsError) as error:
            if names is None:
                skipped[name] = str(error)
            elif isinstance(error, NotGivenError):
                raise InputError(f"{name}: {error}") from None
            else:
                raise
    return metrics, skipped


def better(group: str, places: Sequence[str]) -> Better:
    """Which way a number of a group is better, by the names that lead to it: ("psnr_by_frame", "4").

    Of a group that is not installed here, "neither".
    """
    if ":" not in group and group not in METRICS:
        return "neither"
    found = find_metric(group)
    for place in places:
        if place in (*found.higher, *found.lower, *found.plain):
            return "higher" if place in found.higher else "lower" if place in found.lower else "neither"
    return "neither"


def given(value: Frames | None) -> Frames:
    """An input that `needs` names, and so is there."""
    if value is None:
        raise NotGivenError("an input is not given that the group's `needs` does not name")
    return value
