"""Mistakes in files, times, sizes and names are told before anything heavy is imported, and hints name what is near."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.test_outputs import holiday
from wanedit import commands
from wanedit.cli import main
from wanedit.commands.support import WIDTH
from wanedit.errors import nearest
from wanedit.flow import CONTROLLERS, SOLVERS
from wanedit.flow.methods import METHODS
from wanedit.jobs.evaluate import METRICS
from wanedit.registry import Registry
from wanedit.runtime.options import options_of
from wanedit.stylists import STYLISTS

DEMO = "examples/multi_keyframe_demo"
FILM, BOARD = "examples/edit_a_video/source.mp4", "examples/edit_a_video/board.jpg"
SMALL = "examples/style_a_video/source.mkv"
LONG = f"/tmp/{'n' * 300}"
PAIR = f"{DEMO}/start.png:0,{DEMO}/rise.png:0.5"
# Words of a command line, its exit code and what it is told.
MISTAKES = [
    (f"generate --keyframes nowhere.png:0,{DEMO}/rise.png:1", 2, "keyframe 0: no file"),
    (f"generate --keyframes {DEMO}/start.png:1,{DEMO}/rise.png:0.5", 2, "expected increasing times"),
    (f"generate --keyframes {DEMO}/start.png:0,{DEMO}/rise.png:50 --long_segments error", 2, "needs 801 frames"),
    (f"generate --keyframes {PAIR} --size wide", 2, "size is 'wide'"),
    (f"generate --keyframes {PAIR} --solver eulr", 2, "Did you mean 'euler'?"),
    (f"generate --keyframes {PAIR} --sub_prompts [a,b]", 2, "2 sub_prompts for 1 segments"),
    (f"generate --keyframes {PAIR} --ckpt_dir /nowhere", 3, "expected the folder or file of a checkpoint"),
    (f"generate --keyframes {PAIR} --ckpt_dir /x/Wan2.1-T2V-14B", 3, "wanedit models download Wan2.1-T2V-14B --to"),
    (f"generate --keyframes {PAIR} --model 14B", 3, "wanedit models download Wan2.1-Fun-14B-InP --to models/"),
    (f"generate --keyframes {PAIR} --model Wan9", 2, "'Wan9' is neither a file, a folder nor a known model"),
    (f"generate --keyframes {PAIR} --stepz 3", 2, "unrecognized arguments: --stepz"),
    (f"edit nowhere.mp4 --keyframes {BOARD}:0", 2, "video: no file or folder"),
    (f"edit {FILM} --keyframes nowhere.png:0", 2, "keyframe 0: no file"),
    (f"edit {FILM} --keyframes {BOARD}:8,{BOARD}:0", 2, "keyframe 0 follows 8"),
    (f"edit {FILM} --keyframes {BOARD}:800", 2, "[800] lie outside the source's frames 0 … 32"),
    (f"edit {FILM} --keyframes {BOARD}:8 --start 20 --num_frames 5", 2, "outside the source's frames 0 … 4"),
    (f"edit {FILM} --keyframes {BOARD}:0 --size 12", 2, "size is '12'"),
    (f"edit {FILM} --keyframes {BOARD}:0 --alpha 1{'0' * 400}", 2, "alpha is an integer of over 308 digits"),
    (f"edit {FILM} --keyframes {BOARD}:0 --method warped", 2, "Did you mean 'warp'?"),
    (f"edit {FILM} --keyframes {BOARD}:0 --controller residul", 2, "Did you mean 'residual'?"),
    (f"edit {FILM} --keyframes {BOARD}:0 --model 1.3B", 3, "wanedit models download Wan2.1-Fun-1.3B-InP"),
    (f"edit {FILM} --style.image nowhere.png", 2, "style.image: no file"),
    (f"edit {FILM} --style.description gogh", 2, "names none that it knows"),
    ("style nowhere.mp4 --style.description ink", 2, "video: no file or folder"),
    (f"style {FILM} --style.description ink --stylist palete", 2, "Did you mean 'palette'?"),
    ("evaluate nowhere.mp4", 2, "video: no file or folder"),
    ("evaluate --run nowhere", 2, "run: no file or folder"),
    (f"evaluate {FILM} --metrics nothing", 2, "metrics names 'nothing'"),
    (f"evaluate {FILM} --reference nowhere.mp4", 2, "reference: no file or folder"),
    (f"edit {FILM} --keyframes {BOARD}:0 --output THEIRS/holiday.mp4", 2, "holiday.mp4 was not written by wanedit"),
    (f"edit {FILM} --keyframes {BOARD}:0 --output {FILM}", 2, "is also an input"),
    (f"edit {FILM} --style.description ink --output THEIRS/holiday.mp4", 2, "was not written by wanedit"),
    (f"generate --keyframes {PAIR} --output THEIRS/holiday.mp4", 2, "holiday.mp4 was not written by wanedit"),
    (f"generate --keyframes {PAIR} --audio {FILM} --output {FILM}", 2, "holds no sound"),
    (f"generate --keyframes {PAIR} --audio nowhere.mp3", 2, "audio: no file"),
    (f"evaluate {FILM} --output THEIRS/notes.json", 2, "notes.json was not written by wanedit"),
    ("report THEIRS --output THEIRS/page.html", 2, "page.html was not written by wanedit"),
    ("report THEIRS --output page.pdf", 2, "expected the name of an .html file"),
    ("report nowhere", 2, "expected the folder of a run"),
    (f"report {FILM}", 2, "is no film of a run"),
    (f"report {DEMO} --output /tmp/x.html", 2, "holds settings, but no run"),
    ("evaluate --run examples/edit_a_video", 2, "holds settings, but no run"),
    (f"generate --keyframes {PAIR} --steps 4 --num_inference_steps 5", 2, "by --steps and --num_inference_steps"),
    (f"generate --keyframes {PAIR} --tiled --tile 64", 2, "tile is given twice, by --tiled and --tile"),
    (f"generate --keyframes {PAIR} --keyframes x.png:0", 2, "--keyframes is given 2 times: the last one counts"),
    (f"edit {FILM} --video {FILM}", 2, f"video is given twice, by --video and by {FILM} without a flag"),
    (f"evaluate {FILM} --out a.json --output b.json", 2, "output is given twice, by --out and --output"),
    ("ablate experiments/08_steps --experiment x", 2, "experiment is given twice"),
    (f"generate --keyframes {PAIR} --tiled 128", 2, "tiled is 128; expected true or false"),
    (f"generate --keyframes {PAIR} --guidence 3", 2, "Did you mean 'guidance'?"),
    (f"generate --keyframes {PAIR} --tracker wandb", 2, "Did you mean 'tracking'?"),
    (f"generate --keyframes {PAIR} --sample_steps 0", 2, "sample_steps (num_inference_steps) is 0; expected"),
    (f"edit {FILM} --sample_solver unipc", 2, "sample_solver is a setting of calibrate, generate; edit has none of"),
    (f"evaluate {FILM} --metrics fidelty", 2, "Did you mean 'fidelity'?"),
    ("generate --config nope.yaml", 2, "nope.yaml: does not exist; expected a file of settings"),
    ("report --config examples", 2, "examples: is a folder; expected a file of settings"),
    ("style x.mp4 --style nope", 2, "style is 'nope'; expected its parts: style.image, style.description"),
    ("report", 2, "no runs given; expected folders of runs, or their finished videos"),
    ("generate --size -64*64", 2, "size has no value; expected one, as --size=VALUE where it begins with a minus"),
    (f"generate --keyframes {PAIR} --fps 0", 2, "fps is 0.0; expected a positive number up to 1000 or null"),
    ("models chek", 2, "action is 'chek'; expected one of list, check, download\nDid you mean 'check'?"),
    ("repot", 2, "Did you mean 'report'?"),
    (f"edit {FILM} --keyframes {BOARD}:8 --method_options.strenght 0.5", 2, "Did you mean 'strength'?"),
    (f"edit {FILM} --keyframes {BOARD}:8 --controller_options.nosuch 1", 2, "no option 'nosuch'"),
    (f"edit {FILM} --keyframes {BOARD}:0 --start 100", 2, "start is frame 100, the source has frames 0 to 32"),
    (f"evaluate {FILM} --junctions 99999", 2, "junctions are [99999]; expected frames 1 … 31"),
    (f"evaluate {FILM} --junctions a", 2, "junctions is 'a'; expected frame numbers such as 24,48"),
    (f"evaluate {FILM} --junctions 12 --reference {BOARD}", 2, "board.jpg: is a picture; expected a video"),
    (f"evaluate {FILM} --reference {DEMO}/config.yaml", 2, "config.yaml: not a readable video file"),
    (f"evaluate {FILM} --reference {SMALL}", 2, "expected the video's 33 frames of 640x360"),
    (f"evaluate {FILM} --mask {DEMO}/start.png", 2, "mask is 128x128; expected 640x360"),
    (f"evaluate {FILM} --keyframes {BOARD}:33", 2, "keyframe 33 lies outside the video's frames 0 … 32"),
    (f"evaluate {BOARD}", 2, "board.jpg: is a picture; expected a video"),
    (f"edit {FILM} --keyframes {DEMO}/config.yaml:0", 2, "config.yaml: not an image of a known format"),
    (f"generate --keyframes {DEMO}/start.png:0,{FILM}:1", 2, "source.mp4: is a video; expected a picture"),
    (f"edit {FILM} --keyframes {BOARD}:0 --vae no.safetensors", 3, "vae no.safetensors: there is no such file"),
    ("ablate nowhere", 2, "nowhere has no grid.yaml"),
    (f"edit {FILM} --keyframes {BOARD}:0 --dry_run --output /proc/x", 2, "output /proc/x cannot be written: No such"),
    (f"generate --keyframes {PAIR} --dry_run --output {FILM}/x", 2, "x cannot be written: Not a directory; choose"),
    (f"style {FILM} --style.description ink --dry_run --output /proc/x", 2, "output /proc/x cannot be written"),
    (f"evaluate {FILM} --output /proc/x/y.json", 2, "output /proc/x cannot be written"),
    (f"evaluate {FILM} --prompt x --vbench {LONG}", 2, "cannot be written: File name too long; choose another output"),
    (f"report THEIRS --output {LONG}.html", 2, "cannot be written: File name too long; choose another output"),
    ("ablate experiments/08_steps --dry_run --output /proc/x", 2, "output /proc/x cannot be written"),
    ("ablate experiments/08_steps --results THEIRS", 2, "table.md was not written by wanedit and would be replaced"),
    ("models check nowhere", 2, "'nowhere' is neither a file, a folder nor a known model"),
    (f"models check {DEMO}", 3, "has no diffusion_pytorch_model*.safetensors"),
    (f"generate --keyframes {PAIR} --model {DEMO}", 3, "nor any other file of weights (.safetensors, .sft"),
    (f"edit {FILM} --keyframes {BOARD}:8 --model {DEMO}", 3, "nor any other file of weights (.safetensors, .sft"),
]  # fmt: skip
if not any(Path("/dev").glob("nvidia*")):
    MISTAKES += [
        (f"edit {FILM} --keyframes {BOARD}:8 --gpu_id 3", 2, "gpu_id [3] asked for; this machine has no GPU"),
        (f"generate --keyframes {PAIR} --gpu_ids 3", 2, "gpu_ids [3] asked for; this machine has no GPU"),
    ]
# What is planned; and what is refused by the class of a method, which comes with torch.
PLANS = [
    (f"edit {FILM} --keyframes {BOARD}:8 --num_frames 9 --dry_run", 0, ""),
    (f"edit {FILM} --keyframes {BOARD}:8 --num_frames 9 --method flowedit --dry_run", 0, ""),
    (f"edit {FILM} --style.description ink --num_frames 9 --dry_run", 0, ""),
    (f"edit {FILM} --keyframes {BOARD}:8 --method_options.strength much", 2, "expected"),
    (f"generate --keyframes {PAIR} --dry_run", 0, ""),
    (f"style {FILM} --style.description ink --indices 0,8 --dry_run", 0, ""),
]
UNRELATED = """banana cutoff weather stereo codec bitrate seamless mask_blur denoise upscale interpolation watermark x
    zz clip_skip scheduler batch_size hires style.weight style.cutoff palette.stereo gemini.lora nothing.prompt"""
RUN = """
import contextlib, io, json, sys
from wanedit.cli import main
told = []
for words in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as text, contextlib.redirect_stdout(io.StringIO()):
        told.append([main(words), text.getvalue()])
heavy = [name for name in ("torch", "lightning", "torchmetrics", "diffsynth", "transformers") if name in sys.modules]
print(json.dumps([told, heavy]))
"""


@pytest.mark.parametrize(
    ("cases", "brought"), [(MISTAKES, []), (PLANS, ["torch"])], ids=["mistakes", "plans"]
)
def test_a_command_imports_no_more_than_it_needs(
    cases: list[tuple[str, int, str]], brought: list[str], repository: Path, tmp_path: Path
) -> None:
    holiday(tmp_path / "holiday.mp4")
    for name in ("notes.json", "table.md", "page.html", "config.yaml", "metrics.jsonl"):
        (tmp_path / name).write_text("{}")
    words = json.dumps([words.replace("THEIRS", str(tmp_path)).split() for words, _, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=words, capture_output=True, text=True, check=True, cwd=repository
    )
    told, heavy = json.loads(done.stdout)
    for (words, code, says), (got, text) in zip(cases, told, strict=True):
        assert (got, says in text) == (code, True), (words, got, text)
    assert heavy == brought


@pytest.mark.parametrize("registry", [METHODS, CONTROLLERS, SOLVERS, STYLISTS, METRICS])
def test_names_known_without_importing_are_those_that_are_registered(registry: Registry) -> None:
    known = list(registry)
    assert known == sorted(known)
    assert all(registry[name] is not None for name in known)
    assert set(known) == set(registry._own)


@pytest.mark.parametrize("registry", [METHODS, CONTROLLERS])
def test_options_known_without_importing_are_those_that_are_taken(registry: Registry) -> None:
    read = {name: registry.options(name) for name in registry}
    assert None not in read.values()
    assert read == {name: options_of(registry[name]) for name in registry}


@pytest.fixture(scope="module")
def flags() -> list[str]:
    """Every flag of every command."""
    return [action.dest for name in commands.names() for action in commands.load(name).parser()._actions]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("num_inference_step", "num_inference_steps"),
        ("num-inference-steps", "num_inference_steps"),
        ("steps", "num_inference_steps"),
        ("guidence_scale", "guidance_scale"),
        ("keyframez", "keyframes"),
        ("controler", "controller"),
        ("image", "style.image"),
        ("paint", "palette.paint"),
        ("seed", "base_seed"),
        ("negative", "negative_prompt"),
        ("promt", "prompt"),
        ("ouput", "output"),
        ("restoration", "restore"),
        ("style.strengt", "style.palette.strength"),
        ("palete.strenth", "palette.strength"),
        ("style.descripton", "style.description"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(word: str, meant: str, flags: list[str]) -> None:
    assert nearest(word, flags) == meant


@pytest.mark.parametrize("word", UNRELATED.split())
def test_a_word_that_is_like_none_gets_no_hint(word: str, flags: list[str]) -> None:
    assert nearest(word, flags) is None


@pytest.mark.parametrize("command", commands.names())
def test_help_is_short_unless_all_is_asked_for(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    short = capsys.readouterr().out.splitlines()
    assert stop.value.code == 0
    assert len(short) <= 23
    assert {"what goes in:", "how:"} & set(short)
    with pytest.raises(SystemExit):
        main([command, "--help", "all"])
    every = capsys.readouterr().out
    assert max(map(len, [*short, *every.splitlines()])) <= WIDTH
    assert re.findall(r"SUPPRESS|list\[|dict\[|None|Any|factory|typing", every) == []
    assert [
        line.split()[0] for line in short if line.startswith("  --") and line.split()[0] not in every
    ] == []
    assert main([command, "--help", "some"]) == 2
    assert "--help some; expected --help, or --help all" in capsys.readouterr().err


def test_the_overview_has_a_line_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == sorted(
        commands.names(), key=lambda name: commands.load(name).ORDER
    )
    assert max(map(len, lines)) <= 100


def test_what_is_very_long_is_cut_where_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["generate", "--keyframes", f"{'x' * 100_000}.png:0,b.png:1"],
        ["generate", "--keyframes", PAIR, "--size", "9" * 4_000],
    ):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert len(told) < 2_000
        assert "more letters…]" in told
    assert told.endswith('; expected "width*height" such as "1280*720"\n')
