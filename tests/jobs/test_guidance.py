"""Guidance in runs: what names a result, what is counted, what a plan says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Run, command, run_cli
from wanedit import EditConfig, EditResult, GenerationConfig, edit
from wanedit.errors import InputError
from wanedit.flow.guidance import GUIDANCES
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.generate.plan import Plan, make_plan
from wanedit.runtime.events import read_events

STEPS = {"num_inference_steps": 4, "guidance_scale": 2.0}


def plan_of(keyframes: list[Any], **changes: Any) -> Plan:
    return make_plan(GenerationConfig(keyframes=keyframes, size="32*32", base_seed=1, **(STEPS | changes)))


def evaluations(folder: Path, event: str) -> list[int]:
    return [line["evaluations"] for line in read_events(folder / "metrics.jsonl") if line["event"] == event]


def test_guidance_names_what_it_helps_to_make_and_cfg_nothing(keyframes: list[Any]) -> None:
    def names(**changes: Any) -> set[str]:
        return {task.digest for task in plan_of(keyframes, **changes).tasks}

    found = [
        names(),
        *(names(guidance=name) for name in GUIDANCES if name != "cfg"),
        names(guidance="mambo_g", guidance_options={"alpha": 4.0}),
        names(guidance_interval=[0.2, 0.9]),
    ]
    assert len(set.union(*found)) == sum(map(len, found))
    assert names(guidance="cfg", guidance_interval=[0.0, 1.0]) == found[0]
    # The negative prompt decides where it is read: under nag at guidance 1, too.
    for guidance, decides in (("cfg", False), ("nag", True)):
        unguided = {"guidance_scale": 1.0, "guidance": guidance}
        both = [names(**unguided, negative_prompt=text) for text in ("red", "blue")]
        assert (both[0] != both[1]) == decides
    # As it is for this model, so that a record says which blocks.
    recorded = plan_of(keyframes, guidance="slg").config
    assert recorded.guidance_options == {"blocks": [2]}
    assert {task.digest for task in make_plan(recorded).tasks} == names(guidance="slg")


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({"guidance": "cfg_zero", "guidance_options": {"zero_init": 0.3}}, 6),
        ({"guidance": "apg"}, 8),
        ({"guidance": "mambo_g", "guidance_interval": [0.0, 0.9]}, 7),
        ({"guidance": "slg", "guidance_scale": 1.0}, 7),
        ({"guidance": "nag", "guidance_scale": 1.0, "negative_prompt": "red"}, 4),
    ],
)
def test_a_generation_asks_for_what_its_plan_says(
    run: Run, keyframes: list[Any], tmp_path: Path, changes: dict[str, Any], each: int
) -> None:
    assert plan_of(keyframes, **changes).evaluations == each
    run(**(STEPS | changes), output=str(tmp_path / "out"))
    assert evaluations(tmp_path / "out", "segment") == [each] * 3


def test_an_edit_guides_each_branch_and_counts(
    edit_config: Callable[..., EditConfig], run_edit: Callable[..., EditResult], tmp_path: Path
) -> None:
    same = {"guidance": "nag", "guidance_scale": 1.0, "negative_prompt": "red", "num_inference_steps": 3}
    plain = make_edit_plan(edit_config(**(same | {"guidance": "cfg"})))
    plan = make_edit_plan(config := edit_config(**same))
    assert plain.task.digest != plan.task.digest
    assert plan.rehearsal.evaluations == 6
    assert not any("negative_prompt" in note for note in plan.warnings)
    result = edit(config, verbose=False)
    assert evaluations(result.video.parent, "edited") == [6]


def test_windows_that_are_denoised_together_carry_nothing_on_and_say_so(
    run: Run, keyframes: list[Any], tmp_path: Path
) -> None:
    together = {"joins": "co_denoise", "guidance": "apg", "co_sigma": 0.9}
    assert any("apg remembers no earlier step" in note for note in plan_of(keyframes, **together).warnings)
    still = together | {"guidance_options": {"momentum": 0.0}}
    assert not any("apg" in note for note in plan_of(keyframes, **still).warnings)
    assert run(**(STEPS | together), output=str(tmp_path / "out")).video.is_file()


def test_a_plan_says_how_it_is_guided_and_what_does_nothing(keyframes: list[Any], tmp_path: Path) -> None:
    flags = ("--dry_run", "--num_inference_steps=4", "--guidance=apg", "--guidance_interval=[0.1,0.95]")
    said = run_cli(*command(keyframes, tmp_path / "out", *flags, "--guidance_scale=3")).out
    assert "guidance 3 by apg between noise levels 0.95 and 0.1" in said
    notes = plan_of(keyframes, guidance_interval=[0.01, 0.02]).warnings
    [idle] = [note for note in notes if "guides no step" in note]
    assert idle.startswith("guidance_interval 0.01 to 0.02 guides no step: the noise levels are 0.9997, 0.89")
    said = run_cli(*command(keyframes, tmp_path / "out", *flags, "--guidance_scale=1")).out
    assert "guidance apg is not used: at guidance_scale 1 the prompt alone is asked about" in " ".join(
        said.split()
    )


def test_mistakes_are_told_before_a_model_is_loaded(keyframes: list[Any], no_weights: None) -> None:
    config = GenerationConfig(keyframes=keyframes, base_seed=1, size="32*32")
    for changes, said in (
        ({"guidance": "cfgzero"}, "guidance is 'cfgzero'; .*Did you mean 'cfg_zero'"),
        ({"guidance": "5"}, "guidance is 5; expected a name, .* how strongly it guides is guidance_scale"),
        (
            {"guidance": "apg", "guidance_options": {"eat": 1}},
            "no option 'eat'; expected some of eta, momentum, limit",
        ),
        (
            {"guidance": "slg", "guidance_options": {"blocks": [40]}},
            r"slg blocks are \[40\] and wan-tiny has",
        ),
        ({"guidance_options": {"eta": 1.0}}, "guidance cfg has no option 'eta'; expected none"),
        ({"guidance_interval": [0.9, 0.1]}, r"guidance_interval is \[0.9, 0.1\]; expected two noise levels"),
        ({"guidance_interval": [0.1]}, r"guidance_interval is \[0.1\]; expected two noise levels"),
        ({"guidance_interval": [0.1, 3.0]}, r"guidance_interval is \[0.1, 3.0\]; expected two noise levels"),
    ):
        with pytest.raises(InputError, match=said):
            make_plan(replace(config, **changes))
