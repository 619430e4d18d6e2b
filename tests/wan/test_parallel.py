"""One sample on several ranks over gloo: the same velocity as on one, or a refusal in words."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.runs import start_process
from tests.wan import small
from wanedit.wan.transformer import heads_problem

# All cases of one number of ranks in one go: what costs is that each imports torch.
RANK = """
import json, sys, torch, torch.distributed as dist
from tests.wan import small
from wanedit.errors import InputError
rank, size, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
torch.set_grad_enabled(False)
found = {}
def off(a, b): return float((a - b).norm() / b.norm())
# 24, 35 and 6 patches: on two and three ranks some come out even and some do not.
clips = {"flf2v": (2, (4, 4, 6)), "t2v": (1, (5, 14, 2)), "vace": (1, (3, 4, 2)), "i2v": (1, (4, 4, 6))}
for kind, (batch, grid) in clips.items():
    one, model = (small.transformer(kind, dim=36, num_heads=6) for _ in range(2))
    model.spread(dist.group.WORLD)
    inputs = small.inputs(one, batch, grid)
    found[kind] = off(model(**inputs), one(**inputs))
one, model = (small.transformer("ti2v", dim=36, num_heads=6) for _ in range(2))
model.spread(dist.group.WORLD)
inputs = small.inputs(one, 1, (5, 4, 6)) | {"timestep": torch.tensor([[0.0, 500, 500, 400, 300]])}
found["times"] = off(model(**inputs), one(**inputs))
along = {"text": inputs["text"].repeat(1, 3, 1)[:, :20], "grid": (5, 4, 6)}
along["penalty"] = torch.arange(10.0).reshape(5, 2)
told = [m.velocity(inputs["latents"], inputs["timestep"], m.prepare(**along)) for m in (model, one)]
found["told"] = off(*told)
model.set_attention("auto")
found["attention"] = off(model(**inputs), one(**inputs))
found["off_sdpa"] = model.off_sdpa
try:
    model(**small.inputs(one, 1, (1, 2, 2)))
except InputError as error:
    found["few"] = str(error)
from wanedit.flow.path import Step
from wanedit.lit.velocity import GuidedVelocity
if size == 2:
    one = small.transformer("flf2v")
    inputs = small.inputs(one)
    words = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(5))
    given = inputs["text"], words, inputs["image_tokens"], inputs["condition"]
    def guided(**more): return GuidedVelocity(one, small.GRID, *given, 3.0, **more)
    alone, pair = guided(), guided(prompts=dist.group.WORLD)
    x, step = inputs["latents"], Step(0, 0.5, 0.4, 500.0)
    found["guidance"] = off(pair(x, step), alone(x, step))
    found["evaluations"] = [alone.evaluations, pair.evaluations]
print(json.dumps(found))
"""


def on_ranks(size: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "meet")
        ranks = [start_process(["-c", RANK, str(rank), str(size), place]) for rank in range(size)]
        found = [one.communicate(timeout=240) for one in ranks]
    for one, (_, err) in zip(ranks, found, strict=True):
        assert one.returncode == 0, err
    return [json.loads(out.splitlines()[-1]) for out, _ in found]


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_share_tokens_and_heads_have_the_velocity_of_one(size: int) -> None:
    found = on_ranks(size)
    for rank in found:
        assert (
            max(rank[kind] for kind in ("flf2v", "t2v", "vace", "i2v", "times", "told", "attention")) < 1e-5
        )
        assert rank["off_sdpa"] == 0
        assert f"sequence_parallel is {size} and the clip has 1 tokens" in rank["few"]
        if size == 2:
            assert rank["guidance"] < 1e-5
            assert rank["evaluations"] == [2, 2]


def test_ranks_that_do_not_divide_the_heads_are_refused() -> None:
    config = small.config(num_heads=6, dim=36)
    assert [heads_problem(config, ranks) for ranks in (1, 2, 3, 6)] == [""] * 4
    assert "4 ranks share" in heads_problem(config, 4)
    assert "6 heads, which they do not divide; expected one of 2, 3, 6" in heads_problem(config, 4)
