"""Blocks that are brought in turn: the same bytes, few at once, and what moves."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.wan import small
from wanedit.errors import InputError
from wanedit.flow.path import Step
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan.streaming import HostMemory, spread
from wanedit.wan.transformer import Experts, WanTransformer

LAYERS = 7
STEP = Step(0, 0.5, 0.4, 500.0)


class Counted:
    """A device whose memory is counted: what is away is NaN, what is fetched is another copy each time."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}
        self.fetched = 0
        self.there: list[list[Tensor]] = []
        self.most = 0
        self.arrived: list[bool] = []

    def keep(self, weight: Tensor) -> Tensor:
        away = torch.full_like(weight, float("nan"))
        self.weights[id(away)] = weight.clone()
        self.there.append([away])  # kept alive, so that no other has its id
        return away

    def fetch(self, kept: Sequence[Tensor]) -> list[Tensor]:
        self.fetched += 1
        return [self.weights[id(one)].clone() for one in kept]

    def arrive(self, copies: Sequence[Tensor]) -> None:
        self.arrived.append(True)


def at_hand(model: WanTransformer) -> int:
    """Blocks whose weights are there."""
    return sum(not bool(block.modulation.isnan().any()) for block in model.block_list())


@pytest.mark.parametrize("resident", [0, 1, 4, 6, 7])
@pytest.mark.parametrize("kind", ["flf2v", "vace"])
def test_streamed_is_resident_byte_by_byte_and_few_blocks_are_there_at_once(kind: str, resident: int) -> None:
    layers: Any = {"num_layers": LAYERS} | ({"vace_layers": (0, 3)} if kind == "vace" else {})
    model, whole, device = small.transformer(kind, **layers), small.transformer(kind, **layers), Counted()
    model.stream_blocks(resident, device)
    assert at_hand(model) == resident
    values = small.inputs(whole)
    there: list[int] = []
    for block in model.block_list():
        block.register_forward_hook(lambda *_: there.append(at_hand(model)))
    assert torch.equal(model(**values), whole(**values))
    # Of those that are away one computes, and the next is on its way beside it.
    assert max(there[:LAYERS]) == min(LAYERS, resident + 1)
    assert at_hand(model) == resident
    # Once for the context, once for the velocity.
    assert device.fetched == len(device.arrived) == 2 * (LAYERS - resident)


@pytest.mark.parametrize("experts", [1, 2])
def test_guidance_and_experts_compute_the_same_from_blocks_that_are_away(experts: int) -> None:
    def made(stream: bool) -> Tensor:
        models = [small.transformer(seed=seed, num_layers=3) for seed in range(experts)]
        for one in models:
            if stream:
                one.stream_blocks(1, Counted())
        model = models[0] if experts == 1 else Experts(*models)
        values = small.inputs(models[0])
        rest = values["image_tokens"], values["condition"]
        velocity = GuidedVelocity(model, small.GRID, values["text"], -values["text"], *rest, 3.0)
        return velocity(values["latents"], STEP)

    assert torch.equal(made(True), made(False))


def test_what_fails_amid_a_pass_leaves_its_block_away() -> None:
    model = small.transformer(num_layers=3)
    model.stream_blocks(1, Counted())
    for _ in model.in_turn():
        if at_hand(model) == 2:
            break
    assert at_hand(model) == 1


def test_host_memory_gives_back_the_same_on_a_device_without_streams() -> None:
    model, whole = small.transformer(num_layers=3), small.transformer(num_layers=3)
    model.stream_blocks(1, HostMemory(torch.device("cpu")))
    model.bring(torch.device("cpu"))
    values = small.inputs(whole)
    assert torch.equal(model(**values), whole(**values))


def test_a_copy_begins_once_the_block_whose_memory_it_takes_has_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host says all of a pass before a device has done the first of it: streams alone keep the order."""
    said: list[str] = []

    @dataclass
    class Stream:
        name: str

        def wait_stream(self, other: Any) -> None:
            said.append(f"{self.name} wait for {other.name}")

    model, shelf, resident = small.transformer(num_layers=LAYERS), HostMemory(torch.device("cpu")), 2
    model.stream_blocks(resident, shelf)
    products: Any = Stream("products")
    shelf.side = copies = Stream("copies")  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: products)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    values, away = small.inputs(model), spread(LAYERS, resident)
    context = model.prepare(small.GRID, values["text"], values["image_tokens"], values["condition"])
    for i, block in enumerate(model.block_list()):
        block.register_forward_hook(lambda *_, i=i: said.append(f"block {i}"))
    said.clear()
    model.velocity(values["latents"], values["timestep"], context)
    begun, there = (
        [k for k, words in enumerate(said) if words.startswith(f"{stream.name} wait")]
        for stream in (copies, products)
    )
    done = {i: said.index(f"block {i}") for i in range(LAYERS)}
    assert len(begun) == len(there) == len(away)
    for k, i in enumerate(away):
        assert begun[k] < there[k] < done[i]
        # At most two are there: the one that computes, and this one beside it.
        assert k < 2 or done[away[k - 2]] < begun[k]


def test_those_that_are_away_are_spread_evenly() -> None:
    assert spread(8, 6) == [2, 6]
    assert spread(40, 0) == list(range(40))
    assert spread(40, 40) == []
    for resident in range(41):
        away = spread(40, resident)
        assert len(set(away)) == len(away) == 40 - resident
        assert all(0 <= i < 40 for i in away)
    with pytest.raises(InputError, match="41 resident blocks of 40"):
        spread(40, 41)
