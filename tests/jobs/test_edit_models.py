"""A video model that is no Wan: named on the command line and to the pipeline, edited with like any other."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.runs import EditRun, Inputs, edit_command, run_cli
from wanedit import EditConfig, WanVideoEditorPipeline, cli, edit
from wanedit.errors import InputError
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.runtime.record import read_run
from wanedit.video import probe

MODEL = """
import torch
from wanedit.wan.catalog import Sampling

class Mosaic:
    # Latents are means over 4 frames and 8x8 pixels; the data are all one picture, so the velocity is known.
    sampling = Sampling(4, shift=2.0, guidance_scale=1.0, max_frames=17, size="64*64", negative_prompt="")

    def __init__(self):
        self.evaluations = 0

    def encode(self, video):
        small = video[..., ::8, ::8]
        later = small[:, :, 1:]
        slots = later.unflatten(2, (later.shape[2] // 4, 4)).mean(3)
        return torch.cat([small[:, :, :1], slots], dim=2)

    def decode(self, latents):
        frames = torch.cat([latents[:, :, :1], latents[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)
        return frames.repeat_interleave(8, dim=3).repeat_interleave(8, dim=4).clamp(-1, 1)

    def velocity(self, view, slots):
        def v(x, step):
            self.evaluations += 1
            return x / step.sigma if step.sigma else 0 * x
        return v
"""
Config = Callable[..., EditConfig]


class Model:
    """All that the class of a video model shows before it is made."""

    def velocity(self, view: object, slots: int) -> None: ...
    def encode(self, video: object) -> None: ...
    def decode(self, latents: object) -> None: ...


@pytest.fixture
def mosaic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder, and its name."""
    name = f"mosaic_{tmp_path.name.replace('-', '_')}"
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.py").write_text(MODEL)
    return f"{name}:Mosaic"


def test_an_edit_with_a_model_from_outside(mosaic: str, run_edit: EditRun, no_weights: None) -> None:
    settings = {"model": mosaic, "restore": "none", "controller": "replacement", "num_inference_steps": 4}
    first = run_edit(**settings)
    assert first.edited
    assert first.frames.shape == (9, 32, 32, 3)
    # The keyframes are where they were put: blue instead of red.
    assert first.frames[0, 12, 8, 2] > 200 > 100 > first.frames[0, 12, 8, 0]
    again = run_edit(**settings)
    assert not again.edited
    assert np.array_equal(again.frames, first.frames)


def test_its_settings_are_its_own_and_its_file_decides(
    mosaic: str, edit_config: Config, tmp_path: Path
) -> None:
    plan = make_edit_plan(edit_config(model=mosaic))
    assert (plan.settings.shift, plan.model.name) == (2.0, mosaic)
    path = tmp_path / f"{mosaic.partition(':')[0]}.py"
    path.write_text(MODEL.replace(".mean(3)", ".amax(3)"))
    assert make_edit_plan(edit_config(model=mosaic)).task.digest != plan.task.digest
    path.write_text(MODEL.replace("max_frames=17", "max_frames=5"))
    with pytest.raises(InputError, match="is good for 5"):
        make_edit_plan(edit_config(model=mosaic, long_source="error"))


def test_what_only_a_wan_is_told_is_noted(mosaic: str, edit_config: Config) -> None:
    plan = make_edit_plan(edit_config(model=mosaic, tile=64, t5_cpu=True, negative_prompt="ugly"))
    for told in ("tile 64", "t5_cpu True", "negative_prompt ugly"):
        assert any(f"{told} is not used: {mosaic}" in warning for warning in plan.warnings)
    assert not any("is not used" in text for text in make_edit_plan(edit_config(model=mosaic)).warnings)


def test_a_run_is_read_from_another_folder(
    mosaic: str, run_edit: EditRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name stays a name on record, and the folder of its module stands beside it."""
    made = run_edit(model=mosaic, restore="none", controller="replacement")
    record = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (record["model"], record["module_folders"]) == (mosaic, [str(tmp_path)])
    carried = json.loads(probe(made.video).metadata["wanedit_config"])
    assert carried["module_folders"] == []
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path)])
    monkeypatch.delitem(sys.modules, mosaic.partition(":")[0])
    with pytest.raises(InputError, match=r"No module named .* from the current folder or module_folders"):
        make_edit_plan(EditConfig(**record | {"module_folders": []}))
    assert np.array_equal(read_run(tmp_path / "out").video, made.frames)
    done = run_cli("edit", "--config", str(tmp_path / "out" / "config.yaml"), "--dry_run")
    assert (done.code, "skips: complete" in done.out) == (0, True)


def test_on_the_command_line_and_in_the_pipeline(
    mosaic: str, inputs: Inputs, tmp_path: Path, no_weights: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = edit_command(inputs, tmp_path / "out", "--model", mosaic)
    assert cli.main([*command, "--dry_run"]) == 0
    assert mosaic in capsys.readouterr().out
    assert cli.main([*command, "--quiet"]) == 0
    pipeline = WanVideoEditorPipeline.from_pretrained(
        mosaic, size="32*32", cfg_scale=1.0, num_inference_steps=2
    )
    frames = pipeline("a blue square", inputs.video, [inputs.images[0]], [0], seed=7)
    assert len(frames) == 9


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere_at_all:Model", "No module named"),
        ("no_such_model", "neither a file, a folder nor a known model"),
        ("math:pi", "expected something that is called"),
        ("builtins:dict", "is a class without velocity, encode, decode"),
        ("tests.jobs.test_edit_models:Model", "Model without evaluations; expected"),
    ],
)
def test_a_name_of_none_is_refused(edit_config: Config, no_weights: None, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        # Some are known only once they are made, which a plan does not do.
        edit(edit_config(model=name), verbose=False)
