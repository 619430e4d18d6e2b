"""How processor time and memory grow with a run: each case at n, 2n and 4n, each in a process of its own.

python -m benchmarks.scale                # all; ten minutes on two CPU cores
python -m benchmarks.scale plan journal   # some

Nothing is sampled: segments are a cross-fade of their keyframes, so that what is left is wanedit's own work.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CASES: dict[str, tuple[int, Callable[[int, Path], Callable[[], object]]]] = {}
Work = Callable[[], object]


def case(first: int) -> Callable[[Callable[[int, Path], Work]], Callable[[int, Path], Work]]:
    """A case that is measured at `first`, twice and four times as many: it prepares, and gives what is measured."""

    def add(prepare: Callable[[int, Path], Work]) -> Callable[[int, Path], Work]:
        CASES[prepare.__name__] = first, prepare
        return prepare

    return add


def picture(folder: Path, width: int = 64, height: int = 64) -> Path:
    """A keyframe; all of a case are the same file."""
    import numpy as np
    from PIL import Image

    path = folder / "key.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


@case(2500)
def keyframes_in_words(n: int, folder: Path) -> Work:
    """ "a.png:0.0,b.png:0.25,…" of n keyframes."""
    from wanedit.runtime.inputs import parse_keyframes

    text = ",".join(f"{picture(folder) if k == 0 else folder / 'key.png'}:{k / 4}" for k in range(n))
    return lambda: parse_keyframes(text)


@case(2500)
def keyframes_in_a_record(n: int, folder: Path) -> Work:
    """A keyframes.json of n entries."""
    from wanedit.runtime.inputs import parse_edited

    picture(folder)
    rows = [{"file": "key.png", "frame": 4 * k, "seconds": k / 4} for k in range(n)]
    (folder / "keyframes.json").write_text(json.dumps({"keyframes": rows}))
    return lambda: parse_edited(str(folder))


@case(2500)
def keyframes_in_a_folder(n: int, folder: Path) -> Work:
    """A folder of n pictures."""
    from wanedit.runtime.inputs import parse_keyframes

    first = picture(folder)
    for k in range(n):
        (folder / f"shot{k}.png").hardlink_to(first)
    return lambda: parse_keyframes(str(folder))


@case(100)
def plan(n: int, folder: Path) -> Work:
    """The plan of n keyframes of 1280*720, printed."""
    from wanedit.jobs.generate.config import GenerationConfig
    from wanedit.jobs.generate.plan import print_plan

    path = picture(folder, 1280, 720)
    pairs = [[str(path), k / 2] for k in range(n)]
    config = GenerationConfig(
        keyframes=pairs, size="1280*720", fps=16, base_seed=0, output=str(folder / "out")
    )
    return lambda: print_plan(config)


@case(25)
def generate(n: int, folder: Path) -> Work:
    """A generation of n keyframes of 320*192, half a second apart, with its film and sheets."""
    import numpy as np
    import torch

    from wanedit.jobs.generate import run
    from wanedit.jobs.generate.config import GenerationConfig
    from wanedit.lit.tasks import DecodedPiece
    from wanedit.runtime.directory import Manifest, segment_file
    from wanedit.runtime.predict import write_piece
    from wanedit.video.tensors import to_uint8

    def faded(plan, todo, directory, *others) -> None:
        for task, piece in zip(todo.segments, todo.pieces, strict=True):
            (first, last), ramp = (
                task.keyframes(),
                torch.linspace(0, 1, task.sampled_frames).reshape(1, -1, 1, 1),
            )
            frames = to_uint8((1 - ramp) * first[:, None] + ramp * last[:, None])
            made = DecodedPiece(piece.index, piece.digest, np.asarray(frames), 0.0)
            entry = write_piece(
                directory, segment_file(piece.index, piece.digest), made, plan.timeline.fps, 0
            )
            Manifest(directory).record(piece.digest, entry)

    run.sample = faded
    path = picture(folder, 320, 192)
    config = GenerationConfig(
        keyframes=[[str(path), k / 2] for k in range(n)],
        size="320*192",
        fps=16,
        base_seed=0,
        output=str(folder / "out"),
    )
    return lambda: run.generate(config, verbose=False)


@case(25)
def report(n: int, folder: Path) -> Work:
    """The page of that generation, without measures."""
    generate(n, folder)()
    from wanedit.report import write_report

    return lambda: write_report(folder / "out", folder / "page.html", "none")


@case(250)
def journal(n: int, folder: Path) -> Work:
    """n segments, each put into the journal as it is finished."""
    from wanedit.runtime.directory import Entry, Manifest, RunDirectory

    directory = RunDirectory(folder, folder / "film.mp4")
    directory.segments.mkdir()
    manifest = Manifest(directory)

    def record() -> None:
        for k in range(n):
            manifest.record(f"{k:064x}", Entry(k, f"segment_{k:03d}.mkv", "0" * 64, 81, "0" * 64, 1.0, 0))

    return record


@case(10_000)
def metrics(n: int, folder: Path) -> Work:
    """A metrics.jsonl of n steps, read and written as a table."""
    from wanedit.runtime.events import append_event
    from wanedit.tracking.record import write_metrics_csv

    for k in range(n):
        append_event(folder / "metrics.jsonl", {"event": "step", "step": k, "sigma": 0.5, "r_k_norm": 0.1})
    return lambda: write_metrics_csv(folder / "metrics.jsonl", folder / "metrics.csv")


@case(50)
def ablation(n: int, folder: Path) -> Work:
    """Tables of a grid of n points, 12 clips and 6 measures each, against a baseline."""
    from wanedit.jobs.ablate.grid import Grid
    from wanedit.jobs.ablate.results import Results, Row, write_results

    rows = [
        Row(f"{p}", f"clip{c}", f"scene{c}", 0, (f"{p}",), f"m{m}", p + c / 10 + m)
        for p in range(n)
        for c in range(12)
        for m in range(6)
    ]
    grid = Grid(
        title="t", shows="s", command="edit", data={}, axes=[{"shift": list(range(n))}], baseline={"shift": 0}
    )
    return lambda: write_results(grid, Results(["shift"], rows, {}), folder, {})


@case(50)
def style(n: int, folder: Path) -> Work:
    """n keyframes restyled after words."""
    import numpy as np

    from wanedit.jobs.style.config import StyleConfig, StyleSource
    from wanedit.jobs.style.run import style
    from wanedit.video import write_lossless

    ramp = np.linspace(0, 200, 96, dtype=np.uint8)[None, :, None]
    frames = (np.broadcast_to(ramp, (64, 96, 3)) + np.uint8(k % 50) for k in range(4 * n))
    write_lossless(folder / "film.mkv", frames, 16)
    config = StyleConfig(
        video=str(folder / "film.mkv"),
        style=StyleSource(description="ink"),
        indices=list(range(0, 4 * n, 4)),
        on_reject="keep",
        output=str(folder / "out"),
    )
    return lambda: style(config, verbose=False)


def measure(name: str, n: int) -> tuple[float, float]:
    """Seconds of the processor, which other work on the machine does not change; growth of the peak of memory in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", name, str(n)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    seconds, megabytes = map(float, done.stdout.splitlines()[-1].split())
    return seconds, megabytes


def one(name: str, n: int) -> None:
    """Measure a case in this process."""
    with tempfile.TemporaryDirectory() as folder:
        work = CASES[name][1](n, Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.process_time()
        work()
        seconds = time.process_time() - start
        print(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)


def main(words: list[str]) -> None:
    """Print a table of the cases."""
    if len(words) == 2 and words[1].isdecimal():
        one(words[0], int(words[1]))
        return
    for name in words or CASES:
        first = CASES[name][0]
        found = [measure(name, n) for n in (first, 2 * first, 4 * first)]
        shown = "  ".join(
            f"{n:6d}: {seconds:6.2f} s {megabytes:6.0f} MB"
            for n, (seconds, megabytes) in zip((first, 2 * first, 4 * first), found, strict=True)
        )
        print(f"{name:24}{shown}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
