"""What a run is at, and when it will be over, as the board is told."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from wanedit.board.worker import Progress, Told, Took
from wanedit.progress import counting, listening


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Now, in seconds, for whoever asks."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def run(told: Told, clock: list[float], segments: int, frames: int) -> list[float | None]:
    """Starts in 5 s, loads in 10 s, then 2 s a step of four, 3 s a segment, 1 s a frame; what is said to be left."""
    left = [told.progress.left]
    clock[0] += 5
    with listening(told.counting):
        for label, unit, count, first, each in (
            ("sampling on 2 ranks", "steps", 4 * segments, 10, 2),
            ("decoding", "segments", segments, 0, 3),
            ("stitching", "frames", frames, 0, 1),
        ):
            with counting(label, unit, count) as advance:
                clock[0] += first
                for _ in range(count):
                    left.append(Progress.read(told.path).left)
                    clock[0] += each
                    with counting("reading", "pictures", 1) as inner:  # a part of it
                        inner()
                    advance()
    told.over()
    return left


def test_the_end_of_a_run_is_foretold_by_the_one_before(tmp_path: Path, clock: list[float]) -> None:
    file = tmp_path / "progress.json"
    assert Progress.read(file) == Progress()
    file.write_text(json.dumps(asdict(Progress(began=clock[0]))))
    first = run(Told(file), clock, 2, 17)
    assert first[:2] == [None, None], "of what never ran nothing is known"
    assert first[2] == pytest.approx(12 * 7), (
        "of the stage alone, as if the model were loaded anew for every step"
    )
    assert first[3] == pytest.approx(12), "once there are two steps, without what came before the first"
    known = Progress.read(file)
    assert known.took["sampling"] == Took("steps", 8, 12, 14)
    assert (known.label, known.expected, known.begun) == ("starting", {}, ())
    # Three segments in the place of two, of which the plan says what they take.
    expected = known.foretell({"sampling": 24}, {"frames": 25, "segments": 3})
    assert expected == {"starting": 5, "sampling": 36, "decoding": 9, "stitching": 25}
    file.write_text(json.dumps(asdict(Progress(began=clock[0], expected=expected, took=known.took))))
    began = clock[0]
    left = run(Told(file), clock, 3, 25)
    whole = clock[0] - began
    assert (whole, left[0]) == (73, 75)
    said = [one for one in left if one is not None]
    assert len(said) == len(left)
    assert said == sorted(said, reverse=True)
    assert said[3] == pytest.approx(20 + 34), "two of twelve steps are done"
    assert said[-1] == pytest.approx(1)


def test_what_is_foretold_knows_what_has_nothing_to_do() -> None:
    took = {
        "starting": Took("", 1, 5, 0),
        "sampling": Took("steps", 8, 12, 14),
        "stitching": Took("frames", 5, 1, 4),
    }
    found = Progress(took=took).foretell({"sampling": 0.0}, {"frames": 9})
    assert found == {"starting": 5, "sampling": 0, "stitching": 9}
    assert Progress(took={"sampling": took["sampling"]}).foretell({"sampling": 3.0}, {}) == {}
