"""The notebooks of examples/ run from top to bottom, each in a folder of its own."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples" / "notebooks").glob("*.ipynb"))
# What a notebook promises: so many lines of code do it, those that find the examples aside.
LINES = {"generate": 10, "edit": 14, "method": 20}


def cells(path: Path) -> list[str]:
    book = json.loads(path.read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in book["cells"] if cell["cell_type"] == "code"), (
        "kept without outputs"
    )
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["edit", "generate", "method", "reading_a_run"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, object] = {}
    for code in cells(path):
        if code.startswith("%%writefile "):
            first, _, text = code.partition("\n")
            (tmp_path / first.split()[1]).write_text(text, encoding="utf-8")
        elif "IPython" not in code:
            exec(compile(code, path.name, "exec"), names)
    assert list((tmp_path / "outputs").glob("notebook_*"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_as_short_as_it_says(path: Path) -> None:
    assert len(cells(path)[1].splitlines()) <= LINES.get(path.stem, 20)
