"""Segments and bridges denoised as one state: whose slots are whose; neither a stop nor ranks change a byte."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.test_joins import bridges_of, place_of, tasks_of, timelines
from tests.runs import FAST, Run, command, draw_keyframe, run_cli
from tests.wan.folders import write_folder
from wanedit import GenerationConfig, GenerationResult
from wanedit.errors import InputError
from wanedit.flow.path import Step, schedule
from wanedit.jobs.generate.joins import co_denoising, sequence
from wanedit.jobs.generate.plan import make_plan, remaining
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.co_denoise import CoDenoiser
from wanedit.lit.tasks import CoDenoising
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.leftovers import leftovers
from wanedit.runtime.predict import load_latents
from wanedit.runtime.record import read_settings, recorded_config
from wanedit.timeline import Timeline


@settings(deadline=None)
@given(timelines(), st.sampled_from(["any", "ends"]))
def test_every_slot_is_averaged_over_the_windows_that_hold_it(
    chain: Timeline, shows: Literal["any", "ends"]
) -> None:
    tasks = tasks_of(chain)
    made, lacking = bridges_of(chain, tasks, shows, together=True)
    assert len(made) + len(lacking) == len(chain.joins)
    state, begun = co_denoising(tasks, made, 0.5, Path())
    total, windows = torch.zeros(state.slots), torch.zeros(state.slots, dtype=torch.int64)
    for window in state.windows:
        assert len(window.places) == len(window.weights) == window.task.slots <= 21
        assert min(window.weights) >= 0
        total[list(window.places)] += torch.tensor(window.weights)
        windows[list(window.places)] += 1
    assert torch.allclose(total, torch.ones(state.slots), atol=1e-6)
    length = len(sequence(tasks))
    # Behind the slots of the sequence, anchors: one of every window that begins after the video.
    assert (windows[length:] == 1).all()
    assert state.slots - length == sum(window.places[0] >= length for window in state.windows)
    # What goes on apart is the state's, in the order of the sequence, each behind its own anchor.
    assert [one.index for one in begun] == [task.index for task in tasks]
    places = [window.places[bool(k) :] for k, window in enumerate(state.windows[: len(tasks)])]
    assert [place for own in places for place in own] == list(range(length))
    for window in state.windows[len(tasks) :]:
        bridge, before = window.task.bridge, tasks[place_of(window.task) - 1]
        assert bridge is not None
        join = before.slots - 1 - bridge.window[0]
        # The keyframe's slot is that of the segment that is shown it, if the bridge is not.
        assert (window.weights[join] == 0) == (shows == "ends")
        # Towards the window's ends it counts for less than the segment that it overlaps.
        assert window.weights[1] <= window.weights[join] or shows == "ends"


def test_a_schedule_falls_into_the_steps_above_a_level_and_those_that_follow() -> None:
    levels = schedule(6, 3.0, "unipc")
    for sigma in (1.0, 0.9, 0.7, 0.3, 0.0):
        above, rest = levels.split(sigma)
        assert (*above.sigmas[:-1], *rest.sigmas) == levels.sigmas
        assert (*above.timesteps, *rest.timesteps) == levels.timesteps
        assert all(step.sigma > sigma for step in above)
        assert all(step.sigma <= sigma for step in rest)
        assert above.sigmas[-1] == rest.sigmas[0]


@pytest.fixture
def longer(tmp_path: Path) -> list[list[Any]]:
    """Keyframes of segments of 17, 17 and 13 frames."""
    return [[str(draw_keyframe(tmp_path / f"b{k}.png", 3 * k)), t] for k, t in enumerate((0, 1, 2, 2.7))]


TOGETHER: dict[str, Any] = {"joins": "co_denoise", "num_inference_steps": 4, "co_sigma": 0.7}


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_without_a_bridge_the_state_is_that_of_segments_apart(longer: list[list[Any]], solver: str) -> None:
    """Neither the layout of the state nor the averaging changes a byte where no window overlaps another."""
    plan = make_plan(
        GenerationConfig(keyframes=longer, **FAST | TOGETHER | {"co_sigma": 0.0, "solver": solver})
    )
    [state] = plan.together
    tasks = [window.task for window in state.windows[:3]]
    alone, _ = co_denoising(tasks, [], 0.0, Path())
    denoiser, chain = (
        CoDenoiser(plan.folder, plan.settings),
        FLF2VChain(plan.folder, plan.settings, decodes=False),
    )
    made = denoiser.predict_step(alone)
    assert made is not None
    for window in alone.windows:
        own = chain.predict_step(window.task)
        assert own is not None
        assert torch.equal(made.latents[:, window.places], own.latents)


def latents_of(result: GenerationResult) -> list[torch.Tensor]:
    folder = result.video.parent / "segments"
    journal = json.loads((folder / "progress.json").read_text())["segments"]
    return [load_latents(folder / journal[name]["file"]) for name in result.segments]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Every evaluation of a state; the fourth of all is never made."""
    gather, seen = CoDenoiser.gather, list[Step]()

    def counted(self: CoDenoiser, task: CoDenoising, answer: Any, x: torch.Tensor, step: Step) -> Any:
        seen.append(step)
        if len(seen) == 4:
            raise RuntimeError("killed")
        return gather(self, task, answer, x, step)

    monkeypatch.setattr(CoDenoiser, "gather", counted)
    return seen


@pytest.mark.parametrize("solver", ["unipc", "heun"])
def test_a_state_that_is_stopped_goes_on_with_the_same_bytes(
    run: Run, longer: list[list[Any]], tmp_path: Path, evaluated: list[Step], solver: str
) -> None:
    settings = TOGETHER | {"keyframes": longer, "solver": solver, "co_sigma": 0.3}
    with pytest.raises(RuntimeError, match="killed"):
        run(**settings)
    folder = tmp_path / "out" / "segments"
    kept = sorted(path.name[:12] for path in folder.glob("*.safetensors"))
    assert kept == ["velocity_000", "velocity_001", "velocity_002"]
    plan = make_plan(GenerationConfig(output=str(tmp_path / "out"), **FAST | settings))
    directory = RunDirectory(tmp_path / "out", tmp_path / "out/output_final.mp4")
    # Velocities are to be gone on from; the picture of what was being made is not.
    assert {found.path.parent for found in leftovers(directory, plan.digests)} == {directory.previews}
    result, total = run(**settings), plan.window_evaluations // 2
    # Every evaluation once, but for the one that was stopped.
    assert len(evaluated) == total + 1
    assert not list(folder.glob("velocity*"))
    assert (result.sampled, result.num_frames) == ((0, 1, 2), 44)
    stopped = latents_of(result)
    whole = latents_of(run(**settings, output=str(tmp_path / "whole")))
    for a, b in zip(stopped, whole, strict=True):
        assert torch.equal(a, b)
    # And nothing is left to do.
    assert run(**settings).sampled == ()


def memory_of(plan: str) -> float:
    """Gigabytes to sample with, as a plan says them."""
    [found] = re.findall(r"then ([\d.]+) GB to sample", plan)
    return float(found)


def test_a_plan_says_passes_and_memory_of_each_stage(longer: list[list[Any]], tmp_path: Path) -> None:
    flags = ("--dry_run", "--joins=co_denoise", "--num_inference_steps=4", "--guidance_scale=2")
    said = run_cli(*command(longer, tmp_path / "out", *flags)).out
    # Three of the four steps start above 0.7.
    assert "passes     2 of the network for a segment, 6 for a window denoised together" in said
    # Its longest window is both segments, as that of a bridge with all the context.
    bridged = (
        "--dry_run",
        "--joins=bridge",
        "--bridge_context=9",
        "--num_inference_steps=4",
        "--guidance_scale=2",
    )
    alike = run_cli(*command(longer, tmp_path / "out", *bridged)).out
    assert memory_of(said) >= memory_of(alike) > 0
    said = run_cli(*command(longer, tmp_path / "out", *flags, "--takes=0,1,0")).out
    assert "passes     2 or 8 of the network for a segment, 6 for a window" in said


def test_together_to_the_end_leaves_the_segments_nothing_to_sample(
    run: Run, longer: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(FLF2VChain, "velocity", lambda *given: asked.append(1))
    result = run(keyframes=longer, **TOGETHER | {"co_sigma": 0})
    assert (result.num_frames, asked) == (44, [])
    [state] = (result.video.parent / "segments").glob("state*")
    whole, segments = load_latents(state), latents_of(result)
    glued = torch.cat([segments[0], *(one[:, 1:] for one in segments[1:])], dim=1)
    assert torch.equal(glued, whole[:, : glued.shape[1]])
    events = [json.loads(line) for line in (result.video.parent / "metrics.jsonl").read_text().splitlines()]
    [line] = [event for event in events if event["event"] == "co_denoise"]
    assert (line["windows"], line["steps"], line["evaluations"]) == (5, 4, 40)
    assert [event["evaluations"] for event in events if event["event"] == "segment"] == [0, 0, 0]
    # Sampled anew from the first segment on, the state is too; from a later one it stays.
    directory = RunDirectory(result.video.parent, result.video)
    for start, states in ((0, 1), (1, 0)):
        again = recorded_config(GenerationConfig, read_settings(directory.config), directory.root)
        todo = remaining(make_plan(replace(again, resume_from=start)), directory)
        assert (len(todo.together), [task.index for task in todo.segments]) == (states, [0, 1, 2][start:])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decode": "apart"}, "joins is co_denoise and decode apart; expected decode once"),
        ({"co_sigma": 1}, "co_sigma is 1; expected less than 0.99"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_what_cannot_be_denoised_together_is_refused_before_a_model_is_loaded(
    run: Run, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(**TOGETHER | changes)


def test_a_model_that_is_shown_ends_alone_keeps_the_keyframes(
    run: Run, longer: list[list[Any]], tmp_path: Path
) -> None:
    model = write_folder(tmp_path / "models" / "an-flf2v", "flf2v")
    plan = make_plan(GenerationConfig(keyframes=longer, model=str(model), **FAST | TOGETHER))
    [state] = plan.together
    shown = [sorted(window.task.known()) for window in state.windows]
    assert shown == [[0, 16], [0, 16], [0, 12], [0, 32], [0, 28]]
    assert run(keyframes=longer, model=str(model), **TOGETHER).num_frames == 44
