"""A method from outside the package: one file, named on the command line; its results are kept by all that it reads."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.runs import EditRun
from wanedit import EditConfig
from wanedit.errors import InputError
from wanedit.files import digest
from wanedit.jobs.edit.plan import make_edit_plan

HEAD = """
from dataclasses import dataclass, replace
from pathlib import Path
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
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of the user's, in the folder that the program is run in; returns the settings that name it."""
    monkeypatch.chdir(tmp_path)

    before = set(sys.modules)

    def write(body: str = CALL, name: str = "Mine", file: str = "") -> dict[str, object]:
        number = len(list(tmp_path.glob("mine_*.py")))
        module = file or f"mine_{tmp_path.name.replace('-', '_')}_{number}"
        (tmp_path / f"{module}.py").write_text(HEAD + body)
        return {"method": f"{module}:{name}"}

    yield write
    # The next test has files of the same names in another folder.
    sys.path[:] = [place for place in sys.path if place != str(tmp_path)]
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


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


def digest_of(config: EditConfig) -> str:
    return make_edit_plan(config).task.digest


def test_a_change_of_its_file_edits_anew(written: Write, run_edit: EditRun) -> None:
    """Of the very file: the name is the same, the code another, also where it has as many letters."""
    mine = written(CALL, file="mine_here")
    first = run_edit(**mine)
    assert not run_edit(**mine).edited
    written(CALL.replace("(1 - self.share)", "(2 - self.share)"), file="mine_here")
    second = run_edit(**mine)
    assert second.edited
    assert not np.array_equal(first.frames, second.frames)


@pytest.mark.parametrize("changed", ["base_of_mine", "gain_of_mine"])
def test_so_does_a_change_of_what_it_is_made_from(
    written: Write, edit_config: Config, tmp_path: Path, changed: str
) -> None:
    """A base class in another file, and a module that this one imports."""
    (tmp_path / "gain_of_mine.py").write_text("GAIN = 1.0\n")
    written(
        "    def gain(self):\n        import gain_of_mine\n        return gain_of_mine.GAIN\n" + CALL,
        file="base_of_mine",
    )
    (tmp_path / "derived_of_mine.py").write_text(
        "import base_of_mine\n\nclass Derived(base_of_mine.Mine):\n    pass\n"
    )
    config = edit_config(method="derived_of_mine:Derived")
    before = digest_of(config)
    assert digest_of(config) == before
    path = tmp_path / f"{changed}.py"
    path.write_text(path.read_text() + "\n# another\n")
    assert digest_of(config) != before


SOLVER = """
def mine(velocity, x, schedule, observe=None):
    for step in schedule:
        x = x - FACTOR * step.h * velocity(x, step)
    return x
"""


def test_so_does_a_change_of_its_solver_and_of_a_file_that_it_names(
    written: Write, edit_config: Config, tmp_path: Path
) -> None:
    solver = tmp_path / "solver_of_mine.py"
    solver.write_text("FACTOR = 1.0" + SOLVER)
    config = edit_config(method="sdedit", method_options={"solver": "solver_of_mine:mine", "strength": 1.0})
    before = digest_of(config)
    solver.write_text("FACTOR = 0.5" + SOLVER)
    assert digest_of(config) != before
    (tmp_path / "mask.txt").write_text("1")
    option = "    mask: Path = Path('none')\n    weights: tuple[float, ...] = (1.0,)\n"
    named = written(option + CALL)
    config = edit_config(**named, method_options={"mask": "mask.txt", "weights": [1.0, 2.0]})
    before = digest_of(config)
    assert make_edit_plan(config).method.weights == (1.0, 2.0)  # pyright: ignore[reportAttributeAccessIssue]
    (tmp_path / "mask.txt").write_text("2")
    assert digest_of(config) != before


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
        # By another door: pictures copied, latents into pixels, a prompt in an own view, latents to be decoded.
        ("images", CALL.replace("edit.reference", "replace(edit.target, images=dict(edit.target.images))")),
        (
            "edited",
            "    makes_pixels = True\n"
            + CALL[: CALL.index("        source")]
            + "        return Edited(pixels=edit.video * edit.edited.mean().nan_to_num().sign())\n",
        ),
        (
            "reference",
            CALL.replace("edit.reference", "replace(edit.target, prompt=edit.reference.prompt + '!')"),
        ),
        (
            "reference",
            CALL.replace(
                "edit.reference", "replace(edit.target, guidance_scale=edit.reference.guidance_scale)"
            ),
        ),
        ("model", CALL[: CALL.index("        source")] + "        return Edited(latents=edit.source)\n"),
        (
            "model",
            "    makes_pixels = True\n"
            + CALL[: CALL.index("        source")]
            + "        return Edited(pixels=edit.video + edit.noise.mean())\n",
        ),
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


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("edit.source", "returns Tensor; expected Edited"),
        ("None", "returns NoneType; expected Edited"),
        (
            "Edited(latents=edit.source[:, :, :1])",
            r"returns latents of \(1, 16, 1, .*expected those of the source",
        ),
        ("Edited(latents=1 / 0)", r"ZeroDivisionError: division by zero \(mine_.*\.py, line 15\)"),
    ],
)
def test_what_a_rehearsal_shows_is_told(
    written: Write, edit_config: Config, no_weights: None, body: str, says: str
) -> None:
    call = "\n    def __call__(self, model, edit, schedule, observe=None):\n"
    settings = written(f"{call}        return {body}\n")
    with pytest.raises(InputError, match=says):
        make_edit_plan(edit_config(**settings))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    restored_by = 'keyframe'\n" + CALL, "is restored_by 'keyframe'; expected one of none, source"),
        ("    makes_pixels = True\n" + CALL, "says makes_pixels and returns latents"),
        (
            "    ignores = frozenset({'referense'})\n" + CALL,
            "ignores 'referense'; expected some of model, ref",
        ),
        ("    ignores = property(lambda self: 1 / 0)\n" + CALL, "ZeroDivisionError: division by zero"),
        ("    def __post_init__(self):\n        raise ValueError('be nice')\n" + CALL, "ValueError: be nice"),
        ("", "lacks __call__; expected what wanedit.flow.editing.Method leaves"),
        ("    def __call__(self, model): ...\n", "has a __call__ that takes .* called with"),
        ("\n\nclass Bare(Method):\n" + CALL, "is no dataclass; expected @dataclass"),
    ],
)
def test_what_a_method_says_wrongly_of_itself_is_refused(
    written: Write, edit_config: Config, no_weights: None, body: str, says: str
) -> None:
    settings = written(body, name="Bare" if "Bare" in body else "Mine")
    with pytest.raises(InputError, match=rf"^(method mine_.*|Mine) {says}" if ":" not in says else says):
        make_edit_plan(edit_config(**settings))


def test_a_seed_that_is_no_field_is_left_alone(written: Write, run_edit: EditRun) -> None:
    settings = written(
        CALL
        + "\n\n@dataclass(frozen=True)\nclass Fixed(Method):\n    seed = property(lambda self: 3)\n"
        + CALL.replace("self.share", "0.5"),
        name="Fixed",
    )
    assert run_edit(**settings).edited


def test_annotations_that_only_a_type_checker_knows(
    edit_config: Config, written: Write, tmp_path: Path
) -> None:
    later = "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
    later += "if TYPE_CHECKING:\n    from fractions import Fraction\n"
    field = "    where: Fraction | None = None\n"
    (tmp_path / "later_of_mine.py").write_text(later + HEAD + field + CALL)
    config = edit_config(method="later_of_mine:Mine", method_options={"share": 0.25})
    assert make_edit_plan(config).method.share == 0.25  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="share is 'a'; expected a number"):
        make_edit_plan(edit_config(method="later_of_mine:Mine", method_options={"share": "a"}))


@pytest.mark.parametrize(
    ("solver", "says"),
    [
        ("math:pi", r"solver math:pi is 3.14.*; expected something that is called"),
        (
            "math:sin",
            r"solver math:sin takes .*; expected to be called with \(velocity, x, schedule, observe\)",
        ),
    ],
)
def test_what_is_no_solver_is_refused(edit_config: Config, no_weights: None, solver: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_edit_plan(edit_config(method="sdedit", method_options={"solver": solver}))


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
    written(controller.replace("self.alpha * state.residual", "self.alpha / 2 * state.residual"), file=module)
    assert run_edit(**settings).edited


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
    monkeypatch.setattr("wanedit.jobs.edit.plan.hash_model", lambda folder, say: {"a": "b"})
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
    # Restoring knew no other way.
    then = (
        {"controller_options": {"switch": False}, "restore": "keyframes"}
        if method == "residual_corrected"
        else {}
    )
    config = edit_config(**given, **then, controller="residual")
    name = make_edit_plan(config).task.digest
    # How restoring carries an edit has changed since, and it alone: those edits are made anew.
    then_carried = lambda decides: digest({k: v for k, v in decides.items() if k != "carried"})  # noqa: E731
    monkeypatch.setattr("wanedit.jobs.edit.plan.digest", then_carried)
    assert make_edit_plan(config).task.digest == GOLDEN[method]
    assert (name == GOLDEN[method]) == (method != "residual_corrected")


def test_a_residual_controller_that_switches_is_named_anew_and_only_then(edit_config: Config) -> None:
    def digest(steps: int, **options) -> str:
        given = {"controller": "residual", "num_inference_steps": steps, "shift": 3.0}
        return make_edit_plan(edit_config(**given, controller_options=options)).task.digest

    assert digest(30) == digest(30, switch=False) != digest(4) != digest(4, switch=False)
