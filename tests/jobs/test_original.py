"""The original's three programs, as they stand in examples/original, on wan-tiny under the names that they use."""

import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wanedit
from wanedit import GenerationResult, ModelManager, WanVideoEditorPipeline, save_video
from wanedit.errors import InputError, MissingWeightsError
from wanedit.video import load_image, probe, read_frames, write_lossless

PROGRAMS = Path(__file__).parent.parent.parent / "examples" / "original"
TINY = Path(wanedit.__file__).parent / "assets" / "wan-tiny"
Main = Callable[..., Any]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Main]:
    """The `main` of one of them, in a folder of its own that holds wan-tiny as the models that they ask for."""
    for name in ("models/WAN-1.3B", "Wan2.1-FLF2V-14B-720P"):
        shutil.copytree(TINY, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return lambda name: runpy.run_path(str(PROGRAMS / f"{name}.py"))["main"]


def test_the_generator(program: Callable[[str], Main], capsys: pytest.CaptureFixture[str]) -> None:
    output = program("multi_keyframe_generate")(size="48*40")
    info = probe(output)
    # 5 seconds at 24 frames: 97 frames between the last two keyframes, more than the model is good for.
    assert (info.frames, info.fps, info.width, info.height) == (121, 24, 48, 40)
    printed = capsys.readouterr().out
    assert "segment 1 needs 97 frames" in printed
    assert f"Video saved to: {Path('outputs/original/video.mp4')}" in printed


@pytest.mark.slow
def test_the_video_editor(program: Callable[[str], Main], capsys: pytest.CaptureFixture[str]) -> None:
    frames = program("video_editor")(steps=2)
    source = read_frames(PROGRAMS.parent / "edit_a_video" / "source.mp4")
    assert np.stack([np.asarray(frame) for frame in frames]).shape == source.shape
    assert probe("outputs/original/edited.mp4").frames == len(source)
    printed = capsys.readouterr().out
    # As the original prints them, every tenth step and the last.
    assert all(name in printed for name in ("r_k_norm", "v_diff_norm", "delta_v_norm"))
    assert printed.count("r_k_norm") == 2


@pytest.mark.slow
def test_the_integrated_editor_on_a_film_longer_than_the_model(
    program: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = read_frames(PROGRAMS.parent / "style_a_video" / "source.mkv")
    film = np.concatenate([frames, frames[::-1], frames, frames[::-1]])[:120, ::2, ::2]
    write_lossless(tmp_path / "long.mkv", np.ascontiguousarray(film), 16)
    saved = program("integrated_editor")(model="WAN-1.3B", steps=2, video="long.mkv")
    assert saved == str(Path("outputs/final/output_final.mp4"))
    assert "frames 0 to 32 are edited" in capsys.readouterr().out
    pictures = sorted(Path("outputs/final/frames").iterdir())
    assert len(pictures) == probe(saved).frames == 33
    assert load_image(pictures[32]).pixels.shape == film.shape[1:]
    assert probe(saved).fps == 16


def test_results_are_paths(finished: GenerationResult) -> None:
    assert Path(finished) == finished.video
    assert os.path.getsize(finished) > 0
    assert str(finished) == str(finished.video)
    assert repr(finished) == f"GenerationResult({str(finished.video)!r})"


def test_a_manager_finds_its_model_by_name_folder_or_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingWeightsError, match=r"wanedit models download .* --to models/WAN-1\.3B"):
        ModelManager(model_id_list=["models/WAN-1.3B"])
    shutil.copytree(TINY, tmp_path / "models" / "WAN-1.3B")
    folder = Path("models/WAN-1.3B")
    shards = [str(path) for path in folder.glob("*.safetensors")]
    for manager in (
        ModelManager(model_id_list=[folder]),
        ModelManager(file_path_list=[shards, str(shards[0])], device="cpu"),
    ):
        pipe = WanVideoEditorPipeline.from_model_manager(manager, cfg_scale=1.0)
        assert (Path(pipe.config.source), pipe.config.guidance_scale) == (folder, 1.0)
    assert ModelManager(model_id_list="tiny").model == ModelManager(file_path_list="tiny").model == "tiny"
    with pytest.raises(InputError, match="another model than"):
        ModelManager(model_id_list=["WAN-1.3B", "tiny"])
    with pytest.raises(InputError, match="has no model"):
        WanVideoEditorPipeline.from_model_manager(ModelManager())


def test_precision_and_device_that_are_not_used_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    manager = ModelManager(torch.float16, "cpu", ["tiny"])
    with pytest.warns(UserWarning, match=r"torch_dtype is torch\.float16; computed is in torch\.float32"):
        WanVideoEditorPipeline.from_model_manager(manager)
    with pytest.warns(UserWarning, match="device is cuda; this machine has no GPU"):
        WanVideoEditorPipeline.from_model_manager(manager, torch.float32, "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    pipe = WanVideoEditorPipeline.from_model_manager(manager, torch.bfloat16, "cuda:1")
    assert pipe.config.gpu_id == 1
    with pytest.raises(InputError, match="device is cpu on a machine with a GPU"):
        WanVideoEditorPipeline.from_model_manager(manager, torch.bfloat16, "cpu")


def test_films_are_saved_as_diffsynth_saves_them(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 32, 34, 3), np.uint8)
    best, worst = (save_video(noise, tmp_path / f"{q}.mp4", fps=8, quality=q) for q in (10, 0))
    assert worst.stat().st_size < best.stat().st_size / 2
    assert (probe(best).fps, probe(best).frames) == (8, 3)
    with pytest.warns(UserWarning, match="33x32 has an odd side"):
        save_video(list(noise[:, :, :33]), tmp_path / "odd.mp4")
    wrong: list[tuple[Any, Path, float]] = [
        (noise, tmp_path / "b.mp4", 11),
        ([], tmp_path / "b.mp4", 9),
        (noise, tmp_path / "b.txt", 9),
    ]
    for frames, path, quality in wrong:
        with pytest.raises(InputError, match=r"expected|films are written as"):
            save_video(frames, path, quality=quality)
