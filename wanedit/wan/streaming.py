"""Blocks of a transformer that wait in host memory, each brought to the device while the one before it computes."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from wanedit.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


@runtime_checkable
class Shelf(Protocol):
    """Where weights wait, and how they come to the device."""

    def keep(self, weight: Tensor) -> Tensor:
        """What stands in a parameter's place while it is away."""
        ...

    def fetch(self, kept: Sequence[Tensor]) -> list[Tensor]:
        """Begin to copy what was kept, once all that was asked for before is computed; who asks does not wait."""
        ...

    def arrive(self, copies: Sequence[Tensor]) -> None:
        """See that what computes from now on finds these copies whole."""
        ...


class HostMemory:
    """Pinned host memory, and a stream of its own for the copies.

    Args:
        device: an accelerator; on a CPU the copies are made at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def keep(self, weight: Tensor) -> Tensor:
        kept = weight.to("cpu")
        return kept if self.side is None else kept.pin_memory()

    def fetch(self, kept: Sequence[Tensor]) -> list[Tensor]:
        if self.side is not None:
            # The host is many blocks ahead of the device. A block that has been let go gives its memory to the next
            # copy, which so must not begin before the one has computed; without this wait, or by memory that is free
            # only when the device says so, a copy of every block that the host has come to would be there at once.
            self.side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.side):
            return [one.to(self.device, non_blocking=True) for one in kept]

    def arrive(self, copies: Sequence[Tensor]) -> None:
        if self.side is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side)


def spread(blocks: int, resident: int) -> list[int]:
    """Which of so many blocks are brought in turn where `resident` stay: evenly spread, for the time of those between
    two is the copy's.

    Raises:
        InputError: `resident` is not one of 0 to `blocks`.
    """
    if not 0 <= resident <= blocks:
        raise InputError(f"{resident} resident blocks of {blocks}; expected 0 to {blocks}")
    away = blocks - resident
    return [(2 * k + 1) * blocks // (2 * away) for k in range(away)]


class BlockStream:
    """Some blocks of a transformer, away from the device but while they compute: at most two of them are there at once.

    Args:
        blocks: all of them, in the order in which they compute.
        resident: how many stay.
        shelf: where the others wait.
    """

    def __init__(self, blocks: Sequence[nn.Module], resident: int, shelf: Shelf) -> None:
        self.shelf = shelf
        self.kept = {
            i: [shelf.keep(weight.data) for weight in blocks[i].parameters()]
            for i in spread(len(blocks), resident)
        }
        for i, kept in self.kept.items():
            _put(blocks[i], kept)

    def bring(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        """Those that stay, to the device."""
        for i, block in enumerate(blocks):
            if i not in self.kept:
                block.to(device)

    def in_turn(self, blocks: Sequence[Module]) -> Iterator[Module]:
        """All blocks, each on the device until the next is asked for."""
        away = list(self.kept)
        coming = self.shelf.fetch(self.kept[away[0]]) if away else []
        for i, block in enumerate(blocks):
            if i not in self.kept:
                yield block
                continue
            self.shelf.arrive(coming)
            _put(block, coming)
            after = away.index(i) + 1
            # Only now: the wait before would else be for this one, too.
            coming = self.shelf.fetch(self.kept[away[after]]) if after < len(away) else []
            try:
                yield block
            finally:
                _put(block, self.kept[i])


def _put(block: nn.Module, weights: Sequence[Tensor]) -> None:
    for parameter, weight in zip(block.parameters(), weights, strict=True):
        parameter.data = weight
