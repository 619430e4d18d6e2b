"""A model on clips longer than it is good for: velocities of overlapping windows, averaged at every step.

MultiDiffusion (arXiv 2302.08113, equation 5) along time: where windows overlap, the mean of their velocities, weighted
by ramps that fall towards each window's inner ends, is the velocity that is nearest to all of them.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError
from wanedit.flow.editing import Around, VideoModel, View
from wanedit.flow.path import Step
from wanedit.flow.solvers import Velocity
from wanedit.timeline import STRIDE


class Windowed(Around):
    """A `VideoModel` of any length made from one of at most `window` slots.

    Args:
        model: asked for clips of `window` slots at most. One that is no longer passes through untouched.
        window: slots of a window, at least 2.
        overlap: slots that neighbouring windows share at least, 1 … window - 1.

    Raises:
        InputError: a window or overlap that is out of range.
    """

    def __init__(self, model: VideoModel, window: int, overlap: int) -> None:
        if window < 2 or not 1 <= overlap < window:
            raise InputError(
                f"windows of {window} slots that share {overlap}; expected at least 2, and 1 … window - 1 shared"
            )
        super().__init__(model)
        self.window, self.overlap = window, overlap

    def velocity(self, view: View, slots: int) -> Velocity:
        """The averaged velocity of all windows.

        Raises:
            InputError: a joint sequence of a clip that is longer than a window; and as the model's own.
        """
        if slots - view.joint <= self.window:
            return self.model.velocity(view, slots)
        if view.joint:
            raise InputError(
                f"a denoised edit branch of a clip of {slots - view.joint} slots; expected at most {self.window}, the "
                "model's limit, or edit_branch 'analytic'"
            )
        starts = window_starts(slots, self.window, self.overlap)
        parts = [self.model.velocity(self._part(view, start), self.window) for start in starts]
        weights = window_weights(slots, self.window, starts)

        def velocity(x: Tensor, step: Step) -> Tensor:
            total = torch.zeros_like(x)
            for start, part, weight in zip(starts, parts, weights, strict=True):
                inside = slice(start, start + self.window)
                total[:, :, inside] += weight.to(x)[:, None, None] * part(x[:, :, inside], step)
            return total

        return velocity

    def _part(self, view: View, start: int) -> View:
        """The view of one window, whose first frame is the last of slot `start`: that slot's other images are lost."""
        first, count = STRIDE * start, STRIDE * (self.window - 1) + 1
        images = {frame - first: image for frame, image in view.images.items() if 0 <= frame - first < count}
        ids = view.frame_ids and view.frame_ids[start : start + self.window]
        inside = slice(first, first + count)
        video = None if view.video is None else view.video[:, inside]
        mask = None if view.mask is None else view.mask[inside]
        return replace(view, images=images, frame_ids=ids, video=video, mask=mask)


def window_starts(slots: int, window: int, overlap: int) -> tuple[int, ...]:
    """First slots of the fewest windows that cover a clip and share at least `overlap`, spread evenly."""
    if slots <= window:
        return (0,)
    last = slots - window
    count = -(-last // (window - overlap)) + 1
    return tuple(round(k * last / (count - 1)) for k in range(count))


def window_ramp(slots: int, first: bool, last: bool) -> Float[Tensor, " slots"]:
    """Weights of a window's slots that fall to 0 at its ends: how many slots the middle of a slot's frames lies inside.

    Args:
        first, last: the window's beginning, or its end, is that of the video, towards which no weight falls. Where it
            begins later, slot 0 is an anchor, which no other window has, and weighs 1.
    """
    # Slot j >= 1 holds the frames 4j - 3 … 4j.
    middle = torch.arange(slots, dtype=torch.float64) - 1.5 / STRIDE
    rise = torch.full_like(middle, slots) if first else middle
    fall = torch.full_like(middle, slots) if last else slots - 1 - middle
    ramp = torch.minimum(rise, fall)
    return ramp if first else torch.cat([ramp.new_ones(1), ramp[1:]])


def window_weights(slots: int, window: int, starts: tuple[int, ...]) -> list[Float[Tensor, " w"]]:
    """Weights of every window's slots; over all windows they add up to 1 at every slot of the clip."""
    place = torch.arange(window, dtype=torch.float64)
    raw, total = [], torch.zeros(slots, dtype=torch.float64)
    for start in starts:
        rise = torch.full_like(place, window) if start == 0 else place + 1
        fall = torch.full_like(place, window) if start + window == slots else window - place
        raw.append(torch.minimum(rise, fall))
        total[start : start + window] += raw[-1]
    return [weight / total[start : start + window] for start, weight in zip(starts, raw, strict=True)]
