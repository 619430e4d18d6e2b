"""The workflow: retries with reasons, rejection, outage and resume, a damaged cache, what is never a result."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stylists.fake_stylist import PASS, FakeStylist, outage, reject
from wanedit.errors import InputError, ServiceError
from wanedit.runtime.events import parse_events
from wanedit.stylists.cache import Cache, Journal
from wanedit.stylists.protocol import (
    Analysed,
    RejectedKeyframesError,
    StyleGuide,
    StyleReference,
    Stylist,
    WrongResultError,
)
from wanedit.stylists.workflow import Outcome, Rules, Workflow

FRAMES = (0, 20, 41, 60)
REFERENCE = StyleReference(None, "a style")


def keyframes(count: int = 4) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(3)
    return tuple(generator.integers(0, 256, (24, 32, 3), np.uint8) for _ in range(count))


def go(stylist: Any, folder: Path, renew: bool = False, count: int = 4, **rules: Any) -> Outcome:
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    cache, journal = Cache(folder / "cache", renew), Journal(folder / "journal.jsonl")
    flow = Workflow(stylist, keyframes(count), FRAMES[:count], REFERENCE, Rules(**rules), cache, journal)
    return asyncio.run(flow.run())


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "journal.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def states(folder: Path, frame: int) -> list[str]:
    return [line["state"] for line in lines(folder) if line.get("frame") == frame]


def test_the_fake_is_a_stylist() -> None:
    assert isinstance(FakeStylist(), Stylist)


def test_every_keyframe_is_restyled_and_judged_once(tmp_path: Path) -> None:
    stylist = FakeStylist()
    outcome = go(stylist, tmp_path)
    assert [track.frame for track in outcome.tracks] == list(FRAMES)
    assert stylist.calls == {f"{kind} {k}": 1 for kind in ("restyle", "verify") for k in range(4)} | {
        "analyse 0": 1
    }
    for track, source in zip(outcome.tracks, keyframes(), strict=True):
        assert track.best.verdict.accepted
        assert np.array_equal(track.best.styled.image[5:], 255 - source[5:])


def test_the_first_is_made_alone_and_shown_to_all_others(tmp_path: Path) -> None:
    stylist = FakeStylist()
    outcome = go(stylist, tmp_path)
    first = outcome.tracks[0].best.styled.image
    assert stylist.requests[0].position == 0
    assert stylist.requests[0].first is None
    for request in stylist.requests[1:]:
        assert request.first is not None
        assert np.array_equal(request.first, first)
        assert request.guide == outcome.guide


def test_each_is_judged_beside_the_one_before_it(tmp_path: Path) -> None:
    stylist = FakeStylist()
    outcome = go(stylist, tmp_path)
    previous = dict(stylist.previous)
    assert previous[0] is None
    for k in (1, 2, 3):
        before = previous[k]
        assert before is not None
        assert np.array_equal(before, outcome.tracks[k - 1].best.styled.image)


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (2, 2), (8, 3)])
def test_calls_are_bounded(tmp_path: Path, limit: int, most: int) -> None:
    stylist = FakeStylist()
    go(stylist, tmp_path, concurrency=limit)
    assert stylist.most_running == most


def test_a_rejected_keyframe_is_made_again_with_the_reasons(tmp_path: Path) -> None:
    stylist = FakeStylist({1: [reject("too dark"), reject("a bottle is gone", structure=True), PASS]})
    outcome = go(stylist, tmp_path)
    told = [request.reasons for request in stylist.requests if request.position == 1]
    assert told == [(), ("too dark",), ("too dark", "a bottle is gone")]
    assert outcome.tracks[1].best.number == 3
    assert stylist.calls["restyle 2"] == 1
    assert states(tmp_path, 20) == ["restyled", "rejected"] * 2 + ["restyled", "accepted"]


def test_a_rejection_without_new_reasons_is_a_new_attempt(tmp_path: Path) -> None:
    stylist = FakeStylist({1: [reject("too dark"), reject("too dark"), PASS]})
    go(stylist, tmp_path)
    assert stylist.calls["restyle 1"] == 3


def test_the_first_is_settled_before_any_other_is_asked_for(tmp_path: Path) -> None:
    stylist = FakeStylist({0: [reject("too bright")]})
    with pytest.raises(RejectedKeyframesError):
        go(stylist, tmp_path)
    assert {request.position for request in stylist.requests} == {0}


def test_a_keyframe_that_never_passes_is_named_with_its_reasons(tmp_path: Path) -> None:
    stylist = FakeStylist({2: [reject("too dark"), reject("the belt is gone", structure=True)]})
    with pytest.raises(RejectedKeyframesError, match=r"frame 41: the belt is gone.*0, 20, 60 passed") as stop:
        go(stylist, tmp_path, retries=1)
    assert stop.value.rejected == {41: ("the belt is gone",)}
    assert stop.value.accepted == (0, 20, 60)
    assert stop.value.exit_code == 1
    assert states(tmp_path, 41)[-1] == "given_up"
    again = FakeStylist({2: [PASS]})
    outcome = go(again, tmp_path, retries=2)  # what was paid for is used: only the third attempt is new
    assert again.calls == {"restyle 2": 1, "verify 2": 1}
    assert outcome.tracks[2].best.number == 3


def test_keep_takes_the_best_attempt_and_says_so(tmp_path: Path) -> None:
    worse = reject("nothing fits", structure=True)
    stylist = FakeStylist({2: [reject("too dark"), worse, worse]})
    outcome = go(stylist, tmp_path, on_reject="keep")
    best = outcome.tracks[2].best
    assert (best.number, best.verdict.accepted) == (1, False)
    assert states(tmp_path, 41)[-1] == "kept"


def test_no_retries_means_one_attempt(tmp_path: Path) -> None:
    stylist = FakeStylist({1: [reject("no")]})
    with pytest.raises(RejectedKeyframesError, match="after 1 attempts"):
        go(stylist, tmp_path, retries=0)
    assert stylist.calls["restyle 1"] == 1


def test_a_finished_run_asks_nothing_again(tmp_path: Path) -> None:
    first = go(FakeStylist({1: [reject("too dark"), PASS]}), tmp_path)
    again = FakeStylist()
    second = go(again, tmp_path)
    assert not again.calls
    for a, b in zip(first.tracks, second.tracks, strict=True):
        assert np.array_equal(a.best.styled.image, b.best.styled.image)
        assert a.best.number == b.best.number
        assert b.best.cached


@pytest.mark.parametrize("call", ["analyse 0", "restyle 0", "verify 0", "restyle 2", "verify 3"])
def test_an_outage_ends_the_run_and_the_next_one_pays_only_for_the_rest(tmp_path: Path, call: str) -> None:
    kind, position = call.split()
    broken = FakeStylist({1: [reject("too dark"), PASS]}, outage(kind, int(position)))
    with pytest.raises(ServiceError, match="down"):
        go(broken, tmp_path)
    assert lines(tmp_path)[-1]["state"] in ("failed", "restyled", "accepted", "rejected")
    assert [line["error"] for line in lines(tmp_path) if line["state"] == "failed"] == [
        "ServiceError: the service is down"
    ]
    resumed = FakeStylist({1: [reject("too dark"), PASS]})
    outcome = go(resumed, tmp_path)
    whole = go(FakeStylist({1: [reject("too dark"), PASS]}), tmp_path / "uninterrupted")
    for a, b in zip(outcome.tracks, whole.tracks, strict=True):
        assert np.array_equal(a.best.styled.image, b.best.styled.image)
    total = broken.calls + resumed.calls
    total[call] -= 1  # the one that failed
    paid = {"analyse 0": 1} | {f"{kind} {k}": 1 for kind in ("restyle", "verify") for k in range(4)}
    assert total == paid | {"restyle 1": 2, "verify 1": 2}


def test_after_a_failure_what_is_under_way_is_kept_and_nothing_new_is_asked(tmp_path: Path) -> None:
    broken = FakeStylist(break_at=outage("restyle", 2))
    with pytest.raises(ServiceError):
        go(broken, tmp_path, concurrency=2)
    assert broken.calls["restyle 1"] == 1
    assert broken.calls["restyle 3"] == 0
    resumed = FakeStylist()
    go(resumed, tmp_path)
    assert resumed.calls["restyle 1"] == 0


def test_a_kill_in_the_middle_is_resumed(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(kind: str, position: int) -> None:
        if (kind, position) == ("verify", 2):
            raise Killed

    broken = FakeStylist(break_at=kill)
    with pytest.raises(Killed):
        go(broken, tmp_path, concurrency=1)
    resumed = FakeStylist()
    go(resumed, tmp_path)
    assert {name for name in resumed.calls if name.startswith("restyle")} == set()
    assert resumed.calls["verify 2"] == 1
    assert resumed.calls["verify 1"] == 0


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _swap(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        other = image.point([level // 2 for level in range(256)] * len(image.getbands()))
    other.save(path)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".png", _truncate),
        (".png", Path.unlink),
        (".png", _swap),
        (".json", _truncate),
        (".json", lambda path: path.write_text("[1]")),
        (".json", lambda path: path.write_text('{"key": "another"}')),
        (".json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    ],
)
def test_a_damaged_entry_is_made_again(tmp_path: Path, suffix: str, damage: Any) -> None:
    whole = go(FakeStylist(), tmp_path)
    picture = next((tmp_path / "cache").glob("*.png"))
    damage(picture.with_suffix(suffix))
    again = FakeStylist()
    outcome = go(again, tmp_path)
    assert sum(again.calls.values()) == 1
    for a, b in zip(outcome.tracks, whole.tracks, strict=True):
        assert np.array_equal(a.best.styled.image, b.best.styled.image)


@pytest.mark.parametrize(
    "damage", ['{"key": "K", "value": {"structure_kept": true}}', '{"key": "K", "value": 3}']
)
def test_a_damaged_verdict_is_never_a_pass(tmp_path: Path, damage: str) -> None:
    go(FakeStylist(), tmp_path, count=1)
    records = [p for p in (tmp_path / "cache").glob("*.json") if "structure_kept" in p.read_text()]
    key = json.loads(records[0].read_text())["key"]
    records[0].write_text(damage.replace("K", key))
    again = FakeStylist()
    go(again, tmp_path, count=1)
    assert again.calls == {"verify 0": 1}


def test_another_model_asks_everything_anew(tmp_path: Path) -> None:
    go(FakeStylist(), tmp_path)
    other = FakeStylist(model="fake-2")
    go(other, tmp_path)
    assert sum(other.calls.values()) == 9


def test_renew_reads_no_cache(tmp_path: Path) -> None:
    go(FakeStylist(), tmp_path)
    again = FakeStylist()
    go(again, tmp_path, renew=True)
    assert sum(again.calls.values()) == 9


def test_the_journal_has_one_timed_line_for_every_transition(tmp_path: Path) -> None:
    go(FakeStylist({1: [reject("too dark"), PASS]}), tmp_path)
    found = lines(tmp_path)
    assert found[0]["state"] == "analysed"
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)
    assert len(found) == 1 + 2 * 5
    rejected = next(line for line in found if line["state"] == "rejected")
    assert (rejected["frame"], rejected["attempt"]) == (20, 1)
    assert rejected["verdict"]["reasons"] == ["too dark"]


def test_a_torn_line_is_closed_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    go(FakeStylist(), tmp_path, count=1)
    path.write_bytes(path.read_bytes()[:-30])
    torn = len(path.read_bytes().splitlines())
    shutil.rmtree(tmp_path / "cache")
    go(FakeStylist(), tmp_path, count=1)
    assert len(path.read_bytes().splitlines()) == torn + 3
    found = [line for line in parse_events(path.read_bytes()) if line is not None]
    assert Analysed.model_validate({k: v for k, v in found[-3].items() if k != "time"})
    assert len(found) == torn - 1 + 3


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda image, request: image[:-1], r"expected uint8 \(24, 32, 3\)"),
        (lambda image, request: request.source.copy(), "source back"),
    ],
)
def test_what_is_no_result_is_refused_and_not_kept(tmp_path: Path, alter: Any, words: str) -> None:
    with pytest.raises(WrongResultError, match=words):
        go(FakeStylist(alter=alter), tmp_path)
    assert not list((tmp_path / "cache").glob("*.png"))
    go(FakeStylist(), tmp_path)


def test_a_black_frame_may_stay_black(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    black = (np.zeros((24, 32, 3), np.uint8),)
    stylist = FakeStylist(alter=lambda image, request: request.source.copy())
    cache, journal = Cache(tmp_path / "cache"), Journal(tmp_path / "j")
    outcome = asyncio.run(Workflow(stylist, black, (0,), REFERENCE, Rules(), cache, journal).run())
    assert outcome.tracks[0].best.verdict.accepted


@pytest.mark.parametrize(
    ("rules", "words"),
    [({"retries": -1}, "retries"), ({"concurrency": 0}, "concurrency"), ({"on_reject": "skip"}, "skip")],
)
def test_rules_that_make_no_sense(rules: dict[str, Any], words: str) -> None:
    with pytest.raises((InputError, Exception), match=words):
        Rules(**rules)


def test_further_keyframes_cost_only_themselves_where_the_stylist_says_so(tmp_path: Path) -> None:
    go(FakeStylist(), tmp_path, count=3)
    more = FakeStylist()
    go(more, tmp_path, count=4)
    assert more.calls == {"restyle 3": 1, "verify 3": 1}


def test_a_guide_that_differs_with_every_call_is_read_once(tmp_path: Path) -> None:
    class Moody(FakeStylist):
        async def analyse(self, reference: StyleReference, keyframes: Any) -> StyleGuide:
            self.calls["analyse 0"] += 1
            return StyleGuide(summary=f"mood {id(self)}")

    first = Moody()
    go(first, tmp_path, count=3)
    more = Moody()
    go(more, tmp_path, count=4)
    assert more.calls == {"restyle 3": 1, "verify 3": 1}
    pooling = Moody()
    pooling.pools_keyframes = True
    go(pooling, tmp_path, count=4)
    assert sum(pooling.calls.values()) == 9


def test_an_error_names_its_frame_and_keeps_its_class(tmp_path: Path) -> None:
    class BlockedError(ServiceError):
        pass

    def block(kind: str, position: int) -> None:
        if (kind, position) == ("restyle", 2):
            raise BlockedError("the picture was withheld")

    with pytest.raises(BlockedError, match=r"^frame 41: the picture was withheld$"):
        go(FakeStylist(break_at=block), tmp_path)


def test_what_a_run_was_billed_is_journalled_however_it_ends(tmp_path: Path) -> None:
    class Billed(FakeStylist):
        spent = (3, 0.25)

    with pytest.raises(ServiceError):
        go(Billed(break_at=outage("restyle", 0)), tmp_path)
    go(Billed(), tmp_path)
    bills = [line for line in lines(tmp_path) if line["state"] == "spent"]
    assert [(bill["calls"], bill["price_usd"]) for bill in bills] == [(3, 0.25)] * 2


def test_a_run_that_is_told_to_stop_says_so(tmp_path: Path) -> None:
    def stop(kind: str, position: int) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        go(FakeStylist(break_at=stop), tmp_path)
    assert lines(tmp_path)[-1]["state"] == "cancelled"


def test_a_stylist_may_advise_something_else_than_retries(tmp_path: Path) -> None:
    stylist = FakeStylist({0: [reject("no")]})
    with pytest.raises(RejectedKeyframesError, match="more --retries"):
        go(stylist, tmp_path / "a")
    stylist.advice = "take another colour"
    with pytest.raises(RejectedKeyframesError, match=r"none passed: take another colour$"):
        go(stylist, tmp_path / "b")
