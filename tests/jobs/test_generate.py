"""The job on the real bundled model: what is written, what a second run does, what a fault leaves."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.runs import FAST, Run, command, draw_keyframe, run_cli
from wanedit import GenerationResult, MultiKeyframePipeline
from wanedit.errors import InputError, MissingWeightsError, NumericalError, ResourceError
from wanedit.flow.path import Schedule
from wanedit.flow.solvers import Observer, Velocity
from wanedit.jobs.generate import run as run_module
from wanedit.jobs.generate.assemble import final_frames
from wanedit.jobs.generate.config import GenerationConfig
from wanedit.jobs.generate.joins import Todo
from wanedit.jobs.generate.plan import make_plan
from wanedit.lit.velocity import GuidedVelocity
from wanedit.report.facts import plan as plan_section
from wanedit.report.record import read_record
from wanedit.runtime.claims import InUseError, Queue
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.events import append_event
from wanedit.runtime.launch import World
from wanedit.runtime.leftovers import last_started, leftovers
from wanedit.runtime.predict import load_latents, save_latents
from wanedit.runtime.record import read_run, read_settings, recorded_config
from wanedit.video import load_image, probe, read_frames, write_lossless

FRAMES = (0, 4, 8, 13)


def journal(result: GenerationResult) -> dict:
    """The journal of a run."""
    return json.loads((result.contact_sheet.parent / "segments" / "progress.json").read_text())["segments"]


def latents_of(result: GenerationResult) -> list[str]:
    """Hashes of the latents in the order of the segments."""
    return [journal(result)[name]["latents_sha256"] for name in result.segments]


def test_a_run_writes_all_that_it_promises(finished: GenerationResult) -> None:
    folder = finished.video.parent
    info = probe(finished.video)
    assert finished.keyframe_frames == FRAMES
    assert (info.frames, info.width, info.height, float(info.fps)) == (14, 32, 32, 16.0)
    assert {"config.yaml", "metrics.jsonl", "contact_sheet.png", "junctions.png"} <= {
        p.name for p in folder.iterdir()
    }
    entries = [(entry["frames"], Path(entry["file"]).suffix) for entry in journal(finished).values()]
    assert sorted(entries) == sorted((n, kind) for n in (5, 5, 9) for kind in (".mkv", ".safetensors"))
    assert not list(folder.rglob("*.partial"))
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    # The longest first.
    assert [line["segment"] for line in metrics if line["event"] == "segment"] == [2, 0, 1]


def test_a_run_records_its_inputs(run: Run, keyframes, tmp_path: Path) -> None:
    from PIL import Image

    wide = tmp_path / "wide.png"
    Image.new("RGBA", (90, 40), (200, 30, 30, 128)).save(wide)
    result = run(keyframes=[[str(wide), 0.0], keyframes[1]])
    start = json.loads((result.video.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert any("white" in note for note in start["keyframes"][0]["normalised"])
    assert start["keyframes"][0]["fit"]["policy"] == "crop"
    assert any("wide.png" in warning for warning in start["warnings"])
    assert all(len(sha) == 64 for sha in start["model_files"].values())


def test_the_video_carries_its_configuration_and_hashes(finished: GenerationResult) -> None:
    with av.open(str(finished.video)) as container:
        stored = dict(container.metadata)
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert json.loads(stored["wanedit_segments"]) == list(finished.segments)
    config = json.loads(stored["wanedit_config"])
    assert config["base_seed"] == 7
    assert [keyframe["seconds"] for keyframe in config["keyframes"]] == [0.0, 0.25, 0.5, 0.8]
    assert str(finished.video.parent.parent) not in json.dumps(stored)


def test_journalled_hashes_are_those_of_the_latents(finished: GenerationResult) -> None:
    import hashlib

    for entry in map(journal(finished).get, finished.segments):
        assert entry is not None
        latents = load_file(finished.video.parent / "segments" / entry["file"])["latents"]
        assert latents.dtype == torch.float32
        assert hashlib.sha256(latents.numpy().tobytes()).hexdigest() == entry["latents_sha256"]


def test_a_second_run_samples_nothing_and_gives_the_same_video(run: Run) -> None:
    first = run()
    pixels, stamps = (
        read_frames(first.video),
        [p.stat().st_mtime_ns for p in first.video.parent.glob("segments/*.mkv")],
    )
    second = run()
    assert (first.sampled, second.sampled) == ((0, 1, 2), ())
    assert [p.stat().st_mtime_ns for p in second.video.parent.glob("segments/*.mkv")] == stamps
    assert np.array_equal(read_frames(second.video), pixels)


def test_changing_one_keyframe_samples_its_two_segments(run: Run, keyframes, tmp_path: Path) -> None:
    before = run()
    changed = [list(pair) for pair in keyframes]
    changed[1][0] = str(draw_keyframe(tmp_path / "other.png", 9))
    after = run(keyframes=changed)
    assert after.sampled == (0, 1)
    assert after.segments[2] == before.segments[2]


@pytest.mark.parametrize(
    ("changes", "sampled"),
    [
        ({"prompt": "a green ball"}, (0, 1, 2)),
        ({"base_seed": 8}, (0, 1, 2)),
        ({"guidance_scale": 1.0}, (0, 1, 2)),
        ({"colour_correction": False, "restore": "none", "enable_smoothing": True, "crf": 20}, ()),
        ({"force_regenerate": True}, (0, 1, 2)),
        ({"resume_from": 2}, (2,)),
    ],
)
def test_what_decides_the_pixels_decides_what_is_sampled(
    run: Run, changes: dict, sampled: tuple[int, ...]
) -> None:
    run()
    assert run(**changes).sampled == sampled


@pytest.mark.parametrize("restore", ["auto", "residual", "keyframes", "none"])
def test_keyframes_are_shown_to_the_level_unless_nothing_is_restored(
    finished: GenerationResult, restore: Any
) -> None:
    root = finished.video.parent
    config = dataclasses.replace(
        recorded_config(GenerationConfig, read_settings(root / "config.yaml"), root), restore=restore
    )
    plan = make_plan(config)
    frames = np.stack(list(final_frames(plan, RunDirectory(root, finished.video))))
    assert len(frames) == finished.num_frames
    shown = [np.array_equal(frames[at], key.pixels()) for at, key in zip(FRAMES, plan.keyframes, strict=True)]
    assert shown == [restore != "none"] * len(FRAMES)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_damaged_frames_are_decoded_again_and_damaged_latents_sampled(run: Run) -> None:
    result = run()
    reference, pixels = latents_of(result), read_frames(result.video)
    frames, latents = (
        next(result.video.parent.glob(f"segments/segment_001*{kind}")) for kind in (".mkv", ".safetensors")
    )
    cut_short(frames)
    assert run().sampled == ()
    assert np.array_equal(read_frames(result.video), pixels)
    # Whole frames need no latents.
    cut_short(latents)
    assert run().sampled == ()
    cut_short(frames)
    assert run().sampled == (1,)
    assert latents_of(result) == reference
    assert np.array_equal(read_frames(result.video), pixels)


def test_swapped_frames_are_decoded_again(run: Run) -> None:
    result = run()
    pixels = read_frames(result.video)
    first, second = (next(result.video.parent.glob(f"segments/segment_00{i}*.mkv")) for i in (0, 1))
    first.write_bytes(second.read_bytes())
    assert run().sampled == ()
    assert np.array_equal(read_frames(result.video), pixels)


@pytest.mark.parametrize(("kind", "sampled"), [(".mkv", ()), (".safetensors", (1,))])
def test_a_segment_that_somebody_worked_on_is_not_replaced(
    run: Run, kind: str, sampled: tuple[int, ...]
) -> None:
    result = run()
    file = next(result.video.parent.glob(f"segments/segment_001*{kind}"))
    if kind == ".mkv":
        write_lossless(file, 255 - read_frames(file), 16)
    else:
        save_latents(file, -load_latents(file))
    theirs = file.read_bytes()
    for changes in ({}, {"force_regenerate": True}):
        with pytest.raises(
            InputError, match=f"{file.name} was changed since wanedit wrote it .*move it away"
        ):
            run(**changes)
    assert file.read_bytes() == theirs
    file.rename(file.with_name(f"graded{kind}"))
    assert run(save_latents=True).sampled == sampled


def test_a_folder_that_is_removed_while_the_run_works_is_no_wrong_name(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def assembled(plan: Any, directory: RunDirectory, tell: Any) -> None:
        removed.append(directory.root)
        shutil.rmtree(directory.root)
        append_event(directory.metrics, {"event": "late"})

    with monkeypatch.context() as patch:
        patch.setattr("wanedit.jobs.generate.run.assemble", assembled)
        with pytest.raises(ResourceError, match="was removed while the run was at work; run again"):
            run()
    assert not removed[0].exists()
    assert run().sampled == (0, 1, 2)


def test_a_video_path_that_is_a_folder_is_refused_first(run: Run, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        run(output=str(tmp_path / "film.mp4"))
    assert not (tmp_path / "film.wanedit").exists()


def test_resume_from_needs_what_lies_before(run: Run) -> None:
    with pytest.raises(InputError, match=r"segments \[0\] are not complete"):
        run(resume_from=1)
    with pytest.raises(InputError, match="0 to 2"):
        run(resume_from=3)


@pytest.mark.fault(16)
def test_a_drawn_seed_is_recorded_and_reused(run: Run) -> None:
    first = run(base_seed=-1)
    assert first.seed >= 0
    second = run(base_seed=None)
    assert (second.seed, second.sampled) == (first.seed, ())
    assert run(base_seed=None, force_regenerate=True).seed != first.seed


def test_noise_does_not_depend_on_the_process(run: Run, finished: GenerationResult, tmp_path: Path) -> None:
    torch.manual_seed(123)
    torch.randn(5)
    assert latents_of(run()) == latents_of(finished)


@pytest.mark.fault(15)
def test_guidance_one_skips_the_unconditional_pass(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[GuidedVelocity] = []
    original = GuidedVelocity.__init__

    def spy(self, *args, **kwargs):
        original(self, *args, **kwargs)
        seen.append(self)

    monkeypatch.setattr(GuidedVelocity, "__init__", spy)
    run(guidance_scale=1.0)
    assert [velocity.evaluations for velocity in seen] == [2, 2, 2]


@pytest.mark.fault(9)
def test_nan_names_segment_rank_and_step_and_keeps_what_is_done(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = GuidedVelocity.__call__
    calls = iter(range(100))

    def poisoned(self, x, step):
        v = original(self, x, step)
        return v * float("nan") if next(calls) == 3 else v

    monkeypatch.setattr(GuidedVelocity, "__call__", poisoned)
    with pytest.raises(NumericalError, match=r"segment 0, rank 0.*step 1"):
        run()
    monkeypatch.setattr(GuidedVelocity, "__call__", original)
    assert run().sampled == (0, 1)  # the longest, the last one, came first


@pytest.mark.fault(32)
def test_two_runs_cannot_share_a_folder(run: Run, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "out", tmp_path / "out" / "output_final.mp4")
    with directory.lock(), pytest.raises(ResourceError, match="in use by process"):
        run()
    assert run().sampled == (0, 1, 2)


@pytest.mark.fault(32)
def test_who_is_of_the_same_run_helps_and_nobody_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = run().video
    metrics = tmp_path / "out" / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(line for line in lines if '"wrote"' not in line))  # as one that still works
    before = film.read_bytes()
    film.unlink()
    busy = Queue(tmp_path / "out")
    with busy.working():
        for changes, words in (
            ({"num_inference_steps": 3}, "at another run: its num_inference_steps is 2, here it is 3"),
            ({"num_gpus": 2}, "torchrun --nproc_per_node=2 -m wanedit work"),
            ({"force_regenerate": True}, "is to be made anew here"),
        ):
            with pytest.raises(InUseError, match=f"in use by process .*{words}"):
                run(**changes)
        with monkeypatch.context() as patch:
            patch.setattr("wanedit.__version__", "0.0.1")
            with pytest.raises(InUseError, match=r"its wanedit is .*, this one 0\.0\.1"):
                run()
        with monkeypatch.context() as patch:
            patch.setattr("wanedit.jobs.generate.plan.hash_files", lambda folder, say: {"other": "weights"})
            with pytest.raises(InUseError, match="its model's files, pictures or kind of device are others"):
                run()
        assert run().sampled == ()
    assert film.read_bytes() == before
    assert sum('"start"' in line for line in metrics.read_text().splitlines()) == 1
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.fault(3)
def test_a_full_disk_is_seen_before_anything_is_sampled(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ResourceError, match="MB needed"):
        run()


@pytest.mark.fault(28)
def test_a_journal_cannot_lead_out_of_the_folder(run: Run) -> None:
    result = run()
    path = result.video.parent / "segments" / "progress.json"
    values = json.loads(path.read_text())
    next(iter(values["segments"].values()))["file"] = "../../etc/passwd"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match="plain name"):
        run()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "no-such-model"}, InputError, "neither a file, a folder nor a known model"),
        ({"model": "Wan2.1-FLF2V-14B-720P"}, MissingWeightsError, "models download Wan2.1-FLF2V-14B-720P"),
        ({"ckpt_dir": "."}, MissingWeightsError, "has no diffusion_pytorch_model"),
        (
            {"fps": 200.0, "long_segments": "error"},
            InputError,
            "segment 0 needs 51 frames; the model is good for",
        ),
        ({"sub_prompts": ["one"]}, InputError, "1 sub_prompts for 3 segments"),
        ({"gpu_ids": "0"}, InputError, "no GPU"),
    ],
)
def test_what_cannot_work_is_refused_before_a_weight_is_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch, changes: dict, error: type[Exception], words: str
) -> None:
    if torch.cuda.is_available() and "gpu_ids" in changes:
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr("wanedit.wan.checkpoint.fill", lambda *a, **k: pytest.fail("a weight was loaded"))
    with pytest.raises(error, match=words):
        run(**changes)


def test_long_segments_are_stretched_and_it_is_said(run: Run, keyframes) -> None:
    ends = [[keyframes[0][0], 0.0], [keyframes[3][0], 2.5]]
    result = run(keyframes=ends, num_inference_steps=1)
    assert result.num_frames == 41
    assert probe(result.video).frames == 41
    start = json.loads((result.video.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert any("33: these are sampled and stretched 1.25-fold" in warning for warning in start["warnings"])


def test_a_foreign_config_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "out" / "config.yaml"
    own.parent.mkdir()
    own.write_text("# mine\nkeyframes: []\n")
    with pytest.raises(InputError, match="not a record of wanedit"):
        run()
    assert own.read_text().startswith("# mine")


@pytest.mark.parametrize("output", ["/proc/nowhere", "a-file/below"])
def test_an_output_that_cannot_be_is_an_input_error(run: Run, tmp_path: Path, output: str) -> None:
    (tmp_path / "a-file").touch()
    with pytest.raises(InputError, match="output"):
        run(output=str(tmp_path / output))


def test_latents_that_are_gone_are_made_again_where_they_are_asked_for(run: Run) -> None:
    result = run()
    for path in result.video.parent.glob("segments/*.safetensors"):
        path.unlink()
    assert run().sampled == ()
    assert run(save_latents=True).sampled == (0, 1, 2)
    assert run(save_latents=True).sampled == ()


def made_before_latents_were_kept(result: GenerationResult) -> None:
    """Make of a run that was decoded apart one of before: frames under their segments' names, no latents."""
    root = result.video.parent
    folder, values = root / "segments", json.loads((root / "segments" / "progress.json").read_text())
    found = values["segments"]
    frames = {e["index"]: e for name, e in found.items() if name not in result.segments}
    for name in result.segments:
        latents, piece = found[name], frames[found[name]["index"]]
        (folder / latents["file"]).unlink()
        old = Path(latents["file"]).with_suffix(".mkv").name
        (folder / piece["file"]).rename(folder / old)
        found[name] = piece | {"file": old, "latents_sha256": latents["latents_sha256"]}
    values["segments"] = {name: found[name] for name in result.segments}
    (folder / "progress.json").write_text(json.dumps(values))
    record = [line for line in (root / "config.yaml").read_text().splitlines() if "decode:" not in line]
    (root / "config.yaml").write_text("\n".join(record))


def test_a_run_of_before_latents_were_kept_goes_on_decoded_apart(run: Run, keyframes) -> None:
    result = run(decode="apart")
    pixels = read_frames(result.video)
    made_before_latents_were_kept(result)
    assert len(read_run(result.video.parent).video) == 14
    assert run().sampled == ()
    assert np.array_equal(read_frames(result.video), pixels)
    start = json.loads((result.video.parent / "metrics.jsonl").read_text().splitlines()[-2])
    assert any("--decode once mends the joins" in warning for warning in start["warnings"])
    next(result.video.parent.glob("segments/segment_001*.mkv")).unlink()
    assert run().sampled == (1,)
    assert np.array_equal(read_frames(result.video), pixels)
    once = run(decode="once")
    assert once.sampled == (0, 2)
    assert not np.array_equal(read_frames(result.video), pixels)
    assert once.segments == result.segments


def test_a_prompt_that_is_cut_is_told(run: Run) -> None:
    result = run(prompt="a green square " * 60)
    start = json.loads((result.video.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert any("tokens is cut" in warning for warning in start["warnings"])


@pytest.mark.parametrize("changes", [{"t5_cpu": True}, {"tile": 32, "size": "64*64"}, {"solver": "heun"}])
def test_other_ways_to_the_same_place(run: Run, changes: dict) -> None:
    result = run(**changes)
    assert probe(result.video).frames == 14


@pytest.mark.fault(12)
@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([0.0], r"1 keyframe\(s\); expected at least two"),
        ([0.0, 0.01], r"both fall on frame 0 at 16 fps"),
    ],
)
def test_no_segment_is_refused_before_a_model_is_loaded(
    run: Run, keyframes, times: list[float], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        run(keyframes=[[path, time] for (path, _), time in zip(keyframes, times, strict=False)])


@pytest.mark.fault(14)
def test_a_length_that_is_not_4n_plus_1_is_planned_and_comes_out(
    finished: GenerationResult, keyframes, tmp_path: Path
) -> None:
    plan = run_cli(*command(keyframes, tmp_path / "out", "--dry_run"))
    assert re.search(r"8 … 13 \(6\) +│ 9 ", plan.out)
    assert len(read_frames(finished.video)) == finished.num_frames == 14


@pytest.mark.fault(11)
def test_disorder_is_refused_or_sorted(run: Run, keyframes) -> None:
    shuffled = [keyframes[2], keyframes[0], keyframes[3], keyframes[1]]
    with pytest.raises(InputError, match="sort_keyframes"):
        run(keyframes=shuffled)
    assert run(keyframes=shuffled, sort_keyframes=True).keyframe_frames == FRAMES


def test_the_pipeline_is_the_same_run(keyframes, finished: GenerationResult, tmp_path: Path) -> None:
    pipeline = MultiKeyframePipeline(**FAST)
    result = pipeline.run([tuple(pair) for pair in keyframes], "", tmp_path / "p" / "film.mp4", verbose=False)
    assert result.video == tmp_path / "p" / "film.mp4"
    assert {path.name for path in (tmp_path / "p").iterdir()} == {"film.mp4", "film.wanedit"}
    assert result.segments == finished.segments
    assert latents_of(result) == latents_of(finished)
    assert pipeline.plan(keyframes).timeline.keyframe_frames == FRAMES


def test_keyframes_in_memory_are_those_of_files_and_kept_with_the_run(
    keyframes, finished: GenerationResult, tmp_path: Path
) -> None:
    pipeline, out = MultiKeyframePipeline(**FAST), tmp_path / "run"
    (first, *_), times = [Image.open(path) for path, _ in keyframes], [time for _, time in keyframes]
    arrays = [load_image(Path(path)).pixels for path, _ in keyframes[1:]]
    given = list(zip([first, arrays[0], torch.from_numpy(arrays[1]), keyframes[3][0]], times, strict=True))
    assert pipeline.plan(given).timeline.keyframe_frames == FRAMES
    with pytest.raises(InputError, match="expected distinct times"):
        pipeline.run([(first, 0.0), (arrays[0], 0.0)], "", out, verbose=False)
    with pytest.raises(InputError, match="keyframe 1: expected a uint8 array"):
        pipeline.run([(first, 0.0), (arrays[0] / 255, 1.0)], "", out, verbose=False)
    assert not out.exists()
    result = pipeline.run(given, "", out, verbose=False)
    assert result.segments == finished.segments
    assert len(list((out / "keyframes").iterdir())) == 3
    assert pipeline.run(given, "", out, verbose=False).sampled == ()


@pytest.mark.parametrize(("given", "planned"), [(7, 7), (None, 0), (-1, 0)])
def test_a_plan_has_the_seed_of_the_pipeline(keyframes, given: int | None, planned: int) -> None:
    pipeline = MultiKeyframePipeline(base_seed=given, cpu_threads=2)
    assert pipeline.plan(keyframes, "a ball").config.base_seed == planned


def test_the_pipeline_knows_the_seeds_names(keyframes) -> None:
    pipeline = MultiKeyframePipeline(sample_steps=3, sample_shift=4.0, size="32*32")
    settings = pipeline.plan(keyframes, sample_guide_scale=1.5, sample_solver="euler").settings
    assert (settings.num_inference_steps, settings.shift, settings.guidance_scale) == (3, 4.0, 1.5)
    assert settings.solver == "euler"
    with pytest.raises(InputError, match="shift is given twice"):
        MultiKeyframePipeline(sample_shift=4.0, shift=5.0)
    with pytest.raises(InputError, match=r"sample_stpes is no setting of GenerationConfig"):
        MultiKeyframePipeline(sample_stpes=3)


def own_euler(velocity: Velocity, x: Tensor, schedule: Schedule, observe: Observer | None = None) -> Tensor:
    """A solver from outside the package."""
    for step in schedule:
        v = velocity(x, step)
        if observe is not None:
            observe(step, x, v)
        x = x - step.h * v
    return x


def test_a_solver_from_outside(run: Run, keyframes, tmp_path: Path) -> None:
    own, name = str(tmp_path / "own"), "tests.jobs.test_generate:own_euler"
    assert latents_of(run(solver=name, output=own)) == latents_of(run(solver="euler"))


SOLVER = """
def mine(velocity, x, schedule, observe=None):
    for step in schedule:
        x = x - FACTOR * step.h * velocity(x, step)
    return BACK
"""


def test_the_code_of_a_solver_from_outside_decides(
    keyframes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def digests(factor: str, back: str = "x") -> list[str]:
        text = SOLVER.replace("FACTOR", factor).replace("BACK", back)
        (tmp_path / "solver_of_segments.py").write_text(text)
        settings: dict[str, Any] = FAST | {"solver": "solver_of_segments:mine"}
        config = GenerationConfig(keyframes=keyframes, **settings)
        return [task.digest for task in make_plan(config).tasks]

    first = digests("1.0")
    assert digests("1.0") == first
    assert not set(digests("0.3")) & set(first)
    with pytest.raises(
        InputError, match=r"ZeroDivisionError: division by zero \(solver_of_segments.py, line 5\)"
    ):
        digests("1.0", "1 / 0")
    with pytest.raises(InputError, match="solver solver_of_segments:mine returns NoneType for latents"):
        digests("1.0", "None")


@pytest.mark.parametrize("model", ["tests.jobs.test_edit_models:Model", "json:loads"])
def test_a_model_that_is_no_wan_is_refused_in_its_own_words(keyframes, no_weights: None, model: str) -> None:
    says = "is no Wan, and generation samples with Wan alone" if "Model" in model else "expected to be called"
    with pytest.raises(InputError, match=says):
        make_plan(GenerationConfig(keyframes=keyframes, **FAST, model=model))


@pytest.mark.parametrize(("num_gpus", "segments", "started"), [(9, 1, None), (9, 3, 3), (2, 3, 2)])
def test_no_more_processes_start_than_there_are_segments(
    keyframes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    num_gpus: int,
    segments: int,
    started: int | None,
) -> None:
    launched, here = [], []
    monkeypatch.setattr(run_module.workers, "run_workers", lambda *given: launched.append(given[2].num_gpus))
    monkeypatch.setattr(run_module, "predict", lambda *given: here.append(given[3].num_gpus))
    config = GenerationConfig(
        model="tiny",
        keyframes=keyframes[: segments + 1],
        num_gpus=num_gpus,
        base_seed=1,
        output=str(tmp_path),
    )
    plan, directory = make_plan(config), RunDirectory(tmp_path, tmp_path / "a.mp4")
    directory.prepare()
    run_module.sample(plan, Todo(plan.tasks, plan.bridges, plan.pieces), directory, World(), verbose=False)
    assert (launched, here) == (([], [1, 1]) if started is None else ([started], []))
    told = [
        note
        for note in plan.warnings
        if note.startswith(f"num_gpus is {num_gpus} and the number of segments {segments},")
    ]
    assert len(told) == (num_gpus > segments)


@pytest.mark.parametrize(("solver", "evaluations"), [("heun", 14), ("unipc", 8)])
def test_a_plan_counts_the_passes_of_its_solver_under_guidance(
    keyframes, solver: str, evaluations: int
) -> None:
    settings = FAST | {"solver": solver, "num_inference_steps": 4}
    assert make_plan(GenerationConfig(keyframes=keyframes, **settings)).evaluations == evaluations


def test_a_solver_that_does_not_exist_is_refused_with_the_plan(run: Run, no_weights: None) -> None:
    with pytest.raises(InputError, match="solver"):
        run(solver="ulner")


# Computed at commit 7b96d1b, before the house was rebuilt: a run made then is resumed, not sampled anew.
GOLDEN = {
    "plain": (
        {},
        (
            "8970a6c15503aba149cd59552b16206feb7b9c1d3f85969d53108f19b6110bc0",
            "d80729be65f1420c91a49c4cdcd3e352f01b0d1cec617c1ed91064186231cfe3",
            "03d394b4a150ffdef012f3285b2f408cbe4f287bc3c95a59ca8aad4383ebc8a6",
        ),
    ),
    "other": (
        {"guidance_scale": 1.0, "tile": 32, "sub_prompts": ["a", "b", "c"], "solver": "unipc"}
        | {"t5_cpu": True, "offload_model": False},
        (
            "ea3314a938249c1d0ef18be5b9581ccf70a0928c554caa91eb2aa9a2f0808dfb",
            "2f3b5055f72e3219f0e3f86a2c9754b7b3efda2d563be8c2fc25b30f2ae18273",
            "0b27ff63fa267d0135fed8c69e38b77159e2e84a37b1c1767111fa4d461730f3",
        ),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_segments_keep_their_names(keyframes, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    # The model's files and the machine are taken out: wan-tiny may be trained on.
    monkeypatch.setattr("wanedit.jobs.generate.plan.hash_files", lambda folder, say: {"a": "b"})
    monkeypatch.setattr("wanedit.jobs.generate.plan.compute_kind", lambda: "cpu torch.float32")
    settings = {"keyframes": keyframes, "prompt": "a red ball", "negative_prompt": "grey", "size": "48*32"}
    settings |= {"fps": 16.0, "base_seed": 7, "num_inference_steps": 4, "shift": 3.0, "guidance_scale": 2.0}
    changes, digests = GOLDEN[name]
    plan = make_plan(GenerationConfig(**settings | {"solver": "dpm++"} | changes))
    assert tuple(task.digest for task in plan.tasks) == digests


@pytest.mark.parametrize("seed", [None, -1])
def test_a_plan_needs_a_seed(keyframes, seed: int | None) -> None:
    with pytest.raises(InputError, match=f"base_seed is {seed}; expected a number >= 0"):
        make_plan(GenerationConfig(keyframes=keyframes, base_seed=seed))


def test_every_config_field_is_documented() -> None:
    doc = "".join(kind.__doc__ or "" for kind in GenerationConfig.__mro__)
    missing = [f.name for f in dataclasses.fields(GenerationConfig) if f"{f.name}:" not in doc]
    assert not missing


def test_a_size_between_multiples_of_16_is_kept_to_the_pixel(run: Run) -> None:
    result = run(size="44*36", colour_correction=False)
    assert read_frames(result.video).shape[1:] == (36, 44, 3)
    start = json.loads((result.video.parent / "metrics.jsonl").read_text().splitlines()[0])
    assert any("the model works on 48*48" in warning for warning in start["warnings"])
    assert start["keyframes"][0]["fit"]["target"] == [36, 44]
    pieces = sorted(result.video.parent.glob("segments/*.mkv"))
    assert [read_frames(piece).shape[1:] for piece in pieces] == [(36, 44, 3)] * 3


@pytest.mark.parametrize("name", ["workers.log", ".worker_error.json"])
def test_what_workers_would_write_over_is_refused(tmp_path: Path, keyframes: list, name: str) -> None:
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir()
    theirs.write_text("mine")
    refused = run_cli(*command(keyframes, theirs.parent, "--num_gpus", "2"))
    assert refused.code == 2
    assert f"{theirs} was not written by wanedit" in refused.err
    assert theirs.read_text() == "mine"
    assert run_cli(*command(keyframes, theirs.parent, "--dry_run")).code == 0


def kept_files(root: Path) -> dict[str, tuple[int, bytes]]:
    """What was sampled and decoded, by its name: when it was written, and its bytes."""
    files = [*root.glob("segments/*.safetensors"), *root.glob("segments/*.mkv")]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.fault(35)
def test_a_keyframe_that_is_put_in_or_taken_out_has_its_neighbours_sampled_alone(
    run: Run, keyframes, tmp_path: Path
) -> None:
    root, put = tmp_path / "out", str(draw_keyframe(tmp_path / "put.png", 9))
    first, files = run(), kept_files(tmp_path / "out")
    more = [*keyframes[:2], [put, 0.4], *keyframes[2:]]
    between = run(keyframes=more)
    assert between.sampled == (1, 2)
    assert [between.segments[0], between.segments[3]] == [first.segments[0], first.segments[2]]
    assert read_settings(root / "config.yaml")["numbers"] == [0, 1, 3, 2]
    after = kept_files(root)
    assert {name: after[name] for name in files} == files, "what was there is not written again"
    latents = {name for name in after.keys() - files.keys() if name.endswith(".safetensors")}
    assert {name[:11] for name in latents} == {"segment_001", "segment_003"}
    assert read_frames(between.video).shape == read_frames(first.video).shape
    rows: Any = plan_section(read_record(root))["segments"]
    assert [(row[0], row[1]) for row in rows] == [
        (0, "0 … 4 (5)"), (1, "4 … 6 (3)"), (2, "6 … 8 (3)"), (3, "8 … 13 (6)")
    ]  # fmt: skip
    directory = RunDirectory(root, between.video)
    gone = {left.path.name for left in leftovers(directory, last_started(directory))}
    assert {name[:11] for name in gone} == {"segment_001", "segment_002"}, "latents and frames of before"
    assert gone < files.keys()
    # Again, and by its numbers elsewhere: the same.
    assert run(keyframes=more).sampled == ()
    elsewhere = {"keyframes": more, "output": str(tmp_path / "elsewhere")}
    numbered = run(**elsewhere, numbers="0,1,3,2")
    assert latents_of(numbered) == latents_of(between)
    assert run(**elsewhere, numbers=[0, 1, 2, 3]).sampled == (2, 3)
    # Taken out again all is as it was; another that is taken out has one segment in the place of two.
    back = run()
    assert (back.sampled, back.segments) == ((), first.segments)
    assert read_settings(root / "config.yaml")["numbers"] == []
    fewer = run(keyframes=[keyframes[0], *keyframes[2:]])
    assert (fewer.sampled, fewer.segments[1]) == ((0,), first.segments[2])
    assert read_settings(root / "config.yaml")["numbers"] == [0, 2]
