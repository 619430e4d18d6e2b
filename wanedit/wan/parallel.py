"""One sample on several ranks: each has a stretch of the tokens, and while they attend to each other some of the heads.

DeepSpeed-Ulysses (arXiv 2309.14509, section 3.1): all that a block does token by token is done by the rank that has the
token; one all-to-all before self-attention gives each rank all tokens of its heads, one behind it gives them back. So
attention is that of a single rank, without padding and without a mask, and any back end computes it.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wanedit.errors import InputError, all_there

Group = dist.ProcessGroup


@dataclass(frozen=True)
class Crew:
    """The ranks that make a sample together.

    Attributes:
        tokens: those that share the tokens with this one; None for it alone.
        prompts: this one and its twin, which under guidance computes the other prompt; None for both here.
    """

    tokens: Group | None = None
    prompts: Group | None = None


ALONE = Crew()


def split(ranks: int, guided: bool) -> tuple[int, int]:
    """By how many a crew shares prompts, and by how many tokens: two prompts first, which exchange least."""
    prompts = 2 if guided and ranks % 2 == 0 else 1
    return prompts, ranks // prompts


def muster(ranks: int, guided: bool, backend: str) -> Crew:
    """This rank's crew of so many neighbours; every rank of the world calls this, and they divide it.

    Args:
        backend: "gloo" for tensors on the CPU, "nccl" for those on GPUs.
    """
    prompts, tokens = split(ranks, guided)
    own = Crew()
    # All ranks make all groups in one order, also those that they are not in.
    for first in range(0, dist.get_world_size(), ranks):
        places = [[first + half * tokens + k for k in range(tokens)] for half in range(prompts)]
        for name, groups in (
            ("tokens", places),
            ("prompts", [list(twins) for twins in zip(*places, strict=True)]),
        ):
            for members in groups if len(groups[0]) > 1 else ():
                group = dist.new_group(members, backend=backend)
                if dist.get_rank() in members:
                    own = replace(own, **{name: group})
    return own


class Share:
    """The stretches of one clip's tokens over the ranks of a group, all of which ask for the same velocity.

    Args:
        group: gloo for tensors on the CPU, NCCL for those on GPUs.
        tokens: of the clip.
        unit: how many of them stay together; a stretch is a number of whole units.

    Attributes:
        counts: tokens of every rank; the first ones have a unit more where that does not come out even.

    Raises:
        InputError: fewer units than ranks.
    """

    def __init__(self, group: Group, tokens: int, unit: int = 1) -> None:
        self.group, self.rank, self.size = group, dist.get_rank(group), dist.get_world_size(group)
        units, self.unit = tokens // unit, unit
        if units < self.size:
            what = "tokens" if unit == 1 else "latent slots with times of their own"
            raise InputError(
                f"sequence_parallel is {self.size} and the clip has {units} {what}; expected as many"
            )
        self.counts = [unit * (units // self.size + (rank < units % self.size)) for rank in range(self.size)]
        self.start = [0, *accumulate(self.counts)][self.rank]

    def mine(self, x: Tensor, dim: int = 1, per: int = 1) -> Tensor:
        """This rank's stretch; a view.

        Args:
            per: tokens for each entry of the dimension.
        """
        return x.narrow(dim, self.start // per, self.counts[self.rank] // per)

    def whole(self, x: Float[Tensor, "b mine width"]) -> Float[Tensor, "b n width"]:
        """All stretches, on every rank."""
        # Of one length while they travel: gloo gathers no others.
        most = max(self.counts)
        padded = F.pad(x, (0, 0, 0, most - x.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in self.counts]
        with all_there():
            dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:, :count] for part, count in zip(parts, self.counts, strict=True)], dim=1)

    def by_heads(self, x: Float[Tensor, "b mine heads d"]) -> Float[Tensor, "b n own_heads d"]:
        """All tokens, of this rank's share of the heads."""
        heads = x.unflatten(2, (self.size, -1))
        sent = heads.permute(2, 1, 0, 3, 4).flatten(0, 1)
        got = self._exchanged(sent, [x.shape[1]] * self.size, self.counts)
        return got.transpose(0, 1)

    def by_tokens(self, x: Float[Tensor, "b n own_heads d"]) -> Float[Tensor, "b mine heads d"]:
        """This rank's stretch of tokens, of all heads."""
        mine = self.counts[self.rank]
        got = self._exchanged(x.transpose(0, 1), self.counts, [mine] * self.size)
        return got.unflatten(0, (self.size, mine)).permute(2, 1, 0, 3, 4).flatten(2, 3)

    def _exchanged(self, sent: Tensor, to: list[int], of: list[int]) -> Tensor:
        """The all-to-all: so many rows to every rank, so many from it."""
        got = sent.new_empty(sum(of), *sent.shape[1:])
        with all_there():
            dist.all_to_all_single(got, sent.contiguous(), of, to, group=self.group)
        return got


def both(own: Tensor, prompts: Group) -> list[Tensor]:
    """What the ranks of a pair computed, in their order, on each of them."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(prompts))]
    with all_there():
        dist.all_gather(parts, own.contiguous(), group=prompts)
    return parts
