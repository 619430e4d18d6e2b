"""scripts/multi_keyframe_generate.py: every flag of the original example arrives; a mistake is short and exits 2."""

import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from wanedit import GenerationConfig
from wanedit.errors import WaneditError
from wanedit.jobs.generate import plan as report_plan
from wanedit.jobs.generate import run as generate
from wanedit.runtime.settings import ALIASES

REPOSITORY = Path(__file__).parent.parent
SCRIPT = REPOSITORY / "scripts" / "multi_keyframe_generate.py"
DEMO = REPOSITORY / "examples" / "multi_keyframe_demo"
CONFIG = DEMO / "config.yaml"
TINY = REPOSITORY / "wanedit" / "assets" / "wan-tiny"

# The fields of the original config.yaml, none at its default.
ORIGINAL = {
    "keyframes": [["start.png", 0.0], ["end.png", 1.0]],
    "prompt": "a red ball",
    "sub_prompts": ["it rises"],
    "negative_prompt": "grey",
    "ckpt_dir": "Wan2.1-FLF2V-14B-720P",
    "size": "832*480",
    "fps": 12.0,
    "sample_steps": 4,
    "sample_shift": 5.0,
    "sample_guide_scale": 2.0,
    "sample_solver": "dpm++",
    "base_seed": 7,
    "num_gpus": 2,
    "gpu_ids": [0, 1],
    "offload_model": False,
    "t5_cpu": True,
    "enable_smoothing": True,
    "smoothing_method": "temporal_filter",
    "output": "outputs/original",
}

FLAGS = [
    (["--keyframes", "a.png:0.0,b.png:3.0"], "keyframes", "a.png:0.0,b.png:3.0"),
    (["--prompt", "a ball: red, #1"], "prompt", "a ball: red, #1"),
    (["--ckpt_dir", "some folder"], "ckpt_dir", "some folder"),
    (["--size", "1280*720"], "size", "1280*720"),
    (["--output", "out.mp4"], "output", "out.mp4"),
    (["--num_gpus", "2"], "num_gpus", 2),
    (["--gpu_ids", "0,1"], "devices", [0, 1]),
    (["--gpu_ids", "[0, 1]"], "devices", [0, 1]),
    (["--gpu_ids", "3"], "devices", [3]),
    (["--resume_from", "1"], "resume_from", 1),
    (["--smoothing_method", "temporal_filter"], "smoothing_method", "temporal_filter"),
    (["--sample_steps", "4"], "num_inference_steps", 4),
]
SWITCHES = ["--force_regenerate", "--offload_model", "--t5_cpu", "--enable_smoothing"]


@pytest.fixture
def run_here(monkeypatch):
    """Run it in this process; returns its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        # Else the signals of the tests would be the script's.
        monkeypatch.setattr("wanedit.interrupts.run", lambda main: sys.exit(main()))
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert isinstance(stop.value.code, int)
        return stop.value.code

    return run


@pytest.fixture
def planned(monkeypatch) -> list[GenerationConfig]:
    """The configurations whose plan was asked for, in place of the printed plan."""
    seen = []
    # What is checked before, files, models and devices, has tests of its own.
    monkeypatch.setattr("wanedit.commands.generate.find_keyframes", lambda config, folders: [])
    monkeypatch.setattr("wanedit.commands.generate.check_output", lambda *arguments: None)
    monkeypatch.setattr(report_plan, "print_plan", lambda config, folders: seen.append(config))
    return seen


@pytest.mark.parametrize(("flags", "name", "value"), FLAGS, ids=lambda part: str(part))
def test_a_flag_arrives(flags, name, value, run_here, planned):
    assert run_here("--config", str(CONFIG), *flags, "--dry_run") == 0
    assert getattr(planned[0], name) == value


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize(
    ("words", "value"), [([], True), (["true"], True), (["false"], False)], ids=["bare", "true", "false"]
)
def test_a_switch_is_bare_or_told(switch, words, value, run_here, planned):
    assert run_here("--config", str(CONFIG), switch, *words, "--dry_run") == 0
    assert getattr(planned[0], switch.removeprefix("--")) is value


def test_verbose_prints_the_plan_and_runs(run_here, monkeypatch):
    asked = []

    def started(*arguments, **keywords):
        asked.append(keywords)
        raise WaneditError("started")

    monkeypatch.setattr(generate, "generate", started)
    assert run_here("--config", str(CONFIG), "--verbose") == WaneditError.exit_code
    assert asked == [{"verbose": True, "full_plan": True}]


def test_flags_win_wherever_they_stand(run_here, planned):
    assert run_here("--fps", "8", "--config", str(CONFIG), "--dry_run") == 0
    assert planned[0].fps == 8


def test_the_original_yaml(tmp_path, run_here, planned):
    path = tmp_path / "original.yaml"
    path.write_text(yaml.safe_dump(ORIGINAL), encoding="utf-8")
    assert run_here("--config", str(path), "--dry_run") == 0
    assert {name: asdict(planned[0])[ALIASES.get(name, name)] for name in ORIGINAL} == ORIGINAL


def test_later_config_and_flags_win(tmp_path, run_here, planned):
    path = tmp_path / "later.yaml"
    path.write_text("fps: 8\nprompt: from the file\n", encoding="utf-8")
    flags = ["--config", str(CONFIG), "--config", str(path), "--prompt", "from the flag", "--dry_run"]
    assert run_here(*flags) == 0
    assert (planned[0].fps, planned[0].prompt, planned[0].size) == (8, "from the flag", "128*128")


def test_all_flags_together(tmp_path, run_here, capsys):
    code = run_here(
        "--config", str(CONFIG), "--keyframes", f"{DEMO / 'start.png'}:0.0,{DEMO / 'end.png'}:1.0",
        "--prompt", "a ball", "--ckpt_dir", str(TINY), "--size", "64*96", "--output", str(tmp_path / "run"),
        "--num_gpus", "2", "--gpu_ids", "0,1", "--resume_from", "0", "--force_regenerate", "--offload_model",
        "--t5_cpu", "--enable_smoothing", "--smoothing_method", "temporal_filter", "--sample_steps", "4",
        "--verbose", "--dry_run",
    )  # fmt: skip
    page = capsys.readouterr()
    assert code == 0, page.err
    assert "17 frames, 64*96" in page.out
    assert "4 steps" in page.out
    assert not (tmp_path / "run").exists()


def test_paths_with_anything_in_them(tmp_path, run_here, monkeypatch, capsys):
    names = ["two words.png", "a=b, c.png", "日本 – ü 🎈.png", "it's #1: [x].png"]
    folder = tmp_path / "a folder = ü, x"
    folder.mkdir()
    for name in names:
        shutil.copy(DEMO / "start.png", folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    keyframes = ",".join(f"{name}:{0.5 * k}" for k, name in enumerate(names))
    assert run_here("--keyframes", keyframes, "--output", "out = ü", "--dry_run") == 0
    page = capsys.readouterr().out
    for name in names:
        assert name in page


WRONG = [
    (["--num_inference_stps", "3"], "num_inference_steps"),
    (["--offlod_model"], "offload_model"),
    (["--sample_steps", "four"], "num_inference_steps"),
    (["--t5_cpu", "maybe"], "t5_cpu"),
    (["--smoothing_method", "blur"], "temporal_filter"),
    (["--size", "853*480"], "such as 852*480"),
    (["--keyframes", "a.png"], "a.png:0.0,b.png:3.0"),
    (["--keyframes", "absent.png:0.0,b.png:3.0"], "absent.png"),
    (["--resume_from", "9"], "0 to 2"),
    (["--gpu_ids", "one"], "gpu_ids"),
]


@pytest.mark.parametrize(("flags", "says"), WRONG, ids=lambda part: str(part))
def test_a_mistake_is_short_and_exits_2(flags, says, run_here, capsys, tmp_path):
    known = ["--config", str(CONFIG), "--output", str(tmp_path / "out"), "--dry_run"]
    assert run_here(*known, *flags) == 2
    message = capsys.readouterr().err
    assert says in message
    assert len(message.splitlines()) < 10


def test_a_mistyped_yaml_key_names_the_nearest(tmp_path, run_here, capsys):
    path = tmp_path / "typo.yaml"
    path.write_text("promt: a ball\n", encoding="utf-8")
    assert run_here("--config", str(path)) == 2
    message = capsys.readouterr().err
    assert "Did you mean 'prompt'?" in message
    assert len(message.splitlines()) < 10


def test_nothing_to_do_is_an_error():
    # The one that starts it as a user does, without the tests' search path.
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no keyframes" in done.stderr
