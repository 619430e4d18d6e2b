"""The paper says what the records say: same bytes twice, nothing stale, no number by hand."""

import io
import math
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from math_verification.__main__ import main as verify
from math_verification.claims import CLAIMS as MODULES
from math_verification.store import read
from paper.make import __main__ as paper
from paper.make import records
from paper.make.ablations import MOST_PANELS, Experiment, _panel
from paper.make.ablations import make as make_ablations
from paper.make.arxiv import archive
from paper.make.look import SERIES, write_strips
from paper.make.propagation import load
from paper.make.records import CLAIMS, JOINS, JUNCTION_FAULTS, PAPER, PROPAGATION, ROOT, MissingRecordError
from paper.make.statistics import paired
from paper.make.tex import Numbers

KEY = re.compile(r"\\val\{([^}]*)\}")
# Arguments that are names, not text.
NAMES = re.compile(
    r"\\(?:val|ref|eqref|label|cite|input|includegraphics|texttt|paragraph)\{[^}]*\}|\\setlength\{[^}]*\}\{[^}]*\}"
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    assert paper.main(["--out", str(folder)]) == 0
    return folder


def files(folder: Path) -> dict[str, bytes]:
    found = [
        *folder.glob("figures/*.pdf"),
        *folder.glob("tables/*.tex"),
        folder / "numbers.tex",
        folder / "ablations.tex",
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def source() -> str:
    text = (PAPER / "main.tex").read_text(encoding="utf-8")
    return re.sub(r"(?<!\\)%.*", lambda m: m[0] if m[0].startswith("%%%") else "", text)


def test_two_builds_are_the_same_bytes(made: Path, tmp_path: Path) -> None:
    paper.make(tmp_path)
    assert files(tmp_path) == files(made)


def test_what_is_committed_is_what_the_records_give(made: Path) -> None:
    ours, committed = files(made), files(PAPER)
    assert ours.keys() == committed.keys(), "run `make figures`"
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    same_drawing = all(
        module.__version__ == pins[module.__name__] for module in (matplotlib, __import__("numpy"))
    )
    stale = [
        name for name in ours if ours[name] != committed[name] and (same_drawing or name.endswith(".tex"))
    ]
    assert not stale, "run `make figures`"


def test_every_number_of_the_text_is_made_and_every_one_made_is_used(made: Path) -> None:
    used = set(KEY.findall(source()))
    assert used == set(
        re.findall(r"csname val:([^\\]*)\\endcsname", (made / "numbers.tex").read_text("utf-8"))
    )


def test_no_result_is_typed_by_hand() -> None:
    results = source().split("%%% results: no digits by hand from here")[1].split("%%% results end")[0]
    results = NAMES.sub("", results)
    typed = [line for line in results.splitlines() if re.search(r"\d", re.sub(r"FLF2V|[a-z]_\d", "", line))]
    assert not typed


def test_everything_that_the_text_takes_in_is_there() -> None:
    text = source()
    taken = [
        *re.findall(r"includegraphics\{(.*?)\}", text),
        *(f"{n}.tex" for n in re.findall(r"\\input\{(.*?)\}", text)),
    ]
    assert len(taken) > 8
    assert [name for name in taken if not (PAPER / name).exists()] == []
    assert set(re.findall(r"\\cite\{(.*?)\}", text)) <= set(re.findall(r"\\bibitem\{(.*?)\}", text)) | {
        "lipman,liu",
        "robbins,efron",
        "matheron,wilson",
    }


def test_differences_are_those_of_the_experiments_own_table() -> None:
    groups = load()
    found = paired(groups["none", 8, "covariance"], groups["none", 8, "flowedit"])
    line = "| flowedit | {:+.2f} ({:+.2f} … {:+.2f}) |".format(*found)
    assert line in (PROPAGATION / "results" / "table.md").read_text(encoding="utf-8")


def test_gains_of_ablations_are_those_of_their_own_tables() -> None:
    spacing, joins = Experiment(records.EXPERIMENTS / "03_keyframe_spacing"), Experiment(JOINS)
    for found, words, place in (
        (spacing, "covariance | 8", {"method": "covariance", "spacing": "8"}),
        (joins, "apart, unrestored | 64 | 64", {"joins": "apart, unrestored", "scenes": "64"}),
    ):
        gain = found.gain(found.measures[0], **place)
        assert gain is not None
        digits = 3 if abs(gain.mean) < 1 else 2
        told = "{:+.{d}f} ({:+.{d}f} … {:+.{d}f})".format(*gain[:3], d=digits)
        table = (found.folder / "results" / "table.md").read_text(encoding="utf-8")
        assert f"| {words} | {told} |" in table.split("## Paired differences")[1]
    at_baseline = spacing.gain("psnr_off", method="flowedit", spacing="8")
    assert at_baseline is not None
    assert at_baseline[:3] == (0, 0, 0)
    assert spacing.gain("psnr_off", method="nobody", spacing="8") is None


def test_frames_are_kept_with_what_they_are(tmp_path: Path) -> None:
    rows = {
        name: [np.full((8, 16, 3), level, np.uint8)] * 2 for name, level in (("dark", 20), ("light", 220))
    }
    write_strips(tmp_path / "a.png", rows, ["1", "*2, keyframe"], 4, {"steps": 3})
    sheet, about = np.asarray(Image.open(tmp_path / "a.png")), records.read_json(tmp_path / "a.json")
    assert about == {"rows": ["dark", "light"], "columns": ["1", "*2, keyframe"], "steps": 3}
    assert sheet.shape == (4, 8, 3)
    assert (sheet[:2] == 20).all()
    assert (sheet[2:] == 220).all()


def test_a_claim_is_judged_from_its_record_as_it_was_when_measured() -> None:
    for stored in read(CLAIMS, MODULES).values():
        again = stored.result.rows()
        assert [row.what for row in again] == [row.what for row in stored.rows]
        assert [row.passed for row in again] == [row.passed for row in stored.rows]
        assert all(a.error == b.error or math.isnan(a.error) for a, b in zip(again, stored.rows, strict=True))


def test_the_record_of_claims_has_them_all() -> None:
    assert set(read(CLAIMS, MODULES)) == set(MODULES)


def test_a_claims_run_can_be_kept(tmp_path: Path) -> None:
    words = ["--quick", "--only", "recursion", "--only", "symmetry", "--out", str(tmp_path)]
    for name in ("a.json", "b.json"):
        assert verify([*words, "--json", str(tmp_path / name)]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    kept = read(tmp_path / "a.json", MODULES)
    assert set(kept) == {"recursion", "symmetry"}
    assert all(
        isinstance(stored.result, vars(MODULES[name])[type(stored.result).__name__])
        for name, stored in kept.items()
    )


def test_a_missing_record_names_the_command_that_makes_it(tmp_path: Path) -> None:
    for path, words in (
        (JUNCTION_FAULTS, "paper.make.junction_faults"),
        (CLAIMS, "math_verification --json"),
        (ROOT / "experiments" / "99_none" / "results" / "summary.csv", "wanedit ablate experiments/99_none"),
    ):
        if not path.exists():
            with pytest.raises(MissingRecordError, match=re.escape(words)):
                records.need(path)
        else:
            assert words in records.MAKES[path]


def test_two_numbers_cannot_have_one_name() -> None:
    numbers = Numbers()
    numbers.add("a", 1)
    with pytest.raises(ValueError, match="two numbers"):
        numbers.add("a", 2)


SUMMARY = """kind,steps,measure,mean,low,high,n
first,4,psnr_off,20,19,21,6
first,8,psnr_off,24,23,25,6
second,4,psnr_off,21,20,22,6
second,8,psnr_off,22,21,23,6
"""


def experiment(folder: Path, figures: str) -> Experiment:
    inner = folder / "09_invented"
    (inner / "results").mkdir(parents=True)
    (inner / "grid.yaml").write_text(
        f"title: Invented\nshows: >-\n  Nothing.\nmeasures: [psnr_off]\n{figures}"
    )
    (inner / "results" / "summary.csv").write_text(SUMMARY)
    return Experiment(inner)


def test_a_new_ablation_becomes_a_figure_without_an_edit_of_the_text(tmp_path: Path) -> None:
    found = experiment(tmp_path, "figures: [{x: steps, y: psnr_off, lines: kind, log: true}]\n")
    make_ablations(tmp_path / "out", tmp_path)
    text = (tmp_path / "out" / "ablations.tex").read_text("utf-8")
    assert (tmp_path / "out" / "figures" / f"{found.key}.pdf").exists()
    assert f"figures/{found.key}.pdf" in text
    assert r"kind first 24.00 \interval{23.00}{25.00} at steps 8; kind second 22.00" in text


def test_one_without_numbers_on_an_axis_becomes_a_table(tmp_path: Path) -> None:
    found = experiment(tmp_path, "figures: [{x: kind, y: psnr_off}]\n")
    make_ablations(tmp_path / "out", tmp_path)
    table = (tmp_path / "out" / "tables" / f"{found.key}.tex").read_text("utf-8")
    assert r"first & 8 & 24.00 \interval{23.00}{25.00}" in table


def test_what_has_no_room_is_named_in_the_caption(tmp_path: Path) -> None:
    one = "{x: steps, y: psnr_off, lines: kind}"
    whole = experiment(tmp_path / "whole", f"figures: [{one}]\n")
    cut = experiment(tmp_path / "cut", f"figures: [{', '.join([one] * (MOST_PANELS + 1))}]\n")
    for found in (whole, cut):
        make_ablations(tmp_path / "out", tmp_path / ("cut" if found is cut else "whole"))
        text = (tmp_path / "out" / "ablations.tex").read_text("utf-8")
        assert ("further measures in the folder of the experiment" in text) == (found is cut)


def test_no_line_is_left_out_where_there_are_more_than_looks(tmp_path: Path) -> None:
    found = experiment(tmp_path, "figures: [{x: steps, y: psnr_off, lines: kind}]\n")
    row, kinds = found.rows[0], range(len(SERIES) + 3)
    found.rows = [row | {"kind": str(k), "steps": s} for k in kinds for s in "48"]
    axis = Figure().subplots()
    _panel(axis, found, found.plots()[0], None)
    assert len(axis.get_lines()) == len(kinds)


def test_the_archive_for_arxiv_has_what_the_paper_takes_in_and_the_same_bytes_twice() -> None:
    whole = archive()
    assert whole == archive()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        names = tar.getnames()
        assert not any(
            member.mtime or member.uname or name.startswith(("/", ".."))
            for member, name in zip(tar, names, strict=True)
        )
    assert names[0] == "main.tex"
    assert set(files(PAPER)) == {*names} - {"main.tex"}


def test_a_source_that_is_taken_in_and_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.tex").write_text("\\input{numbers} % \\input{commented}")
    with pytest.raises(FileNotFoundError, match=r"numbers\.tex"):
        archive(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_the_archive_compiles_in_an_empty_folder_without_loose_ends(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive())) as tar:
        tar.extractall(tmp_path, filter="data")
    for _ in range(2):
        subprocess.run(
            ["pdflatex", "-interaction=batchmode", "-halt-on-error", "main.tex"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
    log = (tmp_path / "main.log").read_text("utf-8", "replace")
    assert "undefined" not in log
    assert "multiply defined" not in log
    assert all(float(width) <= 5 for width in re.findall(r"Overfull \\[hv]box \(([\d.]+)pt", log))
