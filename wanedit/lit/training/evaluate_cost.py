"""What wan-tiny costs: bytes on disk, and seconds of one segment through the ordinary sampling path."""

import time

import numpy as np

from wanedit.lit.chain import ChainSettings, FLF2VChain
from wanedit.lit.tasks import SegmentTask
from wanedit.lit.training.evaluate_rows import Evaluation
from wanedit.lit.training.evaluate_sets import first_clips, linear
from wanedit.lit.training.scorecard import Row

# (side in pixels, frames, seconds asked for)
SEGMENTS = ((64, 17, 5.0), (128, 33, 40.0))


def size_rows(e: Evaluation) -> list[Row]:
    """All weight files together; 1 MB is a million bytes."""
    files = [path for path in e.wan.folder.path.rglob("*.safetensors") if path.is_file()]
    total = sum(path.stat().st_size for path in files) / 1e6
    return [Row("all weight files", total, "MB", 40, at_least=False, note=f"{len(files)} files")]


def speed_rows(e: Evaluation) -> list[Row]:
    """Seconds of `FLF2VChain.predict_step`, model loaded: keyframes to latents, 20 guided steps, latents to frames."""
    return [_speed(e, *segment) for segment in SEGMENTS]


def _speed(e: Evaluation, size: int, frames: int, most: float) -> Row:
    settings = ChainSettings(20, e.settings.shift, e.text_guidance, e.settings.solver)
    chain = FLF2VChain(e.wan.folder, settings)
    task = _task(e, size, frames)
    chain.load([task])
    chain.predict_step(task)
    taken = [_seconds(chain, task) for _ in range(3 if most < 10 else 1)]
    name = f"one segment {size}x{size}x{frames}, 20 guided steps"
    return Row(name, float(np.median(taken)), "s", most, at_least=False, note="wall time")


def _seconds(chain: FLF2VChain, task: SegmentTask) -> float:
    start = time.perf_counter()
    chain.predict_step(task)
    return time.perf_counter() - start


def _task(e: Evaluation, size: int, frames: int) -> SegmentTask:
    clip = first_clips(1, frames, linear)[0]
    video = clip.video(size)
    negative = e.wan.folder.sampling.negative_prompt
    return SegmentTask(0, frames, video[:, 0], video[:, -1], clip.prompt, negative, e.settings.seed, "")
