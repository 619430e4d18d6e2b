"""One job, run again and again from one start, and what must hold after each of its runs."""

import contextlib
import io
import os
import re
import shutil
import time
from pathlib import Path

from PIL import Image

from tests.chaos.disk import READS, REMOVES, Call, Disk, Fault
from tests.chaos.jobs import Job, given, results
from wanedit.errors import ResourceError, WaneditError
from wanedit.runtime.predict import load_latents

HANG = 10  # seconds
# Written whole or not at all, and always the same.
EXACT = (".mp4", ".gif", ".png", ".safetensors", ".txt")


class Bench:
    """Runs one job again and again, from the same start in the same place, on a disk that fails.

    Attributes:
        wanted: what the job leaves when nothing fails. calls: of it.
        started: what lies there before.
    """

    def __init__(self, home: Path, job: Job) -> None:
        self.job, self.place, self.work = job, home / "place", home / "place" / "work"
        self.start = home / "start"
        given(self.place)
        for act in (*job.before, *([job.undo] if job.undo else [])):
            act(self.place)
        self.started = results(self.work)
        shutil.copytree(self.place, self.start)
        job.run(self.place)  # fills the cache
        shutil.copytree(self.place / "cache", self.start / "cache", dirs_exist_ok=True)
        self.begin()
        with Disk(self.place) as disk:
            job.run(self.place)
        self.wanted, self.calls = results(self.work), disk.calls
        self.resumed: set[str] = set()

    def begin(self) -> None:
        """Put the place into the state in which the job starts."""
        shutil.rmtree(self.place)
        shutil.copytree(self.start, self.place)

    def fail(self, fault: Fault, at: int) -> None:
        """Run the job with a fault at a call: it must say so, lose nothing, and run again to the same result."""
        self.begin()
        began = own_seconds()
        with Disk(self.place, fault=fault, at=at) as disk:
            error, said = self.attempt()
        assert (took := own_seconds() - began) < HANG, f"took {took:.1f} s"
        assert disk.failed, "the call was not made"
        # That a temporary file stays is told where nothing else went wrong, by nobody: it is dropped later. A folder is
        # looked through before it is removed.
        told = [
            call
            for k, call in enumerate(disk.failed)
            if not is_hidden(str(Path(call.path).relative_to(self.place)))
            or call.name not in (REMOVES | READS if k else REMOVES)
        ]
        if error is not None:
            # A worker's beat or a preview that cannot be written is told by what must be.
            others = [
                call
                for call in told
                if not any(Path(call.path).match(name) for name in (".queue/worker.*", "preview/*"))
            ]
            check_told(error, said, fault, [(told or disk.failed)[0], *others[:1]])
        self.check_after(error, told and os.strerror(fault.number) in said, len(told) < len(disk.failed))

    def attempt(self) -> tuple[WaneditError | None, str]:
        """Run the job; its error, and what it said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                self.job.run(self.place)
            except WaneditError as error:
                return error, said.getvalue()
        return None, said.getvalue()

    def check_after(self, error: WaneditError | None, told: object, littered: bool) -> None:
        """Nothing is lost or half-written, and the job, run again, comes to the same result."""
        left = results(self.work)
        for name, text in left.items():
            path = self.work / name
            if path.name.lstrip(".").startswith("mine"):
                assert text == self.started[name]
            elif is_hidden(name):
                assert littered or name in self.started, f"{name} was left behind"
            elif path.name.startswith("velocity_"):
                load_latents(path)  # goes with the state that it is of
            elif path.parent.name == "preview":
                Image.open(path).load()  # goes with the task that it shows
            elif path.suffix in EXACT:
                assert text in (self.started.get(name), self.wanted.get(name)), f"{name} is half-written"
            elif path.suffix == ".html":
                assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
            elif path.suffix == ".csv" and not (told and "tracking" in path.parts):
                assert path.read_bytes()[-1:] == b"\n", f"{name} is torn, and nothing was said"
        assert not [name for name in self.started if name.endswith(".txt") and name not in left]
        if error is None and not littered:
            changed = differing(left, self.wanted)
            assert told or not changed, f"nothing was said of {changed}"
        ends = [path.read_bytes()[-1:] for path in sorted(self.work.rglob("*.jsonl"))]
        state = f"{sorted(left.items())} {ends}"
        if state not in self.resumed and left != self.wanted:
            self.resumed.add(state)
            error, _ = self.attempt()
            assert error is None, f"does not go on: {error}"
            found = differing(results(self.work), self.wanted)
            # A tracker that could not begin knows nothing of what was made meanwhile, which was said.
            untracked = told and "out/tracking.json" not in left
            changed = [
                name
                for name in found
                if not (littered and is_hidden(name)) and not (untracked and "/tracking/" in name)
            ]
            assert not changed, f"goes on to another result: {changed}"


def own_seconds() -> float:
    """A clock that stands still while other work on the machine has the processors, as far as the system tells."""
    told = Path("/proc/thread-self/schedstat")  # nanoseconds: of running, and of waiting for a processor
    return time.monotonic() - (int(told.read_text().split()[1]) / 1e9 if told.exists() else 0)


def check_told(error: WaneditError, said: str, fault: Fault, first: list[Call]) -> None:
    """The error of a first call that failed, in one line: which file, what was refused, what to do. A tracker's is
    said by the way, and the run goes on to the next."""
    text = str(error)
    assert isinstance(error, ResourceError), repr(error)
    assert "\n" not in text
    assert os.strerror(fault.number) in text
    assert "; " in text.split(os.strerror(fault.number))[1], f"says not what to do: {text}"
    text += "".join(line for line in said.splitlines() if line.startswith("tracking failed"))
    names = []
    for path in (Path(call.path) for call in first):
        names += [re.sub(r"^\.(.*?)\.\d+(\.frames)?(\.\d+)?\.partial$", r"\1", path.name), str(path.parent)]
    assert any(name in text for name in names), f"{first} is not named: {text}"


def is_hidden(name: str) -> bool:
    """Whether a file is a temporary one: by its own name, or that of a folder on the way to it."""
    return any(part.startswith(".") for part in Path(name).parts)


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Names of files that are not the same, or not there."""
    return [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
