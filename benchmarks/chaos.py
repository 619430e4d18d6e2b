"""Workers of one run that are killed, held up, lied to and refused: whether all of it comes to the same bytes.

    python -m benchmarks.chaos outputs/chaos --kills 1000
    python -m benchmarks.chaos outputs/chaos_many --kills 100 --job many

Each round makes one film of 12 segments, or, of the job `many`, edits 12 videos, in a new folder, by three workers.
Now and then one is killed (SIGKILL) or held up for longer than a lease (SIGSTOP, SIGCONT), and another takes its
place; some are slow, so that others ask for what they have, some have a clock that is a day off, a disk that takes no
more, other weights or another version. Half of them claim to be on machines of their own, so that no kernel tells who
is dead. After a round latents and films must be those of an undisturbed run, no task may have been done more often than
losses explain, and nothing may be left behind.

Workers are forked from this process, which has imported everything: a kill costs no import. What a round came to is
added to record.json in the folder, and --kills counts what stands there already.
"""

import argparse
import json
import math
import os
import random
import resource
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

LEASE = 4.0
WORKERS = 3
SEGMENTS, STEPS = 12, 8
# How a worker may be, and how often: most are sound.
KINDS = {"sound": 12, "slow": 3, "skewed": 3, "full": 1, "weights": 1, "version": 1}
HANG = 1800.0  # seconds that a round may take


class Film:
    """A generation of 12 segments."""

    done = '"event": "segment"'

    def begin(self, home: Path, root: Path) -> None:
        """Put the run on record in a folder."""
        from wanedit import GenerationConfig
        from wanedit.jobs.generate import run

        run.begin(
            GenerationConfig(
                keyframes=draw(home / "keyframes"), prompt="a square", output=str(root), size="32*32", fps=16,
                num_inference_steps=STEPS, base_seed=7, cpu_threads=1, decode="apart",
            ),
            verbose=False,
        )  # fmt: skip

    def made(self, root: Path) -> dict[str, str]:
        """What must be the same after every round: latents by segment, and the pixels of the film."""
        from wanedit.runtime.directory import Manifest, RunDirectory
        from wanedit.video import read_frames
        from wanedit.video.arrays import pixels_sha256

        film = root / "output_final.mp4"
        entries = Manifest(RunDirectory(root, film)).read().values()
        found = {f"segment {one.index}": one.latents_sha256 for one in entries if one.latents_sha256}
        return found | {"film": pixels_sha256(read_frames(film))}

    def events(self, root: Path) -> str:
        """What tells of every task that was done."""
        return (root / "metrics.jsonl").read_text()

    def done_so_far(self, root: Path) -> int:
        """How far it is, in steps: a task that is done counts for all of its own."""
        try:
            tasks = sum(len(path.read_text().splitlines()) for path in root.glob("segments/progress*"))
        except FileNotFoundError:  # put into progress.json meanwhile
            return 0
        return STEPS * tasks + len([*root.glob("segments/velocity_*.safetensors")])


class Videos:
    """Edits of 12 videos, each by its own keyframe."""

    done = '"event": "edited"'

    def begin(self, home: Path, root: Path) -> None:
        """Put them on record in a folder."""
        import numpy as np

        from wanedit.jobs.many import run
        from wanedit.runtime.many import listed
        from wanedit.video import write_lossless, write_png

        for k in range(SEGMENTS):
            frames = np.full((5 + 4 * (k % 3), 32, 32, 3), 40, np.uint8)
            for t, frame in enumerate(frames):
                frame[8:20, t + k : t + k + 8] = (200, 10 * k, 90)
            (home / "clips").mkdir(parents=True, exist_ok=True)
            write_lossless(home / "clips" / f"c{k:02d}.mkv", frames, 16)
            (home / "keyframes" / f"c{k:02d}").mkdir(parents=True, exist_ok=True)
            write_png(home / "keyframes" / f"c{k:02d}" / "0000.png", frames[0][..., ::-1])
        settings = {
            "video": str(home / "clips"), "keyframes": str(home / "keyframes"), "prompt": "a square",
            "output": str(root), "size": "32*32", "num_inference_steps": STEPS, "base_seed": 7, "cpu_threads": 1,
        }  # fmt: skip
        found = listed(settings["video"], run.kind_of("integrated"))
        assert found is not None
        run.begin(run.many("integrated", settings, *found))

    def made(self, root: Path) -> dict[str, str]:
        """What must be the same after every round: the frames of each, and the table."""
        from wanedit.video import read_frames
        from wanedit.video.arrays import pixels_sha256

        films = sorted(root.glob("c*/output_final.mp4"))
        found = {film.parent.name: pixels_sha256(read_frames(film)) for film in films}
        return found | {"table": (root / "runs.csv").read_text()}

    def events(self, root: Path) -> str:
        """What tells of every task that was done."""
        return "".join(path.read_text() for path in root.glob("c*/metrics.jsonl"))

    def done_so_far(self, root: Path) -> int:
        """As of a film; two velocities a step."""
        tasks = len([*root.glob("runs/*/result.json")])
        return 2 * STEPS * tasks + len([*root.glob("c*/segments/velocity_*.safetensors")])


JOBS = {"film": Film(), "many": Videos()}


def draw(folder: Path) -> list[list[object]]:
    """Keyframes of the run, drawn once."""
    import numpy as np

    from wanedit.video import write_png

    folder.mkdir(parents=True, exist_ok=True)
    keyframes: list[list[object]] = []
    for k in range(SEGMENTS + 1):
        picture = np.full((32, 32, 3), 40, np.uint8)
        picture[8:20, k : k + 12] = (200, 10 * k, 90)
        write_png(path := folder / f"k{k:02d}.png", picture)
        keyframes.append([str(path), k * 0.25])
    return keyframes


def forked(root: Path, kind: str, elsewhere: bool, log: Path) -> int:
    """Start a worker; returns its process number."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        with log.open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        code = worker(root, kind, elsewhere)
    finally:
        os._exit(code)


def worker(root: Path, kind: str, elsewhere: bool) -> int:
    """Be one, in a process of its own. Returns the exit code."""
    import wanedit
    from wanedit.errors import WaneditError
    from wanedit.jobs.generate import plan
    from wanedit.jobs.many import run
    from wanedit.lit import model
    from wanedit.runtime import claims, predict
    from wanedit.runtime.launchers import work
    from wanedit.wan.transformer import WanTransformer

    claims.LOSSES = 1000  # here a task that loses many workers in a row is none that they cannot do
    claims.BEGINNING, predict.EVERY = 0.2, 0.0  # as if steps took long
    if elsewhere:
        name = secrets.token_hex(8)
        claims.machine = lambda: name
    if kind == "skewed":
        now, off = time.time, random.choice((-86400, 86400))
        time.time = lambda: now() + off
    if kind == "slow":
        velocity = WanTransformer.velocity

        def slowly(*given: Any) -> Any:
            time.sleep(1.0)
            return velocity(*given)

        mock.patch.object(WanTransformer, "velocity", slowly).start()
    if kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    if kind == "weights":
        model.hash_files = plan.hash_files = lambda folder, say: {"others": "weights"}
    if kind == "version":
        run.__version__ = wanedit.__version__ = "0.0.1"
    try:
        work(root, verbose=False)
    except WaneditError as error:
        if kind != "full":
            print(f"{kind}: {error}", flush=True)
        return error.exit_code
    return 0


def in_child(job: Film | Videos, root: Path, log: Path, task: str, home: Path) -> int:
    """Run one thing in a process of its own, since this one must stay without threads. Returns its exit code."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        if task == "begin":
            job.begin(home, root)
        elif task == "work":
            code = worker(root, "sound", elsewhere=False)
        else:
            (home / "made.json").write_text(json.dumps(job.made(root)))
        code = 0 if code == 70 else code
    except BaseException as error:
        log.open("a").write(f"{task}: {type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def play(job: Film | Videos, home: Path, number: int, seed: int, wanted: dict[str, str]) -> Counter[str]:
    """One round. Returns how often each thing was done; what went wrong is told under "losses"."""
    draw_of, root, log = random.Random(seed), home / f"round{number}", home / f"round{number}.log"
    count, kinds, stopped = Counter[str](), dict[int, str](), dict[int, float]()
    if in_child(job, root, log, "begin", home):
        raise SystemExit(f"the run cannot be begun: {log.read_text()}")
    film, began, until, done = root / "metrics.jsonl", time.monotonic(), 0.0, 0

    def complete() -> bool:
        return '"event": "wrote"' in film.read_text()

    def sample(name: str, say: str) -> None:
        count[name] += 1
        with log.open("a") as file:
            file.write(f"{time.monotonic() - began:.1f} {say}\n")

    def reaped() -> Iterator[tuple[int, str, int]]:
        for pid, kind in list(kinds.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del kinds[pid]
                stopped.pop(pid, None)
                yield pid, kind, os.waitstatus_to_exitcode(status)

    while not complete() and time.monotonic() - began < HANG:
        for pid, kind, code in reaped():
            if kind in ("weights", "version") and code == 4:
                count[f"{kind} refused"] += 1
            elif kind == "full" and code == 4:
                count["full told"] += 1
            elif code not in (0, -signal.SIGKILL):
                sample("losses", f"worker {pid} ({kind}) ended with {code}")
        for pid, since in list(stopped.items()):
            if time.monotonic() - since > 1.5 * LEASE:
                os.kill(pid, signal.SIGCONT)
                del stopped[pid]
        while len(kinds) < WORKERS:
            sound = [pid for pid, kind in kinds.items() if kind == "sound" and pid not in stopped]
            kind = draw_of.choices([*KINDS], [*KINDS.values()])[0]
            # Who comes when nobody is at work makes the run anew with its own weights, which is no fault.
            early = job.events(root).count(job.done) < SEGMENTS // 2
            if kind in ("weights", "version") and not (sound and early and _busy(root)):
                kind = "sound"
            pid = forked(root, kind, draw_of.random() < 0.5, log)
            kinds[pid] = kind
            sample(f"{kind} begun", f"{kind} {pid} begins")
        # A loss for each step that is done at most, so that a slow machine comes to an end, too.
        if (now_done := job.done_so_far(root)) > done:
            done, until = now_done, min(until, time.monotonic() + draw_of.uniform(0, 1))
        living = [pid for pid, kind in kinds.items() if kind in ("sound", "skewed", "slow")]
        if living and time.monotonic() > until:
            until = math.inf
            pid = draw_of.choice(living)
            if draw_of.random() < 0.2 and pid not in stopped:
                os.kill(pid, signal.SIGSTOP)
                stopped[pid] = time.monotonic()
                sample("stops", f"stops {pid}")
            else:
                os.kill(pid, signal.SIGKILL)
                sample("kills", f"kills {pid}")
        time.sleep(0.05)
    if not complete():
        sample("losses", f"not complete after {HANG:g} s")
    deadline = time.monotonic() + 60
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    while kinds and time.monotonic() < deadline:
        for pid, kind, code in reaped():
            if code not in (0, 4, -signal.SIGKILL):
                sample("losses", f"worker {pid} ({kind}) ended with {code}")
        time.sleep(0.05)
    for pid in kinds:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        sample("losses", f"worker {pid} does not end")
    again = job.events(root).count(job.done) - SEGMENTS
    count["done again"] += max(0, again)
    count["gone on with"] += job.events(root).count('"replayed"')
    # Each of these may have cost one task its worker.
    if again > count["kills"] + count["stops"] + count["full begun"]:
        sample("losses", f"{again} tasks were done again")
    # Once more, as anybody would: what lost workers left half-written goes.
    if in_child(job, root, log, "work", home) or in_child(job, root, log, "made", home):
        sample("losses", "it cannot be gone through again")
    elif (found := json.loads((home / "made.json").read_text())) != wanted:
        names = [name for name in wanted if found.get(name) != wanted[name]]
        sample("losses", f"not the bytes of an undisturbed run: {names}")
    if left := [str(path.relative_to(root)) for path in root.rglob(".*")]:
        sample("losses", f"left behind: {left}")
    count["rounds"] += 1
    if not count["losses"]:
        shutil.rmtree(root)
        log.unlink()
    return count


def _busy(root: Path) -> bool:
    """Whether a worker is at a task, so that the run is begun."""
    for path in (root / ".queue").glob("worker.*"):
        try:
            if json.loads(path.read_text())["task"]:
                return True
        except (OSError, ValueError, KeyError):
            continue
    return False


def main() -> int:
    """Play rounds until so many kills stand on record, and print the table. Returns 1 where anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of the rounds and of their record")
    parser.add_argument("--kills", type=int, default=1000, help="in all, those on record counted")
    parser.add_argument("--minutes", type=float, default=60, help="no round begins later")
    parser.add_argument("--job", choices=JOBS, default="film")
    given = parser.parse_args()
    job = JOBS[given.job]
    os.environ |= {"WANEDIT_LEASE": str(LEASE), "OMP_NUM_THREADS": "1"}
    home, until = given.folder.absolute(), time.monotonic() + 60 * given.minutes
    home.mkdir(parents=True, exist_ok=True)
    import lightning.pytorch  # noqa: F401
    import torch

    import wanedit.jobs.edit.run
    import wanedit.jobs.generate.run
    import wanedit.jobs.many.run
    import wanedit.lit.chain
    import wanedit.lit.editor  # noqa: F401

    torch.set_num_threads(1)
    record = home / "record.json"
    total = Counter(json.loads(record.read_text())) if record.exists() else Counter[str]()
    whole, log = home / "whole", home / "whole.log"
    if not (home / "wanted.json").exists():
        shutil.rmtree(whole, ignore_errors=True)
        if any(in_child(job, whole, log, task, home) for task in ("begin", "work", "made")):
            raise SystemExit(f"the undisturbed run failed: {log.read_text()}")
        (home / "made.json").rename(home / "wanted.json")
    wanted = json.loads((home / "wanted.json").read_text())
    while total["kills"] < given.kills and time.monotonic() < until:
        began = time.monotonic()
        total += (came := play(job, home, total["rounds"], total["rounds"], wanted))
        total["seconds"] += round(time.monotonic() - began)
        record.write_text(json.dumps(total, indent=1) + "\n")
        print(f"round {total['rounds']}: {came['kills']} kills, {came['losses']} losses", flush=True)
    for name, number in total.items():
        print(f"{name:18} {number}")
    return int(total["losses"] > 0)


if __name__ == "__main__":
    sys.exit(main())
