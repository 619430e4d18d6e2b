"""Prompts along time inside of one window: what their words cost the attention of each slot.

Source: Prompt Relay (arXiv 2604.10030). A slot f attends to the words of prompt s by softmax(q k^T / sqrt(d) - C), C
the penalty below, of a Gaussian of the distance from f to where the prompt is meant. Two things are done otherwise than
in the paper. There C begins two slots inside of a prompt's stretch, with a sigma that falls to `EPSILON` within half a
slot, so that the slots about a boundary are told neither; here, as in its authors' later code, the stretch itself is
free and the words fade over `TAIL` slots beyond it. And each prompt is encoded by itself, with what all share in front:
a slot far from a boundary attends to what a window of its own would.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# So many slots beyond its stretch a prompt's words weigh EPSILON.
TAIL, EPSILON = 2.0, 1e-3


@dataclass(frozen=True)
class Told:
    """A prompt, and the latent slots start … stop - 1 that it is meant for."""

    prompt: str
    start: int
    stop: int


def penalty(told: Sequence[Told], slots: int) -> Float[Tensor, "slots prompts"]:
    """C = d^2 / (2 sigma^2) of every slot and prompt, d the slots between the two, 0 inside of the stretch."""
    sigma = TAIL / math.sqrt(2 * math.log(1 / EPSILON))
    f = torch.arange(slots)[:, None]
    first, last = (torch.tensor(ends) for ends in ([t.start for t in told], [t.stop - 1 for t in told]))
    distance = (first - f).clamp(min=0) + (f - last).clamp(min=0)
    return distance.float() ** 2 / (2 * sigma**2)


def joined(told: Sequence[Told]) -> tuple[Told, ...]:
    """Neighbours of one prompt as one; nothing where that leaves a single one, which needs no relay."""
    found = list[Told]()
    for one in told:
        if found and found[-1].prompt == one.prompt:
            one = Told(one.prompt, found.pop().start, one.stop)
        found.append(one)
    return tuple(found) if len(found) > 1 else ()
