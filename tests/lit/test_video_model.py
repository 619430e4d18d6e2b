"""WanVideoModel: what of a view reaches which kind of Wan, and that nothing of it is lost or made up."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.lit.clips import FAST, edit_task, loaded, tiny
from tests.wan.folders import write_experts, write_folder
from wanedit.errors import InputError
from wanedit.flow.editing import View
from wanedit.flow.keyframes import Exponential
from wanedit.flow.methods.copy_source import CopySource
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import Step, schedule
from wanedit.lit.editor import FlowMatchingEditor, WanVideoModel
from wanedit.lit.networks import picture_key
from wanedit.lit.velocity import GuidedVelocity
from wanedit.video import from_uint8
from wanedit.wan.catalog import SHOWABLE, Showable, find_known
from wanedit.wan.condition import build_condition, build_hints
from wanedit.wan.load import WanFolder, open_wan
from wanedit.wan.transformer import Experts

STEP = next(iter(schedule(4, 3.0)))
KINDS = ("flf2v", "i2v", "t2v", "vace")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: write_folder(root / f"a-{kind}", kind) for kind in KINDS}


@pytest.fixture(scope="module")
def editors(folders: dict[str, Path]) -> dict[str, FlowMatchingEditor]:
    return {kind: loaded(edit_task(), CopySource(), folder=open_wan(path)) for kind, path in folders.items()}


def model_of(editor: FlowMatchingEditor) -> WanVideoModel:
    return WanVideoModel(editor, (32, 32), "blurred")


def picture(frame: int) -> torch.Tensor:
    """An edited keyframe of the task, as methods get it."""
    task = edit_task()
    return from_uint8(task.keyframes)[:, task.keyframe_indices.index(frame)]


def told_of(model: WanVideoModel, view: View) -> torch.Tensor:
    """The condition of a clip of nine frames, one for all transformers."""
    made = model.condition(view, 9)
    assert isinstance(made, torch.Tensor)
    return made


def known(name: str) -> WanFolder:
    model = find_known(name)
    assert model is not None
    return WanFolder(tiny().source, model.config, model.sampling, model)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Wan2.1-T2V-1.3B", ()),
        ("Wan2.1-T2V-14B", ()),
        ("Wan2.1-I2V-14B-480P", (0,)),
        ("Wan2.2-I2V-A14B", (0, 4, 12)),
        ("Wan2.1-VACE-1.3B", (0, 4, 12)),
        ("Wan2.1-FLF2V-14B-720P", (0, 12)),
        ("Wan2.1-Fun-1.3B-InP", (0, 4, 12)),
        ("Wan2.1-Fun-14B-InP", (0, 4, 12)),
        ("wan-tiny", (0, 4, 12)),
    ],
)
def test_a_model_is_shown_what_it_was_trained_to_see(name: str, shown: tuple[int, ...]) -> None:
    assert known(name).showable((0, 4, 12), 13) == shown


def test_a_folder_without_a_name_goes_by_its_kind(folders: dict[str, Path]) -> None:
    shown = {kind: open_wan(path).showable((0, 4, 8), 9) for kind, path in folders.items()}
    assert shown == {"flf2v": (0, 8), "i2v": (0,), "t2v": (), "vace": (0, 4, 8)}
    assert open_wan(folders["flf2v"]).showable((0,), 1) == (0,)


@pytest.mark.parametrize("kind", ["flf2v", "i2v"])
def test_the_velocity_is_that_of_the_transformer(editors, kind: str) -> None:
    editor = editors[kind]
    transformer, _ = editor.loaded()
    x = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shown = {frame: picture(frame) for frame in ((0, 8) if kind == "flf2v" else (0,))}
    tokens = torch.cat([editor.encodings.pictures[picture_key(image)] for image in shown.values()], dim=1)
    condition = build_condition(shown, 9, editor.encode)
    words = editor.encodings.text["a blue square"]
    timestep = torch.tensor([STEP.timestep])
    with torch.no_grad():
        direct = transformer(x, timestep, words, tokens, condition)
        velocity = model_of(editor).velocity(View("a blue square", 1.0, shown), 3)(x, STEP)
        blind = model_of(editor).velocity(View("a blue square", 1.0), 3)(x, STEP)
    assert torch.equal(velocity, direct)
    assert not torch.equal(velocity, blind)


def test_a_text_model_gets_text_alone(editors) -> None:
    editor = editors["t2v"]
    transformer, _ = editor.loaded()
    x = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        direct = transformer(x, torch.tensor([STEP.timestep]), editor.encodings.text["a blue square"])
        velocity = model_of(editor).velocity(View("a blue square"), 3)(x, STEP)
    assert torch.equal(velocity, direct)


@pytest.mark.parametrize(
    "extra", [{"images": {0: picture(0)}}, {"joint": 1, "appended": torch.zeros(1, 16, 1, 4, 4)}]
)
def test_a_text_model_refuses_images(editors, extra: dict) -> None:
    with pytest.raises(InputError, match=r"a-t2v reads no images; expected a view without any"):
        model_of(editors["t2v"]).velocity(View("a blue square", **extra), 3)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_default_positions_and_guidance_are_those_of_guided_velocity(editors, scale: float) -> None:
    editor = editors["flf2v"]
    transformer, _ = editor.loaded()
    text = editor.encodings.text
    condition = build_condition({}, 9, editor.encode, (32, 32))
    zeros = torch.zeros(1, 2 * 257, editor.folder.config.image_dim)
    x = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        by_hand = GuidedVelocity(
            transformer, (3, 4, 4), text["a blue square"], text["blurred"], zeros, condition, scale
        )(x, STEP)
        model = model_of(editor)
        plain = model.velocity(View("a blue square", scale), 3)(x, STEP)
        placed = model.velocity(View("a blue square", scale, frame_ids=(0.0, 1.0, 2.0)), 3)(x, STEP)
        moved = model.velocity(View("a blue square", scale, frame_ids=(0.0, 1.0, 1.5)), 3)(x, STEP)
    assert torch.equal(plain, by_hand)
    assert torch.equal(placed, by_hand)
    assert not torch.equal(moved, by_hand)


def test_evaluations_are_counted(editors) -> None:
    model = model_of(editors["flf2v"])
    x = torch.zeros(1, 16, 3, 4, 4)
    plain, guided = model.velocity(View("a blue square"), 3), model.velocity(View("a red square", 2.0), 3)
    assert model.evaluations == 0
    with torch.no_grad():
        plain(x, STEP)
        assert model.evaluations == 1
        guided(x, STEP)
        guided(x, STEP)
    assert model.evaluations == 5


def test_what_was_not_encoded_is_refused(editors) -> None:
    model = model_of(editors["flf2v"])
    with pytest.raises(InputError, match="prompt 'a green square' was not encoded"):
        model.velocity(View("a green square"), 3)
    with pytest.raises(InputError, match="a picture of the view was not encoded"):
        model.velocity(View("a blue square", images={0: torch.zeros(3, 32, 32)}), 3)


def test_condition_channels_of_a_joint_sequence(editors) -> None:
    editor = editors["flf2v"]
    model = model_of(editor)
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    shown = View("a blue square", images={0: picture(0), 8: picture(8)}, joint=2, appended=latents)
    with torch.no_grad():
        told = told_of(model, shown)
        untold = told_of(model, replace(shown, appended=None))
        clip = build_condition(dict(shown.images), 9, editor.encode)
        empty = build_condition({}, 1, editor.encode, (32, 32))
    assert told.shape == untold.shape == (1, 20, 5, 4, 4)
    assert torch.equal(told[:, :, :3], clip)
    assert torch.equal(told[:, 4:, 3:], latents)
    assert (told[:, :4, 3:] == 1).all()
    assert torch.equal(untold[:, :, 3:], empty.expand(-1, -1, 2, -1, -1))
    assert (untold[:, :4, 3:] == 0).all()


def test_hints_of_a_joint_sequence(editors) -> None:
    """Appended slots are kept whole: their latents, nothing to change, a mask of zeros."""
    editor = editors["vace"]
    latents = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    shown = View("a blue square", images={0: picture(0), 8: picture(8)}, joint=2, appended=latents)
    with torch.no_grad():
        told = told_of(model_of(editor), shown)
        untold = told_of(model_of(editor), replace(shown, appended=None))
        grey = editor.encode(torch.zeros(1, 3, 1, 32, 32)).expand(-1, -1, 2, -1, -1)
    assert told.shape == untold.shape == (1, 96, 5, 4, 4)
    assert torch.equal(told[:, :16, 3:], latents)
    assert torch.equal(told[:, 16:32, 3:], grey)
    assert not told[:, 32:, 3:].any()
    assert torch.equal(untold[:, :32, 3:], torch.cat([grey, grey], dim=1))
    assert (untold[:, 32:, 3:] == 1).all()
    x = torch.randn(1, 16, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = (
            model_of(editor).velocity(view, 5)(x, STEP) for view in (shown, replace(shown, appended=None))
        )
    assert not torch.equal(a, b)


def test_a_vace_alone_is_given_a_video_and_a_mask(editors) -> None:
    video, mask = torch.rand(3, 9, 32, 32) * 2 - 1, torch.zeros(9, 32, 32)
    mask[:, 8:24, 8:24] = 1
    view = View("a blue square", images={4: picture(0)}, video=video, mask=mask)
    editor = editors["vace"]
    with torch.no_grad():
        made = told_of(model_of(editor), view)
        over = torch.where(torch.arange(9)[:, None, None] == 4, 0.0, mask)
        clip = torch.where((torch.arange(9) == 4)[:, None, None], picture(0)[:, None], video)
        assert torch.equal(made, build_hints(clip[None], over[None, None], editor.encode))
    assert mask[4].any(), "the view is left as it was"
    for kind in ("flf2v", "t2v"):
        with pytest.raises(InputError, match=f"a-{kind} reads no video with a mask; expected a VACE"):
            model_of(editors[kind]).velocity(replace(view, images={}), 3)


def test_experts_hold_a_keyframe_in_the_middle_each_with_its_own_strength(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHOWABLE, "i2v", Showable("any", (0.7, 0.2)))
    editor = loaded(edit_task(), CopySource(), folder=open_wan(write_experts(tmp_path / "a-pair")))
    view = View("a blue square", images={0: picture(0), 4: picture(8), 8: picture(8)})
    with torch.no_grad():
        high, low = model_of(editor).condition(view, 9)
        assert high[0, :4, :, 0, 0].T.tolist() == [[1] * 4, [0, 0, 0, pytest.approx(0.7)], [0, 0, 0, 1]]
        assert low[0, :4, :, 0, 0].T.tolist() == [[1] * 4, [0, 0, 0, pytest.approx(0.2)], [0, 0, 0, 1]]
        assert torch.equal(high[:, 4:], low[:, 4:])
        ends = model_of(editor).condition(replace(view, images={0: picture(0), 8: picture(8)}), 9)
        assert isinstance(ends, torch.Tensor), "one for both where the middle is free"
        out = WanVideoModel(editor, (32, 32), "blurred", (0.7, 0.0)).condition(view, 9)
        assert torch.equal(out[1], ends), "at strength 0 the picture is left out, not only its mask"
        # Each expert reads its own.
        x = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        words, transformer = editor.encodings.text["a blue square"], editor.loaded().transformer
        assert isinstance(transformer, Experts)
        velocity = model_of(editor).velocity(view, 3)
        for step in (Step(0, 0.95, 0.5, 950.0), Step(1, 0.5, 0.1, 500.0)):
            of_high, of_low = transformer.expert_list()
            expert, told = (of_high, high) if step.timestep > 900 else (of_low, low)
            direct = expert(x, torch.tensor([step.timestep]), words, None, told)
            assert torch.equal(velocity(x, step), direct)
    with pytest.raises(
        InputError, match=r"middle_strength is \[0.7, 0.2, 0.1\]; expected one number or, for each of 2"
    ):
        editor.folder.held((0.7, 0.2, 0.1))


def test_a_joint_sequence_does_not_lengthen_the_clip(editors) -> None:
    model = model_of(editors["flf2v"])
    view = View(
        "a blue square", frame_ids=(0.0, 1.0, 2.0, 0.0, 2.0), joint=2, appended=torch.zeros(1, 16, 2, 4, 4)
    )
    x = torch.randn(1, 16, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        # Frame 8 is the last one of three slots: were the keyframes counted too, it would be an inner one.
        shown = model.velocity(replace(view, images={8: picture(8)}), 5)(x, STEP)
        hidden = model.velocity(view, 5)(x, STEP)
    assert shown.shape == x.shape
    assert not torch.equal(shown, hidden)


@pytest.mark.parametrize("kind", [*KINDS, "experts"])
@pytest.mark.parametrize("branch", ["analytic", "denoised"])
def test_every_kind_of_model_edits(folders, tmp_path: Path, kind: str, branch: str) -> None:
    folder = open_wan(folders[kind] if kind in folders else write_experts(tmp_path / "experts"))
    task = edit_task(6, (0, 5))
    method = ResidualCorrectedFlow(Exponential(), edit_branch=branch)  # pyright: ignore[reportArgumentType]
    editor = loaded(task, method, replace(FAST, guidance_scale=2.0), folder)
    if kind == "t2v" and branch == "denoised":
        with pytest.raises(InputError, match="reads no images"):
            editor.predict_step(task)
        return
    assert editor.predict_step(task).frames.shape == task.frames.shape
