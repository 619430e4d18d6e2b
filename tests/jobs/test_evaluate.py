"""`wanedit evaluate`: what is given decides what is measured; the rest is named with its reason."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from tests.runs import moving_square
from tests.video.files import encode
from wanedit import EditResult
from wanedit.cli import main
from wanedit.errors import InputError, MissingWeightsError
from wanedit.jobs.evaluate.config import EvaluationConfig
from wanedit.jobs.evaluate.inputs import read_inputs
from wanedit.jobs.evaluate.metric import METRICS
from wanedit.jobs.evaluate.run import evaluate
from wanedit.metrics.functional import frame_psnr
from wanedit.metrics.weights import ALEXNET, RAFT_LARGE
from wanedit.video import read_frames, write_lossless

ON_REQUEST = {name for name, group in METRICS.items() if group.on_request}
WEIGHTED = {name for name, group in METRICS.items() if group.weights} - ON_REQUEST


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights of metrics, whatever this machine has."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A clip of 24 frames of 64 x 64; the same, 10 levels brighter on the right; keyframes, and a mask of the right."""
    truth = np.stack([np.kron(f, np.ones((2, 2, 1), np.uint8)) for f in moving_square(24)])
    video = truth.copy()
    video[:, :, 32:] = np.minimum(video[:, :, 32:].astype(int) + 10, 255)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    write_lossless(tmp_path / "truth.mkv", truth, 16)
    write_lossless(tmp_path / "video.mkv", video, 16)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(truth[4]).save(tmp_path / "four.png")
    return {name: str(tmp_path / name) for name in ("truth.mkv", "video.mkv", "mask.png", "four.png")}


def everything(files: dict[str, str], **changes: object) -> EvaluationConfig:
    given = {
        "video": files["video.mkv"],
        "reference": files["truth.mkv"],
        "mask": files["mask.png"],
        "keyframes": f"{files['four.png']}:4",
        "junctions": "12",
    }
    return EvaluationConfig(**given | changes)  # pyright: ignore[reportArgumentType]


def test_all_that_is_given_is_measured(files: dict[str, str]) -> None:
    found = evaluate(everything(files))
    assert set(found.metrics) == set(METRICS) - ON_REQUEST - WEIGHTED - {"convergence", "reach"}
    assert found.skipped["reach"] == "the keyframes change nothing of the reference"
    for name in WEIGHTED:
        assert re.search(r"https://\S+ \(\d+ MB\)", found.skipped[name])
    assert "is not from the folder of an edit" in found.skipped["convergence"]
    assert (found.video, found.frames, found.size) == ("video.mkv", 24, (64, 64))
    assert found.metrics["mask"]["psnr_outside"] == 100
    inside = found.metrics["mask"]["psnr_inside"]
    assert inside == pytest.approx(28.2, abs=0.3)
    assert found.metrics["mask"]["ssim_outside"] > found.metrics["mask"]["ssim_inside"]
    # Half of the pixels are off: 3 dB better than where all are.
    assert found.metrics["fidelity"]["psnr"] == pytest.approx(inside + 3.01, abs=0.05)
    assert found.metrics["keyframes"]["psnr_by_frame"].keys() == {"4"}
    assert not any(score["shows"] for score in found.metrics["junctions"]["12"].values())
    assert found.metrics["temporal"]["dynamic_degree"] > 0.1
    seams = found.metrics["seams"]
    assert seams["seam_ratio"] == pytest.approx(seams["seam_ratio_reference"], rel=0.1)
    assert found.metrics["motion"]["fidelity_surrogate"] > 0.95
    assert found.metrics["structure_surrogate"]["distance_of_gradients"] < 0.01


def test_what_is_not_given_is_named(files: dict[str, str]) -> None:
    found = evaluate(EvaluationConfig(video=files["video.mkv"]))
    assert set(found.metrics) == {"temporal"}
    assert found.skipped["fidelity"] == "no reference is given"
    assert set(found.skipped) == set(METRICS) - ON_REQUEST - {"temporal"}
    assert all(found.skipped.values())


def test_a_measure_that_cannot_be_taken_does_not_stop_the_others(tmp_path: Path) -> None:
    """SSIM needs 11 pixels; named, it is an error."""
    narrow = np.random.default_rng(0).integers(0, 256, (5, 8, 40, 3), dtype=np.uint8)
    write_lossless(tmp_path / "narrow.mkv", narrow, 16)
    given: dict[str, Any] = {"video": f"{tmp_path}/narrow.mkv", "reference": f"{tmp_path}/narrow.mkv"}
    found = evaluate(EvaluationConfig(**given))
    assert "expected at least 11x11 for SSIM" in found.skipped["fidelity"]
    assert "temporal" in found.metrics
    with pytest.raises(InputError, match="at least 11x11"):
        evaluate(EvaluationConfig(**given, metrics="fidelity"))


@pytest.mark.fault(31)
def test_a_random_file_under_the_name_of_weights_gives_no_score(
    files: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for file in (ALEXNET, RAFT_LARGE):
        (folder / file.name).write_bytes(b"plausible")
    found = evaluate(everything(files))
    for name in ("lpips", "temporal_raft"):
        assert "it is not the published file" in found.skipped[name]
    with pytest.raises(InputError, match="it is not the published file"):
        evaluate(everything(files, metrics="lpips"))


@pytest.mark.fault(31)
def test_a_metric_that_is_named_must_be_possible(files: dict[str, str]) -> None:
    with pytest.raises(InputError, match="fidelity: no reference is given"):
        evaluate(EvaluationConfig(video=files["video.mkv"], metrics="temporal, fidelity"))
    for name in WEIGHTED:
        with pytest.raises(MissingWeightsError, match=r"https://"):
            evaluate(everything(files, metrics=name))
    assert evaluate(everything(files, metrics="none")).metrics == {}
    assert set(evaluate(everything(files, metrics="mask,keyframes")).metrics) == {"mask", "keyframes"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video": ""}, "expected a video file, a folder of images, or the folder of a run, and one of them"),
        ({"video": "", "run": "nowhere"}, "a run has junctions, reference and keyframes of its own"),
        ({"video": "no-such.mp4"}, "video: no file or folder"),
        ({"metrics": ","}, "metrics is ','; expected auto, none, or some of clip"),
        ({"metrics": ""}, "metrics is ''; expected auto"),
        ({"output": "film.mkv"}, "output is 'film.mkv'; expected the name of a .json file"),
        ({"output": "e.csv"}, "output is 'e.csv'; expected the name of a .json file"),
        ({"metrics": "vmaf"}, "metrics names 'vmaf'; expected auto, none, or some of clip"),
        ({"scene": "no-such.json"}, "scene: no file or folder"),
        ({"vbench": "out"}, "vbench names videos by their prompt; expected one"),
        ({"junctions": "12,x"}, "junctions is '12,x'; expected frame numbers such as 24,48"),
        ({"junctions": "23"}, r"junctions are \[23\]; expected frames 1 … 22"),
        ({"reference": "no-such.mp4"}, "reference: no file or folder"),
        ({"reference": "short"}, "reference has 9 frames of 64x64; expected the video's 24 frames of 64x64"),
        ({"mask": "small"}, "mask is 32x32; expected 64x64"),
        ({"keyframes": "small"}, "keyframe 0 is 32x32; expected 64x64"),
    ],
)
def test_inputs_that_do_not_fit(files: dict[str, str], tmp_path: Path, changes: dict, words: str) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    write_lossless(tmp_path / "short.mkv", np.zeros((9, 64, 64, 3), np.uint8), 16)
    real = {"small": f"{tmp_path}/small.png", "short": f"{tmp_path}/short.mkv"}
    changes = {name: real.get(value, value) for name, value in changes.items()}
    if "keyframes" in changes:
        changes["keyframes"] += ":0"
    with pytest.raises(InputError, match=words):
        evaluate(everything(files, **changes))


def test_results_as_files(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    words = [
        files["video.mkv"],
        "--reference",
        files["truth.mkv"],
        "--junctions",
        "6,12",
        "--output",
        str(out),
    ]
    assert main(["evaluate", *words]) == 0
    printed = capsys.readouterr().out
    assert "Junctions" in printed
    assert "not measured: mask: no reference and mask are given" in printed
    values = json.loads(out.read_text())
    with out.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    (psnr,) = [line["value"] for line in lines if (line["group"], line["name"]) == ("fidelity", "psnr")]
    assert psnr == repr(values["metrics"]["fidelity"]["psnr"])
    assert {line["value"] for line in lines if line["name"] == "shows"} <= {"0", "1"}
    assert {line["place"].split("/")[0] for line in lines if line["group"] == "junctions"} == {"6", "12"}
    assert values["skipped"].keys() == WEIGHTED | {"mask", "keyframes", "reach", "truth", "convergence"}


def test_no_output_replaces_a_video(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    video = Path(files["video.mkv"])
    before = video.read_bytes()
    assert main(["evaluate", str(video), "--output", str(video), "--metrics", "none"]) == 2
    assert "expected the name of a .json file" in capsys.readouterr().err
    assert video.read_bytes() == before


def test_only_results_are_replaced(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "z.json", tmp_path / "z.csv"
    words = ["evaluate", files["video.mkv"], "--metrics", "none", "--quiet", "--output", str(out)]
    assert main(words) == 0
    assert main(words) == 0
    table.write_text("my own table\n1\n")
    assert main(words) == 2
    assert "z.csv was not written by wanedit" in capsys.readouterr().err
    assert table.read_text() == "my own table\n1\n"
    table.unlink()
    # A record of another job is no result, though wanedit wrote it.
    out.write_text(record := '{"wanedit": "0.2.0", "keyframes": []}')
    assert main(words) == 2
    assert "expected" in capsys.readouterr().err
    assert out.read_text() == record


def test_out_is_another_name_of_output(files: dict[str, str], tmp_path: Path) -> None:
    words = ["--out", f"{tmp_path}/a.json", "--metrics", "none", "--quiet"]
    assert main(["evaluate", files["video.mkv"], *words]) == 0
    assert (tmp_path / "a.json").is_file()
    # Of the two names neither wins.
    assert main(["evaluate", files["video.mkv"], *words, "--output", f"{tmp_path}/b.json"]) == 2
    assert not (tmp_path / "b.json").exists()


def test_a_measure_without_a_value_is_null(files: dict[str, str], tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "nothing.png")
    out = tmp_path / "found.json"
    words = [
        "--reference",
        files["truth.mkv"],
        "--mask",
        str(tmp_path / "nothing.png"),
        "--output",
        str(out),
        "--quiet",
    ]
    assert main(["evaluate", files["video.mkv"], *words]) == 0
    assert json.loads(out.read_text())["metrics"]["mask"]["psnr_inside"] is None
    assert "mask,,psnr_inside,\n" in out.with_suffix(".csv").read_text()


def test_an_edit_is_measured_before_lossy_encoding(edited: EditResult) -> None:
    """Against its source, and at its keyframes."""
    root = edited.video.parent
    found = evaluate(EvaluationConfig(run=str(root)))
    assert (found.frames, found.video) == (9, root.name)
    here = {"temporal", "fidelity", "keyframes", "motion", "structure_surrogate", "reach"}
    assert set(found.metrics) == here
    assert "the run has 2 steps; expected 3 or more" in found.skipped["convergence"]
    assert "a run's reference is its source and no truth" in found.skipped["truth"]
    assert edited.reach is not None
    assert found.metrics["reach"]["share"] == pytest.approx(edited.reach.mean)
    source = frame_psnr(edited.frames, moving_square(9))
    assert found.metrics["fidelity"]["psnr"] == pytest.approx(source.mean())
    assert found.metrics["keyframes"]["psnr_by_frame"].keys() == {"0", "8"}


def test_a_run_that_is_not_complete_is_refused(edited: EditResult, tmp_path: Path) -> None:
    root = edited.video.parent
    shutil.copytree(root, tmp_path / "run")
    (tmp_path / "run" / "segments" / "progress.json").unlink()
    with pytest.raises(InputError, match="is not complete for its inputs as they are; run it again"):
        evaluate(EvaluationConfig(run=str(tmp_path / "run")))
    with pytest.raises(InputError, match=r"holds no run: neither metrics\.jsonl"):
        evaluate(EvaluationConfig(run=str(tmp_path)))
    run = tmp_path / "run"
    (run / "config.yaml").write_text("[1]")
    with pytest.raises(InputError, match="holds no settings"):
        evaluate(EvaluationConfig(run=str(run)))
    (run / "config.yaml").write_text("video: a.mp4\nvidoe: b.mp4")
    with pytest.raises(InputError, match="has 'vidoe', which this version does not know"):
        evaluate(EvaluationConfig(run=str(run)))


def test_exit_codes(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", files["video.mkv"], "--metrics", "lpips", "--junctions", "12"]) == 3
    assert main(["evaluate", files["video.mkv"], "--metrcs", "auto"]) == 2
    assert "Did you mean 'metrics'?" in capsys.readouterr().err


def test_a_mask_may_move(files: dict[str, str], tmp_path: Path) -> None:
    """As a folder of pictures: only the frames that have white count inside."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for t in range(24):
        Image.fromarray(np.full((64, 64), 255 if t == 3 else 0, np.uint8)).save(folder / f"{t:04}.png")
    found = evaluate(everything(files, mask=str(folder)))
    psnr = frame_psnr(read_frames(files["video.mkv"]), read_frames(files["truth.mkv"]))
    assert found.metrics["mask"]["psnr_inside"] == pytest.approx(psnr[3])


def white_right(count: int, background: tuple[int, ...]) -> list[Image.Image]:
    """A mask that moves: a white column more in each picture, the last of which is as wide as `files`'s mask."""
    pictures = []
    for k in range(count):
        picture = np.full((64, 64, len(background)), background, np.uint8)
        picture[:, 64 - 32 * (k + 1) // count :] = 255
        pictures.append(Image.fromarray(picture))
    return pictures


def outside(files: dict[str, str], mask: Path) -> tuple[list[int], tuple[str, ...]]:
    """How many columns of each frame a mask lets change, and what is said of it."""
    inputs, noted = read_inputs(everything(files, mask=str(mask)))
    assert inputs.mask is not None
    columns = [int(frame[0].sum()) for frame in inputs.mask]
    return columns, tuple(note for path, notes in noted for note in notes if path == mask)


def test_where_a_mask_is_transparent_nothing_may_change(files: dict[str, str], tmp_path: Path) -> None:
    (picture,) = white_right(1, (255, 255, 255, 0))
    picture.save(tmp_path / "cut.png")
    said = "where it is transparent, nothing may change"
    assert outside(files, tmp_path / "cut.png") == ([32] * 24, (said,))
    assert (
        f"cut.png: {said}"
        in evaluate(everything(files, mask=str(tmp_path / "cut.png"), metrics="mask")).notes
    )
    (tmp_path / "masks").mkdir()
    for k, mask in enumerate(white_right(24, (0, 0, 0, 0))):
        mask.save(tmp_path / "masks" / f"{k:04}.png")
    columns, notes = outside(files, tmp_path / "masks")
    assert columns == [32 * (k + 1) // 24 for k in range(24)]
    assert said in notes


@pytest.mark.parametrize("name", ["mask.gif", "mask.png", "mask.webp", "mask.avif"])
@pytest.mark.parametrize("background", [(0, 0, 0), (0, 0, 0, 0)])
def test_a_mask_may_be_an_animation(
    files: dict[str, str], tmp_path: Path, name: str, background: tuple[int, ...]
) -> None:
    first, *others = white_right(24, background)
    ways: dict[str, Any] = (
        {"lossless": True} if name.endswith("webp") else {"quality": 100} if name.endswith("avif") else {}
    )
    ways = {"disposal": 2} if name.endswith("gif") else ways
    first.save(tmp_path / f"moving-{name}", save_all=True, append_images=others, duration=60, **ways)
    columns, _ = outside(files, tmp_path / f"moving-{name}")
    assert columns == [32 * (k + 1) // 24 for k in range(24)]


def test_what_a_mask_is_tells_the_file_and_not_its_name(files: dict[str, str], tmp_path: Path) -> None:
    frames = np.stack([np.array(mask) for mask in white_right(24, (0, 0, 0))])
    for name in ("mask.ts", "mask.m4v"):
        encode(tmp_path / name, "libx264", frames, options={"crf": "1"})
        columns, _ = outside(files, tmp_path / name)
        assert columns[-1] == 32, name
        assert columns[0] < 4, name
    shutil.copy(files["mask.png"], tmp_path / "picture.mp4")
    assert outside(files, tmp_path / "picture.mp4")[0] == [32] * 24


def test_a_transparent_video_is_no_mask(files: dict[str, str], tmp_path: Path) -> None:
    with av.open(tmp_path / "mask.mov", "w") as out:
        stream = out.add_stream("qtrle", rate=16)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "argb"
        for mask in white_right(24, (0, 0, 0, 0)):
            picture = av.VideoFrame.from_ndarray(np.array(mask), format="rgba").reformat(format="argb")
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"mask .*mask.mov is transparent in places"):
        evaluate(everything(files, mask=str(tmp_path / "mask.mov")))
