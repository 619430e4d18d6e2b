"""First-last-frame video between the edited keyframes: one sample per stretch, joined in pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, Method, OnStep, Part, VideoModel
from wanedit.flow.methods import METHODS
from wanedit.flow.path import Schedule, Step, fresh_noise
from wanedit.flow.sampling import num_frames, pictures
from wanedit.flow.solvers import SOLVERS
from wanedit.registry import Registered
from wanedit.rng import derive_seed
from wanedit.timeline import round_up, slots


def join(pieces: list[Float[Tensor, "b 3 _ height width"]]) -> Float[Tensor, "b 3 t height width"]:
    """Pieces that share their end frames as one video; a shared frame is the mean of its two renderings."""
    video = pieces[0]
    for piece in pieces[1:]:
        shared = (video[:, :, -1:] + piece[:, :, :1]) / 2
        video = torch.cat([video[:, :, :-1], shared, piece[:, :, 1:]], dim=2)
    return video


@METHODS.register("flf2v")
@dataclass(frozen=True)
class FLF2V(Method):
    """FLF2V (Wan 2.1, arXiv 2503.20314) between each two neighbouring edited keyframes; the source is not seen.

    Keyframes at frames p and q bound a clip of n = q - p + 1 frames, sampled at the smallest 4n+1 that holds it and
    retimed to n. From the last keyframe on, first-frame image-to-video; what it samples beyond the end of the clip
    is cut, for there is no keyframe to lose. Every piece has noise of its own: the edit's belongs to other slots.

    Attributes:
        before: a first keyframe that is not at frame 0 is an error, or ("reverse") the frames before it are sampled as
            those after the last and played backwards, with all their motion backwards too.
        guidance_scale: instead of the target view's own.
        solver: a name of `wanedit.flow.solvers`; "unipc" and "dpm++" want the schedule of that name.
        seed: with the number of the piece it names the noise.
    """

    makes_pixels: ClassVar[bool] = True

    before: Literal["refuse", "reverse"] = "refuse"
    guidance_scale: float | None = None
    solver: Annotated[str, Registered("wanedit.flow:SOLVERS")] = "euler"
    seed: int = 0

    def __post_init__(self) -> None:
        SOLVERS[self.solver]  # a name that is none is refused before the run
        if self.before not in ("refuse", "reverse"):
            raise InputError(f"before is {self.before!r}; expected 'refuse' or 'reverse'")

    def decides(self, levels: Schedule) -> dict[str, object]:
        # Version 0.1 held, and hashed, the function that the edit hands it now.
        return {"retime": "retime_clip"}

    @property
    def ignores(self) -> frozenset[Part]:
        return frozenset({"reference", "edited", "images"})

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        shown = pictures(edit)
        first, last, end = edit.frames[0], edit.frames[-1], num_frames(edit) - 1
        if first > 0 and self.before == "refuse":
            raise InputError(
                f"the first edited keyframe is at frame {first}; expected one at frame 0, or before: reverse"
            )
        pieces: list[Tensor] = []

        def render(images: Mapping[int, Tensor], count: int) -> Tensor:
            """4n+1 frames of pixels that show these, from the noise of the next piece."""
            number = float(len(pieces))
            view = replace(edit.target, images=images).guided(self.guidance_scale)
            shape = (*edit.noise.shape[:2], slots(count), *edit.noise.shape[3:])
            eps = fresh_noise(shape, edit.noise, self.seed, "flf2v", len(pieces))

            def seen(step: Step, x: Tensor, v: Tensor) -> None:
                if observe is not None:
                    observe(step, {"piece": number})

            velocity = model.velocity(view, slots(count))
            levels = replace(schedule, seed=derive_seed(schedule.seed, "flf2v", len(pieces)))
            return model.decode(SOLVERS[self.solver](velocity, levels.start * eps, levels, seen))

        def from_one(keyframe: Tensor, count: int) -> Tensor:
            return render({0: keyframe}, round_up(count))[:, :, :count]

        if first > 0:
            pieces.append(from_one(shown[first], first + 1).flip(2))
        for p, q in pairwise(edit.frames):
            count, sampled = q - p + 1, round_up(q - p + 1)
            clip = render({0: shown[p], sampled - 1: shown[q]}, sampled)
            retimed = clip if sampled == count else edit.retime(clip, count)
            if retimed.shape[2] != count:
                raise InputError(f"retime gave {retimed.shape[2]} frames from {sampled}; expected {count}")
            pieces.append(retimed)
        if last < end or not pieces:
            pieces.append(from_one(shown[last], end - last + 1))
        return Edited(pixels=join(pieces))
