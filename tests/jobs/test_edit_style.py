"""`wanedit edit --style.image`: keyframes are made inside the run's folder, and only after all else is checked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wanedit import EditConfig
from wanedit.cli import main
from wanedit.errors import InputError
from wanedit.jobs.integrated import EditStyle, styling_of, with_styled_keyframes
from wanedit.video import load_image, write_png

FAST = [
    "--guidance_scale",
    "1",
    "--num_inference_steps",
    "2",
    "--controller",
    "exponential",
    "--cpu_threads",
    "1",
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Nine frames of a square that moves over a gradient, as a folder of images."""
    folder = tmp_path / "source"
    folder.mkdir()
    for k in range(9):
        frame = np.zeros((32, 32, 3), np.uint8)
        frame[..., 1] = np.linspace(40, 220, 32)[:, None]
        frame[8:20, 2 + k : 14 + k] = (230, 40, 40)
        write_png(folder / f"{k:04d}.png", frame)
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    ramp = np.linspace([60, 10, 90], [255, 190, 90], 32 * 32).reshape(32, 32, 3).astype(np.uint8)
    write_png(tmp_path / "dusk.png", ramp)
    return tmp_path / "dusk.png"


def test_one_command_styles_and_edits_in_one_folder(source: Path, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["edit", str(source), "--style.image", str(reference), "--style.indices", "0,8", "--quiet"]
    assert main([*command, "--fps", "16", "--output", str(out), *FAST]) == 0
    record = json.loads((out / "styled" / "keyframes.json").read_text())
    assert [entry["frame"] for entry in record["keyframes"]] == [0, 8]
    assert (out / "output_final.mp4").is_file()
    assert (out / "contact_sheet.png").is_file()
    before = (out / "styled" / "style" / "journal.jsonl").read_text()
    # The record of the edit stands for itself: its keyframes are files.
    assert main(["edit", "--config", str(out / "config.yaml"), "--quiet"]) == 0
    assert (out / "styled" / "style" / "journal.jsonl").read_text() == before


def test_the_keyframes_have_the_style_and_are_the_source_where_it_was(
    source: Path, reference: Path, tmp_path: Path
) -> None:
    config = EditConfig(video=str(source), fps=16.0, output=str(tmp_path / "out"), num_inference_steps=2)
    style = EditStyle(image=str(reference), indices=[0])
    styled = with_styled_keyframes(style, config, verbose=False)
    keyframe = load_image(tmp_path / "out" / "styled" / "keyframes" / "0000.png").pixels
    plain = load_image(source / "0000.png").pixels
    wanted = load_image(reference).pixels.mean(axis=(0, 1))
    assert np.abs(keyframe.mean(axis=(0, 1)) - wanted).sum() < np.abs(plain.mean(axis=(0, 1)) - wanted).sum()
    assert styled.keyframes == str(tmp_path / "out" / "styled")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keyframes": [["a.png", 0]]}, "keyframes and a style are given"),
        ({"controller_options": {"tau": 1.0}}, "controller exponential has no option 'tau'"),
        ({"model": "nowhere"}, "nowhere"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"size": "30*30"}, "30"),
    ],
)
def test_a_wrong_edit_is_refused_before_the_stylist_is_asked(
    source: Path, reference: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = EditConfig(**{"video": str(source), "fps": 16.0, "output": str(tmp_path / "out")} | changes)
    with pytest.raises(InputError, match=message):
        with_styled_keyframes(EditStyle(image=str(reference)), config, verbose=False)
    assert not (tmp_path / "out").exists()


def test_a_wrong_style_is_refused(source: Path, tmp_path: Path, capsys: Any) -> None:
    out = ["--output", str(tmp_path / "out"), "--fps", "16"]
    assert main(["edit", str(source), "--style.image", str(tmp_path / "gone.png"), *out]) == 2
    assert "style.image: no file" in capsys.readouterr().err
    assert main(["edit", str(source), "--style.description", "sunsett", *out]) == 2
    assert "sunset" in capsys.readouterr().err
    assert main(["edit", str(source), "--style.imag", "a.png", *out]) == 2
    assert "style.image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_dry_run_shows_both_plans_and_writes_nothing(
    source: Path, reference: Path, tmp_path: Path, capsys: Any
) -> None:
    out = ["--output", str(tmp_path / "out"), "--fps", "16", *FAST]
    assert main(["edit", str(source), "--style.image", str(reference), "--dry_run", *out]) == 0
    shown = capsys.readouterr().out
    assert "stylist    palette" in shown
    assert "method     residual_corrected" in shown
    assert not (tmp_path / "out").exists()


def test_a_style_counts_frames_as_its_edit_does() -> None:
    config = EditConfig(video="a.mp4", start=7, num_frames=9, decoder="pyav", output="x/film.mp4")
    styling = styling_of(EditStyle(description="noir", max_frames=3), config)
    assert (styling.start, styling.num_frames, styling.max_frames) == (7, 9, 3)
    assert styling.output == "x/film.wanedit/styled"


@pytest.mark.parametrize("output", [".", "out", "film.mp4"])
def test_an_edit_does_not_style_inside_its_source(source: Path, reference: Path, output: str) -> None:
    before = sorted(source.iterdir())
    config = EditConfig(video=str(source), fps=16.0, output=str(source / output), num_inference_steps=2)
    with pytest.raises(InputError, match="lies in the source's folder"):
        with_styled_keyframes(EditStyle(image=str(reference), indices=[0]), config, verbose=False)
    assert sorted(source.iterdir()) == before
