from pathlib import Path

import pytest

from wanedit.errors import InputError
from wanedit.jobs.generate.config import GenerationConfig, check, prompts
from wanedit.runtime.inputs import parse_keyframes
from wanedit.runtime.settings import parse_size, with_changes

ODD_NAMES = [
    "plain.png",
    "with space.png",
    "a=b.png",
    "comma,inside.png",
    "kolon:2.png",
    "ключ 键.png",
    "x:1,y:2.png",
]


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
