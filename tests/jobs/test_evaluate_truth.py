"""Exact truth of sprite scenes, PSNR by distance to keyframes, and the convergence of recorded edits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from tests.runs import EditRun
from wanedit.errors import InputError
from wanedit.jobs.edit.run import recorded_steps
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.inputs import read_scene
from wanedit.jobs.evaluate.metric import Inputs, SceneTruth, measure
from wanedit.jobs.evaluate.run import evaluate
from wanedit.metrics.functional import frame_psnr
from wanedit.runtime.events import read_events
from wanedit.sprites import Background, Motion, Scene, Sprite, apply_edit, frame_times, render, sample_edit
from wanedit.sprites import sample_scene as sample
from wanedit.sprites.sets import Clip as SceneClip
from wanedit.video import to_uint8, write_lossless


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def scene_file(folder: Path, **values: Any) -> Path:
    path = folder / "scene.json"
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def drawn() -> np.ndarray:
    """Nine frames of the recoloured scene of seed 3."""
    times = frame_times(9)
    scene = sample(3, "test", 9 / 16)
    edited = apply_edit(scene, sample_edit(scene, 3, ("recolour",)))
    return to_uint8(render(edited.scene, times, (64, 64), edited.style).video)


def test_the_truth_is_the_edited_scene(drawn: np.ndarray, tmp_path: Path) -> None:
    truth = read_scene(scene_file(tmp_path, seed=3, edit="recolour"), drawn)
    np.testing.assert_array_equal(truth.frames, drawn)
    assert truth.changed is not None
    source = read_scene(scene_file(tmp_path, seed=3), drawn)
    assert source.changed is None
    different = (np.asarray(source.frames) != np.asarray(truth.frames)).any(axis=-1)
    assert different.any()
    assert not (different & ~np.asarray(truth.changed)).any()
    named = {"kind": "style", "value": "night"}
    assert read_scene(scene_file(tmp_path, seed=3, edit=named), drawn).clip is None
    ground = {"kind": "background", "value": {"kind": "gradient", "colours": ["pink", "white"]}}
    other = read_scene(scene_file(tmp_path, seed=3, edit=ground), drawn).frames
    assert (np.asarray(other) != drawn).any()


def test_a_video_of_its_own_truth(drawn: np.ndarray, tmp_path: Path) -> None:
    write_lossless(tmp_path / "video.mkv", drawn, 16)
    scene = scene_file(tmp_path, seed=3, edit="recolour")
    found = evaluate(EvaluationConfig(video=f"{tmp_path}/video.mkv", scene=str(scene))).metrics["truth"]
    assert found["psnr"] == 100
    assert found["sprites_followed"] >= 1
    assert (found["centre_error"], found["centre_missing"]) == (0, 0)


def test_the_centres_error_is_the_shift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disc drawn 3 pixels off its place, on a wide frame; a frame without it counts half the width."""

    def frames(at: float) -> np.ndarray:
        disc = Sprite("circle", "red", 0.4, motion=Motion(start=(at, 0.0)))
        shown = Scene(Background("gradient", ("blue", "white")), (disc,))
        return to_uint8(render(shown, frame_times(5), (64, 96)).video)

    def scene(*args: Any) -> Scene:
        return Scene(
            Background("gradient", ("blue", "white")), (Sprite("circle", "red", 0.4, motion=Motion()),)
        )

    monkeypatch.setattr("wanedit.jobs.evaluate.inputs.sample_scene", scene)
    truth = read_scene(scene_file(tmp_path, seed=0), frames(0.0))
    np.testing.assert_array_equal(truth.frames, frames(0.0))

    def measured(video: np.ndarray) -> dict[str, Any]:
        return measure(Inputs(video, scene=truth), ["truth"])[0]["truth"]

    assert measured(frames(3 / 32))["centre_error"] == pytest.approx(3, abs=0.2)
    gone = measured(frames(5.0))
    assert (gone["centre_error"], gone["centre_missing"]) == (pytest.approx(48), 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "expected a seed, or demo alone"),
        ({"seed": 1, "demo": True}, "expected a seed, or demo alone"),
        ({"seed": 1, "fps": 0}, "fps is 0; expected a number from 0.001"),
        ({"sed": 1}, "has 'sed'; expected an object with some of seed"),
        ({"seed": "1"}, "seed is '1'; expected an integer >= 0 or null"),
        ({"seed": 1, "split": "dev"}, "split: got 'dev', expected one of train"),
        ({"seed": 1, "edit": "melt"}, "edit: got 'melt', expected one of"),
        ({"seed": 1, "edit": {"kind": "remove", "sprite": 9}}, "got index 9"),
        ({"seed": 1, "edit": {"sort": "remove"}}, "expected kind, sprite and value"),
        (
            {"seed": 1, "edit": {"kind": "background", "value": {"kind": "gradient"}}},
            r"value.colours is \[\]; expected",
        ),
    ],
)
def test_scenes_that_are_none(tmp_path: Path, drawn: np.ndarray, values: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_scene(scene_file(tmp_path, **values), drawn)


def test_a_file_that_is_no_scene(tmp_path: Path, drawn: np.ndarray) -> None:
    path = tmp_path / "scene.json"
    path.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_scene(path, drawn)
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds a list; expected a scene"):
        read_scene(path, drawn)


def test_off_keyframes_and_by_distance(drawn: np.ndarray, tmp_path: Path) -> None:
    """Brighter by as many levels as the frame is from a keyframe."""
    away = np.array([0, 1, 2, 3, 4, 3, 2, 1, 0])
    video = np.where(drawn < 128, drawn + away[:, None, None, None], drawn - away[:, None, None, None])
    write_lossless(tmp_path / "truth.mkv", drawn, 16)
    write_lossless(tmp_path / "video.mkv", video.astype(np.uint8), 16)
    for index in (0, 8):
        Image.fromarray(drawn[index]).save(tmp_path / f"{index}.png")
    config = EvaluationConfig(
        video=f"{tmp_path}/video.mkv",
        reference=f"{tmp_path}/truth.mkv",
        keyframes=f"{tmp_path}/0.png:0,{tmp_path}/8.png:8",
    )
    found = evaluate(config).metrics["truth"]
    by_distance = {str(d): 20 * np.log10(255 / d) for d in range(1, 5)}
    assert found["psnr_by_distance"] == pytest.approx({"0": 100.0, **by_distance})
    assert found["psnr_off_keyframes"] == pytest.approx(np.mean([20 * np.log10(255 / d) for d in away if d]))
    assert found["psnr"] == pytest.approx(frame_psnr(video.astype(np.uint8), drawn).mean())


def test_near_joins_and_far_from_them(tmp_path: Path) -> None:
    """Eight levels off within four frames of the join, one farther away; keyframes and all others as they are."""
    truth = np.full((25, 16, 16, 3), 100, np.uint8)
    away = np.abs(np.arange(25) - 12)
    video = truth + np.where(away > 4, 1, 8).astype(np.uint8)[:, None, None, None]
    video[[0, 12, 24]] = 100
    inputs = Inputs(video, (12,), scene=SceneTruth(truth), keyframes={t: truth[t] for t in (0, 12, 24)})
    found = measure(inputs, ["truth"])[0]["truth"]
    assert found["psnr_near_joins"] == pytest.approx(20 * np.log10(255 / 8))
    assert found["psnr_far_from_joins"] == pytest.approx(20 * np.log10(255))
    assert "acceleration_error" not in found  # nothing to follow


def test_a_sprite_that_halts_at_a_join_is_accelerated_there() -> None:
    disc = Sprite("circle", "red", 0.4, motion=Motion("linear", (-0.5, 0.0), (0.5, 0.0), duration=1.0))
    scene = Scene(Background("gradient", ("blue", "white")), (disc,))
    truth = to_uint8(render(scene, frame_times(17), (64, 96)).video)
    halting = truth.copy()
    halting[9] = truth[8]

    def accelerated(video: np.ndarray, join: int) -> float:
        inputs = Inputs(video, (join,), scene=SceneTruth(truth, clip=SceneClip(0, scene, 17)))
        return measure(inputs, ["truth"])[0]["truth"]["acceleration_error"]

    # Two pixels a frame: -2, 4 and -2 about the frame that is shown twice, of which a join at 8 has the first two.
    assert accelerated(truth, 8) == 0
    assert accelerated(halting, 8) == pytest.approx((0 + 2 + 4) / 3, abs=0.1)
    assert accelerated(halting, 4) == 0


@pytest.mark.parametrize("controller", ["exponential", "residual"])
def test_an_edits_residual_obeys_its_recursion(run_edit: EditRun, controller: str) -> None:
    """On a real run: no step exceeds the exact bound."""
    made = run_edit(num_inference_steps=6, controller=controller, alpha=4.0)
    found = evaluate(EvaluationConfig(run=str(made.video.parent), metrics="convergence")).metrics[
        "convergence"
    ]
    assert len(found["residual_by_step"]) == 6
    assert 0 < found["over_bound"] <= 1 + 1e-4
    assert found["predicted_rate"] < found["driven_rate"]
    assert found["keyframe_error"] == pytest.approx(made.keyframe_error)


def test_a_controller_without_a_recursion_has_no_prediction(run_edit: EditRun) -> None:
    made = run_edit(num_inference_steps=3, controller="replacement")
    found = evaluate(EvaluationConfig(run=str(made.video.parent), metrics="convergence")).metrics[
        "convergence"
    ]
    assert set(found) == {"measured_rate", "keyframe_error", "residual_by_step"}


def test_a_method_without_a_controller_is_named(run_edit: EditRun) -> None:
    made = run_edit(method="sdedit", method_options={"strength": 0.7}, num_inference_steps=3)
    found = evaluate(EvaluationConfig(run=str(made.video.parent)))
    assert found.skipped["convergence"] == "the method of this edit keeps no residual"


def test_only_the_run_that_finished_counts(tmp_path: Path) -> None:
    def lines(*values: Any) -> list[dict[str, Any]]:
        path = tmp_path / "metrics.jsonl"
        path.write_text("\n".join(v if isinstance(v, str) else json.dumps(v) for v in values))
        return read_events(path)

    start, step, done = (
        {"event": "start", "method": {"a": 1}},
        {"event": "step"},
        {"event": "edited", "digest": "x"},
    )
    killed = [start, step | {"step": 0}, step | {"step": 1}]
    whole = [start, *(step | {"step": k} for k in range(3)), done]
    method, steps = recorded_steps(lines(*killed, *whole, start, '{"event": "st'), "x")
    assert (method, [s["step"] for s in steps]) == ({"a": 1}, [0, 1, 2])
    assert recorded_steps(lines(*whole), "y") == ({}, ())
    assert recorded_steps(read_events(tmp_path / "nowhere"), "x") == ({}, ())
    assert recorded_steps(lines(start | {"method": [1]}, done), "x") == ({}, ())


@pytest.mark.parametrize("value", [[1], "many"])
def test_a_step_without_a_number_is_a_reason_and_no_crash(value: Any) -> None:
    steps = ({"r_k_norm": 1.0, "sigma": 1.0, "h": 0.1, "alpha_h": value},) * 4
    with pytest.raises(InputError, match="has no alpha_h that is a number at every step"):
        measure(Inputs(np.zeros((5, 16, 16, 3), np.uint8), steps=steps), ["convergence"])
