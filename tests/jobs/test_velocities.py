"""What the network answered is kept while a segment or an edit is made: a stop, a kill and a task that is handed over
cost no answer that was written, and change no byte."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import FAST, Run
from wanedit import EditConfig, EditResult, GenerationConfig, GenerationResult, edit
from wanedit.errors import NumericalError
from wanedit.jobs.generate.plan import make_plan
from wanedit.lit.tasks import cost
from wanedit.runtime import claims
from wanedit.runtime.claims import Queue
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.leftovers import leftovers
from wanedit.wan.transformer import WanTransformer

STEPS: dict[str, Any] = {"num_inference_steps": 6}


class Network:
    """The network, which counts how often it is asked.

    Attributes:
        before: what happens before it is asked for the n-th time, by n.
        answers: what it says the n-th time in its own answer's place, by n.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.before: dict[int, Callable[[], object]] = {}
        self.answers: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        velocity = WanTransformer.velocity

        def counted(module: WanTransformer, *given: Any) -> torch.Tensor:
            self.asked += 1
            self.before.pop(self.asked, lambda: None)()
            own = velocity(module, *given)
            return self.answers.pop(self.asked, lambda v: v)(own)

        monkeypatch.setattr(WanTransformer, "velocity", counted)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer is written when it is there."""
    monkeypatch.setattr("wanedit.runtime.predict.EVERY", 0.0)


def killed() -> None:
    raise RuntimeError("killed")


def stopped() -> None:
    raise SystemExit(143)


def latents_of(result: GenerationResult | EditResult) -> list[str]:
    journal = json.loads((result.video.parent / "segments" / "progress.json").read_text())["segments"]
    return sorted(one["latents_sha256"] for one in journal.values() if one["latents_sha256"])


def lines(result: GenerationResult | EditResult, event: str) -> list[dict[str, Any]]:
    text = (result.video.parent / "metrics.jsonl").read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def velocities(out: Path) -> list[str]:
    return sorted(path.name[:12] for path in out.rglob("velocity_*"))


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "unipc"},
        {"solver": "heun"},
        {"solver": "renoise", "num_inference_steps": 8},
        {"cache": "easycache", "num_inference_steps": 12, "cache_options": {"threshold": 1.0}},
        {"guidance": "apg", "solver": "dpm++"},
    ],
    ids=lambda settings: str(next(iter(settings.values()))),
)
def test_a_killed_segment_goes_on_where_it_was_with_the_same_bytes(
    run: Run, tmp_path: Path, network: Network, at_once: None, settings: dict[str, Any]
) -> None:
    settings = STEPS | settings
    whole = run(**settings, output=str(tmp_path / "whole"))
    total, network.asked = network.asked, 0
    each = total // 3
    network.before = {each + 5: killed}
    with pytest.raises(RuntimeError, match="killed"):
        run(**settings)
    out = tmp_path / "out"
    assert velocities(out) == [f"velocity_{k:03d}" for k in range(4)]
    result = run(**settings)
    assert network.asked == total + 1
    assert latents_of(result) == latents_of(whole)
    assert velocities(out) == []
    told = [line.get("replayed", 0) for line in lines(result, "segment")]
    assert [count > 0 for count in told] == [False, True, False]
    assert [line["evaluations"] for line in lines(result, "segment")] == [
        line["evaluations"] for line in lines(whole, "segment")
    ]


@pytest.mark.fault(36)
def test_what_is_made_sooner_than_it_is_written_leaves_no_file_but_at_a_stop(
    run: Run, tmp_path: Path, network: Network
) -> None:
    out = tmp_path / "out"
    network.before = {3: killed}
    with pytest.raises(RuntimeError, match="killed"):
        run(**STEPS)
    assert velocities(out) == []
    network.before = {network.asked + 4: stopped}
    with pytest.raises(SystemExit):
        run(**STEPS)
    assert velocities(out) == ["velocity_000", "velocity_001", "velocity_002"]
    plan = make_plan(GenerationConfig(**read_of(out)))
    # They are to be gone on from, by this run; not by one of other settings.
    directory = RunDirectory(out, out / "output_final.mp4")
    assert not [one for one in leftovers(directory, plan.digests) if one.path.name.startswith("velocity")]
    settings: dict[str, Any] = read_of(out) | {"base_seed": 8}
    other = make_plan(GenerationConfig(**settings))
    found = [one for one in leftovers(directory, other.digests) if one.path.name.startswith("velocity")]
    assert len(found) == 3
    # Made anew is anew.
    asked = network.asked
    run(**STEPS, force_regenerate=True)
    assert network.asked - asked == 3 * 6


def read_of(out: Path) -> dict[str, Any]:
    from wanedit.runtime.record import read_settings
    from wanedit.runtime.settings import canonical

    return canonical(read_settings(out / "config.yaml"))


def test_an_answer_that_is_not_finite_is_asked_for_again(
    run: Run, tmp_path: Path, network: Network, at_once: None
) -> None:
    network.answers = {3: lambda v: torch.full_like(v, torch.nan)}
    with pytest.raises(NumericalError, match="step 2"):
        run(**STEPS)
    assert velocities(tmp_path / "out") == ["velocity_000", "velocity_001"]
    run(**STEPS)
    assert network.asked == 3 + 3 * 6 - 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "flowedit"},
        {"controller": "covariance"},
        {"controller": "covariance", "method_options": {"derivative": "forward"}},
    ],
    ids=lambda settings: "-".join(str(settings).split("'")[1::2][1:]) or "default",
)
def test_a_killed_edit_goes_on_where_it_was_with_the_same_bytes(
    edit_config: Callable[..., EditConfig],
    tmp_path: Path,
    network: Network,
    at_once: None,
    settings: dict[str, Any],
) -> None:
    whole = edit(edit_config(**STEPS, **settings, output=str(tmp_path / "whole")), verbose=False)
    total, network.asked = network.asked, 0
    network.before = {total // 2: killed}
    config = edit_config(**STEPS, **settings, output=str(tmp_path / "out"))
    with pytest.raises(RuntimeError, match="killed"):
        edit(config, verbose=False)
    kept = len(velocities(tmp_path / "out"))
    assert kept > 0
    result = edit(config, verbose=False)
    # A derivative's answers, which are no tensors of their own, are asked for again.
    assert network.asked == total // 2 + total - kept
    assert kept == total // 2 - 1 or "forward" in str(settings)
    assert latents_of(result) == latents_of(whole)
    assert velocities(tmp_path / "out") == []
    [line] = lines(result, "edited")
    assert line["replayed"] >= kept


def test_a_task_that_another_asks_for_is_handed_over_with_all_that_was_made_of_it(
    run: Run, keyframes: list[Any], tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(**STEPS, output=str(tmp_path / "whole"))
    total, network.asked = network.asked, 0
    monkeypatch.setenv(claims.LEASE_VARIABLE, "2")
    monkeypatch.setattr(claims, "BEGINNING", -1e6)
    monkeypatch.setattr(claims, "LOOK", 0.05)
    settings: dict[str, Any] = FAST | STEPS | {"keyframes": keyframes, "output": str(tmp_path / "out")}
    # The longest, which is sampled first.
    last = make_plan(GenerationConfig(**settings)).tasks[-1:]
    got, found = [], []

    def other() -> None:
        """Asks, gets the task when it is let go, and leaves."""
        queue = Queue(tmp_path / "out")
        with queue.working():
            queue.pace = 0.0
            while queue._asks is None:
                queue.ask(last, cost)
            ready.set()
            while (task := queue.take(last)) is None:
                time.sleep(0.01)
            got.append(task)
            found.extend(velocities(tmp_path / "out"))

    ready, thread = threading.Event(), threading.Thread(target=other)

    def begin() -> None:
        thread.start()
        assert ready.wait(20)

    # Two of its steps were timed by then.
    network.before = {3: begin}
    result = run(**STEPS)
    thread.join(20)
    assert got == [*last]
    assert found == ["velocity_000", "velocity_001", "velocity_002"]
    # By whoever has it next, here this process again.
    assert network.asked == total
    assert latents_of(result) == latents_of(whole)
    assert [line.get("replayed", 0) > 0 for line in lines(result, "segment")].count(True) == 1
    assert velocities(tmp_path / "out") == []
    assert not (tmp_path / "out" / ".queue").exists()
