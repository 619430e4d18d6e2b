"""Models of few steps: noise levels, experts and guidance that a run is told or takes from the names of its files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.runs import EditRun, Run, run_cli
from tests.wan import folders, small
from tests.wan.test_lora import factors, write
from wanedit import GenerationConfig
from wanedit.errors import InputError
from wanedit.files import digest
from wanedit.flow.path import Step, rcm_levels, schedule
from wanedit.jobs.edit.config import EditConfig
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.generate.plan import Plan, make_plan
from wanedit.lit.velocity import GuidedVelocity
from wanedit.wan.catalog import Sampling
from wanedit.wan.config import ChosenLora
from wanedit.wan.distilled import DISTILLED, find_distilled
from wanedit.wan.load import load_transformer, open_wan, phases

PRESETS = Path(__file__).parents[2] / "configs" / "models"
OF_FEW_STEPS = sorted(path.stem for path in PRESETS.glob("*.yaml") if "distilled:" in path.read_text())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random models: one, and two experts."""
    root = tmp_path_factory.mktemp("models")
    folders.write_folder(root / "one")
    folders.write_experts(root / "two")
    return root


@pytest.fixture
def planned(keyframes: list[list[Any]], models: Path, tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a generation with the experts, or another model."""

    def plan(**changes: Any) -> Plan:
        settings = {
            "keyframes": keyframes[:2],
            "size": "32*32",
            "base_seed": 7,
            "ckpt_dir": str(models / "two"),
        }
        return make_plan(GenerationConfig(output=str(tmp_path / "out"), **settings | changes))

    return plan


def lora_for(model: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {name: tuple(t.shape) for name, t in load_file(next(model.rglob("*.safetensors"))).items()}
    return write(path, factors(shapes, ["blocks.0.self_attn.q", "blocks.1.ffn.0"]))


def latents(result: Any) -> list[torch.Tensor]:
    files = sorted(Path(result.video).parent.rglob("*latents*.safetensors")) or sorted(
        Path(result.video).parent.rglob("*.safetensors")
    )
    assert files
    return [load_file(file)["latents"] for file in files]


def test_levels_equal_to_the_schedules_own_give_the_same_bytes(run: Run, finished: Any) -> None:
    own = schedule(2, open_wan("tiny").sampling.shift, "unipc").sigmas[:-1]
    listed = run(noise_levels=list(own), num_inference_steps=None, save_latents=True)
    for a, b in zip(latents(listed), latents(finished), strict=True):
        assert torch.equal(a, b)
    assert listed.segments != finished.segments


def test_a_renoised_run_resumes_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    """Its noise is the segment's own, whoever samples it and after what."""
    settings = {"solver": "renoise", "noise_levels": "rcm:200", "save_latents": True}
    whole = run(**settings)
    kept = latents(whole)
    for file in (tmp_path / "out" / "segments").glob("segment_001*"):
        file.unlink()
    again = run(**settings)
    assert again.sampled == (1,)
    assert all(torch.equal(a, b) for a, b in zip(kept, latents(again), strict=True))
    # Another seed, another noise on the way: not only the start differs.
    assert run(**settings, base_seed=8, output=str(tmp_path / "other")).segments != whole.segments


def test_an_edit_takes_listed_levels_and_its_doubts_are_about_them(
    edit_config: Callable[..., EditConfig], run_edit: EditRun
) -> None:
    levels = {"noise_levels": [1.0, 0.9, 0.6, 0.2], "num_inference_steps": None}
    plan = make_edit_plan(edit_config(**levels, controller="residual"))
    assert plan.settings.schedule.sigmas == pytest.approx((1, 0.9, 0.6, 0.2, 0))
    assert any("stable alpha for these noise levels is 5;" in note for note in plan.warnings)
    stable = make_edit_plan(edit_config(**levels, controller="residual", alpha=4.9))
    assert not any("stable" in note for note in stable.warnings)
    assert not any("stable" in note for note in make_edit_plan(edit_config(**levels)).warnings)
    made = run_edit(**levels, method="sdedit", method_options={"solver": "renoise"})
    assert made.num_frames == 9


@pytest.mark.parametrize(
    ("given", "levels"),
    [
        ("1,0.9375,0.8333,0.625", [1, 0.9375, 0.8333, 0.625]),
        ("[1.0, 0.5]", [1, 0.5]),
        ("rcm:80", list(rcm_levels(80.0))),
        ([0.75], [0.75]),
    ],
)
def test_levels_may_be_given_in_several_ways(planned, given: object, levels: list[float]) -> None:
    plan = planned(noise_levels=given)
    assert plan.config.noise_levels == pytest.approx(levels)
    assert plan.settings.schedule.sigmas[:-1] == pytest.approx(levels)
    assert plan.evaluations == 2 * len(levels)
    # What a run records makes the same run.
    assert make_plan(plan.config).tasks[0].digest == plan.tasks[0].digest


def test_a_shift_beside_levels_is_told_and_fewer_steps_take_the_first(planned) -> None:
    plan = planned(noise_levels=[1.0, 0.9, 0.5], shift=8.0, num_inference_steps=2)
    assert plan.settings.schedule.sigmas == pytest.approx((1, 0.9, 0))
    assert "shift 8 is not used: noise_levels are those after any shift" in plan.warnings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"noise_levels": [0.5, 0.9]}, r"noise_levels\[1\] is 0.9 after 0.5; expected falling ones"),
        ({"noise_levels": "1000,750"}, r"noise_levels\[0\] is 1000; .*1 for the timestep 1000"),
        ({"noise_levels": "fast"}, r"noise_levels is 'fast'; expected a list of numbers"),
        ({"noise_levels": "rcm:"}, "noise_levels is 'rcm:'; expected"),
        ({"noise_levels": [1.0], "num_inference_steps": 3}, "num_inference_steps is 3 and there are 1"),
        ({"boundary": 1.5}, "boundary is 1.5; expected"),
        ({"boundary": 0.8, "boundary_step_index": 2}, "expected one of them"),
        ({"boundary_step_index": 4, "num_inference_steps": 4}, "boundary_step_index is 4 of 4 steps"),
        ({"distilled": "lightx"}, "distilled is 'lightx'; expected auto, none or one of .*'lightx2v'"),
        ({"solver": "lcm"}, "solver is 'lcm'; expected one of"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_mistakes_are_told_before_a_weight_is_read(planned, settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        planned(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"boundary": 0.8}, "boundary is given and one has no two experts"),
        ({"boundary_step_index": 1}, "boundary_step_index is given and one has no two experts"),
        ({"guidance_scale_low": 1.0}, "guidance_scale_low is 1 and one is one network"),
    ],
)
def test_a_model_of_one_network_switches_nothing(planned, models: Path, settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        planned(ckpt_dir=str(models / "one"), **settings)


def test_experts_switch_by_level_or_after_a_step(planned) -> None:
    """At shift 16 the four timesteps are 1000, 979.6, 941.2 and 842.1 (field: a step index, not a noise level)."""
    settings = {"num_inference_steps": 4, "shift": 16.0, "solver": "euler", "guidance_scale": 1.0}
    by_step = planned(**settings, boundary_step_index=2)
    assert by_step.settings.boundary_timestep == pytest.approx(979.6, abs=0.05)
    assert planned(**settings, boundary=0.876).settings.boundary_timestep == pytest.approx(876)
    assert planned(**settings).settings.boundary_timestep is None
    names = {
        planned(**settings, **one).tasks[0].digest for one in ({}, {"boundary": 0.876}, {"boundary": 0.8})
    }
    assert len(names) == 3
    idle = planned(**settings, boundary=0.5).warnings
    assert any("network 2 of 2 of two is asked at no step: they hand over at 0.5" in note for note in idle)


def test_guidance_of_each_expert(models: Path, planned) -> None:
    """Four steps, two for either expert: guided twice, then bare. And the velocities are those by hand."""
    plan = planned(
        num_inference_steps=4,
        shift=5.0,
        solver="euler",
        guidance_scale=4.0,
        guidance_scale_low=1.0,
        boundary=0.9,
    )
    assert plan.evaluations == 2 + 2 + 1 + 1
    assert "guidance 4, then 1" in plan.settings.words
    pair = load_transformer(models / "two", boundary_timestep=900.0)
    high, low = (small.transformer("i2v", seed, image_tokens=False) for seed in (0, 1))
    values = small.inputs(high)
    x, text, rest = values["latents"], values["text"], (None, values["condition"])
    guided = GuidedVelocity(pair, small.GRID, text, -text, *rest, 4.0, guidance_scale_low=1.0)
    early, late = torch.tensor([950.0]), torch.tensor([500.0])
    bare = high(x, early, -text, *rest)
    expected = bare + 4 * (high(x, early, text, *rest) - bare)
    assert torch.allclose(guided(x, Step(0, 0.95, 0.5, 950.0)), expected, atol=1e-4)
    assert torch.allclose(guided(x, Step(1, 0.5, 0.0, 500.0)), low(x, late, text, *rest), atol=1e-4)
    assert guided.evaluations == 3
    with pytest.raises(InputError, match="guidance_scale_low is 1 for a model of one transformer"):
        GuidedVelocity(high, small.GRID, text, -text, *rest, 4.0, guidance_scale_low=1.0)


def test_a_lora_may_come_in_below_a_noise_level(models: Path, tmp_path: Path) -> None:
    lora = lora_for(models / "two", tmp_path / "style.safetensors")
    bare = load_transformer(open_wan(models / "two"))
    merged = load_transformer(open_wan(models / "two", loras=[ChosenLora(lora, 0.5)]))
    folder = open_wan(models / "two", loras=[ChosenLora(lora, 0.5, "", 0.985)])
    assert [(part.name, len(part.loras), edge) for part, edge in phases(folder)] == [
        ("transformer", 0, pytest.approx(985)),
        ("transformer", 1, 900),
        ("low-noise transformer", 1, 0),
    ]
    three = load_transformer(folder)
    values = small.inputs(small.transformer("i2v", 0, image_tokens=False))
    for timestep, same in ((990.0, bare), (985.0, bare), (984.0, merged), (900.0, merged), (100.0, merged)):
        values["timestep"] = torch.tensor([timestep])
        assert torch.equal(three(**values), same(**values)), timestep
    # Of an expert that never works above that level nothing comes twice.
    low = open_wan(models / "two", loras=[ChosenLora(lora, 0.5, "low", 0.95)])
    assert [len(part.loras) for part, _ in phases(low)] == [0, 1]
    style = lora_for(models / "one", tmp_path / "one.safetensors")
    one = open_wan(models / "one", loras=[ChosenLora(style, 1.0, "", 0.9)])
    assert one.handovers(None) == (900,)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.safetensors:0.8:high:0.985", ("a.safetensors", 0.8, "high", 0.985)),
        ("a.safetensors:0.8:0.985", ("a.safetensors", 0.8, "", 0.985)),
        ("a.safetensors:0.8:low", ("a.safetensors", 0.8, "low", 1.0)),
        ("a:b.safetensors", ("a:b.safetensors", 1.0, "", 1.0)),
    ],
)
def test_a_lora_says_below_which_level(text: str, parts: tuple) -> None:
    chosen = ChosenLora.of(text)
    assert (str(chosen.path), chosen.strength, chosen.expert, chosen.below) == parts
    assert ChosenLora.of(str(chosen)) == chosen == ChosenLora.of([*parts])
    with pytest.raises(InputError, match="expected a noise level"):
        ChosenLora.of([parts[0], 1.0, "", 2.0])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("wan2.2_i2v_A14b_high_noise_lightx2v_4step.safetensors", "lightx2v"),
        ("wan2.2_i2v_A14b_high_noise_scaled_fp8_e4m3_lightx2v_4step_1030.safetensors", "lightx2v"),
        ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors", "lightx2v"),
        ("Wan21_I2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors", "lightx2v"),
        ("Wan2.2-Lightning_I2V-A14B-4steps-lora_HIGH_fp16.safetensors", "lightning"),
        ("Wan21_CausVid_14B_T2V_lora_rank32_v2.safetensors", "causvid"),
        ("Wan2.1_I2V_14B_FusionX_LoRA.safetensors", "fusionx"),
        ("rCM_Wan2.1_T2V_1.3B_480p.pt", "rcm_t2v"),
        ("TurboWan2.2-I2V-A14B-high-720P.pth", "rcm"),
        ("wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors", None),
        ("lightx2v_fp8_e4m3.safetensors", None),
        ("forcmd.safetensors", None),
    ],
)
def test_names_of_files_tell(name: str, found: str | None) -> None:
    made = find_distilled("auto", [Path("models") / name])
    assert (made and made.name) == found
    assert find_distilled("none", [Path("models") / name]) is None


def test_a_name_decides_unless_a_setting_does(planned, models: Path, tmp_path: Path) -> None:
    lora = lora_for(
        models / "two", tmp_path / "loras" / "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"
    )
    plan = planned(lora=[f"{lora}:1:high"])
    settings = plan.settings
    assert (settings.num_inference_steps, settings.shift, settings.guidance_scale) == (4, 5.0, 1.0)
    assert (settings.solver, settings.boundary_timestep) == ("euler", pytest.approx(937.5))
    (note,) = [note for note in plan.warnings if "says lightx2v by its name" in note]
    for word in (lora.name, "--distilled none", "github.com/ModelTC/LightX2V"):
        assert word in note
    mine = planned(
        lora=[f"{lora}:1:high"], num_inference_steps=6, guidance_scale=2.0, solver="heun", boundary=0.8
    )
    assert (mine.settings.num_inference_steps, mine.settings.guidance_scale) == (6, 2.0)
    assert (mine.settings.solver, mine.settings.boundary_timestep) == ("heun", 800)
    base = planned(lora=[f"{lora}:1:high"], distilled="none")
    assert base.settings.num_inference_steps == open_wan(models / "two").sampling.num_inference_steps
    assert (base.settings.solver, base.settings.guidance_scale_low) == ("unipc", None)
    assert not any("by its name" in note for note in base.warnings)
    for steps, switch in ((2, 1), (8, 4), (1, None)):
        halved = planned(lora=[f"{lora}:1:high"], num_inference_steps=steps)
        assert halved.config.boundary_step_index == switch
    # At strength 0 it decides nothing.
    assert planned(lora=[f"{lora}:0:high"]).settings.solver == "unipc"
    named = planned(distilled="rcm")
    assert named.settings.solver == "renoise"
    assert named.settings.noise_levels == pytest.approx(rcm_levels(200.0), abs=1e-6)


def test_what_a_base_model_was_made_for_is_not_left_over() -> None:
    base = Sampling(guidance_scale=4.0, guidance_scale_low=3.0, boundary=0.875)
    made = {one.name: one.over(base, several=True) for one in DISTILLED}
    assert all((own.guidance_scale, own.guidance_scale_low) == (1.0, None) for own in made.values())
    assert (made["lightning"].boundary, made["causvid"].boundary) == (0.876, 0.875)


@pytest.mark.parametrize("stem", OF_FEW_STEPS)
def test_a_preset_runs_on_models_of_its_kind(
    stem: str, models: Path, keyframes: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the names that it expects, planned without a weight, and sampled: two experts or one, random weights."""
    preset = yaml.safe_load((PRESETS / f"{stem}.yaml").read_text())
    model = models / ("two" if "A14B" in preset["model"] else "one")
    monkeypatch.setenv("WANEDIT_MODELS", str(tmp_path))
    for entry in preset.get("lora", []):
        lora_for(model, tmp_path / "loras" / entry.split(":")[0])
    known = {one.name: one for one in DISTILLED}.get(preset["distilled"])
    if known is not None:
        told = dict(known.settings | (known.of_two if model.name == "two" else {}))
        if stem == "lightx2v-flf2v-4step":
            told["shift"] = 16.0  # of first and last frames
        levels = GenerationConfig(noise_levels=preset.get("noise_levels")).listed
        assert (levels or ()) == pytest.approx(told.pop("noise_levels", ()), abs=1e-6)
        assert {name: preset.get(name, told[name]) for name in told} == told
    pairs = ",".join(f"{path}:{seconds}" for path, seconds in keyframes[:2])
    flags = ["--keyframes", pairs, "--size", "32*32", "--base_seed", "7", "--output", str(tmp_path / "out")]
    words = ["generate", "--config", str(PRESETS / f"{stem}.yaml"), "--ckpt_dir", str(model), *flags]
    dry = run_cli(*words, "--dry_run")
    assert dry.code == 0, dry.err
    assert f"{preset['solver']}, {preset['num_inference_steps']} steps" in dry.out
    done = run_cli(*words)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "output_final.mp4").is_file()


def test_what_is_not_set_is_no_part_of_a_name(
    planned, edit_config: Callable[..., EditConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments and edits of before keep their names; those that take a listed level, a switch or a guidance do not."""
    hashed: list[dict[str, Any]] = []

    def recorded(values: dict[str, Any]) -> str:
        hashed.append(values)
        return digest(values)

    monkeypatch.setattr("wanedit.jobs.generate.plan.digest", recorded)
    monkeypatch.setattr("wanedit.jobs.edit.plan.digest", recorded)
    tile = {"num_inference_steps", "shift", "guidance_scale", "solver", "tile"}
    planned()
    assert hashed[-1]["sampler"].keys() == tile
    planned(boundary=0.9, guidance_scale_low=2.0, noise_levels=[1.0, 0.5])
    later = {"noise_levels", "boundary_timestep", "guidance_scale_low"}
    assert hashed[-1]["sampler"].keys() == tile | later
    make_edit_plan(edit_config())
    assert not hashed[-1]["settings"].keys() & {*later, "boundary", "boundary_step_index", "distilled"}
    make_edit_plan(edit_config(noise_levels=[1.0, 0.5]))
    assert hashed[-1]["settings"]["noise_levels"] == [1.0, 0.5]
