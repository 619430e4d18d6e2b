"""Several keyframes in one window, and VACE, in both jobs: what is planned, sampled, resumed, told and refused."""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.runs import FAST, EditRun, Run, command, draw_keyframe, run_cli
from tests.wan.folders import write_experts, write_folder
from wanedit import EditConfig, GenerationConfig, GenerationResult
from wanedit.errors import InputError
from wanedit.jobs.edit.plan import make_edit_plan
from wanedit.jobs.generate.joins import Todo
from wanedit.jobs.generate.plan import make_plan, show_plan
from wanedit.runtime.directory import RunDirectory
from wanedit.video import probe, read_frames
from wanedit.wan.catalog import SHOWABLE, Showable
from wanedit.wan.load import load_vae

# Of frames 0, 16, 32, 48 and 54 wan-tiny's limit of 33 frames takes three, and three.
SECONDS = (0.0, 1.0, 2.0, 3.0, 3.375)


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: what comes out is noise, and of the right shape."""
    return write_folder(tmp_path_factory.mktemp("models") / "a-vace", "vace")


@pytest.fixture
def five(tmp_path: Path) -> list[list[Any]]:
    return [[str(draw_keyframe(tmp_path / f"five{k}.png", 2 * k)), t] for k, t in enumerate(SECONDS)]


def planned(keyframes: list[list[Any]], **changes: Any):
    settings: dict[str, Any] = {**FAST, "window": "pack", **changes}
    return make_plan(GenerationConfig(keyframes=keyframes, **settings))


def test_a_packed_run_has_fewer_joins_and_every_frame(
    run: Run, five: list[list[Any]], tmp_path: Path
) -> None:
    def packed(keyframes: list[list[Any]]) -> GenerationResult:
        return run(keyframes=keyframes, window="pack", save_latents=True)

    first = packed(five)
    assert first.keyframe_frames == (0, 16, 32, 48, 54)
    assert first.num_frames == probe(first.video).frames == 55
    assert first.sampled == (0, 1)
    pixels = read_frames(first.video)
    again = packed(five)
    assert again.sampled == ()
    assert np.array_equal(read_frames(again.video), pixels)
    # A keyframe inside a window is part of what names it, and of its pixels.
    changed = [*five[:1], [str(draw_keyframe(tmp_path / "other.png", 9)), 1.0], *five[2:]]
    after = packed(changed)
    assert after.sampled == (0,)
    assert after.segments[1] == first.segments[1]
    assert not np.array_equal(read_frames(after.video)[16], pixels[16])


def test_what_is_sampled_between_keyframes_lies_at_their_frames(five: list[list[Any]]) -> None:
    plan = planned(five)
    assert [segment.keyframes for segment in plan.timeline.segments] == [(0, 16, 32), (32, 48, 54)]
    first, second = plan.tasks
    assert (first.sampled_frames, sorted(first.middle)) == (33, [16])
    # 23 frames are sampled as 25, the two more in the longer half: its 17 frames come out of 19.
    assert (second.sampled_frames, sorted(second.middle)) == (25, [18])
    shown = {frame: image.keyframe.path for frame, image in zip((0, 18, 24), plan.keyframes[2:], strict=True)}
    assert {frame: getattr(image, "keyframe").path for frame, image in (  # noqa: B009
        (0, second.first), (18, second.middle[18]), (24, second.last)
    )} == shown  # fmt: skip


def test_the_plan_shows_which_keyframes_are_in_which_window(
    five: list[list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(five, sub_prompts=["a", "b", "b", "c"], prompt="x")
    show_plan(
        plan,
        Todo(plan.tasks, plan.bridges, plan.pieces),
        RunDirectory(tmp_path / "out", tmp_path / "out" / "o.mp4"),
    )
    page = capsys.readouterr().out
    assert "0 1 2" in page
    assert "2 3 4" in page
    assert "a window of several pairs of keyframes is told their sub_prompts one after the other" in page
    assert [task.prompt for task in plan.tasks] == ["x, a, b", "x, b, c"]
    assert "2 windows with 1 join in place of 4 with 3, at 9" in page
    pairs = planned(five, window="pair")
    assert not pairs.tasks[0].middle
    assert len(pairs.tasks) == 4


def test_packing_that_changes_nothing_is_told_and_samples_the_same(keyframes: list[list[Any]]) -> None:
    far = [[path, 2.0 * k] for k, (path, _) in enumerate(keyframes)]
    plan, pairs = planned(far), planned(far, window="pair")
    assert any("window pack changes nothing here: no three neighbouring" in note for note in plan.warnings)
    assert [task.digest for task in plan.tasks] == [task.digest for task in pairs.tasks]
    soft = planned(far, middle_strength=0.5)
    assert any("middle_strength is not used" in note for note in soft.warnings)
    assert [task.digest for task in soft.tasks] == [task.digest for task in pairs.tasks]


def test_a_model_that_is_shown_its_ends_alone_is_not_packed(
    five: list[list[Any]], tmp_path: Path, no_weights: None
) -> None:
    folder = write_folder(tmp_path / "a-flf2v", "flf2v")
    with pytest.raises(
        InputError,
        match=r"window is pack, and a-flf2v can be shown the first and the last frame alone of a window; expected "
        r"window pair, or a model that can be shown any: wan-tiny, .*Wan2.1-VACE-14B",
    ):
        planned(five, model=str(folder))


def test_strength_decides_where_a_keyframe_is_in_the_middle(
    five: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHOWABLE, "i2v", Showable("any", (0.7, 0.2)))
    folder = str(write_experts(tmp_path / "a-pair"))
    plan = planned(five, model=folder)
    (note,) = [note for note in plan.warnings if "middle_strength" in note]
    assert "held with strength 0.7, 0.2 (high, low noise), softer than its ends" in note
    names = [
        [task.digest for task in planned(five, model=folder, middle_strength=strength).tasks]
        for strength in (None, [0.7, 0.2], [0.7, 0.0], 1.0)
    ]
    assert names[0] == names[1]
    assert len({tuple(one) for one in names}) == 3
    with pytest.raises(
        InputError, match=r"middle_strength is \[0.1, 0.2, 0.3\]; expected one number or, for each of 2"
    ):
        planned(five, model=folder, middle_strength=[0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="middle_strength"):
        planned(five, model=folder, middle_strength=1.5)


def hints_of(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every condition that a transformer is prepared with from now on."""
    from wanedit.wan.transformer import WanTransformer

    seen: list[Tensor] = []
    prepare = WanTransformer.prepare

    def watched(self, grid, text, image_tokens=None, condition=None, *others):
        assert condition is not None
        seen.append(condition)
        return prepare(self, grid, text, image_tokens, condition, *others)

    monkeypatch.setattr(WanTransformer, "prepare", watched)
    return seen


def test_vace_generates_through_keyframes_anywhere_and_context_frames(
    run: Run, vace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames 0 to 4 are a clip that goes on; 9 and 16 are keyframes; one window."""
    frames = (0, 1, 2, 3, 4, 9, 16)
    shown = [[str(draw_keyframe(tmp_path / f"c{p}.png", p // 2)), p / 16] for p in frames]
    seen = hints_of(monkeypatch)
    made = run(keyframes=shown, window="pack", model=str(vace), fps=16.0)
    assert (made.num_frames, made.keyframe_frames, made.sampled) == (17, frames, (0,))
    assert probe(made.video).frames == 17
    (hints,) = seen
    assert hints.shape == (1, 96, 5, 4, 4)
    # In time the mask is that of frames 1, 5, 8, 11 and 15: the clip's slot is kept, of single frames it says nothing.
    assert [float(slot.unique()) for slot in hints[0, 32:].unbind(1)] == [0, 1, 1, 1, 1]
    # What to keep: of another keyframe at frame 9, which is in slot 3, the latents from there on differ, and no others.
    run(keyframes=[*shown[:5], [shown[0][0], 9 / 16], shown[6]], window="pack", model=str(vace), fps=16.0)
    changed = (seen[1] - hints)[0].abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, False, True, True]
    assert torch.equal(seen[1][:, 16:], hints[:, 16:]), "grey is what is to be changed, wherever"


def test_vace_edits_with_the_source_kept_by_a_mask(
    run_edit: EditRun, vace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = hints_of(monkeypatch)
    made = run_edit(model=str(vace), method="vace", method_options={"grow": 0}, restore="none")
    assert made.edited
    assert made.frames.shape == (9, 32, 32, 3)
    (hints,) = seen
    assert hints.shape == (1, 96, 3, 4, 4)
    mask = hints[0, 32:]
    assert 0 < float(mask.mean()) < 0.5, "a square of 12 x 12 moves over frames of 32 x 32"
    assert not run_edit(model=str(vace), method="vace", method_options={"grow": 0}, restore="none").edited
    assert run_edit(model=str(vace), method="vace", method_options={"source": "luminance"}).edited
    assert (seen[-1][0, 32:] == 1)[:, 1:2].all(), "between the keyframes all is to be changed"


def test_vace_follows_the_other_methods_too(run_edit: EditRun, vace: Path) -> None:
    assert run_edit(model=str(vace), controller="covariance").edited


def test_the_method_vace_wants_a_vace(edit_config: Callable[..., EditConfig], no_weights: None) -> None:
    with pytest.raises(
        InputError, match=r"wan-tiny reads no video with a mask; expected a VACE \(Wan2.1-VACE-1.3B"
    ):
        make_edit_plan(edit_config(method="vace"))


def test_an_edit_is_told_how_firmly_its_keyframes_are_held(
    edit_config: Callable[..., EditConfig], inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHOWABLE, "i2v", Showable("any", (0.7, 0.2)))
    folder = str(write_experts(tmp_path / "a-pair"))
    given = {"model": folder, "keyframes": inputs.keyframes(0, 4, 8)}
    plan = make_edit_plan(edit_config(**given))
    assert any("held with strength 0.7, 0.2 (high, low noise)" in note for note in plan.warnings)
    names = {
        make_edit_plan(edit_config(**given, middle_strength=one)).task.digest
        for one in (None, 1.0, [0.6, 0.1])
    }
    assert len(names) == 3
    plain = make_edit_plan(edit_config())
    assert not [note for note in plain.warnings if "middle_strength" in note]
    unused = make_edit_plan(edit_config(middle_strength=0.5))
    assert any("middle_strength is not used" in note for note in unused.warnings)


def test_references_are_shown_before_the_clip_and_cut_off(
    run: Run, vace: Path, keyframes: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (64, 32), (200, 30, 60)).save(tmp_path / "subject.png")
    seen = hints_of(monkeypatch)
    given = {"model": str(vace), "keyframes": keyframes, "window": "pack", "save_latents": True}
    plain = run(**given)
    made = run(**given, references=[str(tmp_path / "subject.png")])
    assert made.sampled == (0,), "they decide the pixels"
    assert made.num_frames == plain.num_frames == probe(made.video).frames == 14
    assert seen[0].shape[2] == 5
    assert seen[1].shape[2] == 6
    assert torch.equal(seen[1][:, :, 1:], seen[0])
    assert not seen[1][:, 16:, :1].any(), "kept whole"
    # Laid inside of the frame, on white.
    picture = torch.ones(3, 32, 32)
    picture[:, 8:24] = torch.tensor([200, 30, 60])[:, None, None] / 127.5 - 1
    expected = load_vae(vace).encode(picture[None, :, None])
    assert torch.allclose(seen[1][:, :16, :1], expected, atol=1e-4)
    (file,) = [one for one in made.video.parent.rglob("*.safetensors") if made.segments[0][:8] in one.name]
    assert load_file(file)["latents"].shape == (16, 5, 4, 4)
    assert not run(**given, references=[str(tmp_path / "subject.png")]).sampled


def test_flags_of_windows(vace: Path, keyframes: list[list[Any]], tmp_path: Path) -> None:
    for name in ("one", "two"):
        Image.new("RGB", (64, 32)).save(tmp_path / f"{name}.png")
    flags = ["--window", "pack", "--middle_strength", "0.5", "--model", str(vace), "--dry_run"]
    flags += ["--references", str(tmp_path / "one.png"), "--references", str(tmp_path / "two.png")]
    done = run_cli(*command(keyframes, tmp_path / "out", *flags))
    assert done.code == 0, done.err
    assert re.findall(r"reference +\S+/(\w+)\.png", done.out) == ["one", "two"]
    assert "0 1 2 3" in done.out
    assert "held with strength 0.5, softer than its ends" in " ".join(done.out.split())


def test_references_want_a_vace_and_have_to_be_there(
    keyframes: list[list[Any]], tmp_path: Path, no_weights: None
) -> None:
    Image.new("RGB", (64, 32)).save(tmp_path / "subject.png")
    with pytest.raises(InputError, match="references are given, and wan-tiny reads pictures as frames alone"):
        planned(keyframes, references=[str(tmp_path / "subject.png")])
    with pytest.raises(InputError, match=r"references: no file .*nowhere\.png"):
        planned(keyframes, references=["nowhere.png"])


def test_each_stretch_of_a_window_is_told_its_own_prompt_and_one_prompt_changes_no_name(
    five: list[list[Any]],
) -> None:
    subs = {"prompt": "x", "sub_prompts": ["a", "b", "b", "c"]}
    plain, relayed = planned(five, **subs), planned(five, **subs, prompt_relay=True)
    # 33 frames are 9 slots, 25 are 7; the keyframe at sampled frame 16 ends slot 4, that at 18 is in slot 5.
    assert [[(one.prompt, one.start, one.stop) for one in task.told] for task in relayed.tasks] == [
        [("x, a", 0, 5), ("x, b", 5, 9)],
        [("x, b", 0, 6), ("x, c", 6, 7)],
    ]
    assert [task.prompt for task in relayed.tasks] == [task.prompt for task in plain.tasks]
    assert not {task.digest for task in relayed.tasks} & {task.digest for task in plain.tasks}
    assert not any("one after the other" in note for note in relayed.warnings)
    same = {"prompt": "x", "sub_prompts": ["a", "a", "b", "b"]}
    names = [
        [task.digest for task in planned(five, **same, prompt_relay=relay).tasks] for relay in (False, True)
    ]
    assert names[0] == names[1]
    assert any("prompt_relay is not used" in note for note in planned(five, prompt_relay=True).warnings)


def test_bridges_and_windows_denoised_together_are_told_along_their_time(five: list[list[Any]]) -> None:
    subs = {"prompt": "x", "sub_prompts": ["a", "b", "b", "c"], "prompt_relay": True}
    [bridge] = planned(five, **subs, joins="bridge", bridge_sigma=0.8, num_inference_steps=4).bridges
    # Slots 5 … 11 of the two windows' 15: b up to the keyframe in slot 13, which is beyond.
    assert (bridge.bridge and bridge.bridge.window, bridge.told) == ((5, 12), ())
    [state] = planned(five, **subs, joins="co_denoise", num_inference_steps=4).together
    assert [[(one.prompt, one.stop) for one in window.task.told] for window in state.windows] == [
        [("x, a", 5), ("x, b", 9)],
        [("x, b", 6), ("x, c", 7)],
        [("x, a", 1), ("x, b", 9)],
    ]


def test_prompts_along_time_change_what_is_sampled_where_they_are_meant(
    run: Run, five: list[list[Any]], tmp_path: Path
) -> None:
    def latents(**changes: Any) -> Tensor:
        output = str(tmp_path / f"relay {changes.get('prompt_relay')}")
        made = run(keyframes=five[:3], window="pack", save_latents=True, output=output, **changes)
        [file] = (made.video.parent / "segments").glob("segment*.safetensors")
        return load_file(file)["latents"]

    both = {"prompt": "", "sub_prompts": ["a red circle rises", "a blue square falls"]}
    assert not torch.equal(latents(**both), latents(**both, prompt_relay=True))


def test_windows_of_several_keyframes_keep_their_numbers_too(tmp_path: Path) -> None:
    keyframes = [[str(draw_keyframe(tmp_path / f"{k}.png", k)), k + 3.0] for k in range(8)]
    packed: dict[str, Any] = FAST | {"window": "pack"}
    before = make_plan(GenerationConfig(keyframes=keyframes, **packed))
    assert [len(one.inner) for one in before.timeline.segments] == [0, 1, 1, 1]
    put = [[str(draw_keyframe(tmp_path / "put.png", 9)), 0.0], *keyframes]
    after = make_plan(GenerationConfig(keyframes=put, **packed), earlier=asdict(before.config))
    assert (after.config.numbers, len(after.tasks)) == ([4, 0, 1, 2, 3], 5)
    assert [task.digest for task in after.tasks[1:]] == [task.digest for task in before.tasks]


@pytest.mark.parametrize(
    "record",
    [{"keyframes": "x"}, {"keyframes": [[1]], "fps": 16}, {"keyframes": [["a.png", 0.0]], "fps": None}],
)
def test_a_record_that_does_not_say_its_keyframes_keeps_no_numbers(
    keyframes: list[list[Any]], record: dict[str, Any]
) -> None:
    settings: dict[str, Any] = FAST
    given = GenerationConfig(keyframes=keyframes, **settings)
    assert make_plan(given, earlier=record).digests == make_plan(given).digests
