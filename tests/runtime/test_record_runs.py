"""A run is read by the job that its record names: the package's own, or that of another installed package."""

from pathlib import Path

import numpy as np
import pytest

from tests.runs import EditRun
from wanedit.errors import InputError
from wanedit.runtime.record import read_run


def test_an_edit_is_read_by_the_edit(run_edit: EditRun) -> None:
    made = run_edit(num_inference_steps=3)
    found = read_run(made.video.parent)
    assert found.job == "edit"
    np.testing.assert_array_equal(found.video, made.frames)
    assert tuple(found.keyframes) == made.keyframe_indices
    assert found.reference is not None
    assert found.reference.shape == made.frames.shape
    assert [step["step"] for step in found.steps] == [0, 1, 2]
    assert found.evaluations
    assert found.seconds


def test_a_job_of_another_package_reads_its_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an installed package offers it: an entry point of the group `wanedit.jobs`."""
    (tmp_path / "upscaling.py").write_text(
        "from fractions import Fraction\n"
        "import numpy as np\n"
        "from wanedit.runtime.record import FinishedRun\n"
        "def load_run(root, record, folders=()):\n"
        "    return FinishedRun('upscale', np.zeros((3, 16, 16, 3), np.uint8), Fraction(record['fps']))\n"
    )
    info = tmp_path / "upscaling-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: upscaling\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[wanedit.jobs]\nupscale = upscaling:load_run\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "config.yaml").write_text("{job: upscale, fps: 8}")
    assert read_run(tmp_path).fps == 8


@pytest.mark.parametrize("job", ["upscale", "evaluate", "../edit", "edit.run"])
def test_a_job_that_reads_no_runs_is_named(tmp_path: Path, job: str) -> None:
    (tmp_path / "config.yaml").write_text(f"job: {job}")
    with pytest.raises(
        InputError, match=f"is of the job '{job}', whose runs nothing installed here can read"
    ):
        read_run(tmp_path)
