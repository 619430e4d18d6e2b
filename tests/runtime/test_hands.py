"""Tasks that are made where a run's folder is not seen: what goes there and comes back, without Ray."""

import json
import pickle
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.jobs.test_faults import hashes
from tests.runs import EDIT, EditRun, Inputs, Run, draw_keyframe, run_cli
from wanedit import EditResult, GenerationResult
from wanedit.errors import HandedOver, NumericalError, ResourceError
from wanedit.lit.co_denoise import CoDenoiser
from wanedit.lit.tasks import CoDenoising, Work
from wanedit.runtime.claims import Queue
from wanedit.runtime.hands import Hand, Order, through
from wanedit.runtime.launchers import work
from wanedit.runtime.predict import making
from wanedit.video import read_frames


class Wire:
    """A hand at the end of a wire that carries bytes alone."""

    def __init__(self) -> None:
        self.hand, self.sent = Hand(), list[tuple[Work, bytes]]()

    def __call__(self, *given: Any) -> Generator[Any, None, None]:
        self.sent.append((given[1], pickle.dumps(given)))
        try:
            for said in self.hand.make(*pickle.loads(self.sent[-1][1])):
                yield pickle.loads(pickle.dumps(said))
        except GeneratorExit:
            self.hand = Hand()  # the other's process is ended
            raise


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Whatever is predicted goes through it."""
    made = Wire()
    with making(through(made)):
        yield made


def test_a_film_made_elsewhere_has_the_same_bytes(
    finished: GenerationResult, run: Run, wire: Wire, tmp_path: Path
) -> None:
    made = run(save_latents=True)
    assert hashes(tmp_path / "out") == hashes(finished.video.parent)
    assert np.array_equal(read_frames(made.video), read_frames(finished.video))
    assert len(wire.sent) == 6  # three segments, three pieces that are decoded
    for task, sent in wire.sent:
        # Nothing there is read from where it lies.
        assert str(tmp_path).encode() not in pickle.dumps(task)
        assert b"KeyframeImage" not in sent
    events = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"] == "segment"]
    assert all(event["peak_memory"] > 0 and event["evaluations"] == 4 for event in told)


def test_the_networks_stay_from_one_task_to_the_next(
    run: Run, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wanedit.lit import networks

    real, loaded = networks.load_transformer, list[int]()
    monkeypatch.setattr(
        "wanedit.lit.networks.load_transformer", lambda *given: loaded.append(1) or real(*given)
    )
    run()
    assert loaded == [1]


@pytest.fixture
def longer(tmp_path: Path) -> list[list[Any]]:
    """Keyframes of segments that are long enough for a bridge."""
    return [[str(draw_keyframe(tmp_path / f"{k}.png", 4 * k)), t] for k, t in enumerate((0, 0.75, 1.5))]


def test_bridges_go_with_the_latents_that_they_read(
    run: Run, longer: list[list[Any]], tmp_path: Path
) -> None:
    settings = {"keyframes": longer, "joins": "bridge", "num_inference_steps": 4, "preview": 1}
    run(**settings, output=str(tmp_path / "here"))
    with making(through(wire := Wire())):
        run(**settings)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "here")
    assert [task.name for task, _ in wire.sent].count("bridge 1") == 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_state_that_is_stopped_goes_on_elsewhere(
    run: Run, longer: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"keyframes": longer, "joins": "co_denoise", "num_inference_steps": 4, "co_sigma": 0.7}
    gather, asked, stop = CoDenoiser.gather, list[int](), 0

    def counted(self: CoDenoiser, task: CoDenoising, *given: Any) -> Any:
        asked.append(1)
        if len(asked) == stop:
            raise NumericalError("stopped")
        return gather(self, task, *given)

    monkeypatch.setattr(CoDenoiser, "gather", counted)
    run(**settings, output=str(tmp_path / "here"))
    whole = len(asked)
    stop = whole + 2
    with making(through(Wire())):
        with pytest.raises(NumericalError, match="stopped"):
            run(**settings)
        # As it was there: what it came to is kept, and not asked for again.
        assert len(list((tmp_path / "out" / "segments").glob("velocity_*"))) == 1
        run(**settings)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "here")
    assert len(asked) == whole + 2 + (whole - 1)
    assert not list(tmp_path.rglob("velocity_*"))


def test_a_segment_that_is_handed_over_goes_on_from_there(
    finished: GenerationResult, run: Run, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, stepped = Queue.stepped, list[tuple[str, int, bool]]()

    def ask(self: Queue, step: int, steps: int, replayed: bool) -> None:
        stepped.append((self.task, step, replayed))
        if len(stepped) == 1:
            raise HandedOver
        real(self, step, steps, replayed)

    monkeypatch.setattr(Queue, "stepped", ask)
    first = wire.hand
    run(save_latents=True)
    assert wire.hand is not first
    assert hashes(tmp_path / "out") == hashes(finished.video.parent)
    again = [(step, replayed) for task, step, replayed in stepped if task == stepped[0][0]]
    assert again == [(1, False), (1, True), (2, False)]
    events = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [event.get("replayed") for event in events if event["event"] == "segment"].count(2) == 1


def test_an_edit_made_elsewhere_has_its_steps_on_record(
    edited: EditResult, run_edit: EditRun, wire: Wire, tmp_path: Path
) -> None:
    made = run_edit(save_latents=True)
    assert np.array_equal(made.frames, edited.frames)
    assert made.keyframe_error == edited.keyframe_error
    ours, theirs = (
        [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
        for root in (tmp_path / "out", edited.video.parent)
    )
    steps = [[event for event in events if event["event"] == "step"] for events in (ours, theirs)]
    assert steps[0] == steps[1] != []


@pytest.mark.usefixtures("wire")
def test_a_hand_with_other_weights_makes_nothing_and_fails_no_run(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanedit.runtime.launchers.run_actors", lambda *given: None)
    monkeypatch.setattr("wanedit.runtime.launchers._library", lambda name: None)
    one = {"video": str(inputs.video), "keyframes": inputs.keyframes(0, 8), "prompt": "a blue square"}
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([one | EDIT | {"name": name} for name in "ab"]))
    words = ["edit", str(tmp_path / "list.yaml"), "--output", str(tmp_path / "out"), "--launcher=ray"]
    assert run_cli(*words).code == 0
    real = Hand.take

    def other(self: Hand, order: Order) -> None:
        changed = dict.fromkeys(order.decides, "0" * 64)
        real(self, Order(order.module, order.config, changed, order.told))

    with monkeypatch.context() as there:
        there.setattr(Hand, "take", other)
        with pytest.raises(
            ResourceError, match=r"the node .*: .* of tiny is another than .*; expected the same"
        ):
            work(tmp_path / "out", verbose=False)
    assert not list((tmp_path / "out" / "runs").glob("*/failure.json"))
    assert work(tmp_path / "out", verbose=False).failed == 0


def test_what_fails_there_fails_here(run: Run, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> None:
        raise NumericalError("segment 1: not finite")

    monkeypatch.setattr("wanedit.lit.chain.FLF2VChain.sample", fail)
    with pytest.raises(NumericalError, match="not finite"):
        run()
