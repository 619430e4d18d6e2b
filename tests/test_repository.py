"""What the repository promises outside its code: presets, pins, commands, versions, names."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import Distribution

import wanedit
from wanedit import GenerationConfig
from wanedit.cli import build_parser, main
from wanedit.wan.catalog import find_known

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
# Those of few steps are held to what they are distilled for, in tests/jobs/test_distilled.py.
MODELS = [
    path
    for path in CONFIGS
    if path.parent.name == "models" and path.stem != "tiny" and "\ndistilled:" not in path.read_text("utf-8")
]
NOT_SOURCES = {"__pycache__", "outputs", "runs", "build", "lightning_logs"}
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".json", ".cff", ".cfg", ".tex", ".sh", ""}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))


def sources() -> Iterator[Path]:
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [f for f in folders if f == ".ci" or not (f in NOT_SOURCES or f.startswith("."))]
        folders[:] = [f for f in folders if not f.endswith(".egg-info")]
        yield from (Path(folder, name) for name in files if Path(name).suffix in TEXT)


def parse(*configs: Path, command: str = "generate"):
    flags = [word for config in configs for word in ("--config", str(config))]
    return build_parser(command).parse_args([command, *flags])[command]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_of_a_preset_is_read(path):
    settings = parse(path)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert given.pop("preset")
    assert given.keys() <= GenerationConfig.__dataclass_fields__.keys()
    assert {name: settings[name] for name in given} == given


def test_base_holds_every_default():
    own = ("job", "resize_policy", "output")
    defaults = {name: value for name, value in asdict(GenerationConfig()).items() if name not in own}
    assert yaml.safe_load(read("configs/base.yaml")) == {"preset": True, **defaults}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_preset_is_what_the_model_was_made_for(path):
    preset = parse(path)
    known = find_known(preset.model)
    assert known is not None
    own = known.sampling
    # Null is the model's own in a generation, and the source's in an edit, which a preset must not change.
    assert (preset.size, preset.fps) == (None, None)
    assert preset.num_inference_steps == own.num_inference_steps
    assert (preset.shift, preset.guidance_scale) == (own.shift, own.guidance_scale)


def test_presets_merge_left_to_right():
    merged = parse(
        *(ROOT / "configs" / name for name in ("base.yaml", "models/flf2v-14b-720p.yaml", "draft.yaml"))
    )
    assert (merged.model, merged.num_inference_steps, merged.shift) == ("Wan2.1-FLF2V-14B-720P", 8, 16.0)


@pytest.mark.parametrize("command", ["edit", "style", "evaluate", "ablate", "report"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_preset_is_for_every_command(path, command, capsys):
    words = ["run"] if command == "report" else []
    given = build_parser(command).parse_args([command, "--config", str(path), *words])[command]
    plain = build_parser(command).parse_args([command, *words])[command]
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    left = [name for name in values if name not in plain and name != "preset"]
    assert {name: given[name] for name in values if name in plain} == {
        name: value for name, value in values.items() if name in plain
    }
    said = capsys.readouterr().err
    told = f"wanedit: preset: {command} has no {', '.join(left)}, which other commands have: left out\n"
    assert said == (told if left else "")
    if path.stem == "base":  # which changes nothing anywhere; "" and [] are as good as null
        assert all((given[name] or None) == (plain[name] or None) for name in values if name in plain)


def test_a_slip_in_a_preset_is_refused(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("preset: true\nenable_smoothing: true\nstepz: 3\n")
    assert main(["edit", "film.mp4", "--config", str(tmp_path / "mine.yaml")]) == 2
    assert "mine.yaml:3" in capsys.readouterr().err
    (tmp_path / "mine.yaml").write_text("preset: 3\n")
    assert main(["edit", "film.mp4", "--config", str(tmp_path / "mine.yaml")]) == 2
    assert "preset is 3; expected true or false" in capsys.readouterr().err


def test_other_names_of_settings_are_understood_in_files_and_flags(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 7\nguide_scale: 2.0\nsigma_shift: 4.0\nseed: 3\ntiled: true\n", encoding="utf-8")
    for command in ("generate", "edit"):
        found = parse(path, command=command)
        assert (found.num_inference_steps, found.guidance_scale, found.shift) == (7, 2.0, 4.0)
        assert (found.base_seed, found.tile) == (3, 256)
    # A method's own options keep their names.
    words = ["edit", "--method_options", '{"seed": 1, "steps": 2}']
    assert build_parser("edit").parse_args(words).edit.method_options == {"seed": 1, "steps": 2}


def test_no_path_of_a_machine():
    pattern = re.compile(r"(?<![\w.:/])/(?:work|root|home|Users|mnt)/\w")
    found = [
        str(path.relative_to(ROOT)) for path in sources() if pattern.search(path.read_text("utf-8", "ignore"))
    ]
    assert not found


@pytest.mark.parametrize(
    "name", ["constraints.txt", "Makefile", ".ci/run", "pyproject.toml", ".pre-commit-config.yaml"]
)
def test_no_address_to_install_from(name):
    assert "://" not in read(name)


def test_constraints_are_exact_versions_and_nothing_else():
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []


def test_every_requirement_is_pinned_to_a_version_that_it_allows():
    lines = read("constraints.txt").splitlines()
    pins = {canonicalize_name(a): b for a, _, b in (line.partition("==") for line in lines)}
    extras = project()["optional-dependencies"]
    for requirement in map(Requirement, [*project()["dependencies"], *extras["dev"]]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_the_readme_names_commands_that_exist():
    named = set(re.findall(r"(?:^\s*(?:\$ )?|`)make ([a-z]+)", read("README.md"), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets()


def test_the_machine_check_runs_tests_and_lint():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert {"make test", "make lint"} <= set(read(".ci/run").splitlines())
    assert {"demo", "test", "lint", "format", "clean"} <= targets()


def test_make_refuses_an_old_python(tmp_path):
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\ntest "$1" = --version && echo Python 3.9.1 && exit 0\nexit 1\n')
    done = _make(tmp_path, old)
    assert done.returncode
    assert "wanedit needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.1" in done.stderr


def test_an_interrupted_installation_does_not_count(tmp_path):
    folder = tmp_path / "a checkout"
    folder.mkdir()
    # As `python -m venv` that leaves an interpreter whose pip fails.
    breaks = folder / "breaks"
    breaks.write_text(
        '#!/bin/sh\ntest "$2" = pip && exit 1\nmkdir -p .venv/bin && cp breaks .venv/bin/python\n'
    )
    for _ in range(2):
        assert _make(folder, breaks).returncode
        assert not (folder / ".venv" / ".complete").exists()


def _make(folder: Path, python: Path) -> subprocess.CompletedProcess[str]:
    python.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    command = ["make", "-C", str(folder), "demo", f"PYTHON=./{python.name}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_package_carries_wan_tiny(monkeypatch):
    monkeypatch.chdir(ROOT)
    distribution = Distribution()
    distribution.parse_config_files(["pyproject.toml"])
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    build.manifest_files = {}
    shipped = {Path(name) for name in build.find_data_files("wanedit", "wanedit")}
    folder = Path("wanedit", "assets", "wan-tiny")
    assert {folder / "config.json", folder / "google" / "umt5-xxl" / "tokenizer.json"} <= shipped
    assert set(folder.rglob("*.safetensors")) <= shipped


LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def test_every_relative_link_of_a_text_leads_somewhere():
    broken = []
    for path in (path for path in sources() if path.suffix == ".md"):
        named = LINK.findall(CODE.sub("", path.read_text(encoding="utf-8")))
        for target in (a or b for a, b in named):
            place = target.partition("#")[0]
            if place and not re.match(r"[a-z]+:", place) and not (path.parent / place).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


def test_one_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert wanedit.__version__ == project()["version"] == citation["version"]
    assert f"## [{wanedit.__version__}]" in read("CHANGELOG.md")
    assert citation["license"] == project()["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in read("LICENSE")


@pytest.mark.parametrize(
    "name",
    [
        "wanedit.MultiKeyframePipeline",
        "wanedit.GenerationConfig",
        "wanedit.wan.load_wan",
        "wanedit.wan.load_transformer",
        "wanedit.wan.load_vae",
    ],
)
def test_public_names(name):
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_the_command_line_starts_without_torch():
    code = "import sys, wanedit.cli; wanedit.cli.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
