"""Real edits in real processes, really killed."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.runs import Inputs, edit_command, run_cli, start_process

# Enough steps that a signal sent after the first lands inside the run.
MANY_STEPS = "--num_inference_steps=400"


def steps_done(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count('"event": "step"') if path.exists() else 0


def wait_for_steps(process: subprocess.Popen, out: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while steps_done(out) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step was taken"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_killed_edit_leaves_nothing_complete(inputs: Inputs, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    process = start_process(["-m", "wanedit", *edit_command(inputs, out, MANY_STEPS)])
    wait_for_steps(process, out)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert not list(out.glob("segments/*.mkv"))
    assert not (out / "segments" / "progress.json").exists()
    assert not (out / "output_final.mp4").exists()
    if name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + getattr(signal, name)
        assert re.search(r"Edit again with:\n  \S+ -m wanedit edit \S+source.mkv --keyframes", errors)
        assert "Traceback" not in errors
        assert not list(out.rglob("*.partial"))


@pytest.mark.slow
def test_a_run_after_a_killed_one_gives_the_bytes_of_one_that_was_not(
    inputs: Inputs, edited, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start_process(["-m", "wanedit", *edit_command(inputs, out, MANY_STEPS)])
    wait_for_steps(process, out)
    process.kill()
    process.communicate(timeout=60)
    again = run_cli(*edit_command(inputs, out))
    assert again.code == 0, again.err
    journals = (folder / "segments" / "progress.json" for folder in (out, edited.video.parent))
    ours, theirs = (json.loads(path.read_text())["segments"][edited.digest] for path in journals)
    assert ours["latents_sha256"] == theirs["latents_sha256"]
    assert (out / "output_final.mp4").exists()
