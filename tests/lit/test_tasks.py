import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wanedit.errors import InputError
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.tasks import ChainSettings, SegmentTask, share
from wanedit.wan.catalog import find_known
from wanedit.wan.load import WanFolder, open_wan


@given(st.lists(st.integers(1, 1000), max_size=30), st.integers(1, 12))
def test_shares_cover_all_work_once_and_balance(costs: list[int], world: int) -> None:
    shares = share(costs, world)
    assert len(shares) == world
    assert sorted(index for mine in shares for index in mine) == list(range(len(costs)))
    loads = [sum(costs[i] for i in mine) for mine in shares]
    if costs:
        # Graham's bound for longest-first: 4/3 of the optimum, which is at least the mean and the largest piece.
        assert max(loads) <= 4 / 3 * max(sum(costs) / world, max(costs), _pair_bound(costs, world))


def _pair_bound(costs: list[int], world: int) -> int:
    """With more pieces than ranks, two of the world + 1 largest share a rank."""
    largest = sorted(costs, reverse=True)
    return largest[world - 1] + largest[world] if len(costs) > world else 0


def test_tokens_are_counted_in_patches() -> None:
    image = torch.zeros(3, 64, 96)
    task = SegmentTask(0, 13, image, image, "", "", 0, "d")
    assert task.grid == (4, 8, 12)
    assert task.tokens == 4 * 4 * 6


def test_a_text_only_model_is_refused() -> None:
    known = find_known("Wan2.1-T2V-1.3B")
    assert known is not None
    folder = WanFolder(open_wan("tiny").source, known.config, known.sampling, known)
    with pytest.raises(InputError, match="reads no images"):
        FLF2VChain(folder, ChainSettings(2, 5.0, 1.0))


def test_nothing_is_loaded_for_no_segment() -> None:
    chain = FLF2VChain(open_wan("tiny"), ChainSettings(2, 5.0, 1.0))
    chain.load([])
    assert chain.networks is None
