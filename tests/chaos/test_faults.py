"""Whatever call to the file system fails, in whatever job: one line, exit code 4, nothing lost, and the job goes on."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.bench import Bench, differing
from tests.chaos.disk import FAULTS, READS, Call, Disk, room
from tests.chaos.jobs import JOBS, given
from tests.runs import run_cli
from wanedit.errors import ResourceError

SEED = int(os.environ.get("CHAOS_SEED", "14"))
# Of the many calls that only read, one in so many.
READ_SHARE = 8


def faults_of(calls: list[Call]) -> list[tuple[str, int]]:
    """A fault for every call that changes something, of each kind in turn, and for a share of those that read."""
    draw = random.Random(SEED)
    found: list[tuple[str, int]] = []
    for at, call in enumerate(calls):
        kinds = [kind for kind, fault in FAULTS.items() if call.name in fault.calls]
        if call.name not in READS or draw.randrange(READ_SHARE) == 0:
            found.append((draw.choice(kinds), at))
    return found


def inject(bench: Bench, faults: list[tuple[str, int]]) -> None:
    """Make each of the faults; all that went wrong is told at once."""
    wrong = []
    for kind, at in faults:
        try:
            bench.fail(FAULTS[kind], at)
        except Exception as error:
            first = str(error).split("\nassert ")[0]
            wrong.append(f"{kind} disk at {bench.calls[at]}: {type(error).__name__}: {first}")
    assert not wrong, f"{len(wrong)} of {len(faults)} faults:\n" + "\n".join(wrong)


@pytest.mark.fault(3)
@pytest.mark.parametrize("name", ["generate, resumed", "style"])
def test_a_few_calls_that_fail(bench: Callable[[str], Bench], name: str) -> None:
    made = bench(name)
    inject(made, random.Random(SEED).sample(faults_of(made.calls), 8))


@pytest.mark.fault(3)
@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", JOBS)
def test_every_call_that_fails(
    bench: Callable[[str], Bench], name: str, record_property: Callable[[str, object], None]
) -> None:
    made = bench(name)
    faults = faults_of(made.calls)
    inject(made, faults)
    record_property("faults", len(faults))


@pytest.mark.fault(3)
# Python's own files are among those that the kernel limits, and FFmpeg's and every other library's.
@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["generate", "generate, gif", "edit", "report"])
def test_a_disk_that_is_full_at_any_byte(bench: Callable[[str], Bench], name: str) -> None:
    made = bench(name)
    written = [made.work / name for name in differing(made.started, made.wanted)]
    largest = max(path.stat().st_size for path in written)
    for size in sorted({0, 1, 100, *(largest * k // 24 for k in range(24))}):
        made.begin()
        with room(size):
            error, _ = made.attempt()
        assert isinstance(error, ResourceError), f"{size} bytes: {error!r}"
        assert "File too large; make room" in str(error)
        made.check_after(error, True, False)


@pytest.mark.fault(3)
def test_a_command_says_one_line_and_ends_with_4(tmp_path: Path) -> None:
    place = given(tmp_path / "place")
    film, out = place / "given" / "film.mkv", place / "work" / "out"
    words = ["style", str(film), "--style.description", "ink", "--indices", "0,8", "--output", str(out)]
    with Disk(place) as disk:
        assert run_cli(*words).code == 0
    for at in range(0, len(disk.calls), len(disk.calls) // 4):
        with Disk(place, fault=FAULTS["full"], at=at) as disk:
            done = run_cli(*words, "--quiet", "--force_regenerate")
        assert disk.failed
        assert done.code == 4
        assert re.fullmatch(r"wanedit: .*: No space left on device; make room and run again; .*\n", done.err)
        assert not done.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_told_as_a_file_is(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wanedit", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 4
    assert re.fullmatch(rb"wanedit: standard output: No space left on device; .*\n", done.stderr)
