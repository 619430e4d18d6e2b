"""A transformer under classifier-free guidance, as the velocity that a solver calls."""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wanedit.errors import InputError
from wanedit.flow.caching import Cached, StepCache
from wanedit.flow.path import Step, classifier_free
from wanedit.wan.condition import Condition
from wanedit.wan.parallel import Group, both
from wanedit.wan.transformer import Experts, WanTransformer

# Up to this many tokens one pass over both prompts is faster than two: small products leave cores idle.
BATCHED_UP_TO = 8192


class GuidedVelocity:
    """`velocity(x, step)` for one sample, or for a batch of them; their context is prepared once, here.

    Args:
        transformer: the model, an argument and not a part of any method.
        text: (B, N, text_dim).
        negative_text: (1, N, text_dim), of all samples. At guidance 1.0 it is not read and its pass is skipped.
        image_tokens, condition: as `WanTransformer.prepare` takes them, of 1 or B; None where the model has none.
        grid: latent sizes (S, h, w).
        frame_ids: (S,) temporal positions; 0 … S-1 by default.
        first: (1, channels, 1, h, w) what slot 0 is known to hold, for a model that is shown it in place.
        guidance_scale_low: guidance once the first of several experts has handed over; None for the same.
        cache: answers in the network's place where it may; each prompt and each expert has a past of its own.
        prompts: a pair of ranks, or of groups of them, which ask for the same velocities: under guidance the first
            computes the prompt's and the second the negative one's. None for both here.

    Attributes:
        evaluations: passes of the network that were made, each sample counted.

    Raises:
        InputError: `guidance_scale_low` for one transformer, which never hands over.
    """

    def __init__(
        self,
        transformer: WanTransformer | Experts,
        grid: tuple[int, int, int],
        text: Tensor,
        negative_text: Tensor,
        image_tokens: Tensor | None,
        condition: Condition | None,
        guidance_scale: float,
        frame_ids: Tensor | None = None,
        first: Tensor | None = None,
        guidance_scale_low: float | None = None,
        cache: StepCache | None = None,
        prompts: Group | None = None,
    ) -> None:
        # The two kinds of transformer take each its own kind of context.
        model: Any = transformer
        self.transformer = model
        if guidance_scale_low is not None and isinstance(transformer, WanTransformer):
            raise InputError(
                f"guidance_scale_low is {guidance_scale_low:g} for a model of one transformer; expected None"
            )
        self.guidance_scale = guidance_scale
        self.first = first
        self.guidance_scale_low = guidance_scale if guidance_scale_low is None else guidance_scale_low
        guided = {scale != 1.0 for scale in (self.guidance_scale, self.guidance_scale_low)}
        self.evaluations = 0
        self.cache, self.prompts = cache, prompts
        self._cached: dict[int, Cached] = {}
        # A cache may answer for one prompt and not for the other, and each of a pair of ranks has its own.
        batched = cache is None and prompts is None and grid[0] * grid[1] * grid[2] // 4 <= BATCHED_UP_TO
        if guided == {False}:
            self.contexts = [model.prepare(grid, text, image_tokens, condition, frame_ids)]
        elif batched and guided == {True}:
            # pad_sequence pads the shorter prompt with zeros, as `prepare` pads both.
            rows = pad_sequence([*text, *negative_text.expand(len(text), -1, -1)], batch_first=True)
            # One of all samples broadcasts; one for each is needed for both prompts.
            both = (
                torch.cat([v, v]) if isinstance(v, Tensor) and len(v) > 1 else v
                for v in (image_tokens, condition)
            )
            self.contexts = [model.prepare(grid, rows, *both, frame_ids)]
        else:
            conditional = model.prepare(grid, text, image_tokens, condition, frame_ids)
            self.contexts = [conditional, model.with_text(conditional, negative_text)]

    def expert(self, step: Step) -> int:
        """Which of several experts answers at a step; 0 of one transformer."""
        edges = self.transformer.boundaries if isinstance(self.transformer, Experts) else ()
        return sum(step.timestep < edge for edge in edges)

    def scale(self, step: Step) -> float:
        """The guidance of a step."""
        return self.guidance_scale_low if self.expert(step) else self.guidance_scale

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        if self.first is None:
            return self._guided(x, step)
        # Wan 2.2, `wan/textimage2video.py`, puts the clean latent back after every step. Here the model is given it at
        # every step, and x goes straight to it, so that every solver ends there: v = (x - x_0) / sigma.
        first = self.first.expand(len(x), -1, -1, -1, -1)
        velocity = self._guided(torch.cat([first, x[:, :, 1:]], dim=2), step)
        return torch.cat([(x[:, :, :1] - first) / step.sigma, velocity[:, :, 1:]], dim=2)

    def _guided(self, x: Tensor, step: Step) -> Tensor:
        scale = self.scale(step)
        if scale == 1.0:
            return self._branch(x, step, 0)
        if self.prompts is not None:
            before = self.evaluations
            own = self._branch(x, step, dist.get_rank(self.prompts))
            conditional, unconditional = both(own, self.prompts)
            made = both(torch.tensor([self.evaluations - before], device=x.device), self.prompts)
            self.evaluations = before + int(sum(made))
        elif len(self.contexts) == 1:
            conditional, unconditional = self._evaluate(torch.cat([x, x]), step, 0).chunk(2)
        else:
            conditional, unconditional = self._branch(x, step, 0), self._branch(x, step, 1)
        return classifier_free(conditional, unconditional, scale)

    def _branch(self, x: Tensor, step: Step, which: int) -> Tensor:
        """The velocity under the prompt (0) or the negative one (1), computed or from the cache."""
        if self.cache is None:
            return self._evaluate(x, step, which)
        if which not in self._cached:
            asked = partial(self._evaluate, which=which)
            self._cached[which] = Cached(asked, self.cache, self._clock, self.expert)
        return self._cached[which](x, step)

    def _clock(self, step: Step) -> Tensor:
        return self.transformer.modulation(torch.tensor([step.timestep]))

    def _evaluate(self, x: Tensor, step: Step, which: int) -> Tensor:
        self.evaluations += x.shape[0]
        shape = x.shape[:1] if self.first is None else (x.shape[0], x.shape[2])
        timestep = torch.full(shape, step.timestep, dtype=torch.float32, device=x.device)
        if self.first is not None:
            timestep[:, 0] = 0
        return self.transformer.velocity(x, timestep, self.contexts[which])
