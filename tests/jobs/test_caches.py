"""Step caches in runs: what names a result, what is counted, what a plan says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Run, command, run_cli
from wanedit import EditConfig, EditResult, GenerationConfig, edit
from wanedit.errors import InputError
from wanedit.flow.caches.magcache import MagCache
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.generate.plan import make_plan
from wanedit.runtime.events import read_events

EAGER = {"cache": "easycache", "cache_options": {"threshold": 100.0}}
STEPS = {"num_inference_steps": 10, "guidance_scale": 1.0}
# Of ten steps: the first two, and the last.
LEAST = 3


def evaluations(folder: Path, event: str = "segment") -> list[int]:
    return [line["evaluations"] for line in read_events(folder / "metrics.jsonl") if line["event"] == event]


def test_a_cache_names_what_it_helps_to_make_and_none_nothing(keyframes: list[Any], tmp_path: Path) -> None:
    def names(**changes: Any) -> set[str]:
        config = GenerationConfig(keyframes=keyframes, size="32*32", base_seed=1, **STEPS, **changes)
        return {task.digest for task in make_plan(config).tasks}

    table = tmp_path / "table.json"
    table.write_text(json.dumps({"curve": [[1, 1], [0, 2]]}))
    found = [
        names(),
        names(cache="easycache"),
        names(cache="easycache", cache_options={"threshold": 0.1}),
        names(cache="magcache", cache_options={"table": str(table)}),
    ]
    assert not set.intersection(*found)
    assert len(set.union(*found)) == sum(map(len, found))
    assert names(cache="none") == found[0]
    recorded = make_plan(
        GenerationConfig(
            keyframes=keyframes,
            size="32*32",
            base_seed=1,
            cache="magcache",
            cache_options={"table": str(table)},
            **STEPS,
        )
    ).config
    assert recorded.cache_options == {"curve": [[1.0, 1.0], [0.0, 2.0]]}
    assert {task.digest for task in make_plan(recorded).tasks} == found[3]
    empty = tmp_path / "empty.json"
    empty.write_text('{"curve": []}')
    with pytest.raises(
        InputError, match=r"empty\.json.*no noise levels.*expected a table of wanedit calibrate"
    ):
        names(cache="magcache", cache_options={"table": str(empty)})
    # The file's content decides, not its name.
    other = table.rename(tmp_path / "moved.json")
    assert names(cache="magcache", cache_options={"table": str(other)}) == found[3]
    other.write_text(json.dumps({"curve": [[1, 1], [0, 3]]}))
    assert not names(cache="magcache", cache_options={"table": str(other)}) & found[3]


def test_the_record_counts_what_was_computed_and_a_resume_gives_the_same_bytes(
    run: Run, tmp_path: Path
) -> None:
    whole = run(**STEPS, **EAGER, output=str(tmp_path / "whole"))
    # The first fifth, which is two of ten; the last.
    assert evaluations(tmp_path / "whole") == [LEAST] * 3
    again = run(**STEPS, **EAGER, resume_from=None, output=str(tmp_path / "again"))
    run(**STEPS, **EAGER, resume_from=1, output=str(tmp_path / "again"))
    assert evaluations(tmp_path / "again") == [LEAST] * 5
    journals = [
        json.loads((result.video.parent / "segments" / "progress.json").read_text())
        for result in (whole, again)
    ]
    latents = [sorted(str(one.get("latents_sha256")) for one in j["segments"].values()) for j in journals]
    assert latents[0] == latents[1]


def test_a_plan_says_at_most_where_the_clip_decides(keyframes: list[Any], tmp_path: Path) -> None:
    flags = ("--dry_run", "--num_inference_steps=50", "--guidance_scale=2")
    said = run_cli(*command(keyframes, tmp_path / "out", *flags, "--cache=easycache")).out
    assert "passes     at most 100 of the network for a segment" in said
    assert "EasyCache" in said
    said = run_cli(*command(keyframes, tmp_path / "out", *flags, "--cache=spectrum")).out
    # Of 50 steps 14 by its windows, and the last; twice.
    assert "passes     30 of the network for a segment" in said
    assert "passes     100 of" in run_cli(*command(keyframes, tmp_path / "out", *flags)).out


def test_mistakes_are_told_before_a_model_is_loaded(keyframes: list[Any], no_weights: None) -> None:
    config = GenerationConfig(keyframes=keyframes, base_seed=1, size="32*32")
    for changes, said in (
        ({"cache": "eazycache"}, "cache is 'eazycache'; .*Did you mean 'easycache'"),
        ({"cache": "easycache", "cache_options": {"treshold": 1}}, "no option 'treshold'; .*'threshold'"),
        ({"cache": "easycache", "cache_options": {"threshold": "a"}}, "threshold is 'a'; expected a number"),
        (
            {"cache": "magcache", "cache_options": {"table": "none.json"}},
            "no table of wan-tiny: none.json is not there",
        ),
        ({"cache_options": {"threshold": 1.0}}, "cache none has no option 'threshold'; expected none"),
    ):
        with pytest.raises(InputError, match=said):
            make_plan(replace(config, **changes))


def test_an_edit_caches_each_branch_and_counts(
    edit_config: Callable[..., EditConfig], run_edit: Callable[..., EditResult], tmp_path: Path
) -> None:
    plain, cached = edit_config(**STEPS), edit_config(**STEPS, **EAGER)
    plans = [make_edit_plan(config) for config in (plain, cached)]
    assert plans[0].task.digest != plans[1].task.digest
    assert [plan.rehearsal.evaluations for plan in plans] == [20, 20]
    assert [plan.settings.bound for plan in plans] == ["", "at most "]
    result = edit(cached, verbose=False)
    assert evaluations(result.video.parent, "edited") == [2 * LEAST]
    [line] = [one for one in read_events(result.video.parent / "metrics.jsonl") if one["event"] == "edited"]
    assert line["evaluations_saved"] == 20 - 2 * LEAST
    # Where the schedule decides, the plan counts without a cache as well.
    planned = make_edit_plan(edit_config(**STEPS, cache="spectrum"))
    assert planned.rehearsal.evaluations < planned.uncached == 20


def test_calibrate_writes_the_table_that_magcache_reads(keyframes: list[Any], tmp_path: Path) -> None:
    table = tmp_path / "tiny.json"
    made = command(keyframes, tmp_path / "out", "--num_inference_steps=6", "--table", str(table))
    done = run_cli("calibrate", *made[1:])
    assert done.code == 0, done.err
    assert f"--cache_options.table {table}" in done.out
    curve = json.loads(table.read_text())["curve"]
    assert len(curve) == 6
    # v - x is -x_0 at pure noise and eps - 2 x_0 at data: it grows.
    assert [size for _, size in curve] == sorted(size for _, size in curve)
    assert len(MagCache(table=table).of_model("tiny", None).curve) == 6
    assert not (tmp_path / "out").exists()
    assert "expected a .json file" in run_cli("calibrate", *made[1:-1], str(tmp_path)).err
    # Segments that go on from a state that is not there have a beginning of their own.
    once = [*made[1:-2], "--num_inference_steps=2", "--joins=co_denoise", "--table", str(table)]
    assert run_cli("calibrate", *once).code == 0
    assert len(json.loads(table.read_text())["curve"]) == 2


def test_calibrate_is_refused_before_it_samples(
    keyframes: list[Any], tmp_path: Path, no_weights: None
) -> None:
    made = command(keyframes, tmp_path / "out")[1:]
    foreign = tmp_path / "config.json"
    foreign.write_text('{"dim": 192}')
    assert "was not written by wanedit" in run_cli("calibrate", *made, "--table", str(foreign)).err
    assert foreign.read_text() == '{"dim": 192}'
    table = ("--table", str(tmp_path / "new.json"))
    one = run_cli("calibrate", *made, "--num_inference_steps=1", *table)
    assert "the network is asked at 1 noise levels; expected 2 or more" in one.err
    zero = ("--num_inference_steps=4", "--guidance=cfg_zero", "--guidance_options.zero_init=0.9")
    assert "asked at 0 noise levels" in run_cli("calibrate", *made, *zero, *table).err
