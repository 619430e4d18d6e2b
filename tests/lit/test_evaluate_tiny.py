"""scripts/evaluate_tiny.py: the shipped weights reach the table's figures on 8 clips; mistakes are short and exit 2."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from wanedit.lit.chain import ChainSettings, FLF2VChain
from wanedit.lit.tasks import SegmentTask
from wanedit.lit.training.evaluate import SamplerSettings, sample
from wanedit.lit.training.evaluate_rows import (
    Evaluation,
    first_rows,
    flf_figures,
    middle_crop,
    vae_rows,
)
from wanedit.lit.training.evaluate_sets import Clip, batches, first_clips, linear, single_plain, videos
from wanedit.lit.training.evaluate_sprites import NOT_FOUND, centre_errors, drift, is_named, looked_at
from wanedit.lit.training.scorecard import Row, table
from wanedit.wan.load import Wan, load_wan

# What 8 clips of the shipped weights must reach, below what they were measured at.
AT_LEAST = {"vae": 23.0, "inner": 21.0, "ends": 23.0, "gain": -5.0}
AT_MOST = {"colour": 0.25}

MAIN = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "evaluate_tiny.py"))["main"]


@pytest.fixture(scope="module")
def wan() -> Wan:
    return load_wan("tiny")


@pytest.fixture(scope="module")
def evaluation(wan: Wan) -> Evaluation:
    own = wan.folder.sampling
    settings = SamplerSettings(own.num_inference_steps, own.shift, own.guidance_scale)
    return Evaluation(wan, settings, clips=8)


def test_shipped_weights_between_keyframes(evaluation):
    found = flf_figures(evaluation, first_clips(8, 17, linear), 64)
    means = {name: float(values.mean()) for name, values in found.items()}
    assert means["inner"] >= AT_LEAST["inner"]
    assert means["ends"] >= AT_LEAST["ends"]
    assert means["inner"] - means["fade"] >= AT_LEAST["gain"]


def test_shipped_weights_of_the_vae_and_from_one_frame(evaluation):
    assert vae_rows(evaluation)[0].value >= AT_LEAST["vae"]
    assert first_rows(evaluation)[0].value <= AT_MOST["colour"]


def test_a_batch_is_sampled_as_the_chain_samples_one_segment(wan, monkeypatch):
    clips = first_clips(2, 5, linear)
    video, own = videos(clips, 32), wan.folder.sampling
    settings = SamplerSettings(3, own.shift, 2.0)
    known = {0: video[:, :, 0], 4: video[:, :, -1]}
    batch = sample(wan, known, [clip.prompt for clip in clips], 5, (32, 32), settings, [0, 1])
    chain = FLF2VChain(wan.folder, ChainSettings(3, own.shift, 2.0))
    task = SegmentTask(
        1, 5, video[1, :, 0], video[1, :, -1], clips[1].prompt, own.negative_prompt, settings.seed, ""
    )
    chain.load([task])
    from wanedit.rng import noise

    # The same noise: the chain names its own by the segment.
    monkeypatch.setattr(
        "wanedit.lit.chain.noise", lambda shape, seed, *_: noise(shape[1:], seed, "evaluate", 1)[None]
    )
    assert torch.allclose(chain.sample(task)[0], batch[1], atol=1e-3)


def test_noise_belongs_to_the_clip_and_not_to_its_batch(wan):
    settings, prompt = SamplerSettings(2, guidance=4.0), "a red star stands still."
    both = sample(wan, {}, [prompt, prompt], 5, (32, 32), settings, [5, 6])
    alone = sample(wan, {}, [prompt], 5, (32, 32), settings, [6])
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=0.1)


def test_truth_passes_and_a_wrong_sample_fails():
    clips = first_clips(3, 17, single_plain)
    for clip, other in zip(clips, clips[1:] + clips[:1], strict=True):
        truth, wrong = clip.video(64), other.video(64)
        assert is_named(clip, looked_at(truth)) == (True, True)
        assert is_named(clip, looked_at(wrong)) != (True, True)
        assert drift(clip, truth, truth).colour < 0.02
        assert not drift(clip, truth, truth).lost
        gone = drift(clip, clip.background(64).expand(-1, 17, -1, -1), truth)
        assert gone.lost
        assert gone.colour > 0.08
        assert centre_errors(clip, truth, truth) == [0.0]
        assert centre_errors(clip, truth.roll(5, dims=-1), truth)[0] > 2
        assert centre_errors(clip, clip.background(64).expand(-1, 17, -1, -1), truth) == [NOT_FOUND]


def test_clips_are_consecutive_seeds_that_obey_the_rule():
    chosen, every = first_clips(5, 17, linear), first_clips(40, 17)
    assert [clip.seed for clip in every] == list(range(40))
    assert [clip.seed for clip in chosen] == [clip.seed for clip in every if linear(clip.scene)][:5]
    assert sum(map(len, batches(every, 64 * 64 * 17))) == 40
    assert isinstance(chosen[0], Clip)


def test_real_clips_are_cut_to_their_middle():
    clip = torch.arange(30).view(1, 30, 1, 1).expand(3, -1, 128, 200)
    middle = middle_crop(clip)
    assert middle.shape == (3, 17, 128, 128)
    assert middle[0, 0, 0, 0] == 6
    assert middle_crop(clip[:, :3]).shape[1] == 1


def test_the_table_says_which_bars_are_met():
    rows = [Row("a", 30.1, "dB", 30), Row("b", 3.0, "px", 2, False), Row("c", None, "dB", 24, note="give x")]
    assert [row.verdict for row in rows] == ["pass", "MISS", "not measured"]
    assert Row("nan", float("nan"), "dB", 1).verdict == "MISS"
    assert ">= 30.00 dB" in table(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "neither a folder nor a known model"),
        (["--clips", "0"], "clips is 0; expected at least 1"),
        (["--footage", "none.mp4"], "footage: got none.mp4; expected existing files"),
        (["--footage", __file__], "has no frame that can be read"),
        (["--solver", "magic"], "expected one of euler"),
    ],
)
def test_a_mistake_is_short_and_exits_2_before_the_model_is_loaded(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("wanedit.wan.load.load_wan", lambda *_: pytest.fail("the model was loaded"))
    assert MAIN(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_the_script_prints_a_table_and_writes_json(tmp_path, capsys):
    out = tmp_path / "scores.json"
    assert MAIN(["--rows", "size", "footage", "--out", str(out)]) == 0
    assert "give --footage" in capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["all weight files"]["verdict"] == "pass"


def test_samples_have_the_shape_of_their_clips(evaluation):
    clips = first_clips(1, 5, linear)
    assert evaluation.between(clips, videos(clips, 32)).shape == (1, 3, 5, 32, 32)
