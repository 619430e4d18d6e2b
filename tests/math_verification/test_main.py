"""The command: one table, figures of the same bytes twice, an exit status that tells."""

from pathlib import Path

import pytest

from math_verification.__main__ import main
from math_verification.claims import CLAIMS, recursion
from math_verification.report import Row

LIGHT = [word for name in ("recursion", "degenerate", "tweedie") for word in ("--only", name)]


def test_every_file_of_the_folder_is_a_claim(repository: Path) -> None:
    files = {path.stem for path in (repository / "math_verification" / "claims").glob("[a-z]*.py")}
    assert set(CLAIMS) == files
    assert all(claim.SENTENCE and claim.verify and claim.__doc__ for claim in CLAIMS.values())


def test_the_list_names_every_claim(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed and claim.SENTENCE in listed for name, claim in CLAIMS.items())


def test_two_runs_give_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("first", "second"):
        assert main(["--quick", *LIGHT, "--out", str(tmp_path / run)]) == 0
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == [
        f"{name}.{kind}" for name in ("degenerate", "recursion", "tweedie") for kind in ("pdf", "png")
    ]
    assert all((tmp_path / "first" / n).read_bytes() == (tmp_path / "second" / n).read_bytes() for n in names)
    assert "holds" in capsys.readouterr().out


def test_a_claim_that_fails_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recursion.Recursion, "rows", lambda self: [Row("x", "0", "1", 1.0, 0.0, False)])
    assert main(["--quick", "--only", "recursion", "--out", str(tmp_path)]) == 1
    assert "FAILS" in capsys.readouterr().out


def test_an_unknown_claim_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])


@pytest.mark.slow
def test_the_whole_package(tmp_path: Path) -> None:
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.iterdir())) == 2 * 10
