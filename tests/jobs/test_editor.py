"""WanVideoEditorPipeline: an edit as a Python object."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runs import EDIT, Inputs, moving_square
from wanedit import EditResult, WanVideoEditorPipeline
from wanedit.errors import InputError, MissingWeightsError
from wanedit.jobs.edit.pipeline import _source, frame_numbers
from wanedit.video import load_image, read_frames
from wanedit.video.tensors import pixels_of

SETTINGS = {name: value for name, value in EDIT.items() if name != "base_seed"}


@pytest.fixture(scope="module")
def pipeline() -> WanVideoEditorPipeline:
    return WanVideoEditorPipeline.from_pretrained("tiny", **SETTINGS)


def stack(frames: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(frame) for frame in frames])


@pytest.mark.parametrize("kind", ["images", "array", "arrays", "paths", "video"])
def test_every_kind_of_input_is_the_same_edit(
    pipeline: WanVideoEditorPipeline, inputs: Inputs, edited: EditResult, tmp_path: Path, kind: str
) -> None:
    source = moving_square(9)
    images = [Image.fromarray(frame) for frame in source]
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    video = {
        "images": images,
        "array": source,
        "arrays": list(source),
        "paths": paths,
        "video": inputs.video,
    }[kind]
    files = [inputs.images[0], inputs.images[8]]
    loaded = [Image.open(path).convert("RGB") for path in files]
    keys = {"images": loaded, "array": [np.asarray(i) for i in loaded]}.get(kind, files)
    frames = pipeline("a blue square", video, keys, [0, 8], seed=7)
    assert all(isinstance(frame, Image.Image) for frame in frames)
    assert np.array_equal(stack(frames), edited.frames)
    assert pipeline.last is not None
    assert pipeline.last.digest == edited.digest


def test_the_seed_decides(pipeline: WanVideoEditorPipeline, inputs: Inputs) -> None:
    def once(seed: int | None) -> np.ndarray:
        return stack(pipeline("a square", inputs.video, [inputs.images[0]], [0], seed=seed))

    assert np.array_equal(once(1), once(1))
    assert not np.array_equal(once(1), once(2))


def test_named_arguments_reach_the_run(
    pipeline: WanVideoEditorPipeline, inputs: Inputs, tmp_path: Path
) -> None:
    frames = pipeline(
        "a square", inputs.video, [inputs.images[0]], [0], alpha=2.0, beta=0.5, cfg_scale=1.5, num_inference_steps=1,
        seed=3, output=tmp_path / "kept", num_frames=5,
    )  # fmt: skip
    assert len(frames) == 5
    import yaml

    record = yaml.safe_load((tmp_path / "kept" / "config.yaml").read_text())
    given = {
        "alpha": 2.0,
        "beta": 0.5,
        "guidance_scale": 1.5,
        "num_inference_steps": 1,
        "base_seed": 3,
        "num_frames": 5,
    }
    assert {name: record[name] for name in given} == given
    assert pipeline.last is not None
    piece = next((tmp_path / "kept" / "segments").glob("*.mkv"))
    assert np.array_equal(read_frames(piece), stack(frames))


def test_tiles_on_more_than_a_tile(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wanedit.runtime.settings.TILE", 32)
    pipeline = WanVideoEditorPipeline.from_pretrained("tiny", **SETTINGS | {"size": "64*48"})
    call = {"prompt": "a square", "source_video": inputs.video, "edited_keyframes": [inputs.images[0]]}
    call |= {"keyframe_indices": [0], "num_inference_steps": 1, "seed": 1, "num_frames": 5}
    tiled, whole = stack(pipeline(**call, tiled=True)), stack(pipeline(**call, tiled=False))
    assert tiled.shape == whole.shape == (5, 48, 64, 3)
    assert not np.array_equal(tiled, whole)
    assert np.abs(tiled.astype(float) - whole).mean() < 16


def test_tiled_can_be_turned_off_again(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "wanedit.jobs.edit.pipeline.edit", lambda config, **_: seen.append(config.tile) or 1 / 0
    )
    pipeline = WanVideoEditorPipeline(tile=64)
    for tiled in (None, True, False):
        with pytest.raises(ZeroDivisionError):
            pipeline("", inputs.video, [inputs.images[0]], [0], tiled=tiled)
    assert seen == [64, 256, None]


def test_vram_management() -> None:
    pipeline = WanVideoEditorPipeline(offload_model=False)
    pipeline.enable_vram_management()
    assert (pipeline.config.offload_model, pipeline.config.t5_cpu) == (True, True)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="neither a file, a folder nor a known model"):
        WanVideoEditorPipeline.from_pretrained("no-such-model")
    for name in ("", "x" * 5000):
        with pytest.raises(InputError, match="neither a file, a folder nor a known model"):
            WanVideoEditorPipeline.from_pretrained(name)
    with pytest.raises(MissingWeightsError, match="is not on this machine"):
        WanVideoEditorPipeline.from_pretrained("Wan2.1-FLF2V-14B-720P")
    with pytest.raises(InputError, match="alhpa is no setting of EditConfig; did you mean 'alpha'"):
        WanVideoEditorPipeline(alhpa=3)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ([], "source_video is empty"),
        (np.zeros((0, 32, 32, 3), np.uint8), "source_video is empty"),
        (np.zeros((2, 32, 32, 3)), "frame 0 of source_video: expected a uint8 array"),
        ([Image.new("RGB", (32, 32)), Image.new("RGB", (64, 32))], "frame 1 is 64x32, the first is 32x32"),
        ("no-such.mp4", "video: no file or folder"),
    ],
)
def test_sources_that_are_none(
    pipeline: WanVideoEditorPipeline, inputs: Inputs, no_weights, video, words
) -> None:
    with pytest.raises(InputError, match=words):
        pipeline("", video, [inputs.images[0]], [0], seed=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video": "a.mp4"}, "video is no argument of the pipeline; expected source_video"),
        ({"base_seed": 3}, "base_seed is no argument of the pipeline; expected seed"),
        ({"cfg_scale": 2.0, "guidance_scale": 7.0}, "guidance_scale is given twice, once as cfg_scale"),
        ({"tiled": True, "tile": 64}, "tile is given twice, once as tiled; expected one of the two names"),
        ({"output": ""}, "output is empty"),
        ({"output": "a\0b"}, "output holds a zero byte"),
        ({"source_video": "x" * 5000}, "video: no file or folder"),
        (
            {"source_video": np.zeros((5, 1, 1, 3), np.uint8)},
            "source_video is 1x1; expected at least 16 pixels",
        ),
    ],
)
def test_arguments_of_another_kind(
    pipeline: WanVideoEditorPipeline, inputs: Inputs, no_weights, changes: dict, words: str
) -> None:
    given = {"source_video": inputs.video, "edited_keyframes": [inputs.images[0]], "keyframe_indices": [0]}
    with pytest.raises(InputError, match=words):
        pipeline(**{"prompt": "", "seed": 1} | given | changes)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "keyframe_indices is 0; expected a list"),
        (None, "keyframe_indices is None; expected a list"),
        ("0", "keyframe_indices is '0'; expected a list"),
        (Image.new("RGB", (32, 32)), "keyframe_indices is of type Image; expected a list"),
        (["0"], r"keyframe_indices\[0\] is '0'; expected a whole number"),
        ([1, True], r"keyframe_indices\[1\] is True; expected a whole number"),
        ([0.5], r"keyframe_indices\[0\] is 0.5; expected a whole number"),
    ],
)
def test_indices_of_another_kind(value, words: str) -> None:
    with pytest.raises(InputError, match=words):
        frame_numbers(value, "keyframe_indices")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tiled": "yes"}, "tiled is 'yes'; expected true, false or None"),
        ({"output": 3}, "output is 3; expected a folder"),
    ],
)
def test_options_of_another_kind(
    pipeline: WanVideoEditorPipeline, inputs: Inputs, no_weights, changes: dict, words: str
) -> None:
    # Beneath the type checks of the tests, which users do not have.
    call = inspect.unwrap(WanVideoEditorPipeline.__call__)
    with pytest.raises(InputError, match=words):
        call(pipeline, "", inputs.video, [inputs.images[0]], [0], seed=1, **changes)


def test_a_picture_in_memory_is_read_as_its_file(tmp_path: Path) -> None:
    """Transparency is laid over white, turned pictures are turned, 16-bit grey is scaled."""
    clear = Image.new("RGBA", (40, 24), (200, 10, 10, 0))
    turned = Image.new("RGB", (40, 24), (1, 2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.full((24, 40), 30000, np.uint16))
    clear.save(tmp_path / "0.png")
    turned.save(tmp_path / "1.png", exif=exif)
    deep.save(tmp_path / "2.png")
    for k, shape in enumerate([(24, 40, 3), (40, 24, 3), (24, 40, 3)]):
        path = tmp_path / f"{k}.png"
        with Image.open(path) as image:
            found = pixels_of(image, "keyframe 0")
        assert found.shape == shape
        assert np.array_equal(found, load_image(path).pixels)
    assert (pixels_of(clear, "") == 255).all()
    assert (pixels_of(deep, "") == 117).all()


def test_numbers_of_numpy_are_numbers(pipeline: WanVideoEditorPipeline, inputs: Inputs) -> None:
    plain = stack(pipeline("", inputs.video, [inputs.images[0]], [0], guidance_scale=1.5, seed=1))
    seed, scale, at = np.int64(1), np.float32(1.5), np.array([0])
    assert np.array_equal(
        stack(pipeline("", inputs.video, [inputs.images[0]], at, guidance_scale=scale, seed=seed)), plain
    )


@pytest.mark.parametrize("video", [Image.new("RGB", (32, 32)), None, 3])
def test_sources_of_another_kind(video, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"source_video is of type {type(video).__name__}; expected a path"):
        _source(video, tmp_path)


@pytest.mark.parametrize(
    ("pictures", "indices", "words"),
    [
        (1, [0, 8], "1 edited keyframes and 2 keyframe indices"),
        (0, [], "no keyframes"),
        (1, [9], r"\[9\] lie outside"),
    ],
)
def test_keyframes_that_do_not_fit(
    pipeline: WanVideoEditorPipeline, inputs: Inputs, no_weights, pictures: int, indices: list, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        pipeline("", inputs.video, [inputs.images[0]] * pictures, indices, seed=1)
