"""What wan-tiny costs: bytes on disk, seconds of one segment by the ordinary sampling path, minutes of its table."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from tiny.evaluate_run import Evaluation
from tiny.scorecard import Row
from wanedit.lit.chain import ChainSettings, FLF2VChain
from wanedit.lit.tasks import SegmentTask
from wanedit.sprites.sets import linear

# (side in pixels, frames, seconds asked for, runs before the clock, runs)
SEGMENTS = ((64, 17, 5.0, 1, 3), (128, 33, 40.0, 0, 2))
THREADS = 2


def size_rows(e: Evaluation) -> list[Row]:
    """All weight files together; 1 MB is a million bytes."""
    files = [path for path in e.wan.folder.path.rglob("*.safetensors") if path.is_file()]
    total = sum(path.stat().st_size for path in files) / 1e6
    return [Row("all weight files", total, "MB", 40, at_least=False, note=f"{len(files)} files")]


def speed_rows(e: Evaluation) -> list[Row]:
    """Seconds of `FLF2VChain.predict_step`, model loaded: keyframes to latents, 20 guided steps, latents to frames."""
    with threads(THREADS):
        return [_speed(e, *segment) for segment in SEGMENTS]


def total_row(seconds: float, whole: bool) -> Row:
    """How long the table itself took; asked of the whole table only."""
    note = f"wall time, model loaded, {torch.get_num_threads()} threads"
    return Row("this table", seconds / 60, "min", 10 if whole else None, at_least=False, note=note)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _speed(e: Evaluation, size: int, frames: int, most: float, unmeasured: int, runs: int) -> Row:
    settings = ChainSettings(20, e.settings.shift, e.text_guidance, e.settings.solver)
    chain = FLF2VChain(e.wan.folder, settings)
    task = _task(e, size, frames)
    chain.load([task])
    taken = [_seconds(chain, task) for _ in range(unmeasured + runs)][unmeasured:]
    name = f"one segment {size}x{size}x{frames}, 20 guided steps"
    note = f"wall time, median of {runs} runs, {THREADS} threads"
    return Row(name, float(np.median(taken)), "s", most, at_least=False, note=note)


def _seconds(chain: FLF2VChain, task: SegmentTask) -> float:
    start = time.perf_counter()
    chain.predict_step(task)
    return time.perf_counter() - start


def _task(e: Evaluation, size: int, frames: int) -> SegmentTask:
    clip = e.draw(1, linear, frames)[0]
    video = clip.video(size)
    negative = e.wan.folder.sampling.negative_prompt
    return SegmentTask(0, frames, video[:, 0], video[:, -1], clip.prompt, negative, e.settings.seed, "")
