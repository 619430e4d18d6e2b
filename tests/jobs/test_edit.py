"""An edit from end to end: what is written, what a second run does, what is said."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.runs import (
    EDIT,
    EditRun,
    Heard,
    Inputs,
    Run,
    edit_command,
    moving_square,
    run_cli,
    start_process,
)
from wanedit import EditConfig, EditResult, edit
from wanedit.errors import InputError, NumericalError, ResourceError
from wanedit.jobs.edit.plan import EditPlan, make_edit_plan
from wanedit.jobs.edit.run import advice
from wanedit.lit.velocity import GuidedVelocity
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import append_event
from wanedit.video import probe, read_frames, write_lossless

NAMES = {"r_k_norm", "v_diff_norm", "delta_v_norm"}
Config = Callable[..., EditConfig]


def events(result: EditResult, kind: str) -> list[dict]:
    lines = (result.contact_sheet.parent / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


def latents(result: EditResult) -> str:
    """Hash of the latents, as journalled."""
    journal = json.loads((result.contact_sheet.parent / "segments" / "progress.json").read_text())
    return journal["segments"][result.digest]["latents_sha256"]


def test_a_run_writes_all_that_it_promises(edited: EditResult) -> None:
    folder = edited.video.parent
    info = probe(edited.video)
    assert (info.frames, info.width, info.height, float(info.fps)) == (9, 32, 32, 16.0)
    names = {"output_final.mp4", "config.yaml", "metrics.jsonl", "contact_sheet.png", "segments"}
    assert names <= {path.name for path in folder.iterdir()}
    assert not list(folder.rglob("*.partial"))
    assert edited.edited
    assert edited.keyframe_indices == (0, 8)
    assert np.array_equal(edited.frames, read_frames(next(folder.glob("segments/*.mkv"))))
    assert not np.array_equal(edited.frames, moving_square(9))


def test_every_step_is_one_line(edited: EditResult) -> None:
    steps = events(edited, "step")
    assert [line["step"] for line in steps] == [0, 1]
    relative = {f"{name}_relative" for name in NAMES}
    assert all(
        NAMES | relative | {"gain", "alpha_h", "keyframe_error", "sigma", "h"} <= set(s) for s in steps
    )
    assert steps[1]["alpha_h"] == pytest.approx(steps[1]["gain"] * steps[1]["h"])
    (done,) = events(edited, "edited")
    # Guidance is 1: two steps of a target and a source pass each.
    assert (done["frames"], done["evaluations"]) == (9, 4)
    assert done["keyframe_error"] == edited.keyframe_error == steps[1]["keyframe_error"]


def test_the_video_carries_its_configuration(edited: EditResult, inputs: Inputs) -> None:
    with av.open(str(edited.video)) as container:
        stored = dict(container.metadata)
    config = json.loads(stored["wanedit_config"])
    assert (config["base_seed"], config["source_prompt"], config["video"]) == (
        7,
        "a blue square",
        "source.mkv",
    )
    assert config["keyframes"] == [{"file": "0000.png", "frame": 0}, {"file": "0008.png", "frame": 8}]
    assert stored["wanedit_edit"] == edited.digest
    assert str(inputs.video.parent) not in json.dumps(stored)


def test_a_model_in_a_folder_is_named_without_its_place(run_edit: EditRun, tmp_path: Path) -> None:
    import shutil

    from wanedit.wan.load import open_wan

    shutil.copytree(open_wan("tiny").path, tmp_path / "secret" / "my-wan")
    result = run_edit(model=str(tmp_path / "secret" / "my-wan"), method="copy_source", controller="residual")
    with av.open(str(result.video)) as container:
        stored = json.dumps(dict(container.metadata))
    assert "my-wan" in stored
    assert "secret" not in stored


def test_journalled_hashes_are_those_of_the_latents(edited: EditResult) -> None:
    path = next(edited.video.parent.glob("segments/*.safetensors"))
    kept = load_file(path)["latents"]
    assert kept.shape == (16, 3, 4, 4)
    assert hashlib.sha256(kept.numpy().tobytes()).hexdigest() == latents(edited)


def test_a_second_run_edits_nothing_and_gives_the_same_bytes(run_edit: EditRun) -> None:
    first = run_edit()
    piece = next(first.video.parent.glob("segments/*.mkv"))
    video, stamp = first.video.read_bytes(), piece.stat().st_mtime_ns
    second = run_edit()
    assert (first.edited, second.edited) == (True, False)
    assert piece.stat().st_mtime_ns == stamp
    assert second.video.read_bytes() == video
    assert second.digest == first.digest
    assert second.keyframe_error == first.keyframe_error is not None
    assert len(events(second, "step")) == 2


def test_the_recorded_configuration_is_the_same_run(edited: EditResult) -> None:
    record = yaml.safe_load((edited.video.parent / "config.yaml").read_text())
    assert not edit(EditConfig(**record), verbose=False).edited


def test_noise_does_not_depend_on_the_process(run_edit: EditRun, edited: EditResult) -> None:
    torch.manual_seed(123)
    torch.randn(5)
    assert latents(run_edit()) == latents(edited)


def other_keyframe(inputs: Inputs, folder: Path) -> Path:
    """Keyframe 8 with one pixel changed by one level."""
    pixels = np.array(Image.open(inputs.images[8]))
    pixels[0, 0, 0] += 1
    Image.fromarray(pixels).save(folder / "other.png")
    return folder / "other.png"


def other_model(folder: Path) -> str:
    """wan-tiny with one weight changed."""
    import shutil

    from safetensors.torch import save_file

    from wanedit.wan.load import open_wan

    shutil.copytree(open_wan("tiny").path, folder / "wan-tiny")
    path = folder / "wan-tiny" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["head.head.bias"] = tensors["head.head.bias"] + 1e-3
    save_file(tensors, path)
    return str(folder / "wan-tiny")


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"alpha": 9.0}, False),
        ({"beta": 0.5}, False),
        ({"base_seed": 8}, False),
        ({"prompt": "a green square"}, False),
        ({"source_prompt": "a red square"}, False),
        ({"negative_prompt": "blurred"}, True),
        ({"keyframe_encoding": "single"}, False),
        ({"condition_keyframes": False}, False),
        ({"restore": "none"}, False),
        ({"restore": "fused"}, True),
        ({"restore": "keyframes"}, False),
        ({"source_guidance_scale": 2.0}, False),
        ({"method_options": {"strength": 0.9}}, False),
        ({"shift": 4.0}, False),
        ({"tile": 32}, False),
        ({"start": 1, "num_frames": 8, "keyframes": None}, False),
        ({"keyframes": "pixel"}, False),
        ({"model": "weight"}, False),
        (
            {"offload_model": False, "t5_cpu": True, "crf": 20, "save_latents": True, "cpu_threads": None},
            True,
        ),
        ({"source_prompt": "a blue square", "shift": 3.0, "source_guidance_scale": 1.0}, True),
    ],
    ids=str,
)
def test_what_decides_the_pixels_decides_the_hash(
    edit_config: Config,
    inputs: Inputs,
    edited: EditResult,
    tmp_path: Path,
    no_weights,
    changes: dict,
    same: bool,
) -> None:
    if changes.get("keyframes", "") is None:
        changes = changes | {"keyframes": inputs.keyframes(0)}
    elif changes.get("keyframes") == "pixel":
        changes = {"keyframes": [*inputs.keyframes(0), [str(other_keyframe(inputs, tmp_path)), 8]]}
    elif "model" in changes:
        changes = {"model": other_model(tmp_path)}
    assert (make_edit_plan(edit_config(**changes)).task.digest == edited.digest) == same


def test_a_drawn_seed_is_recorded_and_reused(run_edit: EditRun) -> None:
    first = run_edit(base_seed=-1)
    second = run_edit(base_seed=None)
    assert (second.seed, second.edited) == (first.seed, False)
    third = run_edit(base_seed=None, force_regenerate=True)
    assert third.edited
    assert third.seed != first.seed


def test_force_regenerate_edits_anew(run_edit: EditRun) -> None:
    first = run_edit()
    second = run_edit(force_regenerate=True)
    assert second.edited
    assert latents(second) == latents(first)


def test_a_damaged_piece_is_edited_again(run_edit: EditRun, edited: EditResult) -> None:
    result = run_edit()
    file = next(result.video.parent.glob("segments/*.mkv"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = run_edit()
    assert again.edited
    assert latents(again) == latents(edited)


@pytest.mark.parametrize("method", ["copy_source", "warp"])
def test_methods_of_pixels_are_complete_without_latents(run_edit: EditRun, method: str) -> None:
    chosen = {"method": method, "controller": "residual", "save_latents": True}
    first = run_edit(**chosen)
    assert (first.edited, first.keyframe_error) == (True, None)
    assert not run_edit(**chosen).edited
    if method == "copy_source":
        assert np.array_equal(first.frames, moving_square(9))


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("sdedit", 2), ("flowedit", 2), ("flowalign", 2), ("rf_inversion", 2), ("first_frame", 2), ("flf2v", 2),
        ("hard_replacement", 2),
    ],
)  # fmt: skip
def test_every_method_runs_and_reports_the_steps_that_are_expected(
    run_edit: EditRun, heard: Heard, method: str, steps: int
) -> None:
    options = {"strength": 1.0} if method == "sdedit" else {}
    result = run_edit(method=method, controller="residual", method_options=options)
    assert len(result.frames) == 9
    assert len(events(result, "step")) == steps
    assert [row for row in heard if row[0] == "editing"] == [["editing", "steps", steps, steps]]


def test_all_that_takes_long_counts_itself(run_edit: EditRun, heard: Heard) -> None:
    run_edit(restore="keyframes")
    assert [label.split("_")[0] for label, *_ in heard] == [
        "reading source.mkv", "editing", "reading prompts", "looking at keyframes", "encoding keyframes",
        "encoding keyframes", "restoring", "writing the frames", "reading segment", "writing the film",
        "how far the edit reached",
    ]  # fmt: skip
    assert [row for row in heard if row[2] != row[3]] == []


def test_flowedit_takes_its_share_of_any_number_of_steps(edit_config: Config) -> None:
    taken = {
        n: make_edit_plan(edit_config(method="flowedit", num_inference_steps=n)).rehearsal.steps
        for n in (1, 2, 20, 50)
    }
    assert taken == {1: 1, 2: 2, 20: 16, 50: 41}
    given = edit_config(method="flowedit", num_inference_steps=20, method_options={"n_max": 7})
    assert make_edit_plan(given).rehearsal.steps == 7


@pytest.mark.parametrize("frames", [1, 2, 6])
def test_any_number_of_frames_comes_out(run_edit: EditRun, inputs: Inputs, frames: int) -> None:
    result = run_edit(num_frames=frames, keyframes=inputs.keyframes(0), num_inference_steps=1)
    assert (result.num_frames, probe(result.video).frames) == (frames, frames)


def test_indices_count_from_start(run_edit: EditRun, inputs: Inputs) -> None:
    result = run_edit(start=4, keyframes=[[str(inputs.images[4]), 0], [str(inputs.images[8]), 4]])
    assert (result.num_frames, result.keyframe_indices) == (5, (0, 4))


def test_a_folder_of_images_is_a_source(run_edit: EditRun, tmp_path: Path) -> None:
    frames = tmp_path / "frames é =1"
    frames.mkdir()
    for i, frame in enumerate(moving_square(5)):
        Image.fromarray(frame).save(frames / f"{i}.png")
    result = run_edit(video=str(frames), keyframes=[[str(frames / "4.png"), 4]], fps=12.0)
    assert (result.num_frames, result.fps) == (5, 12.0)


def test_the_output_may_be_a_video(run_edit: EditRun, tmp_path: Path) -> None:
    result = run_edit(output=str(tmp_path / "films" / "my film.mp4"))
    assert result.video == tmp_path / "films" / "my film.mp4"
    assert {path.name for path in (tmp_path / "films").iterdir()} == {"my film.mp4", "my film.wanedit"}


def said(config: EditConfig) -> list[str]:
    lines: list[str] = []
    edit(config, say=lines.append)
    return lines


def test_every_tenth_step_and_the_last_are_printed(edit_config: Config) -> None:
    lines = said(edit_config(num_inference_steps=22, method_options={"strength": 0.95}))
    steps = [line for line in lines if line.startswith("step ")]
    recorded = events_of(edit_config())
    assert [int(line.split()[1]) for line in steps] == [0, 10, recorded[-1]["step"]]
    assert recorded[-1]["step"] not in (21, 20)
    assert "alpha_h" in steps[0]
    assert "keyframe_error" in steps[0]


def events_of(config: EditConfig) -> list[dict]:
    lines = (config.folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == "step"]


def test_a_gain_that_diverges_is_told_with_what_would_not(edit_config: Config) -> None:
    few = {"controller": "residual", "num_inference_steps": 3, "shift": 5.0}
    plan = make_edit_plan(edit_config(**few))
    (warning,) = [w for w in plan.warnings if "must stay below 2" in w]
    # The last of three steps goes from 5/7 to 0, the one before from 10/11 to 5/7.
    assert "with alpha 10: step 2 of 3 is made by the controller exponential instead" in warning
    assert "alpha times h is 7.14 at step 2" in warning
    plan = make_edit_plan(edit_config(**few, controller_options={"switch": False}))
    assert any("with alpha 10: diverges" in w for w in plan.warnings)
    assert "for 3 steps at shift 5 is 2.8" in warning
    assert "22 steps would do" in warning
    calm = {"controller": "residual", "shift": 5.0}
    # At 21 steps alpha h is 2 at the last one: it swings there and does not settle.
    assert diverging(make_edit_plan(edit_config(**calm, num_inference_steps=21)))
    assert not diverging(make_edit_plan(edit_config(**calm, num_inference_steps=22)))
    assert diverging(make_edit_plan(edit_config(**calm, num_inference_steps=22, beta=1.0)))
    assert not diverging(make_edit_plan(edit_config(**calm, num_inference_steps=3, alpha=2.7)))
    assert not diverging(make_edit_plan(edit_config(num_inference_steps=3)))


def diverging(plan: EditPlan) -> bool:
    return any("must stay below 2" in warning for warning in plan.warnings)


def test_missed_keyframes_bring_advice(edit_config: Config) -> None:
    plan = make_edit_plan(edit_config(controller="residual", alpha=1.0))
    assert advice(0.1, plan) == advice(None, plan) == []
    (line,) = advice(0.25, plan)
    assert "missed by 25%" in line
    assert "raise alpha (stable below 2.67 with these steps)" in line
    (line,) = advice(0.25, make_edit_plan(edit_config(controller="residual")))
    assert "lower alpha (stable below 2.67" in line
    assert "lower guidance_scale" not in line
    (line,) = advice(
        0.25, make_edit_plan(edit_config(method="first_frame", controller="residual", guidance_scale=4.0))
    )
    assert "alpha" not in line
    assert "use residual_corrected, whose controllers tie keyframes in" in line
    assert "lower guidance_scale (now 4)" in line
    (line,) = advice(
        0.25, make_edit_plan(edit_config(method="flowedit", controller="residual", guidance_scale=1.0))
    )
    assert "lower method_options.guidance_scale (now 12)" in line
    (line,) = advice(0.25, make_edit_plan(edit_config(controller="covariance", restore="keyframes")))
    assert (
        "residual of the last step, before they were restored): raise controller_options.iterations (now 2)"
        in line
    )
    assert any(line.startswith("the keyframes were missed by") for line in said(edit_config(alpha=0.0)))


def test_divergence_leaves_its_steps_on_record(edit_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    original = GuidedVelocity.__call__
    calls = iter(range(100))

    def poisoned(self, x, step):
        return original(self, x, step) * (float("nan") if next(calls) == 2 else 1)

    monkeypatch.setattr(GuidedVelocity, "__call__", poisoned)
    with pytest.raises(NumericalError, match=r"clip 0, rank 0.*step 1"):
        edit(edit_config(), verbose=False)
    assert [line["step"] for line in events_of(edit_config())] == [0]
    assert not list(Path(edit_config().output).glob("segments/*.mkv"))
    monkeypatch.setattr(GuidedVelocity, "__call__", original)
    assert edit(edit_config(), verbose=False).edited


@pytest.mark.parametrize("named", ["source", "keyframe", "link"])
def test_an_input_is_never_written_over(
    run_edit: EditRun, inputs: Inputs, tmp_path: Path, no_weights, named: str
) -> None:
    victim = tmp_path / "victim.mp4"
    victim.write_bytes(inputs.video.read_bytes())
    output, video, keyframes = victim, str(victim), inputs.keyframes(0)
    if named == "link":
        output = tmp_path / "link.mp4"
        output.symlink_to(victim)
    elif named == "keyframe":
        # A picture under the name of a video, which its content decides.
        output = tmp_path / "picture.mp4"
        output.write_bytes(inputs.images[0].read_bytes())
        keyframes = [[str(output), 0]]
    before = output.read_bytes()
    with pytest.raises(InputError, match="is also an input; expected another output"):
        run_edit(video=video, keyframes=keyframes, output=str(output))
    assert output.read_bytes() == before


def test_a_keyframe_that_has_the_name_of_a_record_is_not_written_over(
    run_edit: EditRun, inputs: Inputs, tmp_path: Path, no_weights
) -> None:
    keyframe = tmp_path / "out" / "contact_sheet.png"
    keyframe.parent.mkdir()
    keyframe.write_bytes(inputs.images[0].read_bytes())
    with pytest.raises(InputError, match=r"contact_sheet.png is also an input"):
        run_edit(keyframes=[[str(keyframe), 0]], output=str(tmp_path / "out"))


@pytest.mark.parametrize("below", ["", "run", "film.mp4"])
def test_a_folder_of_source_images_stays_one(
    run_edit: EditRun, inputs: Inputs, tmp_path: Path, no_weights, below
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for k, frame in enumerate(moving_square(5)):
        Image.fromarray(frame).save(folder / f"{k:04}.png")
    with pytest.raises(InputError, match="lies in the source's folder, which holds images only"):
        run_edit(video=str(folder), keyframes=inputs.keyframes(0), output=str(folder / below))
    assert len(list(folder.iterdir())) == 5


@pytest.mark.slow
def test_ranks_of_torchrun_make_one_edit(inputs: Inputs, tmp_path: Path) -> None:
    words = [*edit_command(inputs, tmp_path / "ranks")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "wanedit"]
    process = start_process([*launcher, *words])
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output + errors
    assert output.count("keyframes at [0, 8]") == 2  # before and after, of one rank
    alone = run_cli(*edit_command(inputs, tmp_path / "alone"))
    assert alone.code == 0, alone.err
    shared, own = (read_frames(next((tmp_path / name).glob("*.mp4"))) for name in ("ranks", "alone"))
    assert np.array_equal(shared, own)


def test_a_journal_is_json_whatever_is_measured(tmp_path: Path) -> None:
    append_event(tmp_path / "m.jsonl", {"a": [float("inf"), 1.5], "b": {"c": float("nan")}, "d": -1e400})
    line = json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail)
    assert line == {"a": ["inf", 1.5], "b": {"c": "nan"}, "d": "-inf"}


@pytest.mark.fault(32)
def test_two_runs_cannot_share_a_folder(run_edit: EditRun, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "out", tmp_path / "out" / "output_final.mp4")
    with directory.lock(), pytest.raises(ResourceError, match="in use by process"):
        run_edit(method="copy_source", controller="residual")


def test_a_full_disk_is_seen_first(run_edit: EditRun, monkeypatch: pytest.MonkeyPatch, no_weights) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ResourceError, match="MB needed"):
        run_edit()


def test_an_edit_and_a_generation_do_not_share_a_folder(run: Run, run_edit: EditRun, tmp_path: Path) -> None:
    run_edit(method="copy_source", controller="residual")
    with pytest.raises(InputError, match="holds a run of the job edit"):
        run()
    (tmp_path / "out" / "config.yaml").unlink()
    run(num_inference_steps=1)
    with pytest.raises(InputError, match="holds a run of the job generate"):
        run_edit()


def test_size_is_the_shape_of_the_source(run_edit: EditRun, tmp_path: Path) -> None:
    wide = np.repeat(moving_square(5), 3, axis=2)
    write_lossless(tmp_path / "wide.mkv", np.ascontiguousarray(wide), 16)
    Image.fromarray(wide[0]).save(tmp_path / "first.png")
    result = run_edit(
        video=str(tmp_path / "wide.mkv"), keyframes=[[str(tmp_path / "first.png"), 0]], size=None,
        method="copy_source", controller="residual",
    )  # fmt: skip
    assert result.frames.shape == (5, 32, 96, 3)
    assert EDIT["size"] == "32*32"
