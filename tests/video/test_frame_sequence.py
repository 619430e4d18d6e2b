"""A clip that stays in its file is used as an array of its frames."""

import gc

import av
import numpy as np
import psutil
import pytest

from wanedit.errors import ResourceError
from wanedit.runtime.cost import require_memory
from wanedit.video import write_lossless, write_video
from wanedit.video.arrays import pixels_sha256
from wanedit.video.decode import open_frames


def test_it_gives_what_the_array_gives(tmp_path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (7, 18, 24, 3), dtype=np.uint8)
    write_lossless(tmp_path / "a.mkv", video)
    stored = open_frames(tmp_path / "a.mkv")
    assert (stored.shape, len(stored), stored.nbytes) == (video.shape, 7, video.nbytes)
    np.testing.assert_array_equal(stored, video)
    np.testing.assert_array_equal(stored[3], video[3])
    np.testing.assert_array_equal(stored[-1], video[-1])
    np.testing.assert_array_equal(stored[[5, 0, 5]], video[[5, 0, 5]])
    part = stored[2:6][1:]
    assert part.shape == (3, 18, 24, 3)
    np.testing.assert_array_equal(part, video[3:6])
    assert pixels_sha256(stored) == pixels_sha256(video)
    with pytest.raises(IndexError):
        stored[7]
    with pytest.raises(IndexError, match="without steps"):
        stored[::2]


def test_a_frame_that_was_read_is_freed_at_once(tmp_path) -> None:
    """And not when the garbage collector comes by: of 1080p that is 4 MB a frame, of which hundreds wait for it."""
    write_video(tmp_path / "a.mp4", np.zeros((24, 32, 32, 3), np.uint8), 16)
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in open_frames(tmp_path / "a.mp4")) == 24
        assert sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects()) < 4
    finally:
        gc.enable()


def test_what_does_not_fit_in_memory_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    free = type("Memory", (), {"available": 3 * 2**30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    require_memory(300, (1080, 1920), 1, "this edit")
    with pytest.raises(
        ResourceError, match=r"2 copies of 300 frames of 1920x1080, 3.48 GiB; 3 GiB of memory"
    ):
        require_memory(300, (1080, 1920), 2, "this edit")
