"""Many videos by one command: what is a list of them, what each is given, what comes out, and who helps."""

import csv
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.runs import EDIT, Inputs, moving_square, run_cli
from wanedit.errors import InputError, ResourceError
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.run import edit
from wanedit.jobs.evaluate import METRICS
from wanedit.jobs.many.run import Many, ManyConfig, kind_of, many
from wanedit.runtime.claims import Queue
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.inputs import with_model
from wanedit.runtime.launchers import work
from wanedit.runtime.many import Found, its_own, listed
from wanedit.runtime.pool import NotHereError, in_children, read_outcome
from wanedit.runtime.record import read_settings, recorded_config, write_record
from wanedit.video import read_frames, write_lossless

# Which asks no model.
COPY = {**EDIT, "method": "copy_source", "controller": "residual"}
FLAGS = [f"--{name}={value}" for name, value in COPY.items()]


@pytest.fixture
def clips(inputs: Inputs, tmp_path: Path) -> Path:
    """A folder with two films and one of pictures; beside it their keyframes, each under its name."""
    folder = tmp_path / "clips"
    (folder / "pictures").mkdir(parents=True)
    shutil.copy(inputs.video, folder / "one.mkv")
    write_lossless(folder / "two.mkv", moving_square(13), 16)
    for k, frame in enumerate(moving_square(5)):
        Image.fromarray(frame).save(folder / "pictures" / f"{k:04d}.png")
    for name in ("one", "two", "pictures"):
        (tmp_path / "keyframes" / name).mkdir(parents=True)
        shutil.copy(inputs.images[0], tmp_path / "keyframes" / name / "0000.png")
    return folder


@pytest.fixture
def edit_all(clips: Path, tmp_path: Path) -> Callable[..., Any]:
    words = ["edit", str(clips), "--keyframes", str(tmp_path / "keyframes"), "--prompt", "a"]
    return lambda *more: run_cli(*words, *FLAGS, "--output", str(tmp_path / "out"), *more)


def table(root: Path) -> dict[str, dict[str, str]]:
    with (root / "runs.csv").open() as file:
        return {line["name"]: line for line in csv.DictReader(file)}


@pytest.mark.usefixtures("in_process")
def test_each_video_of_a_folder_is_edited_with_its_own_keyframes(
    edit_all: Callable[..., Any], clips: Path, tmp_path: Path
) -> None:
    root = tmp_path / "out"
    planned = edit_all("--dry_run")
    assert planned.out.splitlines()[:3] == ["one: to make", "pictures: to make", "two: to make"], planned.err
    assert not root.exists()
    done = edit_all()
    assert done.code == 0, done.err
    assert done.out.endswith(f"{root / 'runs.csv'}: 3 of 3 are made\n")
    frames = {name: int(line["frames"]) for name, line in table(root).items()}
    assert frames == {"one": 9, "pictures": 5, "two": 13}
    assert "3 of 3 videos; complete" in run_cli("status", str(root)).out
    # Each is what it would be by itself.
    keyframes = str(tmp_path / "keyframes" / "two")
    alone = EditConfig(
        video=str(clips / "two.mkv"), keyframes=keyframes, prompt="a", output=str(tmp_path / "alone"), **COPY
    )
    made = edit(alone, verbose=False)
    assert np.array_equal(made.frames, read_frames(next((root / "two" / "segments").glob("*.mkv"))))
    # Nothing is made twice; what changes is.
    films = {path: path.stat().st_mtime_ns for path in root.glob("*/output_final.mp4")}
    assert "0 to make" in edit_all().out
    assert {path: path.stat().st_mtime_ns for path in films} == films
    Image.fromarray(moving_square(5)[4]).save(tmp_path / "keyframes" / "one" / "0000.png")
    assert "1 to make" in edit_all().out
    assert len({path.stat().st_mtime_ns - before for path, before in films.items()}) == 2
    assert not list(root.rglob(".*"))


@pytest.mark.fault(34)
@pytest.mark.usefixtures("in_process")
def test_one_that_fails_costs_no_other_and_is_tried_again(
    edit_all: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kind_of("integrated").make

    def fails(values: Any, *given: Any) -> Any:
        return 1 / 0 if values["output"].endswith("two") else real(values, *given)

    with monkeypatch.context() as broken:
        broken.setattr("wanedit.jobs.integrated.many.make", fails)
        done = edit_all()
    assert done.code == 1
    assert "failed: two" in done.out
    assert table(tmp_path / "out")["two"]["error"] == "ZeroDivisionError: division by zero"
    assert "3 of 3 videos (1 failed)" in run_cli("status", str(tmp_path / "out")).out
    again = edit_all()
    assert (again.code, "1 to make" in again.out) == (0, True)
    assert table(tmp_path / "out")["two"]["error"] == ""


def test_what_is_on_record_is_gone_on_with_from_anywhere(
    edit_all: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wanedit.runtime.launchers.run_actors", lambda *given: None)
    monkeypatch.setattr("wanedit.runtime.launchers._library", lambda name: None)
    monkeypatch.chdir(tmp_path)
    given = [
        "edit",
        "clips",
        "--keyframes",
        "keyframes",
        "--prompt=a",
        *FLAGS,
        "--output=out",
        "--launcher=ray",
    ]
    begun = run_cli(*given)
    assert begun.code == 0, begun.err
    assert "0 of 3 videos" in run_cli("status", "out").out
    monkeypatch.chdir("/")
    assert work(tmp_path / "out", verbose=False).failed == 0
    assert len(table(tmp_path / "out")) == 3
    record = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (record["job"], record["of"]) == ("many", "integrated")


@pytest.mark.usefixtures("in_process")
def test_what_lost_processes_left_goes_with_the_next(
    edit_all: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANEDIT_LEASE", "0.3")
    monkeypatch.setattr("wanedit.runtime.claims.LOOK", 0.05)
    monkeypatch.setattr("wanedit.runtime.directory.LOOK", 0.05)
    assert edit_all().code == 0
    for folder in (tmp_path / "out", tmp_path / "out" / "two"):
        lost = Queue(folder)
        lost.machine, left = "elsewhere", ExitStack()
        left.enter_context(lost.working())
        lost.say("at work")
        lost._over.set()
    again = edit_all()
    assert (again.code, "0 to make" in again.out) == (0, True), again.err
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.fixture
def queued(edit_all: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of many edits that are on record, for workers of which none has come yet."""
    monkeypatch.setattr("wanedit.runtime.launchers.submit", lambda *given: [SimpleNamespace(job_id="1_0")])
    assert edit_all("--launcher=slurm").code == 0
    return tmp_path / "out"


@pytest.mark.fault(34)
def test_who_has_another_wanedit_or_no_disk_makes_nothing_and_fails_nothing(
    queued: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as here:
        here.setattr("wanedit.__version__", "0.0.1")
        here.setattr("wanedit.jobs.many.run.__version__", "0.0.1")
        with pytest.raises(ResourceError, match="two: wanedit, the model or a file"):
            work(queued, verbose=False)
    with monkeypatch.context() as full:
        no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "film")
        full.setattr("wanedit.jobs.edit.run.write_piece", lambda *given: (_ for _ in ()).throw(no_space))
        with pytest.raises(ResourceError, match="make room and run again"):
            work(queued, verbose=False)
    assert not [*queued.rglob("failure.json"), *queued.rglob("result.json")]
    assert work(queued, verbose=False).failed == 0


@pytest.mark.fault(34)
def test_the_first_of_which_a_file_is_another_costs_itself_alone(queued: Path, tmp_path: Path) -> None:
    keyframe = tmp_path / "keyframes" / "two" / "0000.png"  # of the longest
    Image.fromarray(moving_square(5)[4]).save(keyframe)
    assert work(queued, verbose=False).failed == 1
    why = "two: wanedit, the model or a file that is read is another here"
    assert {name: line["error"].startswith(why) for name, line in table(queued).items()} == {
        "one": False,
        "pictures": False,
        "two": True,
    }


@pytest.mark.parametrize("left", [0, 1])
def test_a_child_that_can_make_none_ends_no_other(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"of": "integrated", "output": str(tmp_path), "common": {"video": "a"}}
    runs = [{"name": f"c{k}", "hash": f"{k:016x}", "cost": 1.0, "settings": {}} for k in range(2)]
    pool, at_work = Many(ManyConfig(**config, runs=runs)), Future[None]()

    class Executor:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def submit(self, what: Any, *given: Any) -> Future[Any]:
            if what is not os.getpid and given[1]:
                return at_work
            done = Future[Any]()
            if what is os.getpid:
                done.set_result(0)
            else:
                done.set_exception(NotHereError("no key"))
            return done

        def shutdown(self, **_: Any) -> None: ...

    def news() -> None:
        for run in pool.all[left:]:
            run.succeed(tmp_path, {"frames": 5.0})
        if not at_work.done():
            at_work.set_result(None)

    monkeypatch.setattr("loky.process_executor.ProcessPoolExecutor", Executor)
    with pytest.raises(NotHereError, match="no key") if left else nullcontext():
        in_children(pool, pool.directory.queue, 2, False, news)
    assert len(pool.ended()) == 2 - left


@pytest.mark.usefixtures("in_process")
def test_keyframes_and_measures_of_many(clips: Path, tmp_path: Path) -> None:
    styled = run_cli(
        "style",
        str(clips),
        "--style.description",
        "noir",
        "--indices=0",
        "--output",
        str(tmp_path / "styled"),
    )
    assert styled.code == 0, styled.err
    assert (tmp_path / "styled" / "two" / "keyframes.json").is_file()
    entries = [
        {"video": "clips/one.mkv", "metrics": "temporal"},
        {"video": "clips/two.mkv", "name": "second"},
    ]
    (tmp_path / "films.yaml").write_text(yaml.safe_dump(entries))
    measured = run_cli(
        "evaluate", str(tmp_path / "films.yaml"), "--metrics=none", "--output", str(tmp_path / "measured")
    )
    assert measured.code == 0, measured.err
    found = table(tmp_path / "measured")
    assert [*found] == ["one", "second"]
    assert (found["one"]["temporal/flicker"] != "", found["second"]["temporal/flicker"]) == (True, "")
    assert "temporal" in json.loads((tmp_path / "measured" / "one.json").read_text())["metrics"]


def test_a_folder_of_pictures_and_a_film_are_one(inputs: Inputs, clips: Path, tmp_path: Path) -> None:
    edits, measures = kind_of("integrated"), kind_of("evaluate")
    for one in (str(inputs.video), str(clips / "pictures"), "", "gone", "a\0b"):
        assert listed(one, edits) is None
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds nothing; expected the pictures of one video, or films"):
        listed(str(tmp_path / "empty"), edits)
    (tmp_path / "empty" / "day 1").mkdir()
    with pytest.raises(InputError, match="empty holds none but day 1; expected"):
        listed(str(tmp_path / "empty"), edits)
    (clips / "run").mkdir()
    (clips / "run" / "metrics.jsonl").touch()
    names = {
        kind: [entry["name"] for entry in (listed(str(clips), kind) or [[]])[0]] for kind in (edits, measures)
    }
    assert names == {edits: ["one", "pictures", "two"], measures: ["one", "pictures", "run", "two"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{video: a.mp4}", "holds no list of settings"),
        ("[a.mp4]", "holds no list of settings"),
        ("[]", "holds no list of settings"),
        ("[{prompt: a}]", "entry 1 has no video; expected one, or a run"),
        ("[{video: a.mp4}, {video: b/a.mov}]", "has 'a' twice; expected a list with a `name` of its own"),
        ("[{video: a.mp4, name: ../a}]", "the name '../a' is no folder's"),
        ("[{video: runs.mp4}]", "the name 'runs' is no folder's"),
        (
            "[{video: a.mp4, steps: 2, num_inference_steps: 3}]",
            "list.yaml: entry 1: num_inference_steps is given twice",
        ),
    ],
)
def test_a_list_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        listed(str(path), kind_of("integrated"))


def test_what_one_lacks_is_told_by_its_name(edit_all: Callable[..., Any], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "keyframes" / "two")
    told = edit_all()
    assert told.code == 2
    assert "two: keyframes: " in told.err
    assert "has none of the name 'two'; expected one file or folder" in told.err
    assert its_own("keyframes", "a.png:0", "two", []) == "a.png:0"
    assert not (tmp_path / "out").exists()
    (tmp_path / "list.yaml").write_text("[{video: clips/one.mkv, keyframs: a}]")
    told = run_cli("edit", str(tmp_path / "list.yaml"), "--output", str(tmp_path / "out"))
    assert (told.code, "one: " in told.err and "keyframs is no setting" in told.err) == (2, True), told.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["edit", "--jobs=2"], "jobs is 2 for one video, which is the work of one process"),
        (["edit", "--launcher=ray", "--workers=2"], "workers is 2 for one video"),
        (["style", "--launcher=ray"], "launcher is ray for the keyframes of one video; expected local"),
        (["evaluate", "--num_gpus=2"], "jobs is 2 for one video"),
    ],
)
def test_one_video_is_the_work_of_one_process(words: list[str], message: str, inputs: Inputs) -> None:
    told = run_cli(words[0], str(inputs.video), *words[1:])
    assert (told.code, message in told.err) == (2, True), told.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("output: elsewhere", "one: output is of all videos at once; expected it beside the list"),
        ("out: elsewhere", "one: output is of all videos at once"),
        ("force_regenerate: true", "one: force_regenerate is of all videos at once"),
        ("gpu_id: 1", "one: gpu_id is of all videos at once"),
        ("style: oil", "one: style is 'oil'; expected its parts, such as {description: words}"),
        ("cache: easycache, cache_options: {treshold: 1}", "one: cache easycache has no option 'treshold'"),
        ("method: residual_corrected, long_source: error, num_frames: 99999", "one: "),
        ("1: 2", "holds no list of settings"),
        ("name: 0", "the name 0 is no folder's"),
        ("name: slurm", "the name 'slurm' is no folder's beside runs, slurm"),
        ("name: ''", "the name '' is no folder's"),
    ],
)
def test_what_one_cannot_have_is_told_before_any_is_made(
    setting: str, message: str, clips: Path, tmp_path: Path
) -> None:
    keyframes = clips.parent / "keyframes" / "one"
    entry = f"{{video: {clips / 'one.mkv'}, keyframes: {keyframes}, {setting}}}"
    (tmp_path / "list.yaml").write_text(f"[{entry}]")
    flags = [flag for flag in FLAGS if flag.partition("=")[0].strip("-") not in setting]
    told = run_cli("edit", str(tmp_path / "list.yaml"), *flags, "--output", str(tmp_path / "out"))
    assert (told.code, message in told.err, "Traceback" in told.err) == (2, True, False), told.err
    assert not (tmp_path / "out").exists()


def test_a_device_for_all_is_refused(edit_all: Callable[..., Any], tmp_path: Path) -> None:
    told = edit_all("--gpu_id=0")
    assert (told.code, "gpu_id is 0 for many videos, which take the GPUs in turn" in told.err) == (2, True), (
        told.err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(34)
def test_a_worker_without_its_device_fails_nothing(queued: Path, tmp_path: Path) -> None:
    told = run_cli("work", str(queued), "--gpu=77")
    assert (told.code, "gpu 77 asked for; this machine has" in told.err) == (2, True), told.err
    told = run_cli("work", str(queued), "--gpu=0", "--launcher=slurm")
    assert (told.code, "gpu is 0 for several processes" in told.err) == (2, True), told.err
    assert not list(queued.rglob("failure.json"))
    # Nor does one make all of it at the place where it was before.
    moved = shutil.copytree(queued, tmp_path / "moved")
    told = run_cli("work", str(moved))
    assert (told.code, f"{moved} was begun as {queued}" in told.err) == (2, True), told.err
    assert not list(queued.rglob("result.json"))


@pytest.mark.usefixtures("in_process")
def test_what_was_to_be_made_anew_is_by_who_goes_on(
    edit_all: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert edit_all().code == 0
    real, anew = kind_of("integrated").make, list[bool]()

    def make(values: Any, *given: Any) -> Any:
        if len(anew) == 1:
            monkeypatch.setattr("wanedit.jobs.integrated.many.make", again)
            raise ResourceError("full") from OSError(errno.ENOSPC, "full")
        return again(values, *given)

    def again(values: Any, *given: Any) -> Any:
        anew.append(bool(values.get("force_regenerate")))
        return real(values, *given)

    monkeypatch.setattr("wanedit.jobs.integrated.many.make", make)
    assert edit_all("--force_regenerate").code == 4
    assert anew == [True]
    assert work(tmp_path / "out", verbose=False).failed == 0
    assert anew == [True] * 3
    # Once all are, nothing more is.
    assert "0 to make" in edit_all().out


def test_what_a_folder_holds_besides_is_told(
    edit_all: Callable[..., Any], clips: Path, tmp_path: Path
) -> None:
    (clips / "c.txt").touch()
    (clips / "day 2").mkdir()
    (clips / "day 2" / "three.mkv").touch()
    planned = edit_all("--dry_run")
    assert f"left out of {clips}, since they are no films or folders of pictures: c.txt, day 2" in planned.out
    assert "3 videos, results in" in planned.out, planned.err
    assert "note: " not in edit_all("--dry_run", "--quiet").out
    Image.new("RGB", (8, 8)).save(clips / "cover.png")
    told = edit_all("--dry_run")
    assert "holds pictures (cover.png), as of one video, and films (one.mkv, two.mkv)" in told.err, told.out


@pytest.mark.usefixtures("in_process")
def test_the_output_may_lie_in_the_folder_and_is_no_video(clips: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(clips), "--metrics=none", "--output"]
    for _ in range(2):
        done = run_cli(*words, str(clips / "measured"))
        assert (done.code, "3 of 3 are made" in done.out) == (0, True), done.err
    told = run_cli(*words, str(clips))
    assert (told.code, f"output {clips} is also the folder of the videos" in told.err) == (2, True), told.err
    assert not (clips / "config.yaml").exists()


@pytest.mark.usefixtures("in_process")
def test_a_run_is_named_by_its_film_too(edit_all: Callable[..., Any], tmp_path: Path) -> None:
    assert edit_all("--verbose").out.splitlines()[0] == "one: to make"
    film = tmp_path / "out" / "one" / "output_final.mp4"
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump([{"run": str(film), "name": "it"}]))
    done = run_cli(
        "evaluate", str(tmp_path / "runs.yaml"), "--metrics=none", "--output", str(tmp_path / "measured")
    )
    assert (done.code, [*table(tmp_path / "measured")]) == (0, ["it"]), done.err


OWN_METRIC = """
from wanedit.jobs.evaluate.metric import Metric


class Mine(Metric):
    plain = ("value",)

    def compute(self):
        return {"value": %d.0}
"""


@pytest.mark.usefixtures("in_process")
def test_code_of_ones_own_is_found_from_anywhere_and_known_by_its_content(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "metric_of_many.py").write_text(OWN_METRIC % 1)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("wanedit.runtime.launchers.submit", lambda *given: [SimpleNamespace(job_id="1_0")])
    monkeypatch.chdir(home)
    root = tmp_path / "out"
    words = ["evaluate", str(clips), "--metrics=metric_of_many:Mine", "--output", str(root)]
    begun = run_cli(*words, "--launcher=slurm")
    assert begun.code == 0, begun.err
    assert yaml.safe_load((root / "config.yaml").read_text())["module_folders"] == [str(home)]
    # As in another process, elsewhere.
    monkeypatch.chdir("/")
    sys.path[:] = [folder for folder in sys.path if folder != str(home)]
    del sys.modules["metric_of_many"]
    assert work(root, verbose=False).failed == 0
    assert [line["metric_of_many:Mine/value"] for line in table(root).values()] == ["1.0"] * 3
    (home / "metric_of_many.py").write_text(OWN_METRIC % 2)
    METRICS.renew("metric_of_many:Mine")
    monkeypatch.chdir(home)
    assert "3 to make" in run_cli(*words).out
    assert [line["metric_of_many:Mine/value"] for line in table(root).values()] == ["2.0"] * 3


def test_a_damaged_record_is_told(queued: Path) -> None:
    path = queued / "config.yaml"
    whole = path.read_text()
    record = yaml.safe_load(whole)
    for change in (
        {"runs": [5]},
        {"runs": [{**record["runs"][0], "hash": "../../x"}]},
        {"runs": [{**record["runs"][0], "name": "../x"}]},
        {"runs": [{**record["runs"][0], "settings": 5}]},
        {"of": "many"},
        {"of": ".."},
    ):
        path.write_text(whole.splitlines()[0] + "\n" + yaml.safe_dump(record | change))
        told = run_cli("work", str(queued))
        assert (told.code, "Traceback" in told.err) == (2, False), (change, told.err)


def test_a_record_of_a_thousand_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = SimpleNamespace(ENDING="", EACH=("keyframes",), find=lambda values, folders: Found((), {}))
    monkeypatch.setattr("wanedit.jobs.many.run.kind_of", lambda of: kind)
    common = {f"setting_{k}": [k, None] for k in range(70)} | {
        "keyframes": None,
        "output": str(tmp_path / "out"),
    }
    entries = [{"name": f"n{k}", "video": f"{k}.mp4"} for k in range(1000)]
    config = many("edit", common, entries)
    (tmp_path / "out").mkdir()
    write_record(RunDirectory(tmp_path / "out", tmp_path / "out" / "runs.csv"), config)
    again = recorded_config(type(config), read_settings(tmp_path / "out" / "config.yaml"), tmp_path)
    made, read = Many(config).all, Many(again).all
    assert [(one.name, one.settings) for one in made] == [(one.name, one.settings) for one in read]
    assert made[7].settings["setting_9"] == [9, None]
    monkeypatch.setattr("wanedit.jobs.many.run.MAX_VALUES", 500)
    with pytest.raises(InputError, match=r"1000 videos have .* expected several lists"):
        many("edit", common, entries)


def test_a_video_that_cannot_be_read_is_told_before_any_is_styled(clips: Path, tmp_path: Path) -> None:
    (clips / "torn.mp4").write_bytes(b"torn")
    told = run_cli("style", str(clips), "--style.description=noir", "--output", str(tmp_path / "out"))
    assert (told.code, "torn: " in told.err) == (2, True), told.err
    (clips / "torn.mp4").unlink()
    told = run_cli(
        "style", str(clips), "--style.description=noir", "--indices=99", "--output", str(tmp_path / "out")
    )
    assert (told.code, "one: indices: frame 99 asked for" in told.err) == (2, True), told.err
    assert not (tmp_path / "out").exists()


def test_a_model_is_looked_up_beside_the_list_and_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "mine").mkdir()
    (tmp_path / "list" / "a.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    given = {
        "model": "mine",
        "ckpt_dir": "tiny",
        "vae": "gone",
        "lora": "a.safetensors:0.5",
        "transformer": 5,
    }
    home = tmp_path / "list"
    assert with_model(given, [Path("list")], absolute=True) == {
        "model": str(home / "mine"),
        "ckpt_dir": "tiny",
        "vae": "gone",
        "lora": [f"{home / 'a.safetensors'}:0.5"],
        "transformer": 5,  # which is refused by its type
    }


def test_where_a_video_was_looked_for_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("[{video: gone.mkv}]")
    told = run_cli("evaluate", "list.yaml", "--output", "out")
    assert (told.code, told.err.count("gone.mkv")) == (2, 1), told.err


@pytest.mark.fault(34)
@pytest.mark.usefixtures("in_process")
def test_a_file_that_goes_meanwhile_costs_its_own_video_alone(
    edit_all: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, keyframe = kind_of("integrated").make, tmp_path / "keyframes" / "one" / "0000.png"
    kept = keyframe.read_bytes()

    def made(values: Any, *given: Any) -> Any:
        keyframe.unlink(missing_ok=True)  # while the first, "two", is made
        return real(values, *given)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("wanedit.jobs.integrated.many.make", made)
        done = edit_all()
    assert (done.code, done.out.count("failed: one")) == (1, 1), done.err
    found = table(tmp_path / "out")
    assert (found["two"]["frames"], found["pictures"]["frames"]) == ("13", "5")
    assert f"{keyframe.parent} holds no keyframes" in found["one"]["error"]
    keyframe.write_bytes(kept)
    assert edit_all().code == 0
    assert table(tmp_path / "out")["one"]["frames"] == "9"
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.fault(34)
@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("style", ["--stylist=gemini", "--indices=0"]),
        ("edit", ["--style.stylist=gemini", "--style.indices=0", "--prompt=a", *FLAGS]),
    ],
    ids=["style", "edit"],
)
def test_a_key_that_lacks_is_told_once(
    job: str, words: list[str], clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    told = run_cli(job, str(clips), "--style.description=noir", *words, "--output", str(tmp_path / "styled"))
    assert (told.code, (told.out + told.err).count("no Gemini key")) == (4, 1), told.err
    assert not list((tmp_path / "styled").rglob("failure.json"))


def test_who_asks_what_has_ended_looks_at_begun_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a network disk a thousand runs that ask after each other's two files are a million round trips."""
    config = {"of": "integrated", "output": str(tmp_path), "common": {"video": "a"}}
    runs = [{"name": f"c{k}", "hash": f"{k:016x}", "cost": 1.0, "settings": {}} for k in range(50)]
    pool = Many(ManyConfig(**config, runs=runs))
    opened = []
    real = read_outcome
    monkeypatch.setattr("wanedit.runtime.pool.read_outcome", lambda path: opened.append(path) or real(path))
    assert pool.ended() == set()
    pool.all[7].succeed(tmp_path, {"frames": 5.0})
    pool.all[9].fail(tmp_path, "why")
    assert pool.ended() == {pool.all[7].name, pool.all[9].name}
    before = len(opened)
    assert len(pool.ended()) == 2
    assert (before < 12, len(opened) - before) == (True, 0)
