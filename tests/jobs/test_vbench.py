"""The folder that VBench reads: names, prompts, pictures, and prompts that no file name can hold."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.runs import moving_square
from wanedit import EditResult
from wanedit.cli import main
from wanedit.errors import InputError
from wanedit.jobs.evaluate.vbench import export, file_stem
from wanedit.video import probe, read_frames, write_lossless


def prompt_of(name: str) -> str:
    """What VBench takes for the prompt of a file: its stem without the index."""
    return re.sub(r"-\d+$", "", Path(name).stem)


def test_videos_are_named_by_prompt_and_index(tmp_path: Path) -> None:
    video = moving_square(5)
    export(tmp_path, video, 16, "a red  square-3\n", video[0])
    (note,) = export(tmp_path, video[::-1], 16, "a red  square-3\n", video[0])
    again = export(tmp_path, video[::-1], 16, "a red  square-3\n", video[0])
    assert again == (note,)  # a video is added once
    export(tmp_path, video, 8, "a blue square")
    names = {path.name for path in (tmp_path / "videos").iterdir()}
    assert names == {"a red square-3-0.mp4", "a red square-3-1.mp4", "a blue square-0.mp4"}
    assert note == f"vbench: {tmp_path}/videos/a red square-3-1.mp4"
    prompts = json.loads((tmp_path / "prompt_file.json").read_text())
    assert prompts == {name: prompt_of(name) for name in names}
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a red square-3.png"]
    assert float(probe(tmp_path / "videos" / "a blue square-0.mp4").fps) == 8
    shown = read_frames(tmp_path / "videos" / "a red square-3-0.mp4").astype(float)
    assert np.abs(shown - video).mean() < 3


@pytest.mark.parametrize(
    "prompt", ["a cat / a dog", "who: me?", ".hidden", "字" * 200, "a" * 300, "../../etc/x"]
)
def test_prompts_that_no_name_can_hold(tmp_path: Path, prompt: str) -> None:
    notes = export(tmp_path, moving_square(2), 16, prompt)
    assert "give it prompt_file.json" in notes[1]
    (path,) = (tmp_path / "videos").iterdir()
    assert len(path.name.encode()) < 255
    assert json.loads((tmp_path / "prompt_file.json").read_text()) == {path.name: prompt}
    assert [p.name for p in tmp_path.parent.iterdir() if p.suffix == ".mp4"] == []


def test_changed_names_are_never_shared() -> None:
    assert file_stem("a/b") != file_stem("a:b") != file_stem("a_b")
    assert file_stem("x" * 300) != file_stem("x" * 301)
    assert file_stem("a_b") == "a_b"


def test_an_odd_side_is_said(tmp_path: Path) -> None:
    notes = export(tmp_path, np.zeros((2, 33, 48, 3), np.uint8), 16, "a night")
    assert notes[1] == "vbench: 48x33 is odd; the last row or column is left out"
    (path,) = (tmp_path / "videos").iterdir()
    assert read_frames(path).shape == (2, 32, 48, 3)


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the video has no prompt"):
        export(tmp_path, moving_square(2), 16, " \n")
    (tmp_path / "prompt_file.json").write_text("[]")
    with pytest.raises(InputError, match="holds a list; expected file names and prompts"):
        export(tmp_path, moving_square(2), 16, "a square")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/under/\S+: Not a directory; choose another path"):
        export(tmp_path / "file" / "under", moving_square(2), 16, "a square")


def test_the_command_exports_files_and_runs(
    edited: EditResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lossless(tmp_path / "square.mkv", moving_square(4), 16)
    out = tmp_path / "bench"
    words = ["--metrics", "none", "--vbench", str(out)]
    assert main(["evaluate", str(tmp_path / "square.mkv"), *words, "--prompt", "a square"]) == 0
    assert "vbench: " in capsys.readouterr().out
    assert main(["evaluate", "--run", str(edited.video.parent), *words]) == 0
    assert {p.name for p in (out / "videos").iterdir()} == {"a square-0.mp4", "a blue square-0.mp4"}
    assert [p.name for p in (out / "images").iterdir()] == ["a blue square.png"]
    assert main(["evaluate", str(tmp_path / "square.mkv"), *words]) == 2
