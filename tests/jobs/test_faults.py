"""Real processes, really killed, really parallel."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.jobs.test_generate import latents_of
from tests.runs import command, run_cli, start_process
from wanedit import GenerationResult

# Enough steps that a signal sent after segment 0 lands inside segment 1.
MANY_STEPS = "--num_inference_steps=80"


def segments_done(out: Path) -> int:
    try:
        return len(json.loads((out / "segments" / "progress.json").read_text())["segments"])
    except (OSError, ValueError):
        return 0


def wait_for_segments(process: subprocess.Popen, out: Path, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while segments_done(out) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no segment was finished"
        time.sleep(0.02)


def hashes(out: Path) -> list[str]:
    entries = json.loads((out / "segments" / "progress.json").read_text())["segments"].values()
    return [entry["latents_sha256"] for entry in sorted(entries, key=lambda entry: entry["index"])]


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
    first = next(out.glob("segments/segment_000*.mkv"))
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
    assert len({entry["rank"] for entry in entries}) == min(ranks, 3)
    # One bar, on rank 0, which counts what all did: three segments of two steps.
    assert re.search(rf"^sampling on {ranks} ranks .* 6/6 steps", output, re.MULTILINE)
    assert output.count("sampling") == 1
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.network
def test_num_gpus_starts_its_own_workers(keyframes, finished: GenerationResult, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_process(["-m", "wanedit", *command(keyframes, out, "--num_gpus=2")])
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, output + errors
    assert hashes(out) == latents_of(finished)
    assert (out / "output_final.mp4").exists()
    assert re.search(r"^sampling on 2 ranks .* 6/6 steps", output, re.MULTILINE)
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.network
def test_wrong_input_under_torchrun_ends_every_rank(keyframes, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "wanedit"]
    process = start_process(
        [*launcher, *command(keyframes, tmp_path / "out", "--fps=200", "--long_segments=error")]
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.search(r"wanedit: segment 0 needs 51 frames", errors)
