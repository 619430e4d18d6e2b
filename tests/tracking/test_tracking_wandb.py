"""Weights & Biases without a network: what it writes, what it must not write, and that it holds nothing up."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from lightning.pytorch.utilities import rank_zero_only

from tests.jobs.test_faults import MANY_STEPS, wait_for_segments
from tests.runs import EDIT, Inputs, command, edit_command, start_process
from tests.tracking.tracking_files import config, history, records, summary
from wanedit import EditConfig, EditResult, edit
from wanedit.tracking import TrackingSettings, open_tracker
from wanedit.tracking.weights_and_biases import artifact_name, chosen_mode

CANARY = "canary0123456789canary0123456789canary01"
FLAGS = ("--tracking=wandb", "--experiment=e1", "--tracking_project=p1")
UNREACHABLE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": CANARY}


@dataclass(frozen=True)
class Tracked:
    """Two runs of one edit in one folder, offline."""

    folder: Path
    results: list[EditResult]
    lines: list[str]

    @property
    def files(self) -> list[Path]:
        """What `wandb sync` reads, oldest first."""
        return sorted(self.folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)

    @property
    def run_id(self) -> str:
        (record,) = json.loads((self.folder / "tracking.json").read_text())["runs"].values()
        return record["run_id"]


@pytest.fixture(scope="module")
def tracked(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    home = tmp_path_factory.mktemp("tracked")
    lines: list[str] = []
    made = EditConfig(
        video=str(inputs.video), keyframes=inputs.keyframes(0, 8), prompt="a blue square", output=str(home / "out"),
        tracking="wandb", experiment="e1", tracking_project="p1", **EDIT,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        (home / "cwd").mkdir()
        patch.chdir(home / "cwd")
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_API_KEY", CANARY)
        before = dict(os.environ)
        results = [edit(made, say=lines.append)]
        time.sleep(1.1)  # W&B names a folder by the second
        results.append(edit(made, say=lines.append))
        assert dict(os.environ) == before
    assert not list((home / "cwd").iterdir())
    return Tracked(home / "out", results, lines)


def services(process: int) -> list[psutil.Process]:
    """W&B's service processes that serve a process."""
    found = []
    for other in psutil.process_iter(["cmdline"]):
        words = other.info["cmdline"] or []
        if words and "wandb-core" in words[0] and str(process) in words:
            found.append(other)
    return found


def canaries(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if CANARY.encode() in path.read_bytes()]


@pytest.mark.slow
def test_a_run_stands_in_its_file(tracked: Tracked) -> None:
    found = records(tracked.files[0])
    run = next(record.run for record in found if record.HasField("run"))
    assert (run.run_id, run.project, run.run_group, run.job_type) == (tracked.run_id, "p1", "e1", "edit")
    assert (run.display_name, list(run.tags)) == ("out", ["tiny", "residual_corrected"])
    values = config(found)
    assert (values["base_seed"], values["num_inference_steps"], values["video"]) == (7, 2, "source.mkv")
    assert values["edit"] == tracked.results[0].digest
    assert next(record.exit.exit_code for record in found if record.HasField("exit")) == 0


@pytest.mark.slow
def test_every_step_is_a_row_of_its_own_axis(tracked: Tracked) -> None:
    found = records(tracked.files[0])
    rows = [row for row in history(found) if "edit/step" in row]
    assert [(row["_step"], row["edit/step"]) for row in rows] == [(0, 0), (1, 1)]
    names = {"edit/sigma", "edit/gain", "edit/alpha_h", "edit/r_k_norm", "edit/keyframe_error"}
    assert names <= set(rows[0])
    assert rows[1]["edit/keyframe_error"] == tracked.results[0].keyframe_error
    axes = {r.metric.glob_name: r.metric.step_metric for r in found if r.HasField("metric")}
    assert (axes["edit/*"], axes["segment/*"]) == ("edit/step", "segment/index")


@pytest.mark.slow
def test_the_result_is_a_row_with_its_sheet_and_an_artifact(tracked: Tracked) -> None:
    found = records(tracked.files[0])
    came_to = summary(found)
    assert came_to["keyframe_error"] == tracked.results[0].keyframe_error
    assert (came_to["frames"], came_to["seed"]) == (9, 7)
    (file,) = tracked.files[0].parent.glob("files/media/table/result*.table.json")
    table = json.loads(file.read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert row["video"] == "out/output_final.mp4"
    (place,) = [r["result/contact_sheet/path"] for r in history(found) if "result/contact_sheet/path" in r]
    assert (tracked.files[0].parent / "files" / place).is_file()
    (shown,) = [row for row in history(found) if "result/playable/path" in row]
    played = tracked.files[0].parent / "files" / shown["result/playable/path"]
    assert (shown["result/playable/_type"], played.suffix) == ("video-file", ".mp4")
    assert played.read_bytes() == tracked.results[0].video.read_bytes()
    (stored,) = [r.artifact for r in found if r.HasField("artifact") and r.artifact.type == "run_table"]
    names = [entry.path for entry in stored.manifest.contents]
    assert "result.table.json" in names
    assert [name for name in names if name.endswith(".png")], names
    (artifact,) = [r.artifact for r in found if r.HasField("artifact") and r.artifact.type == "result"]
    assert artifact.name == f"edit-{tracked.run_id}"
    digest = json.loads(artifact.metadata)["sha256"]
    assert digest[:12] in artifact.aliases
    contents = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert set(contents) == {"video.mp4", "config.json"}
    # Copies, so that the folder can be synced after another run wrote over the video.
    assert contents["video.mp4"].read_bytes() == tracked.results[0].video.read_bytes()
    assert all(path.is_relative_to(tracked.folder) for path in contents.values())


@pytest.mark.slow
def test_a_resumed_run_goes_on_under_its_id(tracked: Tracked) -> None:
    assert [result.edited for result in tracked.results] == [True, False]
    assert len(tracked.files) == 2
    first, second = (records(path) for path in tracked.files)
    assert {r.run.run_id for r in [*first, *second] if r.HasField("run")} == {tracked.run_id}
    # No step and no artifact again; rows are counted on.
    assert max(row["_step"] for row in history(first)) < min(row["_step"] for row in history(second))
    assert not [row for row in history(second) if "edit/step" in row]
    assert not [r for r in second if r.HasField("artifact") and r.artifact.type == "result"]


@pytest.mark.slow
def test_it_says_how_to_sync(tracked: Tracked) -> None:
    said = [line for line in tracked.lines if line.startswith("tracking")]
    assert said == [f"tracking: send it to W&B with: wandb sync {path.parent}" for path in tracked.files]


@pytest.mark.fault(33)
@pytest.mark.slow
def test_nothing_holds_the_key_or_a_folder(tracked: Tracked, inputs: Inputs) -> None:
    assert canaries(tracked.folder) == []
    assert CANARY not in "\n".join(tracked.lines)
    for path in tracked.files:
        shown = [
            r for r in records(path) if not r.HasField("artifact")
        ]  # whose copies `wandb sync` must find
        assert str(inputs.video.parent) not in str(shown)
        assert str(tracked.folder.parent) not in str(shown)


@pytest.mark.slow
def test_the_service_ends_with_the_run(tracked: Tracked) -> None:
    assert tracked.results
    assert services(os.getpid()) == []


@pytest.mark.parametrize(
    ("environment", "stored", "mode", "said"),
    [
        ({}, "", "offline", True),
        ({"WANDB_MODE": "offline"}, "", "offline", False),
        ({"WANDB_MODE": "online"}, "", "offline", True),
        ({"WANDB_MODE": "disabled"}, "", "disabled", False),
        ({"WANDB_API_KEY": CANARY}, "", "online", False),
        ({"WANDB_API_KEY": CANARY, "WANDB_MODE": "dryrun"}, "", "offline", False),
        # What `wandb login` stored counts, for the server that it is of.
        ({}, "api.wandb.ai", "online", False),
        ({"WANDB_MODE": "offline"}, "api.wandb.ai", "offline", False),
        ({"WANDB_BASE_URL": "https://wandb.lab.example"}, "api.wandb.ai", "offline", True),
        ({"WANDB_BASE_URL": "https://wandb.lab.example"}, "wandb.lab.example", "online", False),
    ],
)
def test_the_mode_is_settled_without_a_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict, stored: str, mode: str, said: bool
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text(f"machine {stored} login user password {CANARY}\n" if stored else "")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    chosen, line = chosen_mode()
    assert (chosen, bool(line)) == (mode, said)
    assert CANARY not in line


def test_names_of_artifacts() -> None:
    assert artifact_name("edit a/b:ü") == "edit-a-b-"
    assert artifact_name("") == "result"


@pytest.mark.fault(23)
@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("key", ["x", "local-" + "a" * 7])
def test_a_key_that_is_none_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", UNREACHABLE["WANDB_BASE_URL"])
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # as under srun, of a run of its own
    lines: list[str] = []
    with open_tracker(
        TrackingSettings(tracking="wandb"), tmp_path, "ablate", {}, say=lines.append
    ) as tracking:
        rows = [
            {"method": "a", "error": 0.5, "lpips": 1},
            {"method": "b", "error": None, "lpips": "no weights"},
        ]
        tracking.table("results", rows)
    assert ["offline" in line for line in lines] == [True, True], lines
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert "results" in str(history(records(path)))
    (file,) = path.parent.glob("files/media/table/results*.table.json")
    assert json.loads(file.read_text())["data"] == [["a", 0.5, "1"], ["b", None, "no weights"]]


@pytest.mark.fault(23)
@pytest.mark.slow
@pytest.mark.network
def test_a_server_that_does_not_answer_stops_nothing(inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["-m", "wanedit", *edit_command(inputs, out, *FLAGS)]
    process = start_process(arguments, env=UNREACHABLE, cwd=tmp_path, stdin=subprocess.DEVNULL)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert "W&B cannot be reached" in output
    assert f"wandb sync {out}/wandb/offline-run-" in output
    assert CANARY not in output + errors
    assert canaries(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    (path,) = out.glob("wandb/offline-run-*/*.wandb")
    assert len([row for row in history(records(path)) if "edit/step" in row]) == 2
    assert services(process.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signals_stay_ours(keyframes, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    arguments = ["-m", "wanedit", *command(keyframes, out, MANY_STEPS, *FLAGS)]
    process = start_process(arguments, env={"WANDB_MODE": "offline"})
    with contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        wait_for_segments(process, out, 1)
        time.sleep(0.3)
        sent = time.monotonic()
        process.send_signal(getattr(signal, name))
        output, errors = process.communicate(timeout=10)
    assert time.monotonic() - sent < 10
    assert process.returncode == 128 + getattr(signal, name), errors
    assert "Resume with" in errors
    assert "wandb sync" in output
    assert services(process.pid) == []
    (path,) = out.glob("wandb/offline-run-*/*.wandb")
    found = records(path)
    assert len([row for row in history(found) if "segment/index" in row]) == 1
    assert next(r.exit.exit_code for r in found if r.HasField("exit")) == process.returncode


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("launcher", ["num_gpus", "torchrun"])
def test_one_rank_logs_the_segments_of_all(keyframes, tmp_path: Path, launcher: str) -> None:
    out = tmp_path / "out"
    if launcher == "num_gpus":
        arguments = ["-m", "wanedit", *command(keyframes, out, *FLAGS, "--num_gpus=2")]
    else:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wanedit"]
        arguments = [*start, *command(keyframes, out, *FLAGS)]
    process = start_process(arguments, env={"WANDB_MODE": "offline"})
    output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, output + errors
    (path,) = out.glob("wandb/*run-*/*.wandb")
    rows = [row for row in history(records(path)) if "segment/index" in row]
    assert sorted(row["segment/index"] for row in rows) == [0, 1, 2]
    assert {row["segment/rank"] for row in rows} == {0, 1}
    assert output.count("wandb sync") == 1


def test_help_loads_no_backend() -> None:
    code = (
        "import contextlib, io, sys\nfrom wanedit.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['edit', '--help', 'all'])\n"
        "print({'wandb', 'tensorboard'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_opens_without_a_warning(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, wandb\nfrom wanedit.tracking.backends import RunInfo\n"
        "from wanedit.tracking.weights_and_biases import WandbTracker\n"
        "tracker = WandbTracker()\n"
        "tracker.start(RunInfo('one', pathlib.Path(sys.argv[1]), 'edit', 'wanedit', '', {}))\ntracker.finish(0)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, "WANDB_MODE": "offline"}
    )
    assert "anonymous" not in done.stdout + done.stderr
