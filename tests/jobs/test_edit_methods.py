"""A method from outside the package: one file, named on the command line; its results are kept by all that it reads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.runs import EditRun
from wanedit import EditConfig
from wanedit.errors import InputError
from wanedit.jobs.edit.plan import make_edit_plan

HEAD = """
from dataclasses import dataclass, replace
from typing import ClassVar
from wanedit.flow.editing import Edit, Edited, Method
from wanedit.flow.keyframes import Controller, Correction
from wanedit.flow.path import interpolate

@dataclass(frozen=True)
class Mine(Method):
    share: float = 0.5
    seed: int = 0
"""
CALL = """
    def __call__(self, model, edit, schedule, observe=None):
        source = model.velocity(edit.reference, edit.num_slots)
        step = list(schedule)[0]
        z = interpolate(edit.source, edit.noise, step.sigma)
        if observe:
            observe(step, {})
        return Edited(latents=self.share * edit.source + (1 - self.share) * (z - step.sigma * source(z, step)))
"""
Config = Callable[..., EditConfig]
Write = Callable[..., dict[str, object]]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module of the user's, in the folder that the program is run in; returns the settings that name it."""
    monkeypatch.chdir(tmp_path)

    def write(body: str = CALL, name: str = "Mine") -> dict[str, object]:
        number = len(list(tmp_path.glob("mine_*.py")))
        module = f"mine_{tmp_path.name.replace('-', '_')}_{number}"
        (tmp_path / f"{module}.py").write_text(HEAD + body)
        return {"method": f"{module}:{name}"}

    return write


def test_what_a_method_does_not_declare_decides(written: Write, run_edit: EditRun) -> None:
    """The prompt of the source used to be left out of the name of every result but those of four known classes."""
    mine = written()
    first = run_edit(**mine, source_prompt="a stone")
    assert first.edited
    assert not run_edit(**mine, source_prompt="a stone").edited
    second = run_edit(**mine, source_prompt="a cloud over the sea")
    assert second.edited
    assert second.digest != first.digest
    assert run_edit(**mine, source_prompt="a stone", method_options={"share": 0.25}).digest != first.digest


def test_a_change_of_its_file_edits_anew(written: Write, edit_config: Config) -> None:
    digests = set()
    for change in ("", "    # a comment\n"):
        plan = make_edit_plan(edit_config(**written(CALL + change)))
        digests.add(plan.task.digest)
    assert len(digests) == 2


def test_what_it_declares_is_left_out_and_told(written: Write, edit_config: Config) -> None:
    ignoring = """
    @property
    def ignores(self):
        return frozenset({"reference"})
"""
    settings = written(ignoring + CALL.replace("edit.reference", "edit.target"))
    plans = [make_edit_plan(edit_config(**settings, source_prompt=text)) for text in ("a stone", "a cloud")]
    assert plans[0].task.digest == plans[1].task.digest
    assert any("source_prompt a stone is not used" in warning for warning in plans[0].warnings)


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ("reference", CALL),
        ("images", CALL.replace("edit.reference", "edit.target")),
        ("model", CALL),
        ("edited", CALL.replace("self.share * edit.source", "self.share * edit.source + edit.edited.mean()")),
    ],
)
def test_a_method_that_reads_what_it_says_that_it_ignores_is_refused(
    written: Write, edit_config: Config, no_weights: None, parts: str, body: str
) -> None:
    ignoring = f"""
    @property
    def ignores(self):
        return frozenset({{{parts!r}}})
"""
    with pytest.raises(InputError, match=f"Mine says that it ignores {parts} and reads it"):
        make_edit_plan(edit_config(**written(ignoring + body)))


def test_pixels_are_declared_and_never_restored(
    written: Write, run_edit: EditRun, edit_config: Config
) -> None:
    """A method of pixels that no table knew lost `restore` in silence."""
    pixels = """
    def __call__(self, model, edit, schedule, observe=None):
        return Edited(pixels=-edit.video)
"""
    with pytest.raises(InputError, match="Mine returns pixels without makes_pixels"):
        make_edit_plan(edit_config(**written(pixels)))
    settings = written("    makes_pixels: ClassVar[bool] = True\n" + pixels)
    with pytest.raises(InputError, match=r"output_size is source, but .*:Mine makes pixels"):
        make_edit_plan(edit_config(**settings, output_size="source"))
    plan = make_edit_plan(edit_config(**settings, restore="source"))
    assert any(
        "restore source is not used" in warning and "makes pixels" in warning for warning in plan.warnings
    )
    assert plan.config.restore == "none"
    made = run_edit(**settings).frames
    assert np.abs(made.astype(int) - (255 - plan.task.frames.astype(int))).max() <= 1


def test_a_method_that_makes_nothing_is_refused(
    written: Write, edit_config: Config, no_weights: None
) -> None:
    nothing = """
    def __call__(self, model, edit, schedule, observe=None):
        return Edited()
"""
    with pytest.raises(InputError, match="Mine returns neither latents nor pixels"):
        make_edit_plan(edit_config(**written(nothing)))


def test_a_controller_from_outside(written: Write, run_edit: EditRun) -> None:
    controller = (
        CALL
        + """

@dataclass(frozen=True)
class Gentle(Controller):
    alpha: float = 1.0
    floor: float = 0.0

    def __call__(self, state):
        main = 0 * state.v
        main[:, :, list(state.slots)] = self.alpha * state.residual
        return Correction(main, None, self.alpha)
"""
    )
    module = str(written(controller)["method"]).partition(":")[0]
    settings = {"controller": f"{module}:Gentle", "alpha": 2.0}
    first = run_edit(**settings)
    assert first.edited
    assert not run_edit(**settings).edited
    assert run_edit(**settings, controller_options={"floor": 0.5}).edited
    assert run_edit(**settings | {"alpha": 3.0}).edited


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "json:loads"}, "expected a class made from wanedit.flow.editing.Method"),
        ({"method": "nowhere_at_all:Mine"}, "method nowhere_at_all:Mine: No module named"),
        ({"controller": "json:loads"}, "expected a class made from wanedit.flow.keyframes.Controller"),
    ],
)
def test_what_is_no_method_is_refused(
    edit_config: Config, no_weights: None, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        make_edit_plan(edit_config(**changes))


# Computed at commit 7b96d1b, before the house was rebuilt: an edit made then is complete, not made anew.
GOLDEN = {
    "residual_corrected": "4b204dd56df8cea3cfd8077024466dfcf9a67969f8ad648497cbafb9615b2d85",
    "sdedit": "ddf9175b6917d12cc274a195da9e0d6da19ef8336228e4a2620966a7f43c5b8b",
    "flf2v": "fcd04c338c6132ccf324d285c2e24c95142b06a61bcedbce66dd1ea46263cc8f",
    "flowedit": "8b52becf1180d52dd45fac915f1023bedc5096b1f87f6a609510eae414b2a173",
    "warp": "a369749a18556706f3d20e106f3ae045beb4f7556df3103ee8473d0c3df1794e",
}


@pytest.mark.parametrize("method", GOLDEN)
def test_edits_keep_their_names(edit_config: Config, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    # The model's files and the machine are taken out: wan-tiny may be trained on.
    monkeypatch.setattr("wanedit.jobs.edit.plan.hash_files", lambda folder, say: {"a": "b"})
    monkeypatch.setattr("wanedit.jobs.edit.plan.compute_kind", lambda: "cpu torch.float32")
    settings = {
        "size": "32*32",
        "base_seed": 7,
        "num_inference_steps": 4,
        "shift": 3.0,
        "negative_prompt": "grey",
    }
    given = {**settings, "guidance_scale": 2.0, "source_prompt": "a red square", "method": method}
    # At four steps alpha h is 5 at the last one: the residual controller of then knew no switch.
    then = {"controller_options": {"switch": False}} if method == "residual_corrected" else {}
    plan = make_edit_plan(edit_config(**given, **then, controller="residual"))
    assert plan.task.digest == GOLDEN[method]


def test_a_residual_controller_that_switches_is_named_anew_and_only_then(edit_config: Config) -> None:
    def digest(steps: int, **options) -> str:
        given = {"controller": "residual", "num_inference_steps": steps, "shift": 3.0}
        return make_edit_plan(edit_config(**given, controller_options=options)).task.digest

    assert digest(30) == digest(30, switch=False) != digest(4) != digest(4, switch=False)
