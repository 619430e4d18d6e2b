"""Means over clips, and over ranks: two ranks with half of the clips each give what one gives with all."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from wanedit.metrics.functional import frame_psnr
from wanedit.metrics.shells import FramePSNR, FrameSSIM, WarpError


def clips() -> list[tuple[np.ndarray, np.ndarray]]:
    """Four pairs of clips, of 2 to 5 frames."""
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 230, (2 + k, 16, 16, 3), dtype=np.uint8) for k in range(4)]
    return [(truth + np.uint8(3 + 5 * k), truth) for k, truth in enumerate(truths)]


def test_every_frame_counts_alike() -> None:
    metric = FramePSNR()
    for pair in clips():
        metric.update(*pair)
    expected = np.concatenate([frame_psnr(*pair) for pair in clips()]).mean()
    assert float(metric.compute()) == pytest.approx(expected)
    metric.reset()
    metric.update(*clips()[0])
    assert float(metric.compute()) == pytest.approx(20 * np.log10(255 / 3))


def test_frames_without_a_value_do_not_count() -> None:
    video, truth = clips()[1]
    mask = np.zeros(truth.shape[:3], dtype=bool)
    mask[0] = True
    metric = FramePSNR()
    metric.update(video, truth, mask)
    assert float(metric.compute()) == pytest.approx(20 * np.log10(255 / 8))
    assert int(metric.count) == 1


def test_the_others_are_their_functions(clip: np.ndarray) -> None:
    same, error = FrameSSIM(), WarpError()
    same.update(clip[:3], clip[:3])
    error.update(clip[:4])
    assert float(same.compute()) == pytest.approx(1)
    assert 0 < float(error.compute()) < 3


def measure_share(rank: int, folder: str) -> None:
    """One of two ranks."""
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metric = FramePSNR()
    for pair in clips()[rank::2]:
        metric.update(*pair)
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_what_one_gives(tmp_path: Path) -> None:
    mp.spawn(measure_share, (str(tmp_path),), nprocs=2)
    whole = FramePSNR()
    for pair in clips():
        whole.update(*pair)
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), whole.compute())
