"""`wanedit ablate`: grids, the names of runs, what is skipped, what fails, and the numbers that come out."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.runs import run_cli
from wanedit.cli import main
from wanedit.errors import InputError, ResourceError
from wanedit.files import digest
from wanedit.jobs.ablate.clips import SpriteChains
from wanedit.jobs.ablate.config import AblationConfig
from wanedit.jobs.ablate.grid import column_names, load_grid, points
from wanedit.jobs.ablate.results import collect, draw_figures, table
from wanedit.jobs.ablate.run import Ablation, ablate, begin
from wanedit.jobs.ablate.runs import Run, expand, make
from wanedit.metrics.functional.bootstrap import interval
from wanedit.runtime.claims import InUseError
from wanedit.runtime.events import read_events
from wanedit.runtime.launch import World
from wanedit.runtime.launchers import work
from wanedit.runtime.outputs import RECORD_MARK
from wanedit.runtime.pool import pull
from wanedit.video import load_image, write_png
from wanedit.video.restoring import CARRIED
from wanedit.wan.load import hash_files, open_wan

SMALL = {
    "title": "Small",
    "shows": "Nothing much.",
    "command": "edit",
    "base": {"guidance_scale": 1.0, "num_inference_steps": 2, "restore": "none"},
    "data": {"kind": "edited_sprites", "scenes": 1, "edits": ["recolour"], "num_frames": 5, "size": "32*32"},
    "axes": {"alpha": [1.0, 2.0]},
    "baseline": {"alpha": 1.0},
    "figures": [{"x": "alpha", "y": "psnr_off"}],
}

CLIP = {"video": "gone.mp4", "keyframes": [["gone.png", 0]], "prompt": "a"}


def write_grid(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # What names an axis goes with it.
    bare = {"baseline": {}, "figures": []} if "axes" in changes else {}
    (folder / "grid.yaml").write_text(yaml.safe_dump(SMALL | bare | changes, sort_keys=False))
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_grid(tmp_path / "09_small")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, "unknown key 'axis'"),
        ({"command": "paint"}, "command is 'paint'; expected one of edit, generate"),
        ({"axes": {"alpha": 1.0}}, "axis alpha is 1.0; expected a list"),
        ({"axes": {"kind": {"one": 1}}}, "axis kind has labels; expected a group"),
        ({"axes": {"alpha": []}}, "axis alpha is"),
        ({"seeds": []}, "seeds and axes are"),
        ({"seeds": [0, 0]}, "expected whole numbers, each once"),
        ({"seeds": [True]}, "expected whole numbers"),
        ({"overlays": [1]}, "overlays are"),
        ({"axes": ["a"]}, "axes hold 'a'; expected a mapping"),
        ({"axes": {1: [2]}}, "expected a mapping from names"),
        ({"axes": {"alpha": [1.0, 1.0]}}, "expected each value once"),
        ({"baseline": {"alpha": 9.0}}, "expected values that a point of the grid has"),
        ({"measures": ["psnr"]}, "unknown measure 'psnr'; expected some of psnr_off"),
        ({"figures": [{"x": "alpha", "y": "joins_shown"}]}, "unknown measure 'joins_shown'"),
        ({"baseline": {"beta": 0.0}}, "baseline names 'beta'; expected some of alpha"),
        ({"figures": [{"x": "beta", "y": "psnr_off"}]}, "a figure names 'beta'"),
        ({"figures": [{"x": "alpha"}]}, "expected some of x, y"),
        ({"overlays": ["gone.yaml"]}, "gone.yaml: does not exist; expected a file of settings"),
        ({"axes": {"alpa": [1.0]}}, "grid at alpa 1.0: unknown setting 'alpa' of edit"),
        ({"axes": {"controller": ["residual", "best"]}}, "grid at controller best: controller is 'best'"),
        (
            {"axes": {"controller_options.tau": [1.0]}},
            "grid at tau 1.0: controller exponential has no option",
        ),
        ({"base": {"output": "x"}}, "output is set by the grid"),
        ({"data": {"kind": ["films"]}}, r"kind is \['films'\]"),
        ({"data": SMALL["data"] | {"keyframes": [0, 5]}}, "keyframe 5; expected frames from 0 to 4"),
        ({"data": {"kind": "clips", "clips": {"a": "x"}}}, "clip a is 'x'; expected a mapping"),
        ({"data": {"kind": "clips", "clips": {"a": {"video": 3}}}}, "clip a: video is 3"),
        ({"data": {"kind": "clips", "clips": {"a": {"keyframes": [1]}}}}, "expected pairs"),
        (
            {"data": {"kind": "clips", "clips": {"a": CLIP | {"promt": "a"}}}},
            "clip a.*unknown setting 'promt'",
        ),
        ({"data": {"kind": "films"}}, "kind is 'films'; expected one of edited_sprites"),
        ({"data": {"kind": "edited_sprites", "scene": 2}}, "unknown setting 'scene'"),
        ({"data": {"kind": "edited_sprites", "scenes": 0}}, "scenes is 0; expected at least 1"),
        ({"data": {"kind": "edited_sprites", "edits": ["paint"]}}, "unknown edit 'paint'"),
        ({"data": {"kind": "clips"}}, "clips is empty"),
        ({"data": {"kind": "clips", "clips": {"a": CLIP}}}, "no file or folder .*gone.mp4"),
    ],
)
def test_a_wrong_grid_is_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_grid(tmp_path / "e", **changes)
    with pytest.raises(InputError, match=message):
        expand(load_grid(folder), folder)


OWN = """
from dataclasses import dataclass
from wanedit.flow.editing import Edited, Method
from wanedit.jobs.evaluate.metric import Metric
GAIN = 1.0

@dataclass(frozen=True)
class Mine(Method):
    def __call__(self, model, edit, schedule, observe=None):
        return Edited(latents=GAIN * edit.source)
"""
MEASURE = """
from wanedit.jobs.evaluate.metric import Metric

class Level(Metric):
    plain = ("mean",)

    def compute(self):
        return {"mean": 1.0}
"""


@pytest.mark.parametrize("changed", ["own", "level"])
def test_the_code_of_methods_and_measures_from_outside_names_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {name: tmp_path / f"{name}_of_grid_{changed}.py" for name in ("own", "level")}
    files["own"].write_text(OWN)
    files["level"].write_text(MEASURE)
    axes, metrics = {"method": [f"{files['own'].stem}:Mine"]}, [f"{files['level'].stem}:Level"]
    folder = write_grid(tmp_path / "e", axes=axes, metrics=metrics)
    [before] = [run.name for run in expand(load_grid(folder), folder)]
    assert [run.name for run in expand(load_grid(folder), folder)] == [before]
    files[changed].write_text(files[changed].read_text().replace("1.0", "2.0"))
    assert [run.name for run in expand(load_grid(folder), folder)] != [before]


def test_no_grid_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no grid\.yaml"):
        load_grid(tmp_path)
    (tmp_path / "grid.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"grid\.yaml:1: .*expected YAML"):
        load_grid(tmp_path)
    (tmp_path / "grid.yaml").write_text("[]")
    with pytest.raises(InputError, match="holds no mapping"):
        load_grid(tmp_path)


def test_axes_multiply_within_a_grid_and_grids_follow_each_other(tmp_path: Path) -> None:
    axes = [
        {"data.spacing": [2, 4], "alpha": [1.0, 2.0]},
        {"controller": {"full": {"controller": "covariance", "controller_options": {"solve": "full"}}}},
    ]
    folder = write_grid(tmp_path / "e", axes=axes)
    grid = load_grid(folder)
    assert column_names(grid) == ["spacing", "alpha", "controller"]
    made = list(points(grid))
    assert [p.labels for p in made][1] == {"spacing": 2, "alpha": 2.0}
    assert made[2].data == {"spacing": 4}
    assert made[4].settings["controller_options"] == {"solve": "full"}
    runs = expand(grid, folder)
    assert len(runs) == 5
    assert asdict(runs[0].item)["spec"]["keyframes"] == [0, 2, 4]


def test_a_run_is_named_by_all_that_decides_it(tmp_path: Path, experiment: Path) -> None:
    first = [run.name for run in expand(load_grid(experiment), experiment)]
    again = [run.name for run in expand(load_grid(experiment), experiment)]
    assert first == again
    assert len(set(first)) == 2
    for changes in ({"seeds": [1]}, {"base": SMALL["base"] | {"shift": 2.0}}):
        folder = write_grid(tmp_path / "other", **changes)
        assert not set(first) & {run.name for run in expand(load_grid(folder), folder)}
    # Words about the grid decide nothing.
    folder = write_grid(tmp_path / "other", title="Renamed", figures=[])
    assert first == [run.name for run in expand(load_grid(folder), folder)]


def test_a_grid_may_use_the_names_of_earlier_versions(tmp_path: Path) -> None:
    axes = [{"sample_steps": [2, 4]}, {"kind": {"one": {"sample_shift": 2.0}}}]
    figures = [{"x": "sample_steps", "y": "psnr_off"}]
    changes = {"axes": axes, "base": {"cfg_scale": 1.0}, "baseline": {"sample_steps": 2}, "figures": figures}
    grid = load_grid(write_grid(tmp_path / "e", **changes))
    assert column_names(grid) == ["num_inference_steps", "kind"]
    assert (grid.base, grid.baseline) == ({"guidance_scale": 1.0}, {"num_inference_steps": 2})
    assert grid.figures[0].x == "num_inference_steps"
    assert list(points(grid))[2].settings == {"shift": 2.0}


def test_overlays_merge_left_to_right_under_the_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "{shift: 1.0, guidance_scale: 4.0, method_options: {source_weight: 0.5}}"
    )
    (tmp_path / "b.yaml").write_text("{shift: 2.0, method_options: {renew_noise: true}}")
    grid = load_grid(write_grid(tmp_path / "e", overlays=["../a.yaml", "../b.yaml"]))
    assert (grid.base["shift"], grid.base["guidance_scale"]) == (2.0, 1.0)
    assert grid.base["method_options"] == {"source_weight": 0.5, "renew_noise": True}


@pytest.mark.usefixtures("in_process")
def test_an_experiment_end_to_end_is_made_once(experiment: Path, tmp_path: Path) -> None:
    config = AblationConfig(str(experiment), output=str(tmp_path / "runs"))
    said: list[str] = []
    results = ablate(config, say=said.append)
    assert not results.missing
    assert "2 runs, 2 to make" in said[0]
    written = experiment / "results"
    lines = list(csv.DictReader((written / "results.csv").open()))
    psnr = [line for line in lines if line["measure"] == "psnr_off"]
    assert [line["alpha"] for line in psnr] == ["1.0", "2.0"]
    assert all(float(line["value"]) > 10 for line in psnr)
    means = list(csv.DictReader((written / "summary.csv").open()))
    assert means[0].keys() == {"alpha", "measure", "mean", "low", "high", "n"}
    assert "Paired differences to alpha 1.0" in (written / "table.md").read_text()
    made = json.loads((written / "record.json").read_text())["made"]
    assert [entry["runs"] for entry in made] == [2]
    assert load_image(written / "psnr_off_by_alpha.png").pixels.std() > 5
    # What a run measured is what its own clip shows.
    run = expand(load_grid(experiment), experiment)[0]
    assert (run.folder(tmp_path / "runs") / "output_final.mp4").is_file()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("result.json")}
    ablate(config, verbose=False)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("result.json")} == before
    assert json.loads((written / "record.json").read_text())["made"] == made


class Deadly(Ablation):
    """Of which one run ends the process that makes it, as the kernel does when memory is short."""

    def make(self, run: Run, gpu: int | None, anew: bool) -> dict[str, float]:
        if run is next(iter(self.runs.values())):
            os._exit(9)
        return {"psnr_off": 1.0}


@pytest.mark.slow
def test_a_run_that_kills_its_process_is_listed_and_the_others_go_on(
    experiment: Path, tmp_path: Path
) -> None:
    deadly = Deadly(AblationConfig(str(experiment), output=str(tmp_path / "runs")))
    first, second = deadly.runs.values()
    said: list[str] = []
    pull(deadly, World(), said.append, children=1)
    assert first.failure(deadly.root) == "its process ended with exit code 9"
    assert second.result(deadly.root) == {"psnr_off": 1.0}
    assert said[1:] == [f"failed: {first.title} ({first.name}): its process ended with exit code 9"]
    assert not list(deadly.root.rglob(".*"))


def made(run: Run, root: Path) -> dict[str, float] | None:
    run.succeed(root, make(run, root))
    return run.result(root)


def test_a_grid_may_ask_for_further_groups_of_evaluate(experiment: Path, tmp_path: Path) -> None:
    plain = expand(load_grid(experiment), experiment)[0]
    write_grid(experiment, metrics=["keyframes"], measures=["psnr_off", "keyframes/psnr"])
    run = expand(load_grid(experiment), experiment)[0]
    assert run.name != plain.name
    measured = made(run, tmp_path)
    assert measured is not None
    assert measured["keyframes/psnr"] > 10
    assert measured["keyframes/psnr_by_frame/0"] > 10
    with pytest.raises(InputError, match="metric is 'vmaf'; expected one of clip"):
        load_grid(write_grid(tmp_path / "e", metrics=["vmaf"]))
    with pytest.raises(InputError, match="unknown measure 'clip/consistency'"):
        load_grid(write_grid(tmp_path / "e", measures=["clip/consistency"]))


@pytest.mark.usefixtures("in_process")
def test_a_tracked_experiment_is_a_group_of_named_runs_with_their_measures(
    experiment: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    config = AblationConfig(str(experiment), output=str(root), items=1, tracking="csv", tags="night")
    ablate(config, verbose=False)
    runs = {run.folder(root): run for run in expand(load_grid(experiment), experiment, 1)}
    about = {path.parent: json.loads(path.read_text()) for path in root.rglob("run.json")}
    assert {one["group"] for one in about.values()} == {experiment.name}
    children = {folder: one for folder, one in about.items() if one["job_type"] == "edit"}
    assert len(children) == len(runs) == len(about) - 1
    for folder, one in children.items():
        run = runs[folder.parent.parent]
        assert one["name"] == run.title
        assert "night" in one["tags"]
        came_to = json.loads((folder / "summary.json").read_text())
        assert came_to["psnr_off"] == (run.result(root) or {})["psnr_off"]
        assert str(tmp_path) not in json.dumps(one)


@pytest.mark.usefixtures("in_process")
def test_a_run_that_fails_says_why_and_is_made_again(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = AblationConfig(str(experiment), output=str(tmp_path / "runs"))
    with monkeypatch.context() as broken:
        broken.setattr("wanedit.jobs.edit.run.require_memory", lambda *given: 1 / 0)
        with pytest.raises(ResourceError, match=r"no run of .* has a result; the first: ZeroDivisionError"):
            ablate(config, verbose=False)
    first, second = expand(load_grid(experiment), experiment)
    assert first.failure(config.runs_folder) == "ZeroDivisionError: division by zero"
    second.succeed(config.runs_folder, {"psnr_off": 1.0})
    results = ablate(config, verbose=False)
    assert not results.missing
    assert first.failure(config.runs_folder) is None
    assert second.result(config.runs_folder) == {"psnr_off": 1.0}
    ablate(replace(config, force=True), verbose=False)
    assert second.result(config.runs_folder) != {"psnr_off": 1.0}


@pytest.mark.usefixtures("in_process")
def test_the_command_exits_1_if_a_run_failed(experiment: Path, tmp_path: Path, capsys: Any) -> None:
    picture = tmp_path / "a.png"
    write_png(picture, np.zeros((32, 32, 3), np.uint8))
    clip = {"video": "clip.mp4", "keyframes": [["../a.png", 0]], "prompt": "a"}
    write_grid(experiment, data={"kind": "clips", "clips": {"broken": clip}})
    (experiment / "clip.mp4").write_bytes(b"no video")
    code = main(["ablate", str(experiment), "--output", str(tmp_path / "runs"), "--quiet"])
    assert code == 4
    assert "no run of" in capsys.readouterr().err


def test_a_file_of_other_contents_is_another_run(experiment: Path, tmp_path: Path) -> None:
    write_png(experiment / "a.png", np.zeros((32, 32, 3), np.uint8))
    clip = {"video": "a.png", "keyframes": [["a.png", 0]], "prompt": "a"}
    write_grid(experiment, data={"kind": "clips", "clips": {"one": clip}})
    first = expand(load_grid(experiment), experiment)[0].name
    write_png(experiment / "a.png", np.full((32, 32, 3), 9, np.uint8))
    assert expand(load_grid(experiment), experiment)[0].name != first


def test_a_folder_or_a_truth_of_other_contents_is_another_run(experiment: Path) -> None:
    (experiment / "frames").mkdir()
    for name in ("frames/0.png", "frames/1.png", "truth.png"):
        write_png(experiment / name, np.zeros((32, 32, 3), np.uint8))
    clip = {"video": "frames", "keyframes": [["frames/0.png", 0]], "prompt": "a", "reference": "truth.png"}
    write_grid(experiment, data={"kind": "clips", "clips": {"one": clip}})
    names = [expand(load_grid(experiment), experiment)[0].name]
    for changed in ("frames/1.png", "truth.png"):
        write_png(experiment / changed, np.full((32, 32, 3), 9, np.uint8))
        names.append(expand(load_grid(experiment), experiment)[0].name)
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "text", ["", "[]", '{"measures": {}}', '{"measures": "a"}', '{"measures": {"a": "b"}}']
)
def test_a_result_that_no_run_wrote_is_made_again(experiment: Path, tmp_path: Path, text: str) -> None:
    run = expand(load_grid(experiment), experiment)[0]
    run.succeed(tmp_path, {"psnr_off": 20.0})
    assert run.result(tmp_path) == {"psnr_off": 20.0}
    (run.folder(tmp_path) / "result.json").write_text(text)
    assert run.result(tmp_path) is None


def test_a_run_of_which_nothing_is_measured_is_no_result(experiment: Path, tmp_path: Path) -> None:
    run = expand(load_grid(experiment), experiment)[0]
    with pytest.raises(InputError, match="nothing was measured of "):
        run.succeed(tmp_path, {})


def test_another_way_to_carry_keyframes_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_grid(tmp_path / "e", base={"method": "residual_corrected", "restore": "auto"})
    unrestored = write_grid(tmp_path / "n", base={"method": "residual_corrected", "restore": "none"})

    def names(folder: Path) -> list[str]:
        return [run.name for run in expand(load_grid(folder), folder)]

    before = names(folder), names(unrestored)
    monkeypatch.setitem(CARRIED, "fused", 99)
    assert (names(folder) == before[0], names(unrestored) == before[1]) == (False, True)
    monkeypatch.undo()
    monkeypatch.setattr(
        "wanedit.flow.methods.residual_corrected.ResidualCorrectedFlow.restored_by", "keyframes"
    )
    assert names(folder) != before[0]


def test_the_folder_of_another_job_is_left_alone(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    record = RECORD_MARK + "job: edit\nvideo: a.mp4\n"
    (folder / "config.yaml").write_text(record)
    with pytest.raises(InputError, match="holds a run of the job edit"):
        ablate(AblationConfig(str(experiment), output=str(folder)), verbose=False)
    assert (folder / "config.yaml").read_text() == record


def test_a_failure_ends_an_earlier_result(experiment: Path, tmp_path: Path) -> None:
    run = expand(load_grid(experiment), experiment)[0]
    run.succeed(tmp_path, {"psnr_off": 20.0})
    run.fail(tmp_path, "the disk is full")
    assert (run.result(tmp_path), run.failure(tmp_path)) == (None, "the disk is full")


def test_generation_is_measured_at_its_joins(tmp_path: Path) -> None:
    folder = write_grid(
        tmp_path / "e",
        command="generate",
        base={"num_inference_steps": 1, "guidance_scale": 1.0},
        data={"kind": "sprite_chains", "scenes": 1, "segments": 2, "segment_frames": 9, "size": "32*32"},
        axes={"colour_correction": [True]},
    )
    run = expand(load_grid(folder), folder)[0]
    measured = made(run, tmp_path)
    assert measured is not None
    assert {"joins_shown", "junction_mse", "junction_colour", "psnr_off", "seconds"} <= set(measured)


def test_what_runs_have_in_common_is_sampled_once(tmp_path: Path) -> None:
    folder = write_grid(
        tmp_path / "e",
        command="generate",
        base={"num_inference_steps": 4, "guidance_scale": 1.0},
        data={"kind": "sprite_chains", "scenes": 1, "keyframes": [[0, 5, 12]], "size": "32*32"},
        axes={"joins": ["none", "bridge"]},
    )
    first, second = expand(load_grid(folder), folder)
    passes = []
    for run in (first, second):
        passes.append(make(run, tmp_path)["evaluations"])
    started = [
        event for event in read_events(second.folder(tmp_path) / "metrics.jsonl") if "to_sample" in event
    ]
    assert [event["to_sample"] for event in started] == [[]]
    assert passes[1] > passes[0]
    # A run that is made anew takes nothing.
    make(second, tmp_path, anew=True)
    again = read_events(second.folder(tmp_path) / "metrics.jsonl")
    assert [event["to_sample"] for event in again if "to_sample" in event][-1] == [0, 1]


@pytest.mark.parametrize("frames", [[], [0], [0, 4, 4], [4, 8], [0, 4.5], [0, True]])
def test_chains_of_keyframes_that_are_none(tmp_path: Path, frames: list[Any]) -> None:
    data = {"kind": "sprite_chains", "keyframes": [frames]}
    folder = write_grid(tmp_path / "e", command="generate", base={}, axes={"joins": ["none"]}, data=data)
    with pytest.raises(InputError, match="keyframes"):
        expand(load_grid(folder), folder)


def test_scenes_take_the_chains_in_turn_and_more_of_them_begin_alike() -> None:
    chains = [[0, 8, 16], [0, 5, 11, 16]]
    few, more = (SpriteChains(scenes=n, keyframes=chains, through=0.5).items() for n in (2, 5))
    assert more[:2] == few
    assert [item.name.split("/")[1] for item in more] == [*("0-8-16", "0-5-11-16") * 2, "0-8-16"]
    assert len({item.group for item in more}) == 5


def test_an_interval_resamples_scenes_and_not_clips() -> None:
    alone = interval([1.0, 2.0, 3.0], ["a", "a", "a"])
    assert (alone.mean, alone.low, alone.high, alone.n) == (2.0, 2.0, 2.0, 3)
    two = interval([0.0, 0.0, 0.0, 4.0], ["a", "a", "a", "b"])
    assert (two.mean, two.low, two.high) == (2.0, 0.0, 4.0)  # scenes weigh the same
    values = np.random.default_rng(1).normal(size=400)
    many = interval(list(values), range(400))
    # The normal interval: 1.96 standard errors.
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_a_part_is_not_written_among_the_results_of_the_whole(experiment: Path) -> None:
    assert AblationConfig(str(experiment), items=1).results_folder.name == "part"
    assert AblationConfig(str(experiment)).results_folder == experiment / "results"


def test_wrong_settings_of_the_command(experiment: Path, capsys: Any) -> None:
    assert main(["ablate"]) == 2
    assert "experiment is empty" in capsys.readouterr().err
    assert main(["ablate", str(experiment), "--jobs", "0"]) == 2
    assert main(["ablate", str(experiment), "--dry_run"]) == 0
    assert "2 runs of `wanedit edit`, 2 to make" in capsys.readouterr().out


def test_an_empty_place_of_the_grid_is_drawn_as_a_line_of_its_own(tmp_path: Path) -> None:
    axes = [{"controller": ["residual"], "alpha": [1.0, 2.0]}, {"controller": ["replacement"]}]
    figures = [{"x": "alpha", "y": "psnr_off", "lines": "controller"}]
    folder = write_grid(tmp_path / "e", axes=axes, baseline={"controller": "residual"}, figures=figures)
    grid = load_grid(folder)
    runs = expand(grid, folder)
    for k, run in enumerate(runs):
        run.succeed(tmp_path, {"psnr_off": 20.0 + k})
    results = collect(grid, runs, tmp_path)
    assert results.points() == [("residual", "1.0"), ("residual", "2.0"), ("replacement", "")]
    text = table(grid, results)
    assert "| replacement |  | 1 | 22.00 |" in text
    # Two points of the baseline could be meant, and neither is chosen.
    assert "Without one point of the baseline to compare with: replacement." in text
    grid = replace(grid, baseline={"controller": "residual", "alpha": 2.0})
    assert "| replacement |  | 1 | +1.00 |" in table(grid, results)
    assert draw_figures(grid, results, tmp_path)[0].is_file()


@pytest.mark.usefixtures("in_process")
def test_an_experiment_on_record_is_gone_on_with_from_its_folder(experiment: Path, tmp_path: Path) -> None:
    config = AblationConfig(str(experiment), output=str(tmp_path / "runs"))
    begin(config)
    root = config.runs_folder
    asked = run_cli("status", str(root))
    assert "0 of 2 runs; nobody is at work" in asked.out, asked.err
    first = next(iter(Ablation(config).runs.values()))
    first.succeed(root, {"psnr_off": 1.0}, seconds=3.0)
    results = work(root, verbose=False)
    assert not results.failed
    assert first.result(root) == {"psnr_off": 1.0}
    assert results.told == f"results: {experiment.absolute() / 'results' / 'table.md'}"
    assert "2 of 2 runs; complete" in run_cli("status", str(root)).out
    # One that fails is none that is left.
    first.fail(root, "no disk")
    assert "2 of 2 runs (1 failed)" in run_cli("status", str(root)).out
    other = write_grid(tmp_path / "other", axes={"alpha": [3.0]})
    with Ablation(config).directory.queue.working(), pytest.raises(InUseError, match="is at another run"):
        ablate(replace(config, experiment=str(other)), verbose=False)


@pytest.mark.slow
def test_two_ranks_of_torchrun_share_the_runs(experiment: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "wanedit", "ablate", str(experiment), "--output", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "runs on 2 ranks" in done.stdout
    assert " 2/2 runs" in done.stdout
    assert not list((tmp_path / "runs").glob(".*.partial"))
    assert len(list((tmp_path / "runs").rglob("result.json"))) == 2
    assert (experiment / "results" / "table.md").is_file()


@pytest.mark.parametrize("folder", sorted(Path(__file__).parents[2].glob("experiments/*/grid.yaml")), ids=str)
def test_every_shipped_experiment_expands(folder: Path) -> None:
    grid = load_grid(folder.parent)
    runs = expand(grid, folder.parent, 1)
    assert runs
    assert grid.minutes is not None
    assert grid.minutes <= 40  # of two cores; 09 has 64 scenes


def test_recorded_results_are_of_the_shipped_weights_or_say_that_they_are_not() -> None:
    experiments = Path(__file__).parents[2] / "experiments"
    shipped = digest(hash_files(open_wan("tiny"), print))
    for folder in sorted(experiments.glob("*_*")):
        if (record := folder / "results" / "record.json").exists():
            made_by = set(json.loads(record.read_text()).get("models", [""]))
        else:
            lines = [*(folder / "results").glob("*.jsonl")]
            made_by = {json.loads(x).get("weights", "") for p in lines for x in p.read_text().splitlines()}
            made_by -= {None}  # of what no model made
        if not made_by:
            continue  # not run yet
        same = all(name and shipped.startswith(name) for name in made_by)
        readme = (folder / "README.md").read_text()
        assert same != ("**Weights**: wan-tiny as it was before" in readme), folder.name
