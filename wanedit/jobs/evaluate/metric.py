"""What a group of measures is, what it is given, and the one pass over a video in which all of them are taken.

`wanedit evaluate`, ablations, experiment 01 and the scorecard of wan-tiny all measure with `measure`. A new group is
one class, in the package or out of it; it is shown the video frame by frame, for a whole clip may not fit in memory:

    @METRICS.register("brightness")
    class Brightness(Metric):
        plain = ("mean",)

        def __init__(self, inputs: Inputs) -> None:
            super().__init__(inputs)
            self.levels = []

        def update(self, moment: Moment) -> None:
            self.levels.append(moment.frame.mean())

        def compute(self) -> Values:
            return {"mean": float(np.mean(self.levels))}
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import repeat
from typing import Any, ClassVar, Literal

import numpy as np
import torchmetrics
from jaxtyping import Bool

from wanedit.errors import InputError, MissingWeightsError, WaneditError
from wanedit.jobs import evaluate
from wanedit.metrics.functional.fidelity import Mask, Nearness
from wanedit.metrics.functional.motion import Step, reduced, step_between
from wanedit.metrics.weights import HubFile, HubModel
from wanedit.progress import counted
from wanedit.registry import Registry
from wanedit.runtime.events import Event
from wanedit.runtime.record import FinishedRun
from wanedit.sprites.sets import Clip as SceneClip
from wanedit.video.arrays import AnyFrame, Clip

# Numbers by name, which may stand by place, a frame or a join, in mappings of their own.
Values = dict[str, Any]
Better = Literal["higher", "lower", "neither"]
# What is said of a lacking input that is no file to be given.
LACKING = {"steps": "the video is not from the folder of an edit, whose steps are on record"}


class NotGivenError(WaneditError):
    """A group lacks an input, which the message names."""


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """What the video should show.

    Attributes:
        frames: at the video's own size.
        changed: (T, H, W), the pixels that the edit may change; None without an edit.
        clip: the scene, where its sprites can be followed: in style plain.
    """

    frames: Clip
    changed: Mask | None = None
    clip: SceneClip | None = None


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that is measured with. Clips may still be in their files: see `wanedit.video.arrays.FrameSequence`.

    Attributes:
        mask: (T, H, W), where the reference may be changed.
        keyframes: frame -> picture.
        scene: the truth that the video should show.
        of_run: from the folder of a run, where the reference is the source of an edit.
        steps, method: an edit's record of every step, and the settings of its method.
        fps, prompt: how the video is shown, and what of.
    """

    video: Clip
    junctions: tuple[int, ...] = ()
    reference: Clip | None = None
    mask: Mask | None = None
    keyframes: dict[int, AnyFrame] | None = None
    scene: SceneTruth | None = None
    of_run: bool = False
    steps: tuple[Event, ...] = ()
    method: Event = field(default_factory=dict)
    fps: Fraction = Fraction(16)
    prompt: str = ""

    def __post_init__(self) -> None:
        for name, clip in self._clips().items():
            if clip is not None and len(clip) != len(self.video):
                raise InputError(f"{name} has {len(clip)} frames; expected the video's {len(self.video)}")

    def _clips(self) -> dict[str, Clip | Mask | None]:
        truth = None if self.scene is None else self.scene.frames
        return {"reference": self.reference, "mask": self.mask, "scene": truth}

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

    def moments(self) -> Iterator["Moment"]:
        """Every frame in order with all that belongs to it; each clip is read once."""
        before: Moment | None = None
        frames = len(self.video)
        clips = [repeat(None, frames) if clip is None else clip for clip in self._clips().values()]
        for t, (frame, reference, mask, truth) in enumerate(zip(self.video, *clips, strict=True)):
            moment = Moment(t, frame, reference, mask, truth, before)
            yield moment
            # Of the frame before only what was reduced of it is asked for again, and of the one before that nothing.
            if before is not None:
                before.before = None
            before = moment


@dataclass(eq=False)
class Moment:
    """One frame of the video. What several groups ask for, they share: it is worked out by the first that does.

    Attributes:
        index: 0 for the first frame.
        reference, mask, truth: the frame's own of those inputs; None where they are not given.
        before: the frame before.
    """

    index: int
    frame: AnyFrame
    reference: AnyFrame | None = None
    mask: Bool[np.ndarray, "_ _"] | None = None
    truth: AnyFrame | None = None
    before: "Moment | None" = None

    @cached_property
    def small(self) -> AnyFrame:
        """The frame as motion is followed on it."""
        return reduced(self.frame)

    @cached_property
    def small_reference(self) -> AnyFrame:
        """The reference likewise."""
        return reduced(given(self.reference))

    @cached_property
    def step(self) -> Step | None:
        """From the frame before to this one; None at the first."""
        return step_between(self.before.small, self.small) if self.before else None

    @cached_property
    def reference_step(self) -> Step | None:
        """Of the reference."""
        return step_between(self.before.small_reference, self.small_reference) if self.before else None

    @cached_property
    def to_reference(self) -> Nearness:
        """The frame beside the reference's."""
        return Nearness(self.frame, given(self.reference))

    @cached_property
    def to_truth(self) -> Nearness:
        """The frame beside the truth's, which may be the reference."""
        return self.to_reference if self.truth is None else Nearness(self.frame, self.truth)


class Metric(torchmetrics.Metric):
    """A group of measures: a `torchmetrics.Metric` that is updated with every moment of a video. What it needs and what
    its numbers mean is declared here and read everywhere else.

    Attributes:
        needs: the `Inputs` without which it cannot be taken.
        uses: those that it takes as well where they are given.
        least_frames: of the video.
        weights: published files without which it cannot be taken.
        on_request: whether it is taken only where it is named, for it takes long or says what others say.
        higher, lower, plain: its rows, by which way they are better; of plain ones, neither. A row holds one number, or
            several by place, as in {"psnr_by_frame": {"4": …}}; a group of joins has its rows inside each join.

    Args:
        inputs: all that is given. A group of your own refuses here what does not suffice, and loads what it needs.

    Raises:
        NotGivenError: something is lacking.
        InputError: an input that does not fit.
        MissingWeightsError: weights are not on this machine.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    uses: ClassVar[tuple[str, ...]] = ()
    least_frames: ClassVar[int] = 1
    weights: ClassVar[tuple[HubFile | HubModel, ...]] = ()
    on_request: ClassVar[bool] = False
    higher: ClassVar[tuple[str, ...]] = ()
    lower: ClassVar[tuple[str, ...]] = ()
    plain: ClassVar[tuple[str, ...]] = ()

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs
        for name in self.needs:
            if not inputs.has(name):
                verb = "is" if self.needs[0].rstrip("s") == self.needs[0] and len(self.needs) == 1 else "are"
                raise NotGivenError(LACKING.get(name, f"no {' and '.join(self.needs)} {verb} given"))
        if (frames := len(inputs.video)) < self.least_frames:
            plural = "s" if frames > 1 else ""
            raise NotGivenError(f"the video has {frames} frame{plural}; {self.least_frames} are needed")

    def update(self, moment: Moment) -> None:
        """Take the next frame. Raises InputError for one that does not fit; NotGivenError."""

    @abstractmethod
    def compute(self) -> Values:
        """All that can be said of the frames so far: numbers by row. Raises as `update`."""


METRICS: Registry[type[Metric]] = evaluate.METRICS


def find_metric(name: str) -> type[Metric]:
    """A group by its name or as `package.module:Group`. Raises InputError where there is none."""
    METRICS.renew(name)
    return METRICS[name]


def measure(inputs: Inputs, names: Iterable[str] | None = None) -> tuple[dict[str, Values], dict[str, str]]:
    """Take groups of measures, all in one pass over the video: a frame is in memory, and the one before, reduced.

    Args:
        names: each must be possible; None for all that what is given allows, but for those on request.

    Returns:
        What was measured, by group; and why the others of `None` were not.

    Raises:
        InputError: an unknown group, an input that lacks or does not fit.
        MissingWeightsError: a named group needs weights that are not on this machine.
    """
    taken: dict[str, Metric] = {}
    metrics: dict[str, Values] = {}
    skipped: dict[str, str] = {}

    def attempt(name: str, work: Callable[[], Any]) -> Any:
        try:
            with METRICS.guard(name):
                return work()
        except (NotGivenError, InputError, MissingWeightsError) as error:
            taken.pop(name, None)
            if names is None:
                skipped[name] = str(error)
            elif isinstance(error, NotGivenError):
                raise InputError(f"{name}: {error}") from None
            else:
                raise

    unasked = (name for name in METRICS if not find_metric(name).on_request)
    for name in unasked if names is None else names:
        made = attempt(name, lambda name=name: find_metric(name)(inputs))
        if made is not None:
            taken[name] = made
    if taken:
        for moment in counted(inputs.moments(), "measuring", "frames", len(inputs.video)):
            for name, group in list(taken.items()):
                attempt(name, lambda group=group, moment=moment: group.update(moment))
    for name, group in list(taken.items()):
        values = attempt(name, group.compute)
        if values is not None:
            metrics[name] = values
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


def given(value: Any) -> Any:
    """An input that `needs` names, and so is there."""
    if value is None:
        raise NotGivenError("an input is not given that the group's `needs` does not name")
    return value
