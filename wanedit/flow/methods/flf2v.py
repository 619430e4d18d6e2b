"""First-last-frame video between the edited keyframes: one sample per stretch, joined in pixels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Edit, Edited, OnStep, VideoModel
from wanedit.flow.methods.support import fresh_noise, num_frames, pictures
from wanedit.flow.path import Schedule, Step
from wanedit.flow.solvers import get_solver
from wanedit.timeline import round_up, slots

# A clip (B, 3, M, H, W) in [-1, 1] and N: the clip in N frames, the first and the last kept.
Retime = Callable[[Tensor, int], Tensor]
Render = Callable[[Mapping[int, Tensor], int], Tensor]


def blend(video: Float[Tensor, "b 3 m height width"], count: int) -> Float[Tensor, "b 3 n height width"]:
    """`count` >= 2 frames at positions i (M - 1) / (count - 1), neighbours mixed linearly between them."""
    last, steps = video.shape[2] - 1, count - 1
    left = [i * last // steps for i in range(count)]
    share = video.new_tensor([i * last % steps / steps for i in range(count)])[:, None, None]
    right = [min(i + 1, last) for i in left]
    return video[:, :, left] * (1 - share) + video[:, :, right] * share


def join(pieces: list[Float[Tensor, "b 3 _ height width"]]) -> Float[Tensor, "b 3 t height width"]:
    """Pieces that share their end frames as one video; a shared frame is the mean of its two renderings."""
    video = pieces[0]
    for piece in pieces[1:]:
        shared = (video[:, :, -1:] + piece[:, :, :1]) / 2
        video = torch.cat([video[:, :, :-1], shared, piece[:, :, 1:]], dim=2)
    return video


@dataclass(frozen=True)
class FLF2V:
    """FLF2V (Wan 2.1, arXiv 2503.20314) between each two neighbouring edited keyframes; the source is not seen.

    Keyframes at frames p and q bound a clip of n = q - p + 1 frames, sampled at the smallest 4n+1 that holds it and
    retimed to n. From the last keyframe on, first-frame image-to-video; what it samples beyond the end of the clip
    is cut, for there is no keyframe to lose. Every piece has noise of its own: the edit's belongs to other slots.

    Attributes:
        retime: a clip (B, 3, M, H, W) in [-1, 1] and a count -> the clip in so many frames, both ends kept.
        before: a first keyframe that is not at frame 0 is an error, or ("reverse") the frames before it are sampled as
            those after the last and played backwards, with all their motion backwards too.
        guidance_scale: instead of the target view's own.
        solver: a name of `wanedit.flow.solvers`; "unipc" and "dpm++" want the schedule of that name.
        seed: with the number of the piece it names the noise.
    """

    retime: Retime = blend
    before: Literal["refuse", "reverse"] = "refuse"
    guidance_scale: float | None = None
    solver: str = "euler"
    seed: int = 0

    def __post_init__(self) -> None:
        get_solver(self.solver)
        if self.before not in ("refuse", "reverse"):
            raise InputError(f"before is {self.before!r}; expected 'refuse' or 'reverse'")

    def __call__(
        self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None = None
    ) -> Edited:
        shown = pictures(edit)
        first, last, end = edit.frames[0], edit.frames[-1], num_frames(edit) - 1
        if first > 0 and self.before == "refuse":
            raise InputError(
                f"the first edited keyframe is at frame {first}; expected one at frame 0, or before: reverse"
            )
        render = self._renderer(model, edit, schedule, observe)
        pieces = []
        if first > 0:
            pieces.append(self._open(render, shown[first], first + 1).flip(2))
        pieces += [self._between(render, shown[p], shown[q], q - p + 1) for p, q in pairwise(edit.frames)]
        if last < end or not pieces:
            pieces.append(self._open(render, shown[last], end - last + 1))
        return Edited(pixels=join(pieces))

    def _renderer(self, model: VideoModel, edit: Edit, schedule: Schedule, observe: OnStep | None) -> Render:
        """(images, 4n+1) -> pixels of a clip that shows them, the next piece at every call."""
        done = 0

        def render(images: Mapping[int, Tensor], count: int) -> Tensor:
            nonlocal done
            piece, done = done, done + 1
            view = replace(edit.target, images=images).guided(self.guidance_scale)
            shape = (*edit.noise.shape[:2], slots(count), *edit.noise.shape[3:])
            eps = fresh_noise(shape, edit.noise, self.seed, "flf2v", piece)

            def seen(step: Step, x: Tensor, v: Tensor) -> None:
                if observe is not None:
                    observe(step, {"piece": float(piece)})

            velocity = model.velocity(view, slots(count))
            return model.decode(get_solver(self.solver)(velocity, eps, schedule, seen))

        return render

    def _open(self, render: Render, keyframe: Tensor, count: int) -> Tensor:
        return render({0: keyframe}, round_up(count))[:, :, :count]

    def _between(self, render: Render, first: Tensor, last: Tensor, count: int) -> Tensor:
        sampled = round_up(count)
        clip = render({0: first, sampled - 1: last}, sampled)
        if sampled == count:
            return clip
        retimed = self.retime(clip, count)
        if retimed.shape[2] != count:
            raise InputError(f"retime gave {retimed.shape[2]} frames from {sampled}; expected {count}")
        return retimed
