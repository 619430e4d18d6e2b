"""Segments that several processes make together: refused before a model loads, told by the plan, made by two."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.runs import Run
from wanedit import GenerationConfig, GenerationResult
from wanedit.errors import InputError
from wanedit.jobs.generate.config import check_crews
from wanedit.jobs.generate.plan import make_plan
from wanedit.runtime.events import read_events
from wanedit.runtime.predict import load_latents
from wanedit.wan.parallel import split


def test_what_no_crews_can_do_is_refused_in_words(keyframes: list[Any], no_weights: None) -> None:
    config = GenerationConfig(keyframes=keyframes, base_seed=1, size="32*32", sequence_parallel=2)
    with pytest.raises(
        InputError, match=r"sequence_parallel is 2 and there are 3 processes; expected a multiple"
    ):
        check_crews(config, 3)
    with pytest.raises(
        InputError, match="joins is co_denoise and sequence_parallel 2; expected joins none or bridge"
    ):
        check_crews(replace(config, joins="co_denoise"), 2)
    with pytest.raises(InputError, match="compile is True and sequence_parallel 2"):
        check_crews(replace(config, compile=True), 2)
    check_crews(replace(config, sequence_parallel=1, compile=True, joins="co_denoise"), 3)
    # wan-tiny has six heads; under guidance two processes may share the prompts.
    with pytest.raises(InputError, match=r"sequence_parallel is 5: 5 ranks share .*6 heads.*one of 2, 3, 6"):
        make_plan(replace(config, sequence_parallel=5, num_gpus=5))
    assert [split(ranks, guided) for ranks, guided in ((4, True), (4, False), (3, True))] == [
        (2, 2),
        (1, 4),
        (1, 3),
    ]
    with pytest.raises(InputError, match="sequence_parallel is 4: 4 ranks"):
        make_plan(replace(config, sequence_parallel=4, num_gpus=4, guidance_scale=1.0))
    make_plan(replace(config, sequence_parallel=4, num_gpus=4, guidance_scale=2.0))


def test_a_plan_compares_with_segments_side_by_side(keyframes: list[Any]) -> None:
    def said(processes: int, together: int, count: int) -> str:
        config = GenerationConfig(
            keyframes=[[path, 0.5 * k] for k, (path, _) in enumerate(keyframes[: count + 1])],
            base_seed=1,
            size="32*32",
            num_gpus=processes,
            sequence_parallel=together,
        )
        [note] = [note for note in make_plan(config).warnings if note.startswith("sequence_parallel")]
        return note

    assert said(2, 2, 3).endswith("in 1.5 times what the longest takes one, exchanges not counted, where segments side "
                                  "by side (sequence_parallel 1) take 2")  # fmt: skip
    assert said(3, 3, 3).endswith("no sooner than segments side by side (sequence_parallel 1) take 1")
    assert "in 0.5 times" in said(2, 2, 1)
    assert "in 0.5 times" in said(6, 2, 3)


def test_a_segment_that_two_processes_make_is_that_of_one(run: Run, finished: GenerationResult) -> None:
    made = run(num_gpus=2, sequence_parallel=2, save_latents=True)
    assert made.segments == finished.segments
    # The first of the two keeps what both made, each of them asked for one of the prompts.
    lines = [line for line in read_events(made.video.parent / "metrics.jsonl") if line["event"] == "segment"]
    assert [line["rank"] for line in lines] == [0] * 3
    assert [line["evaluations"] for line in lines] == [4] * 3
    pairs = [
        [load_latents(path) for path in sorted((one.video.parent / "segments").glob("segment*.safetensors"))]
        for one in (made, finished)
    ]
    assert len(pairs[0]) == 3
    for ours, theirs in zip(*pairs, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
        assert ours.shape == theirs.shape
    assert torch.isfinite(pairs[0][0]).all()
