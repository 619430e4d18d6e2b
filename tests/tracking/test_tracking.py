"""Tracking: the record of what was logged, the backends' files read back, and that no failure reaches the run."""

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.disk import room
from tests.runs import EditRun, Run
from wanedit import EditConfig, EditResult, GenerationResult, edit
from wanedit.errors import InputError
from wanedit.interrupts import Interrupted
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.run import evaluate
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.plan import make_plan
from wanedit.runtime.events import append_event
from wanedit.tracking import TRACKERS, RunInfo, Tracker, TrackingSettings, check_tracking, guard, open_tracker
from wanedit.tracking.guard import Tracking
from wanedit.tracking.record import Record, find_record, new_rows, save_record, write_metrics_csv

TRACKED = {"tracking": "wandb", "experiment": "e1", "tracking_project": "p1"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Spy(Tracker):
    """Remembers what it was told; fails where it is asked to."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.told: list[tuple[Any, ...]] = []
        self.run: RunInfo | None = None

    def start(self, run: RunInfo) -> str:
        self.run = run
        self._tell("start")
        return ""

    def log(self, series: str, index: int, values: Any) -> None:
        self._tell("log", series, index, dict(values))

    def summary(self, values: Any) -> None:
        self._tell("summary", dict(values))

    def table(self, name: str, rows: Any) -> None:
        self._tell("table", name, list(rows))

    def artifact(self, name: str, files: Any, digest: str) -> None:
        self._tell("artifact", digest)

    def finish(self, exit_code: int) -> str:
        self._tell("finish", exit_code)
        return ""

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        if self.fail in (what[0], "all"):
            raise RuntimeError(f"{what[0]} failed\nwith details")

    def names(self) -> list[str]:
        return [what[0] for what in self.told]


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Spy]]:
    """Put spies in place of every backend; returns the list that they join."""

    def install(fail: str = "") -> list[Spy]:
        made: list[Spy] = []

        class Made(Spy):
            def __init__(self) -> None:
                super().__init__(fail)
                made.append(self)

        monkeypatch.setattr(guard, "TRACKERS", dict.fromkeys(TRACKERS, Made))
        return made

    return install


def test_tracking_decides_no_pixels(
    edit_config: Callable[..., EditConfig], keyframes: list, tmp_path: Path
) -> None:
    plain, tracked = (make_edit_plan(edit_config(**changes)) for changes in ({}, TRACKED))
    assert plain.task.digest == tracked.task.digest
    config = GenerationConfig(keyframes=keyframes, size="32*32", base_seed=7, cpu_threads=1)
    segments = [[task.digest for task in make_plan(c).tasks] for c in (config, replace(config, **TRACKED))]  # pyright: ignore
    assert segments[0] == segments[1]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tracking_project": ""}, "tracking_project is ''"),
        ({"tracking_project": "a/b"}, "tracking_project is 'a/b'"),
        ({"experiment": "x" * 129}, "experiment has 129 characters"),
        ({"run_name": "x" * 129}, "run_name has 129 characters"),
        ({"tags": "a, " + "x" * 65}, "a word of tags has 65 characters"),
        ({"tracking": "wandbb"}, "tracker is 'wandbb'; expected one of csv, none, tensorboard, wandb"),
    ],
)
def test_names_that_the_server_would_refuse_are_refused_first(changes: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        check_tracking(GenerationConfig(**changes))


def test_a_backend_that_is_not_installed_says_how_to_install_it(
    run_edit: EditRun, monkeypatch: pytest.MonkeyPatch, no_weights
) -> None:
    there = guard.importlib.util.find_spec
    monkeypatch.setattr(
        guard.importlib.util, "find_spec", lambda name: None if "tensorboard" in name else there(name)
    )
    with pytest.raises(InputError, match=r"pip install 'wanedit\[tensorboard\]'"):
        run_edit(tracking="tensorboard")


def test_csv_of_the_series_is_written_in_any_case(run_edit: EditRun, run: Run, tmp_path: Path) -> None:
    edited = run_edit(output=str(tmp_path / "edit"))
    rows = rows_of(edited.video.parent / "metrics.csv")
    assert [(r["run"], r["series"], r["index"]) for r in rows] == [("1", "edit", "0"), ("1", "edit", "1")]
    assert float(rows[1]["keyframe_error"]) == edited.keyframe_error
    assert {"sigma", "gain", "r_k_norm"} <= set(rows[0])
    assert not (edited.video.parent / "tracking.json").exists()
    generated = run(output=str(tmp_path / "generate"))
    rows = rows_of(generated.video.parent / "metrics.csv")
    # The dearest comes first.
    assert sorted((r["series"], r["index"]) for r in rows) == [("segment", str(k)) for k in range(3)]


def test_a_damaged_journal_still_gives_its_csv(tmp_path: Path) -> None:
    journal = tmp_path / "metrics.jsonl"
    for index in (0, 1):
        append_event(journal, {"event": "start"})
        append_event(
            journal, {"event": "step", "step": index, "r": float("nan"), f"only_{index}": 1.5, "x": [1]}
        )
        with journal.open("ab") as file:
            file.write(b'{"event": "step", "st\xff\n[1]\n')
    write_metrics_csv(journal, tmp_path / "metrics.csv")
    rows = rows_of(tmp_path / "metrics.csv")
    assert [list(row.values()) for row in rows] == [
        ["1", "edit", "0", "nan", "1.5", ""],
        ["2", "edit", "1", "nan", "", "1.5"],
    ]


def test_lines_are_read_once_and_whole(tmp_path: Path) -> None:
    journal = tmp_path / "metrics.jsonl"
    assert new_rows(journal, 0) == ([], 0)
    append_event(journal, {"event": "step", "step": 0, "r": 1.0})
    rows, offset = new_rows(journal, 0)
    assert rows == [(("edit", 0, {"r": 1.0}), offset)]
    with journal.open("a") as file:
        file.write('{"event": "segment", "segment": 3')
    assert new_rows(journal, offset) == ([], offset)
    with journal.open("a") as file:
        file.write("}\n")
    assert [row.at for row, _ in new_rows(journal, offset)[0]] == [3]
    journal.write_text('{"event": "step", "step": 7}\n')
    assert [row.at for row, _ in new_rows(journal, offset)[0]] == [7]


def test_the_same_run_keeps_its_id(tmp_path: Path) -> None:
    first = find_record(tmp_path, "wandb:a")
    assert find_record(tmp_path, "wandb:a") == first
    assert find_record(tmp_path, "wandb:b").run_id != first.run_id
    assert find_record(tmp_path, "wandb:a", fresh=True).run_id != first.run_id
    # Version 0.1 also counted attempts.
    earlier = {"version": 1, "runs": {"wandb:old": {"run_id": "abc", "offset": 3, "rows": 2, "attempts": 1}}}
    (tmp_path / "tracking.json").write_text(json.dumps(earlier))
    assert (find_record(tmp_path, "wandb:old").run_id, find_record(tmp_path, "wandb:old").rows) == ("abc", 2)
    (tmp_path / "metrics.jsonl").write_text("12345")
    assert find_record(tmp_path, "wandb:c").offset == 5
    for damage in (
        '{"version": 1, "runs": {"wandb:c": {"run_id": "../x"}}}',
        "[",
        '{"version": 1, "runs": 3}',
    ):
        (tmp_path / "tracking.json").write_text(damage)
        assert find_record(tmp_path, "wandb:c").run_id.isalnum()


def test_a_resumed_run_logs_what_was_not_logged(tmp_path: Path, spies) -> None:
    made, settings = spies(), TrackingSettings(tracking="wandb", experiment="e1")
    journal = tmp_path / "metrics.jsonl"

    def interrupted() -> None:
        with open_tracker(settings, tmp_path, "generate", {"a": 1}, "k") as tracking:
            append_event(journal, {"event": "segment", "segment": 0})
            tracking.follow()
            tracking.follow()
            append_event(journal, {"event": "segment", "segment": 1})
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        interrupted()
    assert [what[2] for what in made[0].told if what[0] == "log"] == [0, 1]
    assert made[0].told[-1] == ("finish", 143)
    append_event(journal, {"event": "segment", "segment": 2})  # by a rank, after rank 0 was killed
    with open_tracker(settings, tmp_path, "generate", {}, "k"):
        pass
    assert [what[2] for what in made[1].told if what[0] == "log"] == [2]
    first, second = made[0].run, made[1].run
    assert first is not None
    assert second is not None
    assert (first.run_id, first.first_row) == (second.run_id, 0)
    assert (second.first_row, second.group, second.job_type) == (2, "e1", "generate")


def test_an_artifact_is_logged_once_for_its_content(tmp_path: Path, spies) -> None:
    made, settings = spies(), TrackingSettings(tracking="csv")
    for digests in (["a", "a", "b"], ["b", "c"]):
        with open_tracker(settings, tmp_path, "ablate") as tracking:
            for digest in digests:
                tracking.artifact("x", {}, digest)
    assert [what[1] for spy in made for what in spy.told if what[0] == "artifact"] == ["a", "b", "c"]


@pytest.mark.parametrize("fail", ["start", "log", "summary", "table", "artifact", "finish", "all"])
def test_a_failure_of_tracking_is_said_once_and_stops_nothing(
    edit_config: Callable[..., EditConfig], edited: EditResult, spies, fail: str
) -> None:
    made, lines = spies(fail), []
    result = edit(edit_config(**TRACKED), say=lines.append)
    assert result.digest == edited.digest
    assert result.video.exists()
    said = [line for line in lines if "tracking" in line]
    first = "start" if fail == "all" else fail
    assert said == [f"tracking failed (RuntimeError: {first} failed); the run goes on"]
    assert (result.video.parent / "metrics.csv").exists()
    if fail in ("start", "all"):
        # Nothing counts as logged.
        assert made[0].names() == ["start"]
        assert find_record(result.video.parent, next(iter(records_in(result)))).rows == 0


def records_in(result: EditResult) -> dict[str, Any]:
    return json.loads((result.video.parent / "tracking.json").read_text())["runs"]


def test_a_tracking_json_that_cannot_be_written_stops_nothing(
    edit_config: Callable[..., EditConfig], spies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, text: str) -> None:
        raise InputError(f"{path} cannot be written")

    spies()
    monkeypatch.setattr("wanedit.tracking.record.write_text", refused)
    lines: list[str] = []
    assert edit(edit_config(**TRACKED), say=lines.append).video.exists()
    assert len([line for line in lines if line.startswith("tracking failed (InputError: ")]) == 1


def test_an_edit_is_followed_step_by_step(run_edit: EditRun, spies) -> None:
    made = spies()
    first = run_edit(**TRACKED)
    assert made[0].names() == ["start", "log", "log", "summary", "table", "artifact", "finish"]
    assert [what[1:3] for what in made[0].told[1:3]] == [("edit", 0), ("edit", 1)]
    assert {"sigma", "gain", "alpha_h", "r_k_norm", "keyframe_error"} <= set(made[0].told[1][3])
    (row,) = made[0].told[4][2]
    assert row["video"] == "out/output_final.mp4"
    assert row["contact_sheet"] == first.contact_sheet
    assert row["playable"] == first.video
    assert row["keyframe_error"] == first.keyframe_error
    # Complete: nothing is sampled, nothing is logged twice; other settings are another run.
    run_edit(**TRACKED)
    assert made[1].names() == ["start", "summary", "table", "finish"]
    assert "playable" not in made[1].told[2][2][0]
    run_edit(**TRACKED, alpha=9.0)
    run_edit(**TRACKED, force_regenerate=True)
    ids = [spy.run.run_id for spy in made if spy.run]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_chain_is_followed_segment_by_segment(run: Run, spies) -> None:
    made = spies()
    result: GenerationResult = run(**TRACKED)
    assert made[0].names() == ["start", "log", "log", "log", "summary", "table", "artifact", "finish"]
    # The dearest comes first.
    assert sorted(what[1:3] for what in made[0].told[1:4]) == [("segment", 0), ("segment", 1), ("segment", 2)]
    (row,) = made[0].told[5][2]
    assert row["junctions"].is_file()
    assert (row["frames"], row["segments"], row["sampled"]) == (result.num_frames, 3, 3)


def test_what_is_shown_names_no_folder(run_edit: EditRun, run: Run, inputs, spies, tmp_path: Path) -> None:
    made = spies()
    result = run_edit(**TRACKED)
    run(**TRACKED, output=str(tmp_path / "other"))
    for spy in made:
        assert spy.run is not None
        shown = json.dumps(dict(spy.run.config))
        assert str(tmp_path) not in shown
        assert str(inputs.video.parent) not in shown
    assert made[0].run is not None
    assert made[0].run.config["video"] == "source.mkv"
    assert made[0].run.config["edit"] == result.digest


def test_plain_files(run_edit: EditRun) -> None:
    result = run_edit(tracking="csv", experiment="e1")
    (folder,) = (result.video.parent / "tracking").iterdir()
    assert [row["step"] for row in rows_of(folder / "edit.csv")] == ["0", "1"]
    (row,) = rows_of(folder / "result.csv")
    assert (row["contact_sheet"], row["run"]) == ("contact_sheet.png", folder.name)
    about, came_to = (json.loads((folder / name).read_text()) for name in ("run.json", "summary.json"))
    assert (about["group"], about["job_type"], about["config"]["base_seed"]) == ("e1", "edit", 7)
    assert (came_to["exit_code"], came_to["keyframe_error"]) == (0, result.keyframe_error)
    assert len(json.loads((folder / "artifacts.json").read_text())) == 1


def test_a_name_and_tags_are_given_or_found(run_edit: EditRun) -> None:
    result = run_edit(tracking="csv", run_name="the first", tags="blue, try ,blue")
    (path,) = (result.video.parent / "tracking").glob("*/run.json")
    about = json.loads(path.read_text())
    assert (about["name"], about["tags"]) == ("the first", ["blue", "try", "tiny", "residual_corrected"])


def test_whatever_is_shown_loses_its_folders_and_keys(tmp_path: Path) -> None:
    values = {
        "base": {"ckpt_dir": str(tmp_path / "Wan"), "api_key": "abc"},
        "data": [str(tmp_path / "clip.mp4")],
    }
    with open_tracker(TrackingSettings(tracking="csv"), tmp_path / "out", "ablate", values):
        pass
    (path,) = (tmp_path / "out").glob("tracking/*/run.json")
    shown = json.loads(path.read_text())["config"]
    assert shown == {"base": {"ckpt_dir": "Wan", "api_key": "(hidden)"}, "data": ["clip.mp4"]}


def test_measures_join_the_run_that_they_are_of(run_edit: EditRun, tmp_path: Path) -> None:
    made = run_edit(tracking="csv", experiment="e1")
    (folder,) = (made.video.parent / "tracking").iterdir()
    asked: dict[str, Any] = {"run": str(made.video.parent), "metrics": "keyframes", "tracking": "csv"}
    found = evaluate(EvaluationConfig(**asked))
    (same,) = (made.video.parent / "tracking").iterdir()
    assert same == folder
    came_to, about = (json.loads((folder / name).read_text()) for name in ("summary.json", "run.json"))
    assert came_to["evaluate/keyframes/psnr"] == found.metrics["keyframes"]["psnr"]
    assert came_to["keyframe_error"] == made.keyframe_error
    assert (about["group"], about["config"]["base_seed"]) == ("e1", 7)


def test_measures_of_a_file_are_kept_beside_its_results(run_edit: EditRun, tmp_path: Path) -> None:
    video, out = str(run_edit().video), tmp_path / "measures.json"
    with pytest.raises(InputError, match="expected an output, too"):
        evaluate(EvaluationConfig(video, tracking="csv"))
    evaluate(EvaluationConfig(video, metrics="temporal", tracking="csv", output=str(out)))
    (path,) = tmp_path.glob("measures/tracking/*/summary.json")
    assert {"evaluate/temporal/flicker", "exit_code"} <= set(json.loads(path.read_text()))


def test_plain_files_take_new_columns(tmp_path: Path) -> None:
    for start in (0, 2):
        with open_tracker(TrackingSettings(tracking="csv"), tmp_path, "edit") as tracking:
            tracking.log("edit", start, {"a": 1.0})
            tracking.log("edit", start + 1, {"b": 2.0})
    (path,) = tmp_path.glob("tracking/*/edit.csv")
    assert [tuple(row.values()) for row in rows_of(path)] == [
        ("0", "1.0", ""),
        ("1", "", "2.0"),
        ("2", "1.0", ""),
        ("3", "", "2.0"),
    ]


def test_a_row_that_was_written_and_not_counted_is_not_doubled(tmp_path: Path) -> None:
    append_event(tmp_path / "metrics.jsonl", {"event": "step", "step": 0, "a": 1.5})
    for _ in range(2):  # as if a kill came before tracking.json
        tracker = TRACKERS["csv"]()
        tracking = Tracking(
            tracker, RunInfo("id", tmp_path, "edit", "p", "", {}), Record("id"), "csv:", lambda line: None
        )
        with tracking:
            pass
    assert [row["a"] for row in rows_of(tmp_path / "tracking" / "id" / "edit.csv")] == ["1.5"]


def test_rows_that_a_full_disk_refused_are_logged_when_there_is_room(tmp_path: Path) -> None:
    said: list[str] = []
    steps = [{"event": "step", "step": step, "a": 1.0} for step in range(5)]
    with open_tracker(TrackingSettings(tracking="csv"), tmp_path, "edit", say=said.append) as tracking:
        append_event(tmp_path / "metrics.jsonl", steps[0])
        tracking.follow()
        for step in steps[1:3]:
            append_event(tmp_path / "metrics.jsonl", step)
        (path,) = tmp_path.glob("tracking/*/edit.csv")
        with room(path.stat().st_size + 8):  # for one row and a piece of the next
            tracking.follow()
        assert not path.read_text().endswith("\n")
        append_event(tmp_path / "metrics.jsonl", steps[3])
        tracking.follow()
        assert [row["step"] for row in rows_of(path)] == ["0", "1", "2", "3"]
        append_event(tmp_path / "metrics.jsonl", steps[4])
        with room(0):
            tracking.follow()
            tracking.finish(4)
    assert said == [f"tracking failed (ResourceError: {path}: File too large; make room and run again; what is "
                    "finished stays); the run goes on"]  # fmt: skip
    with open_tracker(TrackingSettings(tracking="csv"), tmp_path, "edit", say=said.append) as tracking:
        tracking.follow()
    assert [row["step"] for row in rows_of(path)] == ["0", "1", "2", "3", "4"]


def test_event_files(run_edit: EditRun) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run_edit(tracking="tensorboard", experiment="e1")
    (folder,) = (result.video.parent / "tensorboard").iterdir()
    read = EventAccumulator(str(folder))
    read.Reload()
    errors = read.Scalars("edit/keyframe_error")
    assert [event.step for event in errors] == [0, 1]
    assert errors[1].value == pytest.approx(result.keyframe_error)
    assert read.Scalars("summary/exit_code")[0].value == 0
    assert read.Images("result/contact_sheet")
    text = read.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"group": "e1"' in text
    assert '"base_seed": 7' in text


def test_a_run_of_its_own_is_logged_under_slurm_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's loggers ask SLURM_PROCID whether they may write; which rank a run has, the run itself knows."""
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 3)
    with open_tracker(TrackingSettings(tracking="tensorboard"), tmp_path, "ablate") as tracking:
        tracking.log("edit", 0, {"a": 1.0})
    assert rank_zero_only.rank == 3  # pyright: ignore[reportFunctionMemberAccess]
    (file,) = tmp_path.glob("tensorboard/*/events.out.tfevents.*")
    assert b"edit/a" in file.read_bytes()
    assert b"summary/exit_code" in file.read_bytes()


def test_a_run_without_tracking_loads_no_backend(run_edit: EditRun) -> None:
    before = {"wandb", "tensorboard"} & set(sys.modules)
    run_edit(method="copy_source", controller="residual")
    assert {"wandb", "tensorboard"} & set(sys.modules) == before


def test_a_record_survives_others(tmp_path: Path) -> None:
    first, second = find_record(tmp_path, "csv:a"), find_record(tmp_path, "csv:b")
    first.rows = 3
    save_record(tmp_path, "csv:a", first)
    assert find_record(tmp_path, "csv:a").rows == 3
    assert find_record(tmp_path, "csv:b") == second
