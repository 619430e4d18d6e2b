"""config.yaml: what it holds, and that one of version 0.1 still resumes its run."""

import shutil
from pathlib import Path

import pytest
import yaml

from tests.runs import GenerationConfig, GenerationResult
from wanedit import EditConfig, EditResult
from wanedit.cli import main
from wanedit.errors import InputError
from wanedit.runtime.directory import RunDirectory
from wanedit.runtime.record import RECORD_MARK, resolve_seed, write_record

# What version 0.1 called the settings that have other names now; a record did not say its job.
OLD_NAMES = {
    "generate": {
        "num_inference_steps": "sample_steps",
        "shift": "sample_shift",
        "guidance_scale": "sample_guide_scale",
        "solver": "sample_solver",
    },
    "edit": {"guidance_scale": "cfg_scale", "source_guidance_scale": "source_cfg_scale"},
}


def as_of_before(folder: Path, copy: Path, job: str) -> Path:
    """A copy of a run's folder whose record is spelt as version 0.1 wrote it; returns the record."""
    shutil.copytree(folder, copy)
    record = copy / "config.yaml"
    values = yaml.safe_load(record.read_text(encoding="utf-8"))
    assert values.pop("job") == job
    values = {OLD_NAMES[job].get(name, name): value for name, value in values.items()}
    assert set(OLD_NAMES[job].values()) <= set(values)
    text = yaml.safe_dump(values | {"output": str(copy)}, sort_keys=False, allow_unicode=True)
    record.write_text(RECORD_MARK + text, encoding="utf-8")
    return record


def test_a_generation_of_version_0_1_is_taken_up(
    finished: GenerationResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = as_of_before(finished.video.parent, tmp_path / "old", "generate")
    assert main(["generate", "--config", str(record)]) == 0
    assert "nothing to sample" in capsys.readouterr().out
    written = yaml.safe_load(record.read_text(encoding="utf-8"))
    assert (written["job"], written["num_inference_steps"]) == ("generate", 2)


def test_an_edit_of_version_0_1_is_taken_up(
    edited: EditResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = as_of_before(edited.video.parent, tmp_path / "old", "edit")
    assert main(["edit", "--config", str(record)]) == 0
    assert "already complete" in capsys.readouterr().out


@pytest.mark.parametrize(("job", "other"), [("generate", "edit"), ("edit", "generate")])
def test_no_job_takes_up_an_old_record_of_another(
    finished: GenerationResult, edited: EditResult, tmp_path: Path, job: str, other: str
) -> None:
    made = {"generate": finished.video, "edit": edited.video}[job]
    folder = as_of_before(made.parent, tmp_path / "old", job).parent
    config = {"generate": GenerationConfig, "edit": EditConfig}[other](output=str(folder))
    with pytest.raises(InputError, match=f"holds a run of the job {job}"):
        resolve_seed(config, RunDirectory(config.folder, config.final_path))


def test_a_record_is_read_from_anywhere_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    config = GenerationConfig(
        output="out", ckpt_dir="model", force_regenerate=True, resume_from=1, base_seed=3
    )
    directory = RunDirectory(config.folder, config.final_path)
    directory.root.mkdir()
    write_record(directory, config)
    text = directory.config.read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    assert text.startswith(RECORD_MARK)
    assert (values["output"], values["ckpt_dir"]) == (str(tmp_path / "out"), str(tmp_path / "model"))
    assert (values["job"], values["model"], values["base_seed"]) == ("generate", "tiny", 3)
    assert (values["force_regenerate"], values["resume_from"]) == (False, None)
