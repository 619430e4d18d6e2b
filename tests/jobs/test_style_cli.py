"""`wanedit style`: help, plan, files and flags, mistakes, signals."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.runs import start_process
from tests.stylists.paintings import PAINTINGS
from tests.stylists.test_extract import scenery
from wanedit.cli import main
from wanedit.errors import ServiceError
from wanedit.runtime.record import RECORD_MARK
from wanedit.stylists.palette.stylist import PaletteStylist
from wanedit.video import load_image, read_frames, write_lossless, write_png


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("a film") / "film.mkv"
    write_lossless(path, scenery(1, 41, 1.5, (48, 64)), 16)
    return path


@pytest.fixture(scope="session")
def painting(film: Path) -> Path:
    path = film.parent / "a painting.png"
    write_png(path, PAINTINGS["dusk"]())
    return path


def test_help_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["style", "--help", "all"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for word in (
        "--style.image",
        "--style.description",
        "--palette.outline",
        "--gemini.image_model",
        "--indices",
    ):
        assert word in text


def test_a_dry_run_makes_nothing(
    film: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "style",
        str(film),
        "--style.image",
        str(painting),
        "--output",
        str(tmp_path / "out"),
        "--dry_run",
    ]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for part in ("frames 0 … 40 of 41", "cuts       none", "calls      of no service", "nothing", "2.00"):
        assert part in text


def test_a_dry_run_of_gemini_needs_no_key(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    words = [
        "style",
        str(film),
        "--style.description",
        "clay",
        "--stylist",
        "gemini",
        "--output",
        str(tmp_path / "o"),
    ]
    assert main([*words, "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "US dollars, estimated" in text
    assert main(words) == 2
    assert "GEMINI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_by_command(film: Path, painting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["style", str(film), "--style.image", str(painting), "--indices", "0,20", "--out", str(tmp_path)]
    assert main(words) == 0
    assert ": keyframes at [0, 20]" in capsys.readouterr().out
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    record = json.loads((tmp_path / "keyframes.json").read_text(encoding="utf-8"))
    assert [entry["cached"] for entry in record["keyframes"]] == [True, True]
    edit = [
        "edit",
        str(film),
        "--keyframes",
        str(tmp_path),
        "--prompt",
        "x",
        "--size",
        "32*32",
        "--num_frames",
        "33",
    ]
    assert main([*edit, "--output", str(tmp_path / "edit"), "--dry_run"]) == 0
    assert "0020.png" in capsys.readouterr().out


def test_files_and_flags(film: Path, painting: Path, tmp_path: Path) -> None:
    overlay = film.parent / "style.yaml"
    values = {
        "video": film.name,
        "style": {"image": painting.name},
        "palette": {"paint": 0.0},
        "max_frames": 1,
    }
    overlay.write_text(yaml.safe_dump(values))
    assert main(["style", "--config", str(overlay), "--output", str(tmp_path), "--quiet"]) == 0
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert written["palette"]["paint"] == 0.0
    assert written["indices"] == [0]
    assert written["style"]["image"] == str(painting)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--style.imag", "x"], "style.image"),
        (["--retries", "many"], "retries"),
        (["--palette.strength", "high"], "strength"),
        (["--stylist", "someone"], "palette"),
        (["--style.description", "nothing known"], "it knows watercolour"),
        ([], "no style"),
        (["--style.description", "ink", "--indices", "0,99"], "frame 99"),
    ],
)
def test_mistakes_are_short(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["style", str(film), "--output", str(tmp_path / "out"), *words]) == 2
    text = capsys.readouterr().err
    assert said in text
    assert len(text.splitlines()) < 10
    assert not (tmp_path / "out").exists()


def test_a_service_that_fails_ends_with_5_and_how_to_go_on(
    film: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(self, request):
        raise ServiceError("503 for the fifth time")

    monkeypatch.setattr(PaletteStylist, "restyle", fail)
    assert main(["style", str(film), "--style.description", "ink", "--output", str(tmp_path)]) == 5
    text = capsys.readouterr().err
    assert "503 for the fifth time" in text
    assert "Resume with:" in text


def test_a_signal_leaves_nothing_partial(film: Path, tmp_path: Path) -> None:
    code = (
        "import time, sys\n"
        "from wanedit.stylists.palette.stylist import PaletteStylist\n"
        "async def wait(self, request):\n"
        "    print('asked', flush=True)\n"
        "    import asyncio; await asyncio.sleep(60)\n"
        "PaletteStylist.restyle = wait\n"
        "from wanedit.cli import main\n"
        f"sys.exit(main(['style', {str(film)!r}, '--style.description', 'ink', '--output', {str(tmp_path)!r}]))\n"
    )
    process = start_process(["-c", code])
    assert process.stdout is not None
    end = time.monotonic() + 60
    while time.monotonic() < end and "asked" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert "Resume with:" in error
    assert not (tmp_path / "keyframes.json").exists()
    assert main(["style", str(film), "--style.description", "ink", "--output", str(tmp_path), "--quiet"]) == 0


OUTSIDE = '''
from dataclasses import dataclass, asdict
from wanedit.stylists.protocol import Estimate, Styled, StyleGuide, Verdict


@dataclass
class Fade:
    """Everything nearer to one level."""

    share: float
    level: int = 128

    settings = {"stylist": "fade"}

    async def analyse(self, reference, keyframes):
        return StyleGuide(summary="faded")

    async def restyle(self, request):
        faded = request.source + self.share * (self.level - request.source.astype(float))
        return Styled(faded.round().astype("uint8"))

    async def verify(self, request, styled, previous):
        return Verdict(structure_kept=True, style_matched=True, consistent=True)

    def estimate(self, keyframes, retries):
        return Estimate(calls=(0, 0), price=(0.0, 0.0))


class Half:
    settings = {}
'''


def test_a_stylist_from_outside(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faded_outside.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    words = ["style", str(film), "--style.description", "any", "--indices", "0", "--quiet", "--out", str(out)]
    mine = [*words, "--stylist", "faded_outside:Fade"]
    picture = out / "keyframes" / "0000.png"
    for share in (0.5, 1.0):
        # Its `settings` say nothing of the share, and yet no answer to another one is taken.
        assert main([*mine, "--stylist_options", json.dumps({"share": share})]) == 0
        source = read_frames(film, [0])[0].astype(float)
        assert np.array_equal(load_image(picture).pixels, (source + share * (128 - source)).round())
    record = json.loads((out / "keyframes.json").read_text(encoding="utf-8"))
    assert record["stylist"]["options"] == {"share": 1.0}
    assert yaml.safe_load((out / "config.yaml").read_text())["stylist"] == "faded_outside:Fade"
    for options, said in (({}, "missing a required argument: 'share'"), ({"colour": 1}, "(share: float")):
        assert main([*mine, "--stylist_options", json.dumps(options)]) == 2
        assert said in capsys.readouterr().err
    # Its code decides too: the very file another, and nothing of the cache is taken.
    (tmp_path / "faded_outside.py").write_text(OUTSIDE.replace("level: int = 128", "level: int = 250"))
    assert main([*mine, "--stylist_options", '{"share": 1.0}']) == 0
    assert np.all(load_image(picture).pixels == 250)
    assert yaml.safe_load((out / "config.yaml").read_text())["module_folders"] == [str(tmp_path)]
    for named, said in (("math:pi", "something that is called"), ("builtins:dict", "lacks members of")):
        assert main([*words, "--stylist", named]) == 2
        assert said in capsys.readouterr().err
    assert main([*words, "--stylist", "faded_outside:Half"]) == 2
    assert "lacks members of wanedit.stylists.protocol.Stylist" in capsys.readouterr().err
    assert main([*words, "--stylist", "faded_outside:None_such"]) == 2
    assert "expected package.module:Name" in capsys.readouterr().err
    # Those of the package take options too, over their sections.
    assert main([*words, "--stylist_options", '{"paper": 2.0}']) == 2
    assert "palette.paper is 2.0" in capsys.readouterr().err


def test_a_folder_of_another_job_is_left_alone(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(f"{RECORD_MARK}job: edit\nvideo: a.mp4\n")
    words = ["style", str(film), "--style.description", "ink", "--indices", "0", "--quiet"]
    for dry in ([], ["--dry_run"]):
        assert main([*words, "--out", str(tmp_path), *dry]) == 2
        assert "holds a run of the job edit" in capsys.readouterr().err
    assert main([*words, "--out", str(tmp_path / "styled")]) == 0
    # A record is a configuration, of this job alone.
    own = ["--config", str(tmp_path / "styled" / "config.yaml"), "--dry_run"]
    assert main(["style", *own]) == 0
    assert main(["edit", *own]) == 2
    assert "job" in capsys.readouterr().err
    # One without a mark may be somebody's own, wherever it lies.
    config = tmp_path / "styled" / "config.yaml"
    config.write_text(config.read_text().removeprefix(RECORD_MARK).replace("job: style\n", ""))
    assert main([*words, "--out", str(tmp_path / "styled")]) == 2
    assert "config.yaml is not a record of wanedit" in capsys.readouterr().err
    config.unlink()
    assert main([*words, "--out", str(tmp_path / "styled")]) == 0
