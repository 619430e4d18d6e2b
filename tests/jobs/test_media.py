"""Real media in the jobs: what becomes of them in the plan that a run carries out, and that it is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.video.test_cases import PATCHES, is_upright, number, patches
from wanedit import EditConfig, GenerationConfig
from wanedit.cli import main
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.inputs import read_inputs
from wanedit.jobs.generate.joins import Todo
from wanedit.jobs.generate.plan import announce, make_plan
from wanedit.jobs.style.config import StyleConfig, StyleSource
from wanedit.jobs.style.plan import make_style_plan
from wanedit.video import load_image, read_frames
from wanedit.video.tensors import pixels_of

CASES = Path(__file__).parents[1] / "cases"


def edit_plan(video: str, keyframe: str, **changes: Any):
    keyframes = [[str(CASES / keyframe), 0]]
    config = EditConfig(
        video=str(CASES / video),
        keyframes=keyframes,
        prompt="a pizza",
        base_seed=1,
        guidance_scale=1.0,
        **changes,
    )
    return make_edit_plan(config)


def test_an_edit_of_hdr_works_in_the_colours_of_its_keyframe() -> None:
    plan = edit_plan("hdr_hlg.mov", "edited0.png")
    source, (keyframe,) = plan.task.pictures.frames, plan.task.pictures.keyframes
    assert np.abs(patches(source[0]) - PATCHES).max() <= 6
    assert np.abs(patches(keyframe) - PATCHES).max() <= 2
    assert any("HDR (HLG, BT.2020)" in warning for warning in plan.warnings)


@pytest.mark.parametrize("more", [["--dry_run"], ["--method", "copy_source"]])
def test_an_edit_that_styles_says_once_what_was_done_to_its_source(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--style.description", "ink", "--num_frames", "5", "--output", str(tmp_path / "out")]
    assert main(["edit", str(CASES / "hdr_hlg.mov"), *words, *more]) == 0
    assert capsys.readouterr().out.count("HDR (HLG, BT.2020) brought to SDR") == 1


def test_pictures_in_memory_say_what_was_done_to_them() -> None:
    with Image.open(CASES / "key_p3_rgba.png") as picture, pytest.warns(UserWarning, match="Display P3"):
        assert np.abs(patches(pixels_of(picture, "keyframe 0")) - PATCHES).max() <= 2.5


def test_an_edit_keeps_the_shape_that_is_shown() -> None:
    plan = edit_plan("sar43.mp4", "edited0_256.png")
    assert plan.task.pictures.frames.shape[1:3] == (128, 256)
    assert not any("not of the source's shape" in warning for warning in plan.warnings)


@pytest.mark.parametrize("size", [None, "96*64"])
def test_where_a_keyframe_is_transparent_the_source_stays(size: str | None) -> None:
    plan = edit_plan("fullrange601.mp4", "key_alpha.png", size=size)
    (keyframe,), source = plan.task.pictures.keyframes, plan.task.pictures.frames[0]
    alpha = load_image(CASES / "key_alpha.png").alpha
    assert alpha is not None
    assert (alpha == 0).any()
    shape = source.shape[1], source.shape[0]
    share = np.asarray(Image.fromarray(alpha).resize(shape, Image.Resampling.BOX))
    truth = Image.open(CASES / "edited0.png").convert("RGB").resize(shape, Image.Resampling.LANCZOS)
    off_source = np.abs(keyframe.astype(int) - source).mean(axis=2)
    off_edit = np.abs(keyframe.astype(int) - np.asarray(truth)).mean(axis=2)
    assert off_source[share == 0].mean() < 1  # a smaller picture's edges reach over by Lanczos
    assert off_edit[share == 255].mean() < 1
    assert off_source[share == 255].mean() > 5
    assert "key_alpha.png: where it is transparent, the source stays" in plan.warnings


def test_nothing_is_said_where_nothing_is_transparent() -> None:
    plan = edit_plan("fullrange601.mp4", "key_opaque_alpha.png")
    assert not any("transparent" in warning for warning in plan.warnings)


def test_a_generation_says_what_it_did_to_its_keyframes() -> None:
    keyframes = [[str(CASES / "key_alpha.png"), 0.0], [str(CASES / "key_opaque_alpha.png"), 0.5]]
    plan = make_plan(GenerationConfig(keyframes=keyframes, prompt="a pizza", base_seed=1))
    told: list[str] = []
    announce(plan, Todo(plan.tasks, plan.bridges, plan.pieces), told.append)
    about = [line for line in told if "transparent" in line]
    assert about == ["warning: key_alpha.png: transparent places laid over white"]


def test_styling_says_what_was_done_to_its_video() -> None:
    plan = make_style_plan(StyleConfig(video=str(CASES / "sar43.mp4"), style=StyleSource(None, "ink")))
    assert plan.clip.size == (128, 256)
    assert "sar43.mp4: 192x128 of pixels 4:3 shown as 256x128 of square ones" in plan.notes


def test_an_evaluation_measures_no_transparent_place_and_notes_what_it_read() -> None:
    config = EvaluationConfig(video=str(CASES / "fullrange601.mp4"), keyframes=f"{CASES / 'key_alpha.png'}:0")
    inputs, noted = read_inputs(config)
    assert inputs.keyframes is not None
    alpha = load_image(CASES / "key_alpha.png").alpha
    first = read_frames(CASES / "fullrange601.mp4", [0])[0]
    np.testing.assert_array_equal(inputs.keyframes[0][alpha == 0], first[alpha == 0])
    assert noted[0][1] == ["key_alpha.png: where it is transparent, nothing is measured"]


def test_frames_of_a_folder_stand_upright_and_in_order(tmp_path: Path) -> None:
    frames = read_frames(CASES / "fullrange601.mp4")
    for index, frame in enumerate(frames[:9], start=1):
        Image.fromarray(frame).save(tmp_path / f"{index:04}.png")
    keys = tmp_path.parent / f"{tmp_path.name}-keys"
    keys.mkdir()
    Image.open(CASES / "edited0.png").save(keys / "0001.png")
    config = EditConfig(video=str(tmp_path), keyframes=str(keys), prompt="a pizza", base_seed=1)
    plan = make_edit_plan(config)
    assert plan.task.keyframe_indices == (0,)
    assert [number(frame) for frame in plan.task.pictures.frames] == list(range(9))
    assert is_upright(plan.task.pictures.frames[0])
