"""A transformer under guidance, as the velocity that a solver calls."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wanedit.errors import InputError
from wanedit.flow.caching import StepCache
from wanedit.flow.guiding import NEGATIVE, PROMPT, Guide, Guided, Pass
from wanedit.flow.path import Step
from wanedit.lit.tasks import Answers
from wanedit.wan.condition import Condition
from wanedit.wan.parallel import Group, both
from wanedit.wan.transformer import Experts, WanTransformer

# Up to this many tokens one pass over both prompts is faster than two: small products leave cores idle.
BATCHED_UP_TO = 8192
TOGETHER = (PROMPT, NEGATIVE)
CLASSIFIER_FREE = Guide()


class GuidedVelocity:
    """`velocity(x, step)` for one sample, or for a batch of them; their context is prepared once, here.

    Args:
        transformer: the model, an argument and not a part of any method.
        text: (B, N, text_dim).
        negative_text: (1, N, text_dim), of all samples. Where guidance asks nothing about it, it is not read.
        image_tokens, condition: as `WanTransformer.prepare` takes them, of 1 or B; None where the model has none.
        grid: latent sizes (S, h, w).
        frame_ids: (S,) temporal positions; 0 … S-1 by default.
        first: (1, channels, 1, h, w) what slot 0 is known to hold, for a model that is shown it in place.
        guidance_scale_low: guidance once the first of several experts has handed over; None for the same.
        cache: answers in the network's place where it may; each pass and each expert has a past of its own.
        prompts: a pair of ranks, or of groups of them, which ask for the same velocities: of two passes each makes one.
            None for both here.
        guide: how it is guided.
        penalty: (S, prompts), where `text` is of several prompts: as `WanTransformer.prepare` takes it.
        answers: all that the network says goes through it.

    Attributes:
        evaluations: passes of the network, each sample counted, those that `answers` spared it among them.

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
        guide: Guide = CLASSIFIER_FREE,
        penalty: Tensor | None = None,
        answers: Answers = lambda ask: ask(),
    ) -> None:
        # The two kinds of transformer take each its own kind of context.
        model: Any = transformer
        self.transformer = model
        if guidance_scale_low is not None and isinstance(transformer, WanTransformer):
            raise InputError(
                f"guidance_scale_low is {guidance_scale_low:g} for a model of one transformer; expected None"
            )
        scales = (guidance_scale, guidance_scale if guidance_scale_low is None else guidance_scale_low)
        self.first = first
        self.evaluations = 0
        self.prompts, self.answers = prompts, answers
        shared = None if prompts is None else self._shared
        self.guided = Guided(self._passes, guide, scales, cache, self._clock, self.expert, shared)
        self.contexts: dict[tuple[Pass, ...], Any] = {}

        def prepare_apart() -> None:
            """A context for each pass."""
            asked = guide.passes(scales)
            told = model.prepare(grid, text, image_tokens, condition, frame_ids, penalty)
            other = model.with_text(told, negative_text) if guide.reads_negative(scales) else told
            self.contexts |= {(one,): _told(one, told, other) for one in asked}

        self._prepare_apart = prepare_apart
        # A cache may answer for one prompt and not for the other, and each of a pair of ranks has its own. What is
        # told along time has other words than the negative prompt.
        apart = cache is not None or prompts is not None or penalty is not None
        batched = not apart and grid[0] * grid[1] * grid[2] // 4 <= BATCHED_UP_TO
        if not batched or any(guide.guidance.passes(scale) != TOGETHER for scale in scales):
            prepare_apart()
            return
        # pad_sequence pads the shorter prompt with zeros, as `prepare` pads both.
        rows = pad_sequence([*text, *negative_text.expand(len(text), -1, -1)], batch_first=True)
        # One of all samples broadcasts; one for each is needed for both prompts.
        twice = (
            torch.cat([v, v]) if isinstance(v, Tensor) and len(v) > 1 else v
            for v in (image_tokens, condition)
        )
        self.contexts[TOGETHER] = model.prepare(grid, rows, *twice, frame_ids)

    def expert(self, step: Step) -> int:
        """Which of several experts answers at a step; 0 of one transformer."""
        edges = self.transformer.boundaries if isinstance(self.transformer, Experts) else ()
        return sum(step.timestep < edge for edge in edges)

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        if self.first is None:
            return self.guided(x, step)
        # Wan 2.2, `wan/textimage2video.py`, puts the clean latent back after every step. Here the model is given it at
        # every step, and x goes straight to it, so that every solver ends there: v = (x - x_0) / sigma.
        first = self.first.expand(len(x), -1, -1, -1, -1)
        velocity = self.guided(torch.cat([first, x[:, :, 1:]], dim=2), step)
        return torch.cat([(x[:, :, :1] - first) / step.sigma, velocity[:, :, 1:]], dim=2)

    def _passes(self, x: Tensor, step: Step, passes: tuple[Pass, ...]) -> Sequence[Tensor]:
        if passes == TOGETHER and TOGETHER in self.contexts:
            return self._evaluate(torch.cat([x, x]), step, TOGETHER).chunk(2)
        if (passes[0],) not in self.contexts:  # at a step that asks for one of both
            self._prepare_apart()
        return [self._evaluate(x, step, (one,)) for one in passes]

    def _shared(self, makes: Sequence[Callable[[], Tensor]]) -> Sequence[Tensor]:
        """Two answers, one made here and one by the other of the pair."""
        before, group = self.evaluations, self.prompts
        assert group is not None
        own = makes[dist.get_rank(group)]()
        answers = both(own, group)
        made = both(torch.tensor([self.evaluations - before], device=own.device), group)
        self.evaluations = before + int(sum(made))
        return answers

    def _clock(self, step: Step) -> Tensor:
        return self.transformer.modulation(torch.tensor([step.timestep]))

    def _evaluate(self, x: Tensor, step: Step, which: tuple[Pass, ...]) -> Tensor:
        self.evaluations += x.shape[0]
        shape = x.shape[:1] if self.first is None else (x.shape[0], x.shape[2])
        timestep = torch.full(shape, step.timestep, dtype=torch.float32, device=x.device)
        if self.first is not None:
            timestep[:, 0] = 0
        return self.answers(lambda: self.transformer.velocity(x, timestep, self.contexts[which])).to(x.device)


def _told(one: Pass, told: Any, other: Any) -> Any:
    """What a pass is told, of the contexts of the prompt and of the negative one; of each expert, of several."""
    if isinstance(told, tuple):
        return tuple(_told(one, *each) for each in zip(told, other, strict=True))
    context = other if one.negative else told
    if one.led is not None:
        context = context.led(other, one.led)
    return replace(context, without=one.without)
