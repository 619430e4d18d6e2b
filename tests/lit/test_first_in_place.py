"""TI2V-5B and what is made from it: a first frame that stands clean in the latents, in both jobs."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.lit.clips import FAST, edit_task, loaded, moving
from tests.runs import run_cli
from tests.wan import small
from tests.wan.folders import write_folder, write_transformer
from tests.wan.golden import relative_error
from wanedit.errors import InputError
from wanedit.flow.editing import View
from wanedit.flow.methods.residual_corrected import ResidualCorrectedFlow
from wanedit.flow.path import classifier_free, schedule
from wanedit.lit.chain import FLF2VChain
from wanedit.lit.editor import WanVideoModel
from wanedit.lit.tasks import ChainSettings, SegmentTask
from wanedit.rng import noise
from wanedit.video import from_uint8
from wanedit.wan.condition import build_condition
from wanedit.wan.config import LatentSpace
from wanedit.wan.load import open_wan

SPACE = LatentSpace(48, 16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """TI2V-5B, and Fun-5B-InP, which has condition channels too; in small."""
    root = tmp_path_factory.mktemp("models")
    made = {"TI2V": write_folder(root / "ti2v", "ti2v"), "Fun": write_folder(root / "fun", "ti2v")}
    write_transformer(made["Fun"], small.transformer("ti2v", in_dim=100))
    return made


@pytest.mark.parametrize("kind", ["TI2V", "Fun"])
@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_a_segment_is_sampled_as_diffusers_expands_timesteps(
    folders: dict[str, Path], kind: str, solver: str
) -> None:
    """diffusers, `pipeline_wan_i2v.py`: before every step, and at the end, the first frame's latent is put in place,
    and its tokens are told timestep 0."""
    folder = open_wan(folders[kind])
    assert folder.latent_space == SPACE
    first, last = (from_uint8(moving(9, side=64))[:, frame] for frame in (0, 8))
    task = SegmentTask(0, 9, first, last, "a red square", "blurred", seed=7, latent_space=SPACE)
    chain = FLF2VChain(folder, ChainSettings(3, 3.0, 2.0, solver))
    made = chain.predict_step(task)
    assert made is not None
    sampled = made.latents[None]
    assert sampled.shape == (1, 48, 3, 4, 4)

    transformer, vae = chain.loaded()
    levels, solve = schedule(3, 3.0, solver), chain.solve
    with torch.no_grad():
        known = vae.encode(first[None, :, None])
        shown = build_condition({0: first, 8: last}, 9, vae.encode) if kind == "Fun" else None

        def placed(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([known, x[:, :, 1:]], dim=2)

        def velocity(x: torch.Tensor, step) -> torch.Tensor:
            timestep = torch.tensor([[0.0, step.timestep, step.timestep]])
            texts = [chain.encodings.text[text] for text in (task.prompt, task.negative_prompt)]
            told, not_told = (transformer(placed(x), timestep, text, condition=shown) for text in texts)
            return classifier_free(told, not_told, 2.0)

        start = noise((1, 48, *task.grid), 7, "segment", 0)
        expected = placed(solve(velocity, start, levels, lambda *_: None))
    assert relative_error(sampled, expected) < 1e-5
    assert relative_error(sampled[:, :, :1], known) < 1e-5


@pytest.mark.parametrize("kind", ["TI2V", "Fun"])
def test_an_edit_that_changes_nothing_is_the_source(folders: dict[str, Path], kind: str) -> None:
    same = edit_task(keyframes=moving(9)[[0, 8]], source_prompt="a blue square", latent_space=SPACE)
    editor = loaded(same, ResidualCorrectedFlow(), FAST, open_wan(folders[kind]))
    with torch.no_grad():
        source = editor.problem(same, torch.device("cpu")).source
        edited = editor.predict_step(same).latents
    assert edited is not None
    assert source.shape == (1, 48, 3, 2, 2)
    assert relative_error(edited[None], source) < 1e-5


def test_the_first_keyframe_reaches_the_edit(folders: dict[str, Path]) -> None:
    task = edit_task(latent_space=SPACE)
    editor = loaded(task, ResidualCorrectedFlow(), FAST, open_wan(folders["TI2V"]))
    blind = dataclasses.replace(FAST, condition_keyframes=False)
    unshown = loaded(task, ResidualCorrectedFlow(), blind, open_wan(folders["TI2V"]))
    first, second = (one.predict_step(task).latents for one in (editor, unshown))
    assert first is not None
    assert second is not None
    assert not torch.equal(first[:, 1:], second[:, 1:])


def test_what_appended_slots_hold_has_no_channels_to_be_told_by(folders: dict[str, Path]) -> None:
    editor = loaded(edit_task(latent_space=SPACE), ResidualCorrectedFlow(), FAST, open_wan(folders["TI2V"]))
    view = View("a blue square", joint=1, appended=torch.zeros(1, 48, 1, 2, 2))
    with pytest.raises(InputError, match=r"has no channels .* show_keyframes false"):
        WanVideoModel(editor, (32, 32), "blurred").velocity(view, 4)


def test_both_jobs_run_and_their_plans_say_what_the_model_is_shown(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    demo = Path("examples/multi_keyframe_demo").absolute()
    common = ["--ckpt_dir", str(folders["TI2V"]), "--size", "72*40", "--num_inference_steps", "2"]
    generate = ["generate", "--keyframes", f"{demo}/start.png:0,{demo}/rise.png:0.3", "--prompt", "a star"]
    generate += [*common, "--fps", "24", "--output", str(tmp_path / "made")]
    told = " ".join(run_cli(*generate, "--dry_run").out.split())
    assert "72*40 are no multiples of 32: the model works on 96*64" in told
    assert "is shown the first keyframe of a segment alone" in told
    assert "; of a clip it is shown the first frame alone" in told
    assert run_cli(*generate).code == 0
    edit = ["edit", str(tmp_path / "made" / "output_final.mp4"), "--keyframes", f"{demo}/rise.png:0"]
    edit += ["--prompt", "a red star", *common, "--output", str(tmp_path / "edited")]
    assert run_cli(*edit).code == 0
    assert (tmp_path / "edited" / "output_final.mp4").is_file()


def test_a_tile_that_the_models_vae_cannot_have_is_refused_in_the_plan(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    demo = Path("examples/multi_keyframe_demo").absolute()
    done = run_cli(
        "generate", "--keyframes", f"{demo}/start.png:0,{demo}/rise.png:0.3", "--prompt", "a star", "--dry_run",
        "--ckpt_dir", str(folders["TI2V"]), "--tile", "40", "--output", str(tmp_path / "made"),
    )  # fmt: skip
    assert done.code == 2
    assert "tile is 40 pixels; expected a multiple of 16, at least 64" in done.err
