"""Signals at any moment of any command: one line, the documented status, no traceback."""

import pickle
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.runs import start_process
from wanedit import GenerationResult
from wanedit.interrupts import SIGNALS, Interrupted, interruptible

# Seconds after the handlers stand: while the command is found, libraries are imported, a plan is made, a model loads.
DELAYS = (0.0, 0.01, 0.1, 0.4, 1.0, 2.0, 3.5, 5.0)
REPOSITORY = Path(__file__).parent.parent
SLOW_STEPS = "--num_inference_steps=500"


def watched(process: subprocess.Popen) -> None:
    """Wait until the process catches signals: what comes before, to the interpreter itself, no program can catch."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(0.002)


def signalled(words: list[str], number: signal.Signals, delay: float) -> tuple[int, str, float]:
    """Exit code, standard error, and seconds that the end took."""
    process = start_process(words, cwd=REPOSITORY)
    watched(process)
    time.sleep(delay)
    sent = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - sent


@pytest.mark.fault(2)
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux what a process catches")
@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--config", "examples/multi_keyframe_demo/config.yaml", SLOW_STEPS, "--output", "{out}"],
        ["edit", "--config", "examples/edit_a_video/config.yaml", SLOW_STEPS, "--output", "{out}"],
        ["style", "examples/edit_a_video/source.mp4", "--style.description", "ink", "--output", "{out}"],
        ["evaluate", "--run", "{run}"],
        ["report", "{run}", "--output", "{out}/page.html"],
        ["ablate", "experiments/08_steps", "--jobs", "2", "--output", "{out}/runs", "--results", "{out}"],
        ["doctor"],
        ["models", "check"],
        [
            "tiny.train",
            "--config",
            "tiny/cpu.yaml",
            "--out",
            "{out}",
            "--assets",
            "{out}/a",
            "--footage",
            "[examples/footage/bottles.mkv]",
        ],
        ["tiny.scorecard", "--out", "{out}/scores.json"],
    ],
    ids=lambda words: words[0],
)
def test_a_signal_at_any_moment_is_one_line(
    finished: GenerationResult, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "out").mkdir()
    words = [word.format(out=tmp_path / "out", run=finished.video.parent) for word in words]
    command = ["-m", *words] if words[0].startswith("tiny") else ["-m", "wanedit", *words]
    reached = 0
    for k, delay in enumerate(DELAYS):
        number = signal.Signals(SIGNALS[k % len(SIGNALS)])
        code, errors, seconds = signalled(command, number, delay)
        assert "Traceback" not in errors, (delay, errors)
        if code == 0:
            continue  # it was faster than the signal
        reached += 1
        assert code == 128 + number, (delay, errors)
        lines = [line for line in errors.splitlines() if number.name in line]
        assert len(lines) == 1, (delay, errors)
        assert seconds < 10
        assert not list(tmp_path.rglob("*.partial"))
    assert reached > len(DELAYS) // 2


def program(tmp_path: Path, text: str) -> subprocess.Popen:
    """A program of these lines, which prints "ready" where the signal is due."""
    path = tmp_path / "program.py"
    path.write_text(f"import sys, time\nfrom wanedit import interrupts\n{text}")
    process = start_process([str(path)])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


FINISHING = """
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("finishing", flush=True)
        time.sleep(float(sys.argv[1]) if sys.argv[1:] else 60)
interrupts.run(main)
"""


def test_the_same_signal_again_ends_what_is_still_finishing(tmp_path: Path) -> None:
    process = program(tmp_path, FINISHING)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "finishing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "wanedit: SIGINT: ended at once. What was half-written goes with the next run\n"


def test_another_signal_lets_it_finish(tmp_path: Path) -> None:
    # Ctrl-C reaches a whole group, and torchrun then sends SIGTERM to its workers.
    process = program(tmp_path, FINISHING.replace("60)\ninterrupts", "0.5)\ninterrupts"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "finishing\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (130, "")


def test_a_signal_that_python_would_discard_comes_again(tmp_path: Path) -> None:
    text = """
class Slow:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(1)
def main():
    Slow()
    time.sleep(60)
    return 0
interrupts.run(main)
"""
    process = program(tmp_path, text)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (143, "")


def test_an_import_that_swallows_everything_does_not_swallow_a_signal(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        "import time\ntry:\n    print('ready', flush=True)\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
    )
    process = program(tmp_path, "interrupts.watch()\nimport greedy\n")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "wanedit: SIGINT: stopped. What was finished is kept; run the same command again\n"


def test_a_signal_after_the_work_does_not_change_its_status(tmp_path: Path) -> None:
    text = """
import atexit
def last():
    print("ready", flush=True)
    time.sleep(60)
atexit.register(last)
interrupts.run(lambda: 3)
"""
    process = program(tmp_path, text)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (3, "")


def test_a_signal_while_python_takes_itself_apart_does_not_change_its_status(tmp_path: Path) -> None:
    text = """
import os
class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), numbers=interrupts.SIGNALS):
        for number in numbers:
            kill(process, number)
last = Last()
print("ready", flush=True)
interrupts.run(lambda: 4)
"""
    process = program(tmp_path, text)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (4, "")


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    text = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def main():
    print("ready", flush=True)
    time.sleep(0.5)
    return 0
interrupts.run(main)
"""
    process = program(tmp_path, text)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(Interrupted) as stop, interruptible(), interruptible():
        signal.raise_signal(signal.SIGTERM)
    assert (str(stop.value), stop.value.exit_code, stop.value.code) == ("SIGTERM", 143, 143)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_leaves_signals_alone() -> None:
    before, found = signal.getsignal(signal.SIGTERM), []

    def look() -> None:
        with interruptible():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_it_crosses_processes_as_it_is() -> None:
    again = pickle.loads(pickle.dumps(Interrupted(signal.SIGHUP)))
    assert (str(again), again.exit_code) == ("SIGHUP", 129)
