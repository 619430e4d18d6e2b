"""benchmarks/peers.py: rows are kept as they are measured, a race goes on where it was cut short, a peer may fail."""

from pathlib import Path

import pytest
import torch

from benchmarks import peers
from benchmarks.peers import Row, lines_of, main


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two rows in the place of the real ones; lists those that are made."""
    seen: list[str] = []

    def row(name: str, factor: float) -> Row:
        def make() -> dict[str, peers.Contender]:
            seen.append(name)
            x = torch.ones(4)

            def broken() -> torch.Tensor:
                raise RuntimeError("no such kernel\nand more")

            return {"wanedit": lambda: x, "diffusers": lambda: factor * x, "diffsynth": broken}

        return Row(name, make)

    monkeypatch.setattr(peers, "rows", lambda: iter([row("one", 1.0), row("two", 1.5)]))
    for name in ("memory_rows", "profile_rows"):
        monkeypatch.setattr(peers, name, lambda: iter(()))
    monkeypatch.setattr(peers, "whole_processes", lambda rounds: iter(()))
    return seen


def raced(monkeypatch: pytest.MonkeyPatch, out: Path, *flags: str) -> None:
    monkeypatch.setattr("sys.argv", ["peers", "--out", str(out), "--rounds", "4", *flags])
    assert main() == 0


def test_rows_are_measured_once_and_told(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "peers.jsonl"
    raced(monkeypatch, out, "--only", "two")
    assert made == ["two"]
    [line] = lines_of(out)
    assert line["differences"] == {"diffusers": 0.5}
    assert line["failed"] == {"diffsynth": "RuntimeError: no such kernel"}
    assert {name: len(times) for name, times in line["seconds"].items()} == {"wanedit": 4, "diffusers": 4}
    # Cut short in the middle of a line.
    out.write_text(out.read_text() + '{"row": "one", "sec')
    assert len(lines_of(out)) == 1
    raced(monkeypatch, out)
    assert made == ["two", "one"]
    assert [line["row"] for line in lines_of(out)] == ["two", "one"]
    raced(monkeypatch, out, "--table")
    raced(monkeypatch, out)
    assert made == ["two", "one"]
    said = capsys.readouterr().out
    assert "| two | wanedit " in said
    assert "of diffusers | diffusers 5.0e-01 diffsynth: RuntimeError: no such kernel |" in said


def test_the_ratio_is_taken_round_by_round() -> None:
    line = {
        "row": "r",
        "seconds": {"wanedit": [1.0, 10.0, 1.0], "diffusers": [2.0, 20.0, 2.0], "diffsynth": [9.0] * 3},
    }
    assert "| 2.00 (2.00 … 2.00) of diffusers |" in peers.told(line)


def test_one_row_is_run_by_its_whole_name_and_all_are_listed(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "rows", lambda: iter([Row("a 1", dict), Row("a 1 b", dict)]))
    raced(monkeypatch, tmp_path / "none.jsonl", "--list")
    assert capsys.readouterr().out.splitlines()[:2] == ["a 1", "a 1 b"]
    assert not (tmp_path / "none.jsonl").exists()
    monkeypatch.setattr(peers, "race", lambda row, rounds: {"seconds": {"wanedit": [1.0]}})
    out = tmp_path / "peers.jsonl"
    raced(monkeypatch, out, "--only", "a 1.")
    assert [line["row"] for line in lines_of(out)] == ["a 1"]


def test_the_peak_of_a_contender_is_what_it_takes_at_most() -> None:
    taken = 200_000_000

    def run() -> torch.Tensor:
        return torch.ones(taken // 4).sum()

    def broken() -> torch.Tensor:
        raise RuntimeError("none")

    found = peers.peaks(Row("r", lambda: {"wanedit": run, "diffusers": broken}))
    assert found["bytes"]["wanedit"] == pytest.approx(taken, rel=0.1)
    assert found["failed"] == {"diffusers": "RuntimeError: none"}
    assert (
        peers.told({"row": "memory r", **found})
        == "| memory r | wanedit 200 MB | | diffusers: RuntimeError: none |"
    )


def test_a_profile_tells_products_from_the_rest() -> None:
    x = torch.ones(64, 64)
    row = Row("one", lambda: {"wanedit": lambda: x @ x, "diffusers": lambda: x.exp()})
    ours, theirs = peers.profiled(row)["spent"].values()
    assert ours["products"] > 0 == theirs["products"]
    assert theirs["rest"] > 0
