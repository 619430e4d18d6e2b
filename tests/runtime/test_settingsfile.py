"""Mistakes in files of settings are told with file and line."""

import json
from pathlib import Path

import pytest

from wanedit.cli import main
from wanedit.errors import InputError
from wanedit.jobs.ablate.grid import load_grid
from wanedit.runtime.inputs import parse_edited, parse_keyframes

GOOD = "keyframes: [[a.png, 0.0], [b.png, 0.5]]\nprompt: a ball\n"


def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, *flags: str) -> str:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    words = ["generate", "--config", str(path), "--output", str(tmp_path / "out"), "--dry_run", *flags]
    assert main(words) == 2
    return capsys.readouterr().err.replace(str(tmp_path) + "/", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GOOD + "# f\xfcr J\xf6rgen\n", "settings.yaml:3: is not UTF-8 text"),
        ("keyframes:\n\t- [a.png, 0.0]\n", "settings.yaml:2: YAML is indented by spaces, here stands a tab"),
        (
            GOOD + "negative_prompt: pizza: hot\n",
            'settings.yaml:3: a text with ": " in it has to stand in quotes',
        ),
        (GOOD + "size: [96*64\n", "settings.yaml:4: "),
        ("- prompt\n", "settings.yaml:1: holds no mapping"),
        (GOOD + "\nprompt: twice\n", "settings.yaml:4: prompt is given twice, first in line 2"),
        (GOOD + "\npromt: a\n", "settings.yaml:4: "),
        ("", "settings.yaml: holds no setting; expected lines such as prompt: a red ball"),
        ("# nothing yet\n", "settings.yaml: holds no setting"),
        (
            GOOD + "\nnegative_prompt: !!python/object:os.system x\n",
            "settings.yaml:4: could not determine a constr",
        ),
        (
            GOOD + "size: !mine [96, 64]\n",
            "settings.yaml:3: could not determine a constructor for the tag '!mine'",
        ),
        (
            GOOD + "negative_prompt: 2024-13-45\n",
            "settings.yaml:3: 2024-13-45 is no value that YAML can read (month",
        ),
        (
            GOOD + "[a, b]: 3\n",
            "settings.yaml:3: a sequence stands where a name should; expected lines such as",
        ),
        (GOOD + "style:\n  {a: 1}: 3\n", "settings.yaml:4: a mapping stands where a name should"),
        (GOOD + "sub_prompts: &a [*a]\n", "settings.yaml: an alias in it holds itself"),
        ("generate:\n  prompt: x\n", "settings.yaml:1: 'generate' is the name of a command and no setting"),
        (GOOD + "fps: 0\n", "settings.yaml:3: fps is 0.0; expected a positive number up to 1000 or null"),
        (GOOD + "crf: x\n", "settings.yaml:3: crf is 'x'; expected an integer"),
        (
            GOOD + "size: 13\n",
            'settings.yaml:3: size is 13; expected "width*height" such as "1280*720", or null',
        ),
        (GOOD + "gpu_ids: 1.5\n", "settings.yaml:3: gpu_ids is 1.5; expected text or a list of integers"),
        (GOOD + "crf: 99\n", "settings.yaml:3: crf is 99; expected an integer from 0 to 51"),
        (GOOD + "sample_steps: -2\n", "settings.yaml:3: num_inference_steps is -2"),
        (GOOD + "negative_prompt: no\n", "settings.yaml:3: negative_prompt is 'False'; expected text"),
        (
            "prompt: p\nkeyframes:\n- [a.png, 0.0]\n- [b.png, 0:01]\n",
            "settings.yaml:4: keyframe 1: time is '0:01'",
        ),
    ],
)
def test_a_mistake_is_told_with_file_and_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    told = said(tmp_path, capsys, content.encode("latin-1"))
    assert told.startswith(f"wanedit: {expected}")
    assert told.count("\n") < 10


def test_the_last_file_and_no_flag_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "later.yaml").write_text("fps: 16\ncrf: 77\n")
    told = said(tmp_path, capsys, (GOOD + "crf: 99\n").encode(), "--config", str(tmp_path / "later.yaml"))
    assert told.startswith("wanedit: later.yaml:2: crf is 77")
    told = said(tmp_path, capsys, (GOOD + "crf: 20\n").encode(), "--crf", "60")
    assert told.startswith("wanedit: crf is 60")


def test_a_wrong_part_of_a_group_is_told_the_right_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("prompt: x\nstyle:\n  stylistt: palette\n")
    assert main(["edit", "--config", str(path)]) == 2
    assert "Did you mean 'style.stylist'?" in capsys.readouterr().err


def test_yes_and_no_say_what_yaml_makes_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said(tmp_path, capsys, b"prompt: no\n")
    assert (
        "settings.yaml:1: prompt is 'False'; expected text; YAML takes no for true or false: write \"no\""
        in told
    )


def test_a_record_of_keyframes_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    record = tmp_path / "keyframes.json"
    entries = [{"file": "a.png", "frame": 0}, {"file": "a.png", "frame": "x"}]
    record.write_text(json.dumps({"keyframes": entries}, indent=1))
    with pytest.raises(
        InputError, match=r"keyframes\.json:7: keyframe 1: frame is 'x'; expected a whole number"
    ):
        parse_edited(str(tmp_path))
    record.write_text(json.dumps({"keyframes": entries}, indent="\t"))
    with pytest.raises(InputError, match=r"keyframes\.json: keyframe 1: frame is 'x'"):
        parse_edited(str(tmp_path))
    record.write_text('{"keyframes": [\n{"file": "a.png" "frame": 0}]}')
    with pytest.raises(InputError, match=r"keyframes\.json:2: "):
        parse_edited(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seeds: [a]", r"grid\.yaml:6: seeds are \['a'\]"),
        ("axis: {}", r"grid\.yaml:6: unknown key 'axis'"),
        ("minutes: x", r"grid\.yaml:6: minutes is 'x'"),
        ("minutes: a: b", r'grid\.yaml:6: a text with ": "'),
    ],
)
def test_a_grid_is_told_with_its_line(tmp_path: Path, line: str, expected: str) -> None:
    head = "title: t\nshows: s\ncommand: edit\ndata: {kind: edited_sprites}\naxes: {alpha: [1, 2]}\n"
    (tmp_path / "grid.yaml").write_text(f"{head}{line}\n")
    with pytest.raises(InputError, match=expected):
        load_grid(tmp_path)


def test_one_text_in_the_place_of_several_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "style.yaml"
    path.write_text("style: sunset\n")
    expected = "style is 'sunset'; expected its parts: style.image, style.description\n"
    assert main(["style", "a.mp4", "--config", str(path), "--dry_run"]) == 2
    assert capsys.readouterr().err == f"wanedit: {path}:1: {expected}"
    assert main(["style", "a.mp4", "--style", "sunset", "--dry_run"]) == 2
    assert capsys.readouterr().err == f"wanedit: {expected}"


@pytest.mark.parametrize("name", ["a=1,b:2.5,ü/k:3,x=0.png", "a.png:7,b.png", "a b, c.png", "a:1.png"])
def test_colons_and_commas_in_the_paths_of_keyframes(tmp_path: Path, name: str) -> None:
    for place in (tmp_path / "plain.png", tmp_path / name):
        place.parent.mkdir(exist_ok=True)
        place.touch()
    for prefix, folders in ((f"{tmp_path}/", ()), ("", (tmp_path,))):
        text = f"{prefix}plain.png:0,{prefix}{name}:5, {prefix}plain.png:9"
        found = parse_edited(text, folders)
        assert [(str(one.path.relative_to(tmp_path)), one.index) for one in found] == [
            ("plain.png", 0),
            (name, 5),
            ("plain.png", 9),
        ]
        seconds = parse_keyframes(text.replace(":5,", ":5.5,"), folders)
        assert [frame.seconds for frame in seconds] == [0, 5.5, 9]


def test_a_keyframe_that_cannot_be_placed_is_named() -> None:
    with pytest.raises(
        InputError, match=r"keyframe 0 is at 2.5, .* is seconds \(a=1,b\); expected a frame number"
    ):
        parse_edited("a=1,b:2.5,k.png:5")
