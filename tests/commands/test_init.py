"""A file of settings is written beside pictures or a video, and is what the command takes."""

import shutil
from pathlib import Path

import pytest

from tests.runs import draw_keyframe, run_cli
from wanedit.files import read_yaml


def test_a_file_of_pictures_runs_as_it_is(tmp_path: Path) -> None:
    for name, shade in (("0.0s", 0), ("0.5s", 4), ("1.25s", 8)):
        draw_keyframe(tmp_path / f"{name}.png", shade)
    done = run_cli("init", "generate", str(tmp_path))
    assert (done.code, done.err) == (0, "")
    path = tmp_path / "wanedit.yaml"
    values = read_yaml(path, "settings")
    assert isinstance(values, dict)
    assert values["keyframes"] == [["0.0s.png", 0.0], ["0.5s.png", 0.5], ["1.25s.png", 1.25]]
    assert "# what the whole video shows" in path.read_text()
    planned = run_cli("generate", "--config", str(path), "--dry_run", "--output", str(tmp_path / "out"))
    assert (planned.code, planned.err) == (0, "")
    assert "2 of 2 segments" in planned.out
    # What is there is kept.
    path.write_text("mine")
    assert "is there already" in run_cli("init", "generate", str(tmp_path)).err
    assert path.read_text() == "mine"


def test_a_file_of_a_video_names_it(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "examples" / "edit_a_video" / "source.mp4", tmp_path / "source.mp4")
    assert run_cli("init", "edit", str(tmp_path), "--quiet").out == ""
    values = read_yaml(tmp_path / "wanedit.yaml", "settings")
    assert isinstance(values, dict)
    assert values["video"] == "source.mp4"
    told = run_cli("edit", "--config", str(tmp_path / "wanedit.yaml"), "--dry_run").err
    assert "keyframes" in told  # which a person has yet to make


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "nowhere"], "no folder"),
        (["edit", "."], "0 videos in"),
        (["generate", "."], "holds no pictures"),
        (["dance"], "expected one of"),
    ],
)
def test_what_is_lacking_is_told(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli("init", *words)
    assert (done.code, says in done.err) == (2, True), done.err
    assert list(tmp_path.iterdir()) == []
