"""`wanedit edit`: help, plan, files and flags, mistakes."""

from pathlib import Path

import pytest
import yaml

from tests.runs import Inputs, edit_command
from wanedit.cli import build_parser, main


def parse(*words: str):
    return build_parser("edit").parse_args(["edit", *words]).edit


@pytest.fixture
def overlay(inputs: Inputs, tmp_path: Path) -> Path:
    """A config file that stands beside its inputs."""
    path = inputs.video.parent / "edit.yaml"
    values = {"video": "source.mkv", "keyframes": "0000.png:0,0008.png:8", "alpha": 3.0, "size": "32*32"}
    values |= {"method_options": {"strength": 0.9}, "base_seed": 5, "output": str(tmp_path / "planned")}
    path.write_text(yaml.safe_dump(values))
    return path


def test_help_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["edit", "--help", "all"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for word in ("--video", "--keyframes", "--alpha", "--dry_run", "residual_corrected", "keyframes.json"):
        assert word in text


def test_help_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    from wanedit.flow.methods import METHODS

    with pytest.raises(SystemExit):
        main(["edit", "--help", "all"])
    text = capsys.readouterr().out
    assert [name for name in METHODS if name not in text] == []


def test_a_dry_run_shows_the_plan_and_loads_nothing(
    inputs: Inputs, tmp_path: Path, no_weights, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*edit_command(inputs, tmp_path / "out"), "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    rows = [line.split("│") for line in text.splitlines() if "0008.png" in line]
    assert [cell.strip() for cell in rows[0][2:5]] == ["0008.png", "8", "2"]
    for words in (
        "frames 0 … 8 of 9, 16 fps",
        "9 frames, 3 slots, 12 tokens",
        "method     residual_corrected, controller exponential (alpha 10, beta 0)\n",
        "this run   edits",
    ):
        assert words in text


def test_a_dry_run_of_what_is_done(edited, inputs: Inputs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*edit_command(inputs, edited.video.parent), "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "this run   skips: complete" in text
    assert edited.digest[:12] in text


def test_an_edit_by_command(inputs: Inputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = edit_command(inputs, tmp_path / "out")
    assert main(command) == 0
    assert "output_final.mp4: 9 frames, keyframes at [0, 8]" in capsys.readouterr().out
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("place", ["file", "positional", "flag", "both"])
def test_the_source_may_stand_in_either_place(
    overlay: Path, inputs: Inputs, tmp_path: Path, no_weights, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    other = tmp_path / "other.mkv"
    other.write_bytes(inputs.video.read_bytes())
    extra = {"file": [], "positional": [str(other)], "flag": ["--video", str(other)], "both": [str(other)]}[
        place
    ]
    if place == "positional":
        overlay.write_text(
            "".join(x for x in overlay.read_text().splitlines(True) if not x.startswith("video"))
        )
    assert main(["edit", *extra, "--config", str(overlay), "--dry_run"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("source ")]
    assert ("source.mkv" if place == "file" else str(other)) in line


def test_flags_win_over_files_and_options_are_mappings(overlay: Path) -> None:
    settings = parse("--config", str(overlay), "--alpha", "4", "--method_options", '{"strength": 0.5}')
    assert (settings.alpha, settings.size, settings.video) == (4.0, "32*32", "source.mkv")
    assert settings.method_options == {"strength": 0.5}
    assert parse("--config", str(overlay)).method_options == {"strength": 0.9}
    assert parse("a.mp4", "--offload_model", "--t5_cpu").t5_cpu is True
    assert parse("a.mp4", "--keyframes", "[a].png:0,b.png:4").keyframes == "[a].png:0,b.png:4"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--alhpa", "3"], "Did you mean 'alpha'?"),
        (["--vidoe", "a.mp4"], "Did you mean 'video'?"),
        (["--keyframe", "a.png:0"], "Did you mean 'keyframes'?"),
        (["--alpha", "much"], "alpha is 'much'; expected a number"),
        (["--controller", "pid"], "controller is 'pid'; expected one of covariance, exponential, "),
        (["--method_options", "3"], "method_options is 3; expected a mapping"),
        (["--t5_cpu", "maybe"], "t5_cpu is 'maybe'; expected true or false"),
        (["--method", "magic", "a.mp4"], "method is 'magic'; expected one of"),
        (["--num_inference_steps", "2.5"], "num_inference_steps"),
        ([], "video is empty"),
        (["no-such.mp4", "--keyframes", "a.png:0"], "no file"),
    ],
)
def test_mistakes_are_told_in_few_lines(
    capsys: pytest.CaptureFixture[str], no_weights, words: list[str], expected: str
) -> None:
    assert main(["edit", *words]) == 2
    text = capsys.readouterr().err
    assert expected in text
    assert len(text.splitlines()) < 10
    assert "Traceback" not in text


@pytest.mark.fault(27)
def test_a_typo_in_a_file(overlay: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay.write_text(overlay.read_text() + "num_inference_step: 3\n")
    assert main(["edit", "--config", str(overlay)]) == 2
    text = capsys.readouterr().err
    assert "Did you mean 'num_inference_steps'?" in text
    assert len(text.splitlines()) < 10
