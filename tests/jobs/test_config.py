"""Settings of a generation: keyframes and sizes in every form, ranges, other names."""

import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest

from wanedit import EditConfig
from wanedit.errors import InputError, ResourceError
from wanedit.jobs.generate.config import GenerationConfig, check, prompts
from wanedit.runtime.inputs import find_path, parse_keyframes
from wanedit.runtime.settings import ALIASES, parse_size, with_changes
from wanedit.stylists.palette.looks import PaletteSettings

ODD_NAMES = [
    "plain.png",
    "with space.png",
    "a=b.png",
    "comma,inside.png",
    "kolon:2.png",
    "ключ 键.png",
    "x:1,y:2.png",
]


@pytest.mark.fault(29)
@pytest.mark.parametrize("name", ODD_NAMES)
def test_keyframe_paths_of_any_name(tmp_path: Path, name: str) -> None:
    for file in (name, "second.png"):
        (tmp_path / file).touch()
    pairs = parse_keyframes([[str(tmp_path / name), 0], [str(tmp_path / "second.png"), 1.5]])
    assert [k.path.name for k in pairs] == [name, "second.png"]
    if "1," not in name:  # the one form that the text syntax cannot tell apart: ":number," inside a path
        text = f"{tmp_path / name}:0.0,{tmp_path / 'second.png'}:1.5"
        assert parse_keyframes(text) == pairs


def test_relative_keyframes_are_found_beside_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert parse_keyframes([["a.png", 0]], [tmp_path])[0].path == tmp_path / "a.png"
    with pytest.raises(InputError, match=r"keyframe 0: no file .*a\.png"):
        parse_keyframes([["a.png", 0]])


@pytest.mark.parametrize(
    "value", ["a.png", "a.png:", ":1", [["a.png"]], [["a.png", "soon"]], [7], [{"path": "a"}]]
)
def test_malformed_keyframes_name_the_expected_form(value) -> None:
    with pytest.raises(InputError, match=r"keyframe|expected"):
        parse_keyframes(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1280*720", (720, 1280)),
        ("832x480", (480, 832)),
        (" 64 * 48 ", (48, 64)),
        ("1920×1080", (1080, 1920)),
    ],
)
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["1280", "1280*721", "853x480", "0*16", "16*16", "-32*32", "a*b", "1280*720*3"]
)
def test_bad_sizes_say_what_would_do(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_size(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": 0},
        {"shift": -1.0},
        {"fps": float("nan")},
        {"guidance_scale": -0.5},
        {"num_gpus": 0},
        {"crf": 52},
        {"gpu_ids": "0,x"},
        {"gpu_ids": "0,0", "num_gpus": 2},
        {"gpu_ids": [0, 1, 2], "num_gpus": 2},
        {"smoothing_radius": 0},
        {"size": "100*101"},
    ],
)
def test_values_out_of_range_are_refused(changes) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        check(GenerationConfig(**changes))


def test_defaults_pass() -> None:
    check(GenerationConfig())


def test_sub_prompts_join_the_global_one() -> None:
    config = GenerationConfig(prompt="a ball", sub_prompts=["rising", "", "falling"])
    assert prompts(config, 3) == ["a ball, rising", "a ball", "a ball, falling"]
    with pytest.raises(InputError, match="3 sub_prompts for 2 segments"):
        prompts(config, 2)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(InputError, match="sample_step"):
        with_changes(GenerationConfig(), sample_step=3)


def test_output_may_be_a_folder_or_a_file() -> None:
    assert GenerationConfig(output="runs/a").final_path == Path("runs/a/output_final.mp4")
    named = GenerationConfig(output="runs/a/b.mp4")
    assert (named.final_path, named.folder) == (Path("runs/a/b.mp4"), Path("runs/a/b.wanedit"))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_inference_steps": "2"},
        {"num_inference_steps": True},
        {"num_inference_steps": 2.5},
        {"size": (32, 32)},
        {"base_seed": 1.5},
        {"sub_prompts": "h"},
        {"long_segments": "foo"},
        {"output": None},
        {"ckpt_dir": ""},
        {"cpu_threads": 100_000},
        {"size": "16000*16000"},
        {"output": "a\0b"},
    ],
)
def test_values_of_another_kind_are_refused(changes) -> None:
    # As a program without type checks passes them.
    config = object.__new__(GenerationConfig)
    for name, value in {**GenerationConfig().__dict__, **changes}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(InputError, match=next(iter(changes))):
        check(config)


def test_times_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="expected seconds"):
        parse_keyframes([[str(tmp_path / "a.png"), True]])
    assert parse_keyframes(f"{tmp_path / 'a.png'}:nan")[0].path.name == "a.png"


def folder_of(place: Path, *names: str) -> Path:
    place.mkdir(parents=True)
    for name in names:
        (place / name).touch()
    return place


@pytest.mark.parametrize(
    ("names", "times", "says"),
    [
        (("0.0.png", "1.5.png", "10.25.png"), {"0.0": 0, "1.5": 1.5, "10.25": 10.25}, "are seconds"),
        (("3s.jpg", "0s.jpg", "12s.jpg"), {"0s": 0, "3s": 3, "12s": 12}, "are seconds"),
        (("0000.png", "0024.png", "0048.png"), {"0000": 0, "0024": 1, "0048": 2}, "are frames at 24 fps"),
        (("2.png", "10.png", "18.png"), {"2": 2 / 24, "10": 10 / 24, "18": 18 / 24}, "are frames at 24"),
        # What cameras and ffmpeg write, and what people do: an order, no times.
        (
            ("1.png", "2.png", "3.png"),
            {"1": 0, "2": 2.5, "3": 5},
            "say no times; they follow each other 2.5 s",
        ),
        (("b.png", "a.png"), {"a": 0, "b": 2.5}, "say no times"),
        (("k9.png", "k10.png"), {"k9": 0, "k10": 2.5}, "2.5 s apart, by name: k9.png, k10.png"),
        (("0.5.png", "12.png"), {"0.5": 0, "12": 2.5}, "say no times"),
    ],
)
def test_a_folder_of_keyframes_says_their_times(
    tmp_path: Path, names: tuple[str, ...], times: dict[str, float], says: str
) -> None:
    folder = folder_of(tmp_path / "pictures", *names, "notes.txt", ".hidden.png")
    notes: list[str] = []
    for value in (folder, str(folder), "pictures"):
        found = parse_keyframes(value, [tmp_path], 24, 2.5, notes.append)
        assert {k.path.stem: k.seconds for k in found} == pytest.approx(times)
        assert [k.seconds for k in found] == sorted(k.seconds for k in found)
    assert says in notes[0]
    with pytest.raises(InputError, match=r"empty holds no pictures and no keyframes\.json"):
        parse_keyframes(folder_of(tmp_path / "empty"))


def test_styled_keyframes_stand_at_their_frames(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "styled", "0000.png", "0030.png")
    entries = [{"file": "0000.png", "frame": 0}, {"file": "0030.png", "frame": 30}]
    (folder / "keyframes.json").write_text(json.dumps({"keyframes": entries, "fps": 30}))
    assert [k.seconds for k in parse_keyframes(folder, (), 16)] == [0, 1]


def test_programs_pass_paths_tuples_and_numbers_of_numpy(tmp_path: Path) -> None:
    config = GenerationConfig(
        keyframes=((tmp_path / "a.png", np.float32(0.5)), (tmp_path / "b.png", 2)),
        sub_prompts=("it rises",),
        ckpt_dir=tmp_path,
        output=tmp_path / "out.mp4",
        gpu_ids=(0, 1),
        size=(1280, 720),
        num_gpus=2,
    )
    check(config)
    assert config.keyframes == [[str(tmp_path / "a.png"), 0.5], [str(tmp_path / "b.png"), 2]]
    assert (config.source, config.output, config.size) == (
        str(tmp_path),
        str(tmp_path / "out.mp4"),
        "1280*720",
    )
    assert (config.height_width, config.devices) == ((720, 1280), [0, 1])
    changed = with_changes(config, base_seed=np.int64(3), size=np.array([640, 360]), tiled=np.bool_(True))
    assert (changed.base_seed, changed.size, changed.tile) == (3, "640*360", 256)
    check(changed)


@pytest.mark.parametrize("alias", [name for name in ALIASES if name != "tiled"])
def test_every_alias_is_a_setting(alias: str) -> None:
    assert ALIASES[alias] in GenerationConfig.__dataclass_fields__ | EditConfig.__dataclass_fields__


def test_one_setting_under_two_names_is_refused() -> None:
    with pytest.raises(InputError, match="num_inference_steps is given twice, once as steps"):
        with_changes(GenerationConfig(), sample_steps=3, steps=4)
    with pytest.raises(InputError, match="tiled is 'yes'; expected true or false"):
        with_changes(GenerationConfig(), tiled="yes")


@pytest.mark.parametrize("kind", [GenerationConfig, EditConfig])
def test_a_class_of_settings_takes_the_other_names_and_hints_at_slips(kind: type) -> None:
    config = kind(sample_steps=2, sample_shift=3.0, cfg_scale=4.0, seed=1, tiled=True)
    assert (config.num_inference_steps, config.shift, config.guidance_scale) == (2, 3.0, 4.0)
    assert (config.base_seed, config.tile) == (1, 256)
    for slip, meant in (("sizes", "size"), ("sample_step", "sample_steps"), ("promt", "prompt")):
        with pytest.raises(
            InputError, match=f"{slip} is no setting of {kind.__name__}; did you mean '{meant}'"
        ):
            kind(**{slip: 1})
    with pytest.raises(InputError, match="guidance_scale is given twice"):
        kind(cfg_scale=1.0, guidance_scale=2.0)
    assert "num_inference_steps" in inspect.signature(kind).parameters
    # A palette's own `seed` is no other name of base_seed.
    assert PaletteSettings(seed=3).seed == 3


def test_a_keyframe_that_is_no_path_is_told() -> None:
    with pytest.raises(InputError, match="keyframe 0 is of ndarray; expected the path of a picture"):
        parse_keyframes([(np.zeros((4, 4, 3), np.uint8), 0.0)])


def test_a_name_with_a_zero_byte_is_no_file() -> None:
    with pytest.raises(InputError, match="video: no file"):
        find_path("film\0.mp4", what="video")


def test_a_file_in_a_folder_that_may_not_be_entered_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: object, **_: object) -> object:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(ResourceError, match=r"film\.mp4: Permission denied; allow it"):
        find_path(tmp_path / "film.mp4", what="video")


def test_a_whole_number_is_the_decimal_that_a_flag_makes_of_it() -> None:
    # Hashes tell 3 from 3.0, and what is sampled is found by them.
    given = GenerationConfig(shift=3, guidance_scale=1, fps=24)
    assert [repr(value) for value in (given.shift, given.guidance_scale, given.fps)] == ["3.0", "1.0", "24"]
    assert repr(EditConfig(alpha=2).alpha) == "2.0"
