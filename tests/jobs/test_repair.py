"""Joins that show are tried again: what is tried, what stays, what a stop between leaves, and who is told."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import FAST, Run, draw_keyframe, run_cli
from wanedit import GenerationConfig, GenerationResult
from wanedit.files import append_line
from wanedit.jobs.generate import repair
from wanedit.jobs.generate.plan import Plan, make_plan
from wanedit.jobs.generate.repair import Judge, Verdict, score, state
from wanedit.jobs.generate.run import FILM
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.tasks import SegmentTask
from wanedit.metrics.functional.junctions import Transitions
from wanedit.runtime.claims import Queue
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.leftovers import last_started, leftovers
from wanedit.runtime.record import read_run, read_settings, recorded_config, write_record
from wanedit.video import read_frames


@pytest.fixture
def four(tmp_path: Path) -> list[list[Any]]:
    """Keyframes of three segments of 17, 17 and 13 frames."""
    return [[str(draw_keyframe(tmp_path / f"b{k}.png", 3 * k)), t] for k, t in enumerate((0, 1, 2, 2.7))]


# Its joins show: two steps of a model that knows no such pictures.
ROUGH: dict[str, Any] = {"num_inference_steps": 4, "bridge_sigma": 0.8, "crf": 0}


def events(result: GenerationResult, *kinds: str) -> list[dict[str, Any]]:
    lines = (result.video.parent / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] in kinds]


def test_a_run_that_is_stopped_while_it_repairs_comes_to_the_same(
    run: Run, four: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"keyframes": four, "repair": 2, **ROUGH}
    whole = run(**settings, output=str(tmp_path / "whole"))
    attempts = events(whole, "repair")
    assert [one["what"] for one in attempts[:1]] == ["bridge"]
    assert {(one["join"], one["attempt"]) for one in attempts} <= {(j, n) for j in (16, 32) for n in (1, 2)}
    assert all(one["kept"] == (one["score"] < one["best"]) for one in attempts)
    sample, left = FLF2VChain.predict_step, [5]

    def stopped(self: FLF2VChain, batch: SegmentTask, batch_idx: int = 0) -> object:
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("killed")
        return sample(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(FLF2VChain, "predict_step", stopped)
        with pytest.raises(RuntimeError, match="killed"):
            run(**settings)
    assert len(read_settings(tmp_path / "out" / "config.yaml")["takes"]) == 0
    result = run(**settings)
    told = ("join", "attempt", "what", "index", "take", "score", "kept", "state")
    assert [[one[name] for name in told] for one in events(result, "repair")] == [
        [one[name] for name in told] for one in attempts
    ]
    assert result.segments == whole.segments
    assert np.array_equal(read_frames(result.video), read_frames(whole.video))
    # Once done it is done, from the same settings and from its record.
    count = len(events(result, "judged", "repair", "repaired"))
    assert run(**settings).sampled == ()
    directory = RunDirectory(tmp_path / "out", result.video)
    # Another launch that waited for the film comes to the takes that it has.
    metrics = tmp_path / "out" / "metrics.jsonl"
    *lines, wrote = metrics.read_text().splitlines(keepends=True)
    assert json.loads(wrote)["event"] == "wrote"
    metrics.write_text("".join(lines))
    recorded = read_settings(directory.config) | {"takes": [], "bridge_takes": []}
    write_record(
        directory, recorded_config(GenerationConfig, recorded, tmp_path)
    )  # as before the film was there
    busy = Queue(tmp_path / "out")
    with busy.working():
        assert busy.take([FILM])

        def stitch() -> None:
            while not any(one and one.doing == "waits for others" for one in busy.workers().values()):
                time.sleep(0.05)
            append_line(metrics, wrote.strip())

        stitching = threading.Thread(target=stitch, daemon=True)
        stitching.start()
        helped = run(**settings)
        stitching.join()
    assert (helped.segments, helped.sampled) == (whole.segments, ())
    assert metrics.read_text().splitlines(keepends=True) == [*lines, wrote]
    again = run_cli("generate", "--config", str(tmp_path / "out" / "config.yaml"), "--quiet")
    assert again.code == 0, again.err
    assert len(events(result, "judged", "repair", "repaired")) == count
    assert np.array_equal(read_frames(result.video), read_frames(whole.video))
    assert leftovers(directory, last_started(directory)) == []


def test_what_stays_is_judged_as_evaluate_does(run: Run, four: list[list[Any]]) -> None:
    result = run(keyframes=four, repair=1, **ROUGH)
    made = read_run(result.video.parent)
    assert made.repaired is not None
    assert made.repaired.video is not None
    [end] = events(result, "repaired")
    now, was = (Transitions.of(clip).scores(made.junctions) for clip in (made.video, made.repaired.video))
    assert made.repaired.joins
    for join, told in made.repaired.joins.items():
        for film, verdict in ((now, told["after"]), (was, told["before"])):
            worst = max(one.severity for one in film[join].values())
            assert verdict["severity"] == pytest.approx(worst, rel=0.1)
    assert any(one.shows for scores in was.values() for one in scores.values())
    assert read_settings(result.video.parent / "config.yaml")["bridge_takes"] == end["takes"][1]
    # Trackers know it by what it began with, which is what they were told.
    assert list(made.digests) == end["from_segments"]


def test_measuring_what_changed_is_measuring_all(run: Run, four: list[list[Any]], tmp_path: Path) -> None:
    settings: dict[str, Any] = {"keyframes": four, **ROUGH}
    run(**settings)
    run(**settings, takes=[0, 0, 1])
    given: dict[str, Any] = FAST | settings | {"output": str(tmp_path / "out")}
    first, other = (make_plan(GenerationConfig(**given, takes=takes)) for takes in ([], [0, 0, 1]))
    judge = Judge(RunDirectory(tmp_path / "out", tmp_path / "out" / "output_final.mp4"))
    judge(first, [1, 2])
    assert judge(other, [1, 2]) == Judge(judge.directory)(other, [1, 2])
    assert state(first) != state(other)


def test_measuring_a_stretch_is_measuring_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs begins with the keyframe of its first segment, which nothing here restores."""
    pictures = [[str(draw_keyframe(tmp_path / f"b{k}.png", k)), 0.5 * k] for k in range(8)]
    given: dict[str, Any] = FAST | {"keyframes": pictures, "output": str(tmp_path / "out"), "restore": "none"}
    takes = [0, 0, 0, 0, 0, 1, 0]
    first, other = (make_plan(GenerationConfig(**given, takes=those)) for those in ([], takes))
    segments, rng = first.timeline.segments, np.random.default_rng(0)
    film = rng.integers(0, 255, (first.timeline.num_frames, 32, 32, 3), dtype=np.uint8)
    changed = film.copy()
    changed[segments[5].start :] = rng.integers(0, 255, (len(film) - segments[5].start, 32, 32, 3))
    films, read = {state(first): film, state(other): changed}, list[int]()

    def frames(plan: Plan, directory: RunDirectory, low: int = 0, high: int | None = None) -> np.ndarray:
        part = films[state(plan)][segments[low].start : segments[-1 if high is None else high].end + 1]
        read.append(len(part))
        return part

    monkeypatch.setattr(repair, "final_frames", frames)
    judge = Judge(RunDirectory(tmp_path / "out", tmp_path / "out" / "output_final.mp4"))
    judge(first, [1])
    partly = judge(other, [5, 6])
    assert read[0] == len(film) > read[1]
    assert partly == Judge(judge.directory)(other, [5, 6])
    assert judge.last is not None
    np.testing.assert_equal(judge.last[1].values, Transitions.of(changed).values)


def test_what_is_said_of_a_film_is_not_said_of_one_whose_keyframes_moved(tmp_path: Path) -> None:
    def plan(moved: float) -> Plan:
        times = (0, moved, 15 / 8, 3)
        pictures = [[str(draw_keyframe(tmp_path / f"b{k}.png", 3 * k)), t] for k, t in enumerate(times)]
        return make_plan(GenerationConfig(**FAST | {"keyframes": pictures, "fps": 8}))

    one, other = plan(7 / 8), plan(1)
    # The same frames are sampled, and retimed to other places.
    assert [piece.digest for piece in one.pieces] == [piece.digest for piece in other.pieces]
    assert state(one) != state(other)


def test_a_join_that_does_not_show_costs_nothing(
    run: Run, four: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = Verdict(0.9, "mse", 0, {})
    monkeypatch.setattr(repair.Judge, "__call__", lambda self, plan, joins: dict.fromkeys(joins, calm))
    result = run(keyframes=four, repair=3, **ROUGH)
    assert result.sampled == (0, 1, 2)
    assert events(result, "repair") == []
    assert [path.name for path in (result.video.parent / "segments").glob("bridge*")] == []


def test_attempts_end_where_they_must(
    run: Run, four: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first join is never any better, whatever is tried; the second is mended by another take of its segment."""

    def judged(self: Judge, plan: Any, joins: Any) -> dict[int, Verdict]:
        mended = bool(plan.config.takes and plan.config.takes[2])
        found = {1: Verdict(2.0, "mse", 0, {}), 2: Verdict(0.5 if mended else 3.0, "turn", 2, {})}
        return {k: found[k] for k in joins}

    monkeypatch.setattr(repair.Judge, "__call__", judged)
    result = run(keyframes=four, repair=3, **ROUGH)
    tried = [
        (one["join"], one["what"], one["index"], one["take"], one["kept"]) for one in events(result, "repair")
    ]
    assert tried == [
        (16, "bridge", 1, 1, False),
        (16, "segment", 0, 1, False),
        (16, "segment", 0, 2, False),
        (32, "bridge", 2, 1, False),
        (32, "segment", 2, 1, True),
    ]
    assert read_settings(result.video.parent / "config.yaml")["takes"] == [0, 0, 1]
    assert result.sampled == (0, 1, 2)


def test_a_journal_that_somebody_wrote_in_says_what_can_be_read_of_it(
    run: Run, four: list[list[Any]]
) -> None:
    result = run(keyframes=four, repair=1, **ROUGH)
    folder = result.video.parent
    journal = folder / "metrics.jsonl"
    [end] = events(result, "repaired")
    [tried, *_] = end["joins"].values()
    verdict = tried["before"]
    wrong: list[dict[str, Any]] = [
        {"event": "segment", "digest": {}, "evaluations": 1},
        {"event": "segment", "digest": "0", "evaluations": [1]},
        {"event": "judged", "state": [], "verdicts": {}},
        {"event": "judged", "state": end["state"], "verdicts": {"1": verdict, "2": verdict | {"worse": 99}}},
        {"event": "repair", "state": end["state"], "verdicts": {"one": verdict}},
        {"event": "repair", "state": end["state"], "verdicts": {"7": verdict}},
        {"event": "repaired"},
        end | {"repair": "often"},
        end | {"from_takes": None},
        end | {"joins": {"16": {"before": 1, "after": 2, "attempts": 3}}},
        end | {"joins": [tried]},
    ]
    with journal.open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in wrong)
    made = read_run(folder)
    assert made.repaired is not None
    assert {*made.repaired.joins} == {int(join) for join in end["joins"]}
    # Two attempts a join are more than it was repaired with: what was written in is judged anew, not believed.
    assert run(keyframes=four, repair=2, **ROUGH).video == result.video


def test_fewer_joins_that_show_are_better_than_a_lower_sum() -> None:
    def of(*severities: float) -> list[float]:
        return score([Verdict(value, "mse", 0, {}) for value in severities])

    assert of(5.0, 0.5) < of(1.1, 1.1)
    assert of(1.2, 0.5) < of(1.3, 0.5)


def test_a_clip_too_short_to_judge_is_told_and_made(run: Run, keyframes: list[list[Any]]) -> None:
    plan = make_plan(GenerationConfig(**FAST | {"keyframes": keyframes, "repair": 1}))
    assert any("nothing is repaired, for the joins cannot be judged" in note for note in plan.warnings)
    assert run(repair=1).sampled == (0, 1, 2)


def test_the_plan_says_what_it_may_cost(four: list[list[Any]], tmp_path: Path) -> None:
    keyframes = ",".join(f"{path}:{seconds}" for path, seconds in four)
    told = run_cli(
        "generate",
        "--keyframes",
        keyframes,
        "--repair",
        "2",
        "--dry_run",
        "--size",
        "32*32",
        "--output",
        str(tmp_path / "o"),
    )
    assert told.code == 0, told.err
    assert "repair     at most 4 attempts, 2 at each of 2 joins that show" in told.out
