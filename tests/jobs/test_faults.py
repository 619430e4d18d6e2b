"""Real processes, really killed, really parallel."""

import contextlib
import functools
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.chaos.disk import room
from tests.jobs.test_generate import latents_of
from tests.runs import command, draw_keyframe, run_cli, start_process
from wanedit import GenerationResult
from wanedit.errors import ResourceError
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.video import read_frames

# Enough steps that a signal sent after segment 0 lands inside segment 1.
MANY_STEPS = "--num_inference_steps=80"


def journal(out: Path) -> dict[str, dict]:
    found = Manifest(RunDirectory(out, out / "output_final.mp4")).read()
    return {name: asdict(entry) for name, entry in found.items()}


def segments_done(out: Path) -> int:
    return len(journal(out))


def wait_for_segments(process: subprocess.Popen, out: Path, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while segments_done(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no segment was finished"
        time.sleep(0.02)


def hashes(out: Path) -> list[str]:
    entries = [entry for entry in journal(out).values() if entry["latents_sha256"]]
    return [entry["latents_sha256"] for entry in sorted(entries, key=lambda entry: entry["index"])]


@pytest.mark.fault(2)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_killed_run_resumes_to_the_same_bytes(keyframes, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    words = command(keyframes, out, MANY_STEPS)
    process = start_process(["-m", "wanedit", *words])
    wait_for_segments(process, out, 1)
    time.sleep(0.3)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    assert segments_done(out) == 1
    assert not (out / "output_final.mp4").exists()
    if name != "SIGKILL":
        assert process.returncode == 128 + getattr(signal, name)
        assert re.search(r"Resume with:\n  \S+ -m wanedit generate --keyframes", errors)
        assert not list(out.rglob("*.partial"))
    first = next(out.glob("segments/segment_*.safetensors"))
    stamp = first.stat().st_mtime_ns

    resumed = run_cli(*words)
    assert resumed.code == 0, resumed.err
    assert "1 already complete" in resumed.out
    assert first.stat().st_mtime_ns == stamp
    assert (out / "output_final.mp4").exists()
    assert not list(out.rglob("*.partial"))

    if name == "SIGKILL":
        whole = tmp_path / "whole"
        assert run_cli(*command(keyframes, whole, MANY_STEPS, "--quiet")).code == 0
        assert hashes(out) == hashes(whole)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_bytes_of_one_process(
    keyframes, finished: GenerationResult, tmp_path: Path, ranks: int
) -> None:
    # Four ranks are more than the three segments: one of them has nothing to do.
    out = tmp_path / "out"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m", "wanedit"]
    process = start_process([*launcher, *command(keyframes, out)])
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert hashes(out) == latents_of(finished)
    entries = json.loads((out / "segments" / "progress.json").read_text())["segments"].values()
    # Who is free first takes the next one; no segment is shared by two.
    assert 2 <= len({entry["rank"] for entry in entries if entry["latents_sha256"]}) <= min(ranks, 3)
    # One bar, on rank 0, which counts what all did: three segments of two steps.
    assert re.search(rf"^sampling on {ranks} ranks .* 6/6 steps", output, re.MULTILINE)
    assert np.array_equal(read_frames(out / "output_final.mp4"), read_frames(finished.video))
    assert output.count("sampling") == 1
    assert not list(out.rglob("*.partial"))


@pytest.mark.fault(24)
@pytest.mark.slow
@pytest.mark.network
def test_num_gpus_starts_its_own_workers(keyframes, finished: GenerationResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # torchrun's own port, unless somebody has it already
            other.bind(("localhost", 29500))
            other.listen()
        process = start_process(["-m", "wanedit", *command(keyframes, out, "--num_gpus=2")])
        output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert hashes(out) == latents_of(finished)
    assert (out / "output_final.mp4").exists()
    assert re.search(r"^sampling on 2 ranks .* 6/6 steps", output, re.MULTILINE)
    assert not list(out.rglob("*.partial"))


# The stage of a kind of join: its settings, the files that are there when it is at work, and how a loss names it.
STAGES = {
    "co_denoise": (["--joins=co_denoise", "--num_inference_steps=24"], ("velocity_*", 6), "at co_denoise"),
    "bridge": (["--joins=bridge", MANY_STEPS], ("segment_*.safetensors", 3), "at bridge 2"),
}


@pytest.fixture(scope="module")
def longer(tmp_path_factory) -> list[list]:
    """Keyframes of segments that are long enough for a bridge."""
    folder = tmp_path_factory.mktemp("longer")
    return [[str(draw_keyframe(folder / f"{k}.png", 4 * k)), t] for k, t in enumerate((0, 0.75, 1.5, 2))]


@pytest.fixture(scope="module")
def whole(longer, tmp_path_factory) -> Callable[[str], list[str]]:
    """Hashes of the latents of a run that nothing stops, by its joins."""

    @functools.cache
    def made(joins: str) -> list[str]:
        out = tmp_path_factory.mktemp(joins) / "out"
        done = run_cli(*command(longer, out, *STAGES[joins][0], "--quiet"))
        assert done.code == 0, done.err
        return hashes(out)

    return made


def wait_for_files(process: subprocess.Popen, out: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob(f"segments/{pattern}"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {pattern}"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
@pytest.mark.parametrize("joins", STAGES)
def test_a_stop_while_joins_are_sampled_resumes_to_the_same_bytes(
    longer, tmp_path: Path, whole: Callable[[str], list[str]], joins: str, name: str
) -> None:
    out, (settings, at_work, _) = tmp_path / "out", STAGES[joins]
    words = command(longer, out, *settings)
    process = start_process(["-m", "wanedit", *words])
    wait_for_files(process, out, *at_work)
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=10)
    assert process.returncode in (128 + getattr(signal, name), -signal.SIGKILL)
    kept = journal(out) if joins == "bridge" else {}
    resumed = run_cli(*words)
    assert resumed.code == 0, resumed.err
    assert hashes(out) == whole(joins)
    assert {digest: journal(out)[digest] for digest in kept} == kept
    assert not list(out.rglob("*.partial")) + list(out.rglob("velocity*"))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("joins", STAGES)
def test_a_rank_that_is_killed_while_joins_are_sampled_is_told_and_other_ranks_go_on(
    longer, tmp_path: Path, whole: Callable[[str], list[str]], joins: str
) -> None:
    out, (settings, at_work, at) = tmp_path / "out", STAGES[joins]
    process = start_process(["-m", "wanedit", *command(longer, out, *settings, "--num_gpus=2")])
    wait_for_files(process, out, *at_work)

    stage = at.split()[1]

    def held() -> str | None:
        """What rank 1 is at; what is denoised together rank 0 has for both."""
        rank = 0 if stage == "co_denoise" else 1
        found = [one for one in RunDirectory(out, out).queue.workers().values() if one and one.task]
        return next((one.doing for one in found if one.rank == rank and one.doing.startswith(stage)), None)

    while (doing := held()) is None:
        assert process.poll() is None
        time.sleep(0.05)
    ranks = {
        child.environ()["RANK"]: child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RANK" in child.environ()
    }
    ranks["1"].kill()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == ResourceError.exit_code
    assert errors.startswith(f"wanedit: rank 1 was ended by SIGKILL at {doing}"), errors
    assert "Traceback" not in errors
    # Three ranks go on where two were.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m", "wanedit"]
    process = start_process([*launcher, *command(longer, out, *settings)])
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert hashes(out) == whole(joins)
    assert not list(out.rglob("*.partial")) + list(out.rglob("velocity*"))


@pytest.mark.slow
@pytest.mark.network
def test_wrong_input_under_torchrun_ends_every_rank(keyframes, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wanedit"]
    process = start_process(
        [*launcher, *command(keyframes, tmp_path / "out", "--fps=200", "--long_segments=error")]
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    # Said once, before torchrun's own words, and in its table.
    said = re.findall("^wanedit: segment 0 needs 51 frames", errors, re.MULTILINE)
    assert len(said) == 1
    assert "Traceback" not in errors.partition("wanedit: segment 0")[0]
    assert "traceback : segment 0 needs 51 frames" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(1)
@pytest.mark.slow
@pytest.mark.network
def test_a_worker_that_is_killed_is_told_with_its_segment(keyframes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_process(["-m", "wanedit", *command(keyframes, out, MANY_STEPS, "--num_gpus=2")])
    wait_for_segments(process, out, 2)
    time.sleep(0.3)
    ranks = {
        child.environ()["RANK"]: child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RANK" in child.environ()
    }
    (last,) = {0, 1, 2} - {entry["index"] for entry in journal(out).values()}
    kept = journal(out)
    [(at, doing)] = [
        (one.rank, one.doing) for one in RunDirectory(out, out).queue.workers().values() if one and one.task
    ]
    assert doing == f"segment {last}"
    ranks[str(at)].kill()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == ResourceError.exit_code
    assert errors.startswith(
        f"wanedit: rank {at} was ended by SIGKILL at segment {last}; 2 of 3 segments are kept in {out / 'segments'}. "
    )
    assert "where memory runs out. Run the same command again" in errors
    assert "Traceback" not in errors
    assert run_cli(*command(keyframes, out, MANY_STEPS, "--quiet")).code == 0
    assert {digest: journal(out)[digest] for digest in kept} == kept
    whole = tmp_path / "whole"
    assert run_cli(*command(keyframes, whole, MANY_STEPS, "--quiet")).code == 0
    assert hashes(out) == hashes(whole)


@pytest.mark.slow
@pytest.mark.network
def test_a_rank_that_is_killed_under_torchrun_leaves_no_traceback_of_ours(keyframes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wanedit"]
    process = start_process([*launcher, *command(keyframes, out, MANY_STEPS)])
    wait_for_segments(process, out, 1)
    ranks = {
        child.environ()["RANK"]: child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "RANK" in child.environ()
    }
    ranks["1"].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert errors.count("Traceback") == 1, errors  # torchrun's own
    assert "SIGKILL" in errors
    assert "finished segments are kept" in errors
    assert not list(out.rglob("*.partial"))


@pytest.mark.fault(34)
@pytest.mark.slow
@pytest.mark.network
def test_an_elastic_torchrun_takes_a_late_node_and_restarts_a_lost_rank(tmp_path: Path) -> None:
    """Its own agents end and begin all ranks each time; what was computed of a segment is not lost by that."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    keyframes = [[str(draw_keyframe(tmp_path / f"{k}.png", 2 * k)), 0.25 * k] for k in range(7)]
    words = ("--num_inference_steps=200", "--quiet")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launcher = [
        "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-id=run",
        "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-conf=last_call_timeout=1", "-m", "wanedit",
    ]  # fmt: skip

    def node() -> subprocess.Popen:
        shared = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # see docs/cluster.md
        return start_process([*launcher, *command(keyframes, out, *words)], env=shared)

    def at_work() -> dict[int, int]:
        """Process by rank."""
        found = RunDirectory(out, out).queue.workers().values()
        return {one.rank: one.pid for one in found if one and one.task and psutil.pid_exists(one.pid)}

    nodes = [node()]
    wait_for_segments(nodes[0], out, 1)
    nodes.append(node())
    deadline = time.monotonic() + 240
    while at_work().keys() != {0, 1}:
        assert time.monotonic() < deadline, at_work()
        time.sleep(0.05)
    psutil.Process(at_work()[1]).kill()
    printed = [process.communicate(timeout=400) for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], printed
    assert "exitcode: -9" in printed[-1][1]
    assert run_cli(*command(keyframes, whole, *words)).code == 0
    assert hashes(out) == hashes(whole)
    assert not list(out.rglob(".*")) + list(out.rglob("velocity*"))


def test_a_run_that_is_refused_leaves_no_folder(keyframes, tmp_path: Path) -> None:
    out = tmp_path / "outputs" / "out"
    refused = run_cli(*command(keyframes, out, "--resume_from=1"))
    assert refused.code == 2
    assert "segments [0] are not complete" in refused.err
    assert not out.parent.exists()
    with room(0), pytest.raises(ResourceError, match="make room"), RunDirectory(out, out / "film.mp4").lock():
        pass
    assert not out.parent.exists()
    # One that was there before stays, as does what is in it.
    (out / "notes").mkdir(parents=True)
    assert run_cli(*command(keyframes, out, "--resume_from=1")).code == 2
    assert (out / "notes").is_dir()


@pytest.mark.slow
def test_the_same_command_once_more_helps_and_work_goes_on(
    keyframes, finished: GenerationResult, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = command(keyframes, out, MANY_STEPS)
    first = start_process(["-m", "wanedit", *words])
    wait_for_segments(first, out, 1)
    second = start_process(["-m", "wanedit", *words])
    deadline = time.monotonic() + 120
    while len(RunDirectory(out, out).queue.workers()) < 2:
        assert second.poll() is None, second.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shown = run_cli("status", str(out))
    assert re.search(rf"of 3 segments.*\b{first.pid}\b", shown.out, re.DOTALL), shown.out
    # Whoever is killed, the other one does its task, too, and stitches.
    first.kill()
    first.communicate()
    output, errors = second.communicate(timeout=200)
    assert second.returncode == 0, output + errors
    assert segments_done(out) == 6
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("start") == 1
    assert sorted(event["segment"] for event in events if event["event"] == "segment") == [0, 1, 2]
    assert not list(out.rglob(".*"))
    whole = tmp_path / "whole"
    assert run_cli(*command(keyframes, whole, MANY_STEPS, "--quiet")).code == 0
    assert hashes(out) == hashes(whole)
    assert np.array_equal(read_frames(out / "output_final.mp4"), read_frames(whole / "output_final.mp4"))

    # Of a run that was stopped, the folder alone is enough.
    last = max(out.glob("segments/segment_002*.safetensors"))
    last.unlink()
    next(out.glob("segments/segment_002*.mkv")).unlink()
    assert "wanedit work" in run_cli("status", str(out)).out or (out / "output_final.mp4").exists()
    resumed = run_cli("work", str(out), "--quiet")
    assert resumed.code == 0, resumed.err
    assert last.exists()
    assert hashes(out) == hashes(whole)
