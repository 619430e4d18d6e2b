"""What an edit is given: every mistake is found before a weight is loaded."""

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.runs import Inputs, moving_square
from wanedit import EditConfig, edit
from wanedit.errors import InputError, MissingWeightsError
from wanedit.flow.guiding import Guide
from wanedit.flow.path import schedule
from wanedit.jobs.edit.config import check_edit
from wanedit.jobs.edit.method import build_method, filled, guidance, unused
from wanedit.jobs.edit.plan import fill, make_edit_plan
from wanedit.runtime.inputs import EditedFrame, parse_edited
from wanedit.runtime.sampling import decide_sampling
from wanedit.video import write_lossless, write_video
from wanedit.video.arrays import Clock
from wanedit.video.source import OpenedSource, open_source
from wanedit.wan.load import open_wan

Config = Callable[..., EditConfig]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (20, 60, 250)).save(path)
    return path


def places(frames: list[EditedFrame]) -> list[tuple[str, int]]:
    return [(frame.path.name, frame.index) for frame in frames]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0}/a.png:0,{0}/b.png:20", [("a.png", 0), ("b.png", 20)]),
        (" {0}/a.png:0 , {0}/b.png:20 ", [("a.png", 0), ("b.png", 20)]),
        ("{0}/my, own: pic.png:4,{0}/b.png:8", [("my, own: pic.png", 4), ("b.png", 8)]),
        ("{0}/t=1:30.png:4", [("t=1:30.png", 4)]),
        ("{0}/é ü.png:4", [("é ü.png", 4)]),
    ],
)
def test_keyframes_as_text(tmp_path: Path, text: str, expected: list) -> None:
    for name in ("a.png", "b.png", "my, own: pic.png", "t=1:30.png", "é ü.png"):
        picture(tmp_path / name)
    assert places(parse_edited(text.format(tmp_path))) == expected


@pytest.mark.parametrize("form", [list, tuple, lambda pair: {"path": pair[0], "frame": pair[1]}])
def test_keyframes_as_pairs(tmp_path: Path, form) -> None:
    pair = [str(picture(tmp_path / "a.png")), 3]
    assert places(parse_edited([form(pair)])) == [("a.png", 3)]


@pytest.fixture
def film(tmp_path: Path) -> Callable[[], OpenedSource]:
    """24 frames at 24 a second."""
    write_lossless(tmp_path / "film.mkv", moving_square(24), 24)
    return lambda: open_source(tmp_path / "film.mkv")


@pytest.mark.parametrize(
    ("number", "frame", "note"),
    [
        ("0.0", 0, None),
        ("0.5", 12, None),
        ("1.0", 23, "1 s is nearest to frame 23, at 0.9583 s"),  # the end
        ("1", 1, None),
        (0.25, 6, None),
        (np.float32(0.25), 6, None),
        (np.int64(6), 6, None),
        ("5e-1", 12, None),
        (0.26, 6, "0.26 s is nearest to frame 6, at 0.25 s"),
    ],
)
def test_a_decimal_point_means_seconds(
    tmp_path: Path, film: Callable[[], OpenedSource], number: object, frame: int, note: str | None
) -> None:
    path = str(picture(tmp_path / "a.png"))
    (found,) = parse_edited([[path, number]], source=film)
    assert (found.index, found.note) == (frame, note)
    if isinstance(number, str):
        assert parse_edited(f"{path}:{number}", source=film) == [found]
    assert parse_edited([{"path": path, "frame": frame}], source=film)[0].index == frame
    assert parse_edited([{"path": path, "seconds": frame / 24}], source=film)[0].index == frame


def test_a_time_beyond_the_source_is_refused(tmp_path: Path, film: Callable[[], OpenedSource]) -> None:
    with pytest.raises(InputError, match=r"keyframe 0 is at 2 s .*a.png\); the source lasts 1 s.*is a frame"):
        parse_edited(f"{picture(tmp_path / 'a.png')}:2.0", source=film)


def test_times_go_by_the_file_s_own_clock(tmp_path: Path) -> None:
    path = str(picture(tmp_path / "a.png"))
    vfr = Path(__file__).parents[1] / "cases" / "vfr.mp4"  # 12 frames at 30, 12 at 15 a second
    (found,) = parse_edited(f"{path}:0.9", source=lambda: open_source(vfr))
    assert found.index == 19  # 12 at 0.4333 s, and then every 0.0667 s
    (found,) = parse_edited(f"{path}:0.9", source=lambda: open_source(vfr, fps=10))
    assert found.index == 9


@pytest.mark.parametrize(
    ("names", "first_number", "frames", "notes"),
    [
        (("0001.png", "0013.png"), 1, [0, 12], 0),
        (("0001.png", "0013.png"), 0, [1, 13], 0),
        (("0000.png", "0012.png"), None, [0, 12], 0),
        (("0012.png",), None, [12], 1),
        (("1001.png", "1013.png"), 1001, [0, 12], 0),
    ],
)
def test_numbered_names_count_from_where_they_are_said_to(
    tmp_path: Path, names: tuple, first_number: int | None, frames: list[int], notes: int
) -> None:
    for name in names:
        picture(tmp_path / "keys" / name)
    found = parse_edited(str(tmp_path / "keys"), first_number=first_number)
    assert [frame.index for frame in found] == frames
    assert len([frame.note for frame in found if frame.note]) == notes


def test_names_that_begin_with_1_are_asked_about(tmp_path: Path) -> None:
    for name in ("0001.png", "0013.png"):
        picture(tmp_path / "keys" / name)
    with pytest.raises(InputError, match=r"begins with 0001\.png: the first frame.*first_number, 1 or 0"):
        parse_edited(str(tmp_path / "keys"))


def test_keyframes_of_a_folder_go_to_the_images_of_their_names(tmp_path: Path) -> None:
    for number in range(1, 10):
        picture(tmp_path / "film" / f"{number:04}.png")
    for name in ("0001.jpg", "0005.png"):
        picture(tmp_path / "keys" / name)
    found = parse_edited(str(tmp_path / "keys"), source=lambda: open_source(tmp_path / "film"))
    assert places(found) == [("0001.jpg", 0), ("0005.png", 4)]
    picture(tmp_path / "keys" / "0099.png")
    with pytest.raises(InputError, match=r"0099\.png has the name of no image in .*film"):
        parse_edited(str(tmp_path / "keys"), source=lambda: open_source(tmp_path / "film"))


def test_in_a_numbering_with_gaps_a_keyframe_says_where_it_lands(
    edit_config: Config, inputs: Inputs, no_weights: None, tmp_path: Path
) -> None:
    numbers = (0, 1, 2, 3, 6, 7, 8, 9, 10)
    folder = picture(tmp_path / "frames" / "0000.png").parent
    for number in numbers:
        picture(folder / f"{number:04d}.png")
    edited = [[str(picture(tmp_path / "a.png")), 3], [str(picture(tmp_path / "0009.png")), 6]]
    plan = make_edit_plan(edit_config(video=str(folder), keyframes=edited, num_frames=7, start=1))
    told = [note for note in plan.warnings if "is 00" in note]
    assert any("no image between 0003.png and 0006.png" in note for note in plan.warnings)
    assert told == ["a.png: frame 3 is 0006.png"]  # the other bears the name of its image


def test_keyframes_beside_the_config_file(tmp_path: Path) -> None:
    picture(tmp_path / "project" / "keys" / "0004.png")
    project = [tmp_path / "project"]
    assert places(parse_edited("keys/0004.png:2", project)) == [("0004.png", 2)]
    assert places(parse_edited("keys", project)) == [("0004.png", 4)]


def test_a_folder_of_numbered_images(tmp_path: Path) -> None:
    for name in ("0020.png", "3.jpg", "0100.PNG", ".hidden.png"):
        picture(tmp_path / name)
    assert places(parse_edited(str(tmp_path))) == [("3.jpg", 3), ("0020.png", 20), ("0100.PNG", 100)]


def test_a_record_names_its_files(tmp_path: Path) -> None:
    picture(tmp_path / "edited" / "blue.png")
    picture(tmp_path / "other.png")
    record = {
        "keyframes": [{"file": "edited/blue.png", "frame": 5, "score": 1}, {"file": "other.png", "frame": 9}]
    }
    (tmp_path / "keyframes.json").write_text(json.dumps(record))
    assert places(parse_edited(str(tmp_path))) == [("blue.png", 5), ("other.png", 9)]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "keyframes.json.*expected"),
        ("[]", "expected"),
        ("[" * 100_000, "expected"),
        ('{"keyframes": 3}', "expected"),
        ('{"keyframes": [{"file": "a.png"}]}', "frame.*expected"),
        ('{"keyframes": []}', "no keyframes"),
        ('{"keyframes": [{"file": "../a.png", "frame": 0}]}', r"names '../a.png'; expected files inside"),
        (
            '{"keyframes": [{"file": "/etc/passwd", "frame": 0}]}',
            "names '/etc/passwd'; expected files inside",
        ),
        ('{"keyframes": [{"file": "a.png", "frame": 1.5}]}', "frame is 1.5; expected a whole number"),
        ('{"keyframes": [{"file": "a.png", "frame": true}]}', "frame is True"),
        ('{"keyframes": [{"file": "a.png", "frame": NaN}]}', "frame is nan"),
        ('{"keyframes": [{"file": "missing.png", "frame": 0}]}', "keyframe 0: no file"),
    ],
)
def test_a_broken_record_is_an_input_error(tmp_path: Path, record: str, words: str) -> None:
    picture(tmp_path / "keys" / "a.png")
    (tmp_path / "keys" / "keyframes.json").write_text(record)
    with pytest.raises(InputError, match=words):
        parse_edited(str(tmp_path / "keys"))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "no keyframes"),
        ("  ", "no keyframes"),
        ([], "no keyframes"),
        ("{}/a.png", 'is no folder and no "a.png:0,b.png:20"'),
        ("{}/a.png:0,{0}/b.png", "is no folder"),
        (
            "{}/a.png:0.5",
            "keyframe 0 is at 0.5, which with its decimal point is seconds .*a.png.; expected a frame",
        ),
        ("{}/a.png:1.2.3", "time is '1.2.3'"),
        ("{}/missing.png:0", "keyframe 0: no file"),
        ("k.png:0," * 200, "keyframe 0: no file"),
        ([["x" * 5000, 0]], "keyframe 0: no file"),
        (
            ["a.png"],
            r"keyframe 0 is 'a.png'; expected the path of a picture and its frame, such as \[\"a.png\", 0\]",
        ),
        (
            [None],
            r"keyframe 0 is None; expected the path of a picture and its frame, such as \[\"a.png\", 0\]",
        ),
        ([[None, 3]], "keyframe 0 is None; expected the path of a picture"),
        ([["a.png", None]], "frame is None"),
        ([["a.png", "1e400"]], "keyframe 0 is at inf"),
        ([{"path": "a.png", "seconds": 1}], "keyframe 0 is at 1, .* is seconds"),
        ([{"path": "a.png", "frame": 1.5}], "frame is 1.5; expected a whole number"),
        ([{"path": "a.png", "second": 1}], "keyframe 0 is"),
    ],
)
def test_keyframes_that_cannot_be_read(tmp_path: Path, value, words: str) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=words):
        parse_edited(
            value.replace("{0}", "{}").replace("{}", str(tmp_path)) if isinstance(value, str) else value
        )


def test_an_empty_text_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "0.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no keyframes"):
        parse_edited("")


def test_a_folder_of_other_names_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "blue.png")
    with pytest.raises(InputError, match=r"no keyframes\.json and an image blue\.png"):
        parse_edited(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"video": ""}, "video is empty"),
        ({"video": "no-such.mp4"}, "video: no file or folder"),
        ({"size": "41*32"}, r"size is 41\*32; expected even numbers from 32 up, such as 40\*32"),
        ({"size": "0*32"}, "size is 0\\*32"),
        ({"num_frames": 0}, "num_frames is 0; expected a positive"),
        ({"num_frames": 10}, "expected 1 to 9"),
        ({"start": 9, "keyframes": None}, "start is frame 9, the source has frames 0 to 8"),
        ({"start": -1}, "start is -1"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"beta": float("inf")}, "beta is inf"),
        ({"guidance_scale": -2.0}, "guidance_scale is -2.0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5; expected a positive integer"),
        ({"shift": 0.0}, "shift is 0.0"),
        ({"tile": 30}, "tile is 30"),
        ({"crf": 60}, "crf is 60"),
        ({"cpu_threads": 10**6}, "this machine has"),
        ({"method": "magic"}, "method is 'magic'; expected one of copy_source"),
        ({"controller": "pid"}, "controller is 'pid'; expected one of"),
        ({"keyframe_encoding": "stack"}, "keyframe_encoding is 'stack'"),
        ({"method_options": {"power": 1}}, "no option 'power'; expected some of source_weight, strength"),
        ({"method_options": {"strength": 0}}, "strength is 0; expected a number in"),
        ({"method_options": {"strength": "much"}}, "strength is 'much'; expected a number"),
        ({"method_options": {"strength": float("nan")}}, "strength is nan; expected a number"),
        ({"method_options": {"show_keyframes": 1}}, "show_keyframes is 1; expected true or false"),
        ({"method_options": {"controller": "residual"}}, "no option 'controller'"),
        ({"method_options": {"derivative": "exact"}}, "derivative is 'exact'; expected one of"),
        ({"method": "flf2v", "method_options": {"retime": "linear"}}, "no option 'retime'"),
        ({"method": "warp", "method_options": {"flow": "raft"}}, "no option 'flow'; expected none"),
        ({"method": "flowedit", "method_options": {"n_max": 2.5}}, "n_max is 2.5; expected an integer"),
        ({"method": "flowedit", "method_options": {"n_max": 9}}, "n_max is 9; expected at most the 2 steps"),
        ({"method": "sdedit", "controller_options": {"alpha": 1}}, "sdedit has no controller"),
        ({"controller_options": {"gain": 1}}, "controller exponential has no option 'gain'; expected some of alpha"),
        ({"method": "first_frame", "keyframes": 8}, "expected one at frame 0"),
        ({"method": "flf2v", "keyframes": 8}, "expected one at frame 0, or before: reverse"),
        ({"method": "sdedit", "method_options": {"strength": 0.01}}, "no step of this schedule starts at"),
        (
            {"method_options": {"edit_branch": "denoised", "show_keyframes": False}},
            "every residual would be zero whatever the edit",
        ),
        ({"method_options": {"edit_branch": "denoised"}, "keyframes": 0}, "is the main branch itself"),
        ({"model": "no-such-model"}, "neither a file, a folder nor a known model"),
        ({"output": ""}, "output is empty"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_work_is_refused_before_a_weight_is_loaded(
    edit_config: Config, inputs: Inputs, no_weights, changes: dict, words: str
) -> None:
    if "keyframes" in changes:
        changes = changes | {"keyframes": inputs.keyframes(changes["keyframes"] or 0)}
    config = edit_config()
    for name, value in changes.items():
        # Past the constructor, whose types are checked in tests and not in use.
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=words):
        edit(config, verbose=False)
    assert not Path(edit_config().output).exists()


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ((5, 8), "one latent slot, 2"),
        ((0, 9), r"\[9\] lie outside the source's frames 0 … 8"),
        ((8, 4), "keyframe 4 follows 8"),
        ((-1,), r"\[-1\] lie outside"),
    ],
)
def test_misplaced_keyframes(edit_config: Config, inputs: Inputs, no_weights, indices, words: str) -> None:
    pairs = [[str(inputs.images[0]), index] for index in indices]
    with pytest.raises(InputError, match=words):
        edit(edit_config(keyframes=pairs), verbose=False)


def test_missing_weights_are_named(edit_config: Config) -> None:
    with pytest.raises(MissingWeightsError, match=r"wanedit models download Wan2\.1-Fun-1\.3B-InP"):
        edit(edit_config(model="1.3B"), verbose=False)


def test_a_gpu_that_is_not_there(edit_config: Config) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="no GPU"):
        edit(edit_config(gpu_id=0), verbose=False)


def test_a_long_source_is_refused_before_it_is_decoded(
    edit_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lossless(tmp_path / "long.mkv", np.repeat(moving_square(4), 10, axis=0), 16)
    long = edit_config(video=str(tmp_path / "long.mkv"))
    assert make_edit_plan(edit_config(video=long.video, long_source="whole")).task.sampled_frames == 41
    plan = make_edit_plan(long)
    assert plan.settings.window == 9
    (note,) = [note for note in plan.warnings if "windows of 33 frames" in note]
    assert "wan-tiny is good for 33 frames and the source has 40" in note
    # A joint sequence goes through no windows, which is known before a weight is loaded.
    joint = {"edit_branch": "denoised"}
    with pytest.raises(InputError, match="a denoised edit branch of a clip of 11 slots; expected at most 9"):
        make_edit_plan(edit_config(video=long.video, method_options=joint))
    monkeypatch.setattr("wanedit.jobs.edit.plan.read_source", lambda *a, **k: pytest.fail("decoded"))
    with pytest.raises(InputError, match="the source has 40 frames; wan-tiny is good for 33"):
        make_edit_plan(edit_config(video=long.video, long_source="error"))


def test_a_text_model_does_not_take_methods_that_show_it_pictures(
    edit_config: Config, tmp_path: Path, no_weights
) -> None:
    from tests.wan.folders import write_folder

    folder = str(write_folder(tmp_path / "words", "t2v"))
    with pytest.raises(InputError, match=r"words reads no images"):
        make_edit_plan(edit_config(model=folder, method="first_frame"))
    plan = make_edit_plan(edit_config(model=folder))
    assert any("words cannot be shown the keyframes at [0, 8]" in warning for warning in plan.warnings)


def told(config: EditConfig) -> EditConfig:
    """Its nulls filled for wan-tiny."""
    tiny = open_wan("tiny")
    return fill(config, decide_sampling(config, tiny, "euler"), tiny.sampling)


def test_settings_that_a_method_does_not_read_are_named(edit_config: Config) -> None:
    def notes(**changes) -> list[str]:
        config = edit_config(**changes)
        return unused(config, told(config), build_method(config), Guide(), "")

    def doubts(**changes) -> list[str]:
        config = told(edit_config(**changes))
        method = build_method(config)
        return method.doubts(schedule(filled(config.num_inference_steps), 1.0), guidance(config, method))

    default = EditConfig().guidance_scale
    assert default is None
    assert notes() == []
    assert notes(guidance_scale=default) == []
    (note,) = notes(method="sdedit", alpha=3.0)
    assert "alpha 3.0 is not used: the method sdedit has no controller" in note
    (note,) = notes(controller="replacement", alpha=3.0)
    assert "the controller replacement has no such gain" in note
    (note,) = notes(method="sdedit", source_prompt="a stone")
    assert "source_prompt a stone is not used: sdedit asks nothing about the source" in note
    plain = {"num_inference_steps": EditConfig().num_inference_steps}
    plain["guidance_scale"] = default
    (note,) = notes(method="warp", restore="source", **plain)
    assert "restore source is not used: warp asks the model nothing" in note
    (note,) = notes(method="copy_source", **plain | {"num_inference_steps": 7})
    assert "num_inference_steps 7 is not used: copy_source asks the model nothing" in note
    for encoding in ("group", "single"):
        (note,) = notes(method="first_frame", keyframe_encoding=encoding, **plain)
        assert f"keyframe_encoding {encoding} is not used: first_frame uses the keyframes as pictures" in note
    (note,) = notes(method="flf2v", restore="source", **plain)
    assert "restore source is not used: flf2v makes pixels" in note
    (note,) = notes(**plain, controller_options={"alpha": 5.0}, alpha=3.0)
    assert "alpha 3.0 is not used: controller_options has its own" in note
    (note,) = doubts(controller="exponential", method_options={"derivative": "central"})
    assert "derivative is not used: the controller exponential differentiates nothing" in note
    (note,) = notes(**plain, method_options={"source_weight": 0.0}, source_prompt="a stone")
    assert "source_prompt a stone is not used: residual_corrected asks nothing about the source" in note
    (note,) = notes(guidance_scale=1.0, negative_prompt="blurred")
    assert "negative_prompt blurred is not used: at guidance 1" in note
    for differ in ({"source_guidance_scale": 3.0}, {"method_options": {"guidance_scale": 3.0}}):
        (note,) = doubts(controller="exponential", guidance_scale=1.0, **differ)
        assert "where they differ, an edit that changes nothing does not give the source back" in note
    (note,) = notes(method="flowedit", guidance_scale=3.0)
    assert (
        "guidance_scale 3.0 is not used: the guidance_scale of flowedit is 12; method_options sets it" in note
    )


@pytest.mark.parametrize(
    ("base", "changes", "same"),
    [
        (
            {"method": "warp"},
            {"prompt": "a stone", "num_inference_steps": 7, "base_seed": 9, "shift": 2.0},
            True,
        ),
        ({}, {"prompt": "a stone"}, False),
        ({}, {"long_source": "windows"}, True),
        ({}, {"t5_cpu": True, "offload_model": False, "crf": 3}, True),
        ({}, {"tile": 32}, False),
        ({"method": "first_frame"}, {"keyframe_encoding": "single", "source_prompt": "a stone"}, True),
        ({"method": "flowedit"}, {"guidance_scale": 3.0, "source_guidance_scale": 2.0}, True),
        ({"guidance_scale": 1.0}, {"negative_prompt": "blurred"}, True),
        ({"guidance_scale": 2.0}, {"negative_prompt": "blurred"}, False),
    ],
)
def test_what_decides_no_pixel_edits_nothing_anew(
    edit_config: Config, base: dict, changes: dict, same: bool
) -> None:
    base = {"controller": "residual"} | base
    digests = [make_edit_plan(edit_config(**base | more)).task.digest for more in ({}, changes)]
    assert (digests[0] == digests[1]) is same


def test_held_frames_and_foreign_shapes_are_told(edit_config: Config, inputs: Inputs, tmp_path: Path) -> None:
    Image.new("RGB", (90, 40)).save(tmp_path / "wide.png")
    plan = make_edit_plan(edit_config(num_frames=6, keyframes=[[str(tmp_path / "wide.png"), 0]]))
    assert any("6 frames are no 4n+1: the model works on 9" in warning for warning in plan.warnings)
    assert any("wide.png" in warning for warning in plan.warnings)


@pytest.mark.parametrize("method", ["copy_source", "warp"])
def test_nothing_is_said_of_a_model_where_none_works(
    edit_config: Config, tmp_path: Path, method: str
) -> None:
    six = {"num_frames": 6, "keyframes": [[str(picture(tmp_path / "a.png")), 0]]}
    plan = make_edit_plan(edit_config(**six, method=method))
    assert not plan.about
    assert not [note for note in plan.warnings if "the model works" in note or "wan-tiny" in note]
    assert make_edit_plan(edit_config(**six)).about.startswith("wan-tiny is")


def test_frames_too_near_for_a_gif_are_refused_before_a_model_loads(
    edit_config: Config, tmp_path: Path, no_weights
) -> None:
    clock = Clock((0, 5, *range(500, 4000, 500)), 4000, Fraction(1, 1000))
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    write_video(tmp_path / "near.mkv", frames, Fraction(9, 4), clock=clock)
    near = {"video": str(tmp_path / "near.mkv"), "num_frames": 9}
    with pytest.raises(InputError, match=r"a frame is shown for 0\.005 s; a film in gif shows"):
        make_edit_plan(edit_config(**near, output=str(tmp_path / "a.gif")))


def test_own_size_has_a_floor(edit_config: Config, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    folder = picture(tmp_path / "tiny" / "0.png").parent
    Image.new("RGB", (20, 20)).save(folder / "0.png")
    with pytest.raises(InputError, match=r"is 20\*20, too small or too narrow for wan-tiny"):
        make_edit_plan(edit_config(video=str(folder), size=None, keyframes=[[str(folder / "0.png"), 0]]))


def test_every_field_is_documented_and_checked() -> None:
    doc = "".join(kind.__doc__ or "" for kind in EditConfig.__mro__)
    assert not [f.name for f in dataclasses.fields(EditConfig) if f"{f.name}:" not in doc]
    check_edit(EditConfig(video="a.mp4"))
    assert open_wan(EditConfig().source).known is not None
