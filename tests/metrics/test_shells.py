"""Means over clips, and over ranks: two ranks with half of the clips each give what one gives with all."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from wanedit.metrics.functional import frame_psnr, frame_ssim
from wanedit.metrics.shells import (
    FeatureConsistency,
    FramePSNR,
    FrameSSIM,
    MotionEndpointError,
    MotionFidelity,
    StructureSurrogate,
    WarpError,
)


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


def test_the_new_ones_are_their_functions(clip: np.ndarray) -> None:
    still = np.repeat(clip[:1], 4, axis=0)
    error, fidelity, structure = MotionEndpointError(), MotionFidelity(), StructureSurrogate()
    for output in (clip[:4], still):
        error.update(clip[:4], output)
        fidelity.update(clip[:4], output)
        structure.update(clip[:4], output)
    # Half of the clips move as the source, at 1.5 px a frame.
    assert float(error.compute()) == pytest.approx(0.75, abs=0.05)
    assert float(fidelity.compute()) == pytest.approx(0.5, abs=0.05)
    assert float(structure.compute()) > 0
    consistency = FeatureConsistency()
    consistency.update(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]]))
    assert float(consistency.compute()) == pytest.approx(0.5)


def masked() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The clips, each with a mask that some frames do not have."""
    rng = np.random.default_rng(1)
    found = []
    for video, truth in clips():
        mask = rng.random(truth.shape[:3]) < 0.5
        mask[0] = False
        found.append((video, truth, mask))
    return found


def measure_share(rank: int, folder: str) -> None:
    """One of two ranks."""
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metric = FramePSNR()
    for pair in clips()[rank::2]:
        metric.update(*pair)
    inside, moved = FrameSSIM(), MotionEndpointError()
    for triple in masked()[rank::2]:
        inside.update(*triple)
        moved.update(triple[1], triple[0])
    torch.save([metric.compute(), inside.compute(), moved.compute()], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_give_what_one_gives(tmp_path: Path) -> None:
    mp.spawn(measure_share, (str(tmp_path),), nprocs=2)
    whole, inside, moved = FramePSNR(), FrameSSIM(), MotionEndpointError()
    for pair in clips():
        whole.update(*pair)
        moved.update(pair[1], pair[0])
    for triple in masked():
        inside.update(*triple)
    frames = np.concatenate([frame_ssim(*triple) for triple in masked()])
    assert float(inside.compute()) == pytest.approx(np.nanmean(frames))
    for rank in (0, 1):
        expected = [whole.compute(), inside.compute(), moved.compute()]
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected)
