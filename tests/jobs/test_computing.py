"""Attention and compiling in runs: what names a result, what is recorded, what is refused before a model is loaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.runs import Run, command, start_process
from wanedit import EditConfig, EditResult, GenerationConfig
from wanedit.errors import InputError, NumericalError
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.generate.plan import make_plan
from wanedit.runtime.events import read_events
from wanedit.runtime.record import read_settings

ATTENDING = """
import torch.nn.functional as F
def near(q, k, v):
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2) * (1 + 1e-5)
def far(q, k, v):
    return near(q, k, v) * 1.1
"""
NEAR, FAR = "attending_near:near", "attending_near:far"


@pytest.fixture
def attending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with attention of one's own, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "attending_near.py"
    path.write_text(ATTENDING)
    return path


def test_what_computes_names_a_result_and_sdpa_not(keyframes: list[Any], attending: Path) -> None:
    def names(**changes: Any) -> set[str]:
        config = GenerationConfig(keyframes=keyframes, size="32*32", base_seed=1, **changes)
        return {task.digest for task in make_plan(config).tasks}

    plain = names()
    assert names(attention="auto") == names(attention="sdpa") == plain
    others = [names(attention="flex"), names(attention=NEAR), names(compile=True)]
    attending.write_text(ATTENDING + "# changed\n")
    others.append(names(attention=NEAR))
    assert len(set.union(plain, *others)) == 5 * len(plain)
    recorded = make_plan(GenerationConfig(keyframes=keyframes, size="32*32", base_seed=1)).config
    assert (recorded.attention, recorded.compile) == ("sdpa", False)


def test_a_run_records_what_it_attended_by_and_auto_goes_on_with_it(run: Run, attending: Path) -> None:
    first = run(attention=NEAR)
    lines = [line for line in read_events(first.video.parent / "metrics.jsonl") if line["event"] == "segment"]
    assert [line["attention"] for line in lines] == [NEAR] * 3
    assert all(9e-6 < line["off_sdpa"] < 1.1e-5 for line in lines)
    assert run().sampled == ()
    assert read_settings(first.video.parent / "config.yaml")["attention"] == NEAR
    assert run(attention="sdpa").sampled == (0, 1, 2)
    assert run().sampled == ()


def test_attention_that_is_off_ends_the_run_in_words(run: Run, attending: Path) -> None:
    with pytest.raises(
        NumericalError, match=r"segment \d, rank 0: attention attending_near:far is 0\.1 off sdpa"
    ):
        run(attention=FAR)


def test_mistakes_are_told_before_a_model_is_loaded(keyframes: list[Any], no_weights: None) -> None:
    config = GenerationConfig(keyframes=keyframes, base_seed=1, size="32*32")
    for name, said in (
        ("flash5", "attention is 'flash5'; expected one of auto, .*Did you mean 'flash"),
        ("flash", "attention flash needs the module .*pip install flash-attn.*or attention sdpa"),
        ("sage", "attention sage needs the module sageattention"),
    ):
        with pytest.raises(InputError, match=said):
            make_plan(replace(config, attention=name))


def test_an_edit_has_both_too(
    edit_config: Callable[..., EditConfig], run_edit: Callable[..., EditResult], attending: Path
) -> None:
    plain, own, compiled = (
        make_edit_plan(edit_config(**changes)) for changes in ({}, {"attention": NEAR}, {"compile": True})
    )
    assert len({plan.task.digest for plan in (plain, own, compiled)}) == 3
    assert plain.config.attention == "sdpa"
    assert (own.settings.attention, compiled.settings.compile) == (NEAR, True)
    result = run_edit(attention=NEAR)
    [line] = [
        line for line in read_events(result.video.parent / "metrics.jsonl") if line["event"] == "edited"
    ]
    assert line["attention"] == NEAR
    forward = {"controller": "covariance", "method_options": {"derivative": "forward"}}
    with pytest.raises(InputError, match="derivative is forward, which attention flex cannot be asked for"):
        make_edit_plan(edit_config(**forward, attention="flex"))
    assert make_edit_plan(edit_config(**forward, attention=NEAR)).settings.attention == NEAR
    unasked = make_edit_plan(edit_config(method="copy_source", compile=True))
    assert any("compile True is not used" in note for note in unasked.warnings)


def test_a_run_of_rounded_weights_is_near_the_exact_one_and_has_names_of_its_own(
    run: Run, tmp_path: Path
) -> None:
    def latents(way: str) -> torch.Tensor:
        made = run(output=str(tmp_path / way), weights=way, save_latents=True)
        files = sorted((made.video.parent / "segments").glob("segment_*.safetensors"))
        return torch.cat([load_file(file)["latents"].flatten() for file in files])

    exact, rounded = latents("full"), latents("int8")
    assert 1e-4 < float((rounded - exact).norm() / exact.norm()) < 0.02


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_film_is_compiled_by_inductor_on_a_cpu(keyframes: list[Any], tmp_path: Path) -> None:
    """In processes of their own, as of `tests/wan/test_compile.py`; some two and a half minutes of one core."""

    def latents(way: str) -> list[torch.Tensor]:
        flags = (f"--compile={way}", "--num_inference_steps=2", "--save_latents=true")
        process = start_process(["-m", "wanedit", *command(keyframes[:3], tmp_path / way, *flags)])
        _, err = process.communicate()
        assert process.returncode == 0, err
        files = sorted((tmp_path / way / "segments").glob("segment_*.safetensors"))
        return [load_file(file)["latents"] for file in files]

    for compiled, eager in zip(latents("true"), latents("false"), strict=True):
        assert float((compiled - eager).norm() / eager.norm()) < 1e-4
