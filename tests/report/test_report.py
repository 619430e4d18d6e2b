"""Reports of real runs, whole and not: what stands in the file, and what must not."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from tests.runs import Heard
from tests.video.test_sound import film, packets
from wanedit import EditResult, GenerationResult
from wanedit.cli import main
from wanedit.errors import InputError
from wanedit.report import write_comparison, write_report
from wanedit.report.clips import gather
from wanedit.report.record import read_record
from wanedit.runtime.inputs import run_folder
from wanedit.video import probe, read_frames, write_video
from wanedit.video.arrays import Clock
from wanedit.video.sound import Sound


@pytest.fixture
def edit_copy(edited: EditResult, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    return Path(shutil.copytree(edited.video.parent, tmp_path / "run"))


@pytest.fixture
def chain_copy(finished: GenerationResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.video.parent, tmp_path / "chain"))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def sections(text: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', text)


def test_an_edit_has_all_its_parts(edit_copy: Path, heard: Heard) -> None:
    path = write_report(edit_copy, metrics="keyframes,fidelity")
    text = read(path)
    assert path == edit_copy / "report.html"
    parts = ["player", "keyframes", "reach", "convergence", "metrics", "plan", "config", "provenance"]
    assert sections(text) == parts
    assert re.search(r"the edit reached: -?\d+% of it is carried off the keyframes", text)
    assert text.count("<video ") == text.count("data:video/mp4;base64,") == 4
    assert "a blue square" in text
    assert 'data-keyframes="0,8"' in text
    assert "Not all is here" not in text
    drawn = [f"drawing {title}" for title in ("Source", "Edited", "Keyframes", "Difference")]
    assert [label for label, *_ in heard if not label.startswith("reading")] == [
        "measuring", "comparing with the source", *drawn,
    ]  # fmt: skip
    assert [row for row in heard if row[2:] != [9, 9]] == []


def test_a_generation_has_its_joins(chain_copy: Path) -> None:
    text = read(write_report(chain_copy, metrics="none"))
    assert sections(text) == ["player", "keyframes", "junctions", "metrics", "plan", "config", "provenance"]
    assert 'data-keyframes="0,4,8,13"' in text
    assert text.count("Join at frame") == 2  # a keyframe's marker stands for both on the time line
    assert "not asked for" in text


def test_the_sound_of_the_film_can_be_heard(edit_copy: Path, tmp_path: Path) -> None:
    assert "Muted" not in read(write_report(edit_copy, metrics="none"))
    made, source = probe(edit_copy / "output_final.mp4"), film(tmp_path / "film.mp4")
    frames, seconds = read_frames(made.path), Fraction(made.frames) / made.fps
    write_video(made.path, frames, made.fps, made.metadata, sound=Sound(source, Fraction(0), seconds))
    text = read(write_report(edit_copy, metrics="none"))
    assert text.count(' data-sound="') == 1
    assert '<option value="">Muted</option><option value="Edited">Sound: Edited</option>' in text
    [content] = re.findall(r'data:video/mp4;base64,([\w+/=]+)"[^>]* data-sound="Edited"', text)
    (tmp_path / "heard.mp4").write_bytes(base64.b64decode(content))
    assert packets(tmp_path / "heard.mp4") == packets(made.path) != []
    # Frames that the page shows at other times than the film are shown without it, and the page says so.
    ticks = tuple(10 * k + 200 * (k > 4) for k in range(made.frames))
    clock = Clock(ticks, ticks[-1] + 10, Fraction(1, 100))
    write_video(
        made.path, frames, made.fps, made.metadata, sound=Sound(source, Fraction(0), seconds), clock=clock
    )
    text = read(write_report(edit_copy, metrics="none"))
    assert "on this page the film&#39;s sound is left out: at " in text
    assert "Muted" not in text


def test_no_folder_of_the_machine_is_told(edit_copy: Path, chain_copy: Path, edited: EditResult) -> None:
    for root in (edit_copy, chain_copy):
        visible = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", read(write_report(root)))
        for folder in (root.parent, edited.video.parent.parent, Path.home(), Path.cwd()):
            assert str(folder) not in visible
        assert not re.search(r"[\s\"'>(](/tmp|/home|/root|/work)/", visible)


def test_the_same_run_gives_the_same_bytes(edit_copy: Path, tmp_path: Path) -> None:
    first, second = (write_report(edit_copy, tmp_path / f"{k}.html", "none").read_bytes() for k in "ab")
    assert first == second


def test_nothing_but_the_file_itself_is_allowed(edit_copy: Path) -> None:
    text = read(write_report(edit_copy, metrics="none"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert content is not None
        assert base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode() in policy[1]
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert " style=" not in text
    assert not re.search(r"\son\w+=", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


def test_the_size_of_the_file_is_told(edit_copy: Path) -> None:
    path = write_report(edit_copy, metrics="none")
    told = re.search(r"One file of ([\d.]+) MB", read(path))
    assert told is not None
    assert float(told[1]) == pytest.approx(path.stat().st_size / 1e6, abs=0.01)


def test_a_run_that_was_moved_is_found(edit_copy: Path) -> None:
    assert run_folder(edit_copy / "output_final.mp4") == edit_copy
    record = read_record(edit_copy)
    assert record.video == edit_copy / "output_final.mp4"


def test_steps_are_those_of_the_edit_that_is_there(edit_copy: Path) -> None:
    log = edit_copy / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    start = next(line for line in lines if line["event"] == "start")
    other = [start | {"edit": "another"}, {"event": "step", "step": 0, "sigma": 9.0}]
    # Another edit before, a killed attempt, and at the end a run that only wrote its video again.
    torn = [*other, start, {"event": "step", "step": 0, "sigma": 8.0}, *lines, start]
    log.write_text("".join(json.dumps(line) + "\n" for line in torn) + '{"event": "st', encoding="utf-8")
    record = read_record(edit_copy)
    assert [step["sigma"] for step in record.edit[1]] == [s["sigma"] for s in lines if s["event"] == "step"]
    assert any("1 of" in note and "cannot be read" in note for note in record.notes)


def damaged(value: object, wrong: object) -> Iterator[object]:
    """A recorded value with one of its parts, however deep, replaced."""
    yield wrong
    if isinstance(value, dict):
        for name, part in value.items():
            yield from (value | {name: other} for other in damaged(part, wrong))


@pytest.mark.parametrize("wrong", [[1, "a"], 7, 0, "a", None], ids=repr)
def test_a_record_of_wrong_types_still_makes_a_page(
    edit_copy: Path, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures have no part in it and would take minutes."""
    monkeypatch.setattr("wanedit.report.page.player", lambda *_: None)
    monkeypatch.setattr("wanedit.report.page.keyframe_stills", lambda *_: None)
    known = gather(read_record(edit_copy))
    monkeypatch.setattr("wanedit.report.page.gather", lambda _: known)
    log = edit_copy / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for kind in ("start", "step", "edited"):
        k = [line["event"] for line in lines].index(kind)
        for other in damaged(lines[k], wrong):
            log.write_text("".join(json.dumps(e) + "\n" for e in [*lines[:k], other, *lines[k + 1 :]]))
            assert "</html>" in read(write_report(edit_copy, metrics="none"))


def test_a_run_whose_inputs_have_gone_shows_what_there_is(edit_copy: Path) -> None:
    path = edit_copy / "config.yaml"
    values = yaml.safe_load(read(path)) | {"video": "/gone/source.mkv"}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    text = read(write_report(edit_copy))
    assert "Not all is here" in text
    assert text.count("<video ") == 1
    assert "/gone" not in text
    assert "source and keyframes are not shown" in text
    assert "convergence" in sections(text)


def test_an_unfinished_generation_shows_its_plan(chain_copy: Path) -> None:
    (chain_copy / "output_final.mp4").unlink()
    for segment in sorted((chain_copy / "segments").glob("*.mkv"))[1:]:
        segment.unlink()
    text = read(write_report(chain_copy))
    assert "the run is not complete" in text
    assert "There are no frames to show" in text
    assert "plan" in sections(text)


def test_a_comparison_says_first_what_differs(edit_copy: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(edit_copy, tmp_path / "twin"))
    path = twin / "config.yaml"
    values = yaml.safe_load(read(path)) | {"crf": 20, "output": "/elsewhere"}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    text = read(write_comparison([edit_copy, twin], tmp_path / "new" / "both.html", "keyframes"))
    assert sections(text)[:2] == ["differences", "player"]
    assert "1 of" in text
    assert (
        '<th scope="row">crf</th><td><span class="wrap">16</span></td><td><span class="wrap">20</span>'
        in text
    )
    # One source for both, two results, two differences.
    assert text.count("<video ") == 5
    for name in ("run", "twin"):
        assert f'<th scope="col">{name}</th>' in text


def test_runs_of_one_name_are_told_apart(edit_copy: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(edit_copy, tmp_path / "other" / "run"))
    text = read(write_comparison([edit_copy, twin], tmp_path / "both.html", "none"))
    assert "other/run" in text
    assert "The settings are the same" in text


def test_a_generation_and_an_edit_can_be_compared(edit_copy: Path, chain_copy: Path, tmp_path: Path) -> None:
    text = read(write_comparison([edit_copy, chain_copy], tmp_path / "both.html", "none"))
    assert text.count("<video ") == 4


def test_what_is_no_run_is_refused(edit_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no run: neither metrics\.jsonl nor segments/progress\.json"):
        write_report(tmp_path / "empty")
    # As the settings of an example stand beside its source.
    (tmp_path / "empty" / "config.yaml").write_text("keyframes: []")
    with pytest.raises(InputError, match="holds settings, but no run"):
        write_report(tmp_path / "empty")
    film = shutil.copy(edit_copy / "output_final.mp4", tmp_path / "empty" / "source.mp4")
    with pytest.raises(InputError, match=r"source\.mp4 is no film of a run"):
        write_report(Path(film))
    assert [path.name for path in (tmp_path / "empty").glob("*.html")] == []
    (tmp_path / "empty" / "metrics.jsonl").touch()
    (tmp_path / "empty" / "config.yaml").unlink()
    with pytest.raises(InputError, match=r"config\.yaml: does not exist"):
        write_report(tmp_path / "empty")
    (tmp_path / "empty" / "config.yaml").write_text("just words")
    with pytest.raises(InputError, match="holds no settings"):
        write_report(tmp_path / "empty")
    with pytest.raises(InputError, match=r"expected the name of an \.html file"):
        write_report(edit_copy, tmp_path / "report.mp4")
    with pytest.raises(InputError, match="two different ones"):
        write_comparison([edit_copy, edit_copy], tmp_path / "x.html")
    with pytest.raises(InputError, match="metrics names"):
        write_report(edit_copy, metrics="beauty")


def test_the_command(
    edit_copy: Path, chain_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["report", str(edit_copy), "--metrics", "none"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert main(["report", str(edit_copy), str(chain_copy)]) == 2
    assert "expected --output FILE.html" in capsys.readouterr().err
    both = tmp_path / "both.html"
    assert (
        main(["report", str(edit_copy), str(chain_copy), "--output", str(both), "--metrics=none", "--quiet"])
        == 0
    )
    assert capsys.readouterr().out == ""
    assert both.is_file()
