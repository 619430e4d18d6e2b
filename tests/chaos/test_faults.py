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
from tests.runs import moving_square, run_cli
from wanedit.errors import ResourceError
from wanedit.files import is_there, system_errors
from wanedit.runtime.directory import Manifest, RunDirectory
from wanedit.runtime.events import read_events
from wanedit.runtime.inputs import find_path
from wanedit.runtime.outputs import check_outputs, film_metadata, is_own
from wanedit.video import probe, read_frames, write_video

SEED = int(os.environ.get("CHAOS_SEED", "14"))
# Of the many calls that only read, one in so many.
READ_SHARE = 8
# Of the faults of a job, one in so many: of the long tests, and all of them by `make chaos`.
CHAOS = [16, pytest.param(1, marks=[pytest.mark.chaos, pytest.mark.timeout(1200)])]


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
@pytest.mark.parametrize("share", CHAOS)
@pytest.mark.parametrize("name", JOBS)
def test_every_call_that_fails(
    bench: Callable[[str], Bench], name: str, share: int, record_property: Callable[[str, object], None]
) -> None:
    """One fault in so many, evenly over the job: some 120 in the long tests, all by `make chaos`."""
    made = bench(name)
    faults = faults_of(made.calls)[share // 2 :: share]
    inject(made, faults)
    record_property("faults", len(faults))


@pytest.mark.fault(3)
# Python's own files are among those that the kernel limits, and FFmpeg's and every other library's.
@pytest.mark.slow
@pytest.mark.parametrize("share", CHAOS)
@pytest.mark.parametrize("name", ["generate", "generate, gif", "edit", "report"])
def test_a_disk_that_is_full_at_any_byte(bench: Callable[[str], Bench], name: str, share: int) -> None:
    made = bench(name)
    written = [made.work / name for name in differing(made.started, made.wanted)]
    largest = max(path.stat().st_size for path in written)
    for size in sorted({0, 1, 100, *(largest * k // 24 for k in range(0, 24, share // 4 + 1))}):
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
@pytest.mark.parametrize("words", [["models"], ["edit", "--help"], ["--version"]], ids=" ".join)
def test_an_output_that_is_full_is_told_as_a_file_is(unbuffered: str, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wanedit", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 4
    assert re.fullmatch(rb"wanedit: standard output: No space left on device; .*\n", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_error_that_no_place_is_left_for_keeps_its_exit_code() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wanedit", "nonsense"], stderr=full, stdout=subprocess.PIPE
        )
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = run_cli("models")
    assert done.code == 2
    assert done.err == "wanedit: the current folder: No such file or directory; choose another path\n"


def test_what_a_disk_fails_to_say_is_no_absence(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"theirs")
    for look in (is_there, lambda path: check_outputs([path]), lambda path: find_path(path, what="video")):
        with (
            Disk(tmp_path, fault=FAULTS["broken"]),
            pytest.raises(ResourceError, match="Input/output error; see what"),
        ):
            look(tmp_path / "film.mp4")
    assert not is_there(tmp_path / "other.mp4")
    assert not is_there(tmp_path / "film.mp4" / "other.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere")
    assert is_there(tmp_path / "link.mp4")


def test_a_film_that_the_disk_fails_is_not_taken_for_damaged_or_somebody_elses(tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    write_video(film, moving_square(5), 16, metadata=film_metadata(5))
    for look in (is_own, probe, read_frames):
        with Disk(tmp_path) as disk:
            assert look(film) is not False
        opened = [at for at, call in enumerate(disk.calls) if call.name == "open"]
        assert opened
        for at in opened:
            with Disk(tmp_path, fault=FAULTS["broken"], at=at), pytest.raises(ResourceError), system_errors():
                look(film)


def test_what_is_in_the_journal_is_on_record_too(bench: Callable[[str], Bench]) -> None:
    """A grid's columns come from the record: a run that stopped between the two would lack them for ever."""
    made = bench("edit")
    journalled = next(
        k for k, call in enumerate(made.calls) if "/progress.worker." in call.path and call.name == "fsync"
    )
    made.begin()
    with Disk(made.place, fault=FAULTS["broken"], at=journalled + 1):
        assert made.attempt()[0] is not None
    out = made.work / "out"
    assert Manifest(RunDirectory(out, out / "film.mp4")).read()
    assert "edited" in [event["event"] for event in read_events(out / "metrics.jsonl")]
