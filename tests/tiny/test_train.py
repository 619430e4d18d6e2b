"""The whole training of wan-tiny in miniature: what it writes, what it refuses, what a second start does again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tiny import latents, train
from tiny.assets import SAMPLING
from tiny.plan import Bucket, FlowStage, TrainTiny, VaeStage, keep_plan
from tiny.train import main, read_plan, train_tiny
from wanedit.errors import InputError
from wanedit.wan.load import load_wan

CONFIGS = Path(train.__file__).parent
TRANSFORMER = "diffusion_pytorch_model.safetensors"
STAGE = {"num_frames": 1, "crop": 16, "batch": 2, "max_steps": 2, "minutes": 5, "learning_rate": 1e-3}
BUCKET = {
    "size": 32,
    "lengths": (1, 5),
    "clips": 3,
    "first_seed": 9,
    "batches": (2, 2),
    "weights": (0.3, 0.7),
}
FLOW = {"max_steps": 3, "minutes": 5, "learning_rate": 1e-3, "shift": 3.0, "image_from": 0.5}


def plan_in(folder: Path) -> TrainTiny:
    return TrainTiny(
        out=folder / "run",
        assets=folder / "tiny",
        vae=(VaeStage(**STAGE),),
        flow=FlowStage(**FLOW, buckets=(Bucket(**BUCKET),)),
        compiled=False,
        accelerator="cpu",
        small_clips=2,
        large_clips=1,
        leaves=1,
    )


@pytest.fixture
def plan(tmp_path, monkeypatch) -> TrainTiny:
    monkeypatch.setattr(latents, "STATISTICS_CLIPS", 4)
    return plan_in(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> TrainTiny:
    """A training, done once; nobody writes into its folders."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(latents, "STATISTICS_CLIPS", 4)
        plan = plan_in(tmp_path_factory.mktemp("training"))
        train_tiny(plan)
    return plan


def forbid(monkeypatch, module, name):
    monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail(f"{name} ran"))


def test_a_training_writes_a_folder_that_loads_and_can_be_trained_further(finished, plan):
    wan = load_wan(finished.assets)
    assert wan.folder.sampling.num_inference_steps == SAMPLING["num_inference_steps"]
    assert not [path for path in finished.assets.rglob("*") if path.suffix in (".part", ".partial")]
    before = load_file(finished.assets / TRANSFORMER)
    train_tiny(replace(plan, start=finished.assets))
    after = load_file(plan.assets / TRANSFORMER)
    assert before.keys() == after.keys()
    moved = max(float((after[name].float() - before[name].float()).abs().max()) for name in before)
    assert 0 < moved < 0.05
    first, second = (p.assets / "google" / "umt5-xxl" / "tokenizer.json" for p in (finished, plan))
    assert first.read_bytes() == second.read_bytes()


def test_a_finished_training_repeats_no_stage(finished, plan, monkeypatch):
    shutil.copytree(finished.out, plan.out)
    forbid(monkeypatch, train, "train_vae_stage")
    forbid(monkeypatch, train, "train_flow")
    forbid(monkeypatch, latents, "encode_clips")
    kept = torch.load(next(plan.out.glob("latents_32_5_*.pt")))
    assert kept["latents"].dtype == kept["known"].dtype == torch.float16
    before = load_file(finished.assets / TRANSFORMER)
    train_tiny(plan)
    after = load_file(plan.assets / TRANSFORMER)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_kill_loses_one_chunk_of_latents_and_leaves_the_assets_as_they_were(finished, plan, monkeypatch):
    plan.out.mkdir()
    for name in ("plan.json", "vae0.pt"):
        shutil.copy(finished.out / name, plan.out / name)
    (plan.out / "vae0").mkdir()
    shutil.copy(finished.out / "vae0" / "metrics.csv", plan.out / "vae0")
    forbid(monkeypatch, train, "train_vae_stage")
    monkeypatch.setattr(latents, "CHUNK", 2)
    asked, whole = [], latents.encode_clips

    def encode(encoder, seeds, *rest, **named):
        asked.append(list(seeds))
        if len(asked) == 2:
            raise RuntimeError("killed")
        return whole(encoder, seeds, *rest, **named)

    monkeypatch.setattr(latents, "encode_clips", encode)
    plan.assets.mkdir()
    (plan.assets / TRANSFORMER).write_bytes(b"old")
    with pytest.raises(RuntimeError, match="killed"):
        train_tiny(plan)
    assert (plan.assets / TRANSFORMER).read_bytes() == b"old"
    assert [path.name for path in plan.assets.iterdir()] == [TRANSFORMER]
    train_tiny(plan)
    assert asked == [[9, 10], [11], [11]]
    assert len(load_file(plan.assets / TRANSFORMER)) > 1


def test_the_last_finished_stage_is_enough(plan, monkeypatch):
    forbid(monkeypatch, train, "train_vae_stage")
    forbid(monkeypatch, train, "sprite_clips")
    two = replace(plan, vae=plan.vae * 2)
    two.out.mkdir()
    last = {name: value + 1 for name, value in train.build_vae().state_dict().items()}
    torch.save(last, two.out / "vae1.pt")
    vae = train.trained_vae(two)
    assert all(torch.equal(value, last[name]) for name, value in vae.state_dict().items())


def test_the_name_of_latents_says_what_decides_them(plan, tokenizer):
    bucket, vae = plan.flow.buckets[0], torch.nn.Linear(2, 2)
    given = (bucket, vae, ([0.0], [1.0]), tokenizer)
    first = latents.stamp(*given)
    assert first == latents.stamp(replace(bucket, batches=(4, 4)), *given[1:])
    # A tokenizer that has been used is still the same one.
    latents.token_ids(tokenizer, ["a red star"], 64)
    assert first == latents.stamp(*given)
    changed = [
        (replace(bucket, first_seed=8), *given[1:]),
        (bucket, torch.nn.Linear(2, 2), *given[2:]),
        (bucket, vae, ([0.0], [2.0]), given[3]),
    ]
    assert len({first, *(latents.stamp(*each) for each in changed)}) == 4


def test_a_folder_belongs_to_one_plan(plan):
    keep_plan(plan)
    keep_plan(replace(plan, accelerator="auto", compiled=True, assets=Path("elsewhere")))
    with pytest.raises(InputError, match="seed: got 1; expected 0"):
        keep_plan(replace(plan, seed=1))
    longer = replace(plan.flow, minutes=6)
    with pytest.raises(InputError, match=r"flow\.minutes: got 6; expected 5"):
        keep_plan(replace(plan, flow=longer))
    with pytest.raises(InputError, match=r"vae\.1\.num_frames: got 1; expected None"):
        keep_plan(replace(plan, vae=plan.vae * 2))


def test_a_folder_without_a_record_is_refused(plan):
    plan.out.mkdir()
    (plan.out / "vae0.pt").touch()
    with pytest.raises(InputError, match=r"holds vae0\.pt but no plan\.json"):
        keep_plan(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"footage": (Path("no.mp4"),)}, "footage: got no.mp4"),
        ({"footage": (Path(__file__),)}, "has no frame that can be read"),
        ({"start": Path("nowhere")}, "start: nowhere lacks .*tokenizer.json"),
        ({"tokenizer": Path("nowhere")}, "tokenizer: nowhere lacks tokenizer.json"),
        ({"accelerator": "gpu"}, "accelerator: got gpu"),
    ],
)
def test_missing_inputs_are_named_before_anything_starts(plan, change, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        train_tiny(replace(plan, **change))
    assert not plan.out.exists()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (VaeStage, STAGE | {"num_frames": 4}, r"num_frames is 4; expected 4n \+ 1"),
        (VaeStage, STAGE | {"num_frames": 21}, "num_frames is 21"),
        (VaeStage, STAGE | {"crop": 12}, "crop is 12; expected a multiple of 8"),
        (VaeStage, STAGE | {"crop": 72}, "crop is 72; .* at most 64"),
        (VaeStage, STAGE | {"minutes": 0}, "minutes is 0; expected above 0"),
        (VaeStage, STAGE | {"max_steps": 0}, "max_steps is 0"),
        (Bucket, BUCKET | {"size": 40}, "size is 40; expected a multiple of 16"),
        (Bucket, BUCKET | {"lengths": (5, 1)}, "lengths is .* expected increasing"),
        (Bucket, BUCKET | {"lengths": (1, 6)}, "lengths is .* 4n"),
        (Bucket, BUCKET | {"lengths": ()}, "lengths is"),
        (Bucket, BUCKET | {"batches": (2,)}, "batches is .* expected 2 above 0, one per length"),
        (Bucket, BUCKET | {"weights": (0.5, 0.0)}, "weights is"),
        (Bucket, BUCKET | {"encode_batch": 0}, "encode_batch is 0"),
        (Bucket, BUCKET | {"first_seed": -1}, "first_seed is -1"),
        (FlowStage, FLOW | {"buckets": ()}, "buckets is .* expected at least one"),
        (FlowStage, FLOW | {"buckets": (Bucket(**BUCKET),), "image_from": 1.5}, "image_from is 1.5"),
        (FlowStage, FLOW | {"buckets": (Bucket(**BUCKET),), "max_steps": -1}, "max_steps is -1"),
    ],
)
def test_settings_that_no_training_can_have_are_refused(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vae": ()}, "vae is .* expected at least one stage"),
        ({"pool_weights": (1.0, 1.0)}, "pool_weights is .* expected 4 numbers"),
        ({"accelerator": "tpu"}, "accelerator is tpu; expected one of auto"),
        ({"leaves": 0}, "leaves is 0"),
    ],
)
def test_plans_that_no_training_can_have_are_refused(plan, change, message):
    with pytest.raises(InputError, match=message):
        replace(plan, **change)


def test_the_shipped_configuration_is_a_plan(tmp_path):
    plan = read_plan(["--config", str(CONFIGS / "cpu.yaml"), "--out", str(tmp_path)])
    assert sum(sum(bucket.weights) for bucket in plan.flow.buckets) == pytest.approx(1)
    assert plan.crop_weights() == (0.5, 0.17, 0.1)
    keep_plan(plan)
    assert json.loads((tmp_path / "plan.json").read_text())["flow"]["buckets"][1]["first_seed"] == 1_000_000


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--footage", "[no.mp4]"], "footage: got no.mp4"), (["--leaves", "0"], "plan: leaves is 0")],
)
def test_the_command_ends_with_one_line_and_exit_code_2(flags, message, tmp_path, capsys):
    given = ["--config", str(CONFIGS / "cpu.yaml"), "--out", str(tmp_path / "run"), *flags]
    assert main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tiny.train: {message}")
    assert said.count("\n") == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_training_runs_on_a_gpu(plan):
    precision = torch.get_float32_matmul_precision()
    try:
        train_tiny(replace(plan, accelerator="gpu"))
    finally:
        torch.set_float32_matmul_precision(precision)
    assert load_wan(plan.assets).folder.sampling.num_inference_steps == SAMPLING["num_inference_steps"]
