"""`wanedit clean`: what it lists, what it removes, and what it leaves alone."""

import json
import shutil
from pathlib import Path

import pytest

from tests.runs import command, run_cli
from wanedit import GenerationResult
from wanedit.runtime.directory import RunDirectory


@pytest.fixture
def changed(keyframes: list, finished: GenerationResult, tmp_path: Path) -> Path:
    """A run of three segments whose last prompt has changed since: a fourth file, with its latents, is of before."""
    out = tmp_path / "out"
    shutil.copytree(finished.video.parent, out)
    again = run_cli(*command(keyframes, out, "--save_latents", '--sub_prompts=["","","else"]'))
    assert again.code == 0, again.err
    assert f"{out} holds 2 files that this run does not need" in again.out
    return out


def files(out: Path) -> set[str]:
    return {path.name for path in out.rglob("*") if path.is_file()}


def test_segments_of_earlier_settings_are_listed_and_go(changed: Path, keyframes: list) -> None:
    before = files(changed)
    listed = run_cli("clean", str(changed))
    assert listed.code == 0
    assert listed.out.count("of earlier settings") == 2
    assert f"wanedit clean {changed} --yes removes them" in listed.out
    assert files(changed) == before
    assert run_cli("clean", str(changed), "--dry_run").out == listed.out

    cleaned = run_cli("clean", str(changed / "output_final.mp4"), "--yes")
    assert cleaned.code == 0
    gone = before - files(changed)
    assert {Path(name).suffix for name in gone} == {".mkv", ".safetensors"}
    assert {name[:11] for name in gone} == {"segment_002"}
    assert run_cli("clean", str(changed)).out == "nothing to remove\n"
    # The run is as complete as it was.
    again = run_cli(*command(keyframes, changed, "--save_latents", '--sub_prompts=["","","else"]'))
    assert "3 already complete" in again.out
    assert "does not need" not in again.out


def test_what_wanedit_did_not_write_stays(changed: Path) -> None:
    strange = [changed / "segments" / name for name in ("segment_9.mkv", "notes.txt", "mine.partial")]
    strange += [changed / name for name in ("workers.log", ".worker_error.json", ".archive.7z.partial")]
    for path in strange:
        path.write_text("mine")
    killed = changed / "segments" / ".segment_001.mkv.123.partial"
    orphan = changed / "segments" / "segment_007_0123456789ab.mkv"
    killed.write_text("half")
    orphan.write_text("whole")
    listed = run_cli("clean", str(changed)).out
    assert f"{killed}  0.00 MB  half-written" in listed
    assert f"{orphan}  0.00 MB  in no journal" in listed
    assert run_cli("clean", str(changed), "--yes", "--quiet").out == ""
    assert all(path.is_file() for path in strange)
    assert not killed.exists()
    assert not orphan.exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "segments/progress.json"])
def test_the_folder_of_another_program_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "segments").mkdir()
    (tmp_path / name).write_text('{"loss": 1}\n')
    (tmp_path / "segments" / "segment_000_0123456789ab.mkv").write_text("theirs")
    refused = run_cli("clean", str(tmp_path), "--yes")
    assert refused.code == 2
    assert "holds no record that wanedit wrote" in refused.err
    assert (tmp_path / "segments" / "segment_000_0123456789ab.mkv").exists()


def test_a_run_that_does_not_say_its_segments_is_left_alone(changed: Path) -> None:
    metrics, kept = changed / "metrics.jsonl", []
    for line in metrics.read_text().splitlines():
        event = json.loads(line)
        for name in ("segments", "keeps"):
            event.pop(name, None)
        kept.append(json.dumps(event) + "\n")
    metrics.write_text("".join(kept))
    refused = run_cli("clean", str(changed), "--yes")
    assert refused.code == 2
    assert "does not say which segments the run has" in refused.err


def test_a_run_at_work_is_not_cleaned(changed: Path) -> None:
    with RunDirectory(changed, changed / "output_final.mp4").lock():
        assert run_cli("clean", str(changed), "--yes").code == 4


def test_listing_and_removing_at_once_is_refused(changed: Path) -> None:
    assert "yes and dry_run are both given" in run_cli("clean", str(changed), "--yes", "--dry_run").err
