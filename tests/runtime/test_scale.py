"""What grows with a run grows in step with it: operations are counted, not seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonargparse import _typehints

from tests.runs import FAST, draw_keyframe
from wanedit import commands
from wanedit.errors import InputError
from wanedit.jobs.ablate.grid import Grid
from wanedit.jobs.ablate.results import Results, Row, write_results
from wanedit.jobs.edit.config import EditConfig, check_edit
from wanedit.jobs.generate import assemble
from wanedit.jobs.generate.config import GenerationConfig, check
from wanedit.jobs.generate.plan import make_plan
from wanedit.runtime import inputs
from wanedit.runtime.directory import Entry, Manifest, RunDirectory
from wanedit.video.sheets import MOST, junction_indices, spread


def counting(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[int]:
    """How often a function is called, from now on."""
    calls, kept = [0], getattr(place, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        return kept(*arguments, **named)

    monkeypatch.setattr(place, name, counted)
    return calls


@pytest.mark.parametrize("there", [True, False], ids=["there", "missing"])
def test_ten_thousand_keyframes_in_words_are_looked_for_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    path = draw_keyframe(tmp_path / "a.png", 0) if there else tmp_path / "a.png"
    looks = counting(monkeypatch, inputs.os.path, "isfile")
    text = ",".join(f"{path}:{k / 4}" for k in range(10_000))
    if there:
        assert len(inputs.parse_keyframes(text)) == 10_000
    else:
        with pytest.raises(InputError, match="keyframe 0: no file"):
            inputs.parse_keyframes(text)
    assert looks[0] <= 20_000


@pytest.mark.parametrize("command", ["generate", "edit"])
def test_keyframes_of_a_config_file_are_not_copied_for_each_of_them(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    copies = counting(monkeypatch, _typehints, "deepcopy")
    pairs = [["1.png", k] for k in range(200)]
    found = commands.load(command).parser().parse_string(json.dumps({"keyframes": pairs}))
    assert found["keyframes"] == pairs
    assert copies[0] < 200


def test_a_path_may_still_hold_colons_and_commas(tmp_path: Path) -> None:
    odd = draw_keyframe(tmp_path / "a:0,b:1.5, c.png", 0)
    found = inputs.parse_keyframes(f"{odd}:0,{odd}:2.5")
    assert [(one.path, one.seconds) for one in found] == [(odd, 0.0), (odd, 2.5)]


def test_the_keyframes_of_a_plan_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw_keyframe(tmp_path / "a.png", 0)
    config = GenerationConfig(keyframes=[[str(path), k / 4] for k in range(50)], **FAST)
    planned = make_plan(config)
    held = [value for task in planned.tasks for value in vars(task).values()]
    held += [value for image in planned.keyframes for value in vars(image).values()]
    assert not any(hasattr(value, "nbytes") for value in held)
    first, last = planned.tasks[0].keyframes()
    assert first.shape == last.shape == planned.tasks[0].first.shape == (3, 32, 32)

    draw_keyframe(path, 5)
    with pytest.raises(InputError, match="has changed since the run was planned"):
        planned.tasks[0].keyframes()


def test_stitching_reads_the_journal_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, directory = draw_keyframe(tmp_path / "a.png", 0), RunDirectory(tmp_path, tmp_path / "film.mp4")
    directory.segments.mkdir()
    config = GenerationConfig(keyframes=[[str(path), k / 4] for k in range(9)], **FAST)
    planned, manifest = make_plan(config), Manifest(directory)
    for piece in planned.pieces:
        manifest.record(piece.digest, Entry(piece.index, f"{piece.index}.mkv", "", 5, "", 0.0, 0))
    blank = np.zeros((5, 32, 32, 3), np.uint8)
    monkeypatch.setattr(assemble, "read_frames", lambda path: blank)
    reads = counting(monkeypatch, Manifest, "read")
    assert sum(1 for _ in assemble.final_frames(planned, directory)) == planned.timeline.num_frames
    assert reads[0] == 1


def test_a_journal_is_written_whole_when_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = [Manifest(RunDirectory(tmp_path, tmp_path / "film.mp4")) for _ in range(2)]
    directory = manifests[0].directory
    directory.segments.mkdir()

    def record(names: range) -> None:
        for k in names:
            manifests[k % 2].record(f"{k:064x}", Entry(k, f"{k}.mkv", "0" * 64, 81, "0" * 64, 1.0, 0))

    writes = counting(monkeypatch, Manifest, "settle")
    record(range(300))
    assert (writes[0], directory.progress.exists()) == (0, False)
    assert set(manifests[0].read()) == {f"{k:064x}" for k in range(300)}
    # A line that a kill has torn is a segment that is not complete, and the next one is not lost to it.
    tail = manifests[1].tail
    tail.write_bytes(tail.read_bytes()[:-9])
    record(range(301, 302))
    assert {f"{k:064x}" for k in (*range(299), 301)} == set(manifests[0].read())
    # What is forgotten does not come back out of a worker's lines.
    manifests[0].forget({f"{301:064x}"})
    assert len(manifests[1].read()) == 299
    record(range(301, 303))
    # What an earlier version had beside its journal is read, too.
    manifests[1].tail.rename(directory.segments / "progress.jsonl")
    assert len(manifests[0].read()) == 301
    manifests[0].settle()
    assert not manifests[0].tails()
    assert set(json.loads(directory.progress.read_text())["segments"]) == set(manifests[0].read())
    assert len(manifests[0].read()) == 301


def test_a_sheet_of_joins_has_a_limit() -> None:
    joins = list(range(8, 80_000, 8))
    shown = spread(joins)
    assert len(shown) == MOST
    assert (shown[0], shown[-1]) == (joins[0], joins[-1])
    assert len(junction_indices(80_000, shown)) == 10 * MOST
    assert spread(joins[:MOST]) == joins[:MOST]


def test_tables_of_a_grid_look_at_each_row_a_fixed_number_of_times(tmp_path: Path) -> None:
    class Rows(list[Row]):
        looks = 0

        def __iter__(self):
            for row in super().__iter__():
                Rows.looks += 1
                yield row

    def looks(points: int) -> float:
        Rows.looks = 0
        rows = Rows(
            Row("", f"clip{c}", f"{c}", 0, (str(p),), "m", p + c) for p in range(points) for c in range(2)
        )
        grid = Grid("t", "s", "edit", {}, [{"shift": list(range(points))}], baseline={"shift": 0})
        write_results(grid, Results(["shift"], rows, {}), tmp_path, {})
        return Rows.looks / len(rows)

    assert looks(10) == looks(40) <= 3


@pytest.mark.parametrize(
    ("kind", "refuse", "name"),
    [
        (GenerationConfig, check, "prompt"),
        (GenerationConfig, check, "sub_prompts"),
        (EditConfig, check_edit, "source_prompt"),
    ],
)
def test_a_prompt_that_no_model_reads_is_refused(
    kind: type, refuse: Callable[[Any], None], name: str
) -> None:
    text = "x" * 20_000_000
    with pytest.raises(InputError, match=f"{name} has 20000000 characters; expected at most 100000"):
        refuse(kind(**{name: [text] if name == "sub_prompts" else text}))


def test_a_time_is_found_among_frames_as_before() -> None:
    class Source:
        times = (0.0, 0.1, 0.25, 0.3, 0.5)  # four frames and the end

    for seconds in np.linspace(0, 0.5, 101):
        nearest = min(range(4), key=lambda i: abs(Source.times[i] - seconds))
        assert inputs._frame_at(float(seconds), 0, "a.png", Source)[0] == nearest  # pyright: ignore[reportArgumentType]
