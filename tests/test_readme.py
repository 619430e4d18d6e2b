"""What the README shows runs as it stands there: both pipelines, and a method that is saved beside the user's video."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.runs import Inputs, edit_command
from wanedit import cli


def blocks(repository: Path) -> list[str]:
    """The Python blocks of the README."""
    return re.findall(
        r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )


def test_the_method_of_the_readme_runs_from_the_folder_it_is_saved_in(
    repository: Path, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halfway.py").write_text(
        next(block for block in blocks(repository) if "class Halfway" in block)
    )
    monkeypatch.chdir(tmp_path)
    options = ["--method", "halfway:Halfway", "--method_options.strength", "1.0", "--quiet"]
    assert cli.main(edit_command(inputs, tmp_path / "out", *options)) == 0
    assert (tmp_path / "out" / "output_final.mp4").is_file()


def test_the_controller_of_the_docs_runs(
    repository: Path, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (repository / "docs" / "editing.md").read_text(encoding="utf-8")
    (tmp_path / "late.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1])
    monkeypatch.chdir(tmp_path)
    options = ["--controller", "late:Late", "--controller_options.power", "2", "--quiet"]
    assert cli.main(edit_command(inputs, tmp_path / "out", *options)) == 0


def test_both_pipelines_of_the_readme(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As written, but for fewer steps and a smaller size."""
    code = next(block for block in blocks(repository) if "MultiKeyframePipeline" in block)
    quick = code.replace('size="128*128"', 'size="32*32", num_inference_steps=1')
    quick = quick.replace("num_inference_steps=12", 'num_inference_steps=1, size="96*64", num_frames=5')
    assert quick.count("num_inference_steps=1") == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(repository / "examples")
    names: dict[str, object] = {}
    exec(compile(quick, "README.md", "exec"), names)
    frames = names["frames"]
    assert isinstance(frames, list)
    assert [np.asarray(frame).shape for frame in frames] == [(64, 96, 3)] * 5
    assert (tmp_path / "outputs/star/output_final.mp4").is_file()


def test_the_readme_is_short_and_its_pictures_are_there(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) < 1250
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (repository / link).exists(), link
