"""Peak memory and time of `wanedit report` and `wanedit evaluate` on a long, large edit that no model made.

    python -m benchmarks.report_memory --frames 300 --size 1920*1080 --folder /tmp/large

Draws a source, lays a lossless "edit" of it into the folder of a run as the journal would have it, and runs each
command in a process of its own, whose peak resident memory the operating system reports.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from wanedit.files import file_sha256
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.runtime.directory import Entry, Manifest, RunDirectory, segment_file
from wanedit.runtime.record import record_start
from wanedit.runtime.settings import parse_size
from wanedit.video import write_lossless, write_png, write_video


def scene(frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """A textured board that pans by two pixels a frame, with a ball that crosses it."""
    rng = np.random.default_rng(0)
    board = cv2.resize(
        rng.integers(40, 215, (height // 8, width // 4, 3), dtype=np.uint8), (2 * width, height)
    )
    for t in range(frames):
        frame = np.ascontiguousarray(board[:, 2 * t : 2 * t + width])
        centre = (round(width * (0.1 + 0.8 * t / frames)), height // 2)
        cv2.circle(frame, centre, height // 6, (30, 60, 200), -1, cv2.LINE_AA)
        yield frame


def edited(frame: np.ndarray) -> np.ndarray:
    """The ball red."""
    blue = (frame[..., 2].astype(int) - frame[..., 0] > 120)[..., None]
    return np.where(blue, frame[..., ::-1], frame)


def lay_out(folder: Path, frames: int, height: int, width: int) -> Path:
    """The folder of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    source, last = folder / "source.mp4", frames - 1
    write_video(source, scene(frames, height, width), 24)
    for t, frame in enumerate(scene(frames, height, width)):
        if t in (0, last):
            write_png(folder / f"{t}.png", edited(frame))
    run = folder / "run"
    config = EditConfig(
        video=str(source),
        keyframes=f"{folder}/0.png:0,{folder}/{last}.png:{last}",
        prompt="a red ball",
        long_source="whole",
        base_seed=0,
        output=str(run),
    )
    plan, directory = make_edit_plan(config), RunDirectory(run, run / "output_final.mp4")
    directory.prepare()
    name = segment_file(0, plan.task.digest)
    write_lossless(directory.segments / name, map(edited, scene(frames, height, width)), 24)
    written = file_sha256(directory.segments / name)
    Manifest(directory).record(plan.task.digest, Entry(0, name, written, frames, "", 1.0, 0))
    record_start(directory, plan.config, model=plan.model.name, edit=plan.task.digest)
    return run


def main() -> None:
    """Make the run where it is not there, and print a line for each command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", default="1920*1080")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--metrics", default="auto")
    given = parser.parse_args()
    height, width = parse_size(given.size)
    run = given.folder / "run"
    if not (run / "config.yaml").exists():
        lay_out(given.folder, given.frames, height, width)
    for words in (["report", str(run)], ["evaluate", "--run", str(run)]):
        started = time.perf_counter()
        command = [sys.executable, "-m", "wanedit", *words, "--metrics", given.metrics, "--quiet"]
        process = subprocess.Popen(command, env=os.environ)
        _, status, used = os.wait4(process.pid, 0)
        taken, peak = time.perf_counter() - started, used.ru_maxrss / 2**20
        print(
            f"{words[0]:9s} exit {os.waitstatus_to_exitcode(status)}  {taken:7.1f} s  peak {peak:.2f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
